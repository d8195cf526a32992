"""Send pictures to a running Triton Inference Server, and compare its answers with those of the file itself."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.metadata import EngineMetadata, check_file
from ssdtrt.artifact.precision import PRECISIONS
from ssdtrt.benchmarking.timing import quantile
from ssdtrt.detection.postprocessor import Postprocessor
from ssdtrt.detection.results import Detections
from ssdtrt.detection.unpacking import Chosen, unpack
from ssdtrt.engine.parity import relative_l2
from ssdtrt.errors import ArtifactError, CompileError, GpuError, ImageError, SsdtrtError
from ssdtrt.images.tensors import normalize
from ssdtrt.model.boxes import box_iou
from ssdtrt.reading.addresses import PUBLIC
from ssdtrt.reading.fetch import load_picture
from ssdtrt.reading.read_ahead import worker_count
from ssdtrt.reading.reader import PictureReader, PreparedPicture
from ssdtrt.runners.runner import FileRunner, load_engine
from ssdtrt.serving.triton.client import TritonServer, json_list
from ssdtrt.serving.triton.config import TYPES, Served, served
from ssdtrt.serving.triton.report import CheckedPicture, TritonCheck, TritonLatency
from ssdtrt.serving.triton.repository import model_name
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.progress import Progress, silent, tracked
from ssdtrt.system.report import counted

_SAME_IOU, _SAME_SCORE = 0.9, 0.02  # from which on two detections of a class are the same, and up to which


@dataclass
class _Model:
    """The model on the server: what its configuration says, and how it is called."""

    server: TritonServer
    name: str
    parameters: dict[str, str]
    tensors: dict[str, list[tuple[str, str, tuple[int, ...]]]]
    version: str = ""

    def __post_init__(self) -> None:
        missing = [key for key in ("sha256", "kind", "precision", "preprocess") if key not in self.parameters]
        if missing:
            raise SsdtrtError(
                f"{self.name} on {self.server.url} is not from ssdtrt triton (its configuration has no parameter "
                f"ssdtrt.{missing[0]}); write it anew with ssdtrt triton."
            )
        self.names, self.labels = json_list(self.parameters, "outputs"), json_list(self.parameters, "labels")

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Run one image, uint8 [1, 3, 300, 300]; return its outputs by the names of the metadata, [1, ...] each."""
        (name, dtype, shape), *_ = self.tensors["inputs"]
        given = images if dtype == "UINT8" else normalize(images, self.parameters["preprocess"])
        if shape[0] > 1:  # A plan of one size.
            given = torch.cat([given, given.new_zeros(shape[0] - 1, *given.shape[1:])])
        outputs = [one for one, _, _ in self.tensors["outputs"]]
        self.version, found = self.server.infer(self.name, (name, dtype, given.numpy()), outputs)
        arrays = {names: torch.from_numpy(np.array(found[one][:1])) for names, one in zip(self.names, outputs)}
        if "loc_conf" in arrays:
            joined = arrays["loc_conf"]
            return {"loc": joined[:, :4], "conf": joined[:, 4:]}
        return arrays


def check_server(
    url: str,
    pictures: Iterable[str | Path],
    *,
    engine: str | Path | None = None,
    model: str | None = None,
    threshold: float = config.THRESHOLD,
    calls: int = config.TRITON_CALLS,
    timeout: float = config.TRITON_SECONDS,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    progress: Progress = silent,
) -> TritonCheck:
    """Check that a server answers as a file does, and measure how long it takes.

    Args:
        url: The address of its gRPC, as for TritonServer.
        pictures: Paths of pictures.
        engine: The file that it serves; None to check no more than that it answers in the right shapes.
        model: The name of the model; by default the file's, else the only one that is ready.
        threshold: The lowest score of detections that are compared.
        calls: How often each picture is sent for the latency.
        timeout: Seconds for each answer.
        value_range: As for Detector.
        max_pixels: As for Detector.
        progress: Called with lines on how far it is.

    Returns:
        The report, with the pictures that did not match among its failures.

    Raises:
        ArtifactError: For a damaged file, or one that Triton does not serve.
        ImageError: For a picture that cannot be read.
        SsdtrtError: If the server does not answer in time, or serves another model.
    """
    metadata = check_file(engine, ("engine", "detector")) if engine is not None else None
    if metadata is not None and not isinstance(metadata, EngineMetadata):
        raise ArtifactError(f"{engine} is an ONNX file; expected an engine, a detector or a plan of ssdtrt compile.")
    with TritonServer(url, timeout) as server:
        progress(f"asking {url}")
        running = server.check_ready()
        name = model or (model_name(engine) if engine else _only_model(server))
        remote = _Model(server, name, *server.describe(name))
        notes: list[str] = ["no file was given with --engine, so nothing was compared but shapes"]
        runner = None
        if engine is not None and metadata is not None:
            _check_same(remote, Path(engine), metadata)
            runner, notes = _load(engine)
        chosen = Chosen(threshold, None, config.MAX_DETECTIONS)
        reader = PictureReader(
            remote.parameters["preprocess"], True, worker_count(), 2 * worker_count(), value_range, max_pixels
        )
        prepared = _readable(reader.with_threads(list(pictures)))
        checked, times = [], []
        for one in tracked(prepared, progress, "sending", "picture"):
            picture, taken = _check_picture(remote, runner, one, chosen, calls)
            checked.append(picture)
            times += taken
    times = times[1:] if len(times) > 1 else times
    return TritonCheck(
        url, running, name, remote.version, remote.parameters["sha256"], runner is not None, tuple(checked),
        TritonLatency(len(times), statistics.median(times), quantile(times, 0.9), quantile(times, 0.99), max(times)),
        tuple(notes), tuple(_failure(one) for one in checked if one.passed is False),
    )  # fmt: skip


def _only_model(server: TritonServer) -> str:
    """The model to check where none is named."""
    names = server.models()
    if len(names) != 1:
        raise SsdtrtError(f"{server.url} has {', '.join(names) or 'no model'} ready; choose one with --model.")
    return names[0]


def _check_same(remote: _Model, engine: Path, metadata: EngineMetadata) -> None:
    """Raise SsdtrtError unless the server has this file, and says of its tensors what the metadata says."""
    digest, there = sha256_file(engine), remote.parameters["sha256"]
    where = f"{remote.name} on {remote.server.url}"
    if digest != there:
        raise SsdtrtError(
            f"{where} is another model: its configuration has the SHA-256 {there}, {engine} has {digest}. Give the file "
            f"that it serves, or write this one into its repository: ssdtrt triton {engine} --name {remote.name}"
        )
    expected = served(metadata)
    for side in ("inputs", "outputs"):
        here = [_shown(one.name, TYPES[one.dtype], _full_shape(expected, one.shape)) for one in getattr(expected, side)]
        found = [_shown(*one) for one in remote.tensors[side]]
        if here != found:
            raise SsdtrtError(f"{where} has the {side} {', '.join(found)}; expected {', '.join(here)} of {engine}.")


def _full_shape(model: Served, shape: Sequence[int | str]) -> tuple[int, ...]:
    """A tensor's shape as the protocol has it: what has no dimension but the batch, has one of 1 there."""
    sizes = tuple(map(int, shape))
    return sizes if model.batch is None else (-1, *(sizes or (1,)))


def _shown(name: str, dtype: str, shape: Sequence[int]) -> str:
    return f"{name} {dtype} [{', '.join(map(str, shape))}]"


def _load(engine: str | Path) -> tuple[FileRunner | None, list[str]]:
    """The file, ready to run; or None, and why this machine cannot."""
    try:
        return load_engine(engine), []
    except (ArtifactError, CompileError, GpuError) as error:  # The file itself was checked before.
        return None, [f"nothing was compared but the SHA-256 and shapes, as the file does not run here: {error}"]


def _readable(prepared: Iterable[PreparedPicture | ImageError]) -> list[PreparedPicture]:
    found = []
    for one in prepared:
        if isinstance(one, ImageError):
            raise one
        found.append(one)
    return found


def _check_picture(
    remote: _Model, runner: FileRunner | None, picture: PreparedPicture, chosen: Chosen, calls: int
) -> tuple[CheckedPicture, list[float]]:
    """Send a picture `calls` times, and compare the last answer; return milliseconds too."""
    pixels = np.asarray(picture.pixels)
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))  # [1, 3, H, W]
    times: list[float] = []
    for _ in range(calls):
        started = time.perf_counter()
        answer = remote(images)
        times.append(1000 * (time.perf_counter() - started))
    found = _detections(_packed(remote, answer), picture, chosen, remote)
    count = int((found.confidence >= chosen.threshold).sum())
    if runner is None:
        return CheckedPicture(picture.name, count), times
    local = _run_file(runner, images)
    expected = _detections(_packed(remote, local), picture, chosen, remote)
    matched, missing = _matched(found, expected, chosen.threshold), _matched(expected, found, chosen.threshold)
    wanted = int((expected.confidence >= chosen.threshold).sum())
    distance = None
    if "loc" in answer:
        distances = [relative_l2(answer[name], local[name]) for name in ("loc", "conf")]
        distance = math.nan if any(map(math.isnan, distances)) else max(distances)
    near = distance is None or distance <= PRECISIONS[runner.precision].bound
    passed = near and matched == count and missing == wanted
    return CheckedPicture(picture.name, count, wanted, matched, distance, passed), times


def _run_file(runner: FileRunner, images: Tensor) -> dict[str, Tensor]:
    """The outputs of the file itself, by the names of the metadata, on the host."""
    if runner.is_detector:
        return dict(zip(("boxes", "labels", "scores", "counts"), (one.cpu() for one in runner.detect(images))))
    return dict(zip(("loc", "conf"), (one.cpu() for one in runner(normalize(images, runner.preprocess)))))


def _packed(remote: _Model, outputs: dict[str, Tensor]) -> np.ndarray:
    """The detections of one picture in the form of `detect_fixed`, [1, K + 1, 6]."""
    try:
        if "loc" in outputs:
            return Postprocessor(torch.device("cpu"))(outputs["loc"], outputs["conf"]).numpy()
        boxes, labels, scores, counts = (outputs[name] for name in ("boxes", "labels", "scores", "counts"))
        rows = torch.cat([boxes, labels[..., None].float(), scores[..., None]], dim=2)  # [1, K, 6]
        last = torch.zeros(1, 1, 6)
        last[0, 0, 0] = counts.flatten()[0]
        return torch.cat([rows, last], dim=1).numpy()
    except (KeyError, RuntimeError, IndexError) as error:
        shapes = ", ".join(f"{name} {list(one.shape)}" for name, one in outputs.items())
        raise SsdtrtError(
            f"{remote.name} on {remote.server.url} answered {shapes}, which are no detections."
        ) from error


def _detections(packed: np.ndarray, picture: PreparedPicture, chosen: Chosen, remote: _Model) -> Detections:
    """All detections of a picture in its pixels, as `detect` has them."""
    every = chosen._replace(threshold=0.0)
    batch = unpack(
        packed, [picture], every, remote.parameters["preprocess"], remote.labels, partial(load_picture, rules=PUBLIC)
    )
    ((_, found),) = batch
    return found


def _matched(some: Detections, others: Detections, threshold: float) -> int:
    """How many of the detections with at least this score are among the others, of any score."""
    sure = some.confidence >= threshold
    if not sure.any() or not len(others):
        return 0
    boxes = torch.from_numpy(np.concatenate([some.xyxy[sure], others.xyxy]))
    count = int(sure.sum())
    same = box_iou(boxes[None])[0][:count, count:].numpy() >= _SAME_IOU
    same &= some.class_id[sure][:, None] == others.class_id
    same &= np.abs(some.confidence[sure][:, None] - others.confidence) <= _SAME_SCORE
    return int(same.any(axis=1).sum())


def _failure(one: CheckedPicture) -> str:
    assert one.expected is not None
    far = f", relative L2 {one.relative_l2:.1e}" if one.relative_l2 is not None else ""
    return (
        f"{one.image}: the server found {counted(one.detections, 'object')} and the file {one.expected}, of which "
        f"{one.matched} are the same{far}"
    )

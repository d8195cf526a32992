"""What only a CUDA GPU with nvImageCodec can show of JPEGs that are decoded there: `pytest -m gpu`."""

import gc
import json
import threading

import numpy as np
import pytest
import torch
from jpeg_files import exif_with, without_tables
from PIL import Image

from conftest import assert_same_detections, gpu_marks, script
from ssdtrt import config
from ssdtrt.detect import Detector
from ssdtrt.detection.results import Detections
from ssdtrt.export import export_module
from ssdtrt.images import gpu_resize
from ssdtrt.images.gpu_decode import why_not
from ssdtrt.images.gpu_resize import resize
from ssdtrt.images.preprocess import resize_image
from ssdtrt.model.boxes import box_iou
from ssdtrt.model.weights import build_model
from ssdtrt.system.digests import sha256_file

pytestmark = [
    *gpu_marks,
    pytest.mark.skipif(
        torch.cuda.is_available() and bool(why_not(torch.device("cuda", 0), "eval")), reason="no nvImageCodec"
    ),
]
SIZES = (
    (64, 48),
    (300, 300),
    (640, 480),
    (480, 640),
    (8, 8),
    (1280, 960),
    (333, 500),
    (1920, 1080),
    (120, 900),
    (640, 427),
)
SAVED = ({"subsampling": 2}, {"subsampling": 1}, {"subsampling": 0}, {"mode": "L"}, {"progressive": True})
DEVICE, COUNT = "cuda", 1000


@pytest.fixture(scope="module")
def scenes_module(tmp_path_factory, full_width):
    """A module of the weights in the package, which find shapes."""
    return export_module(build_model("scenes"), tmp_path_factory.mktemp("scenes") / "scenes.ts")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes as JPEGs: each size, orientation and way to save one with each other; some of 24 megapixels."""
    folder, made, paths = tmp_path_factory.mktemp("jpegs"), script("scenes"), []
    for number in range(COUNT):
        pixels = made.val_scene(11, number, DEVICE).images[0].permute(1, 2, 0).cpu().numpy()
        size = (6000, 4000) if number % 200 == 199 else SIZES[number % len(SIZES)]
        saved = dict(SAVED[number // len(SIZES) % len(SAVED)])
        exif = exif_with(number % 9) if number % 3 else b""
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(saved.pop("mode", "RGB"))
        paths.append(folder / f"{number}.jpg")
        image.save(paths[-1], quality=90, exif=exif, **saved)
    return paths


def detections(module, paths, decode, overlaps=None, many=True):
    """The detections of each picture."""
    detector = Detector(module, DEVICE, decode=decode, workers=8)
    if overlaps is not None:
        detector._overlaps = overlaps
    return [found for _, found in detector.stream(paths, many=many)]


def read_back(line):
    """A line of JSON as the detections that it was written of."""
    found = json.loads(line)
    rows = found["detections"]
    return Detections(
        "",
        found["width"],
        found["height"],
        np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
        np.array([row["label_id"] for row in rows], np.int64),
        np.array([row["score"] for row in rows], np.float32),
    )


def matched(found, expected):
    """How many detections of one side, and of those how many have a partner on the other of their class and an IoU of 0.9."""
    total = partners = 0
    for one, other in ((a, b) for pair in zip(found, expected, strict=True) for a, b in (pair, pair[::-1])):
        total += len(one)
        if len(one) and len(other):
            iou = box_iou(torch.from_numpy(np.concatenate([one.xyxy, other.xyxy]))[None])[0][: len(one), len(one) :]
            same = torch.from_numpy(one.class_id[:, None] == other.class_id[None])
            partners += int(((iou >= 0.9) & same).any(1).sum())
    return total, partners


def test_detections_are_those_of_the_cpu_road(scenes_module, scenes):
    on_gpu, on_cpu = (detections(scenes_module, scenes, decode) for decode in ("gpu", "cpu"))
    assert [(one.image, one.width, one.height) for one in on_gpu] == [
        (one.image, one.width, one.height) for one in on_cpu
    ]
    total, partners = matched(on_gpu, on_cpu)
    assert total > 4 * len(scenes) and partners >= 0.99 * total


def test_batches_staged_ahead_give_the_detections_of_those_in_turn(scenes_module, scenes):
    ahead, in_turn = (detections(scenes_module, scenes[:150], "gpu", overlaps) for overlaps in (True, False))
    by_threads = detections(scenes_module, scenes[:150], "gpu", many=False)
    for other in (in_turn, by_threads):
        for one, expected in zip(other, ahead, strict=True):
            assert_same_detections(one.detections, expected.detections)


@pytest.mark.parametrize("count", [1, 16, 33])
def test_kernels_resize_to_every_byte_of_pillows(count, monkeypatch):
    monkeypatch.setattr(gpu_resize, "_by_torch", pytest.fail)
    random = np.random.default_rng(count)
    for width, height in ((640, 480), (480, 640), (1, 700), (333, 500), (299, 302), (1920, 1080)):
        pixels = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
        pixels[::2] = (pixels[::2] > 127) * np.uint8(255)
        found = resize(torch.from_numpy(pixels).to(DEVICE)).cpu().numpy()
        assert np.array_equal(found, np.stack([resize_image(Image.fromarray(one)) for one in pixels]))


def test_kernels_run_in_a_thread_that_has_not_used_the_gpu_yet():
    pixels = torch.randint(0, 256, (2, 480, 640, 3), dtype=torch.uint8, device=DEVICE)
    found = []
    thread = threading.Thread(target=lambda: found.append(resize(pixels)))
    thread.start()
    thread.join()
    assert torch.equal(found[0], resize(pixels))


def test_weights_out_of_the_cache_stay_until_another_stream_has_used_them():
    """The threads that decode have a stream each, and pictures of many sizes push the weights out."""
    pixels = torch.randint(0, 256, (1, 480, 500, 3), dtype=torch.uint8, device=DEVICE)
    expected, device = resize(pixels).cpu(), pixels.device
    one, other = torch.cuda.Stream(), torch.cuda.Stream()
    gpu_resize._weights.cache_clear()
    with torch.cuda.stream(other):
        taps = gpu_resize.constants(480, 500, device)[1].shape
    torch.cuda.synchronize()
    with torch.cuda.stream(one):
        torch.cuda._sleep(2 * 10**9)  # About a second, in which the weights are not read yet.
        found = resize(pixels)
    with torch.cuda.stream(other):
        for length in range(1000, 1000 + config.RESIZE_CACHE):
            gpu_resize._weights(length, device)
        overwritten = [torch.zeros(size, dtype=torch.int32, device=device) for size in (300, taps) for _ in range(500)]
    torch.cuda.synchronize()
    assert len(overwritten) == 1000 and torch.equal(found.cpu(), expected)


def test_an_engine_in_the_service_decodes_as_detect_does(scenes_module, scenes):
    pytest.importorskip("starlette", reason="needs the extra ray")
    from ssdtrt.serving.service.loaded import LoadedEngine
    from ssdtrt.serving.service.records import EngineFile, ServiceOptions
    from ssdtrt.serving.service.uploads import Refused, Upload

    paths, left = scenes[:50], []  # The last ten are progressive.
    engine = EngineFile(str(scenes_module), sha256_file(scenes_module))
    loaded = LoadedEngine(engine, ServiceOptions(url="", device=DEVICE, decode="gpu"), left.append)
    loaded.capture()
    uploads = [Upload("", path.read_bytes()) for path in paths]
    uploads.insert(7, Upload("b.jpg", without_tables(uploads[7].content)))
    answers = loaded.detect([loaded.prepare(upload) for upload in uploads])
    refused = answers.pop(7)
    assert isinstance(refused, Refused) and refused.status == 422 and "b.jpg" in str(refused)
    expected, found = detections(scenes_module, paths, "gpu"), list(map(read_back, answers))
    assert [(one.width, one.height) for one in found] == [(one.width, one.height) for one in expected]
    total, partners = matched(found, expected)
    assert total > 4 * len(paths) and partners >= 0.99 * total
    assert loaded.info().decode == "gpu" and not left


def test_memory_of_the_gpu_does_not_grow(scenes_module, scenes):
    """Of the device as a whole: nvImageCodec allocates outside torch."""
    detector, free = Detector(scenes_module, DEVICE, decode="gpu", workers=8), []
    for _ in range(6):
        assert sum(1 for _ in detector.stream(scenes[:150], many=True)) == 150
        gc.collect()
        torch.cuda.empty_cache()
        free.append(torch.cuda.mem_get_info()[0])
    assert min(free[2:]) >= free[1] - 64 * 2**20

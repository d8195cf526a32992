"""The actor that detects: one engine on one GPU or CPU, blocks of prepared pictures in, Parquet files out."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdtrt import config
from ssdtrt.clusters.blocks import Row, unread, write_block
from ssdtrt.clusters.prepare import ReadPicture, read_pictures
from ssdtrt.clusters.records import BatchSettings
from ssdtrt.clusters.storage import Folder
from ssdtrt.errors import ImageError, SsdtrtError
from ssdtrt.system.report import Report

if TYPE_CHECKING:
    import pyarrow

    from ssdtrt.reading.reader import Prepared


class ActorJob(Report, frozen=True, kw_only=True):
    """What an actor does.

    Attributes:
        file: The path of the engine on its machine.
        sha256: The SHA-256 that it must have.
        device: `cuda` or `cpu`.
        settings: The settings.
        jpegs: Whether the GPU decodes JPEG files.
        base: The folder that paths are relative to.
        folder: Where the Parquet files go.
        run: The SHA-256 of the manifest.
        token: A name that no other run of the command has.
    """

    file: str
    sha256: str
    device: str
    settings: BatchSettings
    jpegs: bool
    base: str
    folder: str
    run: str
    token: str


class BlockDetector:
    """Detects in blocks of prepared pictures and writes each block's Parquet file.

    Threads may call it: while one call writes, another one detects.

    Args:
        job: What it does.

    Raises:
        SsdtrtError: As `Detector`, with the first call.
    """

    def __init__(self, job: ActorJob):
        self.job, self._folder, self._lock = job, Folder(job.folder), threading.Lock()
        self._failed: SsdtrtError | None = None
        try:
            self._load()
        except SsdtrtError as error:
            self._failed = error  # Where an actor raises here, Ray starts it again and again, and hides why.

    def _load(self) -> None:
        from ssdtrt.detect import Detector
        from ssdtrt.images.gpu_decode import decoder_for

        job, settings = self.job, self.job.settings
        self.detector = Detector(
            job.file,
            job.device,
            sha256=job.sha256,
            threshold=settings.threshold,
            max_detections=settings.max_detections,
            classes=settings.classes,
            nms_iou=settings.nms_iou,
            value_range=settings.value_range,
            max_pixels=settings.max_pixels,
            allow_private=settings.allow_private,
            max_bytes=settings.max_bytes,
            decode="cpu",
        )
        self._decoder = decoder_for("gpu", self.detector.device, self.detector.runner.preprocess, job.jpegs)
        self.detector.pipeline.warm_up(self.detector.batch_size)

    def __call__(self, table: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Detect in the blocks of a table of `prepare_blocks`, and yield a row for each that is written.

        Raises:
            ArtifactError: Where a block cannot be written.
            GpuError: As `Detector`.
        """
        import pyarrow as pa

        if self._failed is not None:
            raise self._failed
        blocks = dict(read_pictures(table))
        with self._deaths_counted(blocks):
            with self._lock:
                rows = self._detect([one for pictures in blocks.values() for one in pictures])
            labels = self.detector.runner.labels
            for block, pictures in blocks.items():
                of_block, rows = rows[: len(pictures)], rows[len(pictures) :]
                done = write_block(self._folder, block, self.job.run, of_block, labels)
                yield pa.table({name: [value] for name, value in done.as_dict().items()})

    @contextlib.contextmanager
    def _deaths_counted(self, blocks: dict[int, list[ReadPicture]]) -> Iterator[None]:
        """Count in a file of this machine how often these blocks were begun and not ended: Ray would try without end.

        Ray's own count is higher: it includes each look for a process that is being started again.
        """
        begun = Path(tempfile.gettempdir(), f"ssdtrt-{self.job.token}-{min(blocks)}")
        with open(begun, "ab") as file:
            file.write(b".")
            deaths = file.tell() - 1
        try:
            if deaths >= config.RAY_DEATHS:
                first, last = blocks[min(blocks)][0].path, blocks[max(blocks)][-1].path
                raise SsdtrtError(
                    f"The process that detects died {deaths} times with the pictures {first} to {last} at hand, or with others "
                    "at the same time. Its memory may not suffice, or one of them ends it: try them with ssdtrt detect."
                )
            yield
        finally:
            begun.unlink(missing_ok=True)

    def _detect(self, pictures: list[ReadPicture]) -> list[Row]:
        """The rows of pictures, in their order."""
        failures: list[ImageError] = []
        rows: dict[int, Row] = {n: unread(one.path, one.error) for n, one in enumerate(pictures) if one.error}
        prepared = self._decoded(self._prepared(pictures))
        # Threads of the decoder run ahead themselves, as in `Detector.stream_batches`.
        for batch in self.detector.stream_prepared(prepared, failures, takes_time=self._decoder is None):
            for index, found in batch:
                size = found.width, found.height
                rows[index] = Row(pictures[index].path, size, found.xyxy, found.class_id, found.confidence)
        # What the GPU could not decode and Pillow cannot read either: the errors are in the order of the pictures.
        late = [index for index in range(len(pictures)) if index not in rows]
        for index, error in zip(late, failures, strict=True):
            path = pictures[index].path
            rows[index] = unread(path, str(error).replace(os.path.join(self.job.base, path), path))
        return [rows[index] for index in range(len(pictures))]

    def _decoded(self, prepared: Prepared) -> Prepared:
        """The same, with the JPEG files among them decoded by the GPU."""
        from ssdtrt.reading.device_decoding import decode_on_device
        from ssdtrt.reading.reader import PictureReader

        if self._decoder is None:
            return prepared
        detector, settings = self.detector, self.job.settings
        reader = PictureReader(
            detector.runner.preprocess, True, 1, 1, settings.value_range, settings.max_pixels, times=detector.times
        )
        return decode_on_device(prepared, self._decoder, reader, detector.batch_size)

    def _prepared(self, pictures: list[ReadPicture]) -> Prepared:
        """The pictures that could be read, as the detector takes them."""
        from ssdtrt.images.jpeg import EncodedJpeg
        from ssdtrt.reading.reader import PreparedPicture

        side = config.IMAGE_SIZE
        for index, one in enumerate(pictures):
            if one.error:
                continue
            pixels: Any = np.frombuffer(one.content, np.uint8)
            if one.orientation:
                stored = one.size[::-1] if one.orientation >= 5 else one.size
                pixels = EncodedJpeg(pixels, stored, one.orientation)
            else:
                pixels = pixels.reshape(side, side, 3)
            yield PreparedPicture(index, one.path, one.size, pixels, os.path.join(self.job.base, one.path))

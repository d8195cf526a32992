"""From prepared pictures to what is reported of them, a batch at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from ssdtrt.detection.batching import BatchRunner, gather
from ssdtrt.detection.results import UNTRAINED
from ssdtrt.detection.unpacking import Chosen, DetectionBatch, unpack
from ssdtrt.errors import ImageError
from ssdtrt.reading.reader import PictureNotes, Prepared
from ssdtrt.runners.baseline import EagerRunner
from ssdtrt.runners.runner import FileRunner

if TYPE_CHECKING:
    from PIL import Image


def detections_of(
    prepared: Prepared,
    batches: BatchRunner,
    chosen: Chosen,
    runner: FileRunner | EagerRunner,
    load: Callable[[Any], Image.Image],
    failures: list[ImageError] | None,
    notes: PictureNotes,
) -> Generator[DetectionBatch, None, None]:
    """Yield the detections of batches of pictures, in order.

    Args:
        prepared: The pictures; closed at the end.
        batches: What runs them.
        chosen: Which detections are reported.
        runner: The network, whose labels and preprocessing they have.
        load: Returns a picture, RGB, of its `source`.
        failures: As for `readable`.
        notes: Takes the notes on how pictures were read.

    Raises:
        ImageError: For a picture that could not be read, without `failures`.
        GpuError: As `BatchRunner.run`.
    """
    note = "" if runner.trained else UNTRAINED
    with contextlib.closing(batches.run(gather(prepared, batches, failures, notes))) as running:
        for batch, packed in running:
            with batches.times.busy("results"):
                for one in batch:
                    one.release()
                found = unpack(packed.numpy(), batch, chosen, runner.preprocess, runner.labels, load, note)
            yield found

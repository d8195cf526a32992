"""From pictures to detections, with any file that ssdtrt writes: the detector, and runs over picture files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.detection.batching import BatchRunner
from ssdtrt.detection.folder_sink import Comparison, FolderSink
from ssdtrt.detection.json_sinks import CocoSink, JsonLinesSink
from ssdtrt.detection.pipeline import Pipeline
from ssdtrt.detection.results import Detections, ImageDetections, Summary
from ssdtrt.detection.settings import check_settings
from ssdtrt.detection.staging import Stage
from ssdtrt.errors import ArtifactError, ImageError
from ssdtrt.images.decode import Picture
from ssdtrt.images.levels import ValueRange
from ssdtrt.images.preprocess import to_pixels
from ssdtrt.images.read_ahead import worker_count
from ssdtrt.images.reading import PictureNotes, PictureReader, PreparedPicture, readable
from ssdtrt.images.tensors import Pictures, as_list, check_images, is_one_picture
from ssdtrt.runners.baseline import EagerRunner
from ssdtrt.runners.runner import FileRunner, load_engine
from ssdtrt.system.progress import Progress, ProgressBar, silent

UNTRAINED = "untrained: random weights"
_FIRST = 20  # pictures whose detections a summary holds


class Detector:
    """Detects objects in pictures with a saved module, engine or detector.

    Pictures are read ahead, prepared as the file records, and run in batches; what is in memory already is prepared
    without threads where those gain nothing. Where the GPU's memory is too small for a batch, it goes on with half of
    it, as far as the file allows. Pickled, as for a process that multiprocessing spawns, it is loaded again there, with
    `note` silent.

    Args:
        path: The file, or a runner that was loaded before.
        device: `cpu`, `cuda` or `cuda:N`; by default what the file is for, for a module the GPU where there is one.
        threshold: The lowest score that is reported, 0..1. Scores of 0.05 and less never are.
        max_detections: The most detections of a picture.
        orient: Whether pictures are turned by their EXIF orientation; TIFFs and HEICs always are.
        workers: How many threads or processes read pictures; by default one for each core.
        sha256: The digest that the file must have.
        value_range: Which values of pictures of more than 8 bits become black and white; by default the range that
            each picture fills, with a note.
        max_pixels: The most pixels of a picture; by default twice PIL.Image.MAX_IMAGE_PIXELS, as Pillow does.
        note: Called with a line when a batch is halved, and what is to be known about how a picture was read.

    Attributes:
        runner: The loaded file.
        device: Where it runs.

    Raises:
        ArtifactError: Where the file is damaged, of another kind, or for another machine.
        CompileError: Where Torch-TensorRT or a GPU is missing.
        GpuError: Where the GPU fails or is full.
        SsdtrtError: For a setting out of its range.

    Example:
        >>> from ssdtrt import Detector
        >>> detector = Detector("ssd300.ts", threshold=0.5)
        >>> found = detector("street.jpg")
        >>> found.width, found.height
        (640, 480)
        >>> [detection.label for detection in found.detections]
        ['cat', 'dog']
    """

    def __init__(
        self,
        path: str | Path | FileRunner | EagerRunner = config.ENGINE_FILE,
        device: str | torch.device | None = None,
        *,
        threshold: float = config.THRESHOLD,
        max_detections: int = config.MAX_DETECTIONS,
        orient: bool = True,
        workers: int | None = None,
        sha256: str | None = None,
        value_range: ValueRange | None = None,
        max_pixels: int | None = None,
        note: Progress = silent,
    ):
        check_settings(threshold, max_detections, workers, value_range, max_pixels)
        if isinstance(path, (str, Path)):
            runner: FileRunner | EagerRunner = load_engine(path, device, sha256=sha256, reuse_outputs=True)
        elif sha256 is None:
            runner = path
        else:
            raise ArtifactError("The SHA-256 of a runner is checked where its file is loaded; give it to load_engine.")
        self.runner, self.threshold, self.max_detections, self.orient = runner, threshold, max_detections, orient
        self.workers = workers or worker_count()
        # Python's own numbers, for other processes too.
        self.value_range = None if value_range is None else (float(value_range[0]), float(value_range[1]))
        self.max_pixels = None if max_pixels is None else int(max_pixels)
        self.device = runner.device
        self.stage, self.pipeline = Stage(self.device), Pipeline(runner, max_detections)
        self._notes = PictureNotes(note)
        self._resize_on_device = self.device.type == "cuda"
        largest = runner.batch.max if runner.batch else config.DETECT_BATCH[self.device.type]
        smallest = runner.batch.min if runner.batch else 1
        self.batches = BatchRunner(self._stage, self.start, largest, smallest, note=note, release=self._release)

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("threshold", "max_detections", "orient", "workers", "value_range", "max_pixels")
        options = {name: getattr(self, name) for name in names}
        return partial(Detector, **options), (self.runner,)

    @property
    def batch_size(self) -> int:
        """The most pictures that run at once."""
        return self.batches.size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.batches.size = size

    @overload
    def __call__(self, pictures: list[Any] | tuple[Any, ...]) -> list[ImageDetections]: ...
    @overload
    def __call__(self, pictures: Pictures) -> Any: ...
    def __call__(self, pictures: Pictures) -> list[ImageDetections] | ImageDetections:
        """Detect in pictures and return the detections of each, in their order.

        Args:
            pictures: Paths, open files, PIL images, uint8 arrays [H, W] or [H, W, 1 | 3 | 4] or uint8 tensors
                [1 | 3 | 4, H, W], mixed as you like, or a batch of such arrays or tensors. Or one picture.

        Returns:
            For each picture its detections, the best first, with boxes in the pixels of the original; for one picture
            these alone, without a list.

        Raises:
            ImageError: For a picture that cannot be read, or what is neither a picture nor several.
            GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
        """
        found = [found.named(self.runner.labels) for _, found in self.stream(pictures)]
        return found[0] if is_one_picture(pictures) else found

    def stream(
        self,
        pictures: Pictures,
        failures: list[ImageError] | None = None,
        *,
        keep: bool = False,
        many: bool = False,
    ) -> Generator[tuple[int, Detections], None, None]:
        """Yield the place of each picture, from 0, and its detections, in order, as the batches are done.

        At most a few batches are in memory. The next one runs while the caller uses the results of one.

        Args:
            pictures: As for a call; taken as they are needed.
            failures: Takes the errors of pictures that cannot be read, and the others go on; None to raise the first.
            keep: Whether each result holds its picture.
            many: Whether processes read the pictures, which are paths then, instead of threads: slower to start, and
                as fast as there are cores.

        Raises:
            ImageError: For a picture that cannot be read, without `failures`, or what is neither a picture nor several.
            GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
        """
        listed = as_list(pictures)
        ahead = 2 * max(self.batch_size, self.workers)
        settings = self.orient, self.workers, ahead, self.value_range, self.max_pixels
        reader = PictureReader(self.runner.preprocess, *settings)
        if many and not keep:
            held = 2 * self.batch_size  # One batch runs while another is gathered.
            paths = cast(Iterable[str | Path], listed)
            prepared = reader.with_processes(paths, held, self.device, self._resize_on_device)
        elif reader.few_in_memory(listed, self.batch_size, self._resize_on_device):
            prepared = reader.at_once(cast(Sequence[Picture], listed), keep, self._resize_on_device)
        else:
            prepared = reader.with_threads(listed, keep)
        with contextlib.closing(prepared):
            for batch, packed in self.batches.run(self.batches.cut(readable(prepared, failures, self._notes))):
                yield from self._unpack(batch, packed)

    def start(self, images: Tensor) -> Callable[[], Tensor]:
        """Start to detect in images on the device, and do not wait for it.

        Args:
            images: uint8 [N, 3, 300, 300], resized pictures on the detector's device.

        Returns:
            A function that waits and returns the packed detections [N, K + 1, 6] on the host (see `detect_fixed`).

        Raises:
            ImageError: For anything but such a tensor.
        """
        check_images(images)
        return self.pipeline.start(images)

    def _stage(self, batch: list[PreparedPicture]) -> Tensor:
        """The pixels of a batch as one uint8 tensor [N, 3, 300, 300] on the device."""
        return self.stage([one.pixels for one in batch])

    def _release(self) -> None:
        """Free the captured graphs and the memory that they hold."""
        self.stage.release()
        self.pipeline.release()

    def _unpack(self, batch: list[PreparedPicture], packed: Tensor) -> Iterator[tuple[int, Detections]]:
        """The detections of at least the threshold, as arrays in each picture's pixels. Releases the batch."""
        for one in batch:
            one.release()
        every = packed.numpy()  # Small steps in torch would take longer than the network.
        counts = np.minimum((every[:, :-1, 5] >= self.threshold).sum(axis=1), every[:, -1, 0].astype(int)).tolist()
        for one, rows, count in zip(batch, every, counts):
            xyxy = to_pixels(rows[:count, :4], *one.size, self.runner.preprocess)
            arrays = xyxy, rows[:count, 4].astype(np.int64), rows[:count, 5].copy()
            yield one.index, Detections(one.name, *one.size, *arrays, picture=one.picture)


def folder_sink(
    detector: Detector,
    folder: str | Path,
    pictures: Iterable[str | Path] | None = None,
    baseline: Detector | None = None,
) -> FolderSink:
    """Return a sink that writes annotated pictures and `detections.json` into a folder.

    Args:
        detector: The detector.
        folder: The folder, which is made.
        pictures: The pictures that will come, where they are known (see FolderSink).
        baseline: Another detector, whose detections are drawn beside each picture.
    """
    runner, comparison = detector.runner, None
    if baseline is not None:
        captions = f"{runner.name} {runner.precision.upper()}", baseline.runner.name
        comparison = Comparison(lambda picture: baseline(picture), captions)
    return FolderSink(folder, runner.labels, pictures, "" if runner.trained else UNTRAINED, comparison)


def detect_files(
    detector: Detector,
    pictures: Iterable[str | Path],
    sinks: Sequence[FolderSink | JsonLinesSink | CocoSink],
    failures: list[ImageError] | None = None,
    total: int | None = None,
    progress: Progress = silent,
    each: Callable[[Detections], None] | None = None,
) -> Summary:
    """Detect in picture files and hand each picture's detections to every sink, as they come.

    However that ends, every sink is closed and what it wrote is valid.

    Args:
        detector: The detector.
        pictures: The files, taken as they are needed.
        sinks: Where the detections go.
        failures: Takes the errors of pictures that cannot be read; the others go on.
        total: How many pictures there are, where that is known.
        progress: Called with a line about how far it is.
        each: Called with each picture's detections after the sinks.

    Raises:
        ArtifactError: Where a sink cannot write.
        GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
    """
    failures = [] if failures is None else failures
    first: list[ImageDetections] = []
    started = time.perf_counter()
    count = detections = 0
    bar = ProgressBar(progress, "detecting", total)
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(sink)
        keep = any(isinstance(sink, FolderSink) for sink in sinks)
        many = total is None or total >= config.MANY_PICTURES
        stream = stack.enter_context(contextlib.closing(detector.stream(pictures, failures, keep=keep, many=many)))
        for index, found in stream:
            for sink in sinks:
                sink.write(found)
            if each is not None:
                each(found)
            count, detections = count + 1, detections + len(found.confidence)
            if len(first) < _FIRST:
                first.append(found.named(detector.runner.labels))
            bar.update(index + 1)
        if total:  # The last pictures may be unreadable.
            bar.update(total)
    return Summary(count, detections, time.perf_counter() - started, tuple(first), tuple(failures))

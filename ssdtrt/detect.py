"""From pictures to detections, with any file that ssdtrt writes: the detector."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast, overload

import torch
from torch import Tensor

from ssdtrt import config
from ssdtrt.detection.batching import BatchRunner, Stage
from ssdtrt.detection.pipeline import Pipeline
from ssdtrt.detection.results import Detections
from ssdtrt.detection.settings import check_nms_inside, check_no_digest, check_settings, class_numbers, settings_table
from ssdtrt.detection.streaming import detections_of
from ssdtrt.detection.unpacking import Chosen, DetectionBatch
from ssdtrt.errors import ImageError
from ssdtrt.images.gpu_decode import decoder_for
from ssdtrt.images.levels import ValueRange
from ssdtrt.images.tensors import Pictures, check_images, is_one_picture
from ssdtrt.reading.addresses import AddressRules
from ssdtrt.reading.choice import read
from ssdtrt.reading.fetch import load_picture
from ssdtrt.reading.read_ahead import worker_count
from ssdtrt.reading.reader import PictureNotes, PictureReader, Prepared, PreparedPicture
from ssdtrt.reading.stage_times import StageTimes
from ssdtrt.runners.baseline import EagerRunner
from ssdtrt.runners.runner import FileRunner, load_engine
from ssdtrt.sinks.files import detect_files as detect_files
from ssdtrt.sinks.files import folder_sink as folder_sink
from ssdtrt.system.devices import use_more_queues
from ssdtrt.system.progress import Progress, silent

Classes = str | int | Iterable[str | int]
"""Names or numbers of classes, or one of them."""


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
        classes: The names or numbers of the classes that are reported; by default all.
        nms_iou: The IoU with a better box of its class that leaves a box out; a detector file takes the default alone.
        orient: Whether pictures are turned by their EXIF orientation; TIFFs and HEICs always are.
        workers: How many threads or processes read pictures; by default one for each core.
        sha256: The digest that the file must have.
        value_range: Which values of more than 8 bits become black and white; by default those of each picture, noted.
        max_pixels: The most pixels of a picture; by default twice PIL.Image.MAX_IMAGE_PIXELS, as Pillow does.
        allow_private: Whether pictures are also fetched from this machine and from private networks.
        max_bytes: The most bytes of a picture that is fetched.
        timeout: Seconds in which one must be there, all in all.
        decode: Where JPEGs are decoded: on the `gpu` (the CPU does the rest), on the `cpu`, or `auto`: of many on the GPU.
        note: Called with a line when a batch is halved, and what is to be known about how a picture was read.

    Attributes:
        runner: The loaded file.
        device: Where it runs.
        times: How long each stage of `stream` was busy, since it was last cleared.

    Raises:
        ArtifactError: Where the file is damaged, of another kind, or for another machine, or has NMS with another IoU.
        CompileError: Where Torch-TensorRT or a GPU is missing.
        GpuError: Where the GPU fails or is full.
        SsdtrtError: For a setting out of its range.

    Example:
        >>> from ssdtrt import Detector
        >>> detector = Detector("ssd300.ts", threshold=0.5)
        >>> found = detector("street.jpg")
        >>> found.width, found.height
        (640, 480)
        >>> found.class_name.tolist(), found.class_id.tolist(), found.xyxy[0].round().tolist()
        (['cat', 'dog'], [16, 17], [42.0, 31.0, 598.0, 449.0])
        >>> detector("street.jpg", threshold=0.3, classes=["person"]).detections[0].box
        (320.0, 0.0, 640.0, 480.0)
    """

    def __init__(
        self,
        path: str | Path | FileRunner | EagerRunner = config.ENGINE_FILE,
        device: str | torch.device | None = None,
        *,
        threshold: float = config.THRESHOLD,
        max_detections: int = config.MAX_DETECTIONS,
        classes: Classes | None = None,
        nms_iou: float = config.NMS_IOU,
        orient: bool = True,
        workers: int | None = None,
        sha256: str | None = None,
        value_range: ValueRange | None = None,
        max_pixels: int | None = None,
        allow_private: bool = False,
        max_bytes: int = config.MAX_BYTES,
        timeout: float = config.FETCH_SECONDS,
        decode: str = config.DECODE[0],
        note: Progress = silent,
    ):
        check_settings(threshold, max_detections, workers, value_range, max_pixels, nms_iou, max_bytes, timeout, decode)
        use_more_queues()  # Before CUDA starts.
        if isinstance(path, (str, Path)):
            runner: FileRunner | EagerRunner = load_engine(path, device, sha256=sha256, reuse_outputs=True)
        else:
            runner = path
            check_no_digest(sha256)
        check_nms_inside(runner, nms_iou)
        self.runner, self.threshold, self.max_detections, self.orient = runner, threshold, max_detections, orient
        self.classes, self.nms_iou = class_numbers(classes, runner.labels), nms_iou
        self.workers, self.device = workers or worker_count(), runner.device
        # Python's own numbers, for other processes too.
        self.value_range = None if value_range is None else (float(value_range[0]), float(value_range[1]))
        self.max_pixels = None if max_pixels is None else int(max_pixels)
        self.addresses = AddressRules(bool(allow_private), int(max_bytes), float(timeout))
        most = max(max_detections, config.MAX_DETECTIONS)  # Classes are chosen among these.
        self.times, self._notes = StageTimes(), PictureNotes(note)
        self.stage, self.pipeline = Stage(self.device), Pipeline(runner, most, nms_iou, self.times)
        self._resize_on_device = self._overlaps = self.device.type == "cuda"
        self.decode, self._decoder = decode, decoder_for(decode, self.device, runner.preprocess, decode == "gpu")
        any_size = 1, config.DETECT_BATCH[self.device.type]
        smallest, largest = (runner.batch.min, runner.batch.max) if runner.batch else any_size
        options: dict[str, Any] = {"note": note, "release": self._release, "times": self.times, "pad": self._overlaps}
        self.batches = BatchRunner(self._stage, self.start, largest, smallest, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        names = "threshold max_detections classes nms_iou orient workers value_range max_pixels decode"
        options = {name: getattr(self, name) for name in names.split()} | self.addresses._asdict()
        return partial(Detector, **options), (self.runner,)

    @property
    def batch_size(self) -> int:
        """The most pictures that run at once."""
        return self.batches.size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.batches.size = size

    @overload
    def __call__(
        self, pictures: list[Any] | tuple[Any, ...], *, threshold: float | None = ..., classes: Classes | None = ...
    ) -> list[Detections]: ...
    @overload
    def __call__(self, pictures: Pictures, *, threshold: float | None = ..., classes: Classes | None = ...) -> Any: ...
    def __call__(
        self, pictures: Pictures, *, threshold: float | None = None, classes: Classes | None = None
    ) -> list[Detections] | Detections:
        """Detect in pictures and return the detections of each, in their order.

        Args:
            pictures: Paths, http and https addresses as text, open files, PIL images, uint8 arrays [H, W] or
                [H, W, 1 | 3 | 4] or uint8 tensors [1 | 3 | 4, H, W], mixed as you like, or a batch of such arrays or
                tensors. Or one picture.
            threshold: The lowest score, in this call.
            classes: The names or numbers of the classes, in this call.

        Returns:
            For each picture its detections, the best first, with boxes in the pixels of the original; for one picture
            these alone, without a list.

        Raises:
            ImageError: For a picture that cannot be read, or what is neither a picture nor several.
            GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
            SsdtrtError: For a threshold out of 0..1, or what is no class.
        """
        found = [found for _, found in self.stream(pictures, threshold=threshold, classes=classes)]
        return found[0] if is_one_picture(pictures) else found

    def stream(
        self,
        pictures: Pictures,
        failures: list[ImageError] | None = None,
        *,
        keep: bool = False,
        many: bool = False,
        threshold: float | None = None,
        classes: Classes | None = None,
    ) -> Generator[tuple[int, Detections], None, None]:
        """Yield the place of each picture, from 0, and its detections, in order, as the batches are done.

        At most a few batches are in memory. The next one runs while the caller uses the results of one.

        Args:
            pictures: As for a call; taken as they are needed.
            failures: Takes the errors of pictures that cannot be read, and the others go on; None to raise the first.
            keep: Whether each result holds its picture; otherwise one that is asked for is read again.
            many: Whether processes, not threads, read the pictures, paths or addresses: slower to start, then faster.
            threshold: As for a call.
            classes: As for a call.

        Raises:
            ImageError: For a picture that cannot be read, without `failures`, or what is neither a picture nor several.
            GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
        """
        if threshold is not None:
            check_settings(threshold)
        numbers = self.classes if classes is None else class_numbers(classes, self.runner.labels)
        chosen = Chosen(self.threshold if threshold is None else threshold, numbers, self.max_detections)
        with contextlib.closing(self.stream_batches(pictures, failures, keep, many, chosen)) as batches:
            for batch in batches:
                yield from batch

    def stream_batches(
        self,
        pictures: Pictures,
        failures: list[ImageError] | None = None,
        keep: bool = False,
        many: bool = False,
        chosen: Chosen | None = None,
    ) -> Generator[DetectionBatch, None, None]:
        """Yield what `stream` does, a batch at a time, which is less work for each picture.

        Args:
            pictures: As for `stream`, as are `failures`, `keep` and `many`.
            failures: Takes errors.
            keep: Whether each result holds its picture.
            many: Whether processes read the pictures.
            chosen: Which detections are reported; by default those that the detector was made for.

        Raises:
            ImageError, GpuError: As `stream`.
        """
        self.pipeline.warm_up(self.batch_size if many else 0)
        if self._decoder is None:
            files = self.decode == "auto" and many and not keep
            self._decoder = decoder_for(self.decode, self.device, self.runner.preprocess, files)
        decoder = self._decoder if self.decode == "gpu" or (many and not keep) else None
        depth = 2 * max(self.batch_size, self.workers)
        settings = self.orient, self.workers, depth, self.value_range, self.max_pixels, self.addresses
        reader = PictureReader(self.runner.preprocess, *settings, jpegs=decoder is not None, times=self.times)
        ahead = self._overlaps and decoder is None  # A decoder's own threads run ahead.
        prepared, takes_time = read(
            reader, pictures, self.batch_size, ahead, self.device, keep, many, self._resize_on_device, decoder
        )
        yield from self.stream_prepared(prepared, failures, chosen, ahead and takes_time)

    def stream_prepared(
        self,
        prepared: Prepared,
        failures: list[ImageError] | None = None,
        chosen: Chosen | None = None,
        takes_time: bool = True,
    ) -> Generator[DetectionBatch, None, None]:
        """Yield what `stream_batches` does, of pictures that were read and prepared elsewhere.

        Args:
            prepared: The pictures, and the errors of those that could not be read.
            failures: As for `stream`.
            chosen: As for `stream_batches`.
            takes_time: Whether a GPU does better to take the next ones while it runs.

        Raises:
            ImageError, GpuError: As `stream`.
        """
        chosen = chosen or Chosen(self.threshold, self.classes, self.max_detections)
        self.batches.ahead = self.device if self._overlaps and takes_time else None
        options = {"orient": self.orient, "value_range": self.value_range, "max_pixels": self.max_pixels}
        load = partial(load_picture, rules=self.addresses, **options)
        return detections_of(prepared, self.batches, chosen, self.runner, load, failures, self._notes)

    def start(self, images: Tensor) -> Callable[[], Tensor]:
        """Start to detect in images on the device once what was started before is done, and do not wait for it.

        Args:
            images: uint8 [N, 3, 300, 300], resized pictures on the detector's device.

        Returns:
            A function that waits and returns the packed detections [N, K + 1, 6] on the host (see `detect_fixed`), of
            all classes and scores; K is `max_detections`, and at least 200.

        Raises:
            ImageError: For anything but such a tensor.
        """
        check_images(images)
        return self.pipeline.start(images)

    def _stage(self, batch: list[PreparedPicture]) -> Tensor:
        """The pixels of a batch as one uint8 tensor [N, 3, 300, 300] on the device."""
        return self.stage([cast(Any, one.pixels) for one in batch])

    def _release(self) -> None:
        """Free the captured graphs and the memory that they hold."""
        self.stage.release()
        self.pipeline.release()

    def _repr_html_(self) -> str:
        """Return a table of the file and the settings, for a notebook."""
        numbers = {name: getattr(self, name) for name in ("threshold", "max_detections", "nms_iou")}
        return settings_table(self.runner, self.classes, numbers)

"""From pictures to detections, with any file that ssdtrt writes: read ahead, run in batches."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdtrt import config
from ssdtrt.artifact.runner import FileRunner, load_engine
from ssdtrt.detection.batching import BatchRunner
from ssdtrt.detection.postprocessor import Postprocessor
from ssdtrt.detection.results import Detections, ImageDetections
from ssdtrt.errors import ArtifactError, ImageError
from ssdtrt.images.decode import Picture, load_image
from ssdtrt.images.gpu_resize import order_of_passes
from ssdtrt.images.preprocess import resize_image, to_pixels
from ssdtrt.images.read_ahead import in_order, worker_count
from ssdtrt.images.reader_pool import Readers
from ssdtrt.images.tensors import normalization, scale_to
from ssdtrt.images.upload import pinned, to_device
from ssdtrt.system.devices import current_device
from ssdtrt.system.progress import Progress, silent


def nothing() -> None:
    """Ends the use of pixels that belong to nobody else."""


@dataclass(frozen=True)
class Prepared:
    """A picture that was read: its place among all, its path, its size, its pixels, and itself where kept.

    The pixels are uint8 [h, w, 3], those of the whole picture or squeezed to 300x300; `done` ends their use.
    """

    index: int
    name: str
    size: tuple[int, int]
    pixels: np.ndarray
    picture: Image.Image | None = None
    done: Callable[[], None] = nothing


class Detector:
    """Detects with a saved module, engine or detector, in pictures prepared as was recorded at export.

    `threshold` is the lowest score reported, 0..1; `max_detections` the most for one picture. Scores of 0.05 and less
    are never reported. `orient` turns pictures as their EXIF orientation says; `workers` is how many threads or
    processes read them, by default one a core. `sha256` is the digest that the file must have. Instead of a path it
    takes a runner that was loaded before. Where the GPU's memory does not hold a batch it goes on with half of it, as
    far as the file allows, and tells `note`. Raises what `load_engine` raises.

    Pickled, as for a process that multiprocessing spawns, it is loaded again there, with `note` silent.
    """

    def __init__(
        self,
        path: str | Path | FileRunner = config.ENGINE_FILE,
        device: str | torch.device | None = None,
        *,
        threshold: float = config.THRESHOLD,
        max_detections: int = config.MAX_DETECTIONS,
        orient: bool = True,
        workers: int | None = None,
        sha256: str | None = None,
        note: Progress = silent,
    ):
        if isinstance(path, (str, Path)):
            runner = load_engine(path, device, sha256=sha256)
        elif sha256 is None:
            runner = path
        else:
            raise ArtifactError("A SHA-256 is demanded where a file is loaded: give it to load_engine.")
        self.runner, self.threshold, self.max_detections, self.orient = runner, threshold, max_detections, orient
        self.workers = workers or worker_count()
        self.device = runner.device
        self.normalization = normalization(runner.preprocess, self.device)
        self._resizes = self.device.type == "cuda"
        self.decoder = Postprocessor(self.device, max_detections)
        largest = runner.batch.max if runner.batch else config.DETECT_BATCH[self.device.type]
        smallest = runner.batch.min if runner.batch else 1
        release = self.decoder.release
        self.batches = BatchRunner(self._stage, self.start, largest, smallest, note=note, release=release)

    def __reduce__(self):
        options = {name: getattr(self, name) for name in ("threshold", "max_detections", "orient", "workers")}
        return partial(Detector, **options), (self.runner,)

    @property
    def batch_size(self) -> int:
        """The pictures that run at once, at most."""
        return self.batches.size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.batches.size = size

    def __call__(self, pictures: Sequence[Picture]) -> list[ImageDetections]:
        """The detections of each picture (a path, a PIL image, or an array [H, W, 3] of uint8), in their order.

        Raises ImageError for one that cannot be read.
        """
        if isinstance(pictures, (str, Path)):
            raise ImageError(f"{pictures} is one picture; expected a list of pictures.")
        return [found.named(self.runner.labels) for _, found in self.stream(pictures)]

    def stream(
        self,
        pictures: Iterable[Picture],
        failures: list[ImageError] | None = None,
        *,
        keep: bool = False,
        many: bool = False,
    ) -> Iterator[tuple[int, Detections]]:
        """Each picture's place and its detections, in their order, as the batches are done.

        `pictures` are taken as they are needed, and never more than a few batches are in memory. One that cannot be
        read goes to `failures` and the others go on; without `failures` it raises. With `keep` the picture comes along.
        With `many` pictures, which are paths then, processes read them instead of threads: slower to start, and as fast
        as there are cores.
        """
        prepared = self._read_by_processes(pictures) if many and not keep else self._read_by_threads(pictures, keep)
        with contextlib.closing(prepared):
            for batch, packed in self.batches.run(self.batches.cut(readable(prepared, failures))):
                yield from self._found(batch, packed)

    def start(self, images: Tensor) -> Callable[[], Tensor]:
        """Begins to detect in uint8 images [N, 3, 300, 300] on the device; what is returned waits for the device.

        It gives what `Decoder` does, [N, K + 1, 6] on the host, and is to be called before the next `start`.
        """
        return self.decoder.start(*self.runner(scale_to(images, *self.normalization)))

    @property
    def _ahead(self) -> int:
        return 2 * max(self.batch_size, self.workers)

    def _read_by_threads(self, pictures: Iterable[Picture], keep: bool) -> Iterator[Prepared | ImageError]:
        def read(numbered) -> Prepared | ImageError:
            index, picture = numbered
            try:
                image = load_image(picture, orient=self.orient)
            except ImageError as error:
                return error
            name = str(picture) if isinstance(picture, (str, Path)) else ""
            return Prepared(
                index, name, image.size, resize_image(image, self.runner.preprocess), image if keep else None
            )

        return in_order(read, enumerate(pictures), self.workers, self._ahead)

    def _read_by_processes(self, paths: Iterable[str | Path]) -> Iterator[Prepared | ImageError]:
        names: deque[str] = deque()

        def noted() -> Iterator[str]:
            for path in paths:
                names.append(str(path))
                yield names[-1]

        whole = self._resizes and self.runner.preprocess == "eval" and order_of_passes() is not None
        settings = {"orient": self.orient, "preprocess": self.runner.preprocess, "whole": whole}
        held = 2 * self.batch_size  # One batch runs, and another is gathered.
        with Readers(self.workers, self._ahead, held, **settings) as readers, pinned(readers.memory, self.device):
            for index, read in enumerate(readers.read(noted())):
                name = names.popleft()
                if isinstance(read, ImageError):
                    yield read
                else:
                    yield Prepared(index, name, read.size, read.pixels, done=partial(readers.give_back, read.slot))

    def _stage(self, batch: list[Prepared]) -> Tensor:
        """The pixels of a batch as one uint8 tensor [N, 3, 300, 300] on the device."""
        with current_device(self.device):
            return to_device([one.pixels for one in batch], self.device)

    def _found(self, batch: list[Prepared], packed: Tensor) -> Iterator[tuple[int, Detections]]:
        """Packed detections as arrays, those of at least the threshold, in each picture's pixels. Frees slots."""
        for one in batch:
            one.done()
        every = packed.numpy()  # Small steps in torch would cost more than the network.
        kept = np.minimum((every[:, :-1, 5] >= self.threshold).sum(axis=1), every[:, -1, 0].astype(int)).tolist()
        for one, rows, count in zip(batch, every, kept):
            boxes = to_pixels(rows[:count, :4], *one.size, self.runner.preprocess)
            arrays = boxes, rows[:count, 4].astype(np.int64), rows[:count, 5].copy()
            yield one.index, Detections(one.name, *one.size, *arrays, picture=one.picture)


def readable(prepared: Iterable[Prepared | ImageError], failures: list[ImageError] | None) -> Iterator[Prepared]:
    """The pictures that could be read; the others go to `failures` or, without, are raised."""
    for one in prepared:
        if not isinstance(one, ImageError):
            yield one
        elif failures is None:
            raise one
        else:
            failures.append(one)

"""Read pictures ahead of the network and prepare them, in order and bounded in memory, with threads or with processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssdtrt.errors import ImageError
from ssdtrt.images.decode import Picture, check_array, load_image
from ssdtrt.images.gpu_resize import order_of_passes
from ssdtrt.images.preprocess import fits_device_resize, resize_image
from ssdtrt.images.read_ahead import in_order
from ssdtrt.images.reader_pool import ReaderPool
from ssdtrt.images.upload import pinned


def _release_nothing() -> None:
    """Do nothing: pixels that were made for this picture alone need no release."""


@dataclass(frozen=True)
class PreparedPicture:
    """A picture that was read.

    Attributes:
        index: Its place among all pictures, from 0.
        name: Its path; "" where it has none.
        size: Its (width, height).
        pixels: uint8 [h, w, 3], resized to 300x300 or, for `to_device`, in its own size.
        picture: The picture itself, RGB, where it is kept.
        release: To be called when `pixels` are not used any more, which may then change.
    """

    index: int
    name: str
    size: tuple[int, int]
    pixels: np.ndarray
    picture: Image.Image | None = None
    release: Callable[[], None] = _release_nothing


Prepared = Generator[PreparedPicture | ImageError, None, None]


@dataclass(frozen=True)
class PictureReader:
    """How pictures are read: three ways with the same result, each an iterator of PreparedPicture or ImageError.

    Attributes:
        preprocess: How they are resized, `eval` or `hub`.
        orient: Whether they are turned by their EXIF orientation.
        workers: How many threads or processes read them.
        ahead: How many pictures are read ahead at most.
    """

    preprocess: str
    orient: bool
    workers: int
    ahead: int

    def with_threads(self, pictures: Iterable[Picture], keep: bool = False) -> Prepared:
        """Read pictures of any kind with threads, which start at once.

        Args:
            pictures: The pictures, taken as they are needed.
            keep: Whether each picture itself is kept.
        """

        return in_order(partial(self._read, keep=keep), enumerate(pictures), self.workers, self.ahead)

    def at_once(self, pictures: Sequence[Picture], keep: bool = False, resize_on_device: bool = False) -> Prepared:
        """Prepare pictures in the calling thread, each when it is asked for: best for `few_in_memory`.

        Args:
            pictures: The pictures.
            keep: Whether each picture itself is kept.
            resize_on_device: Whether pictures keep their own size where the device can resize them as Pillow does.
        """
        whole = self.whole(resize_on_device)
        for numbered in enumerate(pictures):
            yield self._read(numbered, keep, whole)

    def few_in_memory(self, pictures: object, few: int, resize_on_device: bool = False) -> bool:
        """Return whether threads would gain nothing: a list of decoded pictures, and little or nothing to compute.

        Args:
            pictures: What is given as a list of pictures.
            few: How many may be resized here at most.
            resize_on_device: As for `at_once`.
        """
        if not isinstance(pictures, (list, tuple, np.ndarray)) or not all(map(_is_decoded, pictures)):
            return False
        return len(pictures) <= few or (
            self.whole(resize_on_device) and all(fits_device_resize(*_size_of(one)) for one in pictures)
        )

    def whole(self, resize_on_device: bool) -> bool:
        """Return whether pictures keep their own size for a device that resizes them, where that gives equal pixels."""
        return resize_on_device and self.preprocess == "eval" and order_of_passes() is not None

    def _read(
        self, numbered: tuple[int, Picture], keep: bool = False, whole: bool = False
    ) -> PreparedPicture | ImageError:
        """Load a picture, and resize it unless pictures stay `whole` and it is small enough for that."""
        index, picture = numbered
        try:
            if whole and not keep and isinstance(picture, np.ndarray) and picture.shape[2:] == (3,):
                check_array(picture)
                if fits_device_resize(*_size_of(picture)):
                    return PreparedPicture(index, "", _size_of(picture), _read_only(picture))
            image = load_image(picture, orient=self.orient)
        except ImageError as error:
            return error
        name = str(picture) if isinstance(picture, (str, Path)) else ""
        stays = whole and fits_device_resize(*image.size)
        pixels = _read_only(np.asarray(image)) if stays else resize_image(image, self.preprocess)
        return PreparedPicture(index, name, image.size, pixels, image if keep else None)

    def with_processes(
        self, paths: Iterable[str | Path], held: int, device: torch.device, resize_on_device: bool
    ) -> Prepared:
        """Read picture files with processes, which start more slowly and are as fast as there are cores.

        Args:
            paths: The files, taken as they are needed.
            held: How many pictures the caller has not released at most when it asks for another.
            device: Where the pixels will be copied; for a GPU they lie in pinned memory.
            resize_on_device: Whether pictures keep their own size where the device can resize them as Pillow does.
        """
        names: deque[str] = deque()

        def remember_names() -> Iterator[str]:
            for path in paths:
                names.append(str(path))
                yield names[-1]

        whole = self.whole(resize_on_device)
        with (
            ReaderPool(
                self.workers, self.ahead, held, orient=self.orient, preprocess=self.preprocess, whole=whole
            ) as pool,
            pinned(pool.memory, device),
        ):
            for index, read in enumerate(pool.read(remember_names())):
                name = names.popleft()
                if isinstance(read, ImageError):
                    yield read
                else:
                    release = partial(pool.free_slot, read.slot)
                    yield PreparedPicture(index, name, read.size, read.pixels, release=release)


def _is_decoded(picture: object) -> bool:
    """Whether a picture is pixels in memory; one that Pillow opened from a file may not be."""
    return isinstance(picture, np.ndarray) or type(picture) is Image.Image


def _size_of(picture: Any) -> tuple[int, int]:
    """The (width, height) of a decoded picture; of an array that is no picture anything."""
    if isinstance(picture, Image.Image):
        return picture.size
    height, width = picture.shape[:2] if picture.ndim > 1 else (0, 0)
    return width, height


def _read_only(pixels: np.ndarray) -> np.ndarray:
    """The same pixels as an array that is not written to: they are the caller's, who may change them (`to_device`)."""
    view = pixels.view(np.ndarray)
    view.flags.writeable = False
    return view


def readable(
    prepared: Iterable[PreparedPicture | ImageError], failures: list[ImageError] | None
) -> Iterator[PreparedPicture]:
    """Yield the pictures that could be read.

    Args:
        prepared: What a PictureReader yields.
        failures: Takes the errors of the others; None to raise the first.

    Raises:
        ImageError: For a picture that cannot be read, without `failures`.
    """
    for one in prepared:
        if not isinstance(one, ImageError):
            yield one
        elif failures is None:
            raise one
        else:
            failures.append(one)


def check_pictures(pictures: object) -> None:
    """Check what is given as a list of pictures.

    Raises:
        ImageError: For one picture, or a tensor.
    """
    if isinstance(pictures, torch.Tensor):
        raise ImageError(
            f"A tensor {list(pictures.shape)} is no list of pictures; expected paths, PIL images or uint8 arrays "
            "[H, W, 3]."
        )
    if isinstance(pictures, (str, os.PathLike)):
        found = os.fspath(pictures)
    elif isinstance(pictures, np.ndarray) and pictures.ndim < 4:
        found = f"An array {list(pictures.shape)}"
    elif isinstance(pictures, Image.Image):
        found = "A PIL image"
    elif hasattr(pictures, "read"):
        found = "An open file"
    else:
        return
    raise ImageError(f"{found} is one picture; expected a list of pictures.")

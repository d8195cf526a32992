"""Read pictures ahead of the network and prepare them, in order and bounded in memory, with threads or with processes."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.images.decode import Picture, check_array, load_image
from ssdtrt.images.gpu_resize import order_of_passes
from ssdtrt.images.jpeg import EncodedJpeg, read_jpeg
from ssdtrt.images.levels import ValueRange
from ssdtrt.images.preprocess import fits_device_resize, resize_image
from ssdtrt.images.tensors import channels_last
from ssdtrt.images.upload import pinned
from ssdtrt.reading.addresses import PUBLIC, AddressRules, is_address, shown
from ssdtrt.reading.fetch import Fetched, Fetcher
from ssdtrt.reading.read_ahead import in_order
from ssdtrt.reading.reader_pool import ReaderPool
from ssdtrt.reading.stage_times import StageTimes
from ssdtrt.system.progress import Progress


def release_nothing() -> None:
    """Do nothing: pixels that were made for this picture alone need no release."""


@dataclass(frozen=True)
class PreparedPicture:
    """A picture that was read.

    Attributes:
        index: Its place among all pictures, from 0.
        name: Its path, or its address without a user name and password; "" where it has none.
        size: Its (width, height).
        pixels: uint8 [h, w, 3], resized to 300x300 or, for `to_device`, in its own size; or a JPEG file for a GPU to
            decode; or what that became, uint8 [300, 300, 3] on the device.
        source: What `load_image` takes to have the picture again: itself, RGB, where it is kept or came from an open
            file, else what was given. Where it was given by its address, what `load_picture` takes.
        release: To be called when `pixels` are not used any more, which may then change.
        notes: What is to be known about how it was read (see `load_image`).
    """

    index: int
    name: str
    size: tuple[int, int]
    pixels: np.ndarray | EncodedJpeg | torch.Tensor
    source: Picture
    release: Callable[[], None] = release_nothing
    notes: tuple[str, ...] = ()


Prepared = Generator[PreparedPicture | ImageError, None, None]


@dataclass(frozen=True)
class PictureReader:
    """How pictures are read: three ways with the same result, each an iterator of PreparedPicture or ImageError.

    Attributes:
        preprocess: How they are resized, `eval` or `hub`.
        orient: Whether they are turned by their EXIF orientation.
        workers: How many threads or processes read them.
        ahead: How many pictures are read ahead at most.
        value_range: Which values of more than 8 bits become black and white (see `load_image`).
        max_pixels: How many pixels of a picture are read at most (see `load_image`).
        addresses: What may be fetched.
        jpegs: Whether JPEG files that a GPU decodes stay as they are.
        times: Takes how long reading took.
    """

    preprocess: str
    orient: bool
    workers: int
    ahead: int
    value_range: ValueRange | None = None
    max_pixels: int | None = None
    addresses: AddressRules = PUBLIC
    jpegs: bool = False
    times: StageTimes = field(default_factory=StageTimes)

    def with_threads(self, pictures: Iterable[Picture | torch.Tensor], keep: bool = False) -> Prepared:
        """Read pictures of any kind with threads, which start at once.

        Args:
            pictures: The pictures, taken as they are needed.
            keep: Whether each picture itself is kept.
        """

        fetcher = Fetcher(self.addresses)
        read = partial(self._read, keep=keep, fetcher=fetcher)
        return in_order(read, enumerate(pictures), self.workers, self.ahead, fetcher.cancel)

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
        self,
        numbered: tuple[int, Picture | torch.Tensor],
        keep: bool = False,
        whole: bool = False,
        fetcher: Fetcher | None = None,
    ) -> PreparedPicture | ImageError:
        """Load a picture, and resize it unless pictures stay `whole` and it is small enough for that."""
        with self.times.busy("read", self.workers):
            return self._read_one(*numbered, keep, whole, fetcher)

    def _read_one(
        self, index: int, picture: Picture | torch.Tensor, keep: bool, whole: bool, fetcher: Fetcher | None
    ) -> PreparedPicture | ImageError:
        if self.jpegs and isinstance(picture, (str, Path)) and not is_address(picture):
            jpeg = read_jpeg(picture, orient=self.orient, max_pixels=self.max_pixels)
            if jpeg is not None:
                return PreparedPicture(index, str(picture), jpeg.size, jpeg, picture)
        try:
            picture = fetcher.opened(picture) if fetcher else picture
            if isinstance(picture, torch.Tensor):
                picture = channels_last(picture)
            if whole and not keep and isinstance(picture, np.ndarray) and picture.shape[2:] == (3,):
                check_array(picture)
                if fits_device_resize(*_size_of(picture)):
                    return PreparedPicture(index, "", _size_of(picture), _read_only(picture), picture)
            notes: list[str] = []
            image = load_image(
                picture,
                orient=self.orient,
                value_range=self.value_range,
                max_pixels=self.max_pixels,
                note=notes.append,
            )
        except ImageError as error:
            return error
        name = str(picture) if isinstance(picture, (str, Path)) else ""
        source: Picture = image if keep or hasattr(picture, "read") else picture
        if isinstance(picture, Fetched):
            name, source = picture.name, image if keep else picture.to_keep()
        stays = whole and fits_device_resize(*image.size)
        pixels = _read_only(np.asarray(image)) if stays else resize_image(image, self.preprocess)
        return PreparedPicture(index, name, image.size, pixels, source, notes=tuple(notes))

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
                self.workers,
                self.ahead,
                held,
                orient=self.orient,
                preprocess=self.preprocess,
                whole=whole,
                value_range=self.value_range,
                max_pixels=self.max_pixels,
                addresses=self.addresses,
                jpegs=self.jpegs,
            ) as pool,
            contextlib.nullcontext() if self.jpegs else pinned(pool.memory, device),
        ):
            for index, read in enumerate(pool.read(remember_names())):
                name = names.popleft()
                self.times.add("read", pool.take_seconds() / self.workers)
                if isinstance(read, ImageError):
                    yield read
                else:
                    release = partial(pool.free_slot, read.slot)
                    yield PreparedPicture(index, shown(name), read.size, read.pixels, name, release, read.notes)

    def with_pillow(self, one: PreparedPicture) -> PreparedPicture | ImageError:
        """Read a picture anew, which a GPU could not decode."""
        return replace(self, jpegs=False)._read((one.index, one.source))


def _is_decoded(picture: object) -> bool:
    """Whether a picture is pixels in memory; one that Pillow opened from a file may not be."""
    return isinstance(picture, (np.ndarray, torch.Tensor)) or type(picture) is Image.Image


def _size_of(picture: Any) -> tuple[int, int]:
    """The (width, height) of a decoded picture; of an array or a tensor that is no picture anything."""
    if isinstance(picture, Image.Image):
        return picture.size
    if isinstance(picture, torch.Tensor):
        return (int(picture.shape[-1]), int(picture.shape[-2])) if picture.dim() > 1 else (0, 0)
    height, width = picture.shape[:2] if picture.ndim > 1 else (0, 0)
    return width, height


def _read_only(pixels: np.ndarray) -> np.ndarray:
    """The same pixels as an array that is not written to: they are the caller's, who may change them (`to_device`)."""
    view = pixels.view(np.ndarray)
    view.flags.writeable = False
    return view


class PictureNotes:
    """Passes on what is noted about pictures, each text once, with the first picture that it is about.

    Args:
        note: Called with the first config.PICTURE_NOTES of them, and that there are more.
    """

    def __init__(self, note: Progress):
        self._note, self._seen = note, set[str]()

    def tell(self, one: PreparedPicture) -> None:
        """Tell the notes of a picture that are new."""
        for text in one.notes:
            if text in self._seen or len(self._seen) > config.PICTURE_NOTES:
                continue
            self._seen.add(text)
            more = len(self._seen) > config.PICTURE_NOTES
            name = one.name or f"picture {one.index + 1}"
            self._note("There are notes on more pictures." if more else f"{name}: {text}.")


def readable(
    prepared: Iterable[PreparedPicture | ImageError],
    failures: list[ImageError] | None,
    notes: PictureNotes | None = None,
) -> Iterator[PreparedPicture]:
    """Yield the pictures that could be read.

    Args:
        prepared: What a PictureReader yields.
        failures: Takes the errors of the others; None to raise the first.
        notes: Takes the notes.

    Raises:
        ImageError: For a picture that cannot be read, without `failures`.
    """
    for one in prepared:
        if not isinstance(one, ImageError):
            if one.notes and notes is not None:
                notes.tell(one)
            yield one
        elif failures is None:
            raise one
        else:
            failures.append(one)

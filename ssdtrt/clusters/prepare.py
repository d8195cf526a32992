"""A task on a CPU: read the pictures of a block, and prepare them for the network. No torch here."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ssdtrt import config
from ssdtrt.clusters.session import attempts_before
from ssdtrt.clusters.storage import file_system, is_stored
from ssdtrt.errors import ArtifactError, ImageError, first_line
from ssdtrt.images.decode import load_image
from ssdtrt.images.jpeg import read_jpeg
from ssdtrt.images.preprocess import resize_image
from ssdtrt.reading.addresses import is_address, shown
from ssdtrt.reading.fetch import Fetched, Fetcher
from ssdtrt.reading.read_ahead import in_order
from ssdtrt.reading.reader_process import ReaderSettings, decode, encode

if TYPE_CHECKING:
    import pyarrow


class ReadPicture(NamedTuple):
    """A picture that was read, on its way to the network.

    Attributes:
        path: As it was given, or its address without a user name and password.
        size: Its (width, height); (0, 0) where it could not be read.
        orientation: 0 for pixels; for a JPEG file that a GPU decodes the orientation to turn it by, 1 to 8 as in EXIF.
        content: The pixels, uint8 [300, 300, 3], or the bytes of the JPEG file.
        error: Why it could not be read; "" where it could.
    """

    path: str
    size: tuple[int, int]
    orientation: int
    content: bytes | memoryview
    error: str = ""


def block_table(block: int, paths: Sequence[str]) -> pyarrow.Table:
    """Return a block that is to be read: one row, with its number and its paths."""
    import pyarrow as pa

    return pa.table({"block": [block], "paths": [[encode(path) for path in paths]]})


def prepare_blocks(table: pyarrow.Table, settings: ReaderSettings, folder: str) -> Iterator[pyarrow.Table]:
    """Read the pictures of blocks.

    Args:
        table: Rows of `block_table`.
        settings: How they are read.
        folder: The folder that paths are relative to.

    Yields:
        A row for each block, for `read_pictures`.
    """
    import pyarrow as pa

    for block, paths in zip(table["block"].to_pylist(), table["paths"].to_pylist()):
        read = list(_read_all([decode(path) for path in paths], settings, folder))
        pictures = pa.StructArray.from_arrays(
            [
                pa.array([encode(one.path) for one in read], pa.binary()),
                pa.array([one.size[0] for one in read], pa.int32()),
                pa.array([one.size[1] for one in read], pa.int32()),
                pa.array([one.orientation for one in read], pa.int8()),
                pa.array([one.content for one in read], pa.large_binary()),
                pa.array([encode(one.error) for one in read], pa.binary()),
            ],
            ["path", "width", "height", "orientation", "content", "error"],
        )
        yield pa.table({"block": [block], "pictures": pa.ListArray.from_arrays([0, len(read)], pictures)})


def read_pictures(table: pyarrow.Table) -> Iterator[tuple[int, list[ReadPicture]]]:
    """Yield the number and the pictures of each block of a table of `prepare_blocks`; their bytes are not copied."""
    chunks = itertools.chain.from_iterable(table["pictures"].chunks)
    for block, pictures in zip(table["block"].to_pylist(), chunks):
        *columns, contents, errors = pictures.values.flatten()
        _, offsets, content = contents.buffers()  # A scalar of each would take longer than all else here.
        ends = np.frombuffer(offsets, np.int64)[contents.offset :][: len(contents) + 1].tolist()
        parts = map(memoryview(content or b"").cast("B").__getitem__, map(slice, ends, ends[1:]))
        rows = zip(*(column.to_pylist() for column in columns), parts, errors.to_pylist())
        yield (
            block,
            [
                ReadPicture(decode(path), (width, height), orientation, part, decode(error))
                for path, width, height, orientation, part, error in rows
            ],
        )


def _read_all(paths: Sequence[str], settings: ReaderSettings, folder: str) -> Iterator[ReadPicture]:
    if attempts_before() >= config.RAY_SUSPECT:
        return _read_apart(paths, settings, folder)
    if not any(map(is_address, paths)):
        return (_read(path, settings, folder, None) for path in paths)
    fetcher = Fetcher(settings.addresses)
    threads = config.RAY_FETCHES
    return in_order(lambda path: _read(path, settings, folder, fetcher), paths, threads, 2 * threads, fetcher.cancel)


def _read_apart(paths: Sequence[str], settings: ReaderSettings, folder: str) -> Iterator[ReadPicture]:
    """Read in another process: where a picture ends that one, only its own row has an error."""
    with contextlib.ExitStack() as stack:
        pool: ProcessPoolExecutor | None = None
        for path in paths:
            if pool is None:
                pool = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
            try:
                yield pool.submit(_read_alone, path, settings, folder).result()
            except BrokenProcessPool:
                pool = None
                error = f"{shown(path)} cannot be read as a picture (the process that read it died)."
                yield ReadPicture(shown(path), (0, 0), 0, b"", error)


def _read_alone(path: str, settings: ReaderSettings, folder: str) -> ReadPicture:
    return _read(path, settings, folder, Fetcher(settings.addresses))


def _read(path: str, settings: ReaderSettings, folder: str, fetcher: Fetcher | None) -> ReadPicture:
    place = path if is_address(path) else os.path.join(folder, path)
    if settings.jpegs and not is_address(path):
        jpeg = read_jpeg(place, orient=settings.orient, max_pixels=settings.max_pixels)
        if jpeg is not None:
            return ReadPicture(path, jpeg.size, jpeg.orientation, bytes(jpeg.encoded()))
    try:
        image = load_image(
            _opened(path, place, settings, fetcher),
            orient=settings.orient,
            value_range=settings.value_range,
            max_pixels=settings.max_pixels,
        )
    except ImageError as error:
        # The path as it was given, as `detect` has it.
        return ReadPicture(
            shown(path), (0, 0), 0, b"", str(error).replace(place, path) if place != path else str(error)
        )
    return ReadPicture(shown(path), image.size, 0, resize_image(image, settings.preprocess).tobytes())


def _opened(path: str, place: str, settings: ReaderSettings, fetcher: Fetcher | None) -> Path | Fetched:
    """The picture itself: a path, or what was fetched."""
    if is_stored(path):
        return _from_store(path, settings.addresses.max_bytes)
    return fetcher.fetch(path) if fetcher is not None and is_address(path) else Path(place)


def _from_store(address: str, max_bytes: int) -> Fetched:
    try:
        system, path = file_system(address)
        with system.open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except ArtifactError as error:
        raise ImageError(str(error)) from error
    except FileNotFoundError as error:
        raise ImageError(f"{shown(address)}: no such file.") from error
    except Exception as error:  # File systems of object stores raise what they like.
        raise ImageError(f"{shown(address)} cannot be read: {first_line(error).rstrip('.')}.") from error
    if len(content) > max_bytes:
        raise ImageError(
            f"{shown(address)} has more than {max_bytes:,} bytes. A larger --max-bytes (max_bytes) takes it."
        )
    return Fetched(address, content)

"""Pictures read ahead by processes: threads share one interpreter lock, which a few hundred pictures a second saturate."""

from __future__ import annotations

import itertools
import os
import select
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ssdtrt.errors import ImageError, SsdtrtError
from ssdtrt.images.jpeg import EncodedJpeg
from ssdtrt.images.levels import ValueRange
from ssdtrt.reading.addresses import PUBLIC, AddressRules
from ssdtrt.reading.reader_process import REQUEST, RESPONSE, ReaderSettings, decode, encode, shared_slots, slot_bytes
from ssdtrt.system.child import child_environment, python_command

_SILENCE_SECONDS = 0.5  # without a response, after which it is checked whether a process has died
_REQUESTS_AT_ONCE = 1 / 8  # of those that are read ahead: a write to a pipe takes as long as the rest for ten pictures


class PooledPicture(NamedTuple):
    """A picture in shared memory.

    Attributes:
        size: Its (width, height).
        pixels: uint8 [h, w, 3], in its own size or resized; or a JPEG for a GPU to decode.
        slot: The slot that holds them.
        notes: What is to be known about how it was read.
    """

    size: tuple[int, int]
    pixels: np.ndarray | EncodedJpeg
    slot: int
    notes: tuple[str, ...] = ()


class ReaderPool:
    """Processes that read picture files; each takes the next request when it has answered one. A context manager.

    A picture's pixels lie in a slot of shared memory, which is the caller's until `free_slot`. Leaving the block ends
    the processes; they also end by themselves when this process is gone.

    Args:
        workers: How many processes.
        depth: How many pictures they read ahead at most.
        held: How many slots the caller holds at most when it asks for another picture.
        orient: Whether pictures are turned by their EXIF orientation.
        preprocess: How pictures are resized, `eval` or `hub`.
        whole: Whether a picture that fits a slot keeps its own size; others are resized.
        value_range: Which values of more than 8 bits become black and white (see `load_image`).
        max_pixels: How many pixels of a picture are read at most (see `load_image`).
        addresses: What may be fetched.
        jpegs: Whether JPEGs that a GPU decodes stay as they are.
    """

    def __init__(
        self,
        workers: int,
        depth: int,
        held: int,
        *,
        orient: bool,
        preprocess: str,
        whole: bool = False,
        value_range: ValueRange | None = None,
        max_pixels: int | None = None,
        addresses: AddressRules = PUBLIC,
        jpegs: bool = False,
    ):
        self._seconds = 0.0
        self.depth = max(depth, workers)
        slots = self.depth + held  # A slot is requested or waits to be taken (`depth`), or it is the caller's (`held`).
        self.free = list(range(slots))
        self._received: dict[int, tuple[int, ...]] = {}  # responses by slot
        reading, writing = os.pipe()
        taken, self._requests = os.pipe()
        self._responses = os.fdopen(reading, "rb", buffering=0)
        self._poll = select.poll()
        self._poll.register(self._responses, select.POLLIN)
        with (
            _shared_file(slots * slot_bytes(whole)) as file,
            os.fdopen(taken, "rb") as requests,
            os.fdopen(writing, "wb") as responses,
        ):
            self.memory = shared_slots(file.fileno(), slots, whole)
            settings = ReaderSettings(preprocess, orient, whole, value_range, max_pixels, addresses, jpegs)
            words = [str(slots), settings.to_text()]
            self.processes: list[subprocess.Popen] = []
            try:
                for _ in range(workers):
                    self.processes.append(_start(file.fileno(), words, requests, responses))
            except BaseException:
                self.__exit__()
                raise

    def __enter__(self) -> ReaderPool:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()  # It holds nothing that could be lost.
        for process in self.processes:
            process.wait()
        os.close(self._requests)
        self._responses.close()

    def read(self, paths: Iterable[str | Path]) -> Iterator[PooledPicture | ImageError]:
        """Yield each picture, or why it cannot be read, in order; paths are taken as they are needed.

        Raises:
            SsdtrtError: Where a process has died.
        """
        requested: deque[tuple[int, str]] = deque()
        remaining, several = iter(paths), max(1, int(self.depth * _REQUESTS_AT_ONCE))
        while some := [os.fspath(path) for path in itertools.islice(remaining, several)]:
            while len(requested) + len(some) > self.depth:
                yield self._take(*requested.popleft())
            requested.extend(zip(self._request(some), some))
        while requested:
            yield self._take(*requested.popleft())

    def free_slot(self, slot: int) -> None:
        """End the caller's use of a slot, so that other pixels may be written into it."""
        self.free.append(slot)

    def take_seconds(self) -> float:
        """Return how long the processes have read, all together, since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _request(self, paths: list[str]) -> list[int]:
        """Ask for files; return the slots that they will fill, in which their paths lie until then."""
        self._check_alive()
        slots, requests = [], []
        for path in paths:
            slot, name = self.free.pop(), encode(path)[: self.memory.shape[1]]
            self.memory[slot, : len(name)] = np.frombuffer(name, np.uint8)
            slots.append(slot)
            requests.append(REQUEST.pack(slot, len(name)))
        try:
            os.write(self._requests, b"".join(requests))
        except BrokenPipeError as error:
            raise _death_of(self.processes[0]) from error
        return slots

    def _check_alive(self) -> None:
        for process in self.processes:
            if process.poll() is not None:
                raise _death_of(process)

    def _take(self, slot: int, path: str) -> PooledPicture | ImageError:
        while slot not in self._received:
            self._receive()
        width, height, stored_width, stored_height, noted, microseconds = self._received.pop(slot)
        self._seconds += microseconds / 1e6
        memory = self.memory[slot]
        if not width:
            message = decode(memory[:height].tobytes())
            self.free_slot(slot)
            return ImageError(message)
        if not stored_width:
            stored = (height, width) if stored_height >= 5 else (width, height)
            jpeg = EncodedJpeg(memory[:noted] if noted else path, stored, stored_height)
            return PooledPicture((width, height), jpeg, slot)
        pixels = memory[: stored_width * stored_height * 3].reshape(stored_height, stored_width, 3)
        notes = decode(memory[pixels.size : pixels.size + noted].tobytes())
        return PooledPicture((width, height), pixels, slot, tuple(notes.splitlines()))

    def _receive(self) -> None:
        """Wait for a response, and take all that have come."""
        while not self._poll.poll(_SILENCE_SECONDS * 1000):
            self._check_alive()
        data = self._responses.read(len(self.memory) * RESPONSE.size)
        if not data:
            raise _death_of(self.processes[0])
        for slot, *rest in RESPONSE.iter_unpack(data):
            self._received[slot] = tuple(rest)


def _start(file: int, settings: list[str], requests: BinaryIO, responses: BinaryIO) -> subprocess.Popen:
    return subprocess.Popen(
        python_command("ssdtrt.reading.reader_process", str(file), *settings),
        stdin=requests,
        stdout=responses,
        pass_fds=[file],
        env={**child_environment(), "OPENBLAS_NUM_THREADS": "1"},  # NumPy would start a thread for each core.
    )


def _death_of(process: subprocess.Popen) -> SsdtrtError:
    return SsdtrtError(
        f"A process that reads pictures ended with exit code {process.wait()}; it may have run out of memory. "
        "Use fewer with --workers."
    )


def _shared_file(size: int) -> BinaryIO:
    """An open file of `size` bytes to share with processes: in memory where the system can, else a temporary one."""
    in_memory = hasattr(os, "memfd_create")
    file = os.fdopen(os.memfd_create("ssdtrt"), "r+b") if in_memory else tempfile.TemporaryFile()
    file.truncate(size)
    return file

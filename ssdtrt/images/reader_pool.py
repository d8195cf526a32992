"""Pictures read ahead by processes: threads share one interpreter lock, which a few hundred pictures a second fill."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ssdtrt.errors import ImageError, SsdtrtError
from ssdtrt.images.reader_process import ANSWER, ASK, decode, encode, shared_slots, slot_bytes
from ssdtrt.system.child import child_environment

SILENCE_SECONDS = 0.5  # without an answer, after which it is seen whether a process has gone


class Read(NamedTuple):
    """A picture that was read: its (width, height), and its pixels, uint8 [h, w, 3], which lie in slot `slot`."""

    size: tuple[int, int]
    pixels: np.ndarray
    slot: int


class Readers:
    """Processes that read picture files, each the next when it is free. A context manager; leaving ends them.

    `depth` is how many pictures they are ahead at most. A picture's pixels lie in memory shared with them, in a slot
    which is the caller's until `give_back`; `held` is how many the caller has at most when it asks for another. With
    `whole` a picture that fits a slot is left as large as it is; without, and if it does not fit, it is squeezed. They
    end by themselves when this process is gone.
    """

    def __init__(self, workers: int, depth: int, held: int, *, orient: bool, preprocess: str, whole: bool = False):
        self.depth = max(depth, workers)
        slots = self.depth + held  # A slot is asked for, or answered and not yet taken: `depth`. Or it is the caller's.
        self.free = list(range(slots))
        self.answers: dict[int, tuple[int, ...]] = {}  # by slot
        self.reader_of: dict[int, int] = {}  # by slot
        self.loads = [0] * workers  # pictures asked of each process, whose answers have not been heard
        reading, writing = os.pipe()
        self.ear = os.fdopen(reading, "rb", buffering=0)
        self.poll = select.poll()
        self.poll.register(self.ear, select.POLLIN)
        with shared_file(slots * slot_bytes(whole)) as file, os.fdopen(writing, "wb") as answers:
            self.memory = shared_slots(file.fileno(), slots, whole)
            settings = [str(slots), preprocess, str(int(orient)), str(int(whole))]
            self.processes = [self._start(file.fileno(), settings, answers) for _ in range(workers)]

    def _start(self, file: int, settings: list[str], answers: BinaryIO) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "ssdtrt.images.reader_process", str(file), *settings],
            stdin=subprocess.PIPE,
            stdout=answers,
            pass_fds=[file],
            env={**child_environment(), "OPENBLAS_NUM_THREADS": "1"},  # NumPy would start a thread for each core.
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()  # It holds nothing that could be lost.
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        self.ear.close()

    def read(self, paths: Iterable[str | Path]) -> Iterator[Read | ImageError]:
        """Each picture, or why there is none, in order; paths are taken as they are needed."""
        asked: deque[int] = deque()
        for path in paths:
            if len(asked) == self.depth:
                yield self._answer(asked.popleft())
            asked.append(self._ask(path))
        while asked:
            yield self._answer(asked.popleft())

    def give_back(self, slot: int) -> None:
        """Ends the caller's use of a slot: other pixels may come into it now."""
        self.free.append(slot)

    def _ask(self, path: str | Path) -> int:
        """Asks the process with the least to do; the slot that it will fill."""
        slot, name = self.free.pop(), encode(os.fspath(path))
        number = self.loads.index(min(self.loads))
        self.reader_of[slot] = number
        self.loads[number] += 1
        process = self.processes[number]
        try:
            process.stdin.write(ASK.pack(slot, len(name)) + name)
            process.stdin.flush()
        except BrokenPipeError as error:
            raise self._lost(process) from error
        return slot

    def _answer(self, slot: int) -> Read | ImageError:
        while slot not in self.answers:
            self._listen()
        width, height, stored_width, stored_height = self.answers.pop(slot)
        memory = self.memory[slot]
        if not width:
            message = decode(memory[:height].tobytes())
            self.give_back(slot)
            return ImageError(message)
        pixels = memory[: stored_width * stored_height * 3].reshape(stored_height, stored_width, 3)
        return Read((width, height), pixels, slot)

    def _listen(self) -> None:
        """Waits for an answer, and takes all that are there."""
        while not self.poll.poll(SILENCE_SECONDS * 1000):
            for process in self.processes:
                if process.poll() is not None:
                    raise self._lost(process)
        said = self.ear.read(len(self.memory) * ANSWER.size)
        if not said:
            raise self._lost(self.processes[0])
        for slot, *rest in ANSWER.iter_unpack(said):
            self.answers[slot] = tuple(rest)
            self.loads[self.reader_of.pop(slot)] -= 1

    def _lost(self, process: subprocess.Popen) -> SsdtrtError:
        return SsdtrtError(f"A process that reads pictures ended with {process.wait()}: it may have run out of memory.")


def shared_file(size: int) -> BinaryIO:
    """An open file of `size` bytes for processes to share: in memory where there is such, else a temporary one."""
    has_such = hasattr(os, "memfd_create")
    file = os.fdopen(os.memfd_create("ssdtrt"), "r+b") if has_such else tempfile.TemporaryFile()
    file.truncate(size)
    return file

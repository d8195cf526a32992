"""Pictures read ahead by processes: threads share one interpreter lock, which a few hundred pictures a second fill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Union

import numpy as np

from ssdtrt import config
from ssdtrt.errors import ImageError, SsdtrtError
from ssdtrt.host import child_environment
from ssdtrt.reading import shared_slots

Read = Union[tuple[tuple[int, int], np.ndarray], ImageError]
"""A picture's (width, height) and its pixels, uint8 [300, 300, 3]; or why there are none."""


class Readers:
    """Processes that read picture files, each in its turn. Used as a context manager; leaving ends them.

    `depth` is how many pictures they are ahead at most. They end by themselves when this process is gone.
    """

    def __init__(self, workers: int, depth: int, *, orient: bool, preprocess: str):
        self.depth, self.orient, self.preprocess = max(depth, workers), orient, preprocess
        with tempfile.TemporaryFile() as file:
            file.truncate(self.depth * config.IMAGE_SIZE**2 * 3)
            self.pixels = shared_slots(file.fileno(), self.depth)
            self.processes = [self._start(file.fileno()) for _ in range(workers)]

    def _start(self, file: int) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "ssdtrt.reading", str(file), str(self.depth)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[file],
            env=child_environment(),
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()  # It holds nothing that could be lost.
        for process in self.processes:
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def read(self, paths: Iterable[str | Path]) -> Iterator[Read]:
        """Each picture, in order; paths are taken as they are needed."""
        asked: deque[int] = deque()
        for index, path in enumerate(paths):
            if len(asked) == self.depth:
                yield self._answer(asked.popleft())
            self._ask(index, path)
            asked.append(index)
        while asked:
            yield self._answer(asked.popleft())

    def _ask(self, index: int, path: str | Path) -> None:
        line = json.dumps([index % self.depth, os.fspath(path), self.orient, self.preprocess])
        try:
            process = self.processes[index % len(self.processes)]
            process.stdin.write(line + "\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise self._lost(process) from error

    def _answer(self, index: int) -> Read:
        process = self.processes[index % len(self.processes)]
        line = process.stdout.readline()
        if not line:
            raise self._lost(process)
        said = json.loads(line)
        if len(said) == 1:
            return ImageError(said[0])
        return tuple(said), self.pixels[index % self.depth].copy()

    def _lost(self, process: subprocess.Popen) -> SsdtrtError:
        return SsdtrtError(f"A process that reads pictures ended with {process.wait()}: it may have run out of memory.")

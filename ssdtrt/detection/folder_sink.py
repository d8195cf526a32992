"""A sink that writes annotated pictures and detections.json into a folder."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ssdtrt import config
from ssdtrt.detection.drawing import draw_detections, side_by_side
from ssdtrt.detection.json_sinks import JsonListSink
from ssdtrt.detection.results import Detections, ImageDetections
from ssdtrt.errors import ArtifactError
from ssdtrt.images.read_ahead import worker_count
from ssdtrt.system.files import replacing

_MAX_NAME_BYTES = 255  # of a file's name, on nearly every file system


@dataclass(frozen=True)
class Comparison:
    """A baseline whose detections are drawn beside each picture.

    Attributes:
        detect: Detects in an RGB image with the baseline.
        captions: What stands above the picture with the file's detections, and above the one with the baseline's.
    """

    detect: Callable[[Image.Image], ImageDetections]
    captions: tuple[str, str]


class FolderSink:
    """Writes each picture with its boxes into a folder, and `detections.json`; threads draw.

    Pictures of the same name are numbered. It needs `Detections.picture`.

    Args:
        folder: The folder, which is made.
        labels: The names of the model's classes, the background first.
        pictures: The pictures that will come, where they are known. Where some of them lie in the folder, or they are
            not known (None), no file in the folder is overwritten but detections.json.
        note: What is written along the bottom of each picture.
        comparison: A baseline, whose detections are drawn beside each picture.
    """

    def __init__(
        self,
        folder: str | Path,
        labels: Sequence[str],
        pictures: Iterable[str | Path] | None = None,
        note: str = "",
        comparison: Comparison | None = None,
    ):
        self._folder, self._labels, self._note, self._comparison = Path(folder), labels, note, comparison
        self._keep_files = pictures is None or self._folder.resolve() in _folders_of(pictures)
        self._names: set[str] = set()
        self._drawing: deque[Future[None]] = deque()

    def __enter__(self) -> FolderSink:
        with _advising(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._keep_files:
                self._names = {name.lower() for name in os.listdir(self._folder)}
            self._json = JsonListSink(self._folder / config.DETECTIONS_FILE, self._labels)
        self._pool = ThreadPoolExecutor(worker_count(), thread_name_prefix="ssdtrt-draw")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            with _advising(self._folder):
                while self._drawing and kind is None:
                    self._drawing.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._json.__exit__(kind, *rest)

    def write(self, found: Detections) -> None:
        """Write one picture; waits while too many are still being drawn.

        Raises:
            ArtifactError: Where a picture cannot be written.
        """
        assert found.picture is not None
        path = self._folder / _unused_name(Path(found.image).stem, self._names)
        with _advising(self._folder):
            both = [found.named(self._labels)]
            if self._comparison is not None:
                both.append(self._comparison.detect(found.picture))
            self._drawing.append(self._pool.submit(self._draw, found.picture, both, path))
            if len(self._drawing) > 2 * worker_count():
                self._drawing.popleft().result()
            self._json.write(found)

    def _draw(self, picture: Image.Image, found: Sequence[ImageDetections], path: Path) -> None:
        drawn = [draw_detections(picture, each.detections, self._note) for each in found]
        if self._comparison is not None:
            drawn = [side_by_side(drawn[0], drawn[1], self._comparison.captions)]
        with replacing(path, remove_stale=False) as temporary:
            drawn[0].save(temporary, format="JPEG", quality=92)


def _folders_of(pictures: Iterable[str | Path]) -> set[Path]:
    """The folders that the pictures lie in, and those that the links among them lead to."""
    names = [os.fspath(path) for path in pictures]
    linked = {Path(name).resolve().parent for name in names if os.path.islink(name)}
    return linked | {Path(folder).resolve() for folder in set(map(os.path.dirname, names))}


@contextlib.contextmanager
def _advising(folder: Path) -> Iterator[None]:
    """Raise what the system refuses as an ArtifactError with the advice to give another folder."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{error} Give another with -o.") from error
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written: {error.strerror or error}. Give another with -o.") from error


def _unused_name(stem: str, names: set[str]) -> str:
    """`stem`.jpg, or `stem`-2.jpg and so on where that name is taken, cut to what a file system takes; `names` has it."""
    name, number = _name(stem, ".jpg"), 1
    while name.lower() in names:
        number += 1
        name = _name(stem, f"-{number}.jpg")
    names.add(name.lower())
    return name


def _name(stem: str, ending: str) -> str:
    while len(os.fsencode(stem + ending)) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem + ending

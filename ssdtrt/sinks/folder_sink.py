"""A sink that writes annotated pictures, crops and detections.json into a folder."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ssdtrt import config
from ssdtrt.detection.drawing import crop_boxes, draw_detections, side_by_side
from ssdtrt.detection.results import Detections
from ssdtrt.detection.unpacking import DetectionBatch
from ssdtrt.errors import ArtifactError
from ssdtrt.reading.addresses import path_of
from ssdtrt.reading.read_ahead import worker_count
from ssdtrt.sinks.json_sinks import JsonListSink
from ssdtrt.system.outputs import FolderRecord, remove_written

_LONGEST_SIDE = 65_500  # pixels, that a JPEG can have
_MAX_NAME_BYTES = 255  # of a file's name, on nearly every file system
_FIRST_STARTS = (b"", b"[", b"[\n]\n", b'[\n{"image": ')  # of a detections.json of schema 1, whole or broken off


@dataclass(frozen=True)
class Comparison:
    """A baseline whose detections are drawn beside each picture.

    Attributes:
        detect: Detects in an RGB image with the baseline.
        captions: What stands above the picture with the file's detections, and above the one with the baseline's.
    """

    detect: Callable[[Image.Image], Detections]
    captions: tuple[str, str]


class FolderSink:
    """Writes each picture with its boxes into a folder, and `detections.json`; threads draw.

    What an earlier one wrote there is removed, by its record and where it has not changed since. No other file is
    removed or overwritten: pictures of the same name are numbered. It needs `Detections.picture`. What is larger than a
    JPEG can be is drawn smaller.

    Args:
        folder: The folder, which is made.
        labels: The names of the model's classes, the background first.
        note: What is written along the bottom of each picture.
        comparison: A baseline, whose detections are drawn beside each picture.
        show_labels: Whether labels and scores are drawn, beside the boxes.
        save_crops: Whether each detection is cut out too, into a folder of its class in config.CROPS_DIR.
    """

    def __init__(
        self,
        folder: str | Path,
        labels: Sequence[str],
        note: str = "",
        comparison: Comparison | None = None,
        *,
        show_labels: bool = True,
        save_crops: bool = False,
    ):
        self._folder, self._labels, self._note, self._comparison = Path(folder), labels, note, comparison
        self._show_labels, self._save_crops = show_labels, save_crops
        self._taken: dict[Path, set[str]] = {}  # of each folder, the names in lowercase
        self._drawing: deque[Future[None]] = deque()

    def __enter__(self) -> FolderSink:
        with _advising(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            _check_own(self._folder / config.DETECTIONS_FILE)
            self._json = JsonListSink(self._folder / config.DETECTIONS_FILE, self._labels, self._note)
            try:  # Nobody else writes here now.
                remove_written(self._folder)
                self._record = FolderRecord(self._folder)
            except BaseException as error:
                self._json.__exit__(type(error))
                raise
        self._pool = ThreadPoolExecutor(worker_count(), thread_name_prefix="ssdtrt-draw")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            with _advising(self._folder):
                while self._drawing and kind is None:
                    self._drawing.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._record.close()
            self._json.__exit__(kind, *rest)

    def write(self, found: Detections) -> None:
        """Write one picture; waits while too many are still being drawn.

        Raises:
            ArtifactError: Where a picture cannot be written.
        """
        stem = Path(path_of(found.image)).stem
        with _advising(self._folder):
            drawing, crops = self._unused("", stem), []
            if self._save_crops:
                crops = [self._unused(_crop_folder(self._labels[label]), stem) for label in found.class_id.tolist()]
            both = [found]
            if self._comparison is not None:
                both.append(self._comparison.detect(found.picture))
            self._drawing.append(self._pool.submit(self._draw, both, drawing, crops))
            if len(self._drawing) > 2 * worker_count():
                self._drawing.popleft().result()
            self._json.write(found, drawing, crops)

    def write_batch(self, batch: DetectionBatch) -> None:
        """Write several pictures.

        Raises:
            ArtifactError: Where a picture cannot be written.
        """
        for _, found in batch:
            self.write(found)

    def _unused(self, below: str, stem: str) -> str:
        """A path, from the folder, that no file of the subfolder `below` has and that was not given before."""
        folder = self._folder / below
        if folder not in self._taken:
            self._taken[folder] = {name.lower() for name in os.listdir(folder)} if folder.is_dir() else set()
        name = _unused_name(stem, self._taken[folder])
        return f"{below}/{name}" if below else name

    def _draw(self, both: Sequence[Detections], drawing: str, crops: Sequence[str]) -> None:
        picture = both[0].picture
        drawn = [
            draw_detections(picture, each.named(self._labels).detections, self._note, self._show_labels)
            for each in both
        ]
        if self._comparison is not None:
            drawn = [side_by_side(drawn[0], drawn[1], self._comparison.captions)]
        self._record.write(drawing, _jpeg(drawn[0]))
        if crops:
            for name, crop in zip(crops, crop_boxes(picture, both[0].xyxy)):
                self._record.write(name, _jpeg(crop))


def _jpeg(image: Image.Image) -> bytes:
    content = io.BytesIO()
    if max(image.size) > _LONGEST_SIDE:
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    image.save(content, format="JPEG", quality=92)
    return content.getvalue()


def _check_own(path: Path) -> None:
    """Raise ArtifactError for a detections.json that no sink wrote."""
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(len(JsonListSink.start))
        if start != JsonListSink.start.encode() and start[: len(_FIRST_STARTS[-1])] not in _FIRST_STARTS:
            raise ArtifactError(f"{path} was not written by ssdtrt, and is not overwritten.")


def _crop_folder(label: str) -> str:
    """The folder for the crops of a class: its name without what a file system does not take."""
    name = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", label).strip(" .") or "_"
    return f"{config.CROPS_DIR}/{_name(name, '')}"


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

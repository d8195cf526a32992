"""What becomes of detections: annotated pictures in a folder, JSON lines, COCO's results."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ssdtrt import config
from ssdtrt.detect import Detector
from ssdtrt.detection.drawing import draw_detections, side_by_side
from ssdtrt.detection.json_writers import CocoResults, JsonLines, JsonList
from ssdtrt.detection.results import Detections, ImageDetections
from ssdtrt.errors import ArtifactError, ImageError
from ssdtrt.images.read_ahead import worker_count
from ssdtrt.system.files import replacing
from ssdtrt.system.progress import Progress, silent

UNTRAINED = "untrained: random weights"
SHOWN = 20  # pictures that a summary remembers
PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class Summary:
    """What a run over pictures did. `first` are the detections of the first 20 pictures."""

    pictures: int
    detections: int
    seconds: float
    first: tuple[ImageDetections, ...]
    failures: tuple[ImageError, ...]

    @property
    def images_per_second(self) -> float:
        """Pictures read, detected in and written a second."""
        return self.pictures / self.seconds if self.seconds else 0.0


class FolderSink:
    """Writes each picture with its boxes into a folder, and `detections.json`; drawing is done by threads.

    Pictures of the same name are numbered. Where some of `pictures` lie in the folder itself, or they are not known
    (None), no file that lies there is written over. With `peer`, a second Detector, each picture is shown twice: as this
    detector and as the peer sees it.
    """

    def __init__(
        self,
        folder: str | Path,
        detector: Detector,
        pictures: Sequence[str | Path] | None = None,
        peer: Detector | None = None,
    ):
        self.folder, self.detector, self.peer = Path(folder), detector, peer
        self.keeping = pictures is None or self.folder.resolve() in folders_of(pictures)
        self.names: set[str] = set()
        self.note = "" if detector.runner.trained else UNTRAINED
        self.waiting: deque[Future] = deque()

    def __enter__(self):
        with unwritable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.keeping:
                self.names = {name.lower() for name in os.listdir(self.folder)}
            self.json = JsonList(self.folder / "detections.json", self.detector.runner.labels)
        self.pool = ThreadPoolExecutor(worker_count(), thread_name_prefix="ssdtrt-draw")
        return self

    def __exit__(self, kind, error, trace):
        try:
            with unwritable(self.folder):
                while self.waiting and kind is None:
                    self.waiting.popleft().result()
        finally:
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.json.__exit__(kind, error, trace)

    def write(self, found: Detections) -> None:
        """One picture; waits where too many are still being drawn. Raises ArtifactError where it cannot be written."""
        name = unused_name(Path(found.image).stem, self.names)
        with unwritable(self.folder):
            other = self.peer([found.picture])[0] if self.peer is not None else None
            self.waiting.append(self.pool.submit(self._draw, found, other, self.folder / name))
            if len(self.waiting) > 2 * worker_count():
                self.waiting.popleft().result()
            self.json.write(found.image, found.width, found.height, found.boxes, found.labels, found.scores)

    def _draw(self, found: Detections, other: ImageDetections | None, path: Path) -> None:
        labels = self.detector.runner.labels
        picture = draw_detections(found.picture, found.named(labels).detections, self.note)
        if other is not None:
            names = tuple(f"{side.runner.precision.upper()} {side.runner.name}" for side in (self.detector, self.peer))
            picture = side_by_side(picture, draw_detections(found.picture, other.detections, self.note), names)
        with replacing(path, clear=False) as temporary:
            picture.save(temporary, format="JPEG", quality=92)


class JsonLinesSink:
    """Writes each picture's detections as one line of JSON, to a path or a stream."""

    def __init__(self, target: str | os.PathLike | TextIO, labels: Sequence[str]):
        self.lines = JsonLines(target, labels)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.lines.__exit__(*error)

    def write(self, found: Detections) -> None:
        """One picture."""
        self.lines.write(found.image, found.width, found.height, found.boxes, found.labels, found.scores)


class CocoSink:
    """Writes COCO's results. A picture's number is its file name, as COCO has it; other names are failures.

    Labels become COCO's category ids where they are COCO's 80, and stay 1..C-1 otherwise.
    """

    def __init__(self, target: str | os.PathLike | TextIO, labels: Sequence[str], failures: list[ImageError]):
        self.results, self.failures = CocoResults(target), failures
        self.categories = config.COCO_CATEGORY_IDS if tuple(labels) == config.COCO_LABELS else range(len(labels))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.results.__exit__(*error)

    def write(self, found: Detections) -> None:
        """One picture."""
        stem = Path(found.image).stem
        if not (stem.isascii() and stem.isdigit()):
            wanted = "they need a number as the file's name, as 000139.jpg"
            self.failures.append(ImageError(f"{found.image} is not in COCO's results: {wanted}."))
            return
        categories = [self.categories[label] for label in found.labels.tolist()]
        self.results.write(int(stem), found.boxes, categories, found.scores)


def detect_files(
    detector: Detector,
    pictures: Iterable[str | Path],
    outputs: Sequence[FolderSink | JsonLinesSink | CocoSink],
    failures: list[ImageError] | None = None,
    total: int | None = None,
    progress: Progress = silent,
    each: Callable[[Detections], None] | None = None,
) -> Summary:
    """Detects in picture files and hands each picture's detections to every output, as they come.

    What cannot be read goes to `failures` and the others go on. `total` is the number of pictures, where it is known.
    However it ends, every output is closed and valid.
    """
    failures = [] if failures is None else failures
    first: list[ImageDetections] = []
    started = said = time.perf_counter()
    count = detections = 0
    with contextlib.ExitStack() as stack:
        for output in outputs:
            stack.enter_context(output)
        keep = any(isinstance(output, FolderSink) for output in outputs)
        many = total is None or total >= config.MANY
        stream = stack.enter_context(contextlib.closing(detector.stream(pictures, failures, keep=keep, many=many)))
        for index, found in stream:
            for output in outputs:
                output.write(found)
            if each is not None:
                each(found)
            count, detections = count + 1, detections + len(found.scores)
            if len(first) < SHOWN:
                first.append(found.named(detector.runner.labels))
            now = time.perf_counter()
            if now - said > PROGRESS_SECONDS or index + 1 == total:
                said = now
                progress(bar(index + 1, total, count / (now - started)))
    return Summary(count, detections, time.perf_counter() - started, tuple(first), tuple(failures))


def bar(done: int, total: int | None, rate: float) -> str:
    """A line that says how far a run is, with a bar where the total is known."""
    if not total:
        return f"detecting, {done} pictures, {rate:.0f} images/s"
    filled = min(20, 20 * done // total)
    return f"detecting [{'#' * filled}{'.' * (20 - filled)}] {done} of {total} pictures, {rate:.0f} images/s"


def detect_to_folder(
    detector: Detector, pictures: Sequence[str | Path], folder: str | Path, progress: Progress = silent
) -> tuple[list[ImageDetections], list[ImageError]]:
    """Detects in picture files, and writes into `folder` each picture with its boxes and `detections.json`.

    See FolderSink. Returns what was found and what could not be read; the good pictures are done either way. Raises
    ArtifactError where the folder cannot be written.
    """
    failures: list[ImageError] = []
    results: list[ImageDetections] = []
    labels = detector.runner.labels
    output = FolderSink(folder, detector, pictures)

    def remember(found: Detections) -> None:
        results.append(found.named(labels))

    detect_files(detector, pictures, [output], failures, len(pictures), progress, remember)
    return results, failures


def folders_of(pictures: Iterable[str | Path]) -> set[Path]:
    """Where the pictures lie, and where the links among them lead."""
    names = [os.fspath(path) for path in pictures]
    linked = {Path(name).resolve().parent for name in names if os.path.islink(name)}
    return linked | {Path(folder).resolve() for folder in set(map(os.path.dirname, names))}


@contextlib.contextmanager
def unwritable(folder: Path):
    """What the system refuses, said as an ArtifactError with what to do."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{error} Give another with -o.") from error
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written: {error.strerror or error}. Give another with -o.") from error


def unused_name(stem: str, names: set[str]) -> str:
    """`stem`.jpg, or `stem`-2.jpg and so on where that was given out; adds it to `names`."""
    name, number = f"{stem}.jpg", 1
    while name.lower() in names:
        number += 1
        name = f"{stem}-{number}.jpg"
    names.add(name.lower())
    return name

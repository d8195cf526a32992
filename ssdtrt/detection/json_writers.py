"""Detections written as they come, a picture at a time: JSON lines, and COCO's results as one JSON list.

What is there is valid at any moment a run may end: by its end, an error or Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from ssdtrt.detection.results import Detection
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.system.files import BusyError, is_special, naming, open_alone

CHUNK = 4096  # bytes handed to a stream's buffer at once; the buffer holds more


class Output:
    """A text file or a stream such as sys.stdout, which stays open, that grows by whole pieces.

    When a run breaks off in the middle of a piece, that piece is cut off a file again, and completed on a stream.
    Raises ArtifactError for a path that cannot be written, OSError for a write that fails.
    """

    def __init__(self, target: str | os.PathLike | TextIO, start: str = ""):
        self.file = self.stream = None
        self.target = str(target)
        try:
            if hasattr(target, "write"):
                self.stream = StreamOutput(target)
            elif is_special(target):
                self.file = open(target, "wb", buffering=0)
            else:
                self.file = open_alone(target)
        except BusyError as error:
            raise ArtifactError(f"{target} cannot be written: {error}. Wait for it.") from error
        except OSError as error:
            raise ArtifactError(f"{target} cannot be written: {error.strerror or error}.") from error
        self.whole = 0  # bytes of the file that are whole pieces
        if start:
            try:
                self.write(start)
            except BaseException:
                self.close("", broken=True)
                raise

    def write(self, text: str) -> None:
        """Writes one piece, whole, and leaves it in no buffer."""
        if self.stream is not None:
            self.stream.write(text)
            return
        piece = memoryview(text.encode())
        rest = piece
        with naming(self.target):
            while rest:
                rest = rest[self.file.write(rest) :]
        self.whole += len(piece)

    def close(self, end: str, broken: bool) -> None:
        """Writes the end and closes a file. After a failure (`broken`) another failure is not raised."""
        try:
            if broken and self.stream is not None:
                self.stream.complete()
            if broken and self.file is not None and self.file.seekable():
                self.file.truncate(self.whole)
                self.file.seek(self.whole)
            if end:
                self.write(end)
        except OSError:
            if not broken:
                raise
        finally:
            if self.file is not None:
                self.file.close()
            elif self.stream.buffer is not None:
                with contextlib.suppress(OSError):  # What it holds has no reader any more.
                    self.stream.buffer.close()


class StreamOutput:
    """A text stream that knows what it still has to say when it is interrupted. It is flushed after every piece."""

    def __init__(self, stream: TextIO):
        self.stream, self.buffer = stream, None
        stream.flush()
        with contextlib.suppress(AttributeError, OSError):  # A stream in memory has no file below it.
            self.buffer = open(stream.fileno(), "wb", buffering=2 * CHUNK, closefd=False)
        self.pending: tuple[list[bytes], deque[int]] = [], deque()

    def write(self, text: str) -> None:
        """Writes one piece."""
        if self.buffer is None:
            self.stream.write(text)
            self.stream.flush()
            return
        data = text.encode()
        self.pending = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)], deque()
        self.complete()

    def complete(self) -> None:
        """Writes what is missing of the last piece: Ctrl-C may come while a write waits for its reader."""
        if self.buffer is None:
            return
        chunks, taken = self.pending
        # The buffer takes a chunk whole or, when it raises, not at all; one call of C counts those taken, so that
        # nothing comes between a write and its count.
        taken.extend(map(self.buffer.write, chunks[len(taken) :]))
        self.buffer.flush()


class JsonLines:
    """One JSON object a picture and line, of the form of `ImageDetections.as_dict`.

    `labels` are the model's, background first. Edges have 2 decimals and scores 6; what is not finite is null.
    """

    def __init__(self, target: str | os.PathLike | TextIO, labels: Sequence[str], start: str = ""):
        self.labels = list(labels)
        self.rows = [
            f'{{"label": {_quoted(label)}, "label_id": {number}, "score": %.6f, "box": [%.2f, %.2f, %.2f, %.2f]}}'
            for number, label in enumerate(labels)
        ]
        self.output = Output(target, start)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.output.close("", broken=kind is not None)

    def write(self, image: str | Path, width: int, height: int, boxes_xyxy, labels, scores) -> None:
        """One picture: boxes_xyxy [K, 4] in pixels, labels [K] in 1..C-1 and scores [K], arrays or CPU tensors."""
        self.output.write(self.line(image, width, height, boxes_xyxy, labels, scores) + "\n")

    def line(self, image: str | Path, width: int, height: int, boxes_xyxy, labels, scores) -> str:
        """What `write` writes, without the end of the line."""
        values = _columns(scores, boxes_xyxy)
        row_of = self._row if np.isfinite(values).all() else self._row_with_nulls
        rows = map(row_of, np.asarray(labels).tolist(), values.tolist())
        head = f'{{"image": {json.dumps(str(image))}, "width": {width}, "height": {height}, "detections": ['
        return head + ", ".join(rows) + "]}"

    def _row(self, label: int, values: list[float]) -> str:
        return self.rows[label] % tuple(values)

    def _row_with_nulls(self, label: int, values: list[float]) -> str:
        score, *box = values
        detection = Detection(self.labels[label], label, round(score, 6), tuple(round(edge, 2) for edge in box))
        return json.dumps(detection.as_dict())


class JsonList(JsonLines):
    """The same objects as one JSON list, a line each."""

    def __init__(self, target: str | os.PathLike | TextIO, labels: Sequence[str]):
        super().__init__(target, labels, "[")
        self.before = "\n"

    def __exit__(self, kind, *_):
        self.output.close("\n]\n", broken=kind is not None)

    def write(self, image: str | Path, width: int, height: int, boxes_xyxy, labels, scores) -> None:
        """One picture, as in `JsonLines`."""
        self.output.write(self.before + self.line(image, width, height, boxes_xyxy, labels, scores))
        self.before = ",\n"


class CocoResults:
    """COCO's results: a list of {"image_id", "category_id", "bbox": [left, top, width, height], "score"}, a line each.

    The numbers are the float32 ones, none rounded. What is not finite raises SsdtrtError.
    """

    def __init__(self, target: str | os.PathLike | TextIO):
        self.output = Output(target, "[")
        self.before = ""

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.output.close("\n]\n", broken=kind is not None)

    def write(self, image_id: int, boxes_xyxy, category_ids: Sequence[int], scores) -> None:
        """One picture: boxes_xyxy [K, 4] in its pixels, the category ids [K] and scores [K], arrays or CPU tensors."""
        values = _columns(to_xywh(boxes_xyxy), scores)
        if not len(values):
            return
        if not np.isfinite(values).all():
            raise SsdtrtError(f"Picture {image_id}: a box or score is not finite; COCO's results have no such number.")
        start = f'\n{{"image_id": {image_id}, "category_id": '
        rows = [
            '%s%d, "bbox": [%.9g, %.9g, %.9g, %.9g], "score": %.9g}' % (start, category, *row)
            for category, row in zip(np.asarray(category_ids).tolist(), values.tolist())
        ]
        self.output.write(self.before + ",".join(rows))
        self.before = ","


def to_xywh(boxes_xyxy) -> np.ndarray:
    """Boxes [K, 4] from (left, top, right, bottom) to (left, top, width, height), float32."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4)
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def _columns(*parts) -> np.ndarray:
    """Arrays [K] and [K, n] side by side [K, M], float32."""
    return np.column_stack([np.asarray(part, dtype=np.float32) for part in parts])


def _quoted(label: str) -> str:
    return json.dumps(label).replace("%", "%%")

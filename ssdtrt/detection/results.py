"""What a detector finds in a picture, and what can be done with it in a notebook. No torch here."""

from __future__ import annotations

import base64
import functools
import html
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdtrt.errors import ArtifactError, ImageError, SsdtrtError, first_line
from ssdtrt.reading.stage_times import StageTime
from ssdtrt.system.outputs import writing
from ssdtrt.system.report import Report, counted

if TYPE_CHECKING:
    import pandas
    from PIL import Image

UNTRAINED = "untrained: random weights"
_SHOWN_SIDE = 640  # pixels of a picture in a notebook's table
_SHOWN_ROWS = 20


class Detection(Report, frozen=True):
    """One object found in a picture.

    Attributes:
        label: The name of its class.
        label_id: The number of its class, 1..C-1; 0 is the background, which is never found.
        score: The class's probability, 0..1.
        box: (left, top, right, bottom) in the pixels of the original picture.
    """

    label: str
    label_id: int
    score: float
    box: tuple[float, float, float, float]


class ImageDetections(Report, frozen=True):
    """The detections of one picture, the best first, as they are written as JSON: its document is a line of JSON lines.

    Attributes:
        image: Its path, or its address without a user name and password; "" where it has none.
        width: Its width in pixels.
        height: Its height in pixels.
        detections: What was found in it.
    """

    kind = "picture"
    schema = 2

    image: str
    width: int
    height: int
    detections: tuple[Detection, ...]


class PictureList(Report, frozen=True):
    """The pictures of a detections.json.

    Attributes:
        pictures: What was found in each.
        note: What the drawings say along their bottom, such as that the weights are untrained; "" for nothing.
    """

    kind = "detections"
    schema = 2

    pictures: tuple[ImageDetections, ...]
    note: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The detections of one picture, the best first: arrays with the usual names, and records with labels.

    Other libraries take the arrays as they are, such as `supervision.Detections(xyxy=found.xyxy,
    confidence=found.confidence, class_id=found.class_id)`. In a notebook it shows the picture with its boxes.

    Attributes:
        image: The picture's path, or its address without a user name and password; "" where it has none.
        width: Its width in pixels.
        height: Its height in pixels.
        xyxy: Boxes [K, 4] as (left, top, right, bottom) in the picture's pixels, float32.
        class_id: Classes [K] in 1..C-1, int64.
        confidence: Scores [K], 0..1, float32.
        labels: The names of all classes, the background first.
        load: Returns the picture itself, RGB; None where it cannot be had.
        note: What is written along the bottom of drawings.

    Example:
        >>> from ssdtrt import Detector
        >>> found = Detector("ssd300.ts")("street.jpg")
        >>> found.class_name.tolist(), found.xyxy.shape, found.detections[0].score
        (['cat', 'dog', 'person'], (3, 4), 0.836242)
        >>> found.save("street-boxes.jpg").name, [crop.size for crop in found.crop()][2]
        ('street-boxes.jpg', (320, 480))
    """

    image: str
    width: int
    height: int
    xyxy: np.ndarray
    class_id: np.ndarray
    confidence: np.ndarray
    labels: Sequence[str] = ()
    load: Callable[[], Image.Image] | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.confidence)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        mine, others = ((one.image, one.width, one.height, tuple(one.labels)) for one in (self, other))
        names = ("xyxy", "class_id", "confidence")
        return mine == others and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        found = ", ".join(f"{one.label} {one.score:.2f}" for one in self.detections[:_SHOWN_ROWS])
        more = ", ..." if len(self) > _SHOWN_ROWS else ""
        return f"<Detections {self.image or 'picture'} {self.width}x{self.height}: {found or 'nothing'}{more}>"

    def named(self, labels: Sequence[str]) -> ImageDetections:
        """Return the same with the classes' names, edges rounded to 2 decimals and scores to 6.

        Args:
            labels: The names of the classes, the background first.
        """
        rows = zip(self.class_id.tolist(), self.confidence.tolist(), self.xyxy.tolist())
        detections = tuple(
            Detection(labels[number], number, round(score, 6), tuple(round(edge, 2) for edge in box))
            for number, score, box in rows
        )
        return ImageDetections(self.image, self.width, self.height, detections)

    @functools.cached_property
    def detections(self) -> tuple[Detection, ...]:
        """The detections as records with label, label_id, score and box, rounded as in JSON."""
        return self.named(self.labels).detections

    @property
    def class_name(self) -> np.ndarray:
        """The names of the classes [K], text."""
        return np.array([self.labels[number] for number in self.class_id.tolist()], dtype=np.str_)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the picture, as detections.json has it."""
        return self.named(self.labels).as_dict()

    @property
    def picture(self) -> Image.Image:
        """The picture in RGB. A path is read again, and an array has its pixels as they are now.

        What was fetched is kept within a limit of bytes, beyond which it is fetched again.

        Raises:
            ImageError: Where it cannot be had, or has another size than it had.
        """
        if self.load is None:
            raise ImageError(f"The picture {self.image or 'of these detections'} is not there any more.")
        picture = self.load()
        if picture.size != (self.width, self.height):
            found, expected = (f"{width}x{height}" for width, height in (picture.size, (self.width, self.height)))
            raise ImageError(
                f"{self.image or 'The picture'} is {found} now; it was {expected} when it was detected in."
            )
        return picture

    def plot(self, *, labels: bool = True) -> Image.Image:
        """Return a copy of the picture with the boxes, the best on top.

        Args:
            labels: Whether the classes and scores are written too.

        Raises:
            ImageError: As `picture`.
        """
        from ssdtrt.detection.drawing import draw_detections

        return draw_detections(self.picture, self.detections, self.note, labels)

    def show(self, *, labels: bool = True) -> None:
        """Show what `plot` returns: in a notebook below the cell, elsewhere in the system's viewer."""
        drawn = self.plot(labels=labels)
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if hasattr(shell, "kernel"):
            sys.modules["IPython"].display.display(drawn)
        else:
            drawn.show()

    def save(self, path: str | Path, *, labels: bool = True) -> Path:
        """Write what `plot` returns, whole or not at all, and return the path.

        Args:
            path: The file, whose suffix says the format.
            labels: Whether the classes and scores are written too.

        Raises:
            ArtifactError: For a suffix that is no picture's, or where it cannot be written.
        """
        from PIL import Image

        path = Path(path)
        name = Image.registered_extensions().get(path.suffix.lower())
        if name not in Image.SAVE:
            raise ArtifactError(
                f"{path} has the suffix {path.suffix!r}; expected that of a picture, such as .jpg or .png."
            )
        drawn = self.plot(labels=labels)
        with writing(path) as temporary:
            try:
                drawn.save(temporary, format=name, **({"quality": 92} if name == "JPEG" else {}))
            except OSError:
                raise
            except Exception as error:  # Pillow's encoders raise almost anything for a size that a format cannot have.
                raise ArtifactError(f"{path} cannot be written as {name} ({first_line(error)}).") from error
        return path

    def crop(self) -> list[Image.Image]:
        """Return each detection cut out of the picture, in their order.

        Raises:
            ImageError: As `picture`.
        """
        from ssdtrt.detection.drawing import crop_boxes

        return crop_boxes(self.picture, self.xyxy)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return a row for each detection: image, class_name, class_id, confidence, xmin, ymin, xmax, ymax.

        Raises:
            SsdtrtError: Where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise SsdtrtError("to_dataframe needs pandas: pip install pandas") from error
        columns = {"image": [self.image] * len(self), "class_name": self.class_name, "class_id": self.class_id}
        edges = dict(zip(("xmin", "ymin", "xmax", "ymax"), self.xyxy.T))
        return pandas.DataFrame({**columns, "confidence": self.confidence, **edges})

    def _repr_html_(self) -> str:
        """Return a table of the detections, under the picture with its boxes where that can be had."""
        try:
            drawn = self.plot()
            drawn.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
            content = io.BytesIO()
            drawn.save(content, format="JPEG", quality=85)
            shown = f'<img src="data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}">'
        except ImageError as error:
            shown = f"<p>{html.escape(str(error))}</p>"
        rows = "".join(
            f"<tr><td>{html.escape(one.label)}</td><td>{one.score:.2f}</td>"
            f"<td>{', '.join(f'{edge:.0f}' for edge in one.box)}</td></tr>"
            for one in self.detections[:_SHOWN_ROWS]
        )
        more = f"<p>and {len(self) - _SHOWN_ROWS} more</p>" if len(self) > _SHOWN_ROWS else ""
        head = "<tr><th>class</th><th>confidence</th><th>xyxy</th></tr>"
        title = f"{html.escape(self.image) or 'picture'}, {self.width}x{self.height}: {counted(len(self), 'object')}"
        return f"<div><p>{title}</p>{shown}<table>{head}{rows}</table>{more}</div>"


@dataclass(frozen=True)
class Summary:
    """What a run over pictures did.

    Attributes:
        pictures: How many were read.
        detections: How many objects were found in them.
        seconds: How long the run took.
        first: The detections of the first 20 pictures.
        failures: Why the others could not be read.
        stages: How long each stage was busy.
    """

    pictures: int
    detections: int
    seconds: float
    first: tuple[ImageDetections, ...]
    failures: tuple[ImageError, ...]
    stages: tuple[StageTime, ...] = ()

    @property
    def images_per_second(self) -> float:
        """Pictures read, run and written a second."""
        return self.pictures / self.seconds if self.seconds else 0.0

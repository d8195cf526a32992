"""Sample pictures with their boxes, embedded in the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from ssdtrt.detection.drawing import draw_detections
from ssdtrt.detection.results import ImageDetections
from ssdtrt.errors import SsdtrtError
from ssdtrt.images.decode import load_image
from ssdtrt.reading.addresses import is_address
from ssdtrt.reporting.elements import Content, element, section
from ssdtrt.reporting.sources import Reports
from ssdtrt.system.report import counted

_MOST = 12  # pictures
_SIDE = 800  # pixels of the longer side
_QUALITY = 85
_NAMED = 5  # detections below a picture


def pictures_section(reports: Reports, missing: list[str]) -> ElementTree.Element | None:
    """Return the sample pictures; None without any. What cannot be shown is added to `missing`."""
    found = [(one, trained) for pictures, trained in reports.pictures for one in pictures]
    if not found:
        missing.append(
            "Sample pictures: none of the files has detections. ssdtrt detect writes them (detections.json), and ssdtrt run."
        )
        return None
    figures: list[Content] = []
    reasons = []
    for one, trained in found:
        if len(figures) == _MOST:
            break
        picture = _drawn(one)
        if isinstance(picture, str):
            reasons.append(picture)
        else:
            figures.append(_figure(one, picture, trained))
    shown = len(figures)
    if reasons:
        more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        missing.append(f"Not shown: {reasons[0].removesuffix('.')}{more}.")
    if not figures:
        return None
    count = f"{shown} of {counted(len(found), 'picture')}." if shown < len(found) else None
    return section(
        "Sample pictures", element("p", count) if count else None, element("div", *figures, class_="pictures")
    )


def _drawn(found: ImageDetections) -> Image.Image | str:
    """The picture with its boxes, or why it cannot be drawn."""
    name = Path(found.image).name
    if is_address(found.image):
        return f"{found.image} is an address, and a page fetches nothing"
    try:
        image = load_image(found.image)
    except (SsdtrtError, OSError, ValueError) as error:
        return str(error) if isinstance(error, SsdtrtError) else f"{name} cannot be read"
    if image.size != (found.width, found.height):
        return (
            f"{name} is {image.width}x{image.height} pixels now, and was {found.width}x{found.height} when it was read"
        )
    return draw_detections(image, found.detections)


def _figure(found: ImageDetections, picture: Image.Image, trained: bool) -> ElementTree.Element:
    name, count = Path(found.image).name, len(found.detections)
    objects = counted(count, "object")
    best = ", ".join(f"{one.label} {one.score:.2f}" for one in found.detections[:_NAMED])
    if count > _NAMED:
        best += f" and {count - _NAMED} more"
    mark = "" if trained else "; untrained weights, the boxes mean nothing"
    image = element("img", src=_embedded(picture), alt=f"{name} with {objects} drawn{f': {best}' if best else ''}")
    caption = element("figcaption", element("strong", name), f": {objects}{mark}", element("br"), best or None)
    return element("figure", image, caption)


def _embedded(picture: Image.Image) -> str:
    """The address of a picture that is part of the page."""
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

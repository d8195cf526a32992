"""Whether pictures lie as their annotations say: their EXIF orientation, and the sizes that annotations record."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from PIL import ExifTags, Image

from ssdtrt.evaluation.annotations import Annotations, listed
from ssdtrt.sinks.json_sinks import CocoId
from ssdtrt.system.progress import Progress, silent, tracked
from ssdtrt.system.report import counted

_QUARTERS = (5, 6, 7, 8)  # the EXIF orientations that exchange width and height
_NOTES = {
    "upright": "not turned by EXIF orientation, but annotated upright, as the recorded sizes show: give --orient",
    "stored": "turned by EXIF orientation, but annotated as stored, as the recorded sizes show: leave out --orient",
    "stored always": "TIFF or HEIC with an orientation, by which it is always turned, but annotated as stored, as the "
    "recorded sizes show: remove the tag",
    "ignored": "with an EXIF orientation that was ignored, as in the published evaluation; if annotated upright, give "
    "--orient",
    "always": "TIFF or HEIC with an orientation, by which it is always turned",
    "exchanged": "width and height exchanged in the annotations, and no EXIF orientation that says so",
    "other": "another size than in the annotations",
}


def orientation_notes(
    annotations: Annotations,
    pictures: Mapping[CocoId, Path],
    sizes: Mapping[CocoId, tuple[int, int]],
    orient: bool,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Return a note on each way in which pictures may not lie as they are annotated.

    Args:
        annotations: The annotations, whose recorded sizes are compared.
        pictures: {image id: path} of all pictures.
        sizes: {image id: (width, height)} of those that were read, as they were evaluated.
        orient: Whether they were turned by their EXIF orientation; TIFFs and HEICs always are.
        progress: Called with lines about how many pictures were looked at.
    """
    found: dict[str, list[str]] = {}
    for image, size in tracked(sizes.items(), progress, "looking at the orientation", "picture"):
        recorded = annotations.sizes.get(image)
        if orient and recorded in (None, size):
            continue  # Whatever its orientation is, it lies as it is annotated, as far as can be known.
        kind = _kind(*_orientation(pictures[image]), size, recorded, orient)
        if kind is not None:
            found.setdefault(kind, []).append(annotations.images[image])
    return tuple(
        f"{len(found[kind])} of {counted(len(pictures), 'picture')}: {text} ({listed(found[kind])})"
        for kind, text in _NOTES.items()
        if kind in found
    )


def _kind(
    orientation: int, always: bool, size: tuple[int, int], recorded: tuple[float, float] | None, orient: bool
) -> str | None:
    """The key in _NOTES of a picture; None where it lies as it is annotated, as far as can be known."""
    quarter = orientation in _QUARTERS
    if recorded is not None and recorded != size:
        if recorded != size[::-1]:
            return "other"
        if not quarter:
            return "exchanged"
        return "stored always" if always else "stored" if orient else "upright"
    if orientation == 1 or orient:
        return None
    if always:
        return "always"
    return None if recorded is not None and quarter and size[0] != size[1] else "ignored"


def _orientation(path: Path) -> tuple[int, bool]:
    """A picture's EXIF orientation, 1 for none, and whether it is turned by it in any case, as TIFFs and HEICs are."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                if opened.format == "PNG" and not any("exif" in str(name) for name in opened.info):
                    return 1, False  # Pillow would decode the whole picture, to look behind its pixels.
                # pillow-heif turns a picture when it opens it, and keeps what it was turned by.
                found = opened.info.get("original_orientation") or opened.getexif().get(ExifTags.Base.Orientation)
                always = opened.format in ("TIFF", "HEIF")
                return found if found in range(2, 9) else 1, always  # Some cameras write 0.
    except Exception:  # As decoders raise; the picture itself was read.
        return 1, False

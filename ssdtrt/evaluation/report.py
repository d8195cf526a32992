"""What `evaluate` hands back: COCO's figures."""

from __future__ import annotations

from ssdtrt.system.report import Report

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve figures, in its order: mean precision and recall over IoU 0.50 to 0.95, at 0.50, at 0.75, for small,
medium and large objects, with 1, 10 and 100 detections a picture."""


class ClassFigures(Report, frozen=True):
    """One category: its AP and AP50, 0..1, and how many objects (crowds apart) there are. None where there is none."""

    name: str
    category_id: int
    ap: float | None
    ap50: float | None
    objects: int


class EvalReport(Report, frozen=True):
    """What a runner found in pictures, against what is true of them: COCO's figures for boxes.

    `figures` are the twelve of FIGURES by name, 0..1, None where there is no such object. `seconds` is from the first
    picture to the last detection, reading the pictures included. `against` are the reports of others on the same
    pictures, `failures` what was said of pictures that could not be read (they count as pictures without detections).
    """

    name: str
    precision: str
    figures: dict[str, float | None]
    classes: tuple[ClassFigures, ...]
    images: int
    objects: int
    detections: int
    seconds: float
    images_per_second: float
    machine: dict = {}
    settings: dict = {}
    against: tuple[EvalReport, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    def minus(self, other: EvalReport) -> dict[str, float | None]:
        """Each figure less the other's; None where either has none."""
        pairs = {name: (self.figures[name], other.figures[name]) for name in FIGURES}
        return {name: None if None in pair else pair[0] - pair[1] for name, pair in pairs.items()}

    def as_dict(self) -> dict:
        peers = [
            {
                "name": peer.name,
                "precision": peer.precision,
                "figures": peer.figures,
                "difference": self.minus(peer),
                "detections": peer.detections,
                "seconds": peer.seconds,
                "images_per_second": peer.images_per_second,
            }
            for peer in self.against
        ]
        return {**super().as_dict(), "against": peers}

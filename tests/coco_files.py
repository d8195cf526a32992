"""Annotation files in COCO's format, and the figures that pycocotools computes."""

import contextlib
import io
import json

from ssdtrt import config

# COCO's 80 ids have gaps; these have them elsewhere, and start at 3.
IDS = [number for number in range(3, 103) if number % 5]


def write_annotations(path, images, objects, categories=None):
    """An annotation file; `objects` are (image id, category id, bbox) or dicts."""
    entries = []
    for number, one in enumerate(objects):
        if not isinstance(one, dict):
            image, category, box = one
            one = {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        entries.append({"id": number + 1, **one})
    categories = categories or dict(zip(IDS, config.COCO_LABELS[1:]))
    data = {
        "images": [{"id": number, "file_name": name} for number, name in images.items()],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
        "annotations": entries,
    }
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def by_pycocotools(annotations, results):
    """The twelve figures as pycocotools has them; `results` is a file or COCO's dicts."""
    from pycocotools.coco import COCO  # Here, so that GPU tests can be collected where it is not installed.
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        run = COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][:, :, :, 0, 2]
    return run.stats.tolist(), precision

"""Batches of detections made by hand."""

from functools import partial

import numpy as np

from ssdtrt.detection.unpacking import DetectionBatch
from ssdtrt.images.decode import load_image


def batch_of(results):
    """Return the batch of these Detections of pictures."""
    found = list(results)
    return DetectionBatch(
        indices=list(range(len(found))),
        images=[one.image for one in found],
        sizes=[(one.width, one.height) for one in found],
        offsets=np.cumsum([0, *map(len, found)]).tolist(),
        xyxy=np.concatenate([one.xyxy for one in found]),
        class_id=np.concatenate([one.class_id for one in found]),
        confidence=np.concatenate([one.confidence for one in found]),
        labels=found[0].labels,
        sources=[one.image for one in found],
        load=partial(load_image, orient=True),
    )

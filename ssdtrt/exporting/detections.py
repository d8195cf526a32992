"""Write what a detector has around the network as standard ONNX operators: normalization, decoding and NMS.

The result is that of `ssdtrt.model.nms.detect_batch`, also in the order of equal scores. There are no loops and no
operators of a domain of their own.
"""

from __future__ import annotations

import numpy as np

from ssdtrt import config
from ssdtrt.exporting.graph_writer import GraphWriter
from ssdtrt.model.boxes import default_boxes
from ssdtrt.runners.onnx_runtime import LOC_CONF, NORMALIZED

# `NonMaxSuppression` removes a box whose IoU with a better one is above its threshold, the model one whose IoU is 0.5
# or more. Above the largest float32 below 0.5 is 0.5 or more.
_BELOW_NMS_IOU = np.nextafter(np.float32(config.NMS_IOU), np.float32(0))


def add_normalization(graph: GraphWriter, images: str, preprocess: str) -> None:
    """Add the normalization of uint8 images [N, 3, 300, 300], 0 to 255, to `normalized`, float32."""
    mean, std = (np.reshape(part, (3, 1, 1)) for part in config.NORMALIZATION[preprocess])
    pixels = graph.add("Cast", images, to=graph.onnx.TensorProto.FLOAT)
    scaled = graph.add("Div", pixels, graph.constant("255", 255))
    centered = graph.add("Sub", scaled, graph.constant("mean", mean))
    graph.add("Div", centered, graph.constant("std", std), name=NORMALIZED)


def add_detections(graph: GraphWriter, num_classes: int) -> None:
    """Add decoding and NMS, from `loc` and `conf` to `boxes`, `labels`, `scores` and `counts` (see `detect_batch`)."""
    loc, conf = LOC_CONF
    boxes = _decode(graph, loc)
    candidates = _candidates(graph, conf, num_classes)
    kept = _suppress(graph, boxes, candidates)
    _take_best(graph, boxes, kept, num_classes)


def _decode(graph: GraphWriter, loc: str) -> str:
    """loc [N, 4, A] -> boxes xyxy [N, A, 4]."""
    anchors = default_boxes().numpy()
    centers, sizes = graph.constant("centers", anchors[:, :2]), graph.constant("sizes", anchors[:, 2:])
    offsets = graph.add("Transpose", loc, perm=[0, 2, 1])  # [N, A, 4]
    halves = ["offsets.xy", "offsets.wh"]
    graph.add("Split", offsets, outputs=halves, axis=2)
    shift = graph.add("Mul", graph.constant("center_variance", config.CENTER_VARIANCE), halves[0])
    center = graph.add("Add", centers, graph.add("Mul", shift, sizes))
    growth = graph.add("Mul", graph.constant("size_variance", config.SIZE_VARIANCE), halves[1])
    size = graph.add("Mul", sizes, graph.add("Exp", growth))
    half = graph.add("Div", size, graph.constant("2", 2))
    return graph.add("Concat", graph.add("Sub", center, half), graph.add("Add", center, half), axis=2)


def _candidates(graph: GraphWriter, conf: str, num_classes: int) -> str:
    """conf [N, C, A] -> scores [N, C - 1, A] of the best 200 of each class above 0.05; the others are 0."""
    integers = [graph.constant(name, [value], np.int64) for name, value in (("first", 1), ("end", num_classes))]
    scores = graph.add("Slice", graph.add("Softmax", conf, axis=1), *integers, graph.constant("axis", [1], np.int64))
    most = graph.constant("max_per_class", [config.MAX_PER_CLASS], np.int64)
    best, index = "candidates.best", "candidates.index"
    graph.add("TopK", scores, most, outputs=[best, index], axis=2)  # [N, C - 1, 200], of equal scores the earlier
    # ONNX does not say whether `NonMaxSuppression` keeps a score of its threshold, so no such score reaches it.
    high = graph.add("Greater", best, graph.constant("min_score", config.MIN_SCORE))
    best = graph.add("Where", high, best, graph.constant("zero", 0))
    zeros = graph.add("ConstantOfShape", graph.add("Shape", scores))
    return graph.add("ScatterElements", zeros, index, best, axis=2)


def _suppress(graph: GraphWriter, boxes: str, candidates: str) -> str:
    """boxes [N, A, 4] and scores [N, C - 1, A] -> scores [N, A, C - 1] of what is kept in its class, else 0."""
    limits = [
        graph.constant("max_kept", [config.MAX_PER_CLASS], np.int64),
        graph.constant("below_nms_iou", [_BELOW_NMS_IOU]),
        graph.constant("nms_score", [config.MIN_SCORE]),
    ]
    kept = graph.add("NonMaxSuppression", boxes, candidates, *limits)  # [M, 3]: image, class, box
    scores = graph.add("GatherND", candidates, kept)
    swap = graph.constant("image_box_class", [0, 2, 1], np.int64)
    places = graph.add("Gather", kept, swap, axis=1)
    shape = graph.add("Gather", graph.add("Shape", candidates), swap, axis=0)
    return graph.add("ScatterND", graph.add("ConstantOfShape", shape), places, scores)


def _take_best(graph: GraphWriter, boxes: str, kept: str, num_classes: int) -> None:
    """boxes [N, A, 4] and the scores of what is kept [N, A, C - 1] -> the outputs, the best first, then zeros.

    Of equal scores that of the earlier default box is first, then that of the earlier class.
    """
    most = graph.constant("max_detections", [config.MAX_DETECTIONS], np.int64)
    flat = graph.add("Reshape", kept, graph.constant("flat", [0, -1], np.int64))
    graph.add("TopK", flat, most, outputs=["scores", "best.index"], axis=1)  # [N, 200]
    found = graph.add("Greater", "scores", graph.constant("zero", 0))
    classes, one = graph.constant("classes", num_classes - 1, np.int64), graph.constant("1", 1, np.int64)
    none = graph.constant("none", 0, np.int64)
    label = graph.add("Add", graph.add("Mod", "best.index", classes), one)
    graph.add("Where", found, label, none, name="labels")
    last = graph.constant("last", [-1], np.int64)
    anchor = graph.add("Unsqueeze", graph.add("Div", "best.index", classes), last)  # [N, 200, 1]
    chosen = graph.add("GatherND", boxes, anchor, batch_dims=1)  # [N, 200, 4]
    graph.add("Where", graph.add("Unsqueeze", found, last), chosen, graph.constant("zero", 0), name="boxes")
    counted = graph.add("Cast", found, to=graph.onnx.TensorProto.INT64)
    graph.add("ReduceSum", counted, graph.constant("axis", [1], np.int64), name="counts", keepdims=0)

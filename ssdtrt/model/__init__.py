"""The SSD300 network, its default boxes and its weights."""

from ssdtrt.model.boxes import decode, default_boxes
from ssdtrt.model.ssd import SSD300
from ssdtrt.model.nms import detect, suppress
from ssdtrt.model.weights import build_model

__all__ = ["SSD300", "build_model", "decode", "default_boxes", "detect", "suppress"]

"""The SSD300 network, its weights and labels, its default boxes, and the decoding and NMS of its outputs."""

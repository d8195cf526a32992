"""The SSD300 network, its weights and labels, its default boxes, and the decoding of what it returns."""

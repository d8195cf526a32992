"""How a model is written as an ONNX graph: the network, and around it a detector's normalization, decoding and NMS."""

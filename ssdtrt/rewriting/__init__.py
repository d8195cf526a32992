"""The network as TensorRT takes it: its layers fused, and quantized."""

"""INT8: calibration, quantized networks, and which layers stay in FP16."""

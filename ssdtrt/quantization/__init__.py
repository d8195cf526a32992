"""INT8: calibration, quantised networks, and which layers stay in FP16."""

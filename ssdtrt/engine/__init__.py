"""Build an engine, compare it with the FP32 model, and cache it."""

"""Runners: how saved files and models are loaded and called, images [N, 3, 300, 300] -> (loc, conf)."""

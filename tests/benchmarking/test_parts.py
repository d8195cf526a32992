"""The way from a picture to its detections, part by part."""

import io

import numpy as np
import torch
from PIL import Image

from ssdtrt.benchmarking.baselines import BenchFile
from ssdtrt.benchmarking.parts import _jpeg_bytes, parts_of
from ssdtrt.detect import Detector


def test_the_parts_are_the_whole(known):
    """Each gives what the next takes, and the whole gives what the parts give; the known file's answers are known."""
    detector = Detector(BenchFile.read(known, "cpu").runner())
    parts = parts_of(detector, 2)
    assert {name: size for name, (size, _) in parts.items()} == {
        "preparation": 1, "host to device": 2, "normalization": 2, "network": 2, "decode and NMS": 2, "whole": 2
    }  # fmt: skip
    results = {name: call() for name, (_, call) in parts.items()}
    assert results["preparation"].shape == (300, 300, 3) and results["preparation"].dtype == np.uint8
    images = results["host to device"]
    assert images.shape == (2, 3, 300, 300) and images.dtype == torch.uint8
    assert torch.equal(results["normalization"][1, 0], (images[1, 0].float() / 255 - 0.485) / 0.229)
    assert all(torch.equal(*pair) for pair in zip(results["network"], detector.runner(results["normalization"])))
    assert results["decode and NMS"][:, -1, 0].tolist() == [3, 3]
    assert torch.equal(results["whole"], results["decode and NMS"])
    seen, loaded = [], detector.runner
    detector.pipeline.runner = lambda images: seen.append(images) or loaded(images)
    parts["whole"][1]()
    assert len(seen) == 1 and torch.equal(seen[0], results["normalization"])


def test_the_jpeg():
    with Image.open(io.BytesIO(_jpeg_bytes())) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (640, 480), "RGB")

"""A network whose answers are known, as one of our files: cheap, and the same on every machine."""

import math

import torch
from torch import Tensor, nn

from ssdtrt import config, torchscript
from ssdtrt.artifact import add_metadata

RED, BLUE = (230, 20, 20), (20, 20, 230)


class Known(nn.Module):
    """Three detections in every picture; the best is a cat in a picture that is more red than blue, else a car.

    At the last feature map's centre: a square of 0.87, one of 1.2304 x 0.6152 that is clamped to 1 x 0.6152, and
    one of 0.6152 x 1, moved to the right by half its width.
    """

    def forward(self, images: Tensor):
        count = images.shape[0]
        loc = torch.zeros(count, 4, 8732)
        loc[:, 0, 8731] = 5.0
        conf = torch.zeros(count, 81, 8732)
        red = images[:, 0].mean([1, 2]) > images[:, 2].mean([1, 2])
        conf[:, 16, 8728] = torch.where(red, 6.0, -6.0)
        conf[:, 3, 8728] = torch.where(red, -6.0, 6.0)
        conf[:, 17, 8730] = 5.0
        conf[:, 1, 8731] = 4.0
        return loc, conf


def probability(logit, other=0.0):
    """Softmax of one logit among 79 zeros and one other."""
    return math.exp(logit) / (math.exp(logit) + 79 + math.exp(other))


CAT, DOG, PERSON = probability(6, -6), probability(5), probability(4)  # 0.836, 0.650, 0.406


def known_file(path, trained=True, labels=config.COCO_LABELS, preprocess="eval"):
    """One of our files, of kind module, around `Known`."""
    with torchscript.quiet():
        module = torch.jit.script(Known().eval())
    torchscript.save(module, path)
    model = {"labels": list(labels), "weights": {"trained": trained}, "preprocess": preprocess}
    metadata = {"schema": 1, "kind": "module", "model": model, "build": {"method": "script", "precision": "fp32"}}
    add_metadata(path, metadata)
    return path

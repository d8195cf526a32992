"""Checkpoint files for tests: whole ones as training writes them, and one that carries code."""

import collections
import pathlib

import torch
from torch import nn

OLD_TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6)
TRUST = OLD_TORCH  # What it takes to read a file that carries no code.


def tiny(**changes):
    """A small state dict."""
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1, -2]), **changes}


def training_state(model):
    """Optimizer and scheduler state, made by real ones that took a step on one of the model's tensors."""
    parameter = nn.Parameter(model.loc[0].bias.clone())
    optimizer = torch.optim.SGD([parameter], lr=2.6e-3, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[43, 54])
    parameter.sum().backward()
    optimizer.step()
    scheduler.step()
    assert isinstance(scheduler.state_dict()["milestones"], collections.Counter)
    return {
        "epoch": 65,
        "iteration": 240_630,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "label_map": {1: "person", 2: "bicycle"},
    }


def prefixed(state, prefix):
    """The state dict with a prefix on every key."""
    return {prefix + key: value for key, value in state.items()}


def write(path, content):
    """Writes bytes or text, and returns the path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class WritesFile:
    """Pickles as a call that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.write_text, (self.path, "the code ran")

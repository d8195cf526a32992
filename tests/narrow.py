"""SSD300 with a sixteenth of its channels: the same graph and the same names in a fraction of the time.

Tests run with it unless they ask for `full_width`; their child processes have the full network. Its random weights are
made so that BF16 is as near to FP32, and the sample photographs have as many detections, as with the full network.
"""

import copy
from contextlib import contextmanager
from functools import cache

import pytest
import torch

from ssdtrt import config
from ssdtrt.model import backbone, random

_SHARE = 16
_FULL = {
    (backbone, "_resnet50"): backbone._resnet50,
    (backbone, "_WIDTH"): backbone._WIDTH,
    (backbone, "_CLASSES"): backbone._CLASSES,
    (config, "FEATURE_CHANNELS"): config.FEATURE_CHANNELS,
    (config, "MIDDLE_CHANNELS"): config.MIDDLE_CHANNELS,
    (random, "_STATISTICS_SHARE"): random._STATISTICS_SHARE,
    (random, "_RESIDUAL_GAIN"): random._RESIDUAL_GAIN,
    (random, "_CONF_STD"): random._CONF_STD,
}


@cache
def _without_values():
    with torch.device("meta"):
        return _FULL[backbone, "_resnet50"]()


def _narrow_resnet50():
    """torch needs longer for the values of a network that has none than for those of one that has."""
    torch.rand(11_328)  # So that the weights are those that the tests were written for.
    if torch.empty(0).is_meta:
        return [_shallow_copy(module) for module in _without_values()]
    return _FULL[backbone, "_resnet50"]()


def _shallow_copy(module):
    """A copy with the same parameters and buffers, which are without values: to be replaced by others, not written."""
    copied = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict):
            vars(copied)[name] = value.copy()
    copied._modules = {name: child and _shallow_copy(child) for name, child in module._modules.items()}
    return copied


_NARROW = {
    (backbone, "_resnet50"): _narrow_resnet50,
    (backbone, "_WIDTH"): backbone._WIDTH // _SHARE,
    (backbone, "_CLASSES"): 1,
    (config, "FEATURE_CHANNELS"): tuple(channels // _SHARE for channels in config.FEATURE_CHANNELS),
    (config, "MIDDLE_CHANNELS"): tuple(channels // _SHARE for channels in config.MIDDLE_CHANNELS),
    (random, "_STATISTICS_SHARE"): 0.6,
    (random, "_RESIDUAL_GAIN"): 0.05,
    (random, "_CONF_STD"): 1.0,
}


def narrow():
    """Make SSD300 narrow in this process."""
    for (module, name), value in _NARROW.items():
        setattr(module, name, value)


@contextmanager
def full_width():
    """Make SSD300 as wide as it is, for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), value in _FULL.items():
            patch.setattr(module, name, value)
        yield

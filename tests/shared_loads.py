"""TorchScript modules that tests load again and again: each is parsed once a process, which takes as long as five calls.

What was changed since, weights or their type, is loaded anew, as is all where fusing or torch's loading is what a test is
about.
"""

import collections

import torch

from ssdtrt.runners import torchscript
from ssdtrt.system.digests import sha256_file

_KEPT = 12  # modules, of some megabytes each
_LOADED = collections.OrderedDict()
_LOAD, _TORCH_LOAD = torchscript.load, torch.jit.load


def load(path, device="cpu"):
    """`torchscript.load`, of a file with this content."""
    if torch.device(device).type != "cpu" or torch.jit.load is not _TORCH_LOAD:
        return _LOAD(path, device)
    try:
        digest = sha256_file(path)
    except OSError:
        return _LOAD(path, device)
    module, tensors, state = _LOADED.pop(digest, (None, (), None))
    if module is None or state != _state(module, tensors):
        module = _LOAD(path, device)
        tensors = list(module.state_dict().values())
        state = _state(module, tensors)
    _LOADED[digest] = module, tensors, state
    if len(_LOADED) > _KEPT:
        _LOADED.popitem(last=False)
    return module


def _state(module, tensors):
    """What changes with the weights."""
    dtypes = {parameter.dtype for parameter in module.parameters()}
    return sum(tensor._version for tensor in tensors), dtypes, module.training

"""What `doctor` runs in processes of their own, since it may crash or hang there: imports, and a tiny engine.

Each function returns JSON types, and nothing is imported before it is called.
"""

from __future__ import annotations

import importlib
import json
import os
import time
import warnings

MARK = "ssdtrt-probe:"


def answer(name: str) -> None:
    """Prints the result of the function `name`, or how it failed, as JSON after MARK, and ends the process at once."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = PROBES[name]()
    except BaseException as error:  # Whatever an import raises, SystemExit too, is what was to be found out.
        result = {"error": one_line(error), "missing": getattr(error, "name", None) if is_missing(error) else None}
    print(f"\n{MARK}{json.dumps(result)}", flush=True)
    os._exit(0)  # What fails while a broken library is unloaded says nothing new.


def is_missing(error: BaseException) -> bool:
    """Whether a module was not found, as against one that was found and failed."""
    return isinstance(error, ModuleNotFoundError)


def one_line(error: BaseException) -> str:
    """An exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def torch_facts() -> dict:
    """torch's version and CUDA, the GPUs it sees, and why it sees none."""
    torch = importlib.import_module("torch")
    found = {"version": str(torch.__version__), "cuda": torch.version.cuda, "gpus": [], "error": None, "no_gpu": None}
    if not torch.cuda.is_available():
        try:
            torch.zeros(1, device="cuda")
        except Exception as error:  # A missing or too old driver, or a build without CUDA: each has another type.
            found["no_gpu"] = one_line(error)
        return found
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        sm = f"{properties.major}.{properties.minor}"
        found["gpus"].append({"name": properties.name, "sm": sm, "memory_mib": properties.total_memory >> 20})
    return found


def torchvision_facts() -> dict:
    """torchvision's version; its import also binds its operators to torch's."""
    torchvision = importlib.import_module("torchvision")
    return {"version": str(torchvision.__version__), "error": None}


def torch_tensorrt_facts() -> dict:
    """Torch-TensorRT's version, its front ends, and the TensorRT that it loads."""
    torch_tensorrt = importlib.import_module("torch_tensorrt")
    features = getattr(torch_tensorrt, "ENABLED_FEATURES", None)
    try:
        tensorrt = str(importlib.import_module("tensorrt").__version__)
    except Exception:  # Its Python bindings may be missing; the finding then goes by the metadata.
        tensorrt = None
    return {
        "version": str(torch_tensorrt.__version__),
        "torchscript": bool(getattr(features, "torchscript_frontend", hasattr(torch_tensorrt, "ts"))),
        "dynamo": bool(getattr(features, "dynamo_frontend", hasattr(torch_tensorrt, "dynamo"))),
        "tensorrt": tensorrt,
        "error": None,
    }


def trial() -> dict:
    """Builds an FP16 engine of one convolution on the current GPU, runs it, and compares it with FP32 eager."""
    import torch

    from ssdtrt import config
    from ssdtrt.artifact import torchscript
    from ssdtrt.artifact.request import BatchRange
    from ssdtrt.engine.torch_tensorrt_backend import build
    from ssdtrt.system.child import die_with_parent
    from ssdtrt.system.devices import pick_device, tf32_disabled

    class InHalf(torch.nn.Module):
        """The network in FP16 between edges of float32."""

        def __init__(self, network: torch.nn.Module):
            super().__init__()
            self.network = network.half()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images.half()).float()

    die_with_parent(os.getppid())
    device = pick_device()
    torch.manual_seed(config.SEED)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU()).eval().to(device)
    images = torch.rand(1, 3, config.IMAGE_SIZE, config.IMAGE_SIZE).to(device)
    with torch.no_grad(), tf32_disabled(), torchscript.quiet():
        expected = network(images).double()
        module = torch.jit.script(InHalf(network))
        started = time.perf_counter()
        engine = build(module, "fp16", BatchRange.parse(1), 256, device)
        seconds = time.perf_counter() - started
        found = torchscript.reload(engine)(images).double()
    distance = float((found - expected).norm() / expected.norm())
    return {"seconds": round(seconds, 1), "relative_l2": distance if distance == distance else None, "error": None}


PROBES = {
    "torch": torch_facts,
    "torchvision": torchvision_facts,
    "torch_tensorrt": torch_tensorrt_facts,
    "trial": trial,
}

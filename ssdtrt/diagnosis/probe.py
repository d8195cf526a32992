"""What `doctor` runs in other processes, because it may crash or hang: imports, and the build of a tiny engine.

The packages that may be broken are imported inside the functions only.
"""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ssdtrt.diagnosis.facts import BuildTest, Failure, Torch, TorchTensorrt, Torchvision
from ssdtrt.errors import SsdtrtError, first_line
from ssdtrt.system.child import die_with_parent
from ssdtrt.system.gpu_state import Gpu, read_driver

if TYPE_CHECKING:
    from ssdtrt.rewriting.fused import FusedSSD300

MARK = "ssdtrt-probe:"
_SMALL_WORKSPACE_MIB = 256


def answer(name: str, parent: int) -> None:
    """Print the result of a function in `PROBES`, or a Failure, as JSON after MARK, and end the process at once.

    Args:
        name: The name of the function.
        parent: The process id of the parent. If it has ended already, this process ends without an answer.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            die_with_parent(parent)
            result = PROBES[name]()
    except BaseException as error:  # Whatever an import raises is reported, SystemExit too.
        result = Failure(describe(error), error.name if isinstance(error, ModuleNotFoundError) else None)
    print(f"\n{MARK}{msgspec.json.encode(result).decode()}", flush=True)
    os._exit(0)  # A broken library may also fail while it is unloaded.


def describe(error: BaseException) -> str:
    """Return an error in one line; errors of other libraries begin with their type."""
    if isinstance(error, SsdtrtError):
        return str(error)
    kind, line = type(error).__name__, first_line(error, empty="")
    return f"{kind}: {line}" if line else kind


def torch_facts() -> Torch:
    """Import torch and return its versions, the GPUs that it sees, and why it sees none."""
    torch = importlib.import_module("torch")
    version, cuda, gpus, no_gpu = str(torch.__version__), torch.version.cuda, [], None
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            sm = f"{properties.major}.{properties.minor}"
            gpus.append(Gpu(properties.name, sm, properties.total_memory >> 20))
    else:
        try:
            torch.zeros(1, device="cuda")
        except Exception as error:  # A missing or old driver, a build without CUDA: the types differ.
            no_gpu = describe(error)
    return Torch(version, cuda, tuple(gpus), no_gpu)


def torchvision_facts() -> Torchvision:
    """Import torchvision, which also registers its operators with torch."""
    return Torchvision(str(importlib.import_module("torchvision").__version__))


def torch_tensorrt_facts() -> TorchTensorrt:
    """Import Torch-TensorRT and return its front ends and the TensorRT that it loads."""
    torch_tensorrt = importlib.import_module("torch_tensorrt")
    features = getattr(torch_tensorrt, "ENABLED_FEATURES", None)
    try:
        tensorrt = str(importlib.import_module("tensorrt").__version__)
    except Exception:  # Its Python bindings may be missing; then the metadata has its version.
        tensorrt = None
    return TorchTensorrt(
        str(torch_tensorrt.__version__),
        torchscript=bool(getattr(features, "torchscript_frontend", hasattr(torch_tensorrt, "ts"))),
        dynamo=bool(getattr(features, "dynamo_frontend", hasattr(torch_tensorrt, "dynamo"))),
        tensorrt=tensorrt,
    )


def tiny_network() -> FusedSSD300:
    """Return a network of one convolution, whose only map is the output [1, 8, 150 * 150]."""
    import torch

    from ssdtrt import config
    from ssdtrt.rewriting.fused import FusedSSD300

    class Tiny(FusedSSD300):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            convolution = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.feature_extractor = torch.nn.Sequential(convolution, torch.nn.ReLU())
            self.additional_blocks, self.heads = torch.nn.ModuleList(), torch.nn.ModuleList([torch.nn.Identity()])
            self.channels, self.boxes_per_map = 8, [(config.IMAGE_SIZE // 2) ** 2]
            self.compute_dtype, self.quantized = torch.float32, False

    return Tiny().eval()


def test_build() -> BuildTest:
    """Build an FP16 engine of one convolution on the current GPU, run it, and compare it with FP32 eager.

    It goes the way that `compile` goes by default: TensorRT's own API, and Torch-TensorRT as the runtime.
    """
    import torch

    from ssdtrt import config
    from ssdtrt.artifact.request import BatchRange
    from ssdtrt.engine.tensorrt_backend import BuildLimits, build_plan, embed
    from ssdtrt.runners import runtime, torchscript
    from ssdtrt.system.devices import pick_device, tf32_disabled

    runtime.check_front_end(runtime.import_torch_tensorrt())
    device = pick_device()
    torch.manual_seed(config.SEED)
    network = tiny_network()
    images = torch.rand(1, 3, config.IMAGE_SIZE, config.IMAGE_SIZE)
    with torch.no_grad(), tf32_disabled(), torchscript.quiet():
        expected = network(images).double()
        network.compute_dtype = torch.float16
        started = time.perf_counter()
        plan = build_plan(network.half(), BatchRange.parse(1), BuildLimits(workspace_mib=_SMALL_WORKSPACE_MIB))
        engine = embed(plan, device)
        seconds = time.perf_counter() - started
        found = torchscript.reload(engine)(images.to(device)).cpu().double()
    distance = float((found - expected).norm() / expected.norm())
    return BuildTest(round(seconds, 1), distance if distance == distance else None)


PROBES: dict[str, Callable[[], Any]] = {
    "driver": read_driver,
    "torch": torch_facts,
    "torchvision": torchvision_facts,
    "torch_tensorrt": torch_tensorrt_facts,
    "test_build": test_build,
}

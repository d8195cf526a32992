"""TensorRT's runtime, as far as it is used, that runs torch networks on the memory addresses it is given."""

import ctypes
import importlib.machinery
import io
import json
import math
import sys
import time
import weakref
from types import ModuleType, SimpleNamespace

import msgspec
import torch

from known import metadata_like, typed
from ssdtrt import compile as compiling
from ssdtrt.artifact import inspection
from ssdtrt.engine import cache, tensorrt_backend, worker
from ssdtrt.runners import runner

MAGIC = b"ftrt"


def serialize(fused, batch):
    """Return a plan: the network, in its precision, and its batch sizes."""
    file = io.BytesIO()
    torch.save((fused, (batch.min, batch.max)), file)
    return MAGIC + file.getvalue()


def round_to_half(module, given, output):
    """Give what a layer that computes in FP16 gives, without computing in FP16, which takes minutes on a CPU."""
    return output.half().float()


def address(pointer, shape):
    """Return the floats at an address, as a tensor that shares their memory."""
    return torch.frombuffer((ctypes.c_float * math.prod(shape)).from_address(pointer), dtype=torch.float32).view(shape)


class Context:
    """An execution context, which refuses what its engine does not take."""

    def __init__(self, engine):
        self.engine, self.shape, self.addresses, self.streams, self.memory = engine, None, {}, [], None
        self.accepts = True

    def set_input_shape(self, name, shape):
        low, high = self.engine.sizes
        assert name == "images" and isinstance(shape, tuple) and shape[1:] == (3, 300, 300)
        if low <= shape[0] <= high:
            self.shape = shape
        return low <= shape[0] <= high

    def get_tensor_shape(self, name):
        assert name == "loc_conf"
        return [self.shape[0], self.engine.channels, 8732]

    def set_tensor_address(self, name, pointer):
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream):
        assert set(self.addresses) == {"images", "loc_conf"} and self.memory and stream
        self.streams.append(stream)
        if not self.accepts:
            return False
        time.sleep(self.engine.takes.get(self.engine.precision, 0))
        with torch.no_grad():
            output = self.engine.network(address(self.addresses["images"], self.shape))
        address(self.addresses["loc_conf"], tuple(output.shape)).copy_(output)
        return True


class NewContext(Context):
    """The context of TensorRT 10.1 or later."""

    def set_device_memory(self, pointer, size):
        self.memory = pointer, size


class OldContext(Context):
    """The context of TensorRT 8.6, and of 10.0."""

    @property
    def device_memory(self):
        raise AttributeError("unreadable")

    @device_memory.setter
    def device_memory(self, pointer):
        self.memory = pointer


class Engine:
    """A deserialized engine. Its attribute `contexts` has weak references to its contexts."""

    names = ("images", "loc_conf")
    device_memory_size = 1000
    takes = {}  # seconds more, by precision

    def __init__(self, plan, version):
        fused, self.sizes = torch.load(io.BytesIO(plan[len(MAGIC) :]), weights_only=False)
        half = fused.compute_dtype == torch.float16
        self.precision = "int8" if fused.quantized else "fp16" if half else "fp32"
        self.network, self.contexts = fused.float(), []
        self.network.compute_dtype = torch.float32
        self.channels = self.network.channels
        if half:
            for layer in self.network.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.register_forward_hook(round_to_half)
        if version != "8.6.0":
            self.create_execution_context = self._create(NewContext if version == "10.3.0" else OldContext)
        else:
            self.create_execution_context_without_device_memory = self._create(OldContext)

    def _create(self, kind):
        def create(*strategy):
            assert strategy in ((), ("user managed",))
            context = kind(self)
            self.contexts.append(weakref.ref(context))
            return context

        return create

    @property
    def num_io_tensors(self):
        return len(self.names)

    def get_tensor_name(self, number):
        return self.names[number]

    def get_tensor_mode(self, name):
        return "input" if name == "images" else "output"

    def create_engine_inspector(self):
        text = json.dumps({"Layers": LAYERS})
        if self.network.quantized:
            text = text.replace(*QUANTIZED)
        return SimpleNamespace(get_engine_information=lambda form: text if form == "JSON" else "")


# What the inspector says of every engine, and what differs in that of a quantized one.
QUANTIZED = ("Half", "Int8")
LAYERS = [
    {
        "Name": "conv + relu",
        "LayerType": "CaskConvolution",
        "Outputs": [{"Dimensions": [1, 64, 10, 10], "Format/Datatype": "Row major FP16"}],
        "Weights": {"Type": "Half", "Count": 1000},
        "TacticName": "kernel",
    },
    {"Name": "to_fp32", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]},
]


class ILogger:
    """The base class of TensorRT's loggers."""

    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


def stand_in(version="8.6.0"):
    """Return a TensorRT of a version: 8.6.0, 10.0.0 or 10.3.0. Its `engines` are those that were loaded."""
    package = ModuleType("tensorrt")
    package.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    package.__version__, package.ILogger, package.engines = version, ILogger, []
    package.IBuilderConfig = SimpleNamespace(max_aux_streams=None)
    package.LayerInformationFormat = SimpleNamespace(JSON="JSON", ONELINE="ONELINE")
    package.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    if version != "8.6.0":
        package.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, plan):
            if not plan.startswith(MAGIC):
                self.logger.log(ILogger.ERROR, "magicTag does not match\nin parseMagic")
                return None
            package.engines.append(Engine(plan, version))
            return package.engines[-1]

    package.Runtime = Runtime
    return package


class Stream:
    """A CUDA stream without a GPU; `waited` are the streams that it waited for."""

    def __init__(self, device=None, cuda_stream=7):
        self.cuda_stream, self.waited = cuda_stream, []

    def wait_stream(self, other):
        self.waited.append(other)


def install(monkeypatch, version="8.6.0", caller=5):
    """Put the stand-in in the place of TensorRT and of CUDA's streams; `caller` is the stream of the caller, 0 the default."""
    package = stand_in(version)
    package.caller = Stream(cuda_stream=caller)
    monkeypatch.setitem(sys.modules, "tensorrt", package)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: package.caller)
    return package


def install_machine(monkeypatch):
    """Have a GPU's machine and a TensorRT, whose builder and runtime are the stand-in's."""
    package = install(monkeypatch)
    like = typed(metadata_like("engine", "tensorrt"))
    versions = msgspec.structs.replace(like.versions, torch_tensorrt=None)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for module in (compiling, runner):
        monkeypatch.setattr(module, "pick_device", lambda device: torch.device("cpu"))
    for module in (worker, inspection, cache):
        monkeypatch.setattr(module, "installed_versions", lambda: versions)
        monkeypatch.setattr(module, "this_machine", lambda *device: like.machine)
    monkeypatch.setattr(
        tensorrt_backend, "serialize", lambda tensorrt, fused, batch, limits, times: (serialize(fused, batch), b"times")
    )
    return package

"""The process that builds one engine: request in, engine file and result out. Started by `compile_engine`.

The compiler holds the interpreter lock for minutes, so the process that shows progress and takes Ctrl-C is another.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from torch import nn

from ssdtrt.engine import rewrite, tensorrt_backend
from ssdtrt.system import machine
from ssdtrt.artifact import runtime, torchscript
from ssdtrt.engine.modules import BatchRange, DetectorModule, EngineModule
from ssdtrt.errors import SsdtrtError
from ssdtrt.model.ssd import SSD300
from ssdtrt.engine.parity import DTYPE
from ssdtrt.artifact.runner import eager_model


def build(request: dict) -> dict:
    """Builds the engine that `request` describes into the file `request["out"]`; returns what was used and how long."""
    device = torch.device(request["device"])
    precision, batch = request["precision"], BatchRange.parse(request["batch"])
    started = time.perf_counter()
    if request["backend"] == "tensorrt":
        torch.cuda.set_device(device)
        model = eager_model(request["module"], device)
        network = network_of(model, request, batch, device)
        engine = EngineModule(network, torch.float32, batch, channels_last=False)
    else:
        module = torchscript.load(request["module"])
        network = torchscript.reload(torchscript.freeze(module.to(DTYPE[precision])))
        engine = EngineModule(network, DTYPE[precision], None, channels_last=True)
    if request["detector"]:
        engine = DetectorModule(engine, request["preprocess"]).to(device)
    seconds = time.perf_counter() - started
    with torchscript.quiet():
        scripted = torch.jit.script(engine.eval())
    torchscript.save(scripted, request["out"])
    return {"seconds": round(seconds, 1), "versions": machine.versions(), "machine": machine.machine(device)}


def network_of(model: SSD300, request: dict, batch: BatchRange, device: torch.device) -> nn.Module:
    """The model as a TensorRT engine: through Torch-TensorRT's front end or, with more streams, TensorRT's own API."""
    inside, workspace = DTYPE[request["precision"]], request["workspace_mib"]
    form = rewrite.FusedSSD300(model, inside)
    if request["streams"]:
        known = request["timings"] and Path(request["timings"])
        built = tensorrt_backend.build(form, batch.opt, request["streams"], workspace, device, known)
    else:
        built = runtime.build(rewrite.trace(form, device), request["precision"], batch, workspace, device)
    return rewrite.FusedNetwork(torchscript.reload(built))


def die_with_parent(parent: int) -> None:
    """Linux: ends this process when the one that waits for it is gone, so that no orphan keeps the GPU."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # It was gone before.
            os.kill(os.getpid(), signal.SIGKILL)


def main(request_path: str) -> int:
    """Reads the request, writes the result beside it as `result.json`; 0 when there is an engine."""
    path = Path(request_path)
    request = json.loads(path.read_text(encoding="utf-8"))
    die_with_parent(request.get("parent", os.getppid()))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the C++ compiler too, at once.
    try:
        result = build(request)
    except SsdtrtError as error:
        result = {"error": str(error)}
    except Exception as error:  # Reported by the parent; the whole traceback stands in the log.
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        result = {"error": f"The build failed ({type(error).__name__}: {first})."}
    path.with_name("result.json").write_text(json.dumps(result), encoding="utf-8")
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

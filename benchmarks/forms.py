"""Build other forms of the network for TensorRT than `compile` does, and record their times, distances and kernels.

    python benchmarks/forms.py ssd300.ts --batch-size 1 --form compiled --form cast-first --json forms.json

builds each form as an FP16 engine and measures all of them with FP32 eager, plain and as CUDA graphs. The report holds
what `ssdtrt bench` writes, and for each form its distance to FP32 and start and duration of every kernel of one call, in
order. An engine takes from one to three minutes. With `--heads` only the heads and the concatenation are built.
`--streams N` also builds each form through TensorRT's own API, where kernels may run side by side on N auxiliary streams,
and then `--only-streams` leaves the front end out; `--timings` keeps the timing cache for the next build.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, List

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ssdtrt import config
from ssdtrt.artifact.request import BatchRange
from ssdtrt.bench import benchmark
from ssdtrt.engine import parity, tensorrt_backend
from ssdtrt.engine.torch_tensorrt_backend import compile_module
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.model.ssd import SSD300
from ssdtrt.rewriting import fused as rewrite
from ssdtrt.runners import torchscript
from ssdtrt.runners.baseline import eager_model
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.system.devices import pick_device


class CastFirst(rewrite.FusedSSD300):
    """The heads' maps are cast to float32 one by one, before they are concatenated."""

    def concatenate(self, maps: List[Tensor]) -> Tensor:
        parts = [
            m.to(self.compute_dtype).float().reshape(-1, self.channels, k) for m, k in zip(maps, self.boxes_per_map)
        ]
        return torch.cat(parts, 2)


class Exported(nn.Module):
    """The model as it is exported, cast at its edges, its outputs one above the other."""

    def __init__(self, model: SSD300, compute_dtype: torch.dtype):
        super().__init__()
        self.model, self.compute_dtype = model.to(compute_dtype), compute_dtype

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, 300, 300] -> [N, 4 + C, A]."""
        return torch.cat(self.model(images.to(self.compute_dtype)), 1).float()


class Heads(nn.Module):
    """A form's heads alone: every feature map is made of the images' mean, which costs next to nothing."""

    def __init__(self, form: rewrite.FusedSSD300):
        super().__init__()
        self.heads, self.form = form.heads, form
        self.shapes = list(zip(config.FEATURE_CHANNELS, config.FEATURE_MAPS))

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, 300, 300] -> [N, 4 + C, A]."""
        mean = images.mean(dim=(1, 2, 3), keepdim=True).to(self.form.compute_dtype)
        maps = [head(mean.expand(-1, channels, size, size)) for head, (channels, size) in zip(self.heads, self.shapes)]
        return self.form.concatenate(maps)


FORMS = {
    "compiled": rewrite.FusedSSD300,
    "cast-first": CastFirst,
    "free": lambda model, dtype: rewrite.FusedSSD300(model),  # in float32: TensorRT chooses the type of each layer
    "projections-apart": lambda model, dtype: rewrite.FusedSSD300(model, dtype, fold_projections=False),
    "exported": Exported,
}
STREAMS = ("compiled", "projections-apart")  # The forms that ssdtrt/engine/tensorrt_backend.py can write as they are.


def form_of(name: str, model: SSD300, compute_dtype: torch.dtype, heads: bool = False) -> nn.Module:
    """Return the form of that name, with weights of its own: images [N, 3, 300, 300] -> [N, 4 + C, A], float32."""
    form = FORMS[name](copy.deepcopy(model), compute_dtype)
    return Heads(form) if heads else form


def ways(name: str, form: nn.Module, options: argparse.Namespace, device: torch.device) -> dict:
    """Return the functions that build the form's engine, by name: Torch-TensorRT's front end, and TensorRT's own API."""

    def front_end():
        batch = BatchRange.parse(options.batch_size)
        return compile_module(rewrite.trace(form, device), "fp16", batch, config.WORKSPACE_MIB, device)

    def own_api(streams):
        limits = tensorrt_backend.BuildLimits(streams)
        plan = tensorrt_backend.build_plan(form, BatchRange.parse(options.batch_size), limits, options.timings)
        return tensorrt_backend.embed(plan, device)

    found = {} if options.only_streams else {name: front_end}
    for streams in options.streams:
        found[f"{name}, {streams} streams"] = partial(own_api, streams)
    return found


def kernels(network: nn.Module, images: Tensor) -> list[dict]:
    """Return name, start and duration (us) of every kernel of one call, in order; on several streams they overlap."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CUDA]) as seen:
        network(images)
        torch.cuda.synchronize()
    events = [event for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda event: event.time_range.start)
    first = events[0].time_range.start
    return [
        {"name": event.name, "at_us": event.time_range.start - first, "us": event.time_range.elapsed_us()}
        for event in events
    ]


def read_options() -> argparse.Namespace:
    """Return the options of the command line, or exit with 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--form", action="append", choices=FORMS, help="which to build; by default all")
    parser.add_argument("--heads", action="store_true", help="only the heads")
    parser.add_argument(
        "--streams", action="append", type=int, default=[], help="also by TensorRT's API, with N of them"
    )
    parser.add_argument("--only-streams", action="store_true", help="not through Torch-TensorRT's front end")
    parser.add_argument("--timings", type=Path, help="the file of the timing cache")
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    options.form = options.form or [name for name in FORMS if not (options.heads and name == "exported")]
    if options.streams and (options.heads or set(options.form) - set(STREAMS)):
        parser.error(f"--streams takes whole networks of --form {', '.join(STREAMS)}")
    if options.only_streams and not options.streams:
        parser.error("--only-streams needs --streams")
    return options


def main() -> None:
    """Build, measure, compare and print."""
    options = read_options()
    device = pick_device()
    torch.cuda.set_device(device)
    model = eager_model(options.module, device)
    images = synthetic_images(options.batch_size, seed=config.SEED + 2).to(device)
    runners: dict[str, Any] = {"eager-fp32": model}
    built: dict[str, dict[str, Any]] = {}
    for name in options.form:
        form = form_of(name, model, torch.float16, options.heads)
        for label, build in ways(name, form, options, device).items():
            started = time.perf_counter()
            network = rewrite.FusedNetwork(torchscript.reload(build()))
            built[label] = {"seconds": round(time.perf_counter() - started, 1)}
            runners[label], runners[f"{label} graph"] = network, CudaGraphRunner(network, device)
            print(f"{label}: built in {built[label]['seconds']} s", flush=True)
    report = benchmark(runners, images)
    for name, facts in built.items():
        facts["kernels"] = kernels(runners[name], images)
        if not options.heads:
            found = parity.compare(runners[name], model, images, precision="fp16", batch_sizes=(options.batch_size,))
            facts["agreement"] = found.as_dict()
    text = json.dumps({**report.document(), "forms": built}, indent=1)
    Path(options.json).write_text(text + "\n", encoding="utf-8")
    for row in report.rows:
        print(f"{row.name:30} {row.median_ms:8.3f} ms, p90 {row.p90_ms:.3f}" if row.ok else f"{row.name}: {row.reason}")
    for name, facts in built.items():
        busy = sum(kernel["us"] for kernel in facts["kernels"])
        print(f"{name}: {len(facts['kernels'])} kernels, {busy:.0f} us")


if __name__ == "__main__":
    main()

"""Build INT8 engines in other forms than `compile` does, and record their speed and the time of each layer.

    python benchmarks/int8_forms.py dense.ts --batch-size 32 --json forms.json [--form NAME]...

Ranges are those of seeded pictures, which is enough for speed. Each form is measured as a CUDA graph, in interleaved rounds,
beside the FP16 engine.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine import tensorrt_backend
from ssdtrt.engine.network_writer import NetworkWriter
from ssdtrt.engine.tensorrt_backend import BuildLimits, build_plan
from ssdtrt.images.tensors import synthetic_images, synthetic_pictures
from ssdtrt.quantization.calibration import calibrate
from ssdtrt.rewriting.equalized import equalize
from ssdtrt.rewriting.fused import FusedSSD300, ProjectedBlock
from ssdtrt.rewriting.quantized import convolutions, quantize
from ssdtrt.rewriting.quantizers import QuantizedConv2d
from ssdtrt.runners.baseline import eager_model
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.runners.engine_layers import layers_of, time_layers
from ssdtrt.runners.tensorrt_engine import TensorRTEngine, load_plan
from ssdtrt.runners.timing import time_calls
from ssdtrt.system.devices import pick_device
from ssdtrt.system.files import write_text
from ssdtrt.system.versions import measured_on


class HalfHeads(NetworkWriter):
    """The heads' outputs are cast to FP16 before they are joined, and the whole to FP32."""

    def _reshape(self, x: Any, shape: tuple[int, ...], name: str) -> Any:
        return super()._reshape(self._cast(x, self.tensorrt.float16, f"{name}.to_fp16"), shape, name)

    def _concatenate(self, parts: list[Any], axis: int, name: str) -> Any:
        joined = super()._concatenate(parts, axis, name)
        return self._cast(joined, self.tensorrt.float32, f"{name}.to_fp32") if name.startswith("rows") else joined


class HalfOutputs(NetworkWriter):
    """The heads' convolutions give FP16 themselves."""

    def _add_quantized_convolution(self, x: Any, module: QuantizedConv2d) -> Any:
        y = super()._add_quantized_convolution(x, module)
        if self._name_of(module).startswith("heads"):
            self.network.get_layer(self.network.num_layers - 1).set_output_type(0, self.tensorrt.float16)
        return y


class QuantizedParts(NetworkWriter):
    """The parts of a merged projection are quantized, not their concatenation alone."""

    def _add_block(self, x: Any, block: Any) -> Any:
        if not isinstance(block, ProjectedBlock) or not isinstance(block.conv3, QuantizedConv2d):
            return super()._add_block(x, block)
        y = self._add(self._add(x, block.conv1), block.relu)
        y = self._add(self._add(y, block.conv2), block.relu)
        parts = [self._add_quantizer(part, block.conv3.input) for part in (y, x)]
        joined = self._concatenate(parts, 1, f"{self._name_of(block)}.concatenated")
        return self._add(self._add(joined, block.conv3), block.relu)


def named(prefix: str) -> Callable[[str], bool]:
    """Whether a convolution's name begins so."""
    return lambda name: name.startswith(prefix)


def nothing(_: str) -> bool:
    """No convolution."""
    return False


# The writer, whether projections are folded, and which convolutions stay in FP16.
FORMS: dict[str, tuple[type[NetworkWriter], bool, Callable[[str], bool]]] = {
    "as compiled": (NetworkWriter, True, nothing),
    "heads cast to FP16": (HalfHeads, True, nothing),
    "heads give FP16": (HalfOutputs, True, nothing),
    "parts quantized": (QuantizedParts, True, nothing),
    "projections apart": (NetworkWriter, False, nothing),
    "first convolution in FP16": (NetworkWriter, True, lambda name: name == "feature_extractor.feature_extractor.0"),
    "first head in FP16": (NetworkWriter, True, lambda name: name == "heads.0"),
    "heads in FP16": (NetworkWriter, True, named("heads")),
    "additional blocks in FP16": (NetworkWriter, True, named("additional_blocks")),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path)
    parser.add_argument("--batch-size", default="32")
    parser.add_argument("--form", action="append", choices=FORMS, help="by default all")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--timings", type=Path, help="a file of kernel times, read and written")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Build every form, then measure them in turns."""
    options = parse(arguments)
    device, batch = pick_device("cuda"), BatchRange.parse(options.batch_size)
    model = eager_model(options.module, device)
    ranges, exponents = calibrate(model, synthetic_pictures(8), "max", "eval")
    limits, images = BuildLimits(options.streams), synthetic_images(batch.opt).to(device)
    plans = {"FP16": build_plan(FusedSSD300(model, torch.float16), batch, limits, options.timings)}
    for form in options.form or FORMS:
        writer, folded, stays = FORMS[form]
        fused = equalize(FusedSSD300(model, fold_projections=folded), exponents)
        network = quantize(fused, ranges, [name for name, _ in convolutions(fused) if stays(name)])
        try:
            with mock.patch.object(tensorrt_backend, "NetworkWriter", writer):
                plans[form] = build_plan(network, batch, limits, options.timings)
        except Exception as error:  # One form that TensorRT refuses must not lose the others.
            print(form, "was not built:", error, flush=True)
    runners = {form: CudaGraphRunner(load_plan(plan, device, batch.min), device) for form, plan in plans.items()}
    samples: dict[str, list[float]] = {form: [] for form in plans}
    for _ in range(options.rounds):
        for form, runner in runners.items():
            samples[form] += time_calls(runner, [images], 10)
    report: dict[str, Any] = {"machine": measured_on(device).as_dict(), "batch_size": batch.opt, "forms": []}
    for form, plan in plans.items():
        times = time_layers(load_plan(plan, device, batch.min), images, 10, 5)
        layers = layers_of(TensorRTEngine(plan, device))
        median = statistics.median(samples[form])
        rows = [{**layer.as_dict(), "ms": times.get(layer.name)} for layer in layers]
        row = {"form": form, "median_ms": median, "images_per_second": batch.opt / median * 1e3, "bytes": len(plan)}
        report["forms"].append({**row, "layers": rows})
        print(f"{form:28} {median:.4f} ms {row['images_per_second']:,.0f} images/s", flush=True)
    write_text(options.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

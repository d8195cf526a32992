"""An experiment: the same network, its layers laid out anew for TensorRT, beside the engine that `compile` builds.

    python benchmarks/fused.py ssd300.ts --batch-size 128 --engine b128.engine.ts --json fused.json

builds the fused form as an FP16 engine of that batch size, and measures and compares it with FP32 eager. It has not run on
a GPU yet: docs/performance.md says what it is to find out.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import List, Tuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssdtrt import config, machine, parity, torchscript, trt
from ssdtrt.bench import benchmark
from ssdtrt.engine import BatchRange
from ssdtrt.graph import GraphRunner
from ssdtrt.image import synthetic_images
from ssdtrt.model.ssd import SSD300
from ssdtrt.runner import eager_model, load_engine


class FusedSSD300(nn.Module):
    """SSD300 with one output, `loc` above `conf`: images [N, 3, 300, 300] -> [N, 4 + C, A], both float32.

    Holds copies of the model's weights: every BatchNorm is folded into its convolution, the location and the class head
    of a level are one convolution, and that of the last level, a single pixel, is 1x1. `inside` is the type of the
    weights and of all that lies between the two edges.
    """

    def __init__(self, model: SSD300, inside: torch.dtype = torch.float32):
        super().__init__()
        model = copy.deepcopy(model).eval()
        fold_norms(model)
        self.feature_extractor, self.additional_blocks = model.feature_extractor, model.additional_blocks
        self.heads = nn.ModuleList(merged_head(*pair) for pair in zip(model.loc, model.conf))
        self.heads[-1] = middle_only(self.heads[-1])
        self.channels, self.inside = 4 + model.num_classes, inside
        self.boxes_per_map: List[int] = model.boxes_per_map
        self.to(inside)

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, 300, 300] -> `loc` above `conf`, [N, 4 + C, A]."""
        features = self.feature_extractor(images.to(self.inside))
        maps = [self.heads[0](features)]
        for block, head in zip(self.additional_blocks, self.heads[1:]):
            features = block(features)
            maps.append(head(features))
        # Cast at once, or TensorRT goes on in FP32. Plain ints: a dynamic batch is -1 itself while Torch-TensorRT converts.
        parts = [part.to(self.inside).reshape(-1, self.channels, k) for part, k in zip(maps, self.boxes_per_map)]
        return torch.cat(parts, 2).float()


def traced(model: SSD300, inside: torch.dtype, device: torch.device) -> torch.jit.ScriptModule:
    """The model's fused form as TorchScript on `device`, its weights of the type `inside`."""
    network = FusedSSD300(model, inside).to(device)
    images = torch.zeros(1, 3, config.IMAGE_SIZE, config.IMAGE_SIZE, device=device)
    with torch.no_grad(), torchscript.quiet():
        return torch.jit.trace(network, images, check_trace=False)


def fold_norms(module: nn.Module) -> None:
    """Folds every BatchNorm that follows a convolution among a module's children into it, in place."""
    before, before_name = None, ""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            setattr(module, before_name, fuse_conv_bn_eval(before, child))
            setattr(module, name, nn.Identity())
        fold_norms(child)
        before, before_name = child, name


def merged_head(loc: nn.Conv2d, conf: nn.Conv2d) -> nn.Conv2d:
    """The two heads of a level as one convolution: first the 4 * boxes channels of `loc`, then those of `conf`."""
    weight, bias = torch.cat([loc.weight, conf.weight]), torch.cat([loc.bias, conf.bias])
    return convolution(weight, bias, padding=1)


def middle_only(conv: nn.Conv2d) -> nn.Conv2d:
    """A 3x3 convolution with padding 1 as it acts on a single pixel."""
    return convolution(conv.weight[:, :, 1:2, 1:2], conv.bias, padding=0)


def convolution(weight: Tensor, bias: Tensor, padding: int) -> nn.Conv2d:
    """A convolution without stride, of weight [O, I, H, W] and bias [O]."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), padding=padding)
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv


class FusedNetwork(nn.Module):
    """Around a compiled FusedSSD300, scripted when saved: its one output as `loc` and `conf`, without a copy."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """images [N, 3, 300, 300] -> (loc [N, 4, A], conf [N, C, A]), float32, two parts of one tensor."""
        joined = self.network(images)
        return joined[:, :4], joined[:, 4:]


def build(model: SSD300, batch: BatchRange, device: torch.device) -> FusedNetwork:
    """The fused form as an FP16 engine. Holds the interpreter lock for minutes."""
    torch_tensorrt = trt.import_torch_tensorrt()
    arguments = trt.compile_arguments("fp16", batch, config.WORKSPACE_MIB, device)
    images = [{**image, "dtype": torch.float32} for image in arguments["inputs"]]
    arguments["inputs"] = [torch_tensorrt.Input(**image) for image in images]
    compiled = torch_tensorrt.compile(traced(model, torch.float16, device), **arguments)
    return FusedNetwork(torchscript.reload(compiled))


def main() -> None:
    """Builds, measures, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--engine", help="the engine of that batch size to set it against")
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    device = machine.pick_device()
    torch.cuda.set_device(device)
    model = eager_model(options.module, device)
    network = build(model, BatchRange.parse(options.batch_size), device)
    images = synthetic_images(options.batch_size, seed=config.SEED + 2).to(device)
    runners = {"eager FP32": model, "fused": network, "fused graph": GraphRunner(network, device)}
    if options.engine:
        runners["engine"] = load_engine(options.engine, device)
        runners["engine graph"] = load_engine(options.engine, device, cuda_graph=True)
    report = benchmark(runners, images).as_dict()
    agreement = parity.compare(network, model, images, precision="fp16", batch_sizes=(options.batch_size,))
    report["fused_agreement"] = agreement.as_dict()
    Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in report["rows"]:
        print(f"{row['name']:14} {row['median_ms']:8.3f} ms  {row['speedup']:.2f}x")
    print(f"fused: relative L2 {agreement.distance:.1e}, passed: {agreement.passed}")


if __name__ == "__main__":
    main()

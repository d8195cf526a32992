"""Measure what INT8 costs a module in AP, in PyTorch: by calibrator without and with equalized channels, by layer, and with
layers in FP16.

    python benchmarks/int8_accuracy.py dense.ts --calibration DIR --images DIR --annotations FILE --json accuracy.json

Ranges are measured on four of five calibration pictures. The costs of layers and the agreement of detections are of the others,
AP is of the annotated pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torch import nn

from ssdtrt import config
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.quantization.agreement import measure_agreement, run
from ssdtrt.quantization.calibration import measure_channels, measure_histograms
from ssdtrt.quantization.calibrators import range_of
from ssdtrt.quantization.judge import Judge
from ssdtrt.quantization.pictures import check_disjoint, read_annotated, read_calibration
from ssdtrt.quantization.sensitivity import measure_costs
from ssdtrt.rewriting.equalized import choose_exponents, equalize
from ssdtrt.rewriting.fused import FusedNetwork, FusedSSD300
from ssdtrt.rewriting.quantized import quantize
from ssdtrt.runners.baseline import eager_model
from ssdtrt.system.devices import pick_device
from ssdtrt.system.files import write_text
from ssdtrt.system.versions import measured_on

KEPT = (0, 3, 6, 10, 16)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--few", action="store_true", help="accept fewer than 100 calibration pictures")
    parser.add_argument("--device")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """AP and agreement for each calibrator, without and with equalized channels, then with more and more layers in FP16."""
    options = parse(arguments)
    device, model_info = pick_device(options.device), read_metadata(options.module).model
    preprocess, size = model_info.preprocess, config.EAGER_BATCH[device.type]
    pictures = read_calibration(options.calibration, preprocess, any_number=options.few)
    annotated = read_annotated(options.images, options.annotations, model_info.labels, preprocess)
    check_disjoint(annotated, pictures.digests)
    model, held_out = eager_model(options.module, device), pictures.held_out.images
    judge = Judge(model, held_out, preprocess, size, annotated)

    def measured(network: nn.Module) -> dict[str, Any]:
        ap = judge.ap_of(network, size)
        assert ap is not None
        found = measure_agreement(judge.reference, run(network, held_out, preprocess, device, size))
        return {"ap": ap.int8, "ratio": ap.ratio, **found.as_dict()}

    apart = FusedSSD300(model, fold_projections=False)
    batches = [part.to(device) for part in pictures.measured.images.split(8)]
    exponents = choose_exponents(apart, measure_channels(apart, batches, preprocess))
    report: dict[str, Any] = {"machine": measured_on(device).as_dict(), "fp32_ap": judge.fp32_ap}
    for kind, chosen in (
        ("as it is", {name: (0,) * len(steps) for name, steps in exponents.items()}),
        ("equalized", exponents),
    ):
        fused = equalize(FusedSSD300(model), chosen)
        histograms = measure_histograms(equalize(apart, chosen), batches, preprocess)
        ranges, report[kind] = {}, {}
        for name in config.CALIBRATORS:
            ranges[name] = {tensor: range_of(histogram, name) for tensor, histogram in histograms.items()}
            report[kind][name] = measured(FusedNetwork(quantize(fused, ranges[name])))
            print(kind, name, report[kind][name], flush=True)
    best = ranges[config.CALIBRATORS[0]]
    costs = measure_costs(fused, best, held_out, preprocess)
    report |= {"costs": [one.as_dict() for one in costs], "in_fp16": {}}
    for count in KEPT:
        kept = {one.name for one in costs[:count]}
        share = sum(one.share for one in costs[:count])
        report["in_fp16"][count] = {"share": share, **measured(FusedNetwork(quantize(fused, best, kept)))}
        print(count, report["in_fp16"][count], flush=True)
    write_text(options.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Engine files of any version of ssdtrt measured beside each other: whether a change made engines slower.

    python benchmarks/side_by_side.py before=old/b1.engine.ts after=new/b1.engine.ts --batch-size 1 --json FILE

Each file is loaded by plain torch.jit.load, since one version of ssdtrt refuses the engines of another, and measured
plainly and as a CUDA graph, all in the same interleaved rounds. The report is one of `ssdtrt bench`; the last lines
compare each file with the first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ssdtrt import benchmark
from ssdtrt.commands.text.bench import bench_text
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.runners import torchscript
from ssdtrt.runners.cuda_graph import CudaGraphRunner
from ssdtrt.runners.runtime import import_torch_tensorrt


def main():
    """Measures, prints and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    import_torch_tensorrt()
    device = torch.device("cuda", 0)
    runners = {}
    for pair in options.files:
        name, path = pair.split("=", 1)
        module = torchscript.load(path, device)
        runners[name] = module
        runners[f"{name}, CUDA graph"] = CudaGraphRunner(module, device, limit=1)
    images = synthetic_images(options.batch_size).to(device)
    report = benchmark(runners, images, rounds=options.rounds)
    Path(options.json).write_text(json.dumps(report.document(), indent=1) + "\n", encoding="utf-8")
    print(bench_text(report, 200))
    medians = {row.name: row.median_ms for row in report.rows}
    first, *others = (pair.split("=", 1)[0] for pair in options.files)
    for name in others:
        for end in ("", ", CUDA graph"):
            change = medians[name + end] / medians[first + end] - 1
            print(f"{name}{end} against {first}{end}: {100 * change:+.1f} %")


if __name__ == "__main__":
    main()

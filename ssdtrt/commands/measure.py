"""The command that measures saved files: bench."""

from __future__ import annotations

import click

from ssdtrt import config
from ssdtrt.commands.options import device_option, json_option, module_option, terminal
from ssdtrt.commands.params import Names, Sizes
from ssdtrt.commands.reports import bench_report_options, check_bench, finish_bench


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--batch-size", type=Sizes(), metavar="N[,N...]", help="Batch sizes.  [default: the file's own]")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds.  [default: 10, on a CPU 5]")
@click.option("--iterations", type=click.IntRange(min=1), help="Timed calls a round.  [default: 10, on a CPU 4]")
@click.option("--warmup", type=click.IntRange(min=1), default=config.WARMUP, show_default=True)
@click.option("--against", type=Names(config.BENCH_CASES), metavar="NAME[,NAME...]", help="More to measure.")
@click.option("--parts", is_flag=True, help="Also time the steps from picture to detections.")
@module_option
@device_option
@json_option
@bench_report_options
def bench(files, batch_size, rounds, iterations, warmup, against, parts, module, device, json_file, **report_options):
    """Measure FILEs against the FP32 eager model.

    Without FILEs it measures ssd300.engine.ts. The names for --against are eager-tf32, eager-fp16, eager-fp16-graph,
    eager-bf16, torchscript (the module), onnxruntime (its weights in ONNX Runtime), compile (torch.compile) and
    engine-plain (FILEs without a CUDA graph); eager-fp32 and engine (FILEs) are always measured. What cannot run here
    has a row with the reason.

    Example: ssdtrt bench ssd300.engine.ts --against compile,engine-plain --json bench.json
    """
    files = files or (config.ENGINE_FILE,)
    check_bench([*files, module], json_file, **report_options)
    from ssdtrt.bench import bench_files

    report = bench_files(
        files,
        against=against or (),
        parts=parts,
        module=module,
        device=device,
        batch_sizes=batch_size,
        rounds=rounds,
        iterations=iterations,
        warmup=warmup,
        progress=terminal.progress,
    )
    finish_bench(report, json_file, **report_options)
    terminal.hint("detect", files[0], "IMAGE...")

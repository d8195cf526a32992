"""The commands on saved reports, and what `bench` does with its own."""

from collections.abc import Callable

import click

from ssdtrt import config
from ssdtrt.commands.options import check_apart, check_json, end_with, json_option, markdown_option, show
from ssdtrt.commands.params import Percent, Positive


def bench_report_options(command: Callable) -> Callable:
    """Add the options of `bench` about its report, but for --json, which `check_bench` and `finish_bench` take."""
    options = (
        markdown_option,
        click.option("--plot", "plot_file", metavar="FILE", help="Draw latency and throughput: .png or .svg."),
        click.option(
            "--min-speedup", type=Positive(), metavar="X", help="Exit code 1 where a FILE is not X times as fast."
        ),
        click.option(
            "--max-latency-ms", type=Positive(), metavar="MS", help="Exit code 1 where a FILE's median is longer."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_bench(inputs, json_file, *, markdown_file, plot_file, **_):
    """Refuse what cannot be written or drawn, before anything is measured."""
    check_apart({"--json": json_file, "--markdown": markdown_file, "--plot": plot_file}, inputs)
    check_json(json_file, markdown_file)
    if plot_file:
        from ssdtrt.benchmarking.plot import check_plot

        check_plot(plot_file)


def finish_bench(report, json_file, *, markdown_file, plot_file, min_speedup, max_latency_ms):
    """Show and write the report, then end with 1 where a file's row violates a threshold."""
    from ssdtrt.benchmarking.thresholds import violations
    from ssdtrt.commands.bench_text import bench_text
    from ssdtrt.commands.markdown import bench_markdown

    show(report, json_file, bench_text, markdown_file, bench_markdown)
    if plot_file:
        from ssdtrt.benchmarking.plot import plot_reports

        plot_reports({"": report}, plot_file)
    end_with(violations(report, min_speedup, max_latency_ms))


@click.command()
@click.argument("old")
@click.argument("new")
@click.option(
    "--fail-if-slower",
    "limit",
    type=Percent(),
    metavar="N%",
    help="Exit code 1 where a row's median grew by more than N %, or is missing in NEW.",
)
@click.option("--files-only", is_flag=True, help="Hold only the rows of files to it, not the baselines.")
@click.option("--force", is_flag=True, help="Compare different GPUs, versions or settings too.")
@json_option
@markdown_option
def compare(old, new, limit, files_only, force, json_file, markdown_file):
    """Compare NEW, a report of ssdtrt bench --json, with an OLD one.

    Rows belong together by case, file name, precision and batch size. Reports with another GPU, versions or clock are
    refused.

    Example: ssdtrt compare old.json new.json --fail-if-slower 5%
    """
    from ssdtrt.benchmarking.compare import compare_files
    from ssdtrt.commands.bench_text import compare_text
    from ssdtrt.commands.markdown import compare_markdown

    check_apart({"--json": json_file, "--markdown": markdown_file}, [old, new])
    check_json(json_file, markdown_file)
    report = compare_files(old, new, limit=limit, files_only=files_only, force=force)
    show(report, json_file, compare_text, markdown_file, compare_markdown)
    end_with(report.failures)


@click.command()
@click.argument("reports", nargs=-1, required=True)
@click.option(
    "-o", "--output", default=config.PLOT_FILE, show_default=True, metavar="FILE", help="A .png or .svg file."
)
def plot(reports, output):
    """Draw latency and throughput from REPORTS of ssdtrt bench --json.

    Over the batch size, a line for each runner, on logarithmic axes. Needs matplotlib: pip install 'ssdtrt[plot]'

    Example: ssdtrt plot bench.json -o speed.svg
    """
    from ssdtrt.benchmarking import report_file
    from ssdtrt.benchmarking.plot import plot_reports

    check_apart({"--output": output}, reports)
    click.echo(plot_reports({path: report_file.read(path) for path in reports}, output))

"""The commands on saved reports, and what `bench` does with the one that it made."""

from collections.abc import Callable

import click

from ssdtrt import config
from ssdtrt.commands.options import check_apart, check_json, end_with, json_option, markdown_option, show
from ssdtrt.commands.params import Percent, Positive


def demands(command: Callable) -> Callable:
    """The options of `bench` about its report, but for --json: `check_demands` and `finish_bench` take them."""
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


def check_demands(inputs, json_file, *, markdown_file, plot_file, **_):
    """Refuses what cannot be written or drawn, before anything is measured."""
    check_apart({"--json": json_file, "--markdown": markdown_file, "--plot": plot_file}, inputs)
    check_json(json_file, markdown_file)
    if plot_file:
        from ssdtrt.benchmarking.plot import check_plot

        check_plot(plot_file)


def finish_bench(report, json_file, *, markdown_file, plot_file, min_speedup, max_latency_ms):
    """Shows and writes the report, then ends with 1 where a file's row is not as fast as demanded."""
    from ssdtrt.benchmarking import report_file, thresholds
    from ssdtrt.commands.bench_markdown import bench_markdown
    from ssdtrt.commands.bench_text import bench_text

    show(report, json_file, bench_text, markdown_file, bench_markdown)
    if not (plot_file or min_speedup or max_latency_ms):
        return
    record = report_file.parse(report.as_dict(), "the report")
    if plot_file:
        from ssdtrt.benchmarking.plot import plot_reports

        plot_reports([record], plot_file)
    end_with(thresholds.missed(record, min_speedup, max_latency_ms))


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
@click.option("--files-only", is_flag=True, help="Hold only the rows of files to it, not those of eager models.")
@click.option("--force", is_flag=True, help="Compare different GPUs, versions or settings too.")
@json_option
@markdown_option
def compare(old, new, limit, files_only, force, json_file, markdown_file):
    """Compare NEW, a report of ssdtrt bench --json, with an OLD one.

    Rows belong together by peer, file name, precision and batch size. Where GPU, versions or clock differ it refuses.

    Example: ssdtrt compare old.json new.json --fail-if-slower 5%
    """
    from ssdtrt.benchmarking.compare import compare_files
    from ssdtrt.commands.compare_text import compare_markdown, compare_text

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
    """Draw latency and throughput over the batch size from REPORTS of ssdtrt bench --json.

    A line for each runner, on logarithmic axes. Needs matplotlib: pip install 'ssdtrt[plot]'

    Example: ssdtrt plot bench.json -o speed.svg
    """
    from ssdtrt.benchmarking import report_file
    from ssdtrt.benchmarking.plot import plot_reports

    check_apart({"--output": output}, reports)
    click.echo(plot_reports([report_file.read(path) for path in reports], output))

"""The commands on saved reports, and what `bench` does with its own."""

from collections.abc import Callable

import click

from ssdtrt import config
from ssdtrt.commands.options import check_apart, check_json, end_with, json_option, markdown_option, show
from ssdtrt.commands.parameters.types import Percent, Positive, Score


def bench_report_options(command: Callable) -> Callable:
    """Add the options of `bench` about its report, but for --json, which `check_bench` and `finish_bench` take."""
    options = (
        markdown_option,
        click.option("--plot", "plot_file", metavar="FILE", help="Draw latency, throughput and AP: .png or .svg."),
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
    """Show and write the report, then end with 1 where a picture could not be read or a file's row violates a threshold."""
    from ssdtrt.benchmarking.diagnostics import violations
    from ssdtrt.commands.text.bench import bench_markdown, bench_text

    show(report, json_file, bench_text, markdown_file, bench_markdown)
    if plot_file:
        from ssdtrt.benchmarking.plot import plot_reports

        plot_reports({"": report}, plot_file)
    end_with([*report.failures, *violations(report, min_speedup, max_latency_ms)])


def evaluation_report_options(command: Callable) -> Callable:
    """Add the options of `evaluate` about its report, but for --json, which `finish_evaluation` takes."""
    options = (
        markdown_option,
        click.option("--min-ap", type=Score(), metavar="X", help="Exit code 1 where AP is below X, of 0..1."),
        click.option(
            "--max-ap-drop",
            type=Score(),
            metavar="Y",
            help="Exit code 1 where AP is more than Y, of 0..1, below that of --against.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_evaluation(inputs, against, outputs, *, markdown_file, max_ap_drop, **_):
    """Refuse what cannot be written or compared, before anything is evaluated."""
    if max_ap_drop is not None and not against:
        raise click.UsageError("--max-ap-drop compares with a baseline: give --against eager-fp32 too.")
    outputs = {**outputs, "--markdown": markdown_file}
    check_apart(outputs, inputs)
    check_json(*outputs.values())


def finish_evaluation(report, json_file, *, markdown_file, min_ap, max_ap_drop):
    """Show and write the report, then end with 1 where a picture could not be read or AP violates a threshold."""
    from ssdtrt.commands.text.evaluation import evaluation_markdown, evaluation_text
    from ssdtrt.evaluation.thresholds import violations

    problems = [*report.failures, *violations(report, min_ap, max_ap_drop)]
    show(report, json_file, evaluation_text, markdown_file, lambda one: evaluation_markdown(one, problems))
    end_with(problems)


@click.command()
@click.argument("old")
@click.argument("new")
@click.option(
    "--fail-if-slower",
    "limit",
    type=Percent(),
    metavar="N%",
    help="Exit code 1 where a file's median grew by more than N %, or is missing in NEW; 3 where that cannot be said.",
)
@click.option(
    "--max-ap-drop",
    type=Score(),
    metavar="Y",
    help="Of evaluations: exit code 1 where AP fell by more than Y, of 0..1.",
)
@click.option("--force", is_flag=True, help="Compare different GPUs, versions, pictures or settings too.")
@json_option
@markdown_option
def compare(old, new, limit, max_ap_drop, force, json_file, markdown_file):
    """Compare NEW, a report of ssdtrt bench or evaluate --json, with an OLD one.

    Rows of benchmarks belong together by case, file name, precision and batch size; reports with another GPU, versions
    or clock are refused. So are evaluations of other pictures or annotations.

    Baselines are shown and not held to the limit. Where one that the processor does not bound (eager-fp16-graph, on a
    CPU eager-fp32) moved by more than the limit, or times vary by more, the two are not comparable.

    Example: ssdtrt compare old.json new.json --fail-if-slower 5%
    """
    from ssdtrt.commands.text import bench, evaluation
    from ssdtrt.evaluation.report_file import is_evaluation

    check_apart({"--json": json_file, "--markdown": markdown_file}, [old, new])
    check_json(json_file, markdown_file)
    if is_evaluation(old):
        if limit is not None:
            raise click.UsageError(f"{old} is an evaluation, whose limit is --max-ap-drop.")
        from ssdtrt.evaluation.compare import compare_evaluations

        found = compare_evaluations(old, new, limit=max_ap_drop, force=force)
        show(found, json_file, evaluation.compare_text, markdown_file, evaluation.compare_markdown)
        end_with(found.failures)
        return
    if max_ap_drop is not None:
        raise click.UsageError(f"{old} is no evaluation, which --max-ap-drop is for.")
    from ssdtrt.benchmarking.compare import compare_files

    report = compare_files(old, new, limit=limit, force=force)
    show(report, json_file, bench.compare_text, markdown_file, bench.compare_markdown)
    end_with([*report.failures, *report.not_comparable], 1 if report.failures else config.NOT_COMPARABLE)


@click.command()
@click.argument("reports", nargs=-1, required=True)
@click.option(
    "-o", "--output", default=config.PLOT_FILE, show_default=True, metavar="FILE", help="A .png or .svg file."
)
@json_option
def plot(reports, output, json_file):
    """Draw latency and throughput from REPORTS of ssdtrt bench --json.

    Over the batch size, a line for each runner, on logarithmic axes; and AP over throughput where REPORTS have it. Needs
    matplotlib (the extra `plot`).

    Example: ssdtrt plot bench.json -o speed.svg
    """
    from ssdtrt.benchmarking import report_file
    from ssdtrt.benchmarking.plot import lines_of, plot_reports
    from ssdtrt.reporting.records import PlotReport

    check_apart({"--output": output, "--json": json_file}, reports)
    check_json(json_file)
    drawn = {path: report_file.read(path) for path in reports}
    path = plot_reports(drawn, output)
    lines = tuple(_plot_line(name, rows) for name, rows in lines_of(drawn).items())
    show(PlotReport(str(path), tuple(drawn), lines), json_file, lambda found, _: found.file)


def _plot_line(name, rows):
    """Return the record of a line, of rows that were measured."""
    from ssdtrt.reporting.records import PlotLine

    points = ((row.batch_size, row.median_ms, row.images_per_second, row.accuracy and row.accuracy.ap) for row in rows)
    columns = zip(*points)
    return PlotLine(name, *columns)


@click.command()
@click.argument("reports", nargs=-1, required=True)
@click.option("-o", "--output", default=config.PAGE_FILE, show_default=True, metavar="FILE", help="An .html file.")
@json_option
def report(reports, output, json_file):
    """Make one HTML page of REPORTS, the JSON files of other commands.

    It shows what was built, where, the speed, the agreement with FP32, the accuracy, sample pictures with boxes, and what
    was not measured, as far as REPORTS have it: of bench, verify, evaluate, run, profile, inspect and compare, and the
    detections.json of detect. The page needs no network and no other file.

    Example: ssdtrt report bench.json accuracy.json out/detections.json -o report.html
    """
    from ssdtrt.report import make_page

    check_apart({"--output": output, "--json": json_file}, reports)
    check_json(output, json_file)
    show(make_page(reports, output), json_file, lambda made, _: made.file)

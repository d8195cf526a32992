"""What the commands share: their options, and how they show a result."""

import json
import os
import sys
from pathlib import Path

import click

from ssdtrt import config
from ssdtrt.commands.params import Device, Score
from ssdtrt.commands.terminal import Terminal

terminal = Terminal()

device_option = click.option(
    "--device", type=Device(), help="Where it runs: cpu, cuda, cuda:1.  [default: what the file is for]"
)
weights_option = click.option(
    "--weights", default=config.WEIGHTS, show_default=True, help="coco, random, or a checkpoint's path."
)
labels_option = click.option("--labels", metavar="FILE", help="Class names, one a line, without the background.")
trust_option = click.option("--trust-weights", is_flag=True, help="Let the checkpoint run code while it loads.")
json_option = click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - for stdout.")
markdown_option = click.option(
    "--markdown", "markdown_file", metavar="FILE", help="Write the report for GitHub; - for stdout."
)
module_option = click.option("--module", metavar="FILE", help="The module the engine was built from.")
sha256_option = click.option("--sha256", metavar="DIGEST", help="The SHA-256 that the file must have.")
threshold_option = click.option(
    "--threshold", type=Score(), default=config.THRESHOLD, show_default=True, help="Lowest score."
)
preprocess_option = click.option(
    "--preprocess",
    type=click.Choice(config.PREPROCESSES),
    default=config.PREPROCESS,
    show_default=True,
    help="eval: the whole picture, squeezed; hub: its middle square.",
)


def check_json(*files):
    """Refuses paths for a report that cannot be written, before any work. A device or a pipe may be.

    And those of files that are no text: a picture or an engine is not what somebody wants a report in place of.
    """
    from ssdtrt.system.files import is_special
    from ssdtrt.system.outputs import check_output

    for file in files:
        if not file or file == "-" or is_special(file):
            continue
        if os.path.isfile(file):
            with open(file, "rb") as opened:
                if b"\0" in opened.read(1024):
                    raise click.UsageError(f"{file} is there and no text; give another path for the report.")
        check_output(file, "")


def check_apart(outputs, inputs=()):
    """Refuses one file for two outputs, by the options that name them (`-` is stdout), or for an output and an input."""
    seen, read = {}, {os.path.realpath(path) for path in inputs if path}
    for option, path in outputs.items():
        if path is None:
            continue
        place = path if path == "-" else os.path.realpath(path)
        if place in read:
            raise click.UsageError(f"{path} is what is read; give another for {option}.")
        if place in seen:
            where = "go to stdout" if path == "-" else f"be written to {path}"
            raise click.UsageError(f"Only one of {seen[place]} and {option} can {where}.")
        seen[place] = option


def show(report, json_file, text, markdown_file=None, markdown=None):
    """The report as text on stdout, and as JSON and Markdown where they were asked for; `-` puts one in its place.

    The Markdown also goes to the summary of a job of GitHub Actions.
    """
    terminal.done()
    data = json.dumps(report.as_dict(), indent=1) + "\n"
    page = markdown(report) if markdown else ""
    shown = data if json_file == "-" else page if markdown_file == "-" else text(report, terminal.width())
    click.echo(shown, nl=not shown.endswith("\n"))
    for file, written in ((json_file, data), (markdown_file, page)):
        if file and file != "-":
            from ssdtrt.system.files import write_text

            write_text(Path(file), written)
    if page:
        from ssdtrt.commands.markdown import append_summary

        if problem := append_summary(page):
            terminal.note(problem)


def end_with(failures):
    """One line for each failure, and exit code 1 if there is one."""
    terminal.done()
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    if failures:
        sys.exit(1)


def show_engine(path, metadata):
    """What was built, and how near it came."""
    build, parity = metadata["build"], metadata["parity"]
    figures = ", ".join(f"{output['name']} {output['relative_l2']:.1e}" for output in parity["outputs"])
    batch = f"batch {build['batch']}" if build["batch"] else "any batch"
    known = " before, taken from the cache" if build.get("cached") else ""
    made = f"built in {build['seconds']:.0f} s{known}"
    click.echo(f"{path}: {build['precision'].upper()} {build['backend']}, {batch}, {made}")
    click.echo(f"relative L2 to FP32 eager: {figures} (bound {parity['bound']:.0e})")
    found = parity["detections"]
    matched = "none to compare" if found["share"] is None else f"{100 * found['share']:.1f} % matched"
    click.echo(f"detections: {found['reference']} FP32, {found['engine']} engine, {matched}")

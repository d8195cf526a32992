"""The commands on saved reports, and what `bench` does with the one that it made."""

import click

from ssdtrt.options import check_json, end_with, json_option, markdown_option, show
from ssdtrt.params import Percent


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
    from ssdtrt.compare import compare_files
    from ssdtrt.report_compare import compare_markdown, compare_text

    check_json(json_file, markdown_file)
    report = compare_files(old, new, limit=limit, files_only=files_only, force=force)
    show(report, json_file, compare_text, markdown_file, compare_markdown)
    end_with(report.failures)

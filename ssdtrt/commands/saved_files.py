"""The commands on saved files."""

import click

from ssdtrt.commands.options import check_apart, check_json, json_option, sha256_option, show, terminal


@click.command()
@click.argument("file")
@click.option("--check", is_flag=True, help="Read the whole file and check every member's CRC.")
@sha256_option
@json_option
def inspect(file, check, sha256, json_file):
    """Show what FILE says of itself: versions, machine, weights, labels, build and parity.

    Works for any file that ssdtrt wrote, on any machine, and runs nothing of it.

    Example: ssdtrt inspect ssd300.engine.ts
    """
    check_apart({"--json": json_file}, [file])
    from ssdtrt.artifact.inspection import inspect_file, inspection_text

    check_json(json_file)
    report = inspect_file(file, check=check, sha256=sha256)
    show(report, json_file, inspection_text)
    terminal.hint("compile" if report.metadata["kind"] == "module" else "verify", file)

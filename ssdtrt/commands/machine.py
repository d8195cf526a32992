"""The command that looks at the machine."""

import sys

import click

from ssdtrt.commands.options import check_json, json_option, show, terminal


@click.command()
@click.option("--build", is_flag=True, help="Also build and run a tiny FP16 engine.")
@json_option
def doctor(build, json_file):
    """Say what this machine has and lacks for TensorRT engines, with the fix for each problem.

    Exit code 1 when none can be built here.

    Example: ssdtrt doctor --build
    """
    from ssdtrt.commands.report_text import doctor_text
    from ssdtrt.diagnosis.checks import doctor as examine

    check_json(json_file)
    report = examine(build, progress=terminal.progress)
    show(report, json_file, doctor_text)
    if not report.can_build:
        sys.exit(1)
    if build:
        terminal.hint("export")
    else:
        terminal.hint("doctor", "--build")

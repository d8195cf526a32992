"""The command line: the group of the commands in `ssdtrt.commands`, and their errors and interrupts."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import click

from ssdtrt import __version__, config
from ssdtrt.commands.build import compile_, export, parity_text, verify
from ssdtrt.commands.deploy import triton, triton_check
from ssdtrt.commands.detect import detect
from ssdtrt.commands.machine import cache, doctor, inspect
from ssdtrt.commands.measure import bench, evaluate, profile
from ssdtrt.commands.options import terminal
from ssdtrt.commands.parameters.types import name_numbers, refine_texts
from ssdtrt.commands.reports import compare, plot, report
from ssdtrt.commands.run import run
from ssdtrt.commands.serve import serve
from ssdtrt.commands.terminal import columns, printable, take_any_name
from ssdtrt.errors import ParityError, SsdtrtError

logger = logging.getLogger(__name__)
_NARROW = 60  # columns, below which only short options stand beside their descriptions
_SHORT_OPTION = 10  # characters of such an option
_RESEND_SECONDS = 0.05  # after which a signal that Python dropped is sent again


class _Terminated(KeyboardInterrupt):
    """Raised by SIGTERM, which ends a command as Ctrl-C does."""


class _HelpFormatter(click.HelpFormatter):
    """Formats help for terminals of any width; click's own formatter needs 50 columns."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None):
        super().__init__(indent_increment, width or max(min(columns(), max_width or 80) - 2, 1), max_width)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write options and their descriptions, in a narrow terminal mostly below each other."""
        super().write_dl(rows, col_max if self.width >= _NARROW else _SHORT_OPTION, col_spacing)


class _Context(click.Context):
    formatter_class = _HelpFormatter


class _Group(click.Group):
    """Turns the library's errors into one message and exit code 1, Ctrl-C into 130 and SIGTERM into 143."""

    context_class = _Context

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, which takes -q and -v too, is listed with its whole first line, and whose help fits any width."""
        _prepare(cmd)
        super().add_command(cmd, name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the command, of which --help and --version print."""
        try:
            return super().parse_args(ctx, args)
        except OSError as error:
            _fail_as_the_system(error)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with _raising_on_signals():
                return super().invoke(ctx)
        except SsdtrtError as error:
            if isinstance(error, ParityError) and error.report is not None:
                terminal.done()
                click.echo(parity_text(error.report, terminal.width()), err=True)
            _fail(str(error), error)
        except OSError as error:
            _fail_as_the_system(error)
        except RuntimeError as error:
            if "torch" not in sys.modules:
                raise
            from ssdtrt.system.gpu_errors import gpu_error

            known = gpu_error(error)
            if known is None:
                raise
            _fail(str(known), error)
        except KeyboardInterrupt as error:
            terminal.done()
            terminated = isinstance(error, _Terminated)
            word = "terminated" if terminated else "interrupted"
            click.echo(f"{word}; finished files are whole, nothing half-written is left", err=True)
            sys.exit(config.INTERRUPTED[terminated])


def _prepare(command: click.Command) -> None:
    """Give a command what all have; of a group of commands each of them."""
    command.context_class = _Context
    command.short_help = (command.help or "").partition("\n")[0]
    for one in command.commands.values() if isinstance(command, click.Group) else ():
        _prepare(one)
    refine_texts(command)
    name_numbers(command)
    command.params += _manner()


def _manner() -> list[click.Parameter]:
    """The options that stand before a command or after it."""
    how = {"is_flag": True, "expose_value": False, "is_eager": True}
    return [
        click.Option(["-q", "--quiet"], **how, callback=_be_quiet, help="No progress and no hints."),
        click.Option(["-v", "--verbose"], **how, callback=_be_verbose, help="Show the libraries' log messages."),
    ]


def _be_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value or context.parent is None:  # A command adds to what was said before it.
        terminal.begin(value)


def _be_verbose(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:
        logging.getLogger().setLevel(logging.DEBUG)


@click.group(
    cls=_Group,
    params=_manner(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Completion in bash: eval "$(_SSDTRT_COMPLETE=bash_source ssdtrt)"',
)
@click.version_option(__version__, prog_name="ssdtrt")
def main() -> None:
    """SSD300 from a checkpoint to an accepted and measured Torch-TensorRT engine.

    On a GPU machine: ssdtrt export && ssdtrt compile --fp16 && ssdtrt bench
    """
    take_any_name()
    logging.basicConfig(stream=sys.stderr)


for _command in (
    bench,
    cache,
    compare,
    compile_,
    detect,
    doctor,
    evaluate,
    export,
    inspect,
    plot,
    profile,
    report,
    run,
    serve,
    triton,
    triton_check,
    verify,
):
    main.add_command(_command)


def _fail(message: str, error: Exception) -> NoReturn:
    """End the command with one line and exit code 1."""
    terminal.done()
    raise click.ClickException(printable(message)) from error


def _fail_as_the_system(error: OSError) -> NoReturn:
    """End the command with what the system says of a file; where nobody reads stdout any more, click ends it."""
    if isinstance(error, BrokenPipeError):
        raise error
    logger.debug("error of the system", exc_info=True)
    _drop_stdout()
    _fail(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", error)


@contextlib.contextmanager
def _raising_on_signals() -> Iterator[None]:
    """Make SIGTERM raise _Terminated inside the block, and keep Python from dropping it or Ctrl-C.

    Python drops what is raised while it destroys an object, in whose destructor the main thread may be.
    """

    def terminate(*_: object) -> None:
        raise _Terminated

    def send_again(dropped: sys.UnraisableHookArgs) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            number = signal.SIGTERM if isinstance(dropped.exc_value, _Terminated) else signal.SIGINT
            threading.Timer(_RESEND_SECONDS, os.kill, (os.getpid(), number)).start()
        else:
            report_unraisable(dropped)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    report_unraisable, sys.unraisablehook = sys.unraisablehook, send_again
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = report_unraisable


def _drop_stdout() -> None:
    """Discard what stdout still buffers if it cannot be written, because the interpreter would try again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

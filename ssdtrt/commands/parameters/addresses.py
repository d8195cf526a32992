"""The options on pictures that are fetched."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from ssdtrt import config

_NAMES = ("allow_private", "max_bytes", "timeout")


def address_options(command: Callable[..., Any], also: str = "") -> Callable[..., Any]:
    """Add the options on pictures that are fetched, which are put into the dict `reading` of `reading_options`.

    Args:
        command: The command.
        also: What else `--timeout` limits there.
    """

    @click.option("--allow-private", is_flag=True, help="Also fetch pictures from this machine and private networks.")
    @click.option(
        "--max-bytes",
        type=click.IntRange(min=1),
        default=config.MAX_BYTES,
        show_default=True,
        metavar="N",
        help="Most bytes of a fetched picture.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=config.FETCH_SECONDS,
        show_default=True,
        metavar="S",
        help=f"Seconds until a fetched picture is there{also}.",
    )
    @functools.wraps(command)
    def with_addresses(*arguments: Any, reading: dict[str, Any], **others: Any) -> Any:
        return command(*arguments, reading=reading | {name: others.pop(name) for name in _NAMES}, **others)

    return with_addresses

"""The options on pictures that are fetched."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from ssdtrt import config


def address_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options on pictures that are fetched; the command takes them as the dict `addresses`."""

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
        metavar="SECONDS",
        help="In which a fetched picture is there.",
    )
    @functools.wraps(command)
    def with_addresses(*arguments: Any, allow_private: bool, max_bytes: int, timeout: float, **others: Any) -> Any:
        addresses = {"allow_private": allow_private, "max_bytes": max_bytes, "timeout": timeout}
        return command(*arguments, addresses=addresses, **others)

    return with_addresses

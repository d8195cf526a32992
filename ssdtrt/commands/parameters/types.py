"""The types of the options: batch sizes, devices, scores, percentages; and what a shell completes."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from ssdtrt import config
from ssdtrt.artifact.request import BatchRange
from ssdtrt.errors import CompileError, SsdtrtError

BATCH_SIZE = click.IntRange(1, config.MAX_BATCH_SIZE)
_SHARE = click.FloatRange(0, 1)
BATCH_SIZE.name, _SHARE.name = "whole number", "number"  # See `name_numbers`.


class Range(click.ParamType):
    """MIN:OPT:MAX, as a BatchRange."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> BatchRange:
        """Parse it with `BatchRange.parse`."""
        if ":" not in value:
            self.fail(f"{value!r} is not MIN:OPT:MAX, such as 1:8:32.", param, ctx)
        try:
            batch = BatchRange.parse(value)
        except CompileError as error:
            self.fail(str(error), param, ctx)
        BATCH_SIZE.convert(batch.max, param, ctx)
        return batch


class Sizes(click.ParamType):
    """Batch sizes, separated by commas."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Parse each size; one that is given twice counts once."""
        return [*dict.fromkeys(BATCH_SIZE.convert(part, param, ctx) for part in value.split(","))]


class Device(click.ParamType):
    """`cpu`, `cuda` or `cuda:N`."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form only: which devices exist is not known without torch."""
        if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", value):
            self.fail(f"{value!r} is not cpu, cuda or cuda:N.", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the devices, as NVIDIA's driver lists the GPUs on Linux."""
        gpus: list[str] = []
        with contextlib.suppress(OSError):
            gpus = os.listdir("/proc/driver/nvidia/gpus")
        return _items(("cpu", "cuda", *(f"cuda:{number}" for number in range(len(gpus)))), incomplete)


class Names(click.ParamType):
    """Some of these names, separated by commas."""

    name = "names"

    def __init__(self, known: Sequence[str]):
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Split and check the names."""
        names = [part.strip() for part in value.split(",")]
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is not one of {', '.join(self.known)}.", param, ctx)
        return names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the last name of the list."""
        return _list_items(self.known, incomplete)


class Score(click.ParamType):
    """A number from 0 to 1."""

    name = "score"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it, and refuse NaN."""
        number = _SHARE.convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not in the range 0<=x<=1.", param, ctx)
        return number


class Overlap(click.ParamType):
    """A number above 0, at most 1."""

    name = "overlap"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it, and refuse 0."""
        number = Score().convert(value, param, ctx)
        if not number:
            self.fail(f"{value!r} is not in the range 0<x<=1.", param, ctx)
        return number


class Percent(click.ParamType):
    """A percentage, such as 5, 5% or 2.5 %, as a fraction. 0.05 without the sign could be either, and is refused."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it."""
        found = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,6})?)( ?%)?", value)
        if not found:
            self.fail(f"{value!r} is not a percentage, such as 5, 5% or 2.5%.", param, ctx)
        number = float(found[1])
        if 0 < number < 1 and not found[2]:
            self.fail(f"{value!r} may be {number:g} % or {100 * number:g} %; give it with its sign.", param, ctx)
        return number / 100


class Positive(click.ParamType):
    """A finite number above 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is not a number above 0.", param, ctx)
        return number


class Values(click.ParamType):
    """LOW:HIGH, two finite numbers."""

    name = "values"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Parse it."""
        low, _, high = value.partition(":")
        try:
            found = float(low), float(high)
        except ValueError:
            found = math.nan, math.nan
        if not -math.inf < found[0] < found[1] < math.inf:
            self.fail(f"{value!r} is not LOW:HIGH, such as 0:4095.", param, ctx)
        return found


class Text(StringParamType):
    """Text that is not empty, as a variable of a shell that was never set is: that must not stand for the default."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an empty one."""
        if value == "":
            self.fail("it is empty; give a value, or leave it out.", param, ctx)
        return super().convert(value, param, ctx)


class PathName(Text):
    """Text that is completed as a path.

    Args:
        kind: `file` or `dir`.
    """

    def __init__(self, kind: str):
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete it."""
        return [CompletionItem(incomplete, type=self.kind)]


def refine_texts(command: click.Command) -> None:
    """Refuse empty texts; let a shell complete every argument, and each option with the metavar FILE or DIR, as paths."""
    for parameter in command.params:
        if parameter.type is click.STRING:
            is_path = isinstance(parameter, click.Argument) or parameter.metavar in ("FILE", "DIR")
            parameter.type = PathName("dir" if parameter.metavar == "DIR" else "file") if is_path else Text()


def name_numbers(command: click.Command) -> None:
    """Call numbers what users call them, in place of click's `integer range`: N in the help, and in messages."""
    for parameter in command.params:
        if isinstance(parameter.type, click.IntRange):
            parameter.type.name = "whole number"
            parameter.metavar = parameter.metavar or "N"
        elif isinstance(parameter.type, click.FloatRange):
            parameter.type.name = "number"


def complete_weights(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete --weights: the names, and checkpoints. bash shows files where no name fits."""
    return [CompletionItem(incomplete, type="file"), *_items(config.NAMED_WEIGHTS, incomplete)]


def complete_labels(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete --labels: `coco`, and files."""
    return [CompletionItem(incomplete, type="file"), *_items(("coco",), incomplete)]


def split_names(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str] | None:
    """Split --classes at its commas."""
    return None if value is None else [part.strip() for part in value.split(",")]


def complete_classes(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete --classes: the class names of the file that the command has, or else COCO's."""
    from ssdtrt.artifact.metadata import read_metadata

    names: Sequence[str] = config.COCO_LABELS
    with contextlib.suppress(SsdtrtError, OSError, IndexError):
        names = read_metadata(ctx.args[0]).model.labels  # click leaves the arguments here, as an option has no value.
    return _list_items([name for name in names[1:] if "," not in name], incomplete)


def complete_cached(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the types of what is in the cache, and the keys as `cache list` shows them."""
    from ssdtrt.artifact.cache_entries import TYPES
    from ssdtrt.artifact.cache_folder import list_cache

    names: list[str] = [*TYPES]
    with contextlib.suppress(SsdtrtError, OSError):
        names += [
            entry.key if len(incomplete) > len(entry.short_key) else entry.short_key for entry in list_cache().entries
        ]
    return _items((name for name in names if name not in (ctx.params.get("names") or ())), incomplete)


def _list_items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return the items that complete the last of several names separated by commas, each of which is given once."""
    before, comma, _ = incomplete.rpartition(",")
    given = before.split(",")
    return _items((f"{before}{comma}{name}" for name in names if name not in given), incomplete)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return the names that begin so. bash inserts them as they are: there they are quoted where it needs that."""
    found = [name for name in names if name.startswith(incomplete)]
    if os.environ.get("_SSDTRT_COMPLETE", "").startswith("bash"):
        found = [shlex.quote(name) for name in found]
    return [CompletionItem(name) for name in found]

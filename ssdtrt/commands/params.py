"""The command line's own kinds of values: batch sizes, their ranges and lists, devices, scores, percentages."""

import math
import re

import click

from ssdtrt import config

BATCH_SIZE = click.IntRange(1, config.LARGEST_BATCH)


class Batch(click.ParamType):
    """A batch size of at least 1, or MIN:OPT:MAX."""

    name = "batch"

    def convert(self, value, param, ctx):
        parts = str(value).split(":")
        numbers = [int(part) for part in parts if part.isascii() and part.isdigit()]
        if len(numbers) != len(parts) or len(parts) != 3 or not 1 <= numbers[0] <= numbers[1] <= numbers[2]:
            self.fail(f"{value!r} is not MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, such as 1:8:32.", param, ctx)
        BATCH_SIZE.convert(numbers[2], param, ctx)
        return value


class Device(click.ParamType):
    """cpu, cuda, or cuda:N."""

    name = "device"

    def convert(self, value, param, ctx):
        if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", value):
            self.fail(f"{value!r} is not cpu, cuda or cuda:N.", param, ctx)
        return value


class Sizes(click.ParamType):
    """Batch sizes, separated by commas."""

    name = "sizes"

    def convert(self, value, param, ctx):
        parts = str(value).split(",")
        if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a list of batch sizes, such as 1,8,32.", param, ctx)
        return [BATCH_SIZE.convert(part, param, ctx) for part in parts]


class Names(click.ParamType):
    """Some of these names, separated by commas."""

    name = "names"

    def __init__(self, known):
        self.known = known

    def convert(self, value, param, ctx):
        names = [part.strip() for part in value.split(",")]
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is not one of {', '.join(self.known)}.", param, ctx)
        return names


class Score(click.ParamType):
    """A number from 0 to 1."""

    name = "score"

    def convert(self, value, param, ctx):
        number = click.FloatRange(0, 1).convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not in the range 0<=x<=1.", param, ctx)
        return number


class Percent(click.ParamType):
    """A percentage with its sign, 5% or 2.5 %, as a fraction: a bare 0.05 or 5 could mean either."""

    name = "percent"

    def convert(self, value, param, ctx):
        found = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,6})?) ?%", str(value))
        if not found:
            self.fail(f"{value!r} is not a percentage with its sign, such as 5% or 2.5%.", param, ctx)
        return float(found[1]) / 100


class Positive(click.ParamType):
    """A finite number above 0."""

    name = "number"

    def convert(self, value, param, ctx):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is not a number above 0.", param, ctx)
        return number

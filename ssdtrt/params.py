"""The command line's own kinds of values: batch ranges, lists of batch sizes, devices, percentages."""

import math
import re

import click


class Batch(click.ParamType):
    """A batch size of at least 1, or MIN:OPT:MAX."""

    name = "batch"

    def convert(self, value, param, ctx):
        parts = str(value).split(":")
        numbers = [int(part) for part in parts if part.isascii() and part.isdigit()]
        if len(numbers) != len(parts) or len(parts) != 3 or not 1 <= numbers[0] <= numbers[1] <= numbers[2]:
            self.fail(f"{value!r} is not MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, such as 1:8:32.", param, ctx)
        return value


class Device(click.ParamType):
    """cpu, cuda, or cuda:N."""

    name = "device"

    def convert(self, value, param, ctx):
        if not re.fullmatch(r"cpu|cuda(:\d+)?", value):
            self.fail(f"{value!r} is not cpu, cuda or cuda:N.", param, ctx)
        return value


class Sizes(click.ParamType):
    """Batch sizes, separated by commas."""

    name = "sizes"

    def convert(self, value, param, ctx):
        parts = str(value).split(",")
        if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a list of batch sizes, such as 1,8,32.", param, ctx)
        return [int(part) for part in parts]


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

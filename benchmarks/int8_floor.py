"""Write how much of the GPU's arithmetic each part of an engine reaches, from what `ssdtrt profile --json` recorded.

    python benchmarks/int8_floor.py INT8.json FP16.json...

The first table has the network in the order of its work. A layer that auxiliary streams may run beside others does not
count in its times, but its arithmetic does, so that the parts add up to about a call. The second table has those layers,
and those that they run beside, as the profiler timed them: with their waits for each other.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

# TFLOP/s or TOP/s without sparsity, by the data sheet of the H100 and H200 SXM.
PEAKS = {"fp16": 989.0, "int8": 1979.0}
# Where the pooling is a part of the first convolution, TensorRT does not tell the size of its output: 150x150.
FIRST = 150 * 150 * 64 * 3 * 7 * 7
STAGES = {
    "0": "first convolution, pooling",
    "3": "first convolution, pooling",
    "4": "conv2_x",
    "5": "conv3_x",
    "6": "conv4_x",
}
IMAGES, LAST = "images to the type of the network", "heads and additional blocks, side by side"
PROJECTION, MERGED, PLACES = "projection of conv3_x", "copies for merged projections", "copies of the heads' outputs"
ORDER = (IMAGES, *dict.fromkeys(STAGES.values()), LAST)
DETAILS = (*(f"heads.{i}" for i in range(6)), *(f"additional_blocks.{i}" for i in range(5)), PROJECTION, MERGED, PLACES)


@dataclass
class Time:
    """Microseconds and GFLOP an image."""

    us: float = 0.0
    gflop: float = 0.0

    def add(self, us: float, gflop: float) -> None:
        """Add a layer."""
        self.us += us
        self.gflop += gflop


@dataclass
class Profile:
    """A profile by parts."""

    dtype: str
    batch_size: int
    call_us: float
    parts: dict[str, Time] = field(default_factory=lambda: {part: Time() for part in ORDER})
    details: dict[str, Time] = field(default_factory=lambda: {part: Time() for part in DETAILS})


def place(name: str) -> tuple[str, str | None, bool]:
    """Return a layer's part, its row in the second table, and whether it runs beside others."""
    if re.search(r"(^|to )(rows|to_fp32)", name):
        return LAST, PLACES, not name.startswith("rows.6")  # The last level's follows all others.
    if re.match(r"(to_fp16|.*\.0\.input\.quantize$)", name) or re.match(
        r"Reformatting .* to feature_\w+\.feature_\w+\.0 ", name
    ):
        return IMAGES, None, False
    if name.endswith("_output copy"):
        return "conv4_x", MERGED, True
    if "downsample" in name:
        return "conv3_x", PROJECTION, True
    found = re.search(r"(feature_extractor\.feature_extractor|heads|additional_blocks)\.(\d)", name)
    if not found:
        raise SystemExit(f"{name} is no layer of this network as ssdtrt compile writes it")
    kind, number = found.groups()
    if kind == "feature_extractor.feature_extractor":
        return STAGES[number], None, False
    return LAST, f"{kind}.{number}", kind == "heads" and number != "5"


def read(path: Path) -> Profile:
    """Read a profile."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("kind") != "profile":
        raise SystemExit(f"{path} is no profile; make one with: ssdtrt profile ENGINE --json FILE")
    per_image = 1e3 / data["batch_size"]
    types = {row["layer"]["dtype"] for row in data["layers"]}
    profile = Profile("int8" if "int8" in types else "fp16", data["batch_size"], data["call_ms"] * per_image)
    for row in data["layers"]:
        layer, us = row["layer"], row["median_ms"] * per_image
        count = FIRST if layer["operation"] == "CaskConvActPool" else layer["multiplications"] or 0
        part, detail, beside = place(layer["name"])
        profile.parts[part].add(0.0 if beside else us, 2e-9 * count)
        if detail:
            profile.details[detail].add(us, 2e-9 * count)
    return profile


def cells(time: Time, dtype: str) -> list[str]:
    """Return the time and its share of the peak."""
    reached = f"{100 * time.gflop / time.us / PEAKS[dtype] * 1e3:.0f} %" if time.gflop and time.us else "-"
    return [f"{time.us:.2f}", reached]


def table(title: str, profiles: list[Profile], rows: dict[str, list[Time]]) -> str:
    """Return a table in Markdown."""
    heads = [f"{one.dtype.upper()}, batch {one.batch_size}: us | of the peak" for one in profiles]
    lines = [" | ".join([f"| {title}", "GFLOP", *heads]) + " |", "|---|--:" + "|--:|--:" * len(profiles) + "|"]
    for name, times in rows.items():
        gflop = f"{times[0].gflop:.2f}" if times[0].gflop else "-"
        values = [cell for time, one in zip(times, profiles) for cell in cells(time, one.dtype)]
        lines.append("| " + " | ".join([name, gflop, *values]) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profiles", type=Path, nargs="+", metavar="PROFILE.json")
    profiles = [read(path) for path in parser.parse_args(arguments).profiles]
    parts = {part: [one.parts[part] for one in profiles] for part in ORDER}
    gflop = sum(time.gflop for time in profiles[0].parts.values())
    parts["sum"] = [Time(sum(time.us for time in one.parts.values()), gflop) for one in profiles]
    parts["a call"] = [Time(one.call_us, gflop) for one in profiles]
    parts["the peak"] = [Time(gflop / PEAKS[one.dtype] * 1e3, gflop) for one in profiles]
    details = {part: [one.details[part] for one in profiles] for part in DETAILS}
    print(table("Part, an image", profiles, parts), table("Layers, an image", profiles, details), sep="\n\n")


if __name__ == "__main__":
    main()

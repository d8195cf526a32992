#!/usr/bin/env python3
"""Write the tables of docs/scale.md from recorded reports and stated assumptions: python benchmarks/scale_table.py [--check]

    python benchmarks/scale_table.py --price 4.5 --peak 3 --picture-bytes 2000000     # prints them for other assumptions

Each stands between two marker lines. With --check nothing is written, and the exit code is 1 when the page does not hold
the tables that the reports give.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from queue_simulation import calibrated_on_gpu
from service_queue import Model, Simulation

from ssdtrt import config

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "scale.md"
BLOCK = re.compile(r"(<!-- table (\w+): benchmarks/scale_table\.py -->\n).*?(<!-- end of table -->)", re.S)
DAY = 86_400  # seconds
GPUS = (1, 8, 100, 1000)
RATES = (100, 400, 1600, 3200)  # pictures a second that are simulated
SECONDS = 6.0  # for so long each


@dataclass(frozen=True)
class Assumed:
    """What no report says. The limits of the object store are those that Amazon S3 documents for each prefix."""

    pictures: float = 1e9  # a day
    peak: float = 2.0  # the busiest second over the average one
    price: float = 3.0  # dollars an hour for a GPU with its cores
    gpus_a_machine: int = 8
    network_gbit: float = 100.0  # of a machine
    gets: float = 5500.0  # a second and prefix
    puts: float = 3500.0  # a second and prefix
    listed_bytes: float = 200.0  # of a picture in the command's list, as the page on Ray says
    memory_gb: float = 64.0  # of the machine that the command runs on
    block: int = 256  # pictures of a Parquet file; the default of --block-size
    picture_bytes: float = 0.0  # 0 for that of the measured files


@dataclass(frozen=True)
class Run:
    """A measured run from files to detections with one GPU."""

    name: str
    cores: int
    rate: float  # images a second


def read(name: str) -> dict[str, Any]:
    """Return a recorded report."""
    found: dict[str, Any] = json.loads((HERE / "reports" / name).read_text(encoding="utf-8"))
    return found


def runs() -> list[Run]:
    """Return the measured runs, the one that the rest is computed from first."""
    found = [
        Run(f"{one['precision'].upper()}, decoded on the GPU", one["cores"], one["images_per_second"])
        for one in read("h200-files-gpu.json")["runs"]
    ]
    on_cpu = read("h200-files-cpu.json")["runs"][-1]
    return [*found, Run("FP16, decoded on the CPU", on_cpu["cores"], on_cpu["images_per_second"])]


def picture_bytes(assumed: Assumed) -> float:
    """Return the bytes of a picture's file: the assumed, or the measured."""
    return assumed.picture_bytes or float(read("h200-files-gpu.json")["mean_file_bytes"])


def table(head: str, rows: list[list[str]]) -> str:
    """Return a table whose first column is text."""
    titles = head.split(" | ")
    lines = [titles, ["---", *["--:"] * (len(titles) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("| --- |", "|---|").replace(" --: ", "--:") for line in lines)


def fleet(assumed: Assumed) -> str:
    """Return GPUs, cores and money, by how pictures are detected."""
    average = assumed.pictures / DAY
    rows = []
    for run in runs():
        need = average / run.rate
        gpus = math.ceil(assumed.peak * need)
        money = 1e6 / run.rate / 3600 * assumed.price
        rows.append([
            run.name, str(run.cores), f"{run.rate:,.0f}", f"{need:.2f}", str(gpus), str(gpus * run.cores),
            f"{1e6 / run.rate / 3600:.3f}", f"${money:.2f}", f"${money * assumed.peak:.2f}",
        ])  # fmt: skip
    head = (
        "One GPU | Cores | images/s | GPUs, average | GPUs, peak | Cores, peak | GPU-hours a million | "
        "a million, always busy | a million, paid for the peak all day"
    )
    return table(head, rows)


def data(assumed: Assumed) -> str:
    """Return what goes over the network and into storage."""
    average, size = assumed.pictures / DAY, picture_bytes(assumed)
    row = next(row for row in read("cpu-row-bytes.json")["rows"] if row["detections"] < 10)
    reads = average * assumed.peak
    rows = [
        ["pictures a second", f"{average:,.0f}", f"{reads:,.0f}"],
        [f"network in, {size / 1e3:,.0f} KB a picture", gbit(average * size), gbit(reads * size)],
        ["reads (GET) a second, one a picture", f"{average:,.0f}", f"{reads:,.0f}"],
        [
            f"prefixes, at {assumed.gets:,.0f} GET a second each",
            *(f"{math.ceil(one / assumed.gets)}" for one in (average, reads)),
        ],
        [f"Parquet files (PUT) a second, of {assumed.block} pictures", *(f"{one / assumed.block:,.0f}" for one in (average, reads))],
        ["pictures, where they are kept", f"{assumed.pictures * size / 1e12:,.0f} TB a day", ""],
        *(
            [f"results as {kind}, {row[name]:,.0f} bytes a row", f"{assumed.pictures * row[name] / 1e9:,.0f} GB a day", ""]
            for kind, name in (("JSON lines", "json_line_bytes"), ("JSON lines, gzip", "json_line_gzip_bytes"), ("Parquet", "parquet_row_bytes"))
        ),
        ["the command's list of a day", f"{assumed.pictures * assumed.listed_bytes / 1e9:,.0f} GB of memory", ""],
    ]  # fmt: skip
    return table("A day's pictures | average | peak", rows)


def gbit(bytes_a_second: float) -> str:
    """Return bytes a second as Gbit/s."""
    return f"{bytes_a_second * 8 / 1e9:,.1f} Gbit/s"


def limits(assumed: Assumed) -> str:
    """Return what a run needs over what there is, by the number of GPUs; the largest of each row is bold."""
    run, size = runs()[0], picture_bytes(assumed)
    engine = next(row for row in read("h200-int8-bench-b128.json")["rows"]
                  if (row["case"], row["precision"]) == ("engine", "fp16"))["images_per_second"]  # fmt: skip
    rows = []
    for gpus in GPUS:
        rate = gpus * run.rate
        machine = min(gpus, assumed.gpus_a_machine) * run.rate
        needs = [
            engine / run.rate,
            machine * size * 8 / 1e9 / assumed.network_gbit,
            rate / assumed.gets,
            rate / assumed.block / assumed.puts,
            rate * 3600 * assumed.listed_bytes / 1e9 / assumed.memory_gb,
        ]
        texts = [f"**{need:,.2f}**" if need == max(needs) else f"{need:,.2f}" for need in needs]
        rows.append([f"{gpus:,}", f"{rate:,.0f}", f"{assumed.pictures / rate / 3600:,.2f} h", *texts])
    head = (
        "GPUs | images/s, if all scale | a billion take | engine alone | network of a machine | GETs of a prefix | "
        "PUTs of a folder | list of an hour's run"
    )
    return table(head, rows)


def service_model(replicas: int) -> Model:
    """Return the measured service, whose GPU decodes, with so many replicas that share it and 16 cores."""
    engine = {row["batch_size"]: row["median_ms"] for row in read("h200-range-default.json")["rows"]
              if row["case"] == "engine"}  # fmt: skip
    # With decoding of boxes, NMS and the way back.
    engine[32] = read("h200-pictures.json")["gpu_to_host"]["ms"]["median"]
    return replace(calibrated_on_gpu(read("h200-service.json"), engine), replicas=replicas)


@cache
def service(_: Assumed) -> str:
    """Return what the simulation says of replicas that share a GPU."""
    rows = []
    for replicas in (1, config.SERVE_TOGETHER):
        for rate in RATES:
            found = Simulation(service_model(replicas), rate=rate).run(SECONDS)
            rows.append([
                str(replicas), f"{rate:,}", f"{found['pictures_per_second']:,.0f}", f"{found['mean_batch']:.1f}",
                f"{found['p50_ms']:,.0f} ms", f"{found['p99_ms']:,.0f} ms", f"{100 * found['share_503']:.0f} %",
            ])  # fmt: skip
    return table("Replicas | pictures that come a second | answered a second | mean batch | p50 | p99 | 503", rows)


TABLES = {"fleet": fleet, "data": data, "limits": limits, "service": service}


def written(text: str, assumed: Assumed) -> str:
    """Return a page with today's tables."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]](assumed)}\n{found[3]}", text)


def main(arguments: list[str] | None = None) -> int:
    """Write the tables into the page, or with --check only compare; print them where something else is assumed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    for name, default in vars(Assumed()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args(arguments))
    check = options.pop("check")
    assumed = Assumed(**options)
    if assumed != Assumed():
        print("\n\n".join(make(assumed) for name, make in TABLES.items() if name != "service"))
        return 0
    text = PAGE.read_text(encoding="utf-8")
    wanted = written(text, assumed)
    if check:
        return int(wanted != text)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

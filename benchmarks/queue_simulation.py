#!/usr/bin/env python3
"""Simulate the service's queue, event by event, and compare what it predicts with what was measured.

    python benchmarks/queue_simulation.py --clients 200 --batch-ms 1:0.5 --batch-ms 32:3.3 --decode-ms 4 --threads 4 --replicas 4
    python benchmarks/queue_simulation.py --rate 500 ...
    python benchmarks/queue_simulation.py --check benchmarks/reports/cpu-service.json --json FILE
    python benchmarks/queue_simulation.py --check GPU-REPORT --forms REPORT --batch-ms 1:0.5 --batch-ms 32:3.3 --json FILE

What is simulated, and what is not, stands in service_queue.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from service_queue import Model, Simulation

from ssdtrt import config

LINE = (1, 2, 3, 5, 8, 12, 20, 30, 50)  # clients that --check simulates
NAMES = ("pictures_per_second", "p50_ms", "p90_ms", "p99_ms")


def calibrated(report: dict[str, Any]) -> Model:
    """Return the model of a service on a CPU from the row of a single client, and what service.py --costs measured.

    What a replica's threads compute for a picture is in the row (`replica_ms`). What is left of the client's time is no
    computing. Larger batches take as many times what that client's do as they do alone.

    Args:
        report: What service.py wrote.
    """
    (row,) = [row for row in report["rows"] if row["clients"] == 1]
    service, costs = report["service"], report["costs"]
    delay = service["options"]["queue_delay"] / 1e3 if service["batch_size"] > 1 else 0.0
    request, batch, decode = (row["replica_ms"][step] for step in ("request", "batch", "decode"))
    outside = outside_ms(row)
    return Model(
        {int(size): batch * time / costs["batch_ms"]["1"] for size, time in costs["batch_ms"].items()},
        on_cpu=True,
        batch_locked=costs["batch_locked"]["1"],
        decode_ms=decode,
        decode_locked=costs["decode_locked"],
        threads=min(report["machine"]["cores"], config.MAX_WORKERS),
        request_ms=request,
        outside_ms=outside,
        overhead_ms=max(row["p50_ms"] - delay - request - outside - decode - batch, 0.0),
        queue_delay_ms=delay,
        max_queue=service["options"]["max_queue"],
        replicas=service["replicas"],
        ongoing=config.SERVE_ONGOING["cpu"],
        cores=report["machine"]["cores"],
        others=row["cores"]["rest"] + row["cores"]["others"],
        spread=spread(row, delay),
    )


def calibrated_on_gpu(report: dict[str, Any], batch_ms: dict[int, float]) -> Model:
    """Return the model of a service whose GPU decodes, from the rows of a single client and of the most clients.

    The most clients never leave a replica's interpreter alone, so a request has it for as long as a replica takes for one. What is
    left of the single client's time beside that and a batch is no computing: it has the decoding on the GPU in it.

    Args:
        report: What service.py wrote.
        batch_ms: The engine's milliseconds by size.
    """
    rows, service = {row["clients"]: row for row in report["rows"]}, report["service"]
    one, most = rows[1], rows[max(rows)]
    delay, outside = service["options"]["queue_delay"] / 1e3, outside_ms(one)
    request = 1e3 * service["replicas"] / most["pictures_per_second"]
    return Model(
        batch_ms,
        request_ms=request,
        outside_ms=outside,
        overhead_ms=max(one["p50_ms"] - delay - request - outside - batch_ms[min(batch_ms)], 0.0),
        queue_delay_ms=delay,
        max_queue=service["options"]["max_queue"],
        replicas=service["replicas"],
        cores=report["machine"]["cores"],
        spread=spread(one, delay),
    )


def outside_ms(row: dict[str, Any]) -> float:
    """Return what HAProxy and the clients compute for a picture."""
    computed: float = row["cores"]["haproxy"] + row["cores"]["clients"]
    return 1e3 * computed / row["pictures_per_second"]


def spread(row: dict[str, Any], delay: float) -> tuple[float, ...]:
    """Return how requests vary, as those of a single client do.

    The fastest one is not recorded, and taken to be as far below the median as a tenth is above; what is above p99 is left out,
    because these are the first requests, in which torch warms up.
    """
    shares = {0.0: 2 * row["p50_ms"] - row["p90_ms"], 0.5: row["p50_ms"], 0.9: row["p90_ms"], 0.99: row["p99_ms"]}
    work = (np.array(list(shares.values())) - delay) / (row["p50_ms"] - delay)
    factors: list[float] = np.interp(np.linspace(0, 0.99, 100), list(shares), work).round(4).tolist()
    return tuple(factors)


def check(report: dict[str, Any], model: Model, seconds: float, seed: int) -> dict[str, Any]:
    """Return what the calibrated model predicts for each number of clients, and beside it what was measured."""
    measured = {row["clients"]: row for row in report["rows"]}
    line = [Simulation(model, clients=clients, seed=seed).run(seconds) for clients in sorted({*LINE, *measured})]
    compared = [beside(found, measured[found["clients"]]) for found in line if found["clients"] in measured]
    known = {name: value for name, value in asdict(model).items() if name != "spread"}
    rows = "the row of 1 client" if model.on_cpu else f"the rows of 1 and {max(measured)} clients"
    return {"calibrated_on": rows, "seconds": seconds, "seed": seed, "model": known, "line": line, "compared": compared}


def check_forms(
    runs: Sequence[dict[str, Any]], model: Model, decode: str, seconds: float, seed: int
) -> list[dict[str, Any]]:
    """Return what the model predicts for other numbers of replicas that decode in the same place, beside what was measured."""
    found = []
    for run in runs:
        if run["service"]["decode"] == decode:
            replicas = run["service"]["replicas"]
            changed = replace(model, replicas=replicas)
            for row in run["rows"]:
                simulated = Simulation(changed, clients=row["clients"], seed=seed).run(seconds)
                found.append({"replicas": replicas, **beside(simulated, row)})
    return found


def beside(simulated: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Return what was simulated beside what was measured."""
    return {
        "clients": row["clients"],
        "measured": {name: row[name] for name in NAMES},
        "simulated": {name: simulated[name] for name in NAMES},
        "simulated_over_measured": {name: round(simulated[name] / row[name], 3) for name in NAMES},
    }


def times_by_size(texts: Sequence[str]) -> dict[int, float]:
    """Return the milliseconds by size of texts such as `32:3.3`."""
    return {int(size): float(time) for size, _, time in (text.partition(":") for text in texts)}


def checked(options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return what --check finds."""
    report, sizes = json.loads(Path(options.check).read_text(encoding="utf-8")), times_by_size(options.batch_ms)
    if bool(sizes) != (report["service"]["device"] != "cpu"):
        parser.error("Give --batch-ms with --check for the report of a GPU, and only there.")
    model = calibrated_on_gpu(report, sizes) if sizes else calibrated(report)
    found = {"report": Path(options.check).name, **check(report, model, options.seconds, options.seed)}
    if options.forms:
        runs = json.loads(Path(options.forms).read_text(encoding="utf-8"))["runs"]
        found["compared"] += check_forms(runs, model, report["service"]["decode"], options.seconds, options.seed)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Simulate, and print or write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check",
        metavar="REPORT",
        help="what service.py wrote, on a CPU with --bad 0 --costs: predict its rows from that of one client; "
        "where a GPU decoded, with --batch-ms, from those of one and of the most",
    )
    parser.add_argument("--forms", metavar="REPORT", help="more runs on that GPU, of other numbers of replicas")
    parser.add_argument("--clients", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, help="pictures a second")
    parser.add_argument("--batch-ms", action="append", default=[], metavar="SIZE:MS")
    simple = [one.name for one in fields(Model) if isinstance(one.default, (int, float)) and one.name != "on_cpu"]
    for name in simple:
        default = getattr(Model, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--seconds", type=float, default=300.0, help="that are simulated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    if options.check:
        found = checked(options, parser)
    elif options.batch_ms and not options.forms and bool(options.clients) != bool(options.rate):
        model = Model(times_by_size(options.batch_ms), **{name: getattr(options, name) for name in simple})
        found = Simulation(model, clients=options.clients, rate=options.rate, seed=options.seed).run(options.seconds)
    else:
        parser.error("Give --check, also with --forms, or --batch-ms and either --clients or --rate.")
    for row in found.get("compared", [found]):
        print(json.dumps(row))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

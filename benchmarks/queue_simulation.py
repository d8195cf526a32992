#!/usr/bin/env python3
"""Simulate the service's queue, event by event, and compare what it predicts with what was measured.

    python benchmarks/queue_simulation.py --clients 200 --batch-ms 1:0.5 --batch-ms 32:3.3 --decode-ms 5 --threads 16
    python benchmarks/queue_simulation.py --rate 500 ...
    python benchmarks/queue_simulation.py --check benchmarks/reports/cpu-service.json --json FILE

What is simulated, and what is not, stands in service_queue.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from service_queue import Model, Simulation

from ssdtrt import config

LINE = (1, 2, 3, 5, 8, 12, 20, 30, 50)  # clients that --check simulates


def calibrated(report: dict[str, Any], decode_ms: float) -> dict[str, Model]:
    """Return models of a recorded service from its row of a single client, and its engine's times where it has them.

    What is left of that client's time is in one process, one request at a time (`serial`), or anywhere, beside any number
    of others (`parallel`): a single client does not show which. The fastest request is not recorded; it is taken to be as
    far below the median as a tenth is above. What is above p99 is left out: the first requests, in which torch warms up.

    Args:
        report: What service.py wrote.
        decode_ms: The time to decode and resize a picture.
    """
    (row,) = [row for row in report["rows"] if row["clients"] == 1]
    service = report["service"]
    delay = service["options"]["queue_delay"] / 1e3 if service["batch_size"] > 1 else 0.0
    engine = [case for case in report.get("bench", ()) if case["case"] == "engine"]
    sizes = {case["batch_size"]: case["median_ms"] for case in engine} or {1: 0.0, service["batch_size"]: 0.0}
    rest = row["p50_ms"] - delay - decode_ms - min(sizes.values())
    shares = {0.0: 2 * row["p50_ms"] - row["p90_ms"], 0.5: row["p50_ms"], 0.9: row["p90_ms"], 0.99: row["p99_ms"]}
    work = (np.array(list(shares.values())) - delay) / (row["p50_ms"] - delay)
    model = Model(
        sizes,
        decode_ms=decode_ms,
        threads=min(report["machine"]["cores"], config.MAX_WORKERS),
        queue_delay_ms=delay,
        max_queue=service["options"]["max_queue"],
        replicas=service["replicas"],
        ongoing=config.SERVE_ONGOING[service["device"].partition(":")[0]],
        spread=tuple(np.interp(np.linspace(0, 0.99, 100), list(shares), work).round(4).tolist()),
    )
    return {"serial": replace(model, proxy_ms=rest), "parallel": replace(model, overhead_ms=rest)}


def check(report: dict[str, Any], decode_ms: float, seconds: float, seed: int) -> dict[str, Any]:
    """Return what the calibrated models predict for each number of clients, and beside it what was measured."""
    measured = {row["clients"]: row for row in report["rows"]}
    models = calibrated(report, decode_ms)
    found: dict[str, Any] = {"calibrated_on": "the row of 1 client", "seconds": seconds, "seed": seed, "models": {}}
    for name, model in models.items():
        found["models"][name] = {key: value for key, value in asdict(model).items() if key != "spread"}
    names = ("pictures_per_second", "p50_ms", "p90_ms", "p99_ms")
    found["lines"] = {
        name: [Simulation(model, clients=clients, seed=seed).run(seconds) for clients in sorted({*LINE, *measured})]
        for name, model in models.items()
    }
    found["compared"] = [
        {
            "clients": clients,
            "measured": {key: row[key] for key in names},
            **{way: {key: one[key] for key in names} for way, line in found["lines"].items()
               for one in line if one["clients"] == clients},
        }
        for clients, row in sorted(measured.items())
    ]  # fmt: skip
    for row in found["compared"]:
        row["serial_p99_over_measured"] = round(row["serial"]["p99_ms"] / row["measured"]["p99_ms"], 3)
    return found


def times_by_size(texts: Sequence[str]) -> dict[int, float]:
    """Return the milliseconds by size of texts such as `32:3.3`."""
    return {int(size): float(time) for size, _, time in (text.partition(":") for text in texts)}


def main(arguments: list[str] | None = None) -> None:
    """Simulate, and print or write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="REPORT", help="what service.py wrote: predict its rows from its first one")
    parser.add_argument("--clients", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, help="pictures a second")
    parser.add_argument("--batch-ms", action="append", default=[], metavar="SIZE:MS")
    parser.add_argument("--decode-ms", type=float, default=5.1, help="of docs/performance.md, on one core of two")
    for name in ("proxy_ms", "overhead_ms", "queue_delay_ms", "threads", "max_queue", "replicas"):
        default = getattr(Model, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--seconds", type=float, default=300.0, help="that are simulated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    if options.check:
        report = json.loads(Path(options.check).read_text(encoding="utf-8"))
        found = {
            "report": Path(options.check).name,
            **check(report, options.decode_ms, options.seconds, options.seed),
        }
    elif options.batch_ms and bool(options.clients) != bool(options.rate):
        names = ("decode_ms", "threads", "proxy_ms", "overhead_ms", "queue_delay_ms", "max_queue", "replicas")
        model = Model(times_by_size(options.batch_ms), **{name: getattr(options, name) for name in names})
        found = Simulation(model, clients=options.clients, rate=options.rate, seed=options.seed).run(options.seconds)
    else:
        parser.error("Give --check, or --batch-ms and either --clients or --rate.")
    for row in found.get("compared", [found]):
        print(json.dumps(row))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

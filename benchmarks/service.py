"""Measure the service under load, and account for every request: answered or 503, none mixed up, none too late.

    python benchmarks/service.py ENGINE --json FILE [--clients 20 --clients 200] [--seconds 60] [--bad 0.05]

The script starts `ssdtrt serve ENGINE` itself, and ends it with SIGTERM. The pictures are seeded parts of the sample
photographs, 640x480, whose answers `ssdtrt detect` gives, with JPEGs decoded where the service does it. Each client sends
one after the other; one in so many requests is a bad upload, of which the slow ones go on beside the next. The memory is that of the server's
processes and of the GPUs, once a second; `cores` says how many cores its processes, the clients and others kept busy, and
`replica_ms` how long a replica's threads computed for an answer, where every request is one (--bad 0). With --costs each step of a
replica is measured alone, too, before the service starts. The report is written after each number of clients.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from files import write_files
from service_load import Account, Known, Load, read_answers
from service_process import SSDTRT, Server


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine")
    parser.add_argument("--clients", type=int, action="append", help="several times for several concurrencies")
    parser.add_argument(
        "--seconds",
        type=float,
        action="append",
        help="for each concurrency, the last one for all that follow (default 60)",
    )
    parser.add_argument("--bad", type=float, default=0.05, help="the share of bad uploads")
    parser.add_argument("--pictures", type=int, default=200, help="different ones")
    parser.add_argument("--processes", type=int, help="that the clients are in; by default one for 10 clients")
    parser.add_argument("--serve", default="", help="more options of ssdtrt serve, such as '--replicas 2'")
    parser.add_argument("--bench", action="store_true", help="measure the engine alone, too")
    parser.add_argument("--costs", action="store_true", help="measure decoding and batches alone, too")
    parser.add_argument("--json", required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the report."""
    options = parse(arguments)
    clients, seconds = options.clients or [20], options.seconds or [60.0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "pictures")
        folder.mkdir()
        write_files(folder, options.pictures, options.pictures, 0)
        report: dict[str, Any] = {"engine": os.path.basename(options.engine), "bad": options.bad}
        if options.costs:
            report["costs"] = costs(options.engine, folder / "links")
        with Server(options.engine, Path(temporary), *options.serve.split()) as server:
            names = ("precision", "device", "batch_size", "decode", "replicas", "options")
            service = {name: server.report["service"][name] for name in names}
            report |= {"service": service, "machine": machine(service["device"]), "rows": []}
            pictures = known_answers(options.engine, folder / "links", Path(temporary), service["decode"])
            for number, long in zip(clients, seconds + seconds[-1:] * len(clients)):
                report["rows"].append(row(server, pictures, number, long, options))
                write(report, options.json)
        report["exit_code"] = server.exit_code
        write(report, options.json)
        if options.bench:
            report["bench"] = bench(options.engine, Path(temporary, "bench.json"))
            write(report, options.json)


def row(
    server: Server, pictures: list[Known], clients: int, seconds: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Measure with so many clients, print what came of it, and return it."""
    server.memory.clear()
    server.gpu_memory.clear()
    before, threads, started = computed(server), server.replica_threads(), time.monotonic()
    account = load_in_processes(server, pictures, clients, seconds, options)
    passed, after = time.monotonic() - started, computed(server)
    found = summary(account, clients, seconds)
    found["cores"] = {kind: round((after[kind] - before[kind]) / passed, 3) for kind in after}
    if not options.bad and account.latencies:
        answers = len(account.latencies)
        found["replica_ms"] = {
            kind: round(1e3 * seconds / answers, 3)
            for kind, seconds in by_step(threads, server.replica_threads()).items()
        }
    memory = {"memory_mib": list(server.memory), "gpu_memory_mib": list(server.gpu_memory)}
    memory = {name: values for name, values in memory.items() if values}
    ends = {name: [min(values), max(values)] for name, values in memory.items()}
    print(json.dumps({**found, **ends}), flush=True)
    return {**found, **memory}


def computed(server: Server) -> dict[str, float]:
    """The seconds that cores have computed: for the service, by kind, for clients that have ended, and for others."""
    found = server.computed()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["clients"] = ended.ru_utime + ended.ru_stime
    found["others"] = found.pop("machine") - sum(found.values())
    return found


def by_step(before: list[list[float]], after: list[list[float]]) -> dict[str, float]:
    """The seconds that replicas have computed, by what each thread does: they start in this order, and others do next to nothing."""
    found = dict.fromkeys(("request", "batch", "decode"), 0.0)
    for old, new in zip(before, after):
        passed = [seconds - (old[number] if number < len(old) else 0.0) for number, seconds in enumerate(new)]
        worked = [seconds for seconds in passed if seconds > 0.02 * sum(passed)]
        if len(worked) < 2:  # No request came to this one.
            continue
        request, batch, *decode = worked
        found["request"] += request
        found["batch"] += batch
        found["decode"] += sum(decode)
    return found


def costs(engine: str, folder: Path) -> dict[str, Any]:
    """What service_costs.py writes of a file and a folder of pictures."""
    words = [sys.executable, str(Path(__file__).with_name("service_costs.py")), engine, str(folder)]
    found: dict[str, Any] = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    return found


def write(report: dict[str, Any], path: str) -> None:
    """Write the report as it is by now."""
    Path(path).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def machine(device: str) -> dict[str, Any]:
    """This machine, and the versions that count here."""
    from importlib.metadata import version

    from ssdtrt.system.versions import measured_on

    return {**measured_on(device).as_dict(), "ray": version("ray")}


def bench(engine: str, path: Path) -> list[dict[str, Any]]:
    """The engine alone, as `ssdtrt bench` measures it: its batch size, milliseconds and images a second."""
    subprocess.run([*SSDTRT, "bench", engine, "--json", str(path)], check=True, stdout=subprocess.DEVNULL)
    rows = json.loads(path.read_text())["rows"]
    return [{name: row[name] for name in ("case", "batch_size", "median_ms", "images_per_second")} for row in rows]


def known_answers(engine: str, folder: Path, temporary: Path, decode: str) -> list[Known]:
    """What `ssdtrt detect` says of each picture of a folder, decoded where the service does it."""
    lines = temporary / "answers.jsonl"
    words = [*SSDTRT, "-q", "detect", engine, str(folder), "--decode", decode, "--jsonl", str(lines)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return read_answers(lines.read_text())


def load_in_processes(
    server: Server, pictures: list[Known], clients: int, seconds: float, options: argparse.Namespace
) -> Account:
    """The account of clients that are spread over processes."""
    processes = min(options.processes or -(-clients // 10), clients)
    timeout = server.report["service"]["options"]["timeout"]
    shares = [clients // processes + (n < clients % processes) for n in range(processes)]
    loads = [
        Load(server.url, pictures, share, seconds, options.bad, timeout, seed=1000 * n)
        for n, share in enumerate(shares)
    ]
    whole = Account()
    with ProcessPoolExecutor(processes) as pool:
        for account in pool.map(Load.run, loads):
            whole.add(account)
    return whole


def summary(account: Account, clients: int, seconds: float) -> dict[str, Any]:
    """An account as JSON types."""
    times = sorted(account.latencies)
    at = {name: round(1e3 * times[min(int(share * len(times)), len(times) - 1)], 2) if times else None
          for name, share in {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}.items()}  # fmt: skip
    return {
        "clients": clients, "seconds": seconds, "pictures_per_second": round(len(times) / seconds, 2), **at,
        "statuses": dict(account.statuses), "answers": dict(account.answers),
        "bad": {kind: dict(found) for kind, found in account.bad.items()}, "late": account.late,
        "clients_busy": round(account.busy, 3), "lost": len(account.lost), "unexpected": account.unexpected(),
    }  # fmt: skip


if __name__ == "__main__":
    main()

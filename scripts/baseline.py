#!/usr/bin/env python3
"""Print the path of the baseline that a benchmark is compared with: python scripts/baseline.py REPORT [--record]

Baselines lie in benchmarks/baselines, one for each GPU (or processor and number of cores) and set of versions. REPORT is
what `ssdtrt bench --json` wrote. Where there is no baseline for it, the exit code is 1, and the message names the command
that records one. With --record REPORT becomes the baseline.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from ssdtrt.benchmarking import report_file
from ssdtrt.benchmarking.report import BenchReport
from ssdtrt.errors import SsdtrtError

FOLDER = Path(__file__).parent.parent / "benchmarks" / "baselines"


def name_of(report: BenchReport) -> str:
    """Return the baseline's file name: what must agree for figures to be comparable."""
    machine, versions = report.machine, report.machine.versions
    if machine.gpu:
        names = ("torch", "torch_tensorrt", "tensorrt")
        known = [(name.replace("_", "-"), getattr(versions, name)) for name in names]
        parts = [machine.gpu, *(f"{name}-{version}" for name, version in known if version)]
    else:
        parts = [str(machine.cpu), f"{machine.cores}-cores", f"torch-{versions.torch}"]
    return "_".join(re.sub(r"[^a-z0-9.+]+", "-", part.lower()).strip("-") for part in parts) + ".json"


def choose(report: str | Path, folder: str | Path = FOLDER, record: bool = False) -> Path:
    """Return the path of the baseline for the report saved at `report`, which becomes that baseline with `record`.

    Raises:
        SsdtrtError: Where there is none.
    """
    path = Path(folder) / name_of(report_file.read(report))
    if record:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report, path)
    if not path.is_file():
        raise SsdtrtError(
            f"There is no baseline for this machine and these versions; expected {path}. "
            "Record one here and commit it: make bench-baseline"
        )
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report")
    parser.add_argument("--folder", default=FOLDER)
    parser.add_argument("--record", action="store_true", help="make the report the baseline")
    arguments = parser.parse_args()
    try:
        print(choose(arguments.report, arguments.folder, arguments.record))
    except (SsdtrtError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

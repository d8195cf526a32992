#!/usr/bin/env python3
"""Names the baseline that a benchmark's report is held against: python scripts/baseline.py REPORT [--record]

Baselines lie in benchmarks/baselines, one for each GPU (or processor and number of cores) and set of versions. Prints
the path of the one for REPORT, which `ssdtrt bench --json` wrote; where there is none, says how to record one and ends
with 1. With --record REPORT becomes that baseline.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

from ssdtrt.benchmarking import report_file
from ssdtrt.errors import SsdtrtError

FOLDER = Path(__file__).parent.parent / "benchmarks" / "baselines"


def name_of(record):
    """The baseline's file name: what must agree for figures to be comparable."""
    machine, versions = record.machine, record.machine["versions"]
    if machine["gpu"]:
        names = ("torch", "torch_tensorrt", "tensorrt")
        parts = [machine["gpu"], *(f"{name.replace('_', '-')}-{versions[name]}" for name in names if versions[name])]
    else:
        parts = [machine["cpu"], f"{machine['cores']}-cores", f"torch-{versions['torch']}"]
    return "_".join(re.sub(r"[^a-z0-9.+]+", "-", part.lower()).strip("-") for part in parts) + ".json"


def choose(report, folder=FOLDER, record=False):
    """The path of the baseline for the report saved at `report`. Raises SsdtrtError where there is none."""
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


def main():
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

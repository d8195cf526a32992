#!/usr/bin/env python3
"""Packs weights that train_scenes.py trained into the package: python benchmarks/pack_scenes.py DIR

DIR is where train_scenes.py wrote: scenes.pt, labels.txt, training.json, and the validation pictures in val/. The packed
weights (see ssdtrt/formats/packed_weights.py) are evaluated on these, and come into the package with their figures, unless
their file is too large or their AP too low. `--report FILE` keeps the whole evaluation. `--samples DIR` writes the sample
scenes anew: as many each time, of a seed that neither the training nor the validation pictures have.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import scenes
from msgspec.structs import replace

from ssdtrt import config
from ssdtrt.errors import SsdtrtError
from ssdtrt.evaluate import evaluate_file
from ssdtrt.export import export_module
from ssdtrt.formats.packed_weights import PackedRecord, write_packed
from ssdtrt.model.labels import read_labels
from ssdtrt.model.weights import build_model
from ssdtrt.system.files import write_text

MAX_BYTES = 12_000_000
MIN_AP = 0.70
RECORDED = ("settings", "seconds", "steps", "losses", "machine")  # of training.json
SAMPLES, SAMPLES_SEED, SAMPLES_SCALE, SAMPLES_QUALITY = 12, 1, 0.6, 70


def pack(folder: Path, out: Path, device: str | None, report: Path | None) -> PackedRecord:
    """Packs the weights of `folder`, evaluates them, writes them to `out` with their figures, and returns these."""
    model = build_model(folder / "scenes.pt", labels=read_labels(folder / "labels.txt"), trust=True)
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    training = {name: training[name] for name in RECORDED if name in training}
    record = PackedRecord(model.labels, model.source.sha256, training)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as place:
        packed = Path(place) / "scenes.npz"
        write_packed(packed, state, record)
        size = packed.stat().st_size
        if size > MAX_BYTES:
            raise SsdtrtError(f"{size:,} bytes; expected {MAX_BYTES:,} or less: train with a higher --sparsity.")
        module = export_module(build_model(packed), packed.with_suffix(".ts"))
        found = evaluate_file(
            module, folder / "val" / "images", folder / "val" / "annotations.json", device=device, progress=say
        )
    if report is not None:
        write_text(report, json.dumps(found.document(), indent=1) + "\n")
    if found.figures["AP"] < MIN_AP:
        raise SsdtrtError(f"AP {found.figures['AP']:.4f} on {found.images} pictures; expected {MIN_AP} or more.")
    figures = {name: round(value, 4) for name, value in found.figures.items() if value is not None}
    digest = found.settings.annotations_sha256
    record = replace(record, figures=figures, images=found.images, annotations_sha256=digest)
    write_packed(out, state, record)
    return record


def say(text: str) -> None:
    """A line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """The sample scenes, or the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="the --out of train_scenes.py")
    parser.add_argument("-o", "--out", type=Path, default=config.SCENES_WEIGHTS, help="default %(default)s")
    parser.add_argument("--report", type=Path, help="a file for the evaluation, as ssdtrt evaluate --json writes it")
    parser.add_argument("--device", help="cuda, cuda:N or cpu (default: a GPU where there is one)")
    parser.add_argument("--samples", type=Path, help="write the sample scenes into this folder")
    args = parser.parse_args(arguments)
    if args.folder is None and args.samples is None:
        parser.error("give the folder of train_scenes.py, or --samples")
    if args.samples is not None:
        scenes.write_val(args.samples, SAMPLES, SAMPLES_SEED, scale=SAMPLES_SCALE, quality=SAMPLES_QUALITY)
    if args.folder is not None:
        record = pack(args.folder, args.out, args.device, args.report)
        print(f"{args.out}: {args.out.stat().st_size:,} bytes, AP {record.figures['AP']:.4f} on {record.images}")


if __name__ == "__main__":
    try:
        main()
    except SsdtrtError as error:
        sys.exit(f"Error: {error}")

"""The command detect on a Ray cluster: its options for that, what it refuses, and what it shows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ssdtrt import config
from ssdtrt.commands.options import check_apart, check_json, end_with, show, terminal
from ssdtrt.commands.parameters.folders import check_folder_name
from ssdtrt.commands.text.tables import fill
from ssdtrt.system.report import counted

if TYPE_CHECKING:
    from ssdtrt.clusters.records import BatchReport

_ELSEWHERE = {
    "jsonl": "--jsonl", "coco": "--coco", "annotations": "--annotations", "save_crops": "--save-crops",
    "show_labels": "--no-labels", "side_by_side": "--side-by-side", "module": "--module",
    "workers": "--workers", "timing": "--timing", "every": "--every", "video": "--video",
}  # fmt: skip


def ray_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for a Ray cluster to `detect`, and do it there where one is given; else the command is called."""

    @click.option(
        "--ray",
        metavar="ADDRESS",
        help="Detect on a Ray cluster, HOST:PORT, auto or local (started here), into Parquet files in DIR.",
    )
    @click.option(
        "--actors",
        type=click.IntRange(min=1),
        metavar="N",
        help="With --ray: how many engines run.  [default: one a GPU]",
    )
    @click.option(
        "--block-size",
        type=click.IntRange(1, config.MAX_RAY_BLOCK),
        metavar="N",
        help=f"With --ray: pictures of a Parquet file.  [default: {config.RAY_BLOCK}]",
    )
    @functools.wraps(command)
    def with_ray(*, ray: str | None, actors: int | None, block_size: int | None, **options: Any) -> Any:
        if ray is not None:
            return _detect_on_cluster(ray, actors, block_size or config.RAY_BLOCK, **options)
        if actors or block_size:
            raise click.UsageError(f"{'--actors' if actors else '--block-size'} is for --ray.")
        return command(**options)

    return with_ray


def _detect_on_cluster(
    address: str, actors: int | None, block_size: int, *, file: str, images: Sequence[str], output: str | None,
    threshold: float, max_detections: int, classes: Sequence[str] | None, nms_iou: float, decode: str,
    reading: dict[str, Any], device: Any, sha256: str | None, json_file: str | None, **others: Any
) -> None:  # fmt: skip
    """Do what `detect` does, on a cluster."""
    _check_usage(images, output, device, others)
    assert output is not None
    check_apart({"-o": output, "--json": json_file}, [file, f"{file}.sha256"])
    check_json(json_file)
    from ssdtrt.artifact.metadata import read_metadata
    from ssdtrt.clusters.batch import ClusterOptions, detect_on_cluster
    from ssdtrt.clusters.records import BatchSettings
    from ssdtrt.detection.settings import class_numbers

    timeout = reading.pop("timeout")
    settings = BatchSettings(
        threshold=threshold,
        max_detections=max_detections,
        classes=class_numbers(classes, read_metadata(file).model.labels),
        nms_iou=nms_iou,
        decode=decode,
        **reading,
    )
    options = ClusterOptions(
        address=address, actors=actors, block_size=block_size, device=device and str(device), timeout=timeout
    )
    report = detect_on_cluster(
        file, images, output, options, settings, sha256=sha256, progress=terminal.progress, note=terminal.note
    )
    show(report, json_file, _text)
    unread = counted(report.errors, "picture")
    end_with([f"{unread} could not be read; the column `error` says why, first: {report.first_error}"]
             if report.errors else [])  # fmt: skip


def _check_usage(images: Sequence[str], output: str | None, device: Any, others: Mapping[str, Any]) -> None:
    from ssdtrt.video.sources import is_video

    if output is None:
        raise click.UsageError("--ray writes Parquet files into a folder: give -o.")
    check_folder_name(output)
    given = {**others, **dict.fromkeys(others["saving"], True)}
    for name, option in _ELSEWHERE.items():
        if given.get(name):
            raise click.UsageError(f"{option} is not for --ray.")
    if videos := [one for one in images if is_video(one)]:
        raise click.UsageError(f"{videos[0]} is a video; --ray is for pictures.")
    if device is not None and ":" in str(device):
        raise click.UsageError(f"--device {device} names one GPU; give cuda or cpu with --ray, or leave it out.")


def _text(report: BatchReport, width: int) -> str:
    """Return what the folder has, and how fast it came there."""
    there = f", {report.blocks_before:,} of them there before" if report.blocks_before else ""
    found = counted(report.detections, "object")
    lines = [
        f"{report.folder}: {counted(report.pictures, 'picture')} in {counted(report.blocks, 'Parquet file')}{there}; {found}"
    ]
    if report.actors:
        on = f"{counted(report.actors, 'actor')} on {counted(report.nodes, 'machine')} ({report.device})"
        lines.append(f"{report.images_per_second:,.1f} images/s with {on}, from the first start of an engine on")
    return "\n".join(fill(line, width) for line in lines)

"""Detect in many pictures on a Ray cluster, and go on where an earlier run ended. No torch on the driver."""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import msgspec

from ssdtrt import config
from ssdtrt.artifact.metadata import Metadata, check_file
from ssdtrt.clusters.actor import ActorJob
from ssdtrt.clusters.listing import list_pictures
from ssdtrt.clusters.nodes import NodeQuestion, check_nodes, choose_device, list_nodes
from ssdtrt.clusters.plan import Plan, make_manifest, make_plan, write_manifest
from ssdtrt.clusters.records import BatchReport, BatchSettings, BlockDone
from ssdtrt.clusters.session import LOCAL, check_installed, connected
from ssdtrt.clusters.storage import Folder
from ssdtrt.clusters.stream import Spread, computed_blocks
from ssdtrt.detection.settings import check_settings
from ssdtrt.errors import SsdtrtError
from ssdtrt.reading.addresses import AddressRules
from ssdtrt.reading.reader_process import ReaderSettings
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.progress import Progress, ProgressBar, silent
from ssdtrt.system.report import Report, counted
from ssdtrt.system.versions import available_cores


class ClusterOptions(Report, frozen=True, kw_only=True):
    """How the work is spread.

    Attributes:
        address: `local` for a cluster of this machine alone, otherwise what `ray.init` takes.
        actors: How many engines run; by default one for each GPU, or for each CPU that is not kept for reading.
        block_size: How many pictures a Parquet file has.
        device: `cuda` or `cpu`; by default what the file is for, and for a module GPUs where there are any.
        timeout: Seconds in which a picture that is fetched must be there.
    """

    address: str = LOCAL
    actors: int | None = None
    block_size: int = config.RAY_BLOCK
    device: str | None = None
    timeout: float = config.FETCH_SECONDS


def detect_on_cluster(
    file: str | Path,
    pictures: Iterable[str | Path],
    output: str | Path,
    options: ClusterOptions | None = None,
    settings: BatchSettings | None = None,
    *,
    sha256: str | None = None,
    progress: Progress = silent,
    note: Progress = silent,
    each: Callable[[BlockDone], None] | None = None,
) -> BatchReport:
    """Detect in pictures on a Ray cluster, into a folder of Parquet files.

    Blocks that are in the folder already are not computed again.

    Args:
        file: The engine, detector or module, at the same path on every machine.
        pictures: As for `list_pictures`.
        output: The folder for the Parquet files and the manifest, which all machines share, or an address of fsspec.
        options: How the work is spread.
        settings: What changes the rows.
        sha256: The SHA-256 that the file must have.
        progress: Called with a line about how far it is.
        note: Called with a line on what was left out of the list.
        each: Called with each block, once it is written.

    Raises:
        ArtifactError: For a file that a machine cannot run, and for a folder with results of another run.
        ImageError: Where there is no picture.
        SsdtrtError: Where Ray is missing, no cluster answers, or the work fails.
    """
    options, settings = options or ClusterOptions(), settings or BatchSettings()
    check_installed()
    check_settings(
        settings.threshold, settings.max_detections, None, settings.value_range, settings.max_pixels, settings.nms_iou,
        settings.max_bytes, options.timeout, settings.decode,
    )  # fmt: skip
    metadata = check_file(file, sha256=sha256)
    progress("listing")
    paths, folder = list_pictures(pictures, str(output), note), Folder(str(output))
    manifest = make_manifest(str(file), sha256_file(file), metadata.model.labels, settings, paths, options.block_size)
    plan = make_plan(manifest, folder)
    done, spread, seconds = dict(plan.done), None, 0.0
    if plan.missing:
        progress("starting Ray")
        with connected(options.address) as ray:
            spread = _spread(ray, plan, metadata, options)
            progress("asking the machines")
            spread = _asked(ray, spread, plan, folder)
            write_manifest(manifest, folder)
            progress(f"plan: {plan.line}; {spread.line}")
            reading = _reading(metadata, options, settings, spread.jpegs)
            job = _job(plan, folder, spread)
            bar = ProgressBar(progress, "detecting", manifest.pictures - sum(one.pictures for one in done.values()))
            started = time.perf_counter()
            for one in computed_blocks(ray, plan, paths, reading, job, spread):
                done[one.block] = one
                bar.add(one.pictures)
                if each is not None:
                    each(one)
            seconds = time.perf_counter() - started
    return _report(plan, done, metadata, folder, spread, seconds)


def _spread(ray: ModuleType, plan: Plan, metadata: Metadata, options: ClusterOptions) -> Spread:
    """Where the actors run, and how many."""
    nodes = list_nodes(ray)
    device = choose_device(metadata, options.device, nodes, plan.manifest.file)
    nodes = [node for node in nodes if (node.gpus if device == "cuda" else node.cpus)]
    local = options.address == LOCAL
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    most = gpus if device == "cuda" else cpus - 1  # One CPU reads.
    cores = available_cores() if local else cpus
    usual = gpus if device == "cuda" else max(1, cores - math.ceil(cores * config.RAY_READING))
    if (options.actors or 0) > most:
        raise SsdtrtError(
            f"{counted(options.actors or 0, 'actor')} are asked for; the cluster has room for {most}, one for each "
            f"{'GPU' if device == 'cuda' else 'CPU but one'}."
        )
    actors = min(options.actors or usual, len(plan.missing))
    return Spread(device=device, nodes=tuple(nodes), actors=actors, readers=available_cores() if local else None)


def _asked(ray: ModuleType, spread: Spread, plan: Plan, folder: Folder) -> Spread:
    """The same, after each machine has said that it can do the work."""
    manifest, token = plan.manifest, f".ssdtrt-{uuid.uuid4().hex}"
    folder.make()
    folder.write(token, b"")
    try:
        question = NodeQuestion(
            file=os.path.abspath(manifest.file), sha256=manifest.sha256, device=spread.device, folder=folder.place,
            token=token, decode=manifest.settings.decode,
        )  # fmt: skip
        return msgspec.structs.replace(spread, jpegs=check_nodes(ray, spread.nodes, question))
    finally:
        folder.remove(token)


def _reading(metadata: Metadata, options: ClusterOptions, settings: BatchSettings, jpegs: bool) -> ReaderSettings:
    return ReaderSettings(
        metadata.model.preprocess, True, False, settings.value_range, settings.max_pixels,
        AddressRules(settings.allow_private, settings.max_bytes, options.timeout), jpegs,
    )  # fmt: skip


def _job(plan: Plan, folder: Folder, spread: Spread) -> ActorJob:
    manifest = plan.manifest
    return ActorJob(
        file=os.path.abspath(manifest.file), sha256=manifest.sha256, device=spread.device, settings=manifest.settings,
        jpegs=spread.jpegs, base=os.getcwd(), folder=folder.place, run=plan.run,
        token=uuid.uuid4().hex,
    )  # fmt: skip


def _report(
    plan: Plan, done: dict[int, BlockDone], metadata: Metadata, folder: Folder, spread: Spread | None, seconds: float
) -> BatchReport:
    manifest, blocks = plan.manifest, [done[number] for number in sorted(done)]
    if len(blocks) != manifest.blocks:
        raise SsdtrtError(
            f"{counted(manifest.blocks - len(blocks), 'block')} of {manifest.blocks} were not computed. Run the same "
            "command again to go on."
        )
    new = sum(one.pictures for one in blocks if one.block not in plan.done)
    return BatchReport(
        file=manifest.file,
        precision=metadata.precision,
        folder=str(folder),
        pictures=sum(one.pictures for one in blocks),
        detections=sum(one.detections for one in blocks),
        errors=sum(one.errors for one in blocks),
        first_error=next((one.first_error for one in blocks if one.errors), ""),
        blocks=len(blocks),
        blocks_before=len(plan.done),
        nodes=len(spread.nodes) if spread else 0,
        actors=spread.actors if spread else 0,
        device=spread.device if spread else None,
        decoded_on=("gpu" if spread.jpegs else "cpu") if spread else None,
        seconds=seconds,
        images_per_second=new / seconds if seconds else 0.0,
    )

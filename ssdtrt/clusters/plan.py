"""What is to be done: the manifest of a folder, and which of its blocks are missing. No torch here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import msgspec

from ssdtrt import config
from ssdtrt.clusters.blocks import block_of, read_footer
from ssdtrt.clusters.records import BatchManifest, BatchSettings, BlockDone
from ssdtrt.clusters.storage import Folder
from ssdtrt.errors import ArtifactError
from ssdtrt.reading.reader_process import encode
from ssdtrt.system.digests import sha256_bytes
from ssdtrt.system.report import counted, differing

_COMPARED = {
    "sha256": "the SHA-256 of the engine", "pictures": "the number of pictures", "list_sha256": "the SHA-256 of the list",
    "block_size": "the block size",
}  # fmt: skip
_SETTINGS = {name: name.replace("_", " ") for name in BatchSettings.__struct_fields__}


@dataclass(frozen=True)
class Plan:
    """A run that is to be started, or continued.

    Attributes:
        manifest: The engine, the settings and the list.
        run: The SHA-256 of what the manifest says.
        done: The blocks that are written, by number.
    """

    manifest: BatchManifest
    run: str
    done: dict[int, BlockDone]

    @property
    def missing(self) -> list[int]:
        """The numbers of the blocks that are not there yet, in order."""
        return [block for block in range(self.manifest.blocks) if block not in self.done]

    @property
    def line(self) -> str:
        """The plan in a line."""
        manifest = self.manifest
        there = f", {counted(len(self.done), 'block')} of them there already" if self.done else ""
        return f"{counted(manifest.pictures, 'picture')} in {counted(manifest.blocks, 'block')}{there}"


def make_manifest(
    file: str, sha256: str, labels: Sequence[str], settings: BatchSettings, paths: Sequence[str], block_size: int
) -> BatchManifest:
    """Return the manifest of a run.

    Args:
        file: The engine.
        sha256: Its SHA-256.
        labels: The names of its classes.
        settings: The settings.
        paths: The list of pictures.
        block_size: How many of them a Parquet file has.
    """
    blocks = math.ceil(len(paths) / block_size)
    return BatchManifest(
        file=file, sha256=sha256, labels=tuple(labels), settings=settings, pictures=len(paths),
        list_sha256=_list_sha256(paths), block_size=block_size, blocks=blocks,
    )  # fmt: skip


def make_plan(manifest: BatchManifest, folder: Folder) -> Plan:
    """Return what is left to do in a folder.

    Args:
        manifest: What is asked for.
        folder: The folder, which may be new.

    Raises:
        ArtifactError: Where the folder has results of another engine, of other settings or of another list, Parquet files
            without a manifest, or cannot be read.
    """
    names, run = folder.names(), run_of(manifest)
    numbers = sorted(number for number in map(block_of, names) if number is not None)
    if config.MANIFEST_FILE in names:
        _check_same(_read(folder), manifest, folder)
    elif numbers:
        raise ArtifactError(f"{folder} has Parquet files and no {config.MANIFEST_FILE}; give another folder with -o.")
    with ThreadPoolExecutor(config.MAX_WORKERS, thread_name_prefix="ssdtrt-footers") as pool:
        footers = pool.map(partial(read_footer, folder), numbers)
        done = {number: one for number, one in zip(numbers, footers) if one and (one.block, one.run) == (number, run)}
    return Plan(manifest, run, done)


def write_manifest(manifest: BatchManifest, folder: Folder) -> None:
    """Write the manifest into its folder, which is made.

    Raises:
        ArtifactError: Where it cannot be written.
    """
    folder.make()
    content = json.dumps(manifest.document(), indent=1, ensure_ascii=False)
    folder.write(config.MANIFEST_FILE, content.encode(errors="replace") + b"\n")  # The engine's name may be no text.


def run_of(manifest: BatchManifest) -> str:
    """Return the SHA-256 of what makes the rows of a run: all that the manifest says but the engine's path."""
    return sha256_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, file="").document()))


def _list_sha256(paths: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(encode(path) + b"\0")
    return digest.hexdigest()


def _read(folder: Folder) -> BatchManifest:
    with folder.open(config.MANIFEST_FILE) as file:
        content = file.read()
    try:
        return msgspec.json.decode(content, type=BatchManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{folder}/{config.MANIFEST_FILE} cannot be read ({error}). Give another folder with -o."
        ) from error


def _check_same(there: BatchManifest, asked: BatchManifest, folder: Folder) -> None:
    changes = differing(there, asked, _COMPARED) + differing(there.settings, asked.settings, _SETTINGS)
    changes += ["the names of the classes differ"] if there.labels != asked.labels and not changes else []
    if changes:
        raise ArtifactError(
            f"{folder} has results of another run: {'; '.join(changes)}. Ask for the same to go on with it, or give another "
            "folder with -o."
        )

"""Write engines into a model repository of Triton Inference Server. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdtrt.artifact.metadata import EngineMetadata, check_file
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.formats.plan_file import record_path
from ssdtrt.serving.triton.config import Served, TritonOptions, interface, is_as_written, served, write_config
from ssdtrt.serving.triton.container import choose_container
from ssdtrt.serving.triton.report import TritonModel, TritonReport
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.files import replacing
from ssdtrt.system.progress import Progress, silent

CONFIG, LABELS = "config.pbtxt", "labels.txt"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class _Entry:
    """A file that was checked, and its place."""

    path: Path
    metadata: EngineMetadata
    sha256: str
    name: str
    folder: Path
    model: Served


def write_repository(
    files: Sequence[str | Path],
    repository: str | Path,
    *,
    name: str | None = None,
    options: TritonOptions | None = None,
    progress: Progress = silent,
) -> TritonReport:
    """Write engines, detectors and plans into a model repository.

    All are checked before anything is written. A new version appears as a whole, under the next number; where the newest
    one is the same file, only the configuration is written again. What `write_repository` did not write, or somebody
    changed since, is refused.

    Args:
        files: The files.
        repository: The repository; it is made where there is none.
        name: The model's name, for one file; by default the file's, such as `ssd300_detector` of ssd300.detector.ts.
        options: What is not in the files' metadata.
        progress: Called with a line for each file.

    Raises:
        ArtifactError: For a file that Triton does not take, a folder that is no repository or cannot be written, or a
            model that must not be replaced.
        SsdtrtError: For options that do not fit the files.
    """
    repository, options = Path(repository), options or TritonOptions()
    _check_repository(repository)
    if name is not None and len(files) > 1:
        raise SsdtrtError(f"A name is for one file; found {len(files)}.")
    entries = [_entry(Path(path), repository, name, options, progress) for path in files]
    for entry in entries:
        same = [other.path.name for other in entries if other.name == entry.name]
        if len(same) > 1:
            raise SsdtrtError(
                f"{' and '.join(same)} would both be the model {entry.name}; give them apart, with --name."
            )
    return TritonReport(str(repository), tuple(_write(entry, options, progress) for entry in entries))


def model_name(path: str | Path) -> str:
    """Return the name of a file's model: the file's, with `_` for what names in addresses should not have."""
    stem = Path(path).name.removesuffix(".ts").removesuffix(".plan")
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem) or "model"


def _check_repository(folder: Path) -> None:
    """Raise ArtifactError unless a folder holds a model, or nothing, or is not there."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder; expected a model repository, or a new one.")
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if found and not any((path / CONFIG).is_file() or _versions(path) for path in found):
        raise ArtifactError(
            f"{folder} holds {found[0].name} and no model, so it is no model repository; give one, or a new folder."
        )


def _entry(path: Path, repository: Path, name: str | None, options: TritonOptions, progress: Progress) -> _Entry:
    """Check a file, and that its model may be written."""
    progress(f"checking {path}")
    metadata = check_file(path, ("engine", "detector"))
    if not isinstance(metadata, EngineMetadata):
        raise ArtifactError(f"{path} is an ONNX file; expected an engine, a detector or a plan of ssdtrt compile.")
    _check_options(path, metadata, options)
    name = model_name(path) if name is None else name
    if not _NAME.fullmatch(name):
        raise SsdtrtError(f"{name!r} is no name of a model; expected letters, digits, `_`, `-` and `.`.")
    entry = _Entry(path, metadata, sha256_file(path), name, repository / name, served(metadata, options.max_batch))
    _check_model(entry)
    return entry


def _check_options(path: Path, metadata: EngineMetadata, options: TritonOptions) -> None:
    if options.gpus and not metadata.request.capabilities.on_gpu:
        raise SsdtrtError(f"{path} is a CPU engine; leave --gpus out.")
    if options.max_batch and metadata.batch_range is not None:
        raise SsdtrtError(f"{path} was built for batch {metadata.batch_range}; leave --max-batch out.")


def _check_model(entry: _Entry) -> None:
    """Raise ArtifactError for a model that is another's, or has other inputs or outputs."""
    folder, existing = entry.folder, entry.folder / CONFIG
    if not os.path.lexists(folder):
        return
    advice = "Give another name with --name, or move it away."
    if not existing.is_file():
        raise ArtifactError(f"{folder} exists and has no {CONFIG}: it is not of ssdtrt triton. {advice}")
    text = existing.read_bytes().decode(errors="replace")
    if not is_as_written(text):
        raise ArtifactError(f"{existing} is not as ssdtrt triton wrote it, and is left as it is. {advice}")
    if interface(entry.model) not in text:
        raise ArtifactError(
            f"{existing} has other inputs or outputs than {entry.path}, which clients of {entry.name} would not expect. "
            f"{advice}"
        )


def _write(entry: _Entry, options: TritonOptions, progress: Progress) -> TritonModel:
    """Write the version, unless the newest is the same, and the configuration."""
    progress(f"writing {entry.folder}")
    try:
        newest = max(_versions(entry.folder), default=0)
        held = entry.folder / str(newest) / entry.model.file_name
        new = not (newest and held.is_file() and sha256_file(held) == entry.sha256)
        version = newest + new
        target = entry.folder / str(version)
        text = write_config(entry.name, entry.metadata, entry.sha256, options)
        entry.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=entry.folder, ignore_cleanup_errors=True) as temporary:
            whole = Path(temporary, str(version))
            if new:
                _fill(whole, entry)
            with replacing(entry.folder / CONFIG) as config_file:
                config_file.write_text(text, encoding="ascii")
            if new:  # Last: a server takes a model when it has a version.
                whole.rename(target)
    except OSError as error:
        with contextlib.suppress(OSError):  # An empty folder would not be taken for a model when it is tried again.
            entry.folder.rmdir()
        raise ArtifactError(f"{entry.folder} cannot be written: {error.strerror or error}.") from error
    container, note = choose_container(entry.path, entry.metadata)
    notes = (note, *_notes(entry))
    return TritonModel(
        entry.name, version, str(entry.path), entry.sha256, entry.model.backend, str(target), new, container, notes
    )


def _fill(folder: Path, entry: _Entry) -> None:
    """Write the files of a version; the server reads the first alone.

    The names of the classes are beside it, not in the configuration's `label_filename`, which is for outputs that hold a
    score for each class.
    """
    folder.mkdir()
    model = folder / entry.model.file_name
    shutil.copyfile(entry.path, model)
    if sha256_file(model) != entry.sha256:
        raise ArtifactError(f"{entry.path} changed while it was copied. Try again.")
    if entry.metadata.format == "plan":
        record_path(model).write_bytes(entry.metadata.to_json())
    (folder / LABELS).write_text("".join(f"{label}\n" for label in entry.metadata.model.labels), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _notes(entry: _Entry) -> list[str]:
    """What a plan cannot do in Triton."""
    batch = entry.metadata.batch_range
    if entry.metadata.format != "plan" or batch is None:
        return []
    if batch.static:
        return [
            f"{entry.path.name} takes batches of {batch.max} alone, so Triton gathers no requests; a plan of "
            "--batch-range MIN:OPT:MAX, or a TorchScript engine, lets it."
        ]
    if batch.min > 1:
        return [f"{entry.path.name} takes no batch below {batch.min}: smaller requests that wait alone too long fail."]
    return []


def _versions(folder: Path) -> list[int]:
    """The numbers of the versions of a model."""
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if re.fullmatch("[1-9][0-9]*", path.name) and path.is_dir()]

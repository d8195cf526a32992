"""Expand files, folders, patterns and lists to the paths of pictures."""

from __future__ import annotations

import functools
import glob
import itertools
import mimetypes
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.images.decode import content_format, missing_decoder, register_heif
from ssdtrt.reading.addresses import is_address, shown
from ssdtrt.system.files import as_list, paths_in_list
from ssdtrt.system.outputs import is_as_written, written_files
from ssdtrt.system.progress import Progress, silent
from ssdtrt.system.report import counted

STDIN = "-"
_NO_PICTURES = "no picture"
_RAW = "cameras' raw files, to be developed to JPEG or TIFF"
_RAW_SUFFIXES = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw",
    ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw", ".x3f",
))  # fmt: skip
_HEIF_SUFFIXES = frozenset((".heic", ".heif", ".hif"))
_SHOWN = 5  # suffixes in a note
_DRAWN = "drawn by an earlier run"


def expand(
    arguments: str | Path | Iterable[str | Path],
    stdin: BinaryIO | None = None,
    failures: list[ImageError] | None = None,
    *,
    output: str | Path | None = None,
    addresses: bool = False,
    note: Progress = silent,
) -> Iterator[str | Path]:
    """Expand arguments to paths and addresses, in their order, found as they are taken.

    Args:
        arguments: A folder stands for the pictures in it and below, by name; a pattern (`*`, `?`, `[`, `**`) for the
            files that match, or what is called so; `-` for the paths in `stdin`, one a line or each with a NUL behind
            it; anything else for itself, whether it exists or not. An address stays text: a path loses a `/` of it.
        stdin: Where `-` reads from; by default this process's own.
        failures: Takes an error for each folder, pattern or list without a picture; None to raise the first.
        output: The folder that will be written to. Folders and patterns leave it out, and those that hold a
            config.DETECTIONS_FILE, unless they name it themselves. What an earlier run wrote there is left out
            everywhere, and what is in the record of a folder that is named out of that.
        addresses: Whether pictures may be given by their addresses.
        note: Called with a line on what was left out, and why.

    Raises:
        ImageError: Without `failures`, for a folder, pattern or list without a picture. For an address where none may be.
    """
    before = written_files(output) if output else {}
    for argument in _files_together(as_list(arguments)):
        text, drawn, left_out = str(argument), before, LeftOut()
        if isinstance(argument, list):
            text, problem = f"{argument[0]}{', ...' if len(argument) > 1 else ''}", "is no picture"
            found: Iterable[str | Path] = argument
        elif text == STDIN:
            problem = "(the list on stdin) names no picture"
            # Unbuffered: Python cannot end while a thread that was left waits for a buffer's next line.
            raw: BinaryIO = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
            found = map(_path_or_address, paths_in_list(stdin or raw))
        elif os.path.isdir(text):
            drawn, problem = {**before, **written_files(text)}, "holds no pictures"
            found = pictures_below(text, left_out, output)
        else:
            start = _fixed_part(text)[0] or "."
            drawn, problem = {**before, **written_files(start)}, "matches no file"
            found = _kept(_matches(text), start, left_out, output)
        empty = True
        for path in _not_drawn(found, drawn, left_out):
            if not addresses and is_address(path):
                raise ImageError(f"{shown(str(path))} is an address; expected files here. Fetch it first.")
            empty = False
            yield path
        if empty:
            error = ImageError(f"{text} {problem}{f' ({left_out.text()})' if left_out else ''}.")
            if failures is None:
                raise error
            failures.append(error)
        elif left_out:
            note(f"{text}: {left_out.text()}.")


def _path_or_address(text: str) -> str | Path:
    return text if is_address(text) else Path(text)


def _files_together(arguments: Iterable[str | Path]) -> Iterator[str | list[str | Path]]:
    """The arguments, with files and addresses that follow each other as a list."""

    def is_file(argument: str | Path) -> bool:
        text = str(argument)
        if text == STDIN or is_address(text):
            return text != STDIN
        return not os.path.isdir(text) and (not glob.has_magic(text) or os.path.exists(text))

    for alone, group in itertools.groupby(arguments, is_file):
        if alone:
            yield [_path_or_address(str(argument)) for argument in group]
        else:
            yield from map(str, group)


def _not_drawn(paths: Iterable[str | Path], written: dict[Path, str], left_out: LeftOut) -> Iterator[str | Path]:
    """The paths without those of files that were written before: that are as they were, or were removed since."""
    recorded = {os.path.realpath(path): sha256 for path, sha256 in written.items()}
    for path in paths:
        real = "" if not recorded or is_address(path) else os.path.realpath(path)
        if real in recorded and (not os.path.exists(real) or is_as_written(real, recorded[real])):
            left_out.files[_DRAWN][_suffix(os.path.basename(path))] += 1
        else:
            yield path


def _matches(pattern: str) -> list[str]:
    """What matches a pattern, sorted. Folders whose names are patterns, such as `set [v1]`, are taken as such."""
    folder, rest = _fixed_part(pattern)
    found = glob.glob(os.path.join(glob.escape(folder), rest), recursive=True)
    if not found:  # The brackets may be those of a folder behind a `*`.
        found = glob.glob(pattern.replace("[", "[[]"), recursive=True)
    return sorted(found)


def _fixed_part(pattern: str) -> tuple[str, str]:
    """A pattern as the folder that exists, "" for the current one, and the rest."""
    folder, rest = os.path.split(pattern)
    while folder and not os.path.exists(folder):
        folder, last = os.path.split(folder)
        rest = os.path.join(last, rest)
    return folder, rest


class LeftOut:
    """What is left out of a folder: folders, and files by the reason and the suffix."""

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.files: dict[str, Counter[str]] = defaultdict(Counter)

    def __bool__(self) -> bool:
        return bool(self.folders or self.files)

    def text(self) -> str:
        """Return it in a line, such as `left out 2 files (.heic): pip install pillow-heif; 1 (.mpg): no picture`."""
        parts: list[str] = []
        for reason, counts in self.files.items():
            suffixes = [suffix or "no suffix" for suffix, _ in counts.most_common(_SHOWN)]
            more = ", ..." if len(counts) > _SHOWN else ""
            count = sum(counts.values())
            parts.append(f"{count if parts else counted(count, 'file')} ({', '.join(suffixes)}{more}): {reason}")
        return "left out " + "; ".join([*parts, *(f"the folder {folder}" for folder in self.folders)])


def pictures_below(folder: str, left_out: LeftOut | None = None, output: str | Path | None = None) -> Iterator[Path]:
    """Yield the pictures in a folder and below, sorted by name, without hidden ones.

    What a name does not tell, the content does. Links to folders are followed, but no folder is entered twice.

    Args:
        folder: The folder.
        left_out: Takes what is no picture.
        output: As for `expand`.
    """
    left_out = LeftOut() if left_out is None else left_out
    suffixes = _suffixes()
    for parent, files in _walk(folder, left_out, _is_output_folder(output)):
        for name in files:
            path, suffix = os.path.join(parent, name), _suffix(name)
            reason = None if suffix in suffixes else _why_not(path, suffix)
            if reason is None:
                yield Path(path)
            else:
                left_out.files[reason][suffix] += 1


def _walk(root: str, left_out: LeftOut, is_output: Callable[[str], bool]) -> Iterator[tuple[str, list[str]]]:
    """Each folder that is no hidden and no output folder, with its files; each once, by its own name before a link's."""
    real_root = os.path.realpath(root)
    seen = {real_root}

    def enters(path: str) -> bool:
        real = os.path.realpath(path)
        if real in seen or (os.path.islink(path) and _comes_by_itself(real, real_root)):
            return False
        if is_output(path):
            left_out.folders.append(f"{path}: results of an earlier run; name it to read it")
            return False
        seen.add(real)
        return True

    def unreadable(error: OSError) -> None:
        left_out.folders.append(f"{error.filename}: {error.strerror}")

    for parent, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in visible if enters(os.path.join(parent, name))]
        yield parent, sorted(name for name in files if not name.startswith("."))


def _comes_by_itself(real: str, real_root: str) -> bool:
    """Whether a folder lies below the root without a hidden one between them."""
    parts = Path(os.path.relpath(real, real_root)).parts
    return not any(part.startswith(".") for part in parts)  # `..` begins with a dot too.


def _kept(matches: Iterable[str], start: str, left_out: LeftOut, output: str | Path | None) -> Iterator[Path]:
    """The files among the matches, without output folders other than the `start`, by the shortest name of each."""
    is_output, real = _is_output_folder(output), functools.cache(os.path.realpath)
    shortest: dict[tuple[str, str], str] = {}
    for match in sorted(matches, key=lambda match: match.count(os.sep)):
        parent, name = os.path.split(match)
        if not os.path.isdir(match):
            shortest.setdefault((real(parent), name), match)
    for match in sorted(shortest.values()):
        parent, name = os.path.split(match)
        if is_output(parent or ".") and real(parent) != real(start):
            left_out.files[f"in {parent or '.'}, which has results of an earlier run; name it to read it"][
                _suffix(name)
            ] += 1
        else:
            yield Path(match)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_output_folder(output: str | Path | None) -> Callable[[str], bool]:
    """A function that says whether a folder is the output folder, or one of an earlier run."""
    place = None if output is None else os.path.realpath(output)

    @functools.cache
    def is_output(folder: str) -> bool:
        marked = os.path.isfile(os.path.join(folder, config.DETECTIONS_FILE))
        return marked or (place is not None and os.path.realpath(folder) == place)

    return is_output


def _suffixes() -> frozenset[str]:
    """The suffixes of the formats that Pillow decodes: it knows some by name alone."""
    known = Image.registered_extensions()

    def decodes(name: str) -> bool:
        opener = Image.OPEN[name][0] if name in Image.OPEN else None
        stub = isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)
        return opener is not None and not stub and name not in ("MPEG", "EPS")  # EPS needs Ghostscript.

    return frozenset(suffix for suffix, name in known.items() if decodes(name))


def picture_suffixes() -> frozenset[str]:
    """Return the suffixes of pictures that can be read here, in lowercase, for files whose content is far away."""
    return _suffixes() | (_HEIF_SUFFIXES if register_heif() else frozenset())


def _why_not(path: str, suffix: str) -> str | None:
    """Why a file whose suffix Pillow does not know is left out; None for a picture."""
    if suffix in _RAW_SUFFIXES:
        return _RAW
    if suffix in _HEIF_SUFFIXES:
        return None if register_heif() else "pip install pillow-heif"
    kind = _TYPES.guess_type(f"x{suffix}")[0] or "image/"
    if not kind.startswith("image/") and kind != "application/octet-stream":
        return _NO_PICTURES
    if not os.path.isfile(path):
        return "no regular file, or a broken link"
    try:
        if content_format(path):
            return None
        with open(path, "rb") as file:
            return missing_decoder(file.read(12)) or _NO_PICTURES
    except OSError as error:
        return error.strerror or type(error).__name__


_TYPES = mimetypes.MimeTypes()  # Python's own, not those of the machine

"""Check and write output files, turn the system's errors into one line, and record what is written into a folder."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ssdtrt import config
from ssdtrt.errors import ArtifactError
from ssdtrt.system.digests import sha256_bytes, sha256_file
from ssdtrt.system.files import BusyError, check_writable, replacing


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends, as its only writer (see `replacing`).

    Raises:
        ArtifactError: If another process is writing the same file, or the system refuses.
    """
    try:
        with replacing(path, exclusive=True) as temporary:
            yield temporary
    except BusyError as error:
        raise ArtifactError(f"{path} cannot be written: {error}. Wait for it, or give another path with -o.") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}.") from error


def check_output(path: str | Path, option: str = " with -o") -> Path:
    """Check, before any work is done, that a file can be written at `path`, and return it as a Path.

    Args:
        path: The file to write.
        option: How the user gives another path, for the message.

    Raises:
        ArtifactError: If it cannot be written.
    """
    path = Path(path)
    reason = check_writable(path)
    if reason:
        raise ArtifactError(f"{path} cannot be written: {reason}. Give another path{option}.")
    return path


class FolderRecord:
    """Writes files into a folder and records them in its config.RECORD_FILE, each before it appears.

    What is in the record and still has the recorded SHA-256 was written here; all else is the user's. A line of the
    record is {"file": its path from the folder, "sha256": of its bytes}.

    Args:
        folder: The folder. The record that it holds is begun anew.

    Raises:
        OSError: Where the record cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder, self._lock = folder, threading.Lock()
        self._file = open(folder / config.RECORD_FILE, "wb", buffering=0)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, from any thread.

        Args:
            name: Its path from the folder.
            content: Its bytes.

        Raises:
            OSError: Where it cannot be written.
        """
        line = json.dumps({"file": name, "sha256": sha256_bytes(content)}).encode() + b"\n"
        with self._lock:
            self._file.write(line)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, remove_stale=False) as temporary:
            temporary.write_bytes(content)

    def close(self) -> None:
        """Close the record."""
        self._file.close()


def written_files(folder: str | Path) -> dict[Path, str]:
    """Return what the record of a folder has: {path: SHA-256}, also of files that are gone or have changed."""
    folder, found = Path(folder), {}
    with contextlib.suppress(OSError):
        for line in (folder / config.RECORD_FILE).read_bytes().splitlines():
            # The last line of a run that was killed.
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                one = json.loads(line)
                name, sha256 = PurePosixPath(one["file"]), str(one["sha256"])
                if not name.is_absolute() and ".." not in name.parts:
                    found[folder / name] = sha256
    return found


def is_as_written(path: str | Path, sha256: str) -> bool:
    """Return whether a file has what was recorded; False for one that is gone or cannot be read."""
    with contextlib.suppress(OSError):
        return Path(path).is_file() and sha256_file(path) == sha256
    return False


def remove_written(folder: str | Path) -> None:
    """Remove the files of a folder's record that have not changed since, and the folders that are empty then.

    What lies in another folder, to which a link leads, stays.

    Raises:
        OSError: Where one cannot be removed.
    """
    folders, real = set(), Path(folder).resolve()
    for path, sha256 in written_files(folder).items():
        if is_as_written(path, sha256) and path.parent.resolve().is_relative_to(real):
            path.unlink()
            folders |= {parent for parent in path.parents if Path(folder) in parent.parents}
    for emptied in sorted(folders, reverse=True):  # The deepest first.
        with contextlib.suppress(OSError):
            emptied.rmdir()


def new_folder(name: str) -> Path:
    """Make a folder of that name or, where it is taken, of the first free one of NAME-2, NAME-3 and so on.

    Raises:
        ArtifactError: Where it cannot be made.
    """
    for number in itertools.count(1):
        path = Path(name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise ArtifactError(f"{path} cannot be made: {error.strerror}. Give another folder with -o.") from error
        return path
    raise AssertionError("unreachable")

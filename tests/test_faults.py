"""What goes wrong around a command: killed writers, full disks, closed folders, two at once, Ctrl-C, odd streams."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from coco_files import write_annotations
from command_line import ENVIRONMENT, INTERRUPTED, assert_refused, pictures_in, strict
from forked_builds import fork
from permissions import as_ordinary_user, closed_folder  # noqa: F401
from PIL import Image
from torch import Tensor

import forks
from known import Known, known_file
from ssdtrt import config
from ssdtrt.artifact.metadata import check_file
from ssdtrt.system.digests import sha256_file
from ssdtrt.system.outputs import writing

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")


@pytest.fixture
def place(known, tmp_path):
    """A folder with a small module, ten pictures, one in a folder, and their annotations."""
    shutil.copyfile(known, tmp_path / "k.ts")
    (tmp_path / "in").mkdir()
    for number in range(1, 11):
        Image.new("RGB", (40, 30), "red").save(tmp_path / "in" / f"{number}.png")
    categories = dict(zip(config.COCO_CATEGORY_IDS[1:], config.COCO_LABELS[1:]))
    names = {number: f"{number}.png" for number in range(1, 11)}
    write_annotations(tmp_path / "a.json", names, [(1, 17, [2.0, 2.0, 30.0, 20.0])], categories)
    return tmp_path


EVALUATE = ["evaluate", "k.ts", "--images", "in", "--annotations", "a.json", "--device", "cpu"]
DETECT = ["detect", "k.ts", "in", "--device", "cpu"]
PRINTS = {
    "help": ["--help"],
    "version": ["--version"],
    "help of a command": ["detect", "--help"],
    "inspect": ["inspect", "k.ts"],
    "inspect as JSON": ["inspect", "k.ts", "--json", "-"],
    "detect": DETECT,
    "detect as lines": [*DETECT, "--jsonl", "-"],
    "detect as COCO": [*DETECT, "--coco", "-"],
    "evaluate": EVALUATE,
    "evaluate as JSON": [*EVALUATE, "--json", "-"],
}


@pytest.mark.parametrize("name", PRINTS)
def test_a_closed_stdout_ends_a_command_without_a_word(name, place):
    """`ssdtrt ... | head`, where head has gone before the first line."""
    process = forks.begin(place, ["-q", *PRINTS[name]], stdout="closed")
    assert forks.end(process) == 1
    assert (place / "stderr").read_text() == ""
    if name == "detect":  # What goes to files is there.
        assert len(pictures_in(place / "detections")) == 10
        assert len(list((place / "detections").glob("*.jpg"))) == 10


@pytest.mark.parametrize("name", PRINTS)
def test_a_stdout_that_is_full_is_one_message(name, place):
    if not os.path.exists("/dev/full"):
        pytest.skip("no device that is always full here")
    process = forks.begin(place, ["-q", *PRINTS[name]], stdout="/dev/full")
    code, errors = forks.end(process), (place / "stderr").read_text().splitlines()
    assert (code, errors[-1]) == (1, "Error: No space left on device") and len(errors) <= 2


@pytest.mark.parametrize("name", ["inspect", "detect", "evaluate"])
def test_a_terminal_of_40_columns(name, place):
    import pty
    import termios

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 40)) if hasattr(termios, "tcsetwinsize") else set_columns(slave, 40)
    shown = []
    reader = threading.Thread(target=read_all, args=(master, shown))
    reader.start()
    process = forks.begin(place, PRINTS[name], terminal=slave)
    code = forks.end(process)
    os.close(slave)
    reader.join(20)
    os.close(master)
    lines = [line.split("\x1b[K")[-1] for line in b"".join(shown).decode().replace("\r\n", "\n").split("\n")]
    assert code == 0 and len(lines) > 3
    sentences = ("written to", "next: ", "note: ")  # They are wrapped by the terminal.
    assert [line for line in lines if len(line) > 40 and not line.startswith(sentences)] == []


def set_columns(terminal, columns):
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def read_all(file, blocks):
    try:
        while block := os.read(file, 4096):
            blocks.append(block)
    except OSError:  # Linux: the last one on the other side has left.
        pass


# Ctrl-C

INTERRUPTIBLE = {
    "export": ["export", "--weights", "random"],
    "compile": ["compile", "narrow.ts", "--backend", "torchscript"],
    "verify": ["verify", "narrow.ts"],
    "bench": ["bench", "narrow.ts"],
    "run": ["run", "--weights", "random"],
    "doctor": ["doctor"],
    "inspect": ["inspect", "large.ts", "--check"],
    "detect": ["detect", "slow.ts", *9 * ["in"], "--device", "cpu", "--jsonl", "d.jsonl"],
    "evaluate": ["evaluate", "slow.ts", "--images", "in", "--annotations", "a.json", "--device", "cpu"],
}


class Slow(torch.nn.Module):
    """`Known`, which needs most of a second for a batch."""

    def __init__(self):
        super().__init__()
        self.known = Known()

    def forward(self, images: Tensor):
        waste = torch.zeros(500, 500)
        for _ in range(200):
            waste = waste.mm(waste)
        loc, conf = self.known(images)
        return loc, conf + waste[0, 0]


SENT = [(name, signal.SIGINT) for name in INTERRUPTIBLE] + [(name, signal.SIGTERM) for name in ("compile", "detect")]


@pytest.mark.slow
@pytest.mark.parametrize("name, sent", SENT)
def test_ctrl_c_and_sigterm_end_every_command(name, sent, place, module):
    """A moment after it said what it does: it ends at once, or when the batch that runs is done."""
    os.symlink(module, place / "narrow.ts")
    if name == "inspect":
        large(place / "large.ts")
    if "slow.ts" in INTERRUPTIBLE[name]:
        known_file(place / "slow.ts", network=Slow)
    before = set(os.listdir(place)) | {"stdout", "stderr"}
    process = forks.begin(place, INTERRUPTIBLE[name], narrow="narrow.ts" in INTERRUPTIBLE[name])
    end = time.monotonic() + 0.7
    while time.monotonic() < end and not ((place / "stderr").exists() and (place / "stderr").stat().st_size):
        time.sleep(0.02)
    time.sleep(0.1)
    os.killpg(process, sent)
    code, errors = forks.end(process), (place / "stderr").read_text().splitlines()
    word = INTERRUPTED if sent == signal.SIGINT else INTERRUPTED.replace("interrupted", "terminated")
    assert (code, errors[-1]) == (128 + sent, word) and not any("Traceback" in line for line in errors)
    assert (place / "stdout").read_text() == ""
    assert set(os.listdir(place)) - before <= {"d.jsonl", "ssdtrt-run"}
    if (place / "d.jsonl").exists():
        assert all(strict(line)["detections"] is not None for line in (place / "d.jsonl").read_text().splitlines())


def large(path):
    """One of our files with a member of 8 GiB, most of it a hole in the file, whose check takes seconds."""
    import zipfile

    with zipfile.ZipFile(known_file(path), "a") as archive:
        folder = archive.namelist()[0].split("/")[0]
        with archive.open(zipfile.ZipInfo(f"{folder}/extra/hole"), "w", force_zip64=True) as member:
            member.write(b"0")
            member._fileobj.seek((8 << 30) - 1, os.SEEK_CUR)
            member._file_size = 8 << 30
            member._compress_size = member._file_size


# Full disks, closed folders


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full here")
@pytest.mark.parametrize("option", ["--jsonl", "--coco"])
def test_a_full_disk_under_detections_is_one_message(option, place, ssdtrt):
    done = ssdtrt("-q", *DETECT, option, "/dev/full")
    assert_refused(done, "/dev/full: No space left on device")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full here")
@pytest.mark.parametrize("command", [["inspect", "k.ts"], EVALUATE])
def test_a_full_disk_under_a_report_is_one_message(command, place, ssdtrt):
    done = ssdtrt("-q", *command, "--json", "/dev/full")
    assert (done.exit_code, done.stderr) == (1, "Error: /dev/full: No space left on device\n")
    assert done.stdout
    assert Path("/dev/full").is_char_device()  # And is not replaced by a file.


def test_a_device_is_written_into_or_refused_but_never_replaced(place, ssdtrt):
    done = ssdtrt("-q", "inspect", "k.ts", "--json", "/dev/null")
    assert done.exit_code == 0 and Path("/dev/null").is_char_device()
    os.mkfifo(place / "pipe")
    done = ssdtrt("-q", "export", "--weights", "random", "-o", "pipe")
    assert_refused(done, "pipe cannot be written: it is a device or a pipe. Give another path with -o.")
    assert (place / "pipe").is_fifo()


def test_a_disk_that_takes_no_more_keeps_whole_lines_and_old_files(place):
    """Every write beyond 3,000 bytes fails: the lines that fit are there, and pictures are refused with a message."""
    process = forks.begin(place, ["-q", *DETECT, "--jsonl", "d.jsonl"], file_size=3000)
    assert (forks.end(process), (place / "stderr").read_text()) == (1, "Error: d.jsonl: File too large\n")
    lines = (place / "d.jsonl").read_text()
    assert lines.endswith("}\n") and 2500 < len(lines) <= 3000
    entries = [strict(line) for line in lines.splitlines()]
    order = ["1.png", "10.png", *(f"{number}.png" for number in range(2, 10))]
    assert [entry["image"] for entry in entries] == [f"in/{name}" for name in order[: len(entries)]]
    (place / "out").mkdir()
    (place / "out" / "1.jpg").write_bytes(b"old")
    Image.effect_noise((600, 600), 100).convert("RGB").save(place / "in" / "1.png")
    (place / "stderr").unlink()
    process = forks.begin(place, ["-q", *DETECT, "-o", "out"], file_size=3000)
    wanted = "Error: out cannot be written: File too large. Give another with -o.\n"
    assert (forks.end(process), (place / "stderr").read_text()) == (1, wanted)
    assert (place / "stdout").read_text() == ""
    assert (place / "out" / "1.jpg").read_bytes() == b"old"
    assert [path.name for path in (place / "out").iterdir() if path.name.startswith(".")] == [config.RECORD_FILE]
    pictures_in(place / "out")


TOY = """
import torch
from ssdtrt.errors import ArtifactError
from ssdtrt.export import export_module

class Toy(torch.nn.Module):
    num_classes, labels, source = 81, None, None

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images):
        mean = images.mean((1, 2, 3))[:, None, None] * self.one
        return mean.expand(-1, 4, 10), mean.expand(-1, 81, 10)
"""
SMALL_DISK = f"""{TOY}
import ctypes, os, subprocess
assert not ctypes.CDLL(None).unshare(0x20000)  # CLONE_NEWNS: what is mounted from here on is there for this process alone.
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", "small"], check=True)
os.chdir("small")
export_module(Toy(), "toy.ts")
before = open("toy.ts", "rb").read()
class Large(Toy):
    def __init__(self):
        super().__init__()
        self.register_buffer("much", torch.zeros(1 << 20))
try:
    export_module(Large(), "toy.ts")
except ArtifactError as error:
    print(error)
assert open("toy.ts", "rb").read() == before
print(os.listdir("."))
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="needs Linux namespaces")
def test_a_full_file_system_leaves_the_old_file_and_no_litter(tmp_path):
    (tmp_path / "small").mkdir()
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", tmp_path / "small"]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    found = Copy(SMALL_DISK, tmp_path).read_to_end()
    assert found == ("toy.ts cannot be written: No space left on device.\n['toy.ts']\n", 0)


def test_a_read_only_folder_is_refused_before_any_work(known, closed_folder, ssdtrt):  # noqa: F811
    closed_folder.chmod(0o755)
    shutil.copyfile(known, closed_folder / "k.ts")
    Image.new("RGB", (40, 30), "red").save(closed_folder / "a.png")
    closed_folder.chmod(0o555)
    place, why = closed_folder, f"the directory {closed_folder} is not writable. Give another path"
    commands = {
        ("export", "--weights", "random", "-o", f"{place}/x"): f"{place}/x cannot be written: {why} with -o.",
        ("compile", f"{place}/k.ts", "--backend", "torchscript", "-o", f"{place}/x"):
            f"{place}/x cannot be written: {why} with -o.",
        ("inspect", f"{place}/k.ts", "--json", f"{place}/x"): f"{place}/x cannot be written: {why}.",
        ("detect", f"{place}/k.ts", f"{place}/a.png", "--jsonl", f"{place}/x"): f"{place}/x cannot be written: {why}.",
        ("detect", f"{place}/k.ts", f"{place}/a.png", "--device", "cpu", "-o", f"{place}/out"):
            f"{place}/out cannot be written: Permission denied. Give another with -o.",
        ("run", "-o", f"{place}/out"): f"{place}/out cannot be made: Permission denied. Give another folder with -o.",
    }  # fmt: skip
    for arguments, message in commands.items():
        with as_ordinary_user():
            done = ssdtrt("-q", *arguments)
        assert_refused(done, message)
    assert sorted(os.listdir(closed_folder)) == ["a.png", "k.ts"]


# Killed writers, and several at once


class Copy:
    """A copy of this process that runs Python code in a folder, with pipes for its stdin and stdout."""

    def __init__(self, code, folder):
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()

        def run():
            warnings.simplefilter("ignore")
            os.chdir(folder)
            os.dup2(theirs_in, 0)
            os.dup2(theirs_out, 1)
            os.closerange(3, 1024)
            sys.stdin, sys.stdout = open(0), open(1, "w", buffering=1)
            exec(code, {})
            sys.stdout.flush()

        self.pid = fork(run)
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin, self.stdout = open(ours_in, "w", buffering=1), open(ours_out)

    def read_to_end(self):
        """What it still prints, and its exit code."""
        self.stdin.close()
        with self.stdout:
            printed = self.stdout.read()
        return printed, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


KILLED = f"""{TOY}
import os, signal, sys

def lines(limit=None):
    count = 0
    def trace(frame, event, _):
        nonlocal count
        if "torch" in frame.f_code.co_filename and "ssdtrt" not in frame.f_code.co_filename:
            return None
        if event == "line":
            count += 1
            if count == limit:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    export_module(Toy(), "toy.ts")
    sys.settrace(None)
    return count

export_module(Toy(), "toy.ts")
total = lines()
for number in range(20):
    child = os.fork()
    if not child:
        lines(1 + number * (total - 1) // 19)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), *sorted(os.listdir(".")), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_a_writer_killed_at_twenty_points_leaves_a_whole_file(tmp_path):
    """Between any two lines of Python, from the first to the last, evenly; the old file or the new one, always whole."""
    child = Copy(KILLED, tmp_path)
    littered = 0
    dates = set()
    for _ in range(20):
        code, *names = child.stdout.readline().split()
        assert code == "-9"
        litter = [name for name in names if name != "toy.ts"]
        assert len(litter) <= 1 and all(name.startswith(".toy.ts-") and name.endswith(".tmp") for name in litter)
        littered += bool(litter)
        dates.add(check_file(tmp_path / "toy.ts").created)
        with writing(tmp_path / "other.ts"), writing(tmp_path / "toy.ts") as temporary:  # The next writer.
            shutil.copyfile(tmp_path / "toy.ts", temporary)
            shutil.copyfile(tmp_path / "toy.ts", tmp_path / "other.ts")
        assert sorted(os.listdir(tmp_path)) == ["other.ts", "toy.ts"]
        (tmp_path / "other.ts").unlink()
        child.stdin.write("\n")
    assert child.read_to_end() == ("", 0) and littered >= 5  # So that many were killed in the middle.


WRITER = f"""{TOY}
import os, select
wrote = busy = 0
model = Toy()
print("ready", flush=True)
os.read(0, 1)
while not wrote or not select.select([0], [], [], 0)[0]:  # Until stdin is closed.
    try:
        export_module(model, "toy.ts")
        wrote += 1
    except ArtifactError as error:
        assert str(error) == (
            "toy.ts cannot be written: another process is writing toy.ts. Wait for it, or give another path with -o."
        ), error
        busy += 1
print(wrote, busy)
"""


@pytest.mark.slow
def test_two_builders_of_one_file_and_a_reader(tmp_path):
    """Each builder writes, or is told of the other; the reader sees whole files only."""
    builders = [Copy(WRITER, tmp_path) for _ in range(2)]
    for builder in builders:
        assert builder.stdout.readline() == "ready\n"
    for builder in builders:
        builder.stdin.write("\n")
    digests, reads, end = set(), 0, time.monotonic() + 0.8
    while time.monotonic() < end or reads <= 10:  # A busy machine needs longer.
        if (tmp_path / "toy.ts").exists():
            assert check_file(tmp_path / "toy.ts").kind == "module"
            digests.add(sha256_file(tmp_path / "toy.ts"))
            reads += 1
        time.sleep(0.005)
    outputs = [builder.read_to_end() for builder in builders]
    assert [code for _, code in outputs] == [0, 0], outputs
    counts = [tuple(map(int, out.split())) for out, _ in outputs]
    assert all(wrote >= 1 for wrote, _ in counts)
    assert os.listdir(tmp_path) == ["toy.ts"]


def test_a_second_builder_is_refused_at_once(module, place, ssdtrt):
    (place / "e.ts").write_bytes(b"old")
    with writing(place / "e.ts") as temporary:
        temporary.write_bytes(b"new")
        done = ssdtrt("-q", "compile", module, "--backend", "torchscript", "-o", "e.ts")
        wanted = "e.ts cannot be written: another process is writing e.ts. Wait for it, or give another path with -o."
        assert_refused(done, wanted)
        assert (place / "e.ts").read_bytes() == b"old"
    assert (place / "e.ts").read_bytes() == b"new"


# Environments


def test_without_a_home(place):
    """It is needed for the published checkpoint alone, and nothing is put into a folder named `~`."""
    process = forks.begin(place, ["-q", *DETECT])
    assert forks.end(process) == 0 and (place / "stderr").read_text() == ""
    cache = {"HOME": "/proc/nowhere", "TORCH_HOME": "", "XDG_CACHE_HOME": ""}
    process = forks.begin(place, ["-q", "export"], **cache)
    assert forks.end(process) == 1
    (line,) = (place / "stderr").read_text().splitlines()
    assert line.startswith("Error: ") and "cannot be" in line
    assert not (place / "~").exists()


STREAMS = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "strict UTF-8": {"PYTHONIOENCODING": "utf-8:strict", "PYTHONUTF8": "1"},
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are any bytes")
@pytest.mark.parametrize("kind", STREAMS)
def test_names_that_are_not_valid_text_in_any_locale(kind, known, place):
    folder = os.fsencode(place)
    names = [b"caf\xe9.png", "café.png".encode()]
    for name in names:
        shutil.copyfile(place / "in" / "1.png", folder + b"/" + name)
    shutil.copyfile(known, folder + b"/mod\xe9l.ts")
    command = [sys.executable, "-m", "ssdtrt", "-q", "detect", b"mod\xe9l.ts", "-", "--device", "cpu"]
    done = subprocess.run(
        [*command, "-o", b"out\xe9", "--jsonl", b"d\xe9.jsonl"], input=b"\n".join([*names, b"kein \xfc.png", b""]),
        cwd=place, env={**ENVIRONMENT, **STREAMS[kind]}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"Error: kein ") and line.endswith(b".png: no such file.")
    assert b"6 objects in 2 pictures" in done.stdout and b"written to out" in done.stdout
    entries = [strict(line) for line in (place / os.fsdecode(b"d\xe9.jsonl")).read_text().splitlines()]
    assert len(entries) == 2 and len(os.listdir(folder + b"/out\xe9")) == 4  # With the record

"""The command line: what it says, where it says it, and how it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

import ssdtrt as package
from ssdtrt.artifact import torchscript
from ssdtrt.cli import main

TRUST = () if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6) else ("--trust-weights",)
COMMANDS = sorted(main.commands)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parent.parent), "PYTHONWARNINGS": "ignore"}
ENVIRONMENT.pop("COLUMNS", None)


@pytest.fixture(scope="module")
def bad(module, model, tmp_path_factory):
    """Files that are not what they are given as, by what they are."""
    folder = tmp_path_factory.mktemp("bad")
    files = {kind: folder / kind for kind in ("missing.ts", "folder", "empty.ts", "text.ts", "truncated.ts")}
    files["folder"].mkdir()
    files["empty.ts"].touch()
    files["text.ts"].write_text("not a module, but some text\n")
    whole = module.read_bytes()
    files["truncated.ts"].write_bytes(whole[: len(whole) * 3 // 4])
    for name in ("checkpoint.pt", "linear.pt", "truncated.pt", "page.pt", "plain.ts", "data.zip"):
        files[name] = folder / name
    torch.save({"model": {"weight": torch.zeros(2, 3)}}, files["checkpoint.pt"])
    torch.save({"bias": torch.ones(4)}, files["linear.pt"])
    torch.save(model.state_dict(), files["truncated.pt"])
    os.truncate(files["truncated.pt"], 50_000_000)
    files["page.pt"].write_text("<!DOCTYPE html><title>404</title>")
    with torchscript.quiet():
        torchscript.save(torch.jit.script(torch.nn.Linear(2, 2)), files["plain.ts"])
    with zipfile.ZipFile(files["data.zip"], "w") as archive:
        archive.writestr("readme.txt", "hello")
    return files


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "gray.png"
    Image.new("RGB", (40, 30), "gray").save(path)
    return path


def assert_refused(done, message):
    """One line on stderr, nothing on stdout, exit code 1, and no traceback behind it."""
    assert done.stderr == f"Error: {message}\n"
    assert (done.exit_code, done.stdout) == (1, "")
    assert isinstance(done.exception, SystemExit)


BAD_FILES = {
    "missing.ts": "{path}: no such file. Make it first: ssdtrt export",
    "folder": "{path} is a directory; expected a file that ssdtrt export or ssdtrt compile wrote.",
    "empty.ts": "{path} is empty; expected a file that ssdtrt export or ssdtrt compile wrote.",
    "text.ts": "{path} is not one of ssdtrt's files (it begins with b'not a mo'); "
    "expected one that ssdtrt export or ssdtrt compile wrote.",
    "truncated.ts": "{path} is truncated, damaged or not one of ssdtrt's files (File is not a zip file). Make it again.",
    "checkpoint.pt": "{path} is a checkpoint, not a module; first run: ssdtrt export --weights FILE.",
    "plain.ts": "{path} is a TorchScript archive without ssdtrt's metadata; "
    "make it with ssdtrt export or ssdtrt compile.",
    "data.zip": "{path} is a zip archive, but not one of ssdtrt's files.",
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("command", ["compile", "bench", "verify", "detect"])
def test_a_file_that_is_none_of_ours(command, kind, bad, picture, ssdtrt, tmp_path):
    more = {"compile": ("--backend", "torchscript"), "detect": (picture,)}.get(command, ())
    done = ssdtrt("-q", command, bad[kind], *more)
    assert_refused(done, BAD_FILES[kind].format(path=bad[kind]))
    assert os.listdir(tmp_path) == ["gray.png"]


BAD_WEIGHTS = {
    "missing.ts": "{path}: no such file. Give a checkpoint's path, `coco` or `random` as weights.",
    "folder": "{path} is a directory; expected a checkpoint file.",
    "empty.ts": "{path} is empty; expected a checkpoint. Fetch it again.",
    "text.ts": "{path} is not a PyTorch checkpoint (it begins with b'not a module').",
    "page.pt": "{path} is an HTML or XML page, not a checkpoint. Fetch it again and look at what came.",
    "truncated.pt": "{path} is truncated or damaged (50,000,000 bytes, File is not a zip file). Fetch it again.",
    "plain.ts": "{path} is a TorchScript module, not a checkpoint. Give it to ssdtrt compile instead.",
    "data.zip": "{path} is a zip archive but not a PyTorch checkpoint (it holds no data.pkl).",
    "linear.pt": "{path} does not fit SSD300 with a ResNet-50 backbone ({missing} missing: "
    "feature_extractor.feature_extractor.0.weight, feature_extractor.feature_extractor.1.weight, "
    "feature_extractor.feature_extractor.1.bias, feature_extractor.feature_extractor.1.running_mean "
    "and {more} more; 1 extra: bias). Expected NVIDIA's SSD300 v1.1 checkpoint or one fine-tuned from it.",
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_are_none(kind, bad, model, ssdtrt, tmp_path):
    done = ssdtrt("-q", "export", "--weights", bad[kind], *TRUST)
    keys = len(model.state_dict())
    assert_refused(done, BAD_WEIGHTS[kind].format(path=bad[kind], missing=keys, more=keys - 4))
    assert os.listdir(tmp_path) == []


def test_an_engine_is_not_compiled(engine, ssdtrt):
    done = ssdtrt("-q", "compile", engine, "--backend", "torchscript")
    assert_refused(
        done,
        f"{engine} is an engine; expected a file of kind module. "
        "An engine is not compiled again: give the module that ssdtrt export wrote.",
    )


@pytest.mark.parametrize("command, name", [("compile", "ssd300.ts"), ("bench", "ssd300.engine.ts")])
def test_the_default_file_is_named_where_it_is_missing(command, name, ssdtrt):
    maker = "export" if command == "compile" else "compile"
    more = ("--backend", "torchscript") if command == "compile" else ()
    assert_refused(ssdtrt("-q", command, *more), f"{name}: no such file. Make it first: ssdtrt {maker}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--weights", "random", "-o"),
        ("compile", "{module}", "--backend", "torchscript", "-o"),
        ("verify", "{module}", "--json"),
        ("bench", "{module}", "--json"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_unwritable_output(arguments, module, ssdtrt, tmp_path):
    arguments = [text.format(module=module) for text in arguments]
    advice = "Give another path with -o." if arguments[-1] == "-o" else "Give another path."
    started = time.monotonic()
    done = ssdtrt("-q", *arguments, "nowhere/out.ts")
    assert_refused(done, f"nowhere/out.ts cannot be written: there is no directory nowhere. {advice}")
    (tmp_path / "taken").mkdir()
    done = ssdtrt("-q", *arguments, "taken")
    assert_refused(done, f"taken cannot be written: it is a directory. {advice}")
    assert time.monotonic() - started < 5  # Before any work.
    assert os.listdir(tmp_path) == ["taken"] and os.listdir(tmp_path / "taken") == []


@pytest.mark.parametrize("folder, reason", [("taken", "File exists"), ("taken/out", "Not a directory")])
def test_an_unwritable_folder_for_pictures(folder, reason, module, picture, ssdtrt, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = ssdtrt("-q", "detect", module, picture, "-o", folder, "--device", "cpu")
    assert_refused(done, f"{folder} cannot be written: {reason}. Give another with -o.")


def test_unreadable_pictures_among_good_ones(module, photographs, ssdtrt, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "cut.jpg").write_bytes(photographs[0].read_bytes()[:2000])
    good = [photographs[0], photographs[1]]
    (tmp_path / "empty").mkdir()
    done = ssdtrt(
        "detect", module, good[0], "text.jpg", "none.jpg", "empty", "cut.jpg", good[1], "-o", "out", "--device", "cpu"
    )
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert errors[0] == "Error: empty holds no pictures."  # Known before the first is read.
    assert errors[1].startswith("Error: text.jpg cannot be read as a picture (")
    assert errors[2] == "Error: none.jpg: no such file."
    assert errors[3].startswith("Error: cut.jpg cannot be read as a picture (")
    assert len(errors) == 4 and "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1] == "written to out: 2 pictures and detections.json"
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [entry["image"] for entry in found] == [str(path) for path in good]
    assert all((tmp_path / "out" / path.name).exists() for path in good)


def test_labels_that_cannot_be_used(ssdtrt, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    for name, message in (
        ("none.txt", "none.txt cannot be read as a list of labels (No such file or directory)."),
        ("empty.txt", "empty.txt names no class; expected one name a line, without the background."),
    ):
        assert_refused(ssdtrt("-q", "export", "--weights", "random", "--labels", name), message)


@pytest.mark.parametrize("command", ["verify", "bench", "detect"])
def test_a_gpu_that_is_not_there(command, module, picture, ssdtrt, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = ssdtrt("-q", command, module, *((picture,) if command == "detect" else ()), "--device", "cuda")
    assert_refused(done, f"There is no device cuda here: torch {torch.__version__} sees 0 CUDA GPUs.")


def test_compile_without_a_gpu_says_what_is_missing_and_what_there_is(module, ssdtrt, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)  # As where it is not installed.
    for precision in ("--fp16", "--fp32"):
        assert_refused(
            ssdtrt("compile", module, precision),
            "A TensorRT engine cannot be built or run here; missing: a CUDA GPU "
            f"(torch {torch.__version__} sees none), and Torch-TensorRT: pip install 'ssdtrt[tensorrt]' "
            "(or, where only PyPI can be reached, 'ssdtrt[tensorrt-pypi]' with Python 3.10). "
            "For a CPU engine: ssdtrt compile --backend torchscript",
        )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("asked, streams", [(["--streams", "4"], 4), ([], 0)])
def test_compile_asks_for_streams_and_then_for_a_graph(ssdtrt, monkeypatch, asked, streams):
    calls, hints = [], []

    def take(module, output, **settings):
        calls.append(settings)
        return Path("a.engine.ts")

    monkeypatch.setattr("ssdtrt.compile.compile_engine", take)
    monkeypatch.setattr("ssdtrt.artifact.metadata.read_metadata", lambda path: {})
    monkeypatch.setattr("ssdtrt.cli.show_engine", lambda path, metadata: None)
    monkeypatch.setattr("ssdtrt.cli.terminal.hint", lambda *words: hints.append([str(word) for word in words]))
    done = ssdtrt("compile", "--fp16", "--batch-size", "8", *asked)
    assert done.exit_code == 0, done.stderr
    ((settings,), (hint,)) = calls, hints
    assert (settings["streams"], settings["batch"], settings["precision"]) == (streams, 8, "fp16")
    assert hint == ["bench", "a.engine.ts", *(["--against", "engine-graph"] if streams else [])]


def test_emulated_bf16_is_refused(ssdtrt, monkeypatch):
    monkeypatch.setattr("ssdtrt.system.devices.emulates_bf16", lambda: True)
    assert_refused(
        ssdtrt("-q", "compile", "missing.ts", "--backend", "torchscript", "--bf16"),
        "This processor has no BF16 arithmetic; emulated, it takes many times as long as FP32. Build in FP32, or build "
        "where the engine is to run.",
    )


RANGE = "is not MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, such as 1:8:32."
SIZES = "is not a list of batch sizes, such as 1,8,32."


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("compile", "--batch-size", "8", "--batch-range", "1:8:32"), "Give --batch-size or --batch-range, not both."),
        (("compile", "--bf16"), "The backend tensorrt takes --fp16 or --fp32, not --bf16."),
        (("compile", "--fp16", "--backend", "torchscript"), "The backend torchscript takes --fp32 or --bf16, not"),
        (("compile", "--backend", "torchscript", "--batch-size", "8"), "The backend torchscript takes any batch"),
        (("compile", "--backend", "torchscript", "--batch-range", "1:8:8"), "The backend torchscript takes any batch"),
        (("compile", "--batch-range", "8:1:32"), f"'8:1:32' {RANGE}"),
        (("compile", "--batch-range", "1:32:8"), f"'1:32:8' {RANGE}"),
        (("compile", "--batch-range", "0:1:2"), f"'0:1:2' {RANGE}"),
        (("compile", "--batch-range", "8"), f"'8' {RANGE}"),
        (("compile", "--batch-range", "1:2:3:4"), f"'1:2:3:4' {RANGE}"),
        (("compile", "--batch-range", "a:b:c"), f"'a:b:c' {RANGE}"),
        (("compile", "--batch-range", "1:²:3"), f"'1:²:3' {RANGE}"),
        (("compile", "--batch-size", "0"), "0 is not in the range 1<=x<=4096"),
        (("compile", "--batch-range", "1:8:5000"), "5000 is not in the range 1<=x<=4096"),
        (("compile", "--fp16", "--bf16"), "Give only one of --fp16 and --bf16."),
        (("bench", "--batch-size", "8,99999999999999999999"), "99999999999999999999 is not in the range 1<=x<=4096"),
        (("bench", "--device", "cuda:9999"), "'cuda:9999' is not cpu, cuda or cuda:N."),
        (
            ("evaluate", "--images", "i", "--annotations", "a", "--against", "foo"),
            "'foo' is not one of eager, eager-fp16.",
        ),
        (("compile", "--workspace-mib", "0"), "0 is not in the range x>=1"),
        (("compile", "--streams", "17"), "17 is not in the range 0<=x<=16"),
        (("compile", "--streams", "4", "--batch-range", "1:8:32"), "--streams is for one batch size and the backend"),
        (("compile", "--streams", "4", "--backend", "torchscript"), "--streams is for one batch size and the backend"),
        (("compile", "--backend", "onnx"), "'onnx' is not one of 'tensorrt', 'torchscript'"),
        (("bench", "--batch-size", "0"), f"'0' {SIZES}"),
        (("bench", "--batch-size", "1,,2"), f"'1,,2' {SIZES}"),
        (("bench", "--batch-size", "one"), f"'one' {SIZES}"),
        (("bench", "--rounds", "0"), "0 is not in the range x>=1"),
        (("detect", "a.ts", "b.jpg", "--threshold", "1.5"), "1.5 is not in the range 0<=x<=1"),
        (("detect", "a.ts", "b.jpg", "--threshold", "-0.1"), "-0.1 is not in the range 0<=x<=1"),
        (("detect", "a.ts", "b.jpg", "--threshold", "nan"), "'nan' is not in the range 0<=x<=1"),
        (("detect", "a.ts", "b.jpg", "--max-detections", "0"), "0 is not in the range 1<=x<=8732"),
        (("detect", "a.ts", "b.jpg", "--jsonl", "./b.jpg"), "./b.jpg is what is read; give another for --jsonl."),
        (
            ("detect", "a.ts", "b.jpg", "--jsonl", "a.ts.sha256"),
            "a.ts.sha256 is what is read; give another for --jsonl.",
        ),
        (("verify", "a.ts", "b.jpg", "--json", "b.jpg"), "b.jpg is what is read; give another for --json."),
        (("export", "--labels", "l.txt", "-o", "l.txt"), "l.txt is what is read; give another for -o."),
        (("detect", "a.ts"), "Missing argument 'IMAGE...'"),
        (("detect",), "Missing argument 'FILE'"),
        (("detect", "a.ts", "b.jpg", "--workers", "0"), "0 is not in the range x>=1"),
        (
            ("detect", "a.ts", "b.jpg", "--jsonl", "-", "--coco", "-"),
            "Only one of --jsonl and --coco can go to stdout.",
        ),
        (
            ("detect", "a.ts", "b.jpg", "--jsonl", "d.json", "--coco", "./d.json"),
            "Only one of --jsonl and --coco can be written to ./d.json.",
        ),
        (
            ("detect", "a.ts", "b.jpg", "-o", "out", "--coco", "out/../out/detections.json"),
            "Only one of -o and --coco can be written to out/../out/detections.json.",
        ),
        (
            ("evaluate", "--images", "in", "--annotations", "a.json", "--json", "r", "--coco", "r"),
            "Only one of --json and --coco can be written to r.",
        ),
        (("evaluate", "--images", "in", "--annotations", "a.json", "--coco", "-"), "--coco needs a file: the figures"),
        (("compile", "m.ts", "-o", "./m.ts"), "./m.ts is what is read; give another for -o."),
        (("export", "--weights", "c.pt", "-o", "c.pt"), "c.pt is what is read; give another for -o."),
        (("bench", "a.ts", "b.ts", "--json", "b.ts"), "b.ts is what is read; give another for --json."),
        (("verify", "a.ts", "--json", "a.ts"), "a.ts is what is read; give another for --json."),
        (("inspect", "a.ts", "--json", "a.ts"), "a.ts is what is read; give another for --json."),
        (("detect", "a.ts", "b.jpg", "--jsonl", "a.ts"), "a.ts is what is read; give another for --jsonl."),
        (("detect", "a.ts", "b.jpg", "--jsonl", "a", "--side-by-side"), "--side-by-side draws pictures: give -o too."),
        (("evaluate", "--images", "in"), "Missing option '--annotations'"),
        (("evaluate", "--annotations", "a.json"), "Missing option '--images'"),
        (("export", "--preprocess", "crop"), "'crop' is not one of 'eval', 'hub'"),
        (("verify", "--device", "gpu"), "'gpu' is not cpu, cuda or cuda:N."),
        (("export", "--method", "onnx"), "'onnx' is not one of 'trace', 'script'"),
        (("export", "--fast"), "--fast"),
        (("explode",), "No such command 'explode'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_exits_with_2(arguments, message, ssdtrt, tmp_path):
    done = ssdtrt(*arguments)
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ") and message in last.replace('"', "'")
    assert done.stdout == "" and os.listdir(tmp_path) == []


def test_no_file_takes_the_size(engine_for_8, ssdtrt):
    done = ssdtrt("-q", "bench", engine_for_8, "--batch-size", "1,64")
    assert_refused(done, f"No file takes batch size 64: {engine_for_8} takes batches of 1 to 32.")


@pytest.fixture
def engine_for_8(engine, tmp_path):
    """A CPU engine that says of itself that it takes batches of 1 to 32."""
    path = tmp_path / "range.engine.ts"
    with zipfile.ZipFile(engine) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("/extra/ssdtrt.json"):
                metadata = json.loads(content)
                metadata["build"]["batch"] = "1:8:32"
                content = json.dumps(metadata)
            new.writestr(name, content)
    return path


def test_version(ssdtrt):
    done = ssdtrt("--version")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"ssdtrt, version {package.__version__}\n", "")


def test_it_runs_as_a_module_and_imports_no_torch_for_its_help():
    done = subprocess.run(
        [sys.executable, "-m", "ssdtrt", "--version"], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"ssdtrt, version {package.__version__}\n")
    code = "import sys; from ssdtrt.cli import main\ntry: main(['compile', '--help'])\nfinally: "
    code += "print(sorted({'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]"


def test_these_are_the_commands():
    assert COMMANDS == [
        "bench", "compare", "compile", "detect", "doctor", "evaluate", "export", "inspect", "plot", "run",
        "verify",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_and_shows_how(command, ssdtrt, monkeypatch):
    arguments = (*([command] if command else []), "--help")
    for columns in (80, 200, 40):
        monkeypatch.setenv("COLUMNS", str(columns))
        done = ssdtrt(*arguments)
        assert done.exit_code == 0 and done.stderr == ""
        if columns >= 80:
            assert max(map(len, done.stdout.splitlines())) <= min(columns, 100)
        assert ("Example: ssdtrt " + command if command else "ssdtrt export") in done.stdout
        assert f"Usage: ssdtrt {command or ''}".rstrip() in done.stdout
    assert ssdtrt(*arguments[:-1], "-h").stdout == done.stdout


def test_quiet_leaves_stderr_empty_and_no_hint_goes_to_a_file(module, photographs, ssdtrt):
    loud = ssdtrt("detect", module, photographs[0], "--device", "cpu")
    quiet = ssdtrt("-q", "detect", module, photographs[0], "--device", "cpu")
    assert loud.exit_code == quiet.exit_code == 0
    assert loud.stderr.splitlines()[0] == "loading" and quiet.stderr == ""
    assert "next:" not in loud.stdout + loud.stderr
    told, shown = (re.sub(r"[\d.]+ images/s", "", done.stdout) for done in (quiet, loud))  # Without how fast it was.
    assert told == shown and quiet.stdout.splitlines()[0].split() == ["picture", "objects", "best"]


def on_a_terminal(arguments, folder):
    """Runs a command on a pseudo-terminal: its exit code and all that was shown there."""
    import pty

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "ssdtrt", *map(str, arguments)]
    child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=ENVIRONMENT)
    os.close(slave)
    shown = b""
    try:
        while block := os.read(master, 4096):
            shown += block
    except OSError:  # Linux: the last one on the other side has left.
        pass
    finally:
        os.close(master)
    return child.wait(), shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_on_a_terminal_it_ends_with_the_next_command(module, picture, tmp_path):
    shutil.copyfile(module, tmp_path / "m.ts")
    arguments = ["detect", "m.ts", picture.name, "--device", "cpu"]
    code, shown = on_a_terminal(arguments, tmp_path)
    assert code == 0
    assert shown.splitlines()[-1] == "next: ssdtrt verify m.ts gray.png"
    assert "\r\x1b[Kloading" in shown  # One line of progress, written over.
    assert "written to detections: 1 pictures and detections.json" in shown
    code, shown = on_a_terminal(["-q", *arguments], tmp_path)
    assert code == 0 and "next:" not in shown and "loading" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_a_build_at_once_and_leaves_nothing(module, tmp_path):
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "ssdtrt", "compile", str(module), "--backend", "torchscript", "-o", "a.engine.ts"]
    child = subprocess.Popen(
        command,
        cwd=out,
        env={**ENVIRONMENT, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # The terminal's Ctrl-C goes to a whole group of processes.
    )
    try:
        assert child.stderr.readline().startswith("building the FP32 engine")
        time.sleep(1)
        assert os.listdir(out) != [] and os.listdir(scratch) != []  # It is under way.
        os.killpg(child.pid, signal.SIGINT)
        started = time.monotonic()
        said, more = child.communicate(timeout=20)
        assert time.monotonic() - started < 5
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert (said, more) == ("", "interrupted; finished files are whole, nothing half-written is left\n")
    assert os.listdir(out) == [] and os.listdir(scratch) == []

"""The command line as a whole: its commands and their help, where it writes what, and how errors and signals end it."""

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile

import click
import pytest
import torch
from command_line import COMMANDS, ENVIRONMENT, INTERRUPTED, assert_refused, on_a_terminal
from PIL import Image

import forks
import ssdtrt as package
from conftest import runner
from known import metadata_like, typed
from ssdtrt.cli import main
from ssdtrt.commands.options import terminal
from ssdtrt.commands.terminal import Terminal
from ssdtrt.errors import ParityError, SsdtrtError
from ssdtrt.runners import torchscript


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
    for name in ("checkpoint.pt", "plain.ts", "data.zip"):
        files[name] = folder / name
    torch.save({"model": {"weight": torch.zeros(2, 3)}}, files["checkpoint.pt"])
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


BAD_FILES = {
    "missing.ts": "{path}: no such file. Make it first: ssdtrt export -o {path}",
    "folder": "{path} is a directory; expected a file that ssdtrt export or ssdtrt compile wrote.",
    "empty.ts": "{path} is empty; expected a file that ssdtrt export or ssdtrt compile wrote.",
    "text.ts": "{path} is not one of ssdtrt's files (it begins with b'not a mo'); "
    "expected one that ssdtrt export or ssdtrt compile wrote.",
    "truncated.ts": "{path} is truncated, damaged or not one of ssdtrt's files (File is not a zip file). Make it again.",
    "checkpoint.pt": "{path} is a checkpoint, not a module; first run: ssdtrt export --weights {path}.",
    "plain.ts": "{path} is a TorchScript archive without ssdtrt's metadata; "
    "make it with ssdtrt export or ssdtrt compile.",
    "data.zip": "{path} is a zip archive, but not one of ssdtrt's files.",
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("command", ["compile", "bench", "verify", "detect", "inspect"])
def test_a_file_that_is_none_of_ours(command, kind, bad, picture, ssdtrt, tmp_path):
    more = {"compile": ("--backend", "torchscript"), "detect": (picture,)}.get(command, ())
    done = ssdtrt("-q", command, bad[kind], *more)
    assert_refused(done, BAD_FILES[kind].format(path=bad[kind]))
    assert os.listdir(tmp_path) == ["gray.png"]


@pytest.mark.parametrize("command, name", [("compile", "ssd300.ts"), ("bench", "ssd300.engine.ts")])
def test_the_default_file_is_named_where_it_is_missing(command, name, ssdtrt, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    maker = "export" if command == "compile" else "export && ssdtrt compile --backend torchscript"
    more = ("--backend", "torchscript") if command == "compile" else ()
    assert_refused(ssdtrt("-q", command, *more), f"{name}: no such file. Make it first: ssdtrt {maker}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--weights", "random", "-o"),
        ("compile", "{module}", "--backend", "torchscript", "-o"),
        ("verify", "{module}", "--json"),
        ("bench", "{module}", "--json"),
        ("doctor", "--json"),
        ("inspect", "{module}", "--json"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_unwritable_output_is_refused_before_any_work(arguments, module, ssdtrt, tmp_path, monkeypatch):
    # `verify` first: imported by then, it does not take what stands in for a moment.
    for name in ("verify.load_engine", "model.weights.build_model", "runners.runner.load_engine"):
        monkeypatch.setattr(f"ssdtrt.{name}", lambda *_, **__: pytest.fail("work was begun"))
    arguments = [text.format(module=module) for text in arguments]
    advice = "Give another path with -o." if arguments[-1] == "-o" else "Give another path."
    done = ssdtrt("-q", *arguments, "nowhere/out.ts")
    assert_refused(done, f"nowhere/out.ts cannot be written: there is no directory nowhere. {advice}")
    (tmp_path / "taken").mkdir()
    done = ssdtrt("-q", *arguments, "taken")
    assert_refused(done, f"taken cannot be written: it is a directory. {advice}")
    assert os.listdir(tmp_path) == ["taken"] and os.listdir(tmp_path / "taken") == []


@pytest.mark.parametrize("command", ["compile", "verify", "detect", "evaluate"])
def test_the_commands_on_a_file_take_a_digest(command, module, ssdtrt, tmp_path):
    annotations = tmp_path / "annotations.json"
    (tmp_path / "a.jpg").touch()
    found = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    images = [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 10}]
    categories = [{"id": 1, "name": "person"}]
    annotations.write_text(json.dumps({"images": images, "annotations": [found], "categories": categories}))
    more = {
        "compile": ("--backend", "torchscript"),
        "detect": (annotations,),
        "evaluate": ("--images", tmp_path, "--annotations", annotations),
    }.get(command, ())
    done = ssdtrt("-q", command, module, "--sha256", "0" * 64, *more)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {module} has the SHA-256 ")
    assert f"; expected {'0' * 64}, as requested." in done.stderr


@pytest.mark.parametrize("command", ["verify", "bench", "detect"])
def test_a_gpu_that_is_not_there(command, known, picture, ssdtrt, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = ssdtrt("-q", command, known, *((picture,) if command == "detect" else ()), "--device", "cuda")
    assert_refused(done, f"There is no device cuda here: torch {torch.__version__} sees 0 CUDA GPUs.")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("compile", "--batch-size", "8", "--batch-range", "1:8:32"), "Give --batch-size or --batch-range, not both."),
        (("compile", "--bf16"), "The backend tensorrt takes --fp16 or --fp32 or --int8, not --bf16."),
        (("compile", "--fp16", "--backend", "torchscript"), "The backend torchscript takes --fp32 or --bf16, not"),
        (("compile", "--backend", "torchscript", "--batch-size", "8"), "The backend torchscript takes any batch"),
        (("compile", "--backend", "torchscript", "--batch-range", "1:8:8"), "The backend torchscript takes any batch"),
        (("compile", "--batch-range", "8:1:32"), "A batch range is MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX; found 8:1"),
        (("compile", "--batch-range", "8"), "'8' is not MIN:OPT:MAX, such as 1:8:32."),
        (("compile", "--batch-size", "0"), "0 is not in the range 1<=x<=4096"),
        (("compile", "--fp16", "--bf16"), "Give only one of --fp16 and --bf16."),
        (
            ("evaluate", "--images", "i", "--annotations", "a", "--against", "foo"),
            "'foo' is not one of eager-fp32, eager-fp16.",
        ),
        (("bench", "--against", "eager"), "'eager' is not one of eager-fp32, eager-tf32, eager-fp16, eager-fp16-graph"),
        (("compile", "--workspace-mib", "0"), "0 is not in the range x>=1"),
        (("compile", "--streams", "17"), "17 is not in the range 0<=x<=16"),
        (("compile", "--streams", "4", "--backend", "torchscript"), "--streams is for the backend tensorrt."),
        (("compile", "--backend", "onnx"), "'onnx' is not one of 'tensorrt', 'torchscript'"),
        (("bench", "--batch-size", "0"), "0 is not in the range 1<=x<=4096"),
        (("bench", "--batch-size", "1,,2"), "'' is not a valid whole number"),
        (("bench", "--rounds", "0"), "0 is not in the range x>=1"),
        (("detect", "a.ts", "b.jpg", "--threshold", "1.5"), "1.5 is not in the range 0<=x<=1"),
        (("detect", "a.ts", "b.jpg", "--max-detections", "0"), "0 is not in the range 1<=x<=8732"),
        (("detect", "a.ts"), "Missing argument 'IMAGE...'"),
        (("detect",), "Missing argument 'FILE'"),
        (
            ("detect", "a.ts", "b.jpg", "-o", "boxes.jpg"),
            "-o is a folder, and boxes.jpg is called like a picture: give a folder such as -o out.",
        ),
        (("detect", "a.ts", "b.jpg", "-o", "new/boxes.mp4"), "new/boxes.mp4 is called like a video: give a folder"),
        (("detect", "a.ts", "b.jpg", "-o", "found.json"), "found.json is called like JSON: give a folder"),
        (("detect", "a.ts", "b.jpg", "--max-bytes", "20MB"), "'20MB' is not a valid whole number."),
        (("detect", "a.ts", "b.jpg", "--timeout", "10s"), "'10s' is not a valid number."),
        (("detect", "a.ts", "b.jpg", "--threshold", "40%"), "'40%' is not a valid number."),
        (("detect", "a.ts", "b.jpg", "--workers", "0"), "0 is not in the range x>=1"),
        (("detect", "a.ts", "b.jpg", "--jsonl", "a", "--side-by-side"), "--side-by-side draws pictures: give -o too."),
        (("detect", "a.ts", "b.jpg", "--jsonl", "./b.jpg"), "./b.jpg is an input; give another path for --jsonl."),
        (("detect", "a.ts", "b.jpg", "--jsonl", "a.ts"), "a.ts is an input; give another path for --jsonl."),
        (
            ("detect", "a.ts", "b.jpg", "--jsonl", "a.ts.sha256"),
            "a.ts.sha256 is an input; give another path for --jsonl.",
        ),
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
        (("evaluate", "--images", "in"), "Missing option '--annotations'"),
        (("evaluate", "--annotations", "a.json"), "Missing option '--images'"),
        (("verify", "a.ts", "b.jpg", "--json", "b.jpg"), "b.jpg is an input; give another path for --json."),
        (("verify", "a.ts", "--json", "a.ts"), "a.ts is an input; give another path for --json."),
        (("verify", "--device", "gpu"), "'gpu' is not cpu, cuda or cuda:N."),
        (("export", "--labels", "l.txt", "-o", "l.txt"), "l.txt is an input; give another path for -o."),
        (("export", "--weights", "c.pt", "-o", "c.pt"), "c.pt is an input; give another path for -o."),
        (("export", "--preprocess", "crop"), "'crop' is not one of 'eval', 'hub'"),
        (("export", "--method", "onnx"), "'onnx' is not one of 'trace', 'script'"),
        (("export", "--format", "plan"), "'plan' is not one of 'torchscript', 'onnx'"),
        (("export", "--format", "onnx", "--method", "trace"), "leave it out with --format onnx."),
        (("export", "--detector"), "--detector needs --format onnx; a TorchScript detector is built: ssdtrt compile"),
        (
            ("export", "--format", "onnx", "--labels", "ssd300.onnx"),
            "ssd300.onnx is an input; give another path for -o.",
        ),
        (("export", "--fast"), "--fast"),
        (("compile", "m.ts", "-o", "./m.ts"), "./m.ts is an input; give another path for -o."),
        (("bench", "a.ts", "b.ts", "--json", "b.ts"), "b.ts is an input; give another path for --json."),
        (("inspect", "a.ts", "--json", "a.ts"), "a.ts is an input; give another path for --json."),
        (
            ("export", "--weights", "random", "-o", ""),
            "Invalid value for '-o' / '--output': it is empty; give a value, or",
        ),
        (("detect", "a.ts", ""), "Invalid value for 'IMAGE...': it is empty"),
        (("detect", "a.ts", "b.jpg", "--sha256", ""), "Invalid value for '--sha256': it is empty"),
        (("detect", "a.ts", "b.jpg", "--json", ""), "Invalid value for '--json': it is empty"),
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


def test_version(ssdtrt):
    done = ssdtrt("--version")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"ssdtrt, version {package.__version__}\n", "")


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "ssdtrt", "--version"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"ssdtrt, version {package.__version__}\n")


def test_ctrl_c_while_the_command_is_imported_is_one_line_and_130(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    known = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(tmp_path), ENVIRONMENT.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "ssdtrt", "--version"]
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_no_help_imports_what_takes_long():
    code = (
        "import sys\nfrom ssdtrt.cli import main\n"
        "for command in ([], *([name] for name in main.commands)):\n"
        "    main([*command, '--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'torchvision', 'numpy', 'PIL', 'matplotlib', 'packaging'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr


def test_these_are_the_commands():
    assert COMMANDS == [
        "bench", "cache", "compare", "compile", "detect", "doctor", "evaluate", "export", "inspect", "plot", "profile",
        "report", "run", "serve", "triton", "triton-check", "verify",
    ]  # fmt: skip


def leaves(command, *names):
    """The commands below one, by their names."""
    if not isinstance(command, click.Group):
        return {names: command}
    return {key: leaf for name, one in command.commands.items() for key, leaf in leaves(one, *names, name).items()}


def test_every_command_takes_the_same_three_options(ssdtrt, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for names in leaves(main):
        options = [line.split("  ") for line in ssdtrt(*names, "--help").stdout.split("Options:\n")[1].splitlines()]
        shown = {line[1]: line[-1].strip() for line in options}
        assert len([line for line in options if line[1] in ("-q, --quiet", "-v, --verbose", "--json FILE")]) == 3, names
        assert (shown["-q, --quiet"], shown["-v, --verbose"]) == (
            "No progress and no hints.", "Show the libraries' log messages."
        )  # fmt: skip


def test_every_command_is_quiet_or_verbose_by_options_behind_it(capsys):
    root = logging.getLogger()
    before = root.level
    try:
        for names, command in leaves(main).items():
            for options, shown, level in (([], "working\n", before), (["-q", "--verbose"], "", logging.DEBUG)):
                terminal.begin(quiet=False)
                root.setLevel(before)
                command.make_context(names[-1], options, parent=click.Context(main), resilient_parsing=True)
                terminal.progress("working")
                assert (capsys.readouterr().err, root.level) == (shown, level), names
    finally:
        root.setLevel(before)


def test_the_list_of_commands_is_not_cut_short(ssdtrt, monkeypatch):
    for columns in ("40", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        assert "..." not in ssdtrt("--help").stdout.split("Commands:")[1]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_and_shows_how(command, ssdtrt, monkeypatch):
    arguments = (*([command] if command else []), "--help")
    for columns in (80, 200, 40):
        monkeypatch.setenv("COLUMNS", str(columns))
        done = ssdtrt(*arguments)
        assert done.exit_code == 0 and done.stderr == ""
        assert max(map(len, done.stdout.splitlines())) <= min(columns, 100)
        shown = " ".join(done.stdout.split())
        assert ("Example: ssdtrt " + command if command else "ssdtrt export") in shown
        assert f"Usage: ssdtrt {command or ''}".rstrip() in shown
        assert " RANGE" not in done.stdout  # click's name of a number.
    assert ssdtrt(*arguments[:-1], "-h").stdout == done.stdout


@pytest.mark.parametrize("columns", ["1", "2", "3"])
def test_help_and_usage_in_a_terminal_too_narrow_for_them(columns, ssdtrt, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert ssdtrt("detect", "--help").exit_code == 0
    done = ssdtrt("detect")
    assert done.exit_code == 2 and done.stderr.endswith("Error: Missing argument 'FILE'.\n")


def test_quiet_leaves_stderr_empty_and_no_hint_goes_to_a_file(known, photographs, ssdtrt):
    loud = ssdtrt("detect", known, photographs[0], "--device", "cpu")
    quiet = ssdtrt("detect", known, photographs[0], "--device", "cpu", "-q")
    assert loud.exit_code == quiet.exit_code == 0
    assert loud.stderr.splitlines()[0] == "loading" and quiet.stderr == ""
    assert "next:" not in loud.stdout + loud.stderr
    assert loud.stdout.splitlines()[-1] == "written to detections: 1 picture and detections.json"
    assert quiet.stdout.splitlines()[-1] == "written to detections-2: 1 picture and detections.json"
    first, second = (  # Without how fast it was.
        re.sub(r"[\d.]+ images/s|detections-2", "", done.stdout.replace("to detections:", "to :"))
        for done in (quiet, loud)
    )
    assert first == second and quiet.stdout.splitlines()[0].split() == ["picture", "objects", "best"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_on_a_terminal_it_ends_with_the_next_command(known, picture, tmp_path):
    shutil.copyfile(known, tmp_path / "m.ts")
    arguments = ["detect", "m.ts", picture.name, "--device", "cpu"]
    code, shown = on_a_terminal(arguments, tmp_path)
    assert code == 0
    assert shown.splitlines()[-1] == "next: ssdtrt verify m.ts gray.png"
    assert "\r\x1b[Kloading" in shown  # One line of progress, written over.
    assert "written to detections: 1 picture and detections.json" in shown


@pytest.fixture
def next_of(ssdtrt, monkeypatch, kept_engines):
    """Runs a command, and returns the one that its hint names: `next_of("export", ...)` -> its words."""
    monkeypatch.setattr(Terminal, "hints", property(lambda _: True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    quick = {"bench": {"rounds": 1, "iterations": 1, "warmup": 1}}

    def go(*words):
        done = ssdtrt(*words, default_map=quick)
        last = done.stderr.splitlines()[-1]
        assert done.exit_code == 0 and last.startswith("next: ssdtrt "), (words, done.stderr)
        return shlex.split(last)[2:]

    return go


def test_the_hints_lead_from_command_to_command_without_a_gpu(next_of, module, engine, photographs, tmp_path):
    """Every command that is named works as it is printed, and names paths as the user does."""
    coffee = next(str(path) for path in photographs if path.name == "coffee.jpg")
    words, road = ["export", "--weights", "random", "-o", "./ssd300.ts"], []
    for _ in range(5):
        words = next_of(*words)
        road.append(shlex.join(words))
    assert road == [
        "compile ./ssd300.ts --backend torchscript",
        "bench ssd300.engine.ts",
        f"detect ssd300.engine.ts {coffee}",
        f"verify ssd300.engine.ts {coffee}",
        "bench ssd300.engine.ts",
    ]
    assert next_of("inspect", "./ssd300.ts") == ["compile", "./ssd300.ts", "--backend", "torchscript"]
    assert next_of("inspect", engine) == ["bench", str(engine)]
    shutil.copyfile(engine, tmp_path / "moved.engine.ts")
    os.rename("ssd300.ts", "elsewhere.ts")
    detect = ["detect", "moved.engine.ts", coffee, "--range", "0:300", "--max-pixels", "300000"]
    options = ["--range", "0.0:300.0", "--max-pixels", "300000"]
    assert next_of(*detect) == ["bench", "moved.engine.ts"]  # It is not verified without its module.
    verify = next_of(*detect, "--module", module)
    assert verify == ["verify", "moved.engine.ts", coffee, "--module", str(module), *options]
    assert next_of(*verify) == ["bench", "moved.engine.ts"]


# How errors end a command


@pytest.fixture
def failing(monkeypatch):
    """`ssdtrt inspect FILE` whose work raises an error: `failing(error)` -> click's result."""

    def call(error, *options):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("ssdtrt.artifact.inspection.inspect_file", fail)
        return runner().invoke(main, [*options, "inspect", "a.ts"])

    return call


def test_an_error_of_ours_is_one_line(failing):
    done = failing(SsdtrtError("Found this; expected that. Do so."))
    assert (done.exit_code, done.stderr) == (1, "Error: Found this; expected that. Do so.\n")


def test_a_refused_engine_is_shown_with_its_figures(failing):
    report = typed(metadata_like("engine")).parity
    done = failing(ParityError("The engine is too far.", report))
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("FP32 against FP32 eager on ") and lines[-1] == "Error: The engine is too far."


def test_what_the_system_refuses_is_one_line_with_the_file(failing):
    done = failing(PermissionError(13, "Permission denied", "/a/file"))
    assert (done.exit_code, done.stderr) == (1, "Error: /a/file: Permission denied\n")
    done = failing(OSError("no number"))
    assert (done.exit_code, done.stderr) == (1, "Error: no number\n")


def test_a_gpu_that_fails_is_one_line_and_a_bug_keeps_its_traceback(failing):
    done = failing(RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA"))
    assert done.exit_code == 1 and done.stderr.startswith("Error: The GPU failed (CUDA error: unspecified launch")
    assert len(done.stderr.splitlines()) == 1
    bug = RuntimeError("shape '[7]' is invalid")
    assert failing(bug).exception is bug
    bug = KeyError("a")
    assert failing(bug).exception is bug


def test_ctrl_c_is_one_line_and_130(failing):
    done = failing(KeyboardInterrupt())
    assert (done.exit_code, done.stderr) == (130, INTERRUPTED + "\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_sigterm_is_one_line_and_143_and_its_handler_is_put_back(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)

    def wait(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr("ssdtrt.artifact.inspection.inspect_file", wait)
    done = runner().invoke(main, ["inspect", "a.ts"])
    assert (done.exit_code, done.stderr) == (143, INTERRUPTED.replace("interrupted", "terminated") + "\n")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_inside_a_destructor_ends_the_command_too(sent, code, monkeypatch):
    class Destroyed:
        def __del__(self):
            os.kill(os.getpid(), sent)
            time.sleep(1)  # The handler runs here, and Python drops what it raises.

    def wait(*_, **__):
        Destroyed()
        time.sleep(60)

    monkeypatch.setattr("ssdtrt.artifact.inspection.inspect_file", wait)
    before = sys.unraisablehook
    done = runner().invoke(main, ["inspect", "a.ts"])
    assert done.exit_code == code and sys.unraisablehook is before


def test_a_command_runs_in_a_thread_too(known):
    results = []
    thread = threading.Thread(target=lambda: results.append(runner().invoke(main, ["inspect", str(known)])))
    thread.start()
    thread.join()
    assert results[0].exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_a_build_and_leaves_nothing(module, tmp_path):
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    command = ["compile", module, "--backend", "torchscript", "-o", "out/a.engine.ts"]
    child = forks.begin(tmp_path, command, TMPDIR=str(scratch))
    stderr, end = tmp_path / "stderr", time.monotonic() + 60
    while not (os.listdir(scratch) and stderr.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert stderr.read_text().startswith("building the FP32 engine")
    assert os.listdir(out) != []  # It is under way.
    os.killpg(child, signal.SIGINT)  # The terminal's Ctrl-C goes to a whole group of processes.
    assert forks.end(child) == 130 and (tmp_path / "stdout").read_text() == ""
    assert stderr.read_text().splitlines()[1:] == [INTERRUPTED]
    assert os.listdir(out) == [] and os.listdir(scratch) == []

"""What is gathered on this machine, and that nothing that is met there can end it."""

import os
import platform
import signal
import subprocess
import sys
import time

import pytest
import torch
from drivers import nvidia_smi, nvml  # noqa: F401
from machines import NEWEST, machine, shadow  # noqa: F401

from ssdtrt.diagnosis import gather
from ssdtrt.diagnosis.checks import check_facts
from ssdtrt.diagnosis.facts import (
    PACKAGES,
    Facts,
    Failure,
    Package,
    System,
    Torch,
    TorchTensorrt,
    Torchvision,
)
from ssdtrt.diagnosis.gather import (
    Probe,
    _folder,
    _package,
    _weights_folder,
    gather_facts,
    guarded,
    run_test_build,
)
from ssdtrt.system.gpu_state import Driver, Gpu

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
# As much of it as the probe asks for.
TORCH = """
from types import SimpleNamespace
__version__, version = "2.14.0", SimpleNamespace(cuda="13.0")
cuda = SimpleNamespace(is_available=lambda: False)
def zeros(*_, device): raise RuntimeError("no driver")
"""
KINDS = {"driver": Driver, "torch": Torch, "torchvision": Torchvision, "torch_tensorrt": TorchTensorrt}


def probed(name, seconds=60.0):
    """What a real process finds."""
    return Probe(name, KINDS[name], f"importing {name}", seconds).answer()


def of(findings, check):
    """The findings of one check, as (status, found, fix)."""
    return [(one.status, one.found, one.fix) for one in findings if one.check == check]


def gone(pid):
    """Whether a process ends soon; a zombie has ended."""
    for _ in range(1000):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().split(") ")[1][0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_everything_is_gathered(shadow, nvidia_smi, monkeypatch):  # noqa: F811
    """Of a torch and a torchvision that are imported at once; `doctor` finds the real ones in `test_this_machine`."""
    shadow("torch", TORCH)
    shadow("torchvision", "__version__ = '0.98'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    steps = []
    found = gather_facts(steps.append)
    assert found.system == System(platform.system(), platform.machine(), platform.python_version())
    assert found.visible == "1" and set(found.packages) == set(PACKAGES)
    assert set(found.folders) == {"weights folder", "temporary folder", "current folder"}
    assert found.torch == Torch("2.14.0", "13.0", (), "RuntimeError: no driver")
    assert found.torchvision == Torchvision("0.98")
    assert steps[:2] == ["looking at the machine", "asking for the driver, 0 s"]
    assert {step.split(",")[0] for step in steps[2:]} >= {"importing torch", "importing torchvision"}


@pytest.mark.parametrize(
    "code, expected",
    [
        ("raise ImportError('libcudart.so.13: no such file\\nmore')", "ImportError: libcudart.so.13: no such file"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os; os.abort()", "importing torch ended with signal 6"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "importing torch ended with signal 11"),
        ("import os; os.write(2, b'one\\ntwo\\n'); os._exit(7)", "importing torch ended with exit code 7: two"),
        ("print('ssdtrt-probe')", "AttributeError: module 'torch' has no attribute '__version__'"),
        ("import nothing_of_ours", "ModuleNotFoundError: No module named 'nothing_of_ours'"),
    ],
)
def test_a_broken_torch_is_a_finding(shadow, code, expected):  # noqa: F811
    shadow("torch", code)
    found = probed("torch")
    assert isinstance(found, Failure) and found.error == expected
    assert of(check_facts(machine(torch=found)), "torch") == [
        ("problem", f"cannot be imported ({expected})", f"pip install --force-reinstall {NEWEST}")
    ]


def test_an_answer_of_no_form_is_a_failure(shadow):  # noqa: F811
    shadow("torch", 'import os; print(\'ssdtrt-probe:{"type": "Torch"}\', flush=True); os._exit(0)')
    assert probed("torch") == Failure("ValidationError: Object missing required field `version`")


def test_an_import_that_hangs_is_ended(shadow, tmp_path):  # noqa: F811
    shadow("torch", f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    probe = Probe("torch", Torch, "importing torch", 3.0)
    assert probe.answer() == Failure("importing torch did not end within 3 s")
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_an_import_prints_does_not_matter(shadow):  # noqa: F811
    noise = "import sys; print('x' * 300000, end=''); print('y' * 300000, file=sys.stderr)\n"
    shadow("torchvision", f"{noise}import warnings; warnings.warn('old')\n__version__ = '0.99'")
    assert probed("torchvision") == Torchvision("0.99")


def test_a_torch_tensorrt_that_is_whole(shadow):  # noqa: F811
    shadow("tensorrt", "__version__ = '10.3.0'")
    shadow("torch_tensorrt", "__version__ = '2.8.0'\nclass ENABLED_FEATURES: torchscript_frontend = False\ndynamo = 1")
    assert probed("torch_tensorrt") == TorchTensorrt("2.8.0", torchscript=False, dynamo=True, tensorrt="10.3.0")


def test_the_child_finds_what_this_process_finds(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("__version__ = '0.98'")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert probed("torchvision") == Torchvision("0.98")


def test_the_driver_is_asked_in_a_process_of_its_own(shadow, nvidia_smi):  # noqa: F811
    shadow("pynvml", "raise ImportError")
    nvidia_smi("echo NVIDIA H200, 580.159.04, 143771, [N/A], 9.0")
    assert probed("driver") == Driver("580.159.04", (Gpu("NVIDIA H200", "9.0", 143771),), "nvidia-smi")
    nvidia_smi("exit 0")
    assert probed("driver") == Failure("nvidia-smi lists no GPU")


@pytest.mark.parametrize("code", ["import time\ndef nvmlInit(): time.sleep(600)", "import os\nos.abort()"])
def test_an_nvml_that_hangs_or_crashes_is_a_finding(shadow, nvidia_smi, code):  # noqa: F811
    shadow("pynvml", f"{code}\nclass NVMLError(Exception): pass")
    hangs = "sleep" in code
    found = Probe("driver", Driver, "asking for the driver", 2 if hangs else 60).answer()
    how = "did not end within 2 s" if hangs else "ended with signal 6"
    assert found == Failure(f"asking for the driver {how}")


def metadata(shadow, name, text):  # noqa: F811
    """A distribution's dist-info folder."""
    folder = shadow.folder / f"{name.replace('-', '_')}-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_bytes(text)


def test_metadata_of_versions_that_do_not_fit(shadow):  # noqa: F811
    requires = b"Requires-Dist: torch<2.15.0,>=2.14.0\nRequires-Dist: tensorrt-cu13<11.2.0,>=11.1.0\n"
    metadata(shadow, "torch-tensorrt", b"Metadata-Version: 2.1\nName: torch-tensorrt\nVersion: 2.14.0\n" + requires)
    metadata(shadow, "tensorrt-cu13", b"Metadata-Version: 2.1\nName: tensorrt-cu13\nVersion: 10.16.1.11\n")
    packages = {name: _package(name) for name in PACKAGES}
    assert packages["torch-tensorrt"].version == "2.14.0" and packages["tensorrt-cu12"] == Package()
    facts = machine(
        packages=packages, torch=Torch("2.15.0", "13.0", (Gpu("A"),)), torch_tensorrt=Failure("OSError: no")
    )
    found = check_facts(facts)
    assert of(found, "Torch-TensorRT")[0][1] == (
        "2.14.0 does not fit: torch-tensorrt 2.14.0 needs torch<2.15.0,>=2.14.0; found 2.15.0 (OSError: no)"
    )
    assert of(found, "TensorRT")[0][:2] == (
        "problem",
        "10.16.1.11 does not fit: torch-tensorrt 2.14.0 needs tensorrt-cu13<11.2.0,>=11.1.0; found 10.16.1.11",
    )


@pytest.mark.filterwarnings("ignore:Implicit None:DeprecationWarning")
@pytest.mark.parametrize("text", [b"", b"Name: tensorrt\n", b"\xff\xfe\x00", b"Name: tensorrt\nVersion: \n"])
def test_broken_metadata_is_a_finding(shadow, text):  # noqa: F811
    metadata(shadow, "tensorrt", text)
    packages = {name: guarded(_package, name) for name in PACKAGES}
    assert isinstance(packages["tensorrt"], Failure)
    (status, found, fix) = of(check_facts(machine(packages=packages)), "tensorrt metadata")[0]
    assert status == "warning" and found.startswith("cannot be read (") and fix.endswith("--force-reinstall tensorrt")


def test_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "not" / "there"))
    found = _folder(_weights_folder)
    assert found.path == str(tmp_path / "not" / "there" / "hub" / "checkpoints")
    assert found.free_mib > 0 and not list(tmp_path.iterdir())
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _weights_folder() == tmp_path / "torch" / "hub" / "checkpoints"
    assert str(_weights_folder().parent) == torch.hub.get_dir()


def test_a_folder_that_is_a_file_or_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    found = guarded(_folder, lambda: tmp_path / "file" / "hub")
    assert found == Failure(f"{tmp_path}/file cannot be written: Not a directory")


@no_gpu
def test_the_process_of_the_test_build_says_why_it_cannot():
    steps = []
    found = run_test_build(steps.append)
    assert found.error.startswith("A TensorRT engine cannot be built or run here; missing: a CUDA GPU")
    assert steps[0] == "building a tiny engine, 0 s"


def test_interrupting_ends_every_child(shadow, monkeypatch):  # noqa: F811
    shadow("torch", "import time; time.sleep(600)")
    children = []
    start = gather._start

    def record(name):
        children.append(start(name))
        return children[-1]

    def interrupt(text):
        if text.startswith("importing"):
            raise KeyboardInterrupt

    monkeypatch.setattr(gather, "_start", record)
    with pytest.raises(KeyboardInterrupt):
        gather_facts(interrupt)
    assert len(children) == 4 and all(child.returncode is not None for child in children)
    assert all(gone(child.pid) for child in children)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends children with their parent")
def test_no_child_outlives_a_doctor_that_is_killed(shadow, tmp_path):  # noqa: F811
    shadow(
        "torch", f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
    )
    doctor = subprocess.Popen([sys.executable, "-m", "ssdtrt", "doctor"], stderr=subprocess.DEVNULL)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
        assert doctor.poll() is None
        time.sleep(0.05)
    doctor.kill()
    doctor.wait()
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends children with their parent")
def test_a_child_that_starts_when_its_doctor_has_ended_ends_too(monkeypatch):
    monkeypatch.setattr(os, "getpid", os.getppid)  # So that this process is not the parent that the child looks for.
    child = gather._start("driver")
    assert child.communicate()[0] == "" and child.returncode == -signal.SIGKILL


def test_a_child_that_cannot_be_started_is_a_failure(monkeypatch):
    monkeypatch.setattr(sys, "executable", os.devnull)
    found = gather_facts()
    assert isinstance(found, Facts) and found.torch == Failure(
        "PermissionError: [Errno 13] Permission denied: '/dev/null'"
    )

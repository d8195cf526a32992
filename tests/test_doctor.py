"""What `doctor` finds, on this machine and on others; and that nothing it meets can end it."""

import copy
import json
import os
import re
import subprocess
import sys
import time

import pytest
import torch
import torchvision

import ssdtrt as package
from conftest import ROOT
from ssdtrt import config
from ssdtrt.artifact import runtime
from ssdtrt.commands.report_text import doctor_text
from ssdtrt.diagnosis import checks, facts, probe, requirements
from ssdtrt.diagnosis.checks import judge, judge_trial
from ssdtrt.diagnosis.report import TRIAL, DoctorReport, Finding

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
GPU_FIX = (
    "Use a machine with an NVIDIA GPU and its driver, where nvidia-smi lists it; "
    "in a container, start that with --gpus all."
)
NEWEST = "torch==2.14.0 torchvision==0.29.0 torch-tensorrt==2.14.0"
HOW = "pip install 'ssdtrt[tensorrt]' (or, where only PyPI can be reached, 'ssdtrt[tensorrt-pypi]' with Python 3.10)"
TRT_214 = ["numpy", "torch<2.15.0,>=2.14.0", "tensorrt-cu13<11.2.0,>=11.1.0", "tensorrt-cu13-libs<11.2.0,>=11.1.0"]
TRT_22 = ["torch (<2.3.0,>=2.2.0)", "tensorrt (<8.7,>=8.6)", "torchvision (<0.18.0,>=0.17.0) ; extra == 'torchvision'"]
GOOD = {
    "system": {"os": "Linux", "architecture": "x86_64", "python": "3.11.7"},
    "driver": {
        "version": "580.159.04",
        "gpus": [{"name": "NVIDIA H200", "sm": "9.0", "memory_mib": 143771, "free_mib": 143000}],
        "error": None,
    },
    "packages": {
        "torch": {"version": "2.14.0", "requires": [], "error": None},
        "torchvision": {"version": "0.29.0", "requires": ["numpy", "torch (==2.14.0)"], "error": None},
        "torch-tensorrt": {"version": "2.14.0", "requires": TRT_214, "error": None},
        "tensorrt": {"version": None, "requires": [], "error": None},
        "tensorrt-cu12": {"version": None, "requires": [], "error": None},
        "tensorrt-cu13": {"version": "11.1.0.5", "requires": [], "error": None},
    },
    "folders": {
        name: {"path": f"/data/{name.split()[0]}", "free_mib": 40000, "error": None}
        for name in ("weights folder", "temporary folder", "current folder")
    },
    "visible": None,
    "torch": {
        "version": "2.14.0+cu130",
        "cuda": "13.0",
        "gpus": [{"name": "NVIDIA H200", "sm": "9.0", "memory_mib": 143771}],
        "error": None,
        "no_gpu": None,
    },
    "torchvision": {"version": "0.29.0+cu130", "error": None},
    "torch_tensorrt": {
        "version": "2.14.0", "torchscript": True, "dynamo": True, "tensorrt": "11.1.0.5", "error": None
    },
}  # fmt: skip


def facts(**changes):
    """A machine where everything is right, but for `changes`: `torch__version="2.2.2"` goes one level down."""
    made = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = made
        for step in way:
            place = place[step]
        place[last] = value
    return made


def oldest_stack(**changes):
    """The stack of ssdtrt[tensorrt-pypi], but for `changes`."""
    made = facts(
        system__python="3.10.13",
        torch__version="2.2.2+cu121",
        torch__cuda="12.1",
        torchvision__version="0.17.2+cu121",
        torch_tensorrt={"version": "2.2.0", "torchscript": True, "dynamo": True, "tensorrt": "8.6.0", "error": None},
    )
    made["packages"].update({
        "torch": {"version": "2.2.2", "requires": [], "error": None},
        "torchvision": {"version": "0.17.2", "requires": ["torch (==2.2.2)"], "error": None},
        "torch-tensorrt": {"version": "2.2.0", "requires": TRT_22, "error": None},
        "tensorrt": {"version": "8.6.0", "requires": [], "error": None},
        "tensorrt-cu13": {"version": None, "requires": [], "error": None},
    })  # fmt: skip
    for path, value in changes.items():
        part, _, key = path.partition("__")
        made[part] = {**made[part], key: value} if key else value
    return made


def bad(findings):
    """What is not ok, as tuples."""
    return [(f.check, f.status, f.found, f.fix) for f in findings if f.status != "ok"]


def of(findings, check):
    """The findings of one check, as (status, found, fix)."""
    return [(f.status, f.found, f.fix) for f in findings if f.check == check]


def test_a_machine_where_everything_is_right():
    report = DoctorReport(tuple(judge(facts())))
    assert [(f.check, f.status, f.found) for f in report.findings] == [
        ("system", "ok", "Linux x86_64, Python 3.11.7"),
        ("driver", "ok", "NVIDIA 580.159.04"),
        ("GPU 0", "ok", "NVIDIA H200, SM 9.0, 140.4 GiB, 139.6 GiB free"),
        ("torch", "ok", "2.14.0+cu130, built for CUDA 13.0"),
        ("torchvision", "ok", "0.29.0+cu130"),
        ("Torch-TensorRT", "ok", "2.14.0"),
        ("front ends", "ok", "TorchScript, Dynamo"),
        ("TensorRT", "ok", "11.1.0.5; FP16 comes from the module's own type, which ssdtrt sees to"),
        ("weights folder", "ok", "/data/weights, 39.1 GiB free"),
        ("temporary folder", "ok", "/data/temporary, 39.1 GiB free"),
        ("current folder", "ok", "/data/current, 39.1 GiB free"),
        ("CPU engine", "ok", "works here: ssdtrt compile --backend torchscript"),
    ]
    assert report.can_build and report.problems == ()
    assert all(f.fix == "" for f in report.findings)


def test_the_stack_that_the_figures_were_measured_with():
    assert bad(judge(oldest_stack())) == [
        (
            "torch",
            "warning",
            "2.2.2+cu121, built for CUDA 12.1; a crafted checkpoint can run code while it loads (CVE-2025-32434)",
            "Load only checkpoints that you trust (--trust-weights).",
        )
    ]


NO_TRT = {"error": "ModuleNotFoundError: No module named 'torch_tensorrt'", "missing": "torch_tensorrt"}
NO_TORCH = {"error": "ModuleNotFoundError: No module named 'torch'", "missing": "torch"}
ABSENT = {"version": None, "requires": [], "error": None}
CRASH = {"error": "importing torch_tensorrt ended with signal 11"}
JUDGED = {
    "python too old": (
        {"system__python": "3.9.2"},
        [("system", "warning", "Linux x86_64, Python 3.9.2", "Use Python 3.10 to 3.13, which ssdtrt is made for.")],
    ),
    "python too new": (
        {"system__python": "3.14.0"},
        [("system", "warning", "Linux x86_64, Python 3.14.0", "Use Python 3.10 to 3.13, which ssdtrt is made for.")],
    ),
    "no nvidia-smi, yet a GPU": (
        {"driver": {"error": "nvidia-smi is not on the PATH", "missing": True}},
        [("driver", "warning", "nvidia-smi is not on the PATH", "Not needed while torch sees the GPU.")],
    ),
    "no GPU": (
        {"driver": {"error": "nvidia-smi lists no GPU"}, "torch__gpus": [], "torch__no_gpu": "RuntimeError: no driver"},
        [
            ("driver", "warning", "nvidia-smi lists no GPU", GPU_FIX),
            ("GPU", "problem", "none is seen (RuntimeError: no driver)", GPU_FIX),
        ],
    ),
    "hidden GPU": (
        {"visible": "", "torch__gpus": []},
        [("GPU", "problem", "torch sees none of them: CUDA_VISIBLE_DEVICES is ''", "unset CUDA_VISIBLE_DEVICES")],
    ),
    "driver too old": (
        {"driver__version": "550.54.15", "torch__gpus": [], "torch__no_gpu": "RuntimeError: too old"},
        [
            (
                "driver",
                "problem",
                "NVIDIA 550.54.15, too old for CUDA 13.0, which torch 2.14.0+cu130 is built for",
                "Install an NVIDIA driver of 580 or later, or an older torch.",
            ),
            (
                "GPU",
                "problem",
                "torch sees none of them (RuntimeError: too old)",
                "Restart the machine, or update the driver.",
            ),
        ],
    ),
    "torch for the CPU": (
        {"torch__cuda": None, "torch__gpus": [], "torch__version": "2.14.0+cpu", "torch__no_gpu": "AssertionError"},
        [
            (
                "GPU",
                "problem",
                "torch sees none of them (AssertionError)",
                f"Install torch's CUDA build: pip install --force-reinstall {NEWEST}",
            )
        ],
    ),
    "no torch": (
        {
            "torch": NO_TORCH, "torchvision": NO_TORCH, "torch_tensorrt": NO_TRT,
            "packages": dict.fromkeys(facts.PACKAGES, ABSENT),
        },
        [
            ("torch", "problem", "not installed", f"pip install {NEWEST}"),
            ("Torch-TensorRT", "problem", "not installed", f"pip install {NEWEST}"),
        ],
    ),
    "broken torch": (
        {"torch": {"error": "importing torch ended with signal 11"}, "torchvision": CRASH, "torch_tensorrt": CRASH},
        [
            (
                "torch",
                "problem",
                "cannot be imported (importing torch ended with signal 11)",
                f"pip install --force-reinstall {NEWEST}",
            ),
            ("Torch-TensorRT", "warning", "2.14.0; not tried without torch", "Mend torch first."),
        ],
    ),
    "torchvision of another torch": (
        {"torch__version": "2.13.1+cu130", "torch_tensorrt": NO_TRT, "packages__torch-tensorrt": ABSENT,
         "packages__tensorrt-cu13": ABSENT},
        [
            (
                "torchvision",
                "warning",
                "0.29.0+cu130 does not fit: torchvision 0.29.0 needs torch==2.14.0; found 2.13.1+cu130",
                "pip install torch==2.13.1 torchvision",
            ),
            ("Torch-TensorRT", "problem", "not installed", "pip install torch==2.13.1 'torch-tensorrt==2.13.*'"),
        ],
    ),
    "torchvision's operators": (
        {"torchvision": {"error": "RuntimeError: operator torchvision::nms does not exist"}},
        [
            (
                "torchvision",
                "problem",
                "cannot be imported (RuntimeError: operator torchvision::nms does not exist); "
                "it is built for another torch",
                "Install torch and torchvision from the same index: pip install torch==2.14.0 'torch-tensorrt==2.14.*'",
            )
        ],
    ),
    "torch newer than any Torch-TensorRT": (
        {"torch__version": "2.15.0", "torch_tensorrt": NO_TRT, "packages__torch-tensorrt": ABSENT,
         "packages__tensorrt-cu13": ABSENT, "packages__torchvision__requires": ["torch==2.15.0"]},
        [("Torch-TensorRT", "problem", "not installed", f"pip install --force-reinstall {NEWEST}")],
    ),
    "Torch-TensorRT of another torch": (
        {"torch__version": "2.15.0", "packages__torchvision__requires": ["torch==2.15.0"],
         "torch_tensorrt": {"error": "OSError: undefined symbol"}},
        [
            (
                "Torch-TensorRT",
                "problem",
                "2.14.0 does not fit: torch-tensorrt 2.14.0 needs torch<2.15.0,>=2.14.0; found 2.15.0 "
                "(OSError: undefined symbol)",
                f"pip install --force-reinstall {NEWEST}",
            )
        ],
    ),
    "Torch-TensorRT of another torch that imports all the same": (
        {"torch__version": "2.15.0", "packages__torchvision__requires": ["torch==2.15.0"]},
        [
            (
                "Torch-TensorRT",
                "warning",
                "2.14.0 does not fit: torch-tensorrt 2.14.0 needs torch<2.15.0,>=2.14.0; found 2.15.0",
                f"pip install --force-reinstall {NEWEST}",
            )
        ],
    ),
    "Torch-TensorRT that crashes": (
        {"torch_tensorrt": CRASH},
        [
            (
                "Torch-TensorRT",
                "problem",
                "cannot be imported (importing torch_tensorrt ended with signal 11)",
                "pip install torch==2.14.0 'torch-tensorrt==2.14.*'",
            )
        ],
    ),
    "Torch-TensorRT without its GPU": (
        {"torch_tensorrt": {"error": "RuntimeError: no device"}, "torch__gpus": [], "driver": {"error": "none"}},
        [
            ("driver", "warning", "none", GPU_FIX),
            ("GPU", "problem", "none is seen", GPU_FIX),
            (
                "Torch-TensorRT",
                "problem",
                "2.14.0, but importing it fails (RuntimeError: no device)",
                "It needs a GPU to be imported: mend that first.",
            ),
        ],
    ),
    "unknown Torch-TensorRT": (
        {"torch__version": "2.16.0", "torch_tensorrt__version": "2.16.0", "packages__torch-tensorrt__requires": [],
         "packages__torchvision__requires": []},
        [
            (
                "Torch-TensorRT",
                "warning",
                "2.16.0, which ssdtrt does not know; it knows 2.2 to 2.14",
                "Try it: ssdtrt doctor --build",
            )
        ],
    ),
    "no TorchScript front end": (
        {"torch_tensorrt__torchscript": False},
        [
            (
                "front ends",
                "problem",
                "Dynamo",
                f"Install a build with the TorchScript front end, which writes engine files: {HOW}",
            )
        ],
    ),
    "TensorRT too old": (
        {"packages__tensorrt-cu13__version": "10.16.1", "torch_tensorrt": {"error": "OSError: libnvinfer.so.11"}},
        [
            (
                "Torch-TensorRT",
                "problem",
                "cannot be imported (OSError: libnvinfer.so.11)",
                "pip install torch==2.14.0 'torch-tensorrt==2.14.*'",
            ),
            (
                "TensorRT",
                "problem",
                "10.16.1 does not fit: torch-tensorrt 2.14.0 needs tensorrt-cu13<11.2.0,>=11.1.0; found 10.16.1",
                "pip install --force-reinstall --no-cache-dir torch-tensorrt==2.14.0",
            ),
        ],
    ),
    "TensorRT too new, but it works": (
        {"packages__tensorrt-cu13__version": "11.2.0"},
        [
            (
                "TensorRT",
                "warning",
                "11.1.0.5 does not fit: torch-tensorrt 2.14.0 needs tensorrt-cu13<11.2.0,>=11.1.0; found 11.2.0",
                "pip install --force-reinstall --no-cache-dir torch-tensorrt==2.14.0",
            )
        ],
    ),
    "TensorRT missing": (
        {"packages__tensorrt-cu13": ABSENT, "torch_tensorrt": {"error": "ModuleNotFoundError: no tensorrt"}},
        [
            (
                "Torch-TensorRT",
                "problem",
                "cannot be imported (ModuleNotFoundError: no tensorrt)",
                "pip install torch==2.14.0 'torch-tensorrt==2.14.*'",
            ),
            (
                "TensorRT",
                "problem",
                "torch-tensorrt 2.14.0 needs tensorrt-cu13<11.2.0,>=11.1.0, which is not installed",
                "pip install --force-reinstall --no-cache-dir torch-tensorrt==2.14.0",
            ),
        ],
    ),
    "metadata": (
        {"packages__tensorrt": {"error": "its metadata has no version"}},
        [
            (
                "tensorrt metadata",
                "warning",
                "cannot be read (its metadata has no version)",
                "pip install --force-reinstall tensorrt",
            )
        ],
    ),
    "folders": (
        {
            "folders__weights folder": {"path": "/w", "free_mib": None, "error": "/w cannot be written: Read-only"},
            "folders__temporary folder": {"error": "FileNotFoundError: No usable temporary directory"},
            "folders__current folder__free_mib": 499,
        },
        [
            (
                "weights folder",
                "warning",
                "/w cannot be written: Read-only",
                "Set TORCH_HOME to a folder that can be written, or give a checkpoint's path to --weights.",
            ),
            (
                "temporary folder",
                "problem",
                "FileNotFoundError: No usable temporary directory",
                "Set TMPDIR to a folder that can be written.",
            ),
            (
                "current folder",
                "warning",
                "/data/current, only 499 MiB free",
                "Free 500 MiB there. Or: Change to a folder that can be written, or name another one with -o.",
            ),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", JUDGED)
def test_judged(case):
    changes, expected = JUDGED[case]
    assert bad(judge(facts(**changes))) == expected


@pytest.mark.parametrize("key", GOOD)
def test_facts_of_no_shape_are_a_finding_and_the_rest_is_judged(key):
    findings = judge(facts(**{key: None}))
    if key != "visible":
        lost = [f for f in findings if f.found.startswith("could not be judged")]
        assert lost and all((f.status, f.fix[:18]) == ("warning", "Please report this") for f in lost)
    assert len(findings) >= 5


@pytest.mark.parametrize(
    "python, expected",
    [
        ("3.10.13", "pip install 'ssdtrt[tensorrt-pypi]'"),
        (
            "3.11.7",
            "pip install torch==2.2.2 'torch-tensorrt==2.2.*' (from PyPI alone it installs with Python 3.10 only)",
        ),
    ],
)
def test_the_pinned_stack_is_for_one_python(python, expected):
    findings = judge(oldest_stack(system__python=python, torch_tensorrt=NO_TRT))
    assert of(findings, "Torch-TensorRT") == [("problem", "not installed", expected)]


@pytest.mark.parametrize(
    "part, version, expected",
    [
        ("==2.14.0", "2.14.0+cu130", True), ("==2.14.0", "2.14", True), ("==2.14.0", "2.14.1", False),
        (">=2.14.0", "2.14.0a0+5228", True), (">= 2.2.0", "2.10.0", True), ("<2.3.0", "2.2.2", True),
        ("<2.3.0", "2.10.0", False), ("<8.7", "8.6.0", True), ("<8.7", "8.7", False), ("<=8.7", "8.7.0", True),
        (">11", "11.1", True), (">11", "11.0", False), ("!=8.3.*", "8.3.1", True),
    ],
)  # fmt: skip
def test_versions_fit(part, version, expected):
    assert requirements.accepts(part, version) is expected


def test_one_of_several_requirements_is_enough():
    machine = 'platform_machine != "aarch64"'
    tegra = "'tegra' in platform_release"
    asked = [f"torch <2.9.0,>=2.8.0 ; {machine}", f"torch <2.8.0,>=2.7.0 ; {tegra}", "torch==1; extra == 'x'"]
    for version, fits in (("2.8.0", True), ("2.7.1", True), ("2.9.0", False), ("1.0", False)):
        found = facts(torch__version=version, **{"packages__torch-tensorrt__requires": asked})
        assert (requirements.unmet(found, "torch-tensorrt") is None) is fits


def test_constants_agree_with_what_is_installed_by_make():
    pins = (ROOT / "constraints.txt").read_text().split()
    assert config.NEWEST_STACK == NEWEST and set(NEWEST.split()) <= set(pins)
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text())
    assert [classifiers[0], classifiers[-1]] == [".".join(map(str, version)) for version in config.PYTHONS]


@pytest.fixture
def fake_smi(tmp_path, monkeypatch):
    """Puts an nvidia-smi before everything else on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(script):
        path = folder / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return write


TWO = "NVIDIA H200, 580.159.04, 143771, 143000, 9.0\nTesla, the 2nd, 580.159.04, 16384, 500, 7.5"


def test_two_gpus(fake_smi):
    fake_smi(f"cat <<'END'\n{TWO}\nEND")
    found = facts.driver_facts()
    assert found == {
        "version": "580.159.04",
        "gpus": [
            {"name": "NVIDIA H200", "sm": "9.0", "memory_mib": 143771, "free_mib": 143000},
            {"name": "Tesla, the 2nd", "sm": "7.5", "memory_mib": 16384, "free_mib": 500},
        ],
        "error": None,
    }
    assert of(judge(facts(driver=found)), "GPU 1") == [("ok", "Tesla, the 2nd, SM 7.5, 16.0 GiB, 500 MiB free", "")]


def test_driver_that_does_not_know_the_sm(fake_smi):
    fake_smi(
        'case "$1" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to query.\'; exit 2;; esac\n'
        "echo 'Tesla T4, 470.57.02, 15109, [N/A]'"
    )
    found = facts.driver_facts()
    assert found["version"] == "470.57.02" and found["error"] is None
    assert found["gpus"] == [{"name": "Tesla T4", "sm": None, "memory_mib": 15109, "free_mib": None}]
    assert of(judge(facts(driver=found)), "GPU 0") == [("ok", "Tesla T4, 14.8 GiB", "")]


@pytest.mark.parametrize(
    "script, error",
    [
        ("echo 'NVIDIA-SMI has failed'; exit 9", "nvidia-smi ended with exit code 9: NVIDIA-SMI has failed"),
        ("exit 9", "nvidia-smi ended with exit code 9: and said nothing"),
        ("kill -11 $$", "nvidia-smi ended with signal 11: and said nothing"),
        ("echo No devices were found", "nvidia-smi printed what is no list of GPUs: No devices were found"),
        ("echo a, b, c, d, e", "nvidia-smi printed what is no list of GPUs: a, b, c, d, e"),
        ("printf '\\377\\000\\n'", "nvidia-smi printed what is no list of GPUs: \ufffd\0"),
        ("exit 0", "nvidia-smi lists no GPU"),
    ],
)
def test_nvidia_smi_that_does_not_answer_well(fake_smi, script, error):
    fake_smi(script)
    assert facts.driver_facts() == {"error": error}


def test_nvidia_smi_that_hangs_is_ended_with_what_it_started(fake_smi, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "SMI_SECONDS", 0.5)
    fake_smi(f"sleep 60 &\necho $! > {tmp_path}/pid\nwait")
    started = time.monotonic()
    assert facts.driver_facts() == {"error": "nvidia-smi did not answer within 0.5 s"}
    assert time.monotonic() - started < 5
    assert gone(int((tmp_path / "pid").read_text()))


def gone(pid):
    """Whether a process ends soon; a zombie has ended."""
    for _ in range(50):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().split(") ")[1][0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_nvidia_smi_that_is_missing_or_no_program(fake_smi, monkeypatch, tmp_path):
    (tmp_path / "bin" / "nvidia-smi").write_bytes(b"\0\0\0\0")
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    assert "Exec format error" in facts.guarded(facts.driver_facts)["error"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts.driver_facts() == {"error": "nvidia-smi is not on the PATH", "missing": True}


@pytest.fixture
def shadow(tmp_path, monkeypatch):
    """Puts a package before the installed ones, for this process and for its children: `shadow("torch", code)`."""
    folder = tmp_path / "shadow"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])

    def write(name, code):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)

    write.folder = folder
    return write


def probed(name, seconds=60.0):
    """What a real process says of one import."""
    return facts.read_probe(facts.start_probe(name), f"importing {name}", seconds)


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
def test_a_broken_torch_is_a_finding(shadow, code, expected):
    shadow("torch", code)
    found = probed("torch")
    assert found["error"] == expected
    (status, said, fix) = of(judge(facts(torch=found)), "torch")[0]
    assert (status, said) == ("problem", f"cannot be imported ({expected})")
    assert fix == f"pip install --force-reinstall {NEWEST}"


def test_an_import_that_hangs(shadow):
    shadow("torch", "import time; time.sleep(60)")
    started = time.monotonic()
    assert probed("torch", 0.7) == {"error": "importing torch did not end within 0.7 s"}
    assert time.monotonic() - started < 5


def test_what_an_import_prints_does_not_matter(shadow):
    noise = "import sys; print('x' * 300000, end=''); print('y' * 300000, file=sys.stderr)\n"
    shadow("torchvision", f"{noise}import warnings; warnings.warn('old')\n__version__ = '0.99'")
    assert probed("torchvision") == {"version": "0.99", "error": None}


def test_a_torch_tensorrt_that_is_whole(shadow):
    shadow("tensorrt", "__version__ = '10.3.0'")
    shadow("torch_tensorrt", "__version__ = '2.8.0'\nclass ENABLED_FEATURES: torchscript_frontend = False\ndynamo = 1")
    expected = {"version": "2.8.0", "torchscript": False, "dynamo": True, "tensorrt": "10.3.0", "error": None}
    assert probed("torch_tensorrt") == expected


def test_the_child_finds_what_this_process_finds(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("__version__ = '0.98'")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert probed("torchvision") == {"version": "0.98", "error": None}


def test_real_imports():
    found = probed("torch")
    assert (found["version"], found["cuda"], found["error"]) == (torch.__version__, torch.version.cuda, None)
    assert bool(found["gpus"]) == torch.cuda.is_available() == (found["no_gpu"] is None)
    assert probed("torchvision") == {"version": torchvision.__version__, "error": None}


def metadata(shadow, name, text):
    """A distribution's dist-info folder."""
    folder = shadow.folder / f"{name.replace('-', '_')}-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_bytes(text)


def test_metadata_of_versions_that_do_not_fit(shadow):
    requires = b"Requires-Dist: torch<2.15.0,>=2.14.0\nRequires-Dist: tensorrt-cu13<11.2.0,>=11.1.0\n"
    metadata(shadow, "torch-tensorrt", b"Metadata-Version: 2.1\nName: torch-tensorrt\nVersion: 2.14.0\n" + requires)
    metadata(shadow, "tensorrt-cu13", b"Metadata-Version: 2.1\nName: tensorrt-cu13\nVersion: 10.16.1.11\n")
    packages = {name: facts.package_facts(name) for name in facts.PACKAGES}
    assert packages["torch-tensorrt"]["version"] == "2.14.0"
    found = judge(facts(packages=packages, torch__version="2.15.0", torch_tensorrt={"error": "OSError: no"}))
    assert of(found, "Torch-TensorRT")[0][1] == (
        "2.14.0 does not fit: torch-tensorrt 2.14.0 needs torch<2.15.0,>=2.14.0; found 2.15.0 (OSError: no)"
    )
    assert of(found, "TensorRT")[0][:2] == (
        "problem",
        "10.16.1.11 does not fit: torch-tensorrt 2.14.0 needs tensorrt-cu13<11.2.0,>=11.1.0; found 10.16.1.11",
    )


@pytest.mark.filterwarnings("ignore:Implicit None:DeprecationWarning")
@pytest.mark.parametrize("text", [b"", b"Name: tensorrt\n", b"\xff\xfe\x00", b"Name: tensorrt\nVersion: \n"])
def test_broken_metadata_is_a_finding(shadow, text):
    metadata(shadow, "tensorrt", text)
    packages = {name: facts.guarded(facts.package_facts, name) for name in facts.PACKAGES}
    assert packages["tensorrt"]["error"]
    (status, said, fix) = of(judge(facts(packages=packages)), "tensorrt metadata")[0]
    assert status == "warning" and said.startswith("cannot be read (") and fix.endswith("--force-reinstall tensorrt")


def test_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "not" / "there"))
    found = facts.folder_facts(facts.weights_folder)
    assert found["path"] == str(tmp_path / "not" / "there" / "hub" / "checkpoints")
    assert found["error"] is None and found["free_mib"] > 0 and not list(tmp_path.iterdir())
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert facts.weights_folder() == tmp_path / "torch" / "hub" / "checkpoints"
    assert str(facts.weights_folder().parent) == torch.hub.get_dir()


def test_a_folder_that_is_a_file_or_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    found = facts.folder_facts(lambda: tmp_path / "file" / "hub")
    assert found["error"] == f"{tmp_path}/file cannot be written: Not a directory"


def call(*arguments, **environment):
    """The command in a process of its own."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-m", "ssdtrt", *arguments], capture_output=True, text=True, env=known, timeout=120
    )


@no_gpu
def test_this_machine(monkeypatch, tmp_path):
    done = call("-q", "doctor", "--build", "--json", str(tmp_path / "doctor.json"), PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads((tmp_path / "doctor.json").read_text())
    assert list(report) == ["can_build", "findings"] and report["can_build"] is False
    assert all(list(row) == ["check", "status", "found", "fix"] for row in report["findings"])
    found = {row["check"]: (row["status"], row["found"], row["fix"]) for row in report["findings"]}
    assert found["driver"] == ("warning", "nvidia-smi is not on the PATH", GPU_FIX)
    assert found["GPU"][0] == "problem" and "Found no NVIDIA driver" in found["GPU"][1]
    assert found["torch"][1].startswith(f"{torch.__version__}, built for CUDA {torch.version.cuda}")
    assert found["torchvision"] == ("ok", torchvision.__version__, "")
    assert found["Torch-TensorRT"][:2] == ("problem", "not installed")
    assert found["trial build"] == ("problem", "not tried; see GPU, Torch-TensorRT", "Mend what is named first.")
    assert found["CPU engine"] == ("ok", "works here: ssdtrt compile --backend torchscript", "")
    assert done.stdout.splitlines()[-1] == "No TensorRT engine can be built here: 3 problems."


@pytest.mark.parametrize(
    "code, said",
    [
        ("raise ImportError('broken')", "cannot be imported (ImportError: broken)"),
        ("import os; os.abort()", "cannot be imported (importing torch ended with signal 6)"),
        ("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')", "not installed"),
    ],
)
def test_the_command_with_a_broken_torch(shadow, code, said):
    shadow("torch", code)
    done = call("-q", "doctor", "--json", "-", PYTHONPATH=os.environ["PYTHONPATH"])
    assert (done.returncode, done.stderr) == (1, "")
    rows = {row["check"]: row for row in json.loads(done.stdout)["findings"]}
    assert (rows["torch"]["status"], rows["torch"]["found"]) == ("problem", said)
    assert "CPU engine" not in rows and "torchvision" not in rows


def test_the_parent_imports_no_torch():
    code = (
        "import sys; from ssdtrt.cli import main\ntry: main(['-q', 'doctor', '--json', '-'])\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr == "False\n" and json.loads(done.stdout)["findings"]


def test_exit_code_and_text_where_all_is_right(ssdtrt, monkeypatch):
    monkeypatch.setattr(checks, "gather", lambda progress: facts())
    done = ssdtrt("doctor")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[2] == "ok       GPU 0             NVIDIA H200, SM 9.0, 140.4 GiB, 139.6 GiB free"
    assert lines[-1] == "No problem was found. To be sure: ssdtrt doctor --build"
    answer = {"seconds": 3.21, "relative_l2": 4e-4, "error": None}
    monkeypatch.setattr(checks, "run_trial", lambda progress: answer)
    done = ssdtrt("doctor", "--build")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-3:] == [
        "ok       trial build       FP16 engine built in 3.2 s, relative L2 to FP32 eager 4.0e-04",
        "",
        "A TensorRT engine can be built here.",
    ]
    monkeypatch.setattr(checks, "gather", lambda progress: facts(torch_tensorrt__torchscript=False))
    assert ssdtrt("doctor").exit_code == 1


def test_json_that_cannot_be_written_is_said_first(ssdtrt, monkeypatch):
    monkeypatch.setattr(checks, "gather", lambda progress: pytest.fail("it was looked at first"))
    done = ssdtrt("doctor", "--json", "no/such/folder.json")
    assert done.exit_code == 1 and "there is no directory no/such" in done.stderr


def test_forty_columns():
    found = judge(facts(driver={"error": "nvidia-smi lists no GPU"}, torch__gpus=[]))
    text = doctor_text(DoctorReport(tuple(found)), 40)
    assert max(map(len, text.splitlines())) <= 40
    assert "warning: driver\n  nvidia-smi lists no GPU\n  fix: Use a machine with an NVIDIA GPU" in text
    assert text.endswith("No TensorRT engine can be built here: 1\nproblem.")


def test_eighty_columns_hang_under_the_finding():
    text = doctor_text(DoctorReport((Finding("GPU", "problem", "none " * 20, "Do " + "this " * 20),)), 80)
    lines = text.splitlines()
    assert lines[0].startswith("problem  GPU               none none") and max(map(len, lines)) <= 80
    assert lines[1].startswith(" " * 27 + "none") and lines[2].startswith(" " * 27 + "fix: Do this")


def test_a_command_is_broken_at_its_spaces_alone():
    fix = f"pip install --force-reinstall {NEWEST}"
    for width in (40, 80):
        text = doctor_text(DoctorReport((Finding("torch", "problem", "not installed", fix),)), width)
        assert set(fix.split()) <= set(text.split())
    address = "https://an.address/" + "that/is/too/long/to/fit/" * 4
    assert address in doctor_text(DoctorReport((Finding("GPU", "problem", address, ""),)), 40)


@pytest.mark.parametrize(
    "answer, found",
    [
        ({"error": "building a tiny engine ended with signal 11"}, "building a tiny engine ended with signal 11"),
        ({"seconds": 1.0, "relative_l2": 0.3, "error": None}, "relative L2 to FP32 eager is 3.0e-01, more than 2e-02"),
        ({"seconds": 1.0, "relative_l2": None, "error": None}, "relative L2 to FP32 eager is not finite"),
    ],
)
def test_a_trial_that_fails(answer, found):
    finding = judge_trial(answer, [])
    assert (finding.check, finding.status, finding.found) == (TRIAL, "problem", found)
    assert finding.fix.endswith(HOW)


@pytest.mark.parametrize("scale, low, high", [(1.0, 1e-5, 2e-2), (1.5, 0.45, 0.55)])
def test_the_trial_measures_the_distance(monkeypatch, scale, low, high):
    class Scaled(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network
            self.scale = scale

        def forward(self, images):
            return self.network(images) * self.scale

    def build(module, precision, batch, workspace, device):
        assert (precision, str(batch)) == ("fp16", "1")
        return torch.jit.script(Scaled(module.network.float()))  # Weights rounded to FP16, arithmetic in FP32.

    monkeypatch.setattr(runtime, "build", build)
    monkeypatch.setattr("ssdtrt.system.child.die_with_parent", lambda parent: None)
    found = probe.trial()
    assert found["error"] is None and low < found["relative_l2"] < high


@no_gpu
def test_the_process_of_the_trial_says_why_it_cannot():
    said = []
    found = checks.run_trial(said.append)
    assert found["error"].startswith("CompileError: A TensorRT engine cannot be built or run here; missing: a CUDA GPU")
    assert said[0] == "building a tiny engine, 0 s"


def test_interrupting_ends_every_child(shadow, monkeypatch):
    shadow("torch", "import time; time.sleep(60)")
    children = []
    start = facts.start

    def record(command):
        children.append(start(command))
        return children[-1]

    def interrupt(text):
        if text.startswith("importing"):
            raise KeyboardInterrupt

    monkeypatch.setattr(facts, "start", record)
    with pytest.raises(KeyboardInterrupt):
        package.doctor(progress=interrupt)
    assert len(children) >= 3 and all(child.returncode is not None for child in children)


def test_help_is_quick():
    started = time.monotonic()
    done = call("doctor", "--help")
    assert done.returncode == 0 and "ssdtrt doctor --build" in done.stdout
    assert time.monotonic() - started < 2  # 0.15 s on a machine that does nothing else


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_tiny_engine_is_built():
    done = call("-q", "doctor", "--build", "--json", "-")
    assert done.returncode == 0, done.stdout
    rows = {row["check"]: row for row in json.loads(done.stdout)["findings"]}
    assert rows[TRIAL]["status"] == "ok" and rows["GPU 0"]["status"] == "ok"

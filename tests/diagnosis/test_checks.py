"""What the checks find on this machine and on others."""

import dataclasses
import re

import pytest
from machines import ABSENT, GOOD, H200, NEWEST, NO_TORCH, NO_TRT, OLDEST, machine

from conftest import ROOT
from ssdtrt import config
from ssdtrt.diagnosis.checks import check_build, check_facts
from ssdtrt.diagnosis.facts import (
    PACKAGES,
    BuildTest,
    Facts,
    Failure,
    Folder,
    Package,
    System,
    Torch,
    TorchTensorrt,
    Torchvision,
)
from ssdtrt.diagnosis.report import TEST_BUILD
from ssdtrt.system.gpu_state import Driver, Gpu

GPU_FIX = (
    "Use a machine with an NVIDIA GPU and its driver, where nvidia-smi lists it; "
    "in a container, start that with --gpus all."
)
HOW = "pip install 'ssdtrt[tensorrt]' (or, where only PyPI can be reached, 'ssdtrt[tensorrt-pypi]' with Python 3.10)"
CRASH = Failure("importing torch_tensorrt ended with signal 11")
NO_GPU = Torch("2.14.0+cu130", "13.0")
MATCHING = {"torch-tensorrt": Package("2.16.0"), "torchvision": Package("0.29.0")}


def bad(findings):
    """What is not ok, as tuples."""
    return [(one.check, one.status, one.found, one.fix) for one in findings if one.status != "ok"]


def of(findings, check):
    """The findings of one check, as (status, found, fix)."""
    return [(one.status, one.found, one.fix) for one in findings if one.check == check]


def test_a_machine_where_everything_is_right():
    findings = check_facts(GOOD)
    assert [(one.check, one.status, one.found) for one in findings] == [
        ("system", "ok", "Linux x86_64, Python 3.11.7"),
        ("driver", "ok", "NVIDIA 580.159.04, from NVML"),
        ("GPU 0", "ok", "NVIDIA H200, SM 9.0, 140.4 GiB, 139.6 GiB free"),
        ("torch", "ok", "2.14.0+cu130, built for CUDA 13.0"),
        ("torchvision", "ok", "0.29.0+cu130"),
        ("Torch-TensorRT", "ok", "2.14.0"),
        ("front ends", "ok", "TorchScript, Dynamo"),
        ("TensorRT", "ok", "11.1.0.5; it takes the precision from the module, which ssdtrt casts"),
        ("weights folder", "ok", "/data/weights, 39.1 GiB free"),
        ("temporary folder", "ok", "/data/temporary, 39.1 GiB free"),
        ("current folder", "ok", "/data/current, 39.1 GiB free"),
        ("JPEG decoding", "ok", "on the GPU, by nvImageCodec 0.9.0.20, where many files are read, and in the service"),
        ("videos", "ok", "PyAV 14.2.0"),
        ("CPU engine", "ok", "works here: ssdtrt export && ssdtrt compile --backend torchscript"),
    ]
    assert all(one.fix == "" for one in findings)


def test_the_stack_that_the_figures_were_measured_with():
    assert bad(check_facts(OLDEST)) == [
        (
            "torch",
            "warning",
            "2.2.2+cu121, built for CUDA 12.1; a crafted checkpoint can run code while it loads (CVE-2025-32434)",
            "Load only checkpoints that you trust (--trust-weights).",
        )
    ]


def test_gpus_of_which_little_is_known():
    gpus = (H200, Gpu("Tesla, the 2nd", "7.5", 16384, 500), Gpu("Tesla T4", None, 15109), Gpu("Thor", "10.1"))
    findings = check_facts(machine(driver=Driver("580.1", gpus, "nvidia-smi")))
    assert [of(findings, f"GPU {index}") for index in range(4)] == [
        [("ok", "NVIDIA H200, SM 9.0, 140.4 GiB, 139.6 GiB free", "")],
        [("ok", "Tesla, the 2nd, SM 7.5, 16.0 GiB, 500 MiB free", "")],
        [("ok", "Tesla T4, 14.8 GiB", "")],
        [("ok", "Thor, SM 10.1", "")],
    ]


WITH_GPU_DECODE = (
    "on the CPU, by Pillow; on the GPU, which leaves the CPU's cores free, with: pip install 'ssdtrt[gpu-decode]'"
)


@pytest.mark.parametrize(
    "facts, jpegs, videos",
    [
        (machine(packages={"nvidia-nvimgcodec-cu12": ABSENT}), WITH_GPU_DECODE, "PyAV 14.2.0"),
        (machine(packages={"nvidia-nvimgcodec-cu12": Failure("broken")}), WITH_GPU_DECODE, "PyAV 14.2.0"),
        (machine(packages={"nvidia-nvimgcodec-cu12": Package("0.10.0.1")}), WITH_GPU_DECODE, "PyAV 14.2.0"),
        (
            machine(torch=NO_GPU),
            "on the CPU, by Pillow; on a GPU where there is one, with nvImageCodec",
            "PyAV 14.2.0",
        ),
        (
            machine(torch=NO_TORCH),
            "on the CPU, by Pillow; on a GPU where there is one, with nvImageCodec",
            "PyAV 14.2.0",
        ),
        (
            machine(packages={"av": ABSENT}),
            "on the GPU, by nvImageCodec 0.9.0.20, where many files are read, and in the service",
            "not read; they are with: pip install 'ssdtrt[video]'",
        ),
    ],
)
def test_what_pictures_are_read_with_and_what_a_missing_package_would_give(facts, jpegs, videos):
    findings = check_facts(facts)
    assert of(findings, "JPEG decoding") == [("ok", jpegs, "")] and of(findings, "videos") == [("ok", videos, "")]


UNINSTALL_RTX = (
    "pip uninstall -y torch-tensorrt torch-tensorrt-rtx && pip install torch==2.14.0 'torch-tensorrt==2.14.*'"
)
CHECKED = {
    "Torch-TensorRT of TensorRT-RTX beside the proper one": (
        machine(packages={"torch-tensorrt-rtx": Package("2.14.0")}),
        [
            (
                "TensorRT-RTX",
                "problem",
                "torch-tensorrt-rtx 2.14.0, beside torch-tensorrt 2.14.0, which has the same import name; ssdtrt does not "
                "run engines of TensorRT-RTX",
                UNINSTALL_RTX,
            )
        ],
    ),
    "Torch-TensorRT of TensorRT-RTX alone": (
        machine(packages={"torch-tensorrt-rtx": Package("2.14.0"), "torch-tensorrt": Package()}),
        [
            (
                "TensorRT-RTX",
                "problem",
                "torch-tensorrt-rtx 2.14.0; ssdtrt does not run engines of TensorRT-RTX",
                UNINSTALL_RTX,
            )
        ],
    ),
    "python too old": (
        machine(system=System("Linux", "x86_64", "3.9.2")),
        [("system", "warning", "Linux x86_64, Python 3.9.2", "Use Python 3.10 to 3.13, which ssdtrt supports.")],
    ),
    "python too new": (
        machine(system=System("Linux", "x86_64", "3.14.0")),
        [("system", "warning", "Linux x86_64, Python 3.14.0", "Use Python 3.10 to 3.13, which ssdtrt supports.")],
    ),
    "python from its repository": (machine(system=System("Linux", "x86_64", "3.13.0+")), []),
    "an unknown system": (machine(system=Failure("OSError: no")), [("system", "warning", "OSError: no", "")]),
    "no nvidia-smi, yet a GPU": (
        machine(driver=Failure("nvidia-smi is not on the PATH")),
        [("driver", "warning", "nvidia-smi is not on the PATH", "Not needed while torch sees the GPU.")],
    ),
    "no GPU": (
        machine(
            driver=Failure("nvidia-smi lists no GPU"),
            torch=Torch("2.14.0+cu130", "13.0", no_gpu="RuntimeError: no driver"),
        ),
        [
            ("driver", "warning", "nvidia-smi lists no GPU", GPU_FIX),
            ("GPU", "problem", "none is seen (RuntimeError: no driver)", GPU_FIX),
        ],
    ),
    "hidden GPU": (
        machine(visible="", torch=NO_GPU),
        [("GPU", "problem", "torch sees none of them: CUDA_VISIBLE_DEVICES is ''", "unset CUDA_VISIBLE_DEVICES")],
    ),
    "driver too old": (
        machine(
            driver=Driver("550.54.15", (H200,), "nvidia-smi"),
            torch=Torch("2.14.0+cu130", "13.0", no_gpu="RuntimeError: too old"),
        ),
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
        machine(torch=Torch("2.14.0+cpu", None, no_gpu="AssertionError")),
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
        machine(packages=dict.fromkeys(PACKAGES, ABSENT), torch=NO_TORCH, torchvision=NO_TORCH, torch_tensorrt=NO_TRT),
        [
            ("torch", "problem", "not installed", f"pip install {NEWEST}"),
            ("Torch-TensorRT", "problem", "not installed", f"pip install {NEWEST}"),
        ],
    ),
    "broken torch": (
        machine(torch=Failure("importing torch ended with signal 11"), torchvision=CRASH, torch_tensorrt=CRASH),
        [
            (
                "torch",
                "problem",
                "cannot be imported (importing torch ended with signal 11)",
                f"pip install --force-reinstall {NEWEST}",
            ),
            ("Torch-TensorRT", "warning", "2.14.0; not tried without torch", "Fix torch first."),
        ],
    ),
    "torchvision of another torch": (
        machine(
            packages={"torch-tensorrt": ABSENT, "tensorrt-cu13": ABSENT},
            torch=Torch("2.13.1+cu130", "13.0", (H200,)),
            torch_tensorrt=NO_TRT,
        ),
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
        machine(torchvision=Failure("RuntimeError: operator torchvision::nms does not exist")),
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
        machine(
            packages={"torch-tensorrt": ABSENT, "tensorrt-cu13": ABSENT, "torchvision": Package("0.29.0")},
            torch=Torch("2.15.0", "13.0", (H200,)),
            torch_tensorrt=NO_TRT,
        ),
        [("Torch-TensorRT", "problem", "not installed", f"pip install --force-reinstall {NEWEST}")],
    ),
    "Torch-TensorRT of another torch": (
        machine(
            packages={"torchvision": Package("0.29.0")},
            torch=Torch("2.15.0", "13.0", (H200,)),
            torch_tensorrt=Failure("OSError: undefined symbol"),
        ),
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
        machine(packages={"torchvision": Package("0.29.0")}, torch=Torch("2.15.0", "13.0", (H200,))),
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
        machine(torch_tensorrt=CRASH),
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
        machine(torch_tensorrt=Failure("RuntimeError: no device"), torch=NO_GPU, driver=Failure("none")),
        [
            ("driver", "warning", "none", GPU_FIX),
            ("GPU", "problem", "none is seen", GPU_FIX),
            (
                "Torch-TensorRT",
                "problem",
                "2.14.0, but importing it fails (RuntimeError: no device)",
                "It needs a GPU to be imported: fix that first.",
            ),
        ],
    ),
    "unknown Torch-TensorRT": (
        machine(
            packages=MATCHING,
            torch=Torch("2.16.0", "13.0", (H200,)),
            torch_tensorrt=TorchTensorrt("2.16.0", torchscript=True, dynamo=True, tensorrt="11.1.0.5"),
        ),
        [
            (
                "Torch-TensorRT",
                "warning",
                "2.16.0, which ssdtrt was not tested with; it supports 2.2 to 2.14",
                "Try it: ssdtrt doctor --build",
            )
        ],
    ),
    "no TorchScript front end": (
        machine(torch_tensorrt=TorchTensorrt("2.14.0", torchscript=False, dynamo=True, tensorrt="11.1.0.5")),
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
        machine(packages={"tensorrt-cu13": Package("10.16.1")}, torch_tensorrt=Failure("OSError: libnvinfer.so.11")),
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
        machine(packages={"tensorrt-cu13": Package("11.2.0")}),
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
        machine(
            packages={"tensorrt-cu13": ABSENT}, torch_tensorrt=Failure("ModuleNotFoundError: no tensorrt", "tensorrt")
        ),
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
        machine(packages={"tensorrt": Failure("its metadata has no version")}),
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
        machine(
            folders={
                "weights folder": Failure("/w cannot be written: Read-only"),
                "temporary folder": Failure("FileNotFoundError: No usable temporary directory"),
                "current folder": Folder("/data/current", 499),
            }
        ),
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
}


@pytest.mark.parametrize("case", CHECKED)
def test_findings(case):
    facts, expected = CHECKED[case]
    assert bad(check_facts(facts)) == expected


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Facts)])
def test_facts_of_no_form_are_a_finding_and_the_others_are_checked(field):
    findings = check_facts(dataclasses.replace(GOOD, **{field: None}))
    if field != "visible":
        lost = [one for one in findings if one.found.startswith("could not be checked")]
        assert lost and all((one.status, one.fix[:18]) == ("warning", "Please report this") for one in lost)
    assert len(findings) >= 5


def test_a_version_that_is_none_is_a_finding():
    findings = check_facts(machine(torchvision=Torchvision("0.29"), torch=Torch("of my own", "13.0", (H200,))))
    assert of(findings, "torch") == [
        (
            "warning",
            "could not be checked (InvalidVersion: Invalid version: 'of my own')",
            "Please report this with the output of: ssdtrt doctor --json -",
        )
    ]
    assert of(findings, "GPU 0")[0][0] == "ok"


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
    facts = machine(OLDEST, system=System("Linux", "x86_64", python), torch_tensorrt=NO_TRT)
    assert of(check_facts(facts), "Torch-TensorRT") == [("problem", "not installed", expected)]


@pytest.mark.parametrize(
    "answer, found",
    [
        (Failure("building a tiny engine ended with signal 11"), "building a tiny engine ended with signal 11"),
        (BuildTest(1.0, 0.3), "relative L2 to FP32 eager is 3.0e-01, more than 2e-02"),
        (BuildTest(1.0, None), "relative L2 to FP32 eager is not finite"),
    ],
)
def test_a_test_build_that_fails(answer, found):
    finding = check_build(answer)
    assert (finding.check, finding.status, finding.found) == (TEST_BUILD, "problem", found)
    assert finding.fix.endswith(HOW)


def test_a_test_build_that_is_right():
    finding = check_build(BuildTest(3.21, 4e-4))
    assert (finding.status, finding.fix) == ("ok", "")
    assert finding.found == "FP16 engine built in 3.2 s, relative L2 to FP32 eager 4.0e-04"


def test_constants_agree_with_what_is_installed_by_make():
    pins = (ROOT / "constraints.txt").read_text().split()
    assert config.NEWEST_STACK == NEWEST and set(NEWEST.split()) <= set(pins)
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text())
    assert [classifiers[0], classifiers[-1]] == [".".join(map(str, version)) for version in config.PYTHON_VERSIONS]

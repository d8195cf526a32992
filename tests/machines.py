"""What `doctor` gathers on machines that are not this one, as records; and packages in the place of installed ones."""

import os
import sys
from dataclasses import replace

import pytest

from conftest import ROOT
from ssdtrt.diagnosis.facts import Facts, Failure, Folder, Package, System, Torch, TorchTensorrt, Torchvision
from ssdtrt.system.gpu_state import Driver, Gpu

NEWEST = "torch==2.14.0 torchvision==0.29.0 torch-tensorrt==2.14.0"
TRT_214 = ("numpy", "torch<2.15.0,>=2.14.0", "tensorrt-cu13<11.2.0,>=11.1.0", "tensorrt-cu13-libs<11.2.0,>=11.1.0")
TRT_22 = ("torch (<2.3.0,>=2.2.0)", "tensorrt (<8.7,>=8.6)", "torchvision (<0.18.0,>=0.17.0) ; extra == 'torchvision'")
H200 = Gpu("NVIDIA H200", "9.0", 143771, 143000)
ABSENT = Package()
NO_TORCH = Failure("ModuleNotFoundError: No module named 'torch'", "torch")
NO_TRT = Failure("ModuleNotFoundError: No module named 'torch_tensorrt'", "torch_tensorrt")

GOOD = Facts(
    system=System("Linux", "x86_64", "3.11.7"),
    visible=None,
    driver=Driver("580.159.04", (H200,), "NVML"),
    packages={
        "torch": Package("2.14.0"),
        "torchvision": Package("0.29.0", ("numpy", "torch (==2.14.0)")),
        "torch-tensorrt": Package("2.14.0", TRT_214),
        "tensorrt": ABSENT,
        "tensorrt-cu12": ABSENT,
        "tensorrt-cu13": Package("11.1.0.5"),
        "torch-tensorrt-rtx": ABSENT,
        "nvidia-nvimgcodec-cu12": Package("0.9.0.20"),
        "av": Package("14.2.0"),
    },
    folders={
        name: Folder(f"/data/{name.split()[0]}", 40000)
        for name in ("weights folder", "temporary folder", "current folder")
    },
    torch=Torch("2.14.0+cu130", "13.0", (H200,)),
    torchvision=Torchvision("0.29.0+cu130"),
    torch_tensorrt=TorchTensorrt("2.14.0", torchscript=True, dynamo=True, tensorrt="11.1.0.5"),
)
"""A machine where everything is right."""

OLDEST = replace(
    GOOD,
    system=System("Linux", "x86_64", "3.10.13"),
    packages={
        **GOOD.packages,
        "torch": Package("2.2.2"),
        "torchvision": Package("0.17.2", ("torch (==2.2.2)",)),
        "torch-tensorrt": Package("2.2.0", TRT_22),
        "tensorrt": Package("8.6.0"),
        "tensorrt-cu13": ABSENT,
    },
    torch=Torch("2.2.2+cu121", "12.1", (H200,)),
    torchvision=Torchvision("0.17.2+cu121"),
    torch_tensorrt=TorchTensorrt("2.2.0", torchscript=True, dynamo=True, tensorrt="8.6.0"),
)
"""The stack of ssdtrt[tensorrt-pypi]."""


def machine(base=GOOD, packages=(), folders=(), **changes):
    """A machine like `base`, but for some of its facts, packages and folders."""
    return replace(
        base,
        packages={**base.packages, **dict(packages)},
        folders={**base.folders, **dict(folders)},
        **changes,
    )


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

"""What `doctor` looks at, as records; a Failure takes the place of what cannot be found out. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ssdtrt import config
from ssdtrt.system.gpu_state import Driver, Gpu

TENSORRT_NAMES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
ROADS = {"gpu-decode": "nvidia-nvimgcodec-cu12", "video": "av"}
"""By the name of an extra the package that it brings, and without which ssdtrt reads less, or more slowly."""

PACKAGES = ("torch", "torchvision", "torch-tensorrt", *TENSORRT_NAMES, config.RTX_DISTRIBUTION, *ROADS.values())


class Failure(msgspec.Struct, frozen=True, tag=True):
    """The reason why something cannot be found out.

    Attributes:
        error: The reason, in one line.
        missing: The name of the module that was not found, if that is the reason.
    """

    error: str
    missing: str | None = None


class System(msgspec.Struct, frozen=True):
    """The operating system, the architecture, and the version of Python."""

    os: str
    architecture: str
    python: str


class Package(msgspec.Struct, frozen=True):
    """The metadata of a distribution: its version, None if it is not installed, and its `Requires-Dist` lines."""

    version: str | None = None
    requires: tuple[str, ...] = ()


class Folder(msgspec.Struct, frozen=True):
    """A folder that can be written to, and its free MiB."""

    path: str
    free_mib: int


class Torch(msgspec.Struct, frozen=True, tag=True):
    """torch, after it was imported.

    Attributes:
        version: Its version.
        cuda: The CUDA version that it is built for; None if it is built without CUDA.
        gpus: The GPUs that it sees.
        no_gpu: Why it sees none.
    """

    version: str
    cuda: str | None
    gpus: tuple[Gpu, ...] = ()
    no_gpu: str | None = None


class Torchvision(msgspec.Struct, frozen=True, tag=True):
    """torchvision, after it was imported."""

    version: str


class TorchTensorrt(msgspec.Struct, frozen=True, tag=True):
    """Torch-TensorRT, after it was imported.

    Attributes:
        version: Its version.
        torchscript: Whether it has the TorchScript front end.
        dynamo: Whether it has the Dynamo front end.
        tensorrt: The version of TensorRT that it loads; None if that is not known.
    """

    version: str
    torchscript: bool
    dynamo: bool
    tensorrt: str | None = None


class BuildTest(msgspec.Struct, frozen=True, tag=True):
    """A tiny engine that was built and run.

    Attributes:
        seconds: How long the build took.
        relative_l2: The relative L2 distance to FP32 eager; None if an output is not finite.
    """

    seconds: float
    relative_l2: float | None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that the checks look at.

    Attributes:
        system: The operating system and Python.
        visible: The environment variable CUDA_VISIBLE_DEVICES; None if it is not set.
        driver: The NVIDIA driver.
        packages: The metadata of each distribution in PACKAGES.
        folders: The folders that ssdtrt writes to, by purpose.
        torch: torch, imported in another process.
        torchvision: torchvision, imported in another process.
        torch_tensorrt: Torch-TensorRT, imported in another process.
    """

    system: System | Failure
    visible: str | None
    driver: Driver | Failure
    packages: dict[str, Package | Failure]
    folders: dict[str, Folder | Failure]
    torch: Torch | Failure
    torchvision: Torchvision | Failure
    torch_tensorrt: TorchTensorrt | Failure

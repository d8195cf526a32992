"""What `doctor` looks at, as records: in place of each stands a Failure where it could not be found out. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ssdtrt.system.gpu_state import Driver, Gpu

TENSORRT_NAMES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
PACKAGES = ("torch", "torchvision", "torch-tensorrt", *TENSORRT_NAMES)


class Failure(msgspec.Struct, frozen=True, tag=True):
    """What could not be found out.

    Attributes:
        error: Why, in one line.
        missing: The module that was not found, where that is why.
    """

    error: str
    missing: str | None = None


class System(msgspec.Struct, frozen=True):
    """The operating system, the architecture, and the version of Python."""

    os: str
    architecture: str
    python: str


class Package(msgspec.Struct, frozen=True):
    """A distribution's metadata: its version, None where it is not installed, and its `Requires-Dist` lines."""

    version: str | None = None
    requires: tuple[str, ...] = ()


class Folder(msgspec.Struct, frozen=True):
    """A folder that can be written to, and the MiB that are free there."""

    path: str
    free_mib: int


class Torch(msgspec.Struct, frozen=True, tag=True):
    """An imported torch.

    Attributes:
        version: Its version.
        cuda: The CUDA that it is built for; None for the CPU alone.
        gpus: The GPUs that it sees.
        no_gpu: Why it sees none.
    """

    version: str
    cuda: str | None
    gpus: tuple[Gpu, ...] = ()
    no_gpu: str | None = None


class Torchvision(msgspec.Struct, frozen=True, tag=True):
    """An imported torchvision."""

    version: str


class TorchTensorrt(msgspec.Struct, frozen=True, tag=True):
    """An imported Torch-TensorRT.

    Attributes:
        version: Its version.
        torchscript: Whether it has the TorchScript front end.
        dynamo: Whether it has the Dynamo front end.
        tensorrt: The version of the TensorRT that it loads; None where that is not known.
    """

    version: str
    torchscript: bool
    dynamo: bool
    tensorrt: str | None = None


class BuildTest(msgspec.Struct, frozen=True, tag=True):
    """A tiny engine that was built and run: the seconds that took, and its relative L2 distance to FP32 eager.

    The distance is None where an output is not finite.
    """

    seconds: float
    relative_l2: float | None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that the checks look at.

    Attributes:
        system: The operating system and Python.
        visible: The variable CUDA_VISIBLE_DEVICES; None where it is not set.
        driver: The NVIDIA driver.
        packages: The distributions of PACKAGES by name.
        folders: The folders that are written to, by what they are for.
        torch: The import of torch, in a process of its own.
        torchvision: That of torchvision.
        torch_tensorrt: That of Torch-TensorRT.
    """

    system: System | Failure
    visible: str | None
    driver: Driver | Failure
    packages: dict[str, Package | Failure]
    folders: dict[str, Folder | Failure]
    torch: Torch | Failure
    torchvision: Torchvision | Failure
    torch_tensorrt: TorchTensorrt | Failure

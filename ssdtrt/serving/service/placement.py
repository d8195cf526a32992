"""Where the replicas run: on which device, how many of them, and how many share a GPU."""

from __future__ import annotations

from ssdtrt import config
from ssdtrt.artifact.metadata import EngineMetadata, Metadata
from ssdtrt.errors import SsdtrtError
from ssdtrt.system.report import Report

_GPU_PARTS = 10_000  # in which Ray counts what is taken of a GPU


class Placement(Report, frozen=True, kw_only=True):
    """Where the replicas run.

    Attributes:
        device: `cpu` or `cuda`.
        replicas: How many there are.
        together: How many of them share a GPU at most; 1 on a CPU.
    """

    device: str
    replicas: int
    together: int = 1

    @property
    def gpus(self) -> float:
        """What each replica takes of a GPU."""
        return _GPU_PARTS // self.together / _GPU_PARTS


def needed_device(metadata: Metadata, asked: str | None) -> str | None:
    """Return where a file has to run, because it or the user says so; None where neither does.

    Args:
        metadata: That of the file.
        asked: `cpu` or `cuda`; None where the user did not say.

    Raises:
        SsdtrtError: Where the two differ.
    """
    if not isinstance(metadata, EngineMetadata):
        return asked
    needed = metadata.request.capabilities.device_type
    if asked and asked != needed:
        raise SsdtrtError(f"The file runs on {needed}; found --device {asked}. Leave it out.")
    return needed


def place(needed: str | None, replicas: int | None, gpus: int, cores: int) -> Placement:
    """Return where the replicas of a service run.

    A replica is one Python process, which is busy long before a GPU is. So by default a GPU has as many as there are
    cores for, config.SERVE_TOGETHER at most.

    Args:
        needed: `cpu` or `cuda`; None for `cuda` where there is a GPU.
        replicas: How many are asked for; those beyond the number of GPUs share them. None for one on a CPU, and for as
            many as suit the cores on one GPU.
        gpus: How many GPUs the cluster has.
        cores: How many cores it has.

    Raises:
        SsdtrtError: Where there is no GPU for what needs one.
    """
    on = needed or ("cuda" if gpus else "cpu")
    if on == "cpu":
        return Placement(device=on, replicas=replicas or 1)
    if not gpus:
        raise SsdtrtError("The file runs on a GPU; found none in the Ray cluster. Give a file for the CPU.")
    if replicas:
        return Placement(device=on, replicas=replicas, together=-(-replicas // gpus))
    count = min(max(cores // gpus // config.SERVE_CORES, 1), config.SERVE_TOGETHER)
    return Placement(device=on, replicas=count, together=count)

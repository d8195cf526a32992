"""Which of NVIDIA's containers can serve a file, as far as that is known. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from ssdtrt import config
from ssdtrt.artifact.metadata import EngineMetadata

_MONTH = "YY.MM"


def choose_container(path: Path, metadata: EngineMetadata) -> tuple[str | None, str]:
    """Return the container of Triton for a file, and a sentence on it.

    Args:
        path: The file.
        metadata: Of an engine or a detector.

    Returns:
        The container's name, None where it is not known or there is none; and what to know or to do.
    """
    if not metadata.request.capabilities.on_gpu:
        text = f"{path.name} is a CPU engine of torch {metadata.versions.torch}: any container with Triton's PyTorch backend"
        return None, f"{text} whose torch is that one or newer serves it ({config.SUPPORT_MATRIX})."
    version = str(metadata.versions.tensorrt)
    if version in config.NO_TRITON_CONTAINER:
        return (
            None,
            f"No container of NVIDIA's has TensorRT {version}, of which {path.name} is. {_how_to_build(metadata)}",
        )
    month = config.TRITON_CONTAINERS.get(".".join(version.split(".")[:2]))
    if month is None:
        unknown = f"Which container has TensorRT {version}, of which {path.name} is, is not known here"
        return None, f"{unknown}: see {config.SUPPORT_MATRIX}. To be sure, build anew. {_how_to_build(metadata)}"
    image = config.TRITON_IMAGE.format(month)
    text = f"{image} has TensorRT {'.'.join(version.split('.')[:2])}; the authors of ssdtrt have not served with it."
    if metadata.format == "plan":
        return image, f"{text} {path.name} is of TensorRT {version}, which has to be the very one."
    return image, f"{text} Its torch is NVIDIA's own. {_how_to_build(metadata, month)}"


def _how_to_build(metadata: EngineMetadata, month: str = _MONTH) -> str:
    """How to make a file that fits: compile it in the PyTorch container of the Triton container's month."""
    return (
        f"To make one that fits, run in {config.PYTORCH_IMAGE.format(month)}, on a GPU of compute capability "
        f"{metadata.machine.sm} such as the server has: {metadata.rebuild_command}; then serve it in "
        f"{config.TRITON_IMAGE.format(month)} of the same month."
    )

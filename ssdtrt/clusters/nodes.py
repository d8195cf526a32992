"""Ask each machine of a cluster, before any work, whether it can run the engine file. No torch on the driver."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ssdtrt import __version__, config
from ssdtrt.artifact.metadata import EngineMetadata, Metadata
from ssdtrt.clusters.storage import Folder
from ssdtrt.errors import ArtifactError, SsdtrtError, first_line
from ssdtrt.system.report import Report, counted
from ssdtrt.system.versions import pip_install


class Node(Report, frozen=True):
    """A machine of a cluster.

    Attributes:
        id: Its id in the cluster.
        name: Its address.
        cpus: How many logical CPUs it has.
        gpus: How many GPUs it has.
    """

    id: str
    name: str
    cpus: int
    gpus: int


class NodeQuestion(Report, frozen=True, kw_only=True):
    """What a machine is asked.

    Attributes:
        file: The path of the engine.
        sha256: The SHA-256 that it must have.
        device: `cuda` or `cpu`.
        folder: Where the Parquet files will go.
        token: The name of a file that is there now.
        decode: Where JPEG files are to be decoded: `auto`, `gpu` or `cpu`.
        version: The version of ssdtrt that asks, and must be there too.
    """

    file: str
    sha256: str
    device: str
    folder: str
    token: str
    decode: str
    version: str = __version__


class NodeAnswer(Report, frozen=True):
    """What a machine answers.

    Attributes:
        problem: Why it cannot do the work; "" where it can.
        decodes: Whether its GPU decodes JPEG files.
    """

    problem: str
    decodes: bool = False


def list_nodes(ray: ModuleType) -> list[Node]:
    """Return the machines of a cluster that are alive."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            counts = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
            found.append(Node(node["NodeID"], node["NodeManagerAddress"], *counts))
    return found


def choose_device(metadata: Metadata, asked: str | None, nodes: Sequence[Node], file: str) -> str:
    """Return where actors run a file: `cuda` or `cpu`.

    Args:
        metadata: The metadata of the file.
        asked: What the user asks for; None for what the file is for, for a module GPUs where there are any.
        nodes: The machines.
        file: The file, for messages.

    Raises:
        ArtifactError: Where no machine has what the file needs, or the file is for another device than is asked for.
    """
    needed = None
    if isinstance(metadata, EngineMetadata):
        needed = "cuda" if metadata.request.capabilities.on_gpu else "cpu"
    gpus = sum(node.gpus for node in nodes)
    device = asked or needed or ("cuda" if gpus else "cpu")
    if needed and device != needed:
        raise ArtifactError(f"{file} is an engine for {needed}; found --device {device}. Leave it out.")
    if device == "cuda" and not gpus:
        raise ArtifactError(
            f"{file} needs a GPU, and the cluster has none on {counted(len(nodes), 'machine')}. Build an engine for CPUs: "
            "ssdtrt compile --backend torchscript"
        )
    return device


def check_nodes(ray: ModuleType, nodes: Sequence[Node], question: NodeQuestion) -> bool:
    """Ask each machine whether it can do the work.

    Args:
        ray: The module, connected.
        nodes: The machines that actors may run on.
        question: What they are asked.

    Returns:
        Whether the GPUs of all of them decode JPEG files.

    Raises:
        ArtifactError: For the first machine that cannot, with what to do there.
        SsdtrtError: Where one does not answer, or ssdtrt is missing there.
    """
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    # With the process ends what it has on the GPU, which another task or an actor would find there.
    ask = ray.remote(num_cpus=0, num_gpus=int(question.device == "cuda"), max_retries=0, max_calls=1)(answer)
    pinned = [affinity(node.id, soft=False) for node in nodes]
    waiting = [ask.options(scheduling_strategy=to_node).remote(question) for to_node in pinned]
    late = ray.wait(waiting, num_returns=len(waiting), timeout=config.RAY_NODE_SECONDS)[1]
    decodes = []
    for node, reference in zip(nodes, waiting):
        if reference in late:
            raise SsdtrtError(
                f"The machine {node.name} did not answer in {config.RAY_NODE_SECONDS:g} s: its GPU may be in use, or it is "
                "down. `ray status` shows it."
            )
        decodes.append(_answered(node.name, ray, reference).decodes)
    return all(decodes)


def _answered(name: str, ray: ModuleType, reference: Any) -> NodeAnswer:
    try:
        found: NodeAnswer = ray.get(reference)
    except Exception as error:  # Whatever Ray makes of a package that is not there, or a process that died.
        raise SsdtrtError(
            f"The machine {name} cannot run ssdtrt {__version__} ({first_line(error)}). Install it there: "
            f"{pip_install('ray')}"
        ) from error
    if found.problem:
        raise ArtifactError(f"On the machine {name}: {found.problem}")
    return found


def answer(question: NodeQuestion) -> NodeAnswer:
    """Return whether this machine can do the work; it runs there."""
    try:
        return _look(question)
    except SsdtrtError as error:
        return NodeAnswer(str(error))


def _look(question: NodeQuestion) -> NodeAnswer:
    from ssdtrt.artifact.inspection import check_fits
    from ssdtrt.artifact.metadata import check_file

    if question.version != __version__:
        return NodeAnswer(f"ssdtrt {__version__} is installed; expected {question.version}, which asks.")
    if not os.path.isfile(question.file):
        return NodeAnswer(f"{question.file} is not there; expected the engine at the same path on every machine.")
    metadata = check_file(question.file, sha256=question.sha256)
    if question.token not in Folder(question.folder).names():
        return NodeAnswer(
            f"{question.folder} is another folder than here. Give one with -o that all machines share, or an address of "
            "an object store."
        )
    if question.device != "cuda":
        return NodeAnswer("")
    from ssdtrt.images.gpu_decode import decoder_for
    from ssdtrt.runners import runtime
    from ssdtrt.system.devices import pick_device

    is_engine = isinstance(metadata, EngineMetadata)
    if is_engine and (reason := runtime.why_not(plan=metadata.format == "plan")):
        return NodeAnswer(reason)
    device = pick_device("cuda")
    if is_engine:
        from pathlib import Path

        check_fits(Path(question.file), metadata, device)
    wanted = question.decode != "cpu"
    return NodeAnswer("", decoder_for(question.decode, device, metadata.model.preprocess, wanted) is not None)

"""What machines are asked before work begins, and what ends the run there."""

import msgspec
import pytest

from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.clusters.nodes import Node, NodeAnswer, NodeQuestion, answer, choose_device
from ssdtrt.clusters.storage import Folder
from ssdtrt.errors import ArtifactError
from ssdtrt.system.digests import sha256_file

CPUS = [Node("a", "10.0.0.1", 8, 0), Node("b", "10.0.0.2", 8, 0)]
GPUS = [*CPUS, Node("c", "10.0.0.3", 16, 2)]


@pytest.fixture
def question(known, tmp_path):
    """A question to this machine, which can do the work."""
    Folder(str(tmp_path)).write("token", b"")
    return NodeQuestion(file=str(known), sha256=sha256_file(known), device="cpu", folder=str(tmp_path), token="token",
                        decode="auto")  # fmt: skip


def test_a_machine_that_can_do_the_work_says_so(question):
    assert answer(question) == NodeAnswer("", False)


@pytest.mark.parametrize(("change", "words"), [
    ({"file": "/nowhere/a.ts"}, "/nowhere/a.ts is not there; expected the engine at the same path on every machine."),
    ({"sha256": "0" * 64}, "known.ts has the SHA-256 "),
    ({"token": "other"}, " is another folder than here. Give one with -o that all machines share"),
    ({"version": "9.9"}, "is installed; expected 9.9, which asks."),
    ({"device": "cuda"}, "sees 0 CUDA GPUs."),
])  # fmt: skip
def test_a_machine_that_cannot_says_why_in_one_line(question, change, words):
    problem = answer(msgspec.structs.replace(question, **change)).problem
    assert words in problem and "\n" not in problem


def test_an_engine_for_another_gpu_is_said_with_the_command_that_builds_one(
    question, tensorrt_engine, like_there, monkeypatch
):
    import torch

    from ssdtrt.runners import runtime
    from ssdtrt.system import versions

    monkeypatch.setattr(runtime, "why_not", lambda plan: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    here = versions.this_machine("cpu")
    monkeypatch.setattr("ssdtrt.artifact.inspection.this_machine", lambda _: msgspec.structs.replace(here, sm="8.9"))
    installed = msgspec.structs.replace(versions.installed_versions(), tensorrt="8.6.0", torch_tensorrt="2.2.0")
    monkeypatch.setattr("ssdtrt.artifact.inspection.installed_versions", lambda: installed)
    asked = msgspec.structs.replace(
        question, file=str(tensorrt_engine), sha256=sha256_file(tensorrt_engine), device="cuda"
    )
    problem = answer(asked).problem
    assert "was built for compute capability 9.0; this machine has 8.9. Build it again here: ssdtrt compile " in problem


@pytest.mark.parametrize(
    ("nodes", "asked", "device"), [(CPUS, None, "cpu"), (GPUS, None, "cuda"), (GPUS, "cpu", "cpu")]
)
def test_a_module_runs_on_gpus_where_there_are_any(known, nodes, asked, device):
    assert choose_device(read_metadata(known), asked, nodes, "known.ts") == device


def test_engines_run_on_what_they_are_for(tensorrt_engine, engine):
    for_gpu, for_cpu = read_metadata(tensorrt_engine), read_metadata(engine)
    assert choose_device(for_gpu, None, GPUS, "a") == "cuda" and choose_device(for_cpu, None, GPUS, "a") == "cpu"
    with pytest.raises(ArtifactError, match=r"^a is an engine for cpu; found --device cuda\. Leave it out\.$"):
        choose_device(for_cpu, "cuda", GPUS, "a")
    with pytest.raises(ArtifactError) as error:
        choose_device(for_gpu, None, CPUS, "a.engine.ts")
    assert str(error.value) == (
        "a.engine.ts needs a GPU, and the cluster has none on 2 machines. Build an engine for CPUs: "
        "ssdtrt compile --backend torchscript"
    )

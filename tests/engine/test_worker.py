"""Tests of the build process: it reads a job file, and writes an engine and a result."""

import importlib
import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest
import torch
from torch_tensorrt_stand_in import stand_in as torch_tensorrt_stand_in

import ssdtrt
from known import Known
from ssdtrt.artifact.precision import BACKENDS
from ssdtrt.artifact.request import BatchRange, BuildRequest
from ssdtrt.engine import tensorrt_backend, torch_tensorrt_backend, worker
from ssdtrt.engine.build import BuildFailed, BuildJob, BuildResult, Built, BuiltNetwork
from ssdtrt.engine.modules import EngineModule
from ssdtrt.engine.tensorrt_backend import BuildLimits
from ssdtrt.errors import BuilderError, CompileError
from ssdtrt.rewriting.fused import FusedNetwork, FusedSSD300, ProjectedBlock
from ssdtrt.runners import torchscript
from ssdtrt.system.child import python_command


def job_for(module, out, **changes):
    options = {"backend": "torchscript", "precision": "fp32", "batch": None, **changes}
    request = BuildRequest(weights="0" * 64, graph="1" * 64, preprocess="eval", **options)
    return BuildJob(request=request, module=str(module), out=str(out), device="cpu", parent=os.getpid())


def run_process(folder, job):
    """Run the build process on a job; return its exit code, its result and its stderr."""
    (folder / "job.json").write_bytes(msgspec.json.encode(job))
    environment = {**os.environ, "PYTHONPATH": str(Path(ssdtrt.__file__).parent.parent)}
    command = python_command("ssdtrt.engine.worker", str(folder / "job.json"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    result = msgspec.json.decode((folder / "result.json").read_bytes(), type=BuildResult)
    return done.returncode, result, done.stderr


def test_a_job_becomes_an_engine_and_a_result(module, tmp_path):
    code, result, _ = run_process(tmp_path, job_for(module, tmp_path / "a.engine.ts", precision="bf16"))
    assert code == 0 and isinstance(result, Built)
    assert 0 < result.seconds < 300 and result.seconds == round(result.seconds, 1)
    assert result.versions.torch == torch.__version__ and result.machine.gpu is None
    engine = torchscript.load(tmp_path / "a.engine.ts")
    assert not engine.state_dict()  # Frozen.
    assert (engine.channels_last, engine.min_batch, engine.size) == (True, 1, 300)


@pytest.fixture
def run_here(tmp_path, monkeypatch):
    """Run the build process's work on a job in this process; return its exit code and its result."""
    monkeypatch.setattr(worker, "die_with_parent", lambda *_: None)  # The parent is not the process in the job.
    before = signal.getsignal(signal.SIGINT)

    def call(job):
        (tmp_path / "job.json").write_bytes(msgspec.json.encode(job))
        code = worker.main(str(tmp_path / "job.json"))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        return code, msgspec.json.decode((tmp_path / "result.json").read_bytes(), type=BuildResult)

    yield call
    signal.signal(signal.SIGINT, before)


def test_a_known_failure_is_a_result_with_its_message(run_here, tmp_path, capsys):
    (tmp_path / "broken.ts").write_bytes(b"not a module")
    code, result = run_here(job_for(tmp_path / "broken.ts", tmp_path / "a.engine.ts"))
    assert code == 1 and isinstance(result, BuildFailed)
    assert result.message.startswith(f"{tmp_path / 'broken.ts'} cannot be loaded (")
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "a.engine.ts").exists()


def test_a_failure_of_tensorrts_builder_is_told_from_others(run_here, monkeypatch):
    for error in (BuilderError("no kernel"), CompileError("no GPU")):
        monkeypatch.setattr(worker, "build_network", lambda job: raise_(error))
        result = run_here(job_for("a", "b"))[1]
        assert result == BuildFailed(str(error), in_builder=type(error) is BuilderError)


def raise_(error):
    raise error


@pytest.mark.parametrize("merged", [True, False])
def test_the_layout_is_part_of_the_result_of_tensorrt(module, run_here, tmp_path, monkeypatch, merged):
    assert run_here(job_for(module, tmp_path / "a.ts"))[1].merged_projections is None
    monkeypatch.setattr(
        worker, "build_network", lambda job: BuiltNetwork(EngineModule(Known(), torch.float32, None, False))
    )
    options = {"backend": "tensorrt", "front_end": "torchscript", "batch": "1"}
    job = msgspec.structs.replace(job_for(module, tmp_path / "a.ts", **options), merged_projections=merged)
    assert run_here(job)[1].merged_projections is merged


@pytest.mark.parametrize(
    "error, shown", [(OSError("one\ntwo"), "OSError: one"), (MemoryError(), "MemoryError: no message")]
)
def test_an_unknown_failure_is_one_line_and_a_traceback_in_the_log(error, shown, run_here, monkeypatch, capsys):
    def fail(job):
        raise error

    monkeypatch.setattr(worker, "_build", fail)
    assert run_here(job_for("a", "b")) == (1, BuildFailed(f"The build failed ({shown})."))
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and type(error).__name__ in said


# Which back end builds


def test_every_request_has_a_builder():
    for backend in BACKENDS.values():
        for front_end in backend.front_ends or (None,):
            name = worker._MODULES[backend.name, front_end]
            assert callable(importlib.import_module(f"ssdtrt.engine.{name}").build)


def tensorrt_job(timing_cache, **options):
    request = BuildRequest(
        weights="0" * 64,
        graph="1" * 64,
        preprocess="eval",
        workspace_mib=64,
        backend="tensorrt",
        precision="fp16",
        **options,
    )
    return BuildJob(request=request, module="m.ts", out="a.ts", device="cpu", timing_cache=timing_cache, parent=1)


@pytest.mark.parametrize(
    "front_end, batch, streams, cached, merged",
    [
        ("torchscript", "8", 0, None, True),
        ("torchscript", "1:8:32", 0, None, False),
        ("tensorrt", "8", 4, None, False),
        ("tensorrt", "1:8:32", 0, "engines/timings.bin", True),
    ],
)
def test_each_front_end_builds_what_was_asked_for(model, monkeypatch, front_end, batch, streams, cached, merged):
    calls = []

    def take(name):
        def called(form, *rest):
            calls.append((name, form, rest))
            if name == "own API":
                return b"plan"
            with torchscript.quiet():
                return torch.jit.trace(torch.nn.Identity(), torch.zeros(1))

        return called

    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for backend in (torch_tensorrt_backend, tensorrt_backend):
        monkeypatch.setattr(backend, "eager_model", lambda module, device: model)
    monkeypatch.setattr(torch_tensorrt_backend, "compile_module", take("front end"))
    # Tracing runs the network, and a CPU takes minutes for FP16; it has tests of its own.
    monkeypatch.setattr(torch_tensorrt_backend, "trace", lambda network, device: network)
    monkeypatch.setattr(tensorrt_backend, "build_plan", take("own API"))
    monkeypatch.setattr(tensorrt_backend.runtime, "import_torch_tensorrt", lambda: torch_tensorrt_stand_in("2.2.0"))
    monkeypatch.setattr(tensorrt_backend, "embed", lambda plan, device: take(plan)(device) if plan == b"plan" else None)
    asked = {"front_end": front_end, "batch": batch, "streams": streams}
    job = msgspec.structs.replace(tensorrt_job(cached, **asked), merged_projections=merged)
    engine, plan = worker.build_network(job)
    assert plan == (b"plan" if front_end == "tensorrt" else None)
    sizes = BatchRange.parse(batch)
    assert isinstance(engine, EngineModule) and (engine.min_batch, engine.max_batch) == (sizes.min, sizes.max)
    network = engine.network
    assert type(network) is FusedNetwork and isinstance(network.network, torch.jit.ScriptModule)
    (name, form, rest), *embedded = calls
    device = torch.device("cpu")
    assert embedded == ([(b"plan", device, ())] if front_end == "tensorrt" else [])
    assert isinstance(form, FusedSSD300)
    assert any(isinstance(part, ProjectedBlock) for part in form.modules()) is merged
    assert {parameter.dtype for parameter in form.parameters()} == {torch.float16}
    if front_end == "tensorrt":
        assert (name, rest) == ("own API", (sizes, BuildLimits(streams, 64), cached and Path(cached)))
    else:
        assert (name, rest) == ("front end", ("fp16", sizes, 64, device))

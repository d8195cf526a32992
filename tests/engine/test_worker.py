"""The process that builds: a request goes in as a file, an engine and a result come out as files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ssdtrt
from ssdtrt.artifact import torchscript
from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine import worker
from ssdtrt.engine.backends import build_network
from ssdtrt.engine.rewrite import FusedNetwork, FusedSSD300


def request_for(module, out, **changes):
    return {
        "module": str(module),
        "backend": "torchscript",
        "precision": "fp32",
        "batch": "1",
        "streams": 0,
        "workspace_mib": 64,
        "device": "cpu",
        "detector": False,
        "preprocess": "eval",
        "out": str(out),
        **changes,
    }


def run_process(folder, request):
    """Runs the building process on a request; its exit code, its result and what it said on stderr."""
    (folder / "request.json").write_text(json.dumps(request))
    environment = {**os.environ, "PYTHONPATH": str(Path(ssdtrt.__file__).parent.parent)}
    command = [sys.executable, "-m", "ssdtrt.engine.worker", str(folder / "request.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, json.loads((folder / "result.json").read_text()), done.stderr


def test_a_request_becomes_an_engine_and_a_result(module, tmp_path):
    code, result, _ = run_process(tmp_path, request_for(module, tmp_path / "a.engine.ts", precision="bf16"))
    assert code == 0
    assert set(result) == {"seconds", "versions", "machine"}
    assert 0 < result["seconds"] < 300 and result["seconds"] == round(result["seconds"], 1)
    assert result["versions"]["torch"] == torch.__version__ and result["machine"]["gpu"] is None
    engine = torchscript.load(tmp_path / "a.engine.ts")
    assert not engine.state_dict()  # Frozen.
    assert (engine.channels_last, engine.min_batch, engine.size) == (True, 1, 300)


def test_a_known_failure_is_a_result_with_its_message(tmp_path):
    (tmp_path / "broken.ts").write_bytes(b"not a module")
    code, result, said = run_process(tmp_path, request_for(tmp_path / "broken.ts", tmp_path / "a.engine.ts"))
    assert code == 1 and set(result) == {"error"}
    assert result["error"].startswith(f"{tmp_path / 'broken.ts'} cannot be loaded (")
    assert "Traceback" not in said
    assert not (tmp_path / "a.engine.ts").exists()


@pytest.mark.parametrize(
    "error, shown", [(OSError("one\ntwo"), "OSError: one"), (MemoryError(), "MemoryError: no message")]
)
def test_an_unknown_failure_is_one_line_and_a_traceback_in_the_log(error, shown, tmp_path, monkeypatch, capsys):
    def fail(request):
        raise error

    (tmp_path / "request.json").write_text("{}")
    monkeypatch.setattr(worker, "build", fail)
    monkeypatch.setattr(worker, "die_with_parent", lambda *_: None)  # The parent here is whoever runs the tests.
    before = signal.getsignal(signal.SIGINT)
    try:
        assert worker.main(str(tmp_path / "request.json")) == 1
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    assert json.loads((tmp_path / "result.json").read_text()) == {"error": f"The build failed ({shown})."}
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and type(error).__name__ in said


@pytest.mark.parametrize("streams, cached", [(0, None), (4, None), (4, "engines/timings.bin")])
def test_more_streams_are_built_through_tensorrts_own_api(model, monkeypatch, streams, cached):
    calls = []

    def take(name):
        def called(form, *rest):
            calls.append((name, form, rest))
            with torchscript.quiet():
                return torch.jit.trace(torch.nn.Identity(), torch.zeros(1))

        return called

    monkeypatch.setattr(worker.trt, "build", take("front end"))
    monkeypatch.setattr(worker.native, "build", take("own API"))
    request = {"precision": "fp16", "streams": streams, "workspace_mib": 64, "timings": cached}
    device, batch = torch.device("cpu"), BatchRange.parse(8)
    network = build_network(model, request, batch, device)
    assert type(network) is FusedNetwork and isinstance(network.network, torch.jit.ScriptModule)
    ((name, form, rest),) = calls
    assert {parameter.dtype for parameter in form.parameters()} == {torch.float16}
    if streams:
        assert (name, rest) == ("own API", (8, 4, 64, device, cached and Path(cached)))
        assert isinstance(form, FusedSSD300)
    else:
        assert (name, rest) == ("front end", ("fp16", batch, 64, device))
        assert isinstance(form, torch.jit.ScriptModule)

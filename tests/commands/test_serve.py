"""The command serve, as far as it goes without Ray; the service itself is in tests/serving/service."""

import importlib.util
import socket

import pytest
from command_line import assert_refused

from ssdtrt.commands.serve import _text as serve_text
from ssdtrt.errors import SsdtrtError
from ssdtrt.serving.service import cluster, service
from ssdtrt.serving.service.records import EngineFile, ServeReport, ServiceInfo, ServiceOptions


@pytest.mark.parametrize("options", [("--port", "8001"), ("--threshold", "0.5"), ("--classes", "cat")])
def test_a_new_engine_takes_no_options_of_a_service(ssdtrt, known, options):
    done = ssdtrt("serve", known, "--swap", "--ray", "auto", *options)
    assert done.exit_code == 2
    assert f"{options[0]} is for a service that starts; --swap changes its engine alone." in done.stderr


def test_what_ends_a_service_takes_nothing_else(ssdtrt, known):
    done = ssdtrt("serve", known, "--stop")
    assert done.exit_code == 2 and "FILE is for a service that starts; --stop ends the one that runs." in done.stderr
    done = ssdtrt("serve", "--stop", "--swap")
    assert done.exit_code == 2 and "--swap is for a service that starts" in done.stderr
    done = ssdtrt("serve", "--swap")
    assert done.exit_code == 2 and "Missing argument 'FILE'" in done.stderr


def test_no_service_is_there_to_end(ssdtrt, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = ssdtrt("-q", "serve", "--stop", "--ray", address)
    assert done.exit_code == 1 and done.stderr.startswith(f"Error: No Ray cluster answers at {address} (")

    def none(*_, **__):
        raise SsdtrtError("No Ray cluster answers at auto")

    monkeypatch.setattr(cluster, "connect", none)
    expected = "No service runs on this machine, because no Ray cluster does. Start one: ssdtrt serve FILE"
    assert_refused(ssdtrt("-q", "serve", "--stop"), expected)


def test_which_gpu_is_for_ray_to_choose(ssdtrt, known):
    done = ssdtrt("serve", known, "--device", "cuda:1")
    assert done.exit_code == 2 and "'cuda:1' is not one of 'cpu', 'cuda'" in done.stderr


def test_ray_is_missing(ssdtrt, known, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    for options in ((), ("--swap",)):
        done = ssdtrt("-q", "serve", known, *options)
        assert_refused(done, "The service needs Ray, with Serve: pip install 'ssdtrt[ray]'")


@pytest.fixture
def no_ray(monkeypatch):
    """Nothing gets as far as to Ray."""
    monkeypatch.setattr(cluster, "check_ray", lambda: None)
    monkeypatch.setattr(service, "check_ray", lambda: None)
    monkeypatch.setattr(service, "connect", lambda _: pytest.fail("Ray was started"))


def test_what_is_refused_before_ray_starts(ssdtrt, known, engine, no_ray):
    assert_refused(ssdtrt("-q", "serve", "no.ts"), "no.ts: no such file. Make it first: ssdtrt export -o no.ts")
    done = ssdtrt("-q", "serve", known, "--classes", "catt")
    assert_refused(done, "There is no class 'catt'; expected a name or a number of 1..80. Did you mean 'cat'?")
    done = ssdtrt("-q", "serve", engine, "--device", "cuda")
    assert_refused(done, "The file runs on cpu; found --device cuda. Leave it out.")
    for options in ((engine,), (known, "--device", "cpu")):
        done = ssdtrt("-q", "serve", *options, "--decode", "gpu")
        assert_refused(done, "JPEGs cannot be decoded on the GPU: there is no GPU here that torch sees, or --device is "
                             "cpu. Leave --decode (decode) out, and the CPU does it.")  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = ssdtrt("-q", "serve", known, "--port", port)
    assert_refused(done, f"127.0.0.1:{port} is not free (Address already in use). Give another --port.")
    for host in ("no-such-host.invalid", "203.0.113.9", "a..b"):
        done = ssdtrt("-q", "serve", known, "--host", host)
        assert done.exit_code == 1 and done.stderr.startswith(f"Error: {host!r} is no address of this machine (")
        assert done.stderr.endswith("). Give another --host.\n")


@pytest.mark.parametrize("device, decode, told", [
    ("cuda:0", "gpu", "on cuda:0, JPEGs decoded on the GPU, 4 replicas"),
    ("cuda:0", "cpu", "on cuda:0, JPEGs decoded on the CPU, 4 replicas"),
    ("cpu", "cpu", "on cpu, 4 replicas"),
])  # fmt: skip
def test_where_it_decodes_is_told_where_there_is_a_choice(device, decode, told):
    runs = ServiceInfo(
        engine=EngineFile("a.ts", "00"), precision="fp16", preprocess="eval", labels=(), note="", device=device,
        batch_size=8, decode=decode, replicas=4, options=ServiceOptions(url="http://here:1"),
    )  # fmt: skip
    text = serve_text(ServeReport(url="http://here:1", ray="127.0.0.1:2", service=runs), 200)
    assert text.splitlines()[0] == f"http://here:1: a.ts, FP16 {told}"


def test_why_a_replica_does_not_start():
    trace = "RayTaskError\n  File x\nssdtrt.errors.ArtifactError: a.ts has another SHA-256. Get it again.\n\nmore"
    assert cluster.start_failure(trace) == "a.ts has another SHA-256. Get it again."
    assert cluster.start_failure("one\n two \n") == "The service does not start (two)."
    alerts = "RuntimeError: [NOTICE]   (1) : path\n[ALERT]    (1) : Binding [a:5] for x: in use\n[ALERT] (1) : Exiting."
    assert cluster.start_failure(alerts) == "The service does not start (Binding [a:5] for x: in use)."

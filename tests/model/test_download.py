"""Fetching the COCO checkpoint, from real servers on this machine."""

import collections
import contextlib
import hashlib
import itertools
import shutil
import socket
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from checkpoints import OLD_TORCH

from ssdtrt.errors import FetchError, WeightsError
from ssdtrt.export import _to_torchscript
from ssdtrt.model import download
from ssdtrt.model.download import coco_checkpoint
from ssdtrt.model.weights import build_model
from ssdtrt.runners import torchscript
from ssdtrt.system.progress import ProgressBar

NAME = "nvidia_ssdpyt_amp_200703.pt"
ADVICE = "Fetch it by hand and give its path with --weights, or set SSDTRT_COCO_URL to a mirror."


@pytest.fixture(scope="module")
def published(model, tmp_path_factory):
    """A whole checkpoint in NVIDIA's format, as it would be served."""
    path = tmp_path_factory.mktemp("published") / "published.pt"
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def digest(published):
    return hashlib.sha256(published.read_bytes()).hexdigest()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The folder of torch's hub cache where the checkpoint belongs; it does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture
def serve(server, monkeypatch):
    """`serve(content)` puts a file on the server, sets the address, and returns it."""
    address, folder = server

    def put(content, name="coco.pt"):
        target = folder / name
        if isinstance(content, Path):
            target.symlink_to(content)
        else:
            target.write_bytes(content)
        monkeypatch.setenv("SSDTRT_COCO_URL", f"{address}/{name}")
        return f"{address}/{name}"

    return put


@contextlib.contextmanager
def answering(headers, body, status=200):
    """A server that answers everything with this, to the byte: yields (address, list of the paths asked for)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}/coco.pt", asked
        finally:
            httpd.shutdown()
            thread.join()


def closed_port():
    """A port of this machine where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nothing_in(folder):
    return not folder.exists() or list(folder.iterdir()) == []


def assert_fetch_fails(cache, *parts, kind=FetchError, **options):
    """build_model("coco") raises one line that holds these parts, and leaves nothing behind."""
    with pytest.raises(WeightsError) as caught:
        build_model("coco", **options)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    for part in parts:
        assert part in message, message
    assert "\n" not in message and ".tmp" not in message
    assert nothing_in(cache), list(cache.iterdir())


# What works


def test_fetched_once_recorded_and_used_again(cache, serve, published, digest, model, monkeypatch):
    serve(published)
    lines = []
    fetched = build_model("coco", progress=lines.append)
    assert sorted(path.name for path in cache.iterdir()) == [NAME, NAME + ".sha256"]
    assert (cache / NAME).read_bytes() == published.read_bytes()
    assert (cache / f"{NAME}.sha256").read_text() == f"{digest}  {NAME}\n"
    assert fetched.source.as_dict() == {
        "name": "coco",
        "sha256": model.source.sha256,
        "trained": True,
        "file_sha256": digest,
    }
    size = published.stat().st_size
    assert all(line.startswith("fetching the COCO checkpoint [") for line in lines)
    assert lines[-1].startswith(f"fetching the COCO checkpoint [{'#' * 20}] {size / 1e6:.0f} of {size / 1e6:.0f} MB, ")

    with answering({}, b"", status=500) as (address, asked):
        monkeypatch.setenv("SSDTRT_COCO_URL", address)
        again = build_model("coco", sha256=digest.upper(), progress=lines.append)
    assert asked == []
    assert again.source == fetched.source


def test_the_file_may_be_read_by_others(cache, serve):
    """Temporary files are private; what they become has the usual permissions."""
    serve(b"\x80 something")
    path = coco_checkpoint()
    plain = cache / "plain"
    plain.touch()
    assert path == cache / NAME and path.stat().st_mode == plain.stat().st_mode


def test_a_file_already_there_is_used_without_network(cache, published, digest):
    cache.mkdir(parents=True)
    (cache / NAME).symlink_to(published)
    assert build_model("coco", trust=OLD_TORCH).source.file_sha256 == digest
    assert (cache / f"{NAME}.sha256").read_text() == f"{digest}  {NAME}\n"


def test_length_unknown(cache, monkeypatch):
    """A server that does not send the file's length: the progress has no bar."""
    lines = []
    monkeypatch.setattr(download, "ProgressBar", partial(ProgressBar, clock=itertools.count().__next__))
    with answering({"Content-Type": "application/octet-stream"}, b"\x80" * 2_600_000) as (address, asked):
        monkeypatch.setenv("SSDTRT_COCO_URL", address)
        assert coco_checkpoint(progress=lines.append).stat().st_size == 2_600_000
    assert asked == ["/coco.pt"]
    assert len(lines) == 10  # 2.6 MB in parts of a quarter of one, a second each
    assert lines[-1].startswith("fetching the COCO checkpoint, 3 MB, 0.3 MB/s")


def test_right_sha256(cache, serve):
    serve(b"\x80 something")
    digest = hashlib.sha256(b"\x80 something").hexdigest()
    assert coco_checkpoint(sha256=digest.upper()) == cache / NAME


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
def test_proxies_are_used(variable, cache, server, monkeypatch):
    """A host that does not exist, through this machine's server, which looks for the whole address in its folder."""
    address, folder = server
    target = folder / "http:" / "mirror.invalid" / "models" / "coco.pt"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"\x80 by proxy")
    monkeypatch.setenv("SSDTRT_COCO_URL", "http://mirror.invalid/models/coco.pt")
    monkeypatch.setenv(variable, address)
    assert coco_checkpoint().read_bytes() == b"\x80 by proxy"


def test_trust_holds_for_what_is_fetched(cache, serve, published, model):
    """A checkpoint with a Counter: newer torch reads it as it is, older torch where the user trusts it."""
    content = published.parent / "training.pt"
    torch.save({"model": model.state_dict(), "scheduler": {"milestones": collections.Counter([43, 54])}}, content)
    serve(content)
    if OLD_TORCH:
        assert_fetch_fails(cache, "is not a usable checkpoint", "--trust-weights")
    assert build_model("coco", trust=OLD_TORCH).source.sha256 == model.source.sha256


# What does not


def test_404(cache, server, monkeypatch):
    monkeypatch.setenv("SSDTRT_COCO_URL", f"{server[0]}/gone.pt")
    assert_fetch_fails(cache, f"{server[0]}/gone.pt answered 404 (File not found).", ADVICE)


def test_server_error(cache, monkeypatch):
    with answering({}, b"", status=503) as (address, asked):
        monkeypatch.setenv("SSDTRT_COCO_URL", address)
        assert_fetch_fails(cache, f"{address} answered 503 (Service Unavailable).", ADVICE)
    assert len(asked) == 1


def test_the_connection_of_an_error_answer_is_closed(cache, server, monkeypatch):
    """Else Python warns of an open socket whenever it next looks for garbage."""
    monkeypatch.setenv("SSDTRT_COCO_URL", f"{server[0]}/gone.pt")
    with pytest.raises(FetchError) as caught:
        coco_checkpoint()
    assert caught.value.__cause__.fp.closed


def test_html_page(cache, serve):
    address = serve(b"<html>Please log in</html>", name="login.html")
    assert_fetch_fails(cache, f"{address} answered with an HTML page instead of the checkpoint.", ADVICE)


def test_html_page_sent_as_bytes(cache, serve):
    address = serve(b"<!DOCTYPE html><html>Please log in</html>")
    assert_fetch_fails(cache, f"{address} is not a usable checkpoint: it is an HTML or XML page")


def test_shorter_than_announced(cache, published, monkeypatch):
    size = published.stat().st_size
    with published.open("rb") as file, answering({"Content-Length": str(size)}, file.read(300_000)) as (address, _):
        monkeypatch.setenv("SSDTRT_COCO_URL", address)
        assert_fetch_fails(cache, f"{address} broke off after 300,000 of {size:,} bytes.", ADVICE)


def test_shorter_with_no_length_announced(cache, published, monkeypatch):
    with published.open("rb") as file, answering({}, file.read(300_000)) as (address, _):
        monkeypatch.setenv("SSDTRT_COCO_URL", address)
        assert_fetch_fails(cache, f"{address} is not a usable checkpoint: it is truncated or damaged (300,000 bytes")


@pytest.mark.parametrize("chunks", [b"5\r\nabcde\r\n", b"zz\r\nabcde\r\n"])
def test_broken_chunks(chunks, cache, monkeypatch):
    """An answer in chunks that stops before its end, and one that was never in chunks."""
    with answering({"Transfer-Encoding": "chunked"}, chunks) as (address, _):
        monkeypatch.setenv("SSDTRT_COCO_URL", address)
        assert_fetch_fails(cache, f"{address} cannot be fetched (", ADVICE)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "it is empty"),
        (b"just some text", "it is not a PyTorch checkpoint (it begins with b'just some te')"),
        (b"PK\x03\x04 half a zip", "it is truncated or damaged"),
        (b"\x80\x02 no pickle", "it "),
    ],
)
def test_body_that_is_no_checkpoint(body, reason, cache, serve):
    address = serve(body)
    assert_fetch_fails(cache, f"{address} is not a usable checkpoint: {reason}")


def test_torchscript_module(cache, serve, tmp_path):
    """The message names the address alone, not the temporary file."""
    torchscript.save(_to_torchscript(torch.nn.Identity(), "script"), tmp_path / "identity.ts")
    address = serve(tmp_path / "identity.ts")
    assert_fetch_fails(cache, f"{address} is not a usable checkpoint: it is a TorchScript module, not a checkpoint.")


def test_checkpoint_of_another_network(cache, serve, tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    address = serve(tmp_path / "other.pt")
    assert_fetch_fails(cache, f"{address} is not a usable checkpoint: it does not fit SSD300", "1 extra: fc.weight")


def test_connection_refused(cache, monkeypatch):
    address = f"http://127.0.0.1:{closed_port()}/coco.pt"
    monkeypatch.setenv("SSDTRT_COCO_URL", address)
    assert_fetch_fails(cache, f"{address} cannot be fetched ([Errno", "Connection refused).", ADVICE)


def test_connection_that_ends_before_the_answer(cache, monkeypatch):
    """Something accepts and hangs up, as a firewall may."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/coco.pt"
        thread = threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True)
        thread.start()
        monkeypatch.setenv("SSDTRT_COCO_URL", address)
        assert_fetch_fails(cache, f"{address} cannot be fetched (", ADVICE)
        thread.join()


@pytest.mark.parametrize("address", ["coco.pt", "gopher://mirror.invalid/a", "http://", "http://127.0.0.1:port/"])
def test_address_that_is_none(address, cache, monkeypatch):
    monkeypatch.setenv("SSDTRT_COCO_URL", address)
    assert_fetch_fails(cache, f"{address} cannot be fetched (", ADVICE)


def test_wrong_sha256(cache, serve, published, digest):
    address = serve(published)
    assert_fetch_fails(
        cache, f"{address} has the SHA-256 {digest}; expected {'ab' * 32}, ", kind=WeightsError, sha256="AB" * 32
    )


def test_cache_that_cannot_be_made(cache, serve, monkeypatch, tmp_path):
    serve(b"\x80 something")
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(FetchError, match=f"{NAME} cannot be written: Not a directory"):
        build_model("coco")


def test_interrupted_fetch_leaves_nothing(cache, serve):
    """Ctrl-C in the middle, here from the progress line."""
    serve(b"\x80" * 1_000_000)

    def stop(_):
        assert len(list(cache.iterdir())) == 1  # The temporary file.
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_model("coco", progress=stop)
    assert nothing_in(cache)


# A cache that is not as it was left


def test_changed_file_is_noticed(cache, serve):
    serve(b"\x80 first")
    path = coco_checkpoint()
    first, other = hashlib.sha256(b"\x80 first").hexdigest(), hashlib.sha256(b"\x80 other").hexdigest()
    path.write_bytes(b"\x80 other")
    with pytest.raises(WeightsError) as caught:
        build_model("coco")
    message = str(caught.value)
    assert message.startswith(f"{path} has the SHA-256 {other}; expected {first}, as {NAME}.sha256 has it. ")
    assert message.endswith(f" Remove it and {NAME}.sha256 to fetch it again.")
    assert path.read_bytes() == b"\x80 other"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe not text"])
def test_damaged_record_is_noticed(content, cache, serve):
    serve(b"\x80 first")
    path = coco_checkpoint()
    (cache / f"{NAME}.sha256").write_bytes(content)
    with pytest.raises(WeightsError, match=f"is not a SHA-256; .* Remove it and {NAME}.sha256 to fetch it again"):
        build_model("coco")
    assert path.exists()


def test_wrong_sha256_of_a_file_already_there(cache, published, digest):
    cache.mkdir(parents=True)
    shutil.copy(published, cache / NAME)
    with pytest.raises(WeightsError) as caught:
        build_model("coco", sha256="00" * 32)
    assert str(caught.value).startswith(f"{cache / NAME} has the SHA-256 {digest}; expected {'00' * 32}, ")
    assert [path.name for path in cache.iterdir()] == [NAME]


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"PK\x03\x04 half a zip"])
def test_bad_file_already_there_is_not_recorded(content, cache, serve):
    """Left by another tool. The error says to fetch it again; then doing so must work."""
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        build_model("coco")
    assert str(cache / NAME) in str(caught.value)
    assert [path.name for path in cache.iterdir()] == [NAME]
    (cache / NAME).unlink()
    serve(b"\x80 something")
    assert coco_checkpoint() == cache / NAME


def test_another_file_than_the_recorded_one_is_not_kept(cache, serve):
    """The record outlived its file, and the server has another one now."""
    cache.mkdir(parents=True)
    record = cache / f"{NAME}.sha256"
    record.write_text(f"{'12' * 32}  {NAME}\n")
    serve(b"\x80 something")
    with pytest.raises(WeightsError, match="12" * 32):
        coco_checkpoint()
    assert [path.name for path in cache.iterdir()] == [record.name]


def test_directory_in_its_place(cache):
    (cache / NAME).mkdir(parents=True)
    with pytest.raises(WeightsError, match=f"{NAME} is a directory"):
        build_model("coco")


def test_read_only_cache_with_the_file_is_used(cache, not_root):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(b"\x80 something")
    cache.chmod(0o555)
    try:
        assert coco_checkpoint() == cache / NAME
    finally:
        cache.chmod(0o755)

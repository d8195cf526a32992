"""Tests that truncated, swapped or modified files are refused in one line, before any of their code runs."""

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import zipfile
import zlib
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from conftest import ROOT
from known import metadata_like, typed, write_metadata
from ssdtrt import config
from ssdtrt.artifact.inspection import inspect_file
from ssdtrt.artifact.metadata import check_file, read_metadata
from ssdtrt.errors import ArtifactError, CompileError
from ssdtrt.formats.archive import check_digest, check_intact
from ssdtrt.runners import torchscript
from ssdtrt.runners.runner import load_engine
from ssdtrt.system.versions import Machine, Versions

CASES = int(os.environ.get("SSDTRT_FUZZ", "300"))
FUZZ = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
DAMAGED = "FILE is truncated, damaged or not one of ssdtrt's files ({}). Make it again."


class Tiny(nn.Module):
    """Take images as SSD300 does, and return some of the weights."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(2, 600, generator=generator))

    def forward(self, images: torch.Tensor):
        count = images.shape[0]
        loc = self.weight[0].reshape(1, 4, 150).repeat(count, 1, 1)
        return loc + images.mean(), self.weight[1].reshape(1, 4, 150).repeat(count, 1, 1)


def saved(path, module=None, metadata=None):
    """Save a module with metadata, or without if `metadata` is False."""
    with torchscript.quiet():
        scripted = torch.jit.script((module or Tiny()).eval())
    torchscript.save(scripted, path)
    if metadata is not False:
        write_metadata(path, metadata or metadata_like())
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the bytes of a small intact file."""
    return saved(tmp_path_factory.mktemp("tiny") / "tiny.ts").read_bytes()


@pytest.fixture
def path(tmp_path, whole):
    path = tmp_path / "tiny.ts"
    path.write_bytes(whole)
    return path


@pytest.fixture
def never_loaded(monkeypatch):
    """Make a call of torch.jit.load fail the test."""

    def load(*_, **__):
        pytest.fail("torch.jit.load was called")

    monkeypatch.setattr(torch.jit, "load", load)


def refusal(path, call=load_engine, error=ArtifactError, **options):
    """Return the one-line message of the error, with FILE in place of the path."""
    with pytest.raises(error) as caught:
        call(path, **options)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message.replace(str(path), "FILE")


def rewrite(path, change=None, extra=(), compress=zipfile.ZIP_STORED):
    """Write the archive again with changed metadata and additional members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in members if name.endswith("/extra/ssdtrt.json")]
    if change is not None:
        metadata = json.loads(members[name])
        members[name] = json.dumps(change(metadata) or metadata).encode()
    with zipfile.ZipFile(path, "w", compress) as archive:
        for member, content in [*members.items(), *extra]:
            archive.writestr(member, content)
    return path


def test_the_whole_file_loads_and_answers(path):
    loc, conf = load_engine(path, "cpu")(torch.zeros(2, 3, 300, 300))
    weight = Tiny().weight
    assert torch.equal(loc[1].flatten(), weight[0]) and torch.equal(conf[0].flatten(), weight[1])
    assert check_file(path) == typed(metadata_like())


def test_one_byte_short(path, whole, never_loaded):
    path.write_bytes(whole[:-1])
    assert refusal(path) == DAMAGED.format("File is not a zip file")


def test_zero_filled(path, whole, never_loaded):
    path.write_bytes(bytes(len(whole)))
    assert refusal(path).startswith("FILE is not one of ssdtrt's files (it begins with b'\\x00")
    path.write_bytes(whole[:100] + bytes(len(whole) - 100))
    assert refusal(path) == DAMAGED.format("File is not a zip file")


@pytest.mark.parametrize("tail", [b"\0", b"some more", b"PK\5\6", bytes(70_000)], ids=len)
def test_trailing_bytes(path, whole, tail, never_loaded):
    path.write_bytes(whole + tail)
    reason = "bytes follow its end" if tail in (b"\0", b"some more") else "File is not a zip file"
    assert refusal(path) == DAMAGED.format(reason)


def test_a_comment_behind_the_archive(path, never_loaded):
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"hello"
    assert refusal(path) == DAMAGED.format("bytes follow its end")


@pytest.mark.parametrize("head", [b"#!/bin/sh\n", b"PK\3\4 leading"])
def test_leading_bytes(path, whole, head, never_loaded):
    path.write_bytes(head + whole)
    expected = DAMAGED.format("its first member is not at its beginning")
    if not head.startswith(b"PK"):
        expected = (
            f"FILE is not one of ssdtrt's files (it begins with {head[:8]!r}); "
            "expected one that ssdtrt export or ssdtrt compile wrote."
        )
    assert refusal(path) == expected


def test_flipped_bits_are_refused_or_change_nothing(path, whole):
    places = random.Random(5).sample(range(len(whole) * 8), 50)
    images = torch.zeros(1, 3, 300, 300)
    expected = load_engine(path, "cpu")(images)
    refused = 0
    for place in places:
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            runner = load_engine(path, "cpu")
        except ArtifactError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
        else:  # The flipped bit was in a date or in the padding between members.
            assert all(torch.equal(a, b) for a, b in zip(runner(images), expected))
            assert runner.metadata == typed(metadata_like())
    assert refused >= 25, refused


@pytest.mark.slow
def test_flipped_bits_in_the_weights_of_the_network_are_refused(module, tmp_path):
    path = tmp_path / "ssd300.ts"
    content = bytearray(module.read_bytes())
    with zipfile.ZipFile(module) as archive:
        places = [member.header_offset + 200 + member.file_size // 2 for member in archive.infolist()
                  if member.file_size > 10_000 and not member.compress_type][:5]  # fmt: skip
    assert len(places) == 5
    for place in places:
        content[place] ^= 4
        path.write_bytes(content)
        content[place] ^= 4
        assert "Bad CRC-32 for file" in refusal(path)


def test_a_plain_state_dict(tmp_path, never_loaded):
    path = tmp_path / "weights.pt"
    torch.save(Tiny().state_dict(), path)
    assert refusal(path) == "FILE is a checkpoint, not a module; first run: ssdtrt export --weights FILE."


class Marked(nn.Module):
    """Print a line when the file is loaded."""

    def __init__(self):
        super().__init__()
        self.value = torch.ones(1)

    @torch.jit.export
    def __getstate__(self) -> torch.Tensor:
        return self.value

    @torch.jit.export
    def __setstate__(self, state: torch.Tensor):
        print("code of the file ran")
        self.value = state
        self.training = False

    def forward(self, images: torch.Tensor):
        return images, images


@pytest.mark.parametrize("ours", [False, True], ids=["without our metadata", "with it"])
def test_code_that_runs_while_loading(tmp_path, ours, capfd):
    path = saved(tmp_path / "marked.ts", Marked(), None if ours else False)
    capfd.readouterr()
    if ours:  # Shows that the code runs when the file is loaded.
        load_engine(path, "cpu")
        assert "code of the file ran" in capfd.readouterr().out
        return
    assert refusal(path) == (
        "FILE is a TorchScript archive without ssdtrt's metadata; make it with ssdtrt export or ssdtrt compile."
    )
    assert "code of the file ran" not in capfd.readouterr().out


def test_two_gigabytes_of_zeros_in_a_small_file(tmp_path, whole, never_loaded):
    path = tmp_path / "bomb.ts"
    path.write_bytes(whole)
    deflate = zlib.compressobj(1, wbits=-15)
    block = deflate.compress(bytes(1 << 24)) + deflate.flush(zlib.Z_FULL_FLUSH)  # May be repeated.
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        folder = archive.namelist()[0].split("/")[0]
        with archive.open(f"{folder}/data/9", "w", force_zip64=True) as member:
            member._compressor = SimpleNamespace(compress=lambda data: block, flush=deflate.flush)
            for _ in range(128):
                member.write(bytes(1 << 24))
    size, claimed = path.stat().st_size, 0
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    assert size < 16 << 20 and claimed > 2 << 30
    expected = DAMAGED.format(f"its members claim {claimed:,} bytes, and the file has {size:,}")
    assert refusal(path) == refusal(path, read_metadata) == refusal(path, check_intact) == expected


def test_two_members_of_one_name(path, never_loaded):
    with zipfile.ZipFile(path) as archive:
        name = archive.namelist()[0]
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"other")
    assert refusal(path) == DAMAGED.format("two of its members have one name")
    path.write_bytes(b"")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/extra/ssdtrt.json", "{}")
        archive.writestr("a/Extra/ssdtrt.json", "{}")
    assert refusal(path) == DAMAGED.format("two of its members have one name")


@pytest.mark.parametrize("name", ["other/extra/ssdtrt.json", "tiny/more/extra/ssdtrt.json"])
def test_two_members_of_metadata(path, name, never_loaded):
    rewrite(path, extra=[(name, b"{}")])
    assert refusal(path) == DAMAGED.format("2 members end in /extra/ssdtrt.json")


def test_metadata_in_another_folder_than_the_code(tmp_path, never_loaded):
    path = saved(tmp_path / "bare.ts", metadata=False)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("elsewhere/extra/ssdtrt.json", json.dumps(metadata_like()))
    assert refusal(path) == DAMAGED.format("'elsewhere/extra/ssdtrt.json' is not in its only folder")


def test_an_encrypted_member(path, never_loaded):
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert refusal(path) == DAMAGED.format("it is encrypted")


def test_metadata_without_bounds(path, never_loaded):
    rewrite(path, lambda metadata: {**metadata, "note": "x" * config.MAX_METADATA})
    assert "its metadata has 1,0" in refusal(path) and "the limit is 1,048,576" in refusal(path)


def test_a_link_to_a_file_is_one(path, tmp_path):
    link = tmp_path / "link.ts"
    link.symlink_to(path)
    assert load_engine(link, "cpu").metadata == typed(metadata_like())
    path.unlink()
    assert refusal(link) == "FILE: no such file. Make it first: ssdtrt export -o FILE"


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a.ts").symlink_to("b.ts")
    (tmp_path / "b.ts").symlink_to("a.ts")
    assert refusal(tmp_path / "a.ts") == "FILE cannot be read: Too many levels of symbolic links."


@pytest.mark.parametrize("kind", ["named pipe", "device", "socket"])
def test_what_is_no_file_ends_with_one_line_and_never_hangs(tmp_path, kind, monkeypatch):
    path = tmp_path / "special.ts"
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = "/dev/zero"
    else:
        server = socket.socket(socket.AF_UNIX)
        monkeypatch.chdir(tmp_path)  # The length of a socket's path is limited.
        server.bind("special.ts")
        server.close()
    command = [sys.executable, "-m", "ssdtrt", "inspect", "--check", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    expected = f"Error: {path} is a {kind}; expected a file that ssdtrt export or ssdtrt compile wrote.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_a_newer_schema(path, never_loaded):
    rewrite(path, lambda metadata: {"schema": 3, "kind": "hologram"})
    assert refusal(path) == "FILE was written by a newer ssdtrt (schema 3, this one reads up to 2). Update ssdtrt."


def without(metadata, name):
    """Remove the field with this dotted name."""
    *above, last = name.split(".")
    for part in above:
        metadata = metadata[part]
    del metadata[last]


MODULE = {
    "": "schema kind created versions machine model inputs outputs export",
    "versions.": "torch",
    "model.": "labels weights preprocess",
    "model.weights.": "name sha256 trained",
    "export.": "method",
}
ENGINE = {
    **MODULE,
    " ": "module request build parity",
    "module.": "file sha256",
    "request.": "weights graph preprocess backend precision",
    "build.": "seconds",
    "parity.": "precision images batch_sizes bound floor outputs detections",
    "parity.detections.": "reference engine",
}


def names(required):
    """Return the dotted names of the fields."""
    return [f"{above.strip()}{name}" for above, below in required.items() for name in below.split()]


@pytest.mark.parametrize("kind, backend, name", [
    *(("module", "torchscript", name) for name in names(MODULE)),
    *(("engine", "torchscript", name) for name in names(ENGINE)),
    *(("detector", "tensorrt", name) for name in [*names(ENGINE), "request.batch", "machine.sm", "versions.torch_tensorrt"]),
])  # fmt: skip
def test_each_field_that_is_read_later_must_be_there(tmp_path, whole, kind, backend, name, never_loaded):
    path = tmp_path / "tiny.ts"
    path.write_bytes(whole)

    def change(_):
        metadata = metadata_like(kind, backend)
        without(metadata, name)
        return metadata

    rewrite(path, change)
    message = refusal(path)
    assert message.startswith("FILE carries damaged metadata (") and message.endswith("). Make it again.")
    assert name.split(".")[-1] in message


WRONG = [
    ("build", [], "Expected `object`, got `array` - at `$.build`"),
    ("request.precision", "fp8", "'fp8' is unknown; expected fp32 or fp16 or bf16 or int8 - at `$.request`"),
    ("request.backend", "tpu", "'tpu' is unknown; expected tensorrt or torchscript - at `$.request`"),
    (
        "request.batch",
        "8:1:32",
        "A batch range is MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX; found 8:1:32. - at `$.request`",
    ),
    ("request.batch", "0", "A batch range is MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX; found 0. - at `$.request`"),
    ("request.batch", 8, "Expected `str | null`, got `int` - at `$.request.batch`"),
    ("build.seconds", True, "Expected `float`, got `bool` - at `$.build.seconds`"),
    ("model.labels", ["a", 2], "Expected `str`, got `int` - at `$.model.labels[1]`"),
    ("model.labels", [], "Expected `array` of length >= 1 - at `$.model.labels`"),
    ("model.preprocess", ["eval"], "Expected `str`, got `array` - at `$.model.preprocess`"),
    ("model.weights.sha256", "0" * 63, "Expected `str` matching regex '^[0-9a-f]{64}$' - at `$.model.weights.sha256`"),
    ("module.file", "../../x", "at `$.module.file`"),
    ("module.file", "a\x1b[2J", "at `$.module.file`"),
    ("kind", ["engine"], "kind is ['engine']; expected text"),
    ("schema", True, "schema is True; expected a number from 1"),
    ("schema", 0, "schema is 0; expected a number from 1"),
    ("outputs", [{"name": "loc"}], "Object missing required field `shape` - at `$.outputs[0]`"),
]


@pytest.mark.parametrize("name, value, reason", WRONG, ids=[f"{name}-{value}"[:30] for name, value, _ in WRONG])
def test_each_field_must_be_of_its_type(path, name, value, reason, never_loaded):
    def change(_):
        metadata = part = metadata_like("engine")
        *above, last = name.split(".")
        for key in above:
            part = part[key]
        part[last] = value
        return metadata

    rewrite(path, change)
    message = refusal(path)
    assert message.startswith("FILE carries damaged metadata (") and message.endswith(f"{reason}). Make it again.")


def test_a_tensorrt_engine_names_its_batches_and_its_gpu(path):
    def change(_):
        metadata = metadata_like("engine", "tensorrt")
        metadata["request"]["batch"] = None
        return metadata

    rewrite(path, change)
    reason = "batch is null; expected the batch sizes of a tensorrt engine - at `$.request`"
    assert refusal(path) == f"FILE carries damaged metadata ({reason}). Make it again."


@pytest.fixture
def gpu(monkeypatch):
    """Make a GPU and the versions of `metadata_like` appear as present."""
    versions = Versions(torch="2.2.2", torch_tensorrt="2.2.0", tensorrt="8.6.0")
    place = Machine(os="Linux", architecture="x86_64", gpu="NVIDIA H200", sm="9.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("ssdtrt.runners.runtime.why_not", lambda *_: None)
    monkeypatch.setattr(
        "ssdtrt.runners.runtime.import_torch_tensorrt", lambda: pytest.fail("torch_tensorrt was imported")
    )
    monkeypatch.setattr("ssdtrt.runners.runner.pick_device", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr("ssdtrt.artifact.inspection.installed_versions", lambda: versions)
    monkeypatch.setattr("ssdtrt.artifact.inspection.this_machine", lambda _: place)


@pytest.mark.parametrize("key, built, words", [
    ("sm", "8.9", "compute capability 8.9; this machine has 9.0"),
    ("tensorrt", "10.3.0", "TensorRT 10.3.0; this machine has 8.6.0"),
    ("torch_tensorrt", "2.5.0", "Torch-TensorRT 2.5.0; this machine has 2.2.0"),
    ("os", "Windows", "operating system Windows; this machine has Linux"),
    ("architecture", "aarch64", "architecture aarch64; this machine has x86_64"),
])  # fmt: skip
def test_an_engine_of_another_machine(path, key, built, words, gpu, never_loaded):
    def change(_):
        metadata = metadata_like("engine", "tensorrt")
        metadata["machine" if key in ("os", "architecture", "sm") else "versions"][key] = built
        return metadata

    rewrite(path, change)
    build = "--fp16 --batch-range 1:8:32 -o FILE"
    assert refusal(path) == f"FILE was built for {words}. Build it again here: ssdtrt compile ssd300.ts {build}"
    path.with_name("ssd300.ts").touch()  # Beside the engine, not in the current folder.
    assert refusal(path).endswith(f"Build it again here: ssdtrt compile {path.with_name('ssd300.ts')} {build}")


def test_an_engine_on_a_host_without_a_gpu(path, monkeypatch, never_loaded):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rewrite(path, lambda _: metadata_like("engine", "tensorrt"))
    message = refusal(path, error=CompileError)
    lacking = "A TensorRT engine cannot be built or run here; missing: a CUDA GPU"
    assert message.startswith(f"FILE is a TensorRT engine. {lacking}")
    assert message.endswith("For a CPU engine: ssdtrt compile --backend torchscript")


class NotFinite(nn.Module):
    def forward(self, images: torch.Tensor):
        return images, images / images


class Failing(nn.Module):
    def forward(self, images: torch.Tensor):
        return images.reshape(7), images


def test_the_first_run_must_be_finite(tmp_path):
    path = saved(tmp_path / "nan.ts", NotFinite())
    assert (
        refusal(path, device="cpu") == "FILE returns values that are not finite for an image of zeros. Make it again."
    )


def test_a_first_run_that_fails(tmp_path):
    path = saved(tmp_path / "failing.ts", Failing())
    message = refusal(path, device="cpu")
    assert message.startswith("FILE was loaded but does not run here (") and "shape '[7]'" in message


def test_the_digest_demanded(path, whole, monkeypatch):
    digest = hashlib.sha256(whole).hexdigest()
    assert load_engine(path, "cpu", sha256=digest.upper()).path == path
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("torch.jit.load was called"))
    assert refusal(path, sha256="0" * 64) == (
        f"FILE has the SHA-256 {digest}; expected {'0' * 64}, as requested. "
        "The file is damaged or a different one: get it again from the source of the digest."
    )
    for wrong in ("", "0" * 63, "g" * 64):
        with pytest.raises(ArtifactError) as caught:
            load_engine(path, sha256=wrong)
        assert str(caught.value) == (
            f"{wrong!r} is not a SHA-256; expected 64 hex digits, as sha256sum {path} prints them."
        )


@pytest.mark.parametrize("line", ["{}  tiny.ts\n", "{} *somewhere/tiny.ts\r\n", "{}\n", "{}  other.ts\n{}  tiny.ts\n"])
def test_the_digest_in_a_file_beside_it(path, whole, line):
    sidecar = path.with_name("tiny.ts.sha256")
    digest = hashlib.sha256(whole).hexdigest()
    sidecar.write_text(line.format(*(["1" * 64] * (line.count("{}") - 1)), digest))
    check_digest(path)
    other = digest.translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
    sidecar.write_text(line.format(*(["1" * 64] * (line.count("{}") - 1)), other))
    assert refusal(path) == (
        f"FILE has the SHA-256 {digest}; expected {other}, as recorded in FILE.sha256. "
        "The file is damaged or a different one: get it again from the source of the digest."
    )
    check_digest(path, digest)  # The argument takes precedence over the file.
    for encoding in ("utf-8-sig", "utf-16"):  # As some shells write what they redirect.
        sidecar.write_text(f"{digest}  tiny.ts\r\n", encoding=encoding)
        check_digest(path)


@pytest.mark.parametrize("content", [b"", b"no digest here\n", b"1" * 64 + b"  other.ts\n", b"\xff" * 100])
def test_a_file_beside_it_without_its_digest(path, content):
    path.with_name("tiny.ts.sha256").write_bytes(content)
    assert refusal(path) == (
        "FILE.sha256 holds no SHA-256 of tiny.ts; expected a line as sha256sum writes it. Write it again or remove it."
    )


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.text(max_size=5)
JSON = st.recursive(LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(KEYS, part, max_size=3))
NAMES = sorted({"versions.tensorrt", "request.streams", *names(ENGINE)})


def outcome(path, call=check_file):
    """Return True if the file is read and False if it is refused; raise any other exception."""
    try:
        call(path)
    except ArtifactError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return False
    return True


@FUZZ
@given(data=st.data())
def test_fuzz_of_the_metadata(data, path, whole):
    content = data.draw(st.one_of(
        st.binary(max_size=60),
        JSON.map(lambda value: json.dumps(value).encode()),
        st.tuples(st.sampled_from(["module", "engine", "detector"]), st.sampled_from(["torchscript", "tensorrt"]),
                  st.lists(st.tuples(st.sampled_from(NAMES), JSON), max_size=3)).map(changed),
    ))  # fmt: skip
    path.write_bytes(b"")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/data.pkl", b"")
        archive.writestr("tiny/extra/ssdtrt.json", content)
    if outcome(path):
        found = inspect_file(path)
        json.dumps(found.as_dict(), allow_nan=False)


def changed(drawn):
    """Return complete metadata of a kind with some fields replaced, as bytes."""
    kind, backend, changes = drawn
    metadata = metadata_like(kind, backend if kind != "module" else "torchscript")
    for name, value in changes:
        part = metadata
        *above, last = name.split(".")
        for key in above:
            part = part.get(key) if isinstance(part, dict) else None
        if isinstance(part, dict):
            part[last] = value
    return json.dumps(metadata).encode()


@FUZZ
@given(data=st.data())
def test_fuzz_of_the_headers(data, path, whole):
    """A file with replaced, removed or added bytes in its headers is refused, or read as before."""
    first = whole.index(b"PK\1\2")
    content = bytearray(whole)
    starts = st.integers(0, 90) | st.integers(first, len(whole) - 1)
    for place in data.draw(st.lists(starts, min_size=1, max_size=3)):
        new = data.draw(st.binary(max_size=6))
        kind = data.draw(st.sampled_from(["replace", "remove", "add"]))
        content[place : place + (0 if kind == "add" else len(new))] = b"" if kind == "remove" else new
    path.write_bytes(content)
    if outcome(path):
        assert read_metadata(path) == typed(metadata_like())


def test_the_checks_import_no_torch(path):
    code = "import sys; from ssdtrt.artifact.metadata import check_file; check_file(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")

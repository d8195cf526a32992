"""What many tests share: one narrow random model, its module and its engines, each made once."""

import atexit
import contextlib
import fcntl
import gc
import importlib
import inspect
import itertools
import os
import shutil
import signal
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

# The first process of a run, which hands the tests out, runs none and has no use for torch: it takes seconds to import.
HANDS_OUT = "PYTEST_XDIST_WORKER" not in os.environ and "-n" in sys.argv and not {"0", "--collect-only"} & {*sys.argv}
if not HANDS_OUT:
    import forked_builds
    import narrow
    import shared_loads
    import torch
    from forked_builds import separate_builds  # noqa: F401 (a fixture)
    from hypothesis import settings
    from jpeg_decoding import gpu_decoding  # noqa: F401 (a fixture)
    from metadata_files import like_there, tensorrt_engine  # noqa: F401 (fixtures)
    from PIL import Image
    from web_server import web  # noqa: F401 (a fixture)

    from known import RED, known_file
    from ssdtrt import bench, config
    from ssdtrt.compile import compile_engine
    from ssdtrt.export import export_module, export_onnx
    from ssdtrt.formats.packed_weights import PackedRecord, write_packed
    from ssdtrt.images.tensors import synthetic_images
    from ssdtrt.model.weights import build_model
    from ssdtrt.runners import torchscript
    from ssdtrt.system import versions
    from ssdtrt.system.devices import emulates_bf16

    settings.register_profile("suite", deadline=None)  # A busy machine needs longer now and then.
    settings.load_profile("suite")
    narrow.narrow()
    if hasattr(os, "fork"):
        forked_builds.fork_builds()
    # As where the package is installed: what messages advise then names no folder of this checkout.
    versions._ROOT = Path(os.devnull)
    config.PARITY_IMAGES = 2  # Eight take longer and show no more.
    # In the second picture of bench's own seed the narrow network needs the exact NMS, each time a tenth of a second.
    bench.synthetic_images = lambda count, seed: synthetic_images(count, seed + 1)
    # What every module of tests that need a GPU is marked with.
    gpu_marks = [
        pytest.mark.gpu,
        pytest.mark.usefixtures("full_width"),
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
        # Torch-TensorRT 2.2.0 and what it imports.
        pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        pytest.mark.filterwarnings("ignore::UserWarning:torch_tensorrt"),
    ]

if (
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):  # As in the background of a shell; what it starts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["SSDTRT_CACHE"] = ""  # No test keeps an engine, or takes one that was kept, unless it says so.
if "SSDTRT_TEST_FOLDER" not in os.environ:  # The first process of a run; its workers inherit the folder.
    os.environ["SSDTRT_TEST_FOLDER"] = tempfile.mkdtemp(prefix="ssdtrt-tests-")
    atexit.register(shutil.rmtree, os.environ["SSDTRT_TEST_FOLDER"], ignore_errors=True)
SHARED = Path(os.environ["SSDTRT_TEST_FOLDER"])
ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "ssdtrt" / "samples"
HOMES = itertools.count()


def script(name):
    """A module of benchmarks/, where it stays importable, as when its script runs."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def pytest_runtest_setup(item):
    """A GPU test is skipped where there is no GPU, so that `make test-gpu` does not pass there."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")


def pytest_collection_modifyitems(items):
    """The files with slow tests come first, then those of whole commands, so that the workers end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent != ROOT / "tests"))


def pytest_collection_finish():
    """What has been imported is never looked through again: a collection takes as long as what a test made."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def fusing():
    """CPU engines are fused as for a user."""


@pytest.fixture(autouse=True)
def not_fused(request, monkeypatch):
    """TorchScript needs a second to fuse an engine, for each file and batch size: only what a test is about is fused.

    What is not fused is loaded once, for all tests of a process.
    """
    if "fusing" not in request.fixturenames:
        monkeypatch.setattr(torchscript, "fusing", contextlib.nullcontext)
        monkeypatch.setattr(torchscript, "load", shared_loads.load)


@pytest.fixture(autouse=True)
def no_surprises(monkeypatch):
    """No test reaches the network or a user's cache by accident, and none leaves a global flag changed."""
    monkeypatch.setenv("SSDTRT_COCO_URL", "http://127.0.0.1:9/nothing-listens-here.pt")
    home = SHARED / f"torch-home-{os.getpid()}-{next(HOMES)}"  # pytest would look through all that it made before.
    home.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(home))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_rng_state(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield
    assert torch.backends.cudnn.allow_tf32 == before[1] and torch.backends.cudnn.benchmark == before[2]
    torch.set_rng_state(before[0])


def once(name, make):
    """A file that one worker of a run makes for all of them: `make(path)` writes it. Read only."""
    path = SHARED / name
    path.parent.mkdir(exist_ok=True)
    with open(SHARED / f"{name.replace('/', '-')}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path


@pytest.fixture
def kept_engines(monkeypatch):
    """What this run built before is taken: for tests whose subject is not the building."""
    monkeypatch.setenv("SSDTRT_CACHE", str(SHARED / "engines"))


def build_once(module, name, **options):
    """`compile_engine` of the CPU, once a run for each file; what it builds is kept for `kept_engines`.

    BF16 may be emulated: the network is narrow.
    """

    def build(path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSDTRT_CACHE", str(SHARED / "engines"))
            patch.setattr("ssdtrt.compile.emulates_bf16", lambda: False)
            compile_engine(module, path, backend="torchscript", **options)

    return once(f"module/{name}", build)


@pytest.fixture(scope="module")
def full_width():
    """SSD300 as wide as it is, for the tests of a file."""
    with narrow.full_width():
        yield


@pytest.fixture(scope="session")
def full_model():
    """The seeded random model as wide as it is; read only."""

    def make(path):
        with narrow.full_width():
            torch.save(build_model("random"), path)

    return torch.load(once("full/model.pt", make), weights_only=False)


@pytest.fixture(scope="session")
def model():
    """The seeded random model, narrow; read only."""
    return build_model("random")


@pytest.fixture(scope="session")
def packed_scenes():
    """Packed weights as those in the package are, but random and narrow; read only."""

    def make(path):
        model = build_model("random", labels=script("scenes").LABELS)
        for head, boxes in zip(model.conf, config.BOXES_PER_CELL):
            head.bias[:boxes] += 4  # Few objects: the background is more likely.
        state = {key: value.numpy() for key, value in model.state_dict().items()}
        write_packed(path, state, PackedRecord(model.labels, model.source.sha256, {}, {"AP": 0.7654}, 1000))

    return once("packed/scenes.npz", make)


@pytest.fixture(scope="session")
def module(request):
    """The random model's exported module."""
    return once("module/ssd300.ts", lambda path: export_module(request.getfixturevalue("model"), path))


@pytest.fixture(scope="session")
def hub_module(request):
    """The random model's module for pictures prepared as the hub utilities do."""
    make = partial(export_module, preprocess="hub")
    return once("hub/hub.ts", lambda path: make(request.getfixturevalue("model"), path))


@pytest.fixture(scope="session")
def engine(module):
    """A CPU engine in FP32, beside its module."""
    return build_once(module, "ssd300.engine.ts", precision="fp32")


@pytest.fixture(scope="session")
def engine_bf16(module):
    """A CPU engine in BF16, beside its module."""
    if emulates_bf16() and torch.__version__ < "2.4":
        pytest.skip("this processor has no BF16 arithmetic, and this torch does not emulate it in a fused convolution")
    return build_once(module, "bf16.engine.ts", precision="bf16")


@pytest.fixture(scope="session")
def detector_file(module):
    """A CPU detector in FP32, beside its module."""
    return build_once(module, "ssd300.detector.ts", detector=True)


@pytest.fixture(scope="session")
def onnx_file(request):
    """The random model as an ONNX file."""
    return once("onnx/ssd300.onnx", lambda path: export_onnx(request.getfixturevalue("model"), path))


@pytest.fixture(scope="session")
def onnx_detector(request):
    """The random model as an ONNX detector."""
    make = partial(export_onnx, detector=True)
    return once("onnx/ssd300.detector.onnx", lambda path: make(request.getfixturevalue("model"), path))


@pytest.fixture(scope="session")
def photographs():
    """The paths of the sample photographs."""
    return sorted(SAMPLES.glob("*.jpg"))


@pytest.fixture(scope="session")
def known(tmp_path_factory):
    """A file whose detections are known; read only."""
    return known_file(tmp_path_factory.mktemp("known") / "known.ts")


def assert_same_detections(found, expected):
    """Same classes in the same order, scores to 1e-4 and boxes to 0.1 pixel.

    Neighbours whose scores differ by less than 1e-5 may change places: that is the rounding of float32.
    """
    assert len(found) == len(expected)
    for one, in_its_place in zip(found, expected):
        assert abs(one.score - in_its_place.score) < 1e-4
        near = [other for other in expected if abs(other.score - in_its_place.score) < 1e-5]
        assert any(
            other.label_id == one.label_id and max(abs(a - b) for a, b in zip(one.box, other.box)) < 0.1
            for other in near
        ), one


@pytest.fixture
def pictures(tmp_path):
    """Saves pictures of one color: `pictures(name, color, size)` -> path."""

    def save(name, color=RED, size=(200, 100)):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, color).save(path)
        return path

    return save


@pytest.fixture
def ssdtrt(tmp_path, monkeypatch):
    """Runs the command line in an empty folder: `ssdtrt("export", "--weights", "random")` -> click's result."""
    from ssdtrt.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments, **options):
        return runner().invoke(main, [str(argument) for argument in arguments], prog_name="ssdtrt", **options)

    return call


def runner():
    """click's runner with stdout and stderr apart, which before click 8.2 had to be asked for."""
    apart = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(mix_stderr=False) if apart else CliRunner()


@pytest.fixture
def server(tmp_path):
    """A web server on this machine over an empty folder: (address, folder)."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()
        thread.join()


@pytest.fixture
def not_root():
    """Skips where permissions do not bind."""
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")

"""Tests of the scripted modules of engine and detector files."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ssdtrt.artifact.request import BatchRange
from ssdtrt.engine.modules import DetectorModule, EngineModule
from ssdtrt.errors import CompileError
from ssdtrt.images.tensors import normalize, synthetic_pictures
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_batch
from ssdtrt.runners import torchscript

sizes = st.integers(1, 4096)


class Tiny(nn.Module):
    """Map images to (loc [N, 4, 6], conf [N, 5, 6]), whose last class is the batch size."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.1, 1.0, 24).reshape(4, 6))

    def forward(self, images: Tensor):
        loc = images.reshape(-1, 3, 90000)[:, 0, :24].reshape(-1, 4, 6) * self.scale
        conf = images.reshape(-1, 3, 90000)[:, 2, :30].reshape(-1, 5, 6) / 3.0
        count = torch.full_like(conf[:, :1], images.shape[0])
        return loc, torch.cat([conf[:, :4], count], 1)


class Watching(nn.Module):
    """Keep the images of the last call."""

    def forward(self, images):
        self.seen = images
        return images[:, :, :1, 0], images[:, :, :2, 0]


def face(dtype=torch.float32, batch=None, channels_last=False):
    """Return a scripted engine with a traced tiny network of its dtype."""
    with torchscript.quiet(), torch.no_grad():
        network = torch.jit.trace(Tiny().to(dtype), torch.rand(2, 3, 300, 300).to(dtype), check_trace=False)
        return torch.jit.script(EngineModule(network.eval(), dtype, batch, channels_last).eval())


def pictures(count):
    return torch.rand(count, 3, 300, 300, generator=torch.Generator().manual_seed(count))


def refusal(engine, images):
    """Return the last line of the error that a scripted engine raises for images."""
    with pytest.raises(Exception) as caught:
        engine(images)
    lines = [line for line in str(caught.value).splitlines() if line.startswith("builtins.ValueError: ")]
    assert len(lines) == 1, str(caught.value)
    return lines[0].split(": ", 1)[1]


@pytest.mark.parametrize(
    "text, expected",
    [("8", (8, 8, 8)), (1, (1, 1, 1)), ("1:8:32", (1, 8, 32)), ("2:2:4", (2, 2, 4)), ("4:4:4", (4, 4, 4))],
)
def test_parse(text, expected):
    batch = BatchRange.parse(text)
    assert (batch.min, batch.opt, batch.max) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "-1", "1.5", "1:2", "1:2:3:4", ":", "::", "1::3", "1_0", "0x10", "²", "1:²:3", True, None, 2.0]
)
def test_parse_refuses(text):
    with pytest.raises(CompileError) as caught:
        BatchRange.parse(text)
    assert str(caught.value) == f"A batch is a number or MIN:OPT:MAX, such as 8 or 1:8:32; found {text!r}."


@pytest.mark.parametrize("text", ["0:1:2", "2:1:3", "1:5:4", "3:2:1", "2:1:2"])
def test_range_in_the_wrong_order(text):
    with pytest.raises(CompileError) as caught:
        BatchRange.parse(text)
    assert str(caught.value) == f"A batch range is MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX; found {text}."


def test_size_of_zero():
    with pytest.raises(CompileError, match="; found 0"):
        BatchRange.parse(0)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12) | st.from_regex(r"\A[0-9:\s²٣]{1,8}\Z"))
def test_any_text_is_a_range_or_refused(text):
    try:
        batch = BatchRange.parse(text)
    except CompileError:
        return
    assert 1 <= batch.min <= batch.opt <= batch.max


@settings(max_examples=60, deadline=None)
@given(st.tuples(sizes, sizes, sizes).map(sorted))
def test_text_of_a_range_is_the_range(three):
    batch = BatchRange(*three)
    assert BatchRange.parse(str(batch)) == batch
    assert batch.sizes == tuple(sorted(set(three)))
    assert batch.static == (three[0] == three[2])


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(-3, 6), st.integers(-3, 6), st.integers(-3, 6)))
def test_only_ordered_positive_sizes_are_a_range(three):
    if three[0] >= 1 and list(three) == sorted(three):
        BatchRange(*three)
    else:
        with pytest.raises(CompileError):
            BatchRange(*three)


def test_text_and_sizes():
    assert (str(BatchRange(8, 8, 8)), BatchRange(8, 8, 8).sizes) == ("8", (8,))
    assert (str(BatchRange(1, 8, 32)), BatchRange(1, 8, 32).sizes) == ("1:8:32", (1, 8, 32))
    assert (str(BatchRange(1, 1, 4)), BatchRange(1, 1, 4).sizes) == ("1:1:4", (1, 4))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_answers_are_the_networks_in_float32(dtype, channels_last):
    images = pictures(3)
    loc, conf = face(dtype, None, channels_last)(images)
    expected_loc, expected_conf = Tiny().to(dtype)(images.to(dtype))
    assert loc.dtype == conf.dtype == torch.float32
    assert torch.equal(loc, expected_loc.float()) and torch.equal(conf, expected_conf.float())
    assert torch.equal(loc, Tiny()(images)[0]) == (dtype == torch.float32)


def test_small_batch_is_padded_and_sliced():
    engine = face(batch=BatchRange(4, 4, 8))
    alone = Tiny()
    for count in (1, 2, 3):
        images = pictures(count)
        loc, conf = engine(images)
        expected_loc, expected_conf = alone(images)
        assert loc.shape == (count, 4, 6) and conf.shape == (count, 5, 6)
        assert torch.equal(loc, expected_loc) and torch.equal(conf[:, :4], expected_conf[:, :4])
        assert (conf[:, 4] == 4).all()  # The batch size of the network.


def test_batch_within_the_range_is_left_alone():
    engine = face(batch=BatchRange(2, 4, 8))
    for count in (2, 3, 8):
        loc, conf = engine(pictures(count))
        assert len(loc) == count and (conf[:, 4] == count).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_the_network_is_given(dtype):
    network = Watching()
    images = pictures(2)
    EngineModule(network, dtype, BatchRange(3, 3, 3), channels_last=False)(images)
    assert network.seen.dtype == dtype and network.seen.is_contiguous()
    assert torch.equal(network.seen[:2], images.to(dtype)) and not network.seen[2].any()
    EngineModule(network, dtype, None, channels_last=True)(images)
    assert network.seen.dtype == dtype and network.seen.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(network.seen, images.to(dtype))


def test_images_with_strides_reach_the_network_contiguous():
    network = Watching()
    images = pictures(2).to(memory_format=torch.channels_last)
    EngineModule(network, torch.float32, BatchRange(1, 2, 2), channels_last=False)(images)
    assert network.seen.is_contiguous() and torch.equal(network.seen, images)


def test_images_are_not_written_to():
    images = pictures(2)
    before = images.clone()
    face(batch=BatchRange(4, 4, 4))(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("count", [0, 5])
def test_batch_of_the_wrong_size(count):
    engine = face(batch=BatchRange(2, 2, 4))
    message = refusal(engine, torch.zeros(count, 3, 300, 300))
    assert message == f"this engine takes 1 to 4 images at once, found {count}"


@pytest.mark.parametrize(
    "shape", [(1, 3, 300, 301), (2, 3, 299, 300), (1, 1, 300, 300), (3, 300, 300), (1, 300, 300, 3)]
)
def test_images_of_the_wrong_shape(shape):
    assert refusal(face(), torch.zeros(shape)) == f"expected images [N, 3, 300, 300], found {list(shape)}"


def test_shape_is_refused_unscripted_too():
    engine = EngineModule(Tiny(), torch.float32, None, channels_last=False)
    with pytest.raises(ValueError, match=r"expected images \[N, 3, 300, 300\], found .*1, 3, 300, 301"):
        engine(torch.zeros(1, 3, 300, 301))


def test_any_batch_without_a_range():
    loc, conf = face()(pictures(9))
    assert len(loc) == 9 and (conf[:, 4] == 9).all()


class Sensitive(nn.Module):
    """Return two detections whose scores and boxes depend on the mean of each color."""

    def forward(self, images: Tensor):
        red, green, blue = images.mean([2, 3]).unbind(1)
        loc = torch.zeros(images.shape[0], 4, 8732)
        loc[:, 0, 8728] = red
        conf = torch.zeros(images.shape[0], 81, 8732)
        conf[:, 16, 8728] = 4.5 + green
        conf[:, 3, 8690] = 4.5 + blue
        return loc, conf


def detector(preprocess="eval", max_detections=200, batch=None):
    """Return a scripted detector with the network `Sensitive`."""
    with torchscript.quiet():
        engine = EngineModule(torch.jit.script(Sensitive().eval()), torch.float32, batch, channels_last=False)
        return torch.jit.script(DetectorModule(engine, preprocess, max_detections).eval())


@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_a_detector_normalizes_runs_the_engine_and_decodes(preprocess):
    pictures = synthetic_pictures(3, seed=4)
    found = detector(preprocess)(pictures)
    images = normalize(pictures, preprocess)
    expected = detect_batch(*Sensitive()(images), default_boxes())
    assert [part.shape for part in found] == [(3, 200, 4), (3, 200), (3, 200), (3,)]
    assert [part.dtype for part in found] == [torch.float32, torch.int64, torch.float32, torch.int64]
    for mine, wanted in zip(found, expected):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6)
    assert found[3].tolist() == [2, 2, 2] and sorted(found[1][0, :2].tolist()) == [3, 16]
    assert not found[0][:, 2:].any() and not found[1][:, 2:].any() and not found[2][:, 2:].any()


def test_the_two_ways_to_normalize_differ():
    pictures = synthetic_pictures(1, seed=4)
    assert float((detector("eval")(pictures)[2] - detector("hub")(pictures)[2]).abs().max()) > 1e-3


def test_a_detector_pads_a_small_batch_and_keeps_the_best():
    found = detector(max_detections=1, batch=BatchRange(4, 4, 4))(synthetic_pictures(2, seed=4))
    every = detector()(synthetic_pictures(2, seed=4))
    assert [part.shape for part in found] == [(2, 1, 4), (2, 1), (2, 1), (2,)] and found[3].tolist() == [1, 1]
    torch.testing.assert_close(found[0], every[0][:, :1], rtol=0, atol=1e-6)


def test_a_detector_refuses_images_that_are_not_uint8():
    message = refusal(detector(), torch.rand(1, 3, 300, 300))
    assert message.startswith("expected images of uint8, 0 to 255, found ")
    with pytest.raises(ValueError, match="found torch.float16"):
        DetectorModule(EngineModule(Sensitive(), torch.float32, None, False), "eval")(
            torch.zeros(1, 3, 300, 300).half()
        )


def test_saved_engines_and_detectors_are_read_by_plain_torch(tmp_path):
    files = {"e.ts": (face(torch.bfloat16, BatchRange(3, 3, 3)), pictures(2))}
    files["d.ts"] = detector(), synthetic_pictures(2, seed=4)
    for name, (module, images) in files.items():
        torchscript.save(module, tmp_path / name)
        torch.save([images, *module(images)], tmp_path / f"{name}.pt")
    code = (
        "import sys, torch\n"
        "for name in sys.argv[1:]:\n"
        "    images, *wanted = torch.load(name + '.pt', weights_only=True)\n"
        "    module = torch.jit.load(name)\n"
        "    print(all(map(torch.equal, module(images), wanted)), 'ssdtrt' in sys.modules)\n"
        "print(tuple(module.engine(torch.zeros(1, 3, 300, 300))[1].shape))"
    )
    command = [sys.executable, "-c", code, *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["True False", "True False", "(1, 81, 8732)"], done.stderr

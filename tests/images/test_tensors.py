"""Pictures resized in both ways and normalized, and synthetic ones."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from nvidia_utilities import nvidias_crop
from PIL import Image

from ssdtrt.errors import ImageError
from ssdtrt.images.decode import load_image
from ssdtrt.images.preprocess import to_pixels
from ssdtrt.images.tensors import (
    as_list,
    channels_last,
    check_images,
    is_one_picture,
    normalize,
    prepare,
    synthetic_images,
    to_batch,
)

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def random_picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def bilinear(size, wanted=300):
    """The matrix [wanted, size] of Pillow's bilinear filter: a triangle that widens when it shrinks."""
    scale = size / wanted
    centers = (np.arange(wanted) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centers[:, None]) / max(scale, 1)
    weights = (1 - distance).clip(min=0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("width, height", [(640, 480), (300, 300), (37, 411), (1, 1), (1, 500)])
def test_prepare_is_bilinear_without_a_crop(width, height):
    picture = random_picture(width, height)
    found = prepare(picture)
    assert found.shape == (3, 300, 300) and found.dtype == torch.uint8
    pixels = np.asarray(picture).astype(np.float64)
    expected = np.stack([bilinear(height) @ pixels[:, :, c] @ bilinear(width).T for c in range(3)])
    assert np.abs(found.numpy() - expected).max() <= 1.01  # Pillow rounds after each direction.
    assert np.abs(found.numpy() - expected).mean() <= 0.35


def test_prepare_hub_is_nvidias_preparation(photographs):
    for path in photographs:
        picture = load_image(path)
        found = prepare(picture, "hub")
        assert found.shape == (3, 300, 300) and found.dtype == torch.uint8
        difference = np.abs(found.permute(1, 2, 0).numpy() / 255 - nvidias_crop(np.asarray(picture)))
        assert difference.mean() <= 1e-3 and difference.max() <= 1e-2


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (3, 9000)])
@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_prepare_of_long_pictures(size, preprocess):
    picture = Image.new("RGB", size, (1, 1, 1))
    middle = tuple(length // 2 - 3 if length > 3 else 0 for length in size)
    picture.paste((201, 101, 51), (*middle, *(start + min(6, length) for start, length in zip(middle, size))))
    found = prepare(picture, preprocess)
    assert found.shape == (3, 300, 300)
    if preprocess == "hub":
        assert found.flatten(1).unique(dim=1).T.tolist() == [[201, 101, 51]]
    else:
        assert found.float().mean() < 5


@pytest.mark.parametrize("call", [
    lambda way: prepare(Image.new("RGB", (4, 4)), way), lambda way: normalize(torch.zeros(1, 3, 300, 300), way),
    lambda way: to_pixels(np.zeros((1, 4)), 4, 4, way), lambda way: to_batch([Image.new("RGB", (4, 4))], way),
])  # fmt: skip
@pytest.mark.parametrize("way", ["Eval", "", None])
def test_another_way_to_prepare_is_refused(call, way):
    with pytest.raises(ImageError) as caught:
        call(way)
    assert str(caught.value) == f"Unknown preprocessing {way!r}; expected 'eval' or 'hub'."


@pytest.mark.parametrize(
    "images, found",
    [
        (torch.zeros(2, 300, 300, 3, dtype=torch.uint8), "uint8 [2, 300, 300, 3]"),
        (torch.zeros(3, 300, 300, dtype=torch.uint8), "uint8 [3, 300, 300]"),
        (torch.zeros(1, 3, 300, 300), "float32 [1, 3, 300, 300]"),
        (torch.zeros(1, 3, 320, 320, dtype=torch.uint8), "uint8 [1, 3, 320, 320]"),
        (np.zeros((1, 3, 300, 300), np.uint8), "ndarray"),
        (Image.new("RGB", (300, 300)), "Image"),
    ],
)
def test_images_that_a_detector_cannot_take_are_one_line(images, found):
    with pytest.raises(ImageError) as caught:
        check_images(images)
    assert str(caught.value) == f"Expected a tensor of uint8 images [N, 3, 300, 300]; found {found}."
    check_images(torch.zeros(0, 3, 300, 300, dtype=torch.uint8))


def test_batch_is_pillows_resize_normalized(photographs):
    found = to_batch(photographs)
    assert found.shape == (3, 3, 300, 300) and found.dtype == torch.float32
    for path, image in zip(photographs, found):
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR))
        expected = (pixels / 255 - MEAN) / STD
        assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() < 2e-6


def test_normalize_literal_values():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 300, 300)
    found = normalize(images)
    assert found.dtype == torch.float32
    assert found[0, :, 7, 9].tolist() == pytest.approx([-2.1179039, -2.0357143, -1.8044444], abs=1e-6)
    assert found[1, :, 7, 9].tolist() == pytest.approx([2.2489083, 2.4285715, 2.6400001], abs=1e-6)


def test_normalize_hub_is_the_notebooks_arithmetic():
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 3, 1, 1)
    fractions = images.float() / 255
    assert torch.equal(normalize(images, "hub"), (256 * fractions - 128) / 128)
    assert normalize(images, "hub")[:, 2, 0, 0][[0, 51, 255]].tolist() == pytest.approx([-1, -0.6, 1], abs=1e-6)


def test_normalize_eval_is_bit_for_bit_its_formula():
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    assert torch.equal(normalize(images), (images.float() / 255 - mean) / std)


def test_all_ways_to_give_a_picture_agree(photographs):
    path = photographs[0]
    with Image.open(path) as opened, open(path, "rb") as file:
        opened.load()
        ways = [path, str(path), opened, np.asarray(opened), file, io.BytesIO(path.read_bytes())]
        batch = to_batch(ways)
    assert all(torch.equal(image, batch[0]) for image in batch)


def test_batch_in_the_hub_way(photographs):
    found = to_batch(photographs[:2], "hub")
    pixels = torch.stack([prepare(load_image(path), "hub") for path in photographs[:2]]).double()
    assert (found - (pixels / 255 * 2 - 1)).abs().max() < 1e-6
    assert (found - to_batch(photographs[:2])).abs().max() > 0.5


def test_normalize_leaves_its_argument(photographs):
    images = prepare(load_image(photographs[0]))[None]
    before = images.clone()
    normalize(images)
    assert torch.equal(images, before)


def test_prepared_channels_are_red_green_blue():
    found = prepare(Image.new("RGB", (50, 20), (10, 20, 30)))
    assert [found[channel].unique().tolist() for channel in range(3)] == [[10], [20], [30]]


def test_prepared_rows_are_rows():
    picture = Image.new("RGB", (40, 40), "black")
    picture.paste((255, 255, 255), (0, 0, 40, 20))
    found = prepare(picture)
    assert found[0, 0, 0] == 255 and found[0, 0, 299] == 255 and found[0, 299, 0] == 0


def test_prepared_pictures_own_their_pixels():
    picture = random_picture(300, 300)
    before = picture.tobytes()
    prepare(picture).zero_()
    assert picture.tobytes() == before


def test_synthetic_image_does_not_depend_on_the_count():
    five = synthetic_images(5)
    assert torch.equal(synthetic_images(1)[0], five[0])
    assert torch.equal(synthetic_images(3), five[:3])
    assert five.shape == (5, 3, 300, 300) and five.dtype == torch.float32


def test_synthetic_images_are_seeded_and_all_different():
    images = torch.cat([synthetic_images(3, seed=0), synthetic_images(3, seed=1)])
    assert torch.equal(images[:3], synthetic_images(3, seed=0))
    for i in range(6):
        assert all((images[i] - images[j]).abs().mean() > 0.1 for j in range(i))


def test_synthetic_images_are_normalized_pictures():
    images = synthetic_images(4)
    assert images.isfinite().all()
    levels = (images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    assert (levels - levels.round()).abs().max() < 1e-3
    assert levels.min() > -0.5 and levels.max() < 255.5
    assert all(channel.std() > 25 for image in levels for channel in image)


def test_synthetic_images_leave_the_random_state():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    synthetic_images(2)
    assert torch.equal(torch.get_rng_state(), before)


# Tensors and arrays that are pictures


FILE = io.BytesIO()
RGB, GRAY = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)


@pytest.mark.parametrize(
    "given",
    [
        "a.jpg", Path("a.jpg"), Image.new("RGB", (3, 2)), FILE, GRAY, RGB, RGB[..., :1], np.zeros((9, 9, 4), np.uint8),
        torch.zeros(48, 64, dtype=torch.uint8), *(torch.zeros(n, 48, 64, dtype=torch.uint8) for n in (1, 3, 4)),
    ],
)  # fmt: skip
def test_one_picture(given):
    (found,) = as_list(given)
    assert is_one_picture(given)
    assert np.array_equal(found, channels_last(given)) if isinstance(given, torch.Tensor) else found is given


@pytest.mark.parametrize(
    "given", [[], ["a.jpg"], (Path("a"),), iter(["a"]), RGB[None], RGB[None, ..., :1], np.zeros((2, 9, 9, 4), np.uint8)]
)
def test_lists_of_pictures(given):
    assert not is_one_picture(given) and as_list(given) is given


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_batch_of_tensors_is_a_view_of_arrays(channels):
    batch = torch.arange(2 * channels * 5 * 7).to(torch.uint8).view(2, channels, 5, 7)
    found = as_list(batch)
    assert found.shape == (2, 5, 7, channels) and found.dtype == np.uint8
    assert found[1, 2, 3].tolist() == batch[1, :, 2, 3].tolist()
    assert np.shares_memory(found, batch.numpy())
    assert np.array_equal(channels_last(batch[0]), found[0])
    assert np.array_equal(channels_last(batch[0, 0]), found[0, :, :, 0])


@pytest.mark.parametrize(
    "given, message",
    [
        (None, "A NoneType is neither a picture nor a list of pictures; expected paths, open files, PIL images,"),
        (b"\xff\xd8\xff", "A bytes is neither a picture nor a list of pictures; expected paths, open files, PIL images,"),
        (0.5, "A float is neither a picture nor a list of pictures; expected paths, open files, PIL images, arrays or"),
        (np.zeros((3, 48, 64)), "An array [3, 48, 64] is neither one picture [H, W] or [H, W, 1 | 3 | 4] nor a batch ["),
        (np.zeros((9, 48, 64)), "An array [9, 48, 64] is neither one picture [H, W] or [H, W, 1 | 3 | 4] nor a batch ["),
        (np.zeros((2, 3, 48, 64)), "An array [2, 3, 48, 64] is neither one picture [H, W] or [H, W, 1 | 3 | 4] nor a"),
        (np.zeros(3), "An array [3] is neither one picture [H, W] or [H, W, 1 | 3 | 4] nor a batch [N, H, W, 1 | 3 | 4]"),
        (np.zeros(()), "An array [] is neither one picture"),
        (torch.zeros(48, 64, 3), "A tensor [48, 64, 3] is neither one picture [H, W] or [1 | 3 | 4, H, W] nor a batch [N"),
        (torch.zeros(2, 48, 64, 3), "A tensor [2, 48, 64, 3] is neither one picture [H, W] or [1 | 3 | 4, H, W] nor a"),
        (torch.zeros(1, 1, 3, 48, 64), "A tensor [1, 1, 3, 48, 64] is neither one picture"),
        (torch.zeros(2, 3, 48, 64), "A tensor of float32 [2, 3, 48, 64] cannot be read as a picture; expected uint8; floats"),
        (torch.zeros(2, 3, 4, 4).long(), "A tensor of int64 [2, 3, 4, 4] cannot be read as a picture; expected uint8."),
    ],
)  # fmt: skip
def test_what_is_neither_is_one_line(given, message):
    with pytest.raises(ImageError) as caught:
        as_list(given)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)

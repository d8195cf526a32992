"""Pixels to the device: any sizes, in order, resized as Pillow does it."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssdtrt.images.preprocess import resize_image
from ssdtrt.images.upload import pinned, to_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "sizes",
    [
        [(300, 300)] * 3,
        [(64, 48)] * 3,
        [(64, 48), (300, 300), (48, 64), (64, 48), (1, 1), (310, 400), (300, 300), (48, 64)],
    ],
)
def test_pictures_of_any_sizes_in_their_order(sizes):
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in sizes]
    images = to_device(pictures, CPU)
    assert images.shape == (len(sizes), 3, 300, 300) and images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    for image, picture in zip(images, pictures):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), resize_image(Image.fromarray(picture)))


def test_what_was_decoded_on_the_device_keeps_its_place_among_other_pictures():
    """Some are of the network's size by then, and stand beside arrays of that size."""
    random = np.random.default_rng(0)
    sizes = [(300, 300), (64, 48), (300, 300), (300, 300), (64, 48)]
    pictures = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in sizes]
    mixed = [torch.from_numpy(one) if place in (0, 3, 4) else one for place, one in enumerate(pictures)]
    for given, expected in ((mixed, pictures), (mixed[3:4], pictures[3:4]), (mixed[::-1], pictures[::-1])):
        assert torch.equal(to_device(given, CPU), to_device(expected, CPU))


def test_what_is_given_may_change_afterwards():
    pictures = [np.full((300, 300, 3), 7, dtype=np.uint8)]
    images = to_device(pictures, CPU)
    pictures[0][:] = 0
    assert (images == 7).all()


def test_nothing_is_pinned_for_the_cpu():
    memory = np.zeros((2, 3), dtype=np.uint8)
    with pinned(memory, CPU):
        assert not torch.from_numpy(memory).is_pinned()

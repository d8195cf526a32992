"""Pictures on their way to the device: resized step by step, and by a graph where a size comes twice."""

import numpy as np
import torch
from PIL import Image

from ssdtrt import config
from ssdtrt.detection import staging
from ssdtrt.detection.staging import Stage
from ssdtrt.images.gpu_resize import constants
from ssdtrt.images.preprocess import resize_image
from ssdtrt.runners.cuda_graph import CudaGraphRunner, _Captured

CPU = torch.device("cpu")


class Replayed(CudaGraphRunner):
    """Runs the function again where a graph would be replayed, into the same output."""

    captures = 0

    def _capture(self, inputs):
        Replayed.captures += 1
        output = self.function(*inputs).clone()
        return _Captured(inputs, lambda: output.copy_(self.function(*inputs)), output, self.function)


def pictures_of(*sizes):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in sizes]


def assert_resized(images, pictures):
    for image, picture in zip(images, pictures):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), resize_image(Image.fromarray(picture)))


def test_on_a_cpu_nothing_is_captured():
    stage, pictures = Stage(CPU), pictures_of((64, 48), (64, 48), (30, 20))
    assert_resized(stage(pictures), pictures)
    for picture in pictures:
        assert_resized(stage([picture]), [picture])
    assert stage.graph is None


def test_pictures_of_one_size_are_resized_by_a_graph_from_the_third_on(monkeypatch):
    monkeypatch.setattr(config, "RESIZE_GRAPH_AFTER", 2)
    monkeypatch.setattr(staging, "CudaGraphRunner", Replayed)
    monkeypatch.setattr(Replayed, "captures", 0)
    stage, again = Stage(CPU), []
    sizes = [*[(64, 48)] * 4, (48, 64), *[(64, 48)] * 3, *[(300, 300)] * 3]
    for picture in pictures_of(*sizes):
        again.append(stage._comes_often(picture.shape))
        if again[-1]:
            found = stage._replay([picture])
            assert np.array_equal(found[0].numpy(), resize_image(Image.fromarray(picture)))
    assert again == [False, False, True, True, False, False, False, True, False, False, False]  # 300x300 needs none.
    assert Replayed.captures == 2 and stage.graph is None


def test_the_weights_that_a_graph_reads_are_kept_with_it(monkeypatch):
    monkeypatch.setattr(staging, "CudaGraphRunner", Replayed)
    stage, (picture,) = Stage(CPU), pictures_of((64, 48))
    stage._replay([picture])
    assert [tuple(each.shape) for each in stage._kept] == [(600, 48), (600, 64), (600,), (600,)]
    assert all(each is cached for each, cached in zip(stage._kept, constants(48, 64, CPU)))
    stage.release()
    assert stage.graph is None and stage._kept == ()

"""Pictures on their way to the device: resized step by step, and by a graph where a size comes twice."""

import numpy as np
import torch
from PIL import Image

from ssdtrt.detection import staging
from ssdtrt.detection.staging import Stage
from ssdtrt.images.gpu_resize import resize
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


def test_one_picture_of_the_size_of_the_one_before_is_resized_by_a_graph(monkeypatch):
    monkeypatch.setattr(staging, "CudaGraphRunner", Replayed)
    monkeypatch.setattr(Replayed, "captures", 0)
    stage = Stage(CPU)
    captures = []
    for picture in pictures_of((64, 48), (64, 48), (64, 48), (48, 64), (64, 48), (64, 48)):
        images = stage._resize(torch.from_numpy(picture)[None])
        assert np.array_equal(images[0].numpy(), resize_image(Image.fromarray(picture)))
        captures.append((Replayed.captures, stage.graph is not None))
    assert captures == [(0, False), (1, True), (1, True), (1, False), (1, False), (2, True)]
    both = torch.from_numpy(np.stack(pictures_of((64, 48), (64, 48))))
    assert torch.equal(stage._resize(both), resize(both)) and Replayed.captures == 2
    stage.release()
    assert stage.graph is None
    stage._resize(both[:1])
    assert stage.graph is None


def test_the_weights_that_a_graph_reads_outlive_the_cache(monkeypatch):
    monkeypatch.setattr(staging, "CudaGraphRunner", Replayed)
    stage, (picture,) = Stage(CPU), pictures_of((64, 48))
    for _ in range(2):
        stage._resize(torch.from_numpy(picture)[None])
    kept = [each.data_ptr() for each in stage._kept]
    assert len(kept) == 4 and [tuple(each.shape) for each in stage._kept[:2]] == [(600, 48), (600, 64)]
    assert kept == [each.data_ptr() for each in staging.constants(48, 64, CPU)]

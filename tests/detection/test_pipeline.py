"""From images to packed detections: step by step, and as one graph, with a replay on the CPU in place of a capture."""

import weakref

import pytest
import torch

from known import known_file
from ssdtrt.detection.pipeline import Pipeline
from ssdtrt.detection.postprocessor import Postprocessor
from ssdtrt.errors import ArtifactError
from ssdtrt.images.tensors import normalize, synthetic_pictures
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect_exact
from ssdtrt.reading.stage_times import StageTimes
from ssdtrt.runners import cuda_graph
from ssdtrt.runners.baseline import EagerRunner
from ssdtrt.runners.cuda_graph import CudaGraphRunner, _Captured
from ssdtrt.runners.runner import load_engine


class Replayed(CudaGraphRunner):
    """Runs the function again where a graph would be replayed, and writes its outputs to their first place."""

    def around(self, function):
        larger = super().around(function)
        larger.__class__ = Replayed
        return larger

    def _capture(self, inputs):
        function = self._renew()
        outputs = tuple(part.clone() for part in function(*inputs))

        def replay():
            for place, part in zip(outputs, function(*inputs)):
                place.copy_(part)

        return _Captured(inputs, replay, outputs, function)


@pytest.fixture
def runner(tmp_path):
    return load_engine(known_file(tmp_path / "known.ts"), "cpu")


@pytest.fixture
def captured(tmp_path):
    runner = load_engine(known_file(tmp_path / "captured.ts"), "cpu")
    runner.graph = Replayed(runner.module, runner.device, limit=1)
    return runner


def exact(runner, images, most=200):
    return detect_exact(*runner(normalize(images)), default_boxes(), most)


@pytest.mark.parametrize("most", [1, 200])
def test_the_steps_are_normalization_network_and_the_exact_detections(runner, most):
    images, pipeline = synthetic_pictures(2, seed=3), Pipeline(runner, most)
    packed = pipeline.start(images)()
    assert pipeline.graph is None and packed.shape == (2, most + 1, 6)
    torch.testing.assert_close(packed, exact(runner, images, most), rtol=0, atol=1e-5)


def test_the_graph_of_the_whole_gives_what_the_steps_give_for_alternating_sizes(runner, captured):
    steps, whole = Pipeline(runner), Pipeline(captured)
    for seed, size in enumerate((1, 3, 1, 1, 2, 3)):
        images = synthetic_pictures(size, seed=seed)
        assert torch.equal(whole.start(images)(), steps.start(images)())
        assert [graph.inputs[0].shape[0] for graph in whole.graph.graphs.values()] == [size]
    assert not isinstance(whole.postprocessor.steps, CudaGraphRunner)


def test_the_network_called_in_between_leaves_no_stale_graph(captured):
    """With one context the graph of the whole is captured anew after the network ran with another size, and back."""
    pipeline, images = Pipeline(captured), synthetic_pictures(2, seed=1)
    expected = pipeline.start(images)()
    (first,) = captured.graph.graphs
    captured(normalize(images[:1]))
    assert first not in captured.graph.graphs and len(captured.graph.graphs) == 1
    assert torch.equal(pipeline.start(images)(), expected) and len(captured.graph.graphs) == 1


def test_two_pipelines_of_one_runner_do_not_mix_their_graphs(captured):
    one, three, images = Pipeline(captured, 1), Pipeline(captured, 3), synthetic_pictures(1, seed=1)
    for _ in range(2):
        assert one.start(images)().shape == (1, 2, 6) and three.start(images)().shape == (1, 4, 6)


def test_a_result_may_be_asked_for_after_the_next_start(captured):
    pipeline, pictures = Pipeline(captured), [synthetic_pictures(1, seed=seed) for seed in (1, 2)]
    expected = [pipeline.start(images)().clone() for images in pictures]
    pending = [pipeline.start(images) for images in pictures]
    assert all(torch.equal(result(), packed) for result, packed in zip(pending, expected))


def test_more_images_than_the_file_takes_are_refused_before_the_network_runs(captured, monkeypatch):
    monkeypatch.setattr(captured, "batch", type("One", (), {"max": 1, "min": 1}))
    monkeypatch.setattr(captured.graph, "function", lambda images: pytest.fail("it ran"))
    with pytest.raises(ArtifactError, match="takes 1 image at once; found 2"):
        Pipeline(captured).start(synthetic_pictures(2))


def test_release_frees_the_graphs(captured):
    pipeline = Pipeline(captured)
    pipeline.start(synthetic_pictures(1))()
    pipeline.release()
    assert not captured.graph.graphs and not pipeline.graph.graphs


def test_an_eager_runner_has_no_graph(runner):
    eager = EagerRunner("eager-fp32", torch.nn.Identity(), runner, "fp32")
    assert Pipeline(eager).graph is None and cuda_graph.MAX_GRAPHS > 1


def test_each_graph_of_the_whole_has_a_network_of_its_own_where_that_is_renewed(captured):
    """As with the execution contexts of a range, of which each runs one batch size."""
    made = []

    def renew():
        made.append(lambda images: captured.module(images))
        return made[-1]

    captured.graph = Replayed(captured.module, captured.device, renew=renew)
    pipeline = Pipeline(captured)
    for size in (1, 2, 1, 2):
        pipeline.start(synthetic_pictures(size, seed=size))()
    assert len(made) == 2 and len(pipeline.graph.graphs) == 2


def test_what_is_warmed_up_captures_nothing_with_the_first_pictures(captured, monkeypatch):
    times, pipeline = StageTimes(), Pipeline(captured)
    pipeline.times = times
    captures = []
    monkeypatch.setattr(
        Replayed, "_capture", lambda self, inputs, real=Replayed._capture: captures.append(1) or real(self, inputs)
    )
    for _ in range(2):
        pipeline.warm_up(2)
    assert len(captures) == 1 and times.began is None  # It is no work on pictures.
    images = synthetic_pictures(2, seed=3)
    packed = pipeline.start(images)()
    assert len(captures) == 1
    pipeline.release()
    pipeline.warm_up(2)
    assert len(captures) == 2
    torch.testing.assert_close(packed, exact(captured, images), rtol=0, atol=1e-5)


def test_warming_up_is_nothing_without_graphs_and_leaves_a_lack_of_memory_to_the_batch(runner, captured, monkeypatch):
    Pipeline(runner).warm_up(10**9)

    def full(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 200.00 MiB.")

    pipeline = Pipeline(captured)
    monkeypatch.setattr(Pipeline, "_start", full)
    pipeline.warm_up(2)
    monkeypatch.setattr(Pipeline, "_start", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pipeline.warm_up(3)


def test_warming_up_waits_for_what_runs(captured):
    """It overwrites what that one's graph has put out."""
    pipeline, images = Pipeline(captured), synthetic_pictures(2, seed=1)
    expected = Pipeline(captured).start(images)().clone()
    result, finished = pipeline.start(images), []
    pending = pipeline._running
    pending._finish = lambda real=pending._finish: finished.append(len(pipeline._warm)) or real()
    pipeline.warm_up(2)
    assert finished == [0] and torch.equal(result(), expected)


def test_what_is_not_complete_is_computed_from_its_own_outputs(captured, monkeypatch):
    """Though the work that was started after it overwrote those of the graph."""
    detect = Postprocessor.detect

    def incomplete(self, loc, conf):
        loc, conf, packed = detect(self, loc, conf)
        packed[:, -1, 1] = 0
        return loc, conf, packed

    monkeypatch.setattr(Postprocessor, "detect", incomplete)
    pipeline, pictures = (
        Pipeline(captured),
        [synthetic_pictures(size, seed=size + n) for n, size in enumerate((2, 2, 2, 1, 1))],
    )
    for images, result in zip(pictures, [pipeline.start(images) for images in pictures], strict=True):
        torch.testing.assert_close(result(), exact(captured, images), rtol=0, atol=1e-5)


def test_the_memory_of_a_graph_is_freed_after_what_runs_in_it(captured):
    pipeline, images = Pipeline(captured), synthetic_pictures(1, seed=1)
    expected = pipeline.start(images)().clone()
    result, finished = pipeline.start(images), []
    pending = pipeline._running
    pending._finish = lambda real=pending._finish: finished.append(len(pipeline.graph.graphs)) or real()
    pipeline.release()
    assert finished == [1] and torch.equal(result(), expected)


def test_nothing_of_a_graph_is_held_after_its_release(captured):
    """Its outputs lie in its memory, which a smaller batch may need, with a result that is still to be asked for."""
    pipeline = Pipeline(captured)
    result = pipeline.start(synthetic_pictures(2, seed=1))
    (graph,) = pipeline.graph.graphs.values()
    outputs = [weakref.ref(each) for each in graph.outputs[:2]]
    del graph
    pipeline.release()
    assert [each() for each in outputs] == [None, None] and result().shape == (2, 201, 6)

"""Single calls: how long they take, and where their images lie."""

import time

import torch

from ssdtrt.runners.cuda_graph import CudaGraphRunner, _Captured
from ssdtrt.runners.timing import host_time, placed, time_calls


def test_host_time_is_of_the_call():
    returned, done = host_time(time.sleep, 0.02)
    assert 20 <= returned <= done


def captured(device):
    """A CUDA graph's stand-in: it reads `own`, where `place` copies to."""
    own = torch.zeros(2, 3)
    runner = CudaGraphRunner(torch.neg, device)
    runner.graphs[((2, 3, torch.float32),)] = _Captured((own,), lambda: None, own, None)
    return runner, own


class Loaded:
    """As a file that was loaded with `cuda_graph`: it holds its graph, and is none."""

    def __init__(self, graph):
        self.graph = graph

    def place(self, images):
        return self.graph.place(images)

    def __call__(self, images):
        return self.graph(images)


def test_a_loaded_file_with_a_cuda_graph_gets_its_images_where_the_graph_reads_them():
    images = torch.ones(2, 3)
    graph, own = captured(images.device)
    assert placed(Loaded(graph), images) is own and own.sum() == 6
    assert placed(graph, images * 2) is own and own.sum() == 12
    assert placed(torch.neg, images) is images


def test_on_a_cpu_the_host_times_each_call_once():
    calls, images = [], torch.zeros(1)
    assert len(time_calls(calls.append, [images, images + 1], 3)) == 3
    assert [float(call) for call in calls] == [0.0, 1.0, 0.0]


def test_the_copy_to_where_a_runner_reads_its_images_is_not_timed(monkeypatch):
    """On a GPU, stood in for here: every call gets what `place` returned, and `place` is outside the events."""
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("event")

        def elapsed_time(self, other):
            return 1.0

    class Runner:
        def place(self, images):
            done.append("place")
            return "placed"

        def __call__(self, images):
            done.append(f"call {images}")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("wait"))
    images = type("OnGpu", (), {"device": torch.device("cuda")})()
    assert time_calls(Runner(), [images], 2) == [1.0, 1.0]
    assert done == [*["place", "call placed"] * 4, *["place", "event", "call placed", "event"] * 2, "wait"]

"""Tests of CUDA graphs that need no GPU: copied inputs and refusals. The others are in test_gpu.py."""

import pytest
import torch

from ssdtrt.errors import ArtifactError
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.runners.cuda_graph import CudaGraphRunner, _Captured
from ssdtrt.runners.runner import load_engine

CPU = torch.device("cpu")


def test_a_file_on_the_cpu_is_not_captured(engine):
    with pytest.raises(ArtifactError) as caught:
        load_engine(engine, cuda_graph=True)
    assert str(caught.value) == f"{engine} runs on the CPU here, where there are no CUDA graphs; leave cuda_graph out."


class Doubled(CudaGraphRunner):
    """Double the input, with a replay on the CPU in place of a captured graph."""

    def __init__(self, **options):
        super().__init__(lambda given: given * 2, CPU, **options)

    def _capture(self, inputs):
        outputs = torch.empty_like(inputs[0])
        return _Captured(inputs, lambda: torch.mul(inputs[0], 2, out=outputs), outputs, self._renew())


def only(runner):
    (captured,) = runner.graphs.values()
    return captured


def test_inputs_are_copied_to_where_the_graph_reads_and_outputs_lie_where_it_writes():
    runner, given = Doubled(), torch.tensor([1.0, 2.0])
    first = runner(given)
    assert first.tolist() == [2.0, 4.0]
    assert runner(torch.tensor([5.0, 6.0])) is first and first.tolist() == [10.0, 12.0]
    assert given.tolist() == [1.0, 2.0]


def test_what_was_placed_is_read_in_place():
    runner = Doubled()
    own = runner.place(torch.tensor([1.0, 2.0]))
    assert own is only(runner).inputs[0] and own.tolist() == [1.0, 2.0]
    assert runner(own).tolist() == [2.0, 4.0]
    own.fill_(7.0)  # As a caller does that reads pictures into this tensor.
    assert runner(own).tolist() == [14.0, 14.0]
    assert runner.place(torch.tensor([3.0, 4.0])) is own and own.tolist() == [3.0, 4.0]


def test_up_to_the_limit_each_shape_and_type_has_its_graph():
    runner = Doubled(limit=2)
    first = runner(torch.ones(1))
    assert runner(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    assert runner(torch.ones(1)) is first and len(runner.graphs) == 2


def test_beyond_the_limit_the_graph_that_was_not_used_for_the_longest_time_makes_room():
    runner = Doubled(limit=2)
    first, second = runner(torch.ones(1)), runner(torch.ones(2))
    assert runner(torch.ones(1)) is first
    assert runner(torch.full((3,), 2.0)).tolist() == [4.0] * 3  # In place of that of two.
    assert [graph.inputs[0].shape for graph in runner.graphs.values()] == [(1,), (3,)]
    assert runner(torch.ones(1)) is first and runner(torch.ones(2)) is not second


def test_one_at_a_time():
    runner = Doubled(limit=1)
    first, graph = runner(torch.ones(8)), only(runner)
    assert runner(torch.ones(8)) is first and only(runner) is graph
    assert runner(torch.ones(1)).tolist() == [2.0] and only(runner).inputs[0].shape == (1,)
    assert runner(torch.full((8,), 2.0)).tolist() == [4.0] * 8 and only(runner) is not graph


def test_without_graphs_images_are_placed_on_the_device(engine):
    images = synthetic_images(1)
    assert load_engine(engine).place(images) is images


def test_a_larger_function_shares_the_limit_and_gets_the_function():
    runner = Doubled(limit=1)
    larger = runner.around(lambda function, given: function(given) + 1)
    assert larger.function(torch.ones(2)).tolist() == [3.0, 3.0]
    assert larger.graphs is runner.graphs and larger.limit == 1
    larger.__class__ = Doubled
    first = runner(torch.ones(2))
    second = larger(torch.ones(2))  # Of the same shape, and yet another graph.
    assert second is not first and len(runner.graphs) == 1
    assert larger(torch.ones(2)) is second and runner(torch.ones(2)) is not first
    larger.release()
    assert not runner.graphs

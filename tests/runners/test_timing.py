"""Single calls: how long they take, and where their images lie."""

import time

import torch

from ssdtrt.runners.timing import host_time, placed, time_calls


def test_host_time_is_of_the_call():
    returned, done = host_time(time.sleep, 0.02)
    assert 20 <= returned <= done


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

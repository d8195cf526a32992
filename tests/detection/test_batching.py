"""Batches through a device: the next one runs while a result is used, and what its memory is too small for is halved."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from ssdtrt import config
from ssdtrt.detection import batching
from ssdtrt.detection.batching import BatchRunner, Stage
from ssdtrt.errors import GpuError, SsdtrtError
from ssdtrt.images.gpu_resize import constants
from ssdtrt.images.preprocess import resize_image
from ssdtrt.reading.stage_times import StageTimes
from ssdtrt.runners.cuda_graph import CudaGraphRunner, _Captured

CPU = torch.device("cpu")


class Device:
    """A device that takes batches of `room` items; `place` is the step at which it finds out, `tried` what it is given."""

    def __init__(self, room, place="start", error=None):
        self.room, self.place, self.error, self.tried, self.pending = room, place, error, [], False
        self.threads = set()
        self.calls = 0

    def check(self, place, count):
        if place == self.place and count > self.room:
            raise self.error or torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    def stage(self, batch):
        self.threads.add(threading.current_thread().name)
        self.check("stage", len(batch))
        return torch.tensor(batch, dtype=torch.float64)

    def start(self, images):
        assert not self.pending, "a batch was started before the last one was finished"
        self.tried.append(len(images))
        self.check("start", len(images))
        self.pending = True

        def finish():
            self.pending = False
            self.check("finish", len(images))
            return images * 10

        return finish


class Recorder:
    """A device that notes what is asked of it; an item's number is its batch's. `failing` fails to start with `error`."""

    def __init__(self, failing=None, error=None):
        self.events, self.failing, self.error = [], failing, error
        self.batches = BatchRunner(self.stage, self.start, 1)

    def stage(self, batch):
        self.events.append(f"stage {batch[0]}")
        return torch.tensor(batch)

    def start(self, images):
        number = int(images[0])
        self.events.append(f"start {number}")
        if number == self.failing:
            raise self.error

        def finish():
            self.events.append(f"finish {number}")
            return images

        return finish

    def items(self, count):
        for number in range(count):
            self.events.append(f"take {number}")
            yield number

    def use(self, count):
        """Runs batches of one item, and notes when each result is used."""
        for (number,), _ in self.batches.run(self.batches.cut(self.items(count))):
            self.events.append(f"use {number}")


def test_the_next_batch_runs_while_a_result_is_used():
    device = Recorder()
    device.use(3)
    assert device.events == [
        "take 0", "stage 0", "start 0",
        "take 1", "stage 1", "finish 0", "start 1", "use 0",
        "take 2", "stage 2", "finish 1", "start 2", "use 1",
        "finish 2", "use 2",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug"), RuntimeError("CUDA error: no more")])
def test_what_is_finished_is_used_before_the_next_one_fails_to_start(error):
    device = Recorder(failing=2, error=error)
    with pytest.raises(GpuError if "CUDA" in str(error) else type(error)):
        device.use(9)
    assert device.events[-4:] == ["stage 2", "finish 1", "start 2", "use 1"]
    assert "use 0" in device.events and "take 3" not in device.events


def test_leaving_early_takes_no_more():
    device = Recorder()
    stream = device.batches.run(device.batches.cut(device.items(100)))
    assert next(stream)[0] == [0]
    stream.close()
    assert device.events[-1] == "start 1" and device.events.count("take 2") == 0


def results(batches, items):
    """All that comes, flat, and the sizes in which it came."""
    pairs = [(batch, result.tolist()) for batch, result in batches.run(batches.cut(iter(items)))]
    assert all(len(batch) == len(result) for batch, result in pairs)
    return [row for _, result in pairs for row in result]


@pytest.mark.parametrize("ways", [{}, {"ahead": CPU}, {"pad": True}, {"ahead": CPU, "pad": True}], ids=str)
@pytest.mark.parametrize("place", ["stage", "start", "finish"])
@pytest.mark.parametrize("count", [0, 1, 5, 8, 9, 31, 32, 40, 100])
@pytest.mark.parametrize("room", [1, 3, 4, 7, 8, 100])
def test_every_item_comes_once_and_in_order(room, count, place, ways):
    device, notes = Device(room, place), []
    batches = BatchRunner(device.stage, device.start, 32, note=notes.append, **ways)
    assert results(batches, range(count)) == [10 * item for item in range(count)]
    assert batches.size <= max(room, 1) or count <= room
    assert bool(notes) == (min(count, 32) > room)
    assert ("ssdtrt-ahead" in device.threads) == ("ahead" in ways and count > 0)


def test_it_goes_down_by_halves_says_so_and_stays_there():
    device, notes, released = Device(9), [], []
    release = lambda: released.append(1)  # noqa: E731
    batches = BatchRunner(device.stage, device.start, 32, note=notes.append, release=release)
    assert results(batches, range(70)) == [10 * item for item in range(70)]
    assert notes == [
        "There is not enough memory for 32 pictures at once; going on with 16.",
        "There is not enough memory for 16 pictures at once; going on with 8.",
    ]
    assert device.tried == [32, 16, *8 * [8], 6]  # The second 32 were cut before, and are not tried whole.
    assert batches.size == 8 and len(released) == 2


def test_the_next_batches_are_cut_small():
    device = Device(8)
    batches = BatchRunner(device.stage, device.start, 32)
    sizes = [len(batch) for batch, _ in batches.run(batches.cut(range(100)))]
    assert sizes == [32, 32, 8, 8, 8, 8, 4]  # The second was cut before the first one's memory was found too small.


@pytest.mark.parametrize(
    "count, pad, tried",
    [
        (3, True, [3]),  # Alone it is no larger than it is.
        (9, True, [4, 4, 4]),
        (8, True, [4, 4]),
        (9, False, [4, 4, 1]),
    ],
)
def test_a_last_batch_is_filled_up_to_those_before_it(count, pad, tried):
    device = Device(100)
    batches = BatchRunner(device.stage, device.start, 4, pad=pad)
    assert results(batches, range(count)) == [10 * item for item in range(count)] and device.tried == tried


def test_what_a_batch_is_filled_up_with_is_its_last_item():
    given = []
    batches = BatchRunner(torch.tensor, lambda images: given.append(images.tolist()) or (lambda: images), 3, pad=True)
    list(batches.run(iter([[1, 2, 3], [4], [5, 6], [7]])))
    assert given == [[1, 2, 3], [4, 4, 4], [5, 6], [7]]  # Only behind a full one.


def test_batches_of_any_sizes_are_filled_up_to_the_next_of_some():
    given = []
    batches = BatchRunner(torch.tensor, lambda images: given.append(images.tolist()) or (lambda: images), 4, pad=True)
    batches.sizes = 1, 3, 4
    batches_given = [[1], [2, 3], [4, 5, 6, 7], [8], [9, 10]]
    assert [(batch, result.tolist()) for batch, result in batches.run(iter(batches_given))] == [
        (batch, batch) for batch in batches_given
    ]
    assert given == [[1], [2, 3, 3], [4, 5, 6, 7], [8], [9, 10, 10]]
    batches.size = 2  # As where the memory is too small for more.
    assert [result.tolist() for _, result in batches.run(iter([[1], [2, 3]]))] == [[1], [2, 3]] and given[-1] == [2, 3]


def test_after_a_halving_it_is_filled_up_to_the_smaller_size():
    device = Device(8)
    batches = BatchRunner(device.stage, device.start, 32, pad=True)
    assert results(batches, range(65)) == [10 * item for item in range(65)]
    assert device.tried == [32, 16, *8 * [8], 1]  # The last was cut behind one that was not full any more.


def test_ahead_no_more_is_staged_than_fits_and_an_early_end_closes_the_batches_in_their_thread():
    staged, closed = [], []

    def endless():
        try:
            for number in range(1000):
                yield [number]
        finally:
            closed.append(threading.current_thread().name)

    batches = BatchRunner(
        lambda batch: staged.append(1) or torch.tensor(batch), lambda images: lambda: images, 1, ahead=CPU
    )
    running = batches.run(endless())
    for number in range(5):
        assert next(running)[0] == [number]
        time.sleep(0.01)
        assert len(staged) <= number + 1 + 1 + config.BATCHES_AHEAD + 1  # One runs, some wait, one has no place yet.
    running.close()
    assert closed == ["ssdtrt-ahead"] and not [one for one in threading.enumerate() if one.name == "ssdtrt-ahead"]


@pytest.mark.parametrize("ahead", [None, CPU])
def test_an_error_of_the_batches_is_raised_and_they_are_closed_in_turn_too(ahead):
    closed = []

    def two(error):
        try:
            yield [1]
            yield [2]
            raise error
        finally:
            closed.append(True)

    batches = BatchRunner(torch.tensor, lambda images: lambda: images, 1, ahead=ahead)
    for error in (ValueError("a bug"), KeyboardInterrupt(), SsdtrtError("no memory")):
        with pytest.raises(type(error)):
            list(batches.run(two(error)))
    running = batches.run(two(ValueError()))
    next(running)
    running.close()
    assert closed == [True] * 4


def test_one_runner_may_be_used_between_two_results_of_another_run():
    device = Recorder()
    device.batches.ahead, device.batches.pad = CPU, True
    outer = []
    for batch, _ in device.batches.run(iter([[1], [2], [3]])):
        outer.append(batch)
        assert [inner for inner, _ in device.batches.run(iter([[7], [8]]))] == [[7], [8]]
    assert outer == [[1], [2], [3]]


@pytest.mark.parametrize("ahead", [None, CPU])
def test_staging_is_timed(ahead):
    times = StageTimes()
    batches = BatchRunner(
        lambda batch: time.sleep(0.01) or torch.tensor(batch),
        lambda images: lambda: images,
        1,
        ahead=ahead,
        times=times,
    )
    assert len(list(batches.run(iter([[1], [2]])))) == 2
    assert [one.stage for one in times.of(1) if one.seconds] == ["upload"] and times.of(1)[2].seconds > 0.02


def test_not_below_the_smallest():
    device, notes = Device(3), []
    batches = BatchRunner(device.stage, device.start, 32, 4, note=notes.append)
    with pytest.raises(GpuError) as caught:
        results(batches, range(40))
    assert str(caught.value) == (
        "The GPU has not enough memory for a batch of 4, the smallest that this file takes. Free some (nvidia-smi shows "
        "who has it), or compile with a smaller --batch-size."
    )
    assert len(notes) == 3 and min(device.tried) == 4


def test_a_static_engine_cannot_be_halved():
    device, notes = Device(3), []
    with pytest.raises(GpuError, match="for a batch of 8, the smallest"):
        results(BatchRunner(device.stage, device.start, 8, 8, note=notes.append), range(40))
    assert notes == [] and device.tried == [8]


def test_what_was_finished_has_come_before_a_failure():
    device = Device(4, error=RuntimeError("CUDA error: unspecified launch failure"))
    came = []
    batches = BatchRunner(device.stage, device.start, 8)
    with pytest.raises(GpuError, match="The GPU failed .CUDA error: unspecified launch failure."):
        for batch, _ in batches.run(iter([[1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11], [12]])):
            came.append(batch)
    assert came == [[1, 2, 3, 4], [5, 6]]


def test_other_errors_are_not_taken_for_a_full_gpu():
    device = Device(4, error=RuntimeError("shape '[7]' is invalid"))
    with pytest.raises(RuntimeError, match="shape"):
        results(BatchRunner(device.stage, device.start, 8), range(8))
    assert device.tried == [8]


def test_nothing_of_a_failed_try_is_held_while_it_is_tried_again():
    """The error's frames would keep the tensors that filled the memory."""
    held, alive = [], []

    def start(images):
        alive.append([one() is not None for one in held])
        large = torch.zeros(10)
        held.append(weakref.ref(large))
        if len(images) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return lambda: images

    gc.disable()
    try:
        results(BatchRunner(lambda batch: torch.tensor(batch), start, 4), range(4))
    finally:
        gc.enable()
    assert alive[1] == [False] and not any(map(any, alive[1:3]))


# Bringing a batch to the device


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
    monkeypatch.setattr(batching, "CudaGraphRunner", Replayed)
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


def test_what_a_graph_resized_is_not_overwritten_by_the_next_picture(monkeypatch):
    """It may wait for its turn until then."""
    monkeypatch.setattr(batching, "CudaGraphRunner", Replayed)
    stage, pictures = Stage(CPU), pictures_of((64, 48), (64, 48))
    assert_resized([stage._replay([picture])[0].permute(2, 0, 1) for picture in pictures], pictures)


def test_the_weights_that_a_graph_reads_are_kept_with_it(monkeypatch):
    monkeypatch.setattr(batching, "CudaGraphRunner", Replayed)
    stage, (picture,) = Stage(CPU), pictures_of((64, 48))
    stage._replay([picture])
    assert [tuple(each.shape) for each in stage._kept] == [(300,), (300, 2), (300,), (300, 2)]
    assert all(each is cached for each, cached in zip(stage._kept, constants(48, 64, CPU)))
    stage.release()
    assert stage.graph is None and stage._kept == ()

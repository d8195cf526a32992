"""AP beside speed: each network evaluated once, against FP32 eager of its own weights."""

import copy
import shutil

import pytest
import torch
from coco_files import IDS, write_annotations

from ssdtrt.bench import bench_files
from ssdtrt.benchmarking import accuracy
from ssdtrt.benchmarking.accuracy import in_batches_of
from ssdtrt.detect import Detector
from ssdtrt.errors import AnnotationsError
from ssdtrt.evaluate import Evaluation, evaluate_file
from ssdtrt.export import export_module

FEW = {"device": "cpu", "rounds": 1, "iterations": 1, "warmup": 1}


@pytest.fixture(scope="module")
def truth(module, photographs, tmp_path_factory):
    """Annotations of two photographs: what the model finds from 0.4 up, in the second one moved to the right."""
    objects, images = [], {}
    for number, result in enumerate(Detector(module, "cpu", threshold=0.4)(photographs[:2]), 1):
        images[number] = photographs[number - 1].name
        for one in result.detections:
            left, top, right, bottom = one.box
            moved = (right - left) * (number == 2) / 5
            objects.append((number, IDS[one.label_id - 1], [left + moved, top, right - left, bottom - top]))
    return write_annotations(tmp_path_factory.mktemp("truth") / "val.json", images, objects)


@pytest.fixture
def evaluation(truth, photographs):
    return Evaluation(photographs[0].parent, truth)


@pytest.fixture
def evaluated(monkeypatch):
    """The names of what was evaluated."""
    names = []
    of = Evaluation.of

    def watched(self, runner, name, **options):
        names.append(name)
        return of(self, runner, name, **options)

    monkeypatch.setattr(Evaluation, "of", watched)
    return names


def test_each_file_is_compared_with_fp32_of_its_own_weights(
    engine, model, evaluation, truth, photographs, evaluated, tmp_path
):
    """An engine, and a module of other weights, which give class 3 higher scores."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.conf[0].bias[3::81].add_(4)
    model.source = None  # Its digest is of the weights before.
    other = export_module(model, tmp_path / "other.ts")
    eager, first, second = bench_files([engine, other], evaluation=evaluation, **FEW).rows
    assert evaluated == ["eager-fp32", "ssd300.engine.ts", "eager-fp32", "other.ts"]
    expected = evaluate_file(other, photographs[0].parent, truth, device="cpu", subset=True).figures
    found = second.accuracy
    assert (found.ap, found.ap50, found.ap75) == (expected["AP"], expected["AP50"], expected["AP75"])
    assert eager.accuracy.ap == first.accuracy.ap > found.ap + 0.01
    assert [row.accuracy.difference for row in (eager, first, second)] == [0.0, 0.0, 0.0]


def test_a_network_that_cannot_be_evaluated_is_a_note_and_its_speed_is_kept(engine, evaluation, monkeypatch):
    def load(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(accuracy, "load_engine", load)
    report = bench_files([engine], evaluation=evaluation, **FEW)
    eager, failed = report.rows
    assert eager.accuracy.difference == 0.0 and failed.accuracy is None and failed.median_ms > 0
    assert "ssd300.engine.ts: accuracy not measured, CUDA error: out of memory" in report.notes


def test_without_its_module_a_file_has_an_ap_and_no_difference(engine, evaluation, evaluated, tmp_path):
    alone = shutil.copyfile(engine, tmp_path / "alone.engine.ts")
    report = bench_files([alone], evaluation=evaluation, **FEW)
    eager, found = (row.accuracy for row in report.rows)
    assert eager is None and 0.5 < found.ap < 0.99 and found.difference is None and evaluated == ["alone.engine.ts"]
    assert report.notes[0].startswith(f"{alone}: agreement and AP not compared, its module ssd300.ts was not found;")


def test_classes_that_do_not_fit_are_refused_before_anything_is_measured(engine, photographs, evaluated, tmp_path):
    names = {1: photographs[0].name}
    path = write_annotations(tmp_path / "a.json", names, [(1, 7, [0, 0, 9, 9])], {7: "gearbox"})
    lines = []
    with pytest.raises(AnnotationsError, match="gearbox only in the annotations"):
        bench_files([engine], evaluation=Evaluation(photographs[0].parent, path), progress=lines.append, **FEW)
    assert lines == ["loading"] and evaluated == []


def test_what_takes_one_batch_size_gets_whole_batches():
    sizes, kept = [], torch.empty(2, 1, 3)

    def network(images):
        sizes.append(len(images))
        kept.copy_(images)  # As a CUDA graph, whose outputs the next call overwrites.
        return kept, kept

    images = torch.arange(5.0).reshape(5, 1, 1).expand(5, 1, 3)
    loc, conf = in_batches_of(2, network)(images)
    assert sizes == [2, 2, 2] and torch.equal(loc, images) and torch.equal(conf, images)
    assert len(in_batches_of(2, network)(images[:4])[0]) == 4 and len(sizes) == 5

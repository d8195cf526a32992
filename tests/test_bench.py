"""Measuring: what is timed, in which order, and what is made of the samples."""

import doctest
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from coco_files import IDS, write_annotations

from conftest import runner
from ssdtrt import bench
from ssdtrt.artifact.request import BatchRange
from ssdtrt.bench import bench_files, benchmark, plan_sizes
from ssdtrt.benchmarking.baselines import BenchFile
from ssdtrt.benchmarking.report import BenchSettings
from ssdtrt.cli import main
from ssdtrt.commands.text.bench import bench_text
from ssdtrt.detect import Detector
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.evaluate import evaluate_file


@pytest.mark.slow
def test_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(bench)
    assert result.attempted >= 8 and result.failed == 0


@pytest.fixture
def images():
    return torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(8))


def strict(text):
    """JSON as the standard has it: NaN and Infinity are refused."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def recorder(name, calls, seconds=0.0):
    """A runner that notes that it was called, and takes its time."""

    def runner(images):
        calls.append((name, images))
        time.sleep(seconds)
        return images, images

    return runner


def test_runners_are_warmed_up_then_take_turns_round_by_round(images):
    calls = []
    runners = {name: recorder(name, calls) for name in "abc"}
    benchmark(runners, images, rounds=6, iterations=2, warmup=4)
    called = "".join(name for name, _ in calls)
    assert called[:12] == "aaaabbbbcccc"
    turns = [called[i : i + 6] for i in range(12, len(called), 6)]
    assert len(turns) == 6 and len(set(turns)) > 2  # In another order each time, or nearly.
    assert all("".join(sorted(one)) == "aabbcc" and one[::2] == one[1::2] for one in turns)


def test_the_inputs_are_used_in_turn_and_are_the_same_for_everybody(images):
    calls = []
    benchmark({name: recorder(name, calls) for name in "ab"}, images, rounds=1, iterations=5, warmup=0)
    mine, other = ([batch for name, batch in calls if name == wanted] for wanted in "ab")
    assert [batch.data_ptr() for batch in mine] == [batch.data_ptr() for batch in other]
    assert len({batch.data_ptr() for batch in mine}) == 4 and mine[4] is mine[0] is images
    assert all(not torch.equal(mine[i], mine[j]) for i in range(4) for j in range(i))
    assert all(batch.shape == images.shape and batch.is_contiguous() for batch in mine)


def test_times_and_rates_follow_from_what_the_runners_take(images):
    calls = []
    runners = {"slow": recorder("slow", calls, 0.03), "fast": recorder("fast", calls, 0.01)}
    report = benchmark(runners, images, rounds=2, iterations=3, warmup=1)
    slow, fast = report.rows
    assert (slow.name, fast.name, slow.batch_size, slow.samples) == ("slow", "fast", 2, 6)
    assert slow.median_ms >= 30 and fast.median_ms >= 10  # As long as they sleep.
    assert slow.speedup == 1 and fast.speedup == slow.median_ms / fast.median_ms
    assert fast.images_per_second == pytest.approx(2000 / fast.median_ms)
    assert all(row.median_ms <= row.p90_ms <= row.p99_ms for row in report.rows)
    assert slow.agreement is slow.memory_mib is slow.build_seconds is slow.compile_seconds is None
    assert slow.host.median_ms == slow.median_ms and slow.host.returned_ms is None
    assert slow.first_call_ms >= 30 and slow.max_ms >= slow.p99_ms
    assert fast.speedup_low is None  # from two rounds


def test_the_interval_is_of_the_rounds(images):
    runners = {"slow": recorder("slow", [], 0.02), "fast": recorder("fast", [], 0.01)}
    slow, fast = benchmark(runners, images, rounds=3, iterations=2, warmup=1).rows
    assert (slow.speedup_low, slow.speedup_high) == (1, 1)
    assert 0 < fast.speedup_low <= fast.speedup_high


def test_memory_that_does_not_suffice_is_a_row_and_the_others_go_on(images):
    calls = []

    def large(images):
        raise RuntimeError("CUDA error: out of memory")

    def bug(images):
        raise RuntimeError("shapes do not fit")

    report = benchmark({"large": large, "a": recorder("a", calls)}, images, rounds=1, iterations=2, warmup=1)
    assert [row.status for row in report.rows] == ["failed", "ok"]
    assert report.rows[0].reason == "out of memory (RuntimeError: CUDA error: out of memory)"
    assert len(calls) == 3 and report.rows[1].speedup is None
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        benchmark({"bug": bug}, images)


def test_settings_and_machine_are_reported(images):
    report = benchmark({"a": recorder("a", [])}, images, rounds=2, iterations=3, warmup=0)
    assert report.settings == BenchSettings(
        rounds=2,
        iterations=3,
        warmup=0,
        tf32=False,
        cudnn_benchmark=True,
        input_sets=4,
        rest_seconds=0.0,
        clock="host monotonic clock",
        gpu_state=None,
    )
    assert report.machine.cpu and report.machine.gpu is None
    assert report.machine.versions.torch == torch.__version__


def test_without_numbers_it_takes_those_of_a_cpu(images):
    calls = []
    report = benchmark({"a": recorder("a", calls)}, images)
    assert (report.settings.rounds, report.settings.iterations, report.settings.warmup) == (5, 4, 10)
    assert len(calls) == 30 and report.rows[0].samples == 20


def test_it_measures_with_tf32_off_and_without_gradients(images):
    seen = []

    def runner(batch):
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        seen.append((cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, torch.is_grad_enabled()))

    benchmark({"a": runner}, images, rounds=1, iterations=1, warmup=1)
    assert seen == [(False, False, True, False)] * 2


def test_progress_names_each_warm_up_and_each_round(images):
    lines = []
    benchmark({"a": recorder("a", [])}, images, rounds=2, iterations=1, warmup=1, progress=lines.append)
    assert lines[:2] == ["warming up a, batch 2", "measuring batch 2"]
    assert lines[-1] == "measuring batch 2 [####################] 2 of 2 rounds"


def fake(name, batch):
    return SimpleNamespace(path=Path(name), batch=BatchRange.parse(batch) if batch else None)


STATIC, RANGE, ANY = fake("b8.ts", 8), fake("range.ts", "1:16:32"), fake("any.ts", None)


def test_each_file_is_measured_at_what_it_was_built_for():
    assert plan_sizes([STATIC, RANGE, ANY], None) == {1: [ANY], 8: [STATIC], 16: [RANGE]}
    assert list(plan_sizes([STATIC, RANGE, ANY], None)) == [1, 8, 16]


def test_sizes_that_are_asked_for_go_to_the_files_that_take_them():
    assert plan_sizes([STATIC, RANGE, ANY], [32, 8, 1]) == {1: [RANGE, ANY], 8: [STATIC, RANGE, ANY], 32: [RANGE, ANY]}


def test_a_size_that_none_takes_is_refused_with_what_they_take():
    with pytest.raises(ArtifactError) as caught:
        plan_sizes([STATIC, RANGE], [8, 64])
    assert str(caught.value) == ("No file takes batch size 64: b8.ts takes batch 8, range.ts takes batches of 1 to 32.")


@pytest.fixture(scope="module")
def measured(module, engine, photographs, tmp_path_factory):
    """`ssdtrt bench` on a module and an engine elsewhere, at two sizes: the result, the report, the engine's path.

    Of the two annotated pictures one cannot be read; the first object of the other is not where the model finds it.
    """
    folder = tmp_path_factory.mktemp("measured")
    photograph = shutil.copyfile(photographs[0], folder / photographs[0].name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    objects = []
    for one in Detector(module, "cpu")(photograph).detections:
        left, top, right, bottom = one.box
        objects.append((1, IDS[one.label_id - 1], [left if objects else 0.0, top, right - left, bottom - top]))
    write_annotations(folder / "a.json", {1: photograph.name, 2: "broken.jpg"}, objects)
    alone = shutil.copyfile(engine, folder / "alone.engine.ts")
    sizes = ("--batch-size", "2,1", "--rounds", "1", "--iterations", "1", "--warmup", "1", "--device", "cpu")
    others = ("--against", "eager-fp16, engine-plain", "--parts")
    accuracy = ("--images", ".", "--annotations", "a.json")
    arguments = ("bench", str(module), str(alone), "--module", str(module), *sizes, *others, *accuracy)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = runner().invoke(main, [*arguments, "--json", "bench.json"], prog_name="ssdtrt")
    assert done.exit_code == 1, done.stderr
    return done, strict((folder / "bench.json").read_text()), str(alone)


def test_files_and_baselines_are_measured_at_each_size(measured, module):
    _, report, engine = measured
    rows = report["rows"]
    assert [row["batch_size"] for row in rows] == [1] * 6 + [2] * 6
    assert [(row["case"], row["name"]) for row in rows[:6]] == [(row["case"], row["name"]) for row in rows[6:]] == [
        ("eager-fp32", "eager-fp32"),
        ("eager-fp16", "eager-fp16"),
        ("torchscript", str(module)),
        ("engine-plain", f"{module} plain"),
        ("engine", engine),
        ("engine-plain", f"{engine} plain"),
    ]  # fmt: skip
    assert [row["precision"] for row in rows] == ["fp32", "fp16", "fp32", "fp32", "fp32", "fp32"] * 2
    assert [row["file"] for row in rows[:6]] == [None] * 2 + [str(module)] * 2 + [engine] * 2
    good = [row for row in rows if row["status"] == "ok"]
    assert [row["samples"] for row in good] == [1] * 6 and [row["memory_mib"] for row in good] == [None] * 6
    assert [rows[0]["speedup"], rows[6]["speedup"]] == [1, 1]
    assert rows[10]["speedup"] == rows[6]["median_ms"] / rows[10]["median_ms"]
    assert all(row["first_call_ms"] > 0 and row["host"]["median_ms"] == row["median_ms"] for row in good)
    built = [row["build_seconds"] for row in good]
    assert built[:2] == built[3:5] == [None] * 2 and built[2] == built[5] > 0


def test_what_cannot_run_here_has_a_row_with_the_reason(measured):
    reasons = {row["case"]: row["reason"] for row in measured[1]["rows"] if row["status"] == "failed"}
    assert reasons == {
        "eager-fp16": "needs a GPU: PyTorch has no fast FP16 on a CPU",
        "engine-plain": "needs a TensorRT engine: other files run without a CUDA graph as they are",
    }
    assert "failed: eager-fp16, batch 2: needs a GPU: PyTorch has no" in measured[0].stdout


def test_agreement_is_measured_at_the_same_batch_size(measured):
    for row in measured[1]["rows"]:
        agreement = row["agreement"]
        if row["case"] == "eager-fp32" or row["status"] == "failed":
            assert agreement is None
            continue
        assert (agreement["images"], agreement["batch_sizes"]) == (2, [row["batch_size"]])
        assert agreement["precision"] == row["precision"] and agreement["passed"]
        distances = [output["relative_l2"] for output in agreement["outputs"]]
        if row["case"] == "torchscript":
            assert distances == [0, 0] and agreement["detections"]["match_rate"] == 1  # A trace is eager, bit for bit.
        else:
            assert all(0 < distance <= 1e-4 for distance in distances)


def test_accuracy_is_that_of_evaluate_in_every_row_of_a_network(measured, module):
    done, report, engine = measured
    expected = evaluate_file(module, (folder := Path(engine).parent), folder / "a.json", device="cpu")
    good = [row for row in report["rows"] if row["status"] == "ok"]
    assert [row["case"] for row in good] == ["eager-fp32", "torchscript", "engine"] * 2
    for row in good:
        assert row["accuracy"] == {
            "ap": expected.figures["AP"], "ap50": expected.figures["AP50"], "ap75": expected.figures["AP75"],
            "difference": 0.0, "images": 2,
        }  # fmt: skip
    assert 0.1 < expected.figures["AP"] < 1
    assert {row["accuracy"] for row in report["rows"] if row["status"] == "failed"} == {None}
    evaluated = [line for line in done.stderr.splitlines() if line.startswith("evaluating ")]
    assert [line.split()[1] for line in evaluated] == ["eager-fp32", module.name, "alone.engine.ts"]
    assert (report["settings"]["evaluation"]["annotations"], report["settings"]["evaluation"]["images"]) == (
        "a.json",
        ".",
    )


def test_a_picture_that_cannot_be_read_ends_with_1_after_the_report(measured):
    done, report, _ = measured
    (failure,) = report["failures"]
    assert failure.startswith("broken.jpg cannot be read as a picture (")
    assert done.stderr.splitlines()[-1] == f"Error: {failure}"


def test_the_parts_are_in_the_report_and_shown(measured):
    done, report, _ = measured
    names = ["preparation", "host to device", "normalization", "network", "decode and NMS", "whole"]
    assert [(part["name"], part["batch_size"]) for part in report["parts"]] == [(name, 1) for name in names]
    lines = done.stdout.splitlines()
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in names)


def test_the_command_shows_the_table_on_stdout_and_progress_on_stderr(measured):
    done, report, engine = measured
    assert set(report) == {"schema", "kind", "machine", "settings", "rows", "notes", "parts", "failures"}
    assert report["notes"] == [
        "1 of 2 pictures could not be read; counted as without detections",
        "untrained: seeded random weights; speed and agreement hold, detections mean nothing",
    ]
    lines = done.stdout.splitlines()
    assert lines[-1] == f"note: {report['notes'][1]}"
    rows = [line for line in lines if line.startswith(f"{engine} FP32")]
    assert len(rows) == 6 and f"{report['rows'][4]['speedup']:.2f}x" in rows[0]
    progress = done.stderr.splitlines()
    assert progress[:3] == ["reading the annotations", "loading", "warming up eager-fp32, batch 1"]
    assert "measuring batch 2" in progress and "comparing batch 2 with FP32" in progress
    assert progress[-2] == "timing whole"


def test_an_unknown_name_is_refused_before_any_work(tmp_path):
    with pytest.raises(SsdtrtError, match="^'eager-fp8' is no benchmark case; expected some of eager-fp32, "):
        bench_files([tmp_path / "missing.ts"], against=["eager-fp8"])
    done = runner().invoke(main, ["bench", "--against", "compile,eager-fp8"], prog_name="ssdtrt")
    assert done.exit_code == 2 and "'eager-fp8' is not one of eager-fp32, eager-tf32" in done.stderr


def test_memory_for_the_images_alone_ends_the_sweep_and_keeps_what_was_measured(engine, monkeypatch):
    make = bench.synthetic_images

    def images(count, seed):
        if count > 2:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
            )
        return make(count, seed=seed)

    monkeypatch.setattr(bench, "synthetic_images", images)
    report = bench_files([engine], batch_sizes=[1, 3, 4], rounds=1, iterations=1, warmup=1)
    assert [(row.case, row.batch_size, row.status) for row in report.rows] == [
        ("eager-fp32", 1, "ok"), ("engine", 1, "ok"), ("eager-fp32", 3, "failed"), ("engine", 3, "failed")
    ]  # fmt: skip
    assert report.rows[3].reason.startswith("out of memory (RuntimeError: [enforce fail] DefaultCPUAllocator: can't")
    assert report.rows[1].agreement.passed


def test_memory_ends_the_sweep_of_one_runner_only(engine, monkeypatch):
    """The engine's memory runs out at batch 2, so it is not tried at 3; eager and the others are."""
    load = BenchFile.runner

    def runner(self):
        whole = load(self)

        def small(images):
            if len(images) > 1:
                raise RuntimeError("CUDA error: out of memory")
            return whole(images)

        return small

    monkeypatch.setattr(BenchFile, "runner", runner)
    report = bench_files([engine], batch_sizes=[1, 2, 3], rounds=1, iterations=1, warmup=1)
    assert [(row.case, row.batch_size, row.status) for row in report.rows] == [
        ("eager-fp32", 1, "ok"), ("engine", 1, "ok"),
        ("eager-fp32", 2, "ok"), ("engine", 2, "failed"),
        ("eager-fp32", 3, "ok"),
    ]  # fmt: skip
    assert report.rows[3].reason == "out of memory (RuntimeError: CUDA error: out of memory)"


def test_without_the_fp32_baseline_there_is_no_speed_up(engine, monkeypatch):
    """Its memory runs out at batch 2, so it is not tried at 3; no other row takes its place."""
    load = bench.eager_model

    def small(*arguments):
        model = load(*arguments)
        forward = model.forward

        def limited(images):
            if len(images) > 1:
                raise RuntimeError("CUDA error: out of memory")
            return forward(images)

        model.forward = limited
        return model

    monkeypatch.setattr(bench, "eager_model", small)
    report = bench_files([engine], batch_sizes=[1, 2, 3], rounds=1, iterations=1, warmup=1)
    assert [(row.case, row.batch_size, row.status, row.speedup is None) for row in report.rows] == [
        ("eager-fp32", 1, "ok", False), ("engine", 1, "ok", False),
        ("eager-fp32", 2, "failed", True), ("engine", 2, "ok", True),
        ("engine", 3, "ok", True),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def not_compared(model, engine, tmp_path_factory):
    """A report of two engines, one without a module and one beside another file of its name, and their paths."""
    folder = tmp_path_factory.mktemp("not-compared")
    paths = []
    for name, source in (("gone", engine), ("other", engine)):
        (folder / name).mkdir()
        paths.append(Path(shutil.copyfile(source, folder / name / source.name)))
    (folder / "other" / "ssd300.ts").write_bytes(b"another module")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(bench, "build_model", lambda weights: model)  # It takes seconds and is made already.
        return bench_files(paths, rounds=1, iterations=1, warmup=1), paths


def test_the_module_is_measured_once_where_it_is_a_file_too(module, monkeypatch):
    report = bench_files([module], against=["torchscript"], device="cpu", rounds=1, iterations=1, warmup=1)
    assert [(row.case, row.name) for row in report.rows] == [("eager-fp32", "eager-fp32"), ("torchscript", str(module))]
    assert len({row.key for row in report.rows}) == 2


def test_onnx_runtime_beside_its_file_and_beside_the_module(onnx_file, module):
    few = {"device": "cpu", "rounds": 1, "iterations": 1, "warmup": 1}
    report = bench_files([onnx_file], against=["onnxruntime", "torchscript"], **few)
    assert [(row.case, row.name, row.status) for row in report.rows] == [
        ("eager-fp32", "eager-fp32", "ok"), ("torchscript", "torchscript", "failed"), ("onnxruntime", str(onnx_file), "ok")
    ]  # fmt: skip
    assert report.rows[1].reason == f"{onnx_file} is an ONNX file; give the TorchScript module as another FILE"
    assert report.rows[2].agreement.passed and report.rows[2].file == str(onnx_file)
    report = bench_files([module], against=["onnxruntime"], **few)
    assert [(row.case, row.status, row.file) for row in report.rows] == [
        ("eager-fp32", "ok", None), ("onnxruntime", "ok", None), ("torchscript", "ok", str(module))
    ]  # fmt: skip
    row = report.rows[1]
    assert row.agreement.passed and 0 < row.agreement.distance < 1e-5 and row.precision == "fp32" and row.median_ms > 0


def test_without_its_module_latency_is_measured_and_agreement_is_not(not_compared):
    report, (gone, other) = not_compared
    assert [row.name for row in report.rows] == ["eager-fp32", str(gone), str(other)]
    assert all(row.agreement is None and row.median_ms > 0 and row.speedup > 0 for row in report.rows)
    assert report.notes[:2] == (
        f"{gone}: agreement not compared, its module ssd300.ts was not found; name it with --module",
        f"{other}: agreement not compared, {other.parent / 'ssd300.ts'} is not the module it was built from; "
        "name that with --module, or compile again",
    )


def test_the_table_has_not_compared(not_compared):
    report, (gone, _) = not_compared
    lines = bench_text(report, 10_000).splitlines()
    rows = [line for line in lines if line.startswith(str(gone))]
    assert len(rows) == 2 and rows[1].endswith("  not compared")
    assert f"note: {report.notes[0]}" in lines

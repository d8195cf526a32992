"""The whole job in one command, and in its single steps with weights of one's own."""

import hashlib
import shlex

import pytest
import torch
from command_line import TRUST, assert_refused, pictures_in, strict
from picture_files import visible
from PIL import Image

from conftest import runner
from ssdtrt import config, run
from ssdtrt.artifact.request import BatchRange
from ssdtrt.bench import bench_files
from ssdtrt.cli import main
from ssdtrt.commands.terminal import Terminal
from ssdtrt.errors import CompileError, ImageError, SsdtrtError, WeightsError
from ssdtrt.model.weights import build_model
from ssdtrt.reading.addresses import AddressRules
from ssdtrt.reading.fetch import Fetched
from ssdtrt.reporting.numbers import milliseconds
from ssdtrt.run import run_job

SCENES = [f"{number:06d}.jpg" for number in range(1, 13)]
NOWHERE = "http://127.0.0.1:9/nothing-listens-here.pt"


@pytest.fixture(scope="module")
def job(tmp_path_factory, packed_scenes):
    """`ssdtrt run` with no picture, no GPU and no network, measuring briefly: its folder and click's result."""
    folder = tmp_path_factory.mktemp("job")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SSDTRT_COCO_URL", NOWHERE)
        patch.setenv("TORCH_HOME", str(folder / "cache"))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.delenv(name, raising=False)
        patch.setattr(config, "SCENES_WEIGHTS", packed_scenes)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(Terminal, "hints", property(lambda _: True))
        patch.setitem(config.ROUNDS, "cpu", 1)
        patch.setitem(bench_files.__kwdefaults__, "warmup", 1)
        result = runner().invoke(main, ["run", "--against", "torchscript", "--json", "job.json"], prog_name="ssdtrt")
    return folder / "ssdtrt-run", result


@pytest.fixture(scope="module")
def report(job):
    return strict((job[0] / "report.json").read_text(encoding="utf-8"))


def test_it_goes_to_its_end_and_leaves_these_files(job):
    folder, result = job
    assert result.exit_code == 0, result.stderr
    assert visible(folder) == [
        *SCENES, "detections.json", "report.html", "report.json", "ssd300.engine.ts", "ssd300.ts"
    ]  # fmt: skip


def test_the_command_that_comes_next_works(job, monkeypatch):
    """Beside the engine is its module."""
    monkeypatch.chdir(job[0].parent)
    words = shlex.split(job[1].stderr.splitlines()[-1])
    assert words == ["next:", "ssdtrt", "verify", "ssdtrt-run/ssd300.engine.ts"]
    assert runner().invoke(main, words[2:]).exit_code == 0


def test_json_is_the_report_in_the_folder(job):
    assert (job[0].parent / "job.json").read_bytes() == (job[0] / "report.json").read_bytes()


def test_what_is_left_out_is_noted_and_no_picture_ends_before_any_work(tmp_path, pictures, monkeypatch):
    def stop(*_, **__):
        raise CompileError("no further")

    pictures("a.png")
    (tmp_path / "pictures" / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(run, "_get_model", stop)
    notes = []
    with pytest.raises(CompileError, match="no further"):
        run_job([tmp_path / "empty", tmp_path / "pictures"], tmp_path / "out", note=notes.append)
    assert notes[0] == f"{tmp_path / 'pictures'}: left out 1 file (.txt): no picture."
    with pytest.raises(ImageError, match="empty holds no pictures.$"):
        run_job([tmp_path / "empty"], tmp_path / "none")
    with pytest.raises(ImageError, match="none.png: no such file"):
        run_job(["none.png"], tmp_path / "none")
    for address, options, message in (
        ("http://127.0.0.1:9/a.png", {}, r"--allow-private \(allow_private\) fetches from there"),
        ("http://127.0.0.1:9/a.png", {"allow_private": True}, "Connection refused"),
        ("http://host/a.png", {"max_bytes": 0}, "max_bytes is 0; expected"),
        ("http://host/a.png", {"timeout": -1}, "The timeout is -1; expected"),
    ):
        with pytest.raises(SsdtrtError, match=message):
            run_job([address], tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_an_address_is_fetched_once_and_before_any_work(tmp_path, pictures, web, monkeypatch):
    web.pages["/a.png"] = pictures("red.png").read_bytes()
    rules = AddressRules(allow_private=True)
    (found,) = run._find_pictures([web.address("/a.png")], tmp_path, rules, [], print)
    assert isinstance(found, Fetched) and web.paths == ["/a.png"]


def test_notes_on_stderr_name_what_was_done_otherwise_than_asked(job):
    notes = [line for line in job[1].stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert notes[0].startswith("note: CPU engine instead of a TensorRT engine; missing for that: a CUDA GPU (torch ")
    assert "compile --backend" not in notes[0]  # It is done already.
    assert notes[1].startswith(
        "note: Weights of 10 shapes in generated scenes (AP 0.77 on 1,000 of them) instead of COCO's: in other pictures "
        f"the detections mean nothing. {NOWHERE} cannot be fetched"
    )


def test_it_shows_every_step_on_stderr_and_the_results_on_stdout(job):
    _, result = job
    for step in ("exporting", "building", "comparing", "warming up", "measuring", "detecting"):
        assert any(line.startswith(step) for line in result.stderr.splitlines()), step
    assert "Error" not in result.stderr
    first = "ssdtrt-run/ssd300.engine.ts: FP32 torchscript, any batch, built in"
    assert result.stdout.splitlines()[0].startswith(first)
    assert "eager-fp32" in result.stdout and "000012.jpg" in result.stdout
    assert (
        result.stdout.splitlines()[-1]
        == "written to ssdtrt-run: report.html, report.json, detections.json and 12 pictures"
    )


def test_the_report_is_complete(report):
    assert set(report) == {
        "schema", "kind", "folder", "trained", "backend", "precision", "module", "engine", "bench", "detections", "notes",
        "failures",
    }  # fmt: skip
    assert (report["schema"], report["kind"]) == (2, "run")
    assert (report["folder"], report["trained"]) == ("ssdtrt-run", True)
    assert (report["backend"], report["precision"], report["failures"]) == ("torchscript", "fp32", [])
    assert [note.split(";")[0].split(",")[0] for note in report["notes"]] == [
        "CPU engine instead of a TensorRT engine",
        "Weights of 10 shapes in generated scenes (AP 0.77 on 1",
    ]
    assert report["module"]["kind"] == "module" and report["module"]["model"]["weights"]["name"] == "scenes"
    assert report["module"]["model"]["labels"][:3] == ["background", "disc", "rectangle"]
    assert report["engine"]["kind"] == "engine" and report["engine"]["parity"]["passed"] is True


def test_the_report_holds_the_measurement(report):
    bench = report["bench"]
    assert set(bench) == {"schema", "kind", "machine", "settings", "rows", "notes", "parts", "failures"}
    eager, _, engine = bench["rows"]
    assert [row["case"] for row in bench["rows"]] == ["eager-fp32", "torchscript", "engine"]
    assert (eager["name"], engine["name"]) == ("eager-fp32", "ssdtrt-run/ssd300.engine.ts")
    assert eager["batch_size"] == engine["batch_size"] == 1 and eager["speedup"] == 1
    assert engine["median_ms"] > 0 and engine["build_seconds"] > 0
    assert engine["agreement"]["passed"] is True
    assert engine["agreement"]["outputs"][0]["relative_l2"] <= 1e-4
    assert not any("untrained" in note for note in bench["notes"])


def test_the_engine_is_that_of_the_module_beside_it(job, report):
    digest = hashlib.sha256((job[0] / "ssd300.ts").read_bytes()).hexdigest()
    assert report["engine"]["module"] == {"file": "ssd300.ts", "sha256": digest}


def test_the_pictures_are_the_sample_scenes_with_boxes(job, report):
    folder, _ = job
    found = {entry["image"]: entry for entry in report["detections"]}
    assert sorted(found) == [str(run.SCENES / name) for name in SCENES]
    for name in SCENES:
        entry = found[str(run.SCENES / name)]
        with Image.open(run.SCENES / name) as original, Image.open(folder / name) as drawn:
            assert drawn.format == "JPEG" and drawn.mode == "RGB"
            assert drawn.size == original.size == (entry["width"], entry["height"])
    assert any(entry["detections"] for entry in found.values())
    entries = pictures_in(folder)
    assert [entry.pop("drawing") for entry in entries] == SCENES
    assert entries == report["detections"]


@pytest.mark.parametrize("name, count, first", [("scenes", 12, "000001.jpg"), ("random", 3, "astronaut.jpg")])
def test_the_samples_go_by_the_weights(name, count, first, packed_scenes, monkeypatch):
    monkeypatch.setattr(config, "SCENES_WEIGHTS", packed_scenes)
    found = run._samples(build_model(name))
    assert (len(found), found[0].name) == (count, first)


def test_labels_for_coco_are_not_of_the_scenes(packed_scenes, monkeypatch):
    monkeypatch.setattr(config, "SCENES_WEIGHTS", packed_scenes)
    notes = []
    model = run._get_model("coco", config.COCO_LABELS[1:], False, notes.append, notes.append)
    assert model.labels[-1] == "ell" and " The labels that were given are not used. http" in notes[-1]


def test_the_page_shows_the_report(job, report):
    text = (job[0] / "report.html").read_text(encoding="utf-8")
    engine = report["bench"]["rows"][-1]
    assert f">{milliseconds(engine['median_ms'])}</td>" in text and f"{engine['speedup']:.2f}x as fast" in text
    assert "The weights are those of the package (scenes): trained on generated scenes" in text
    assert "untrained" not in text and ">not measured</strong>" in text
    assert text.count('<img src="data:image/jpeg;base64,') == 12
    assert report["module"]["model"]["weights"]["sha256"] in text


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(ssdtrt, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = ssdtrt("-q", "run", "--weights", "random", "-o", "taken")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: taken cannot be made: File exists. Give another folder with -o.\n"


def test_only_weights_that_cannot_be_fetched_are_replaced(ssdtrt, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = ssdtrt("-q", "run", "--weights", "missing.pt")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "Error: missing.pt: no such file. Give a checkpoint's path, `coco`, `scenes` or `random` as weights."
    )
    assert "instead of COCO's" not in done.stderr


@pytest.mark.parametrize("batch, count", [(8, 2), ("1:8:32", 2), (1, 1)])
def test_the_backend_goes_by_what_is_missing(batch, count, monkeypatch):
    notes = []
    monkeypatch.setattr(run.runtime, "missing_parts", lambda: ["a CUDA GPU", "Torch-TensorRT: pip install it"])
    sizes = BatchRange.parse(batch)
    assert run._choose_backend(sizes, notes.append) == ("torchscript", None)
    assert notes[0] == (
        "CPU engine instead of a TensorRT engine; missing for that: a CUDA GPU, and Torch-TensorRT: pip install it."
    )
    assert len(notes) == count
    assert notes[1:] == [f"A CPU engine takes any batch, and is measured at 1, not at {batch}."][: count - 1]
    monkeypatch.setattr(run.runtime, "missing_parts", list)
    assert run._choose_backend(sizes, notes.append) == ("tensorrt", sizes) and len(notes) == count


@pytest.mark.parametrize(
    "options, message",
    [
        (("--batch-size", 8, "--batch-range", "1:8:32"), "Give --batch-size or --batch-range, not both."),
        (
            ("--backend", "torchscript", "--batch-size", 1),
            "The backend torchscript takes any batch: leave out --batch-size and --batch-range.",
        ),
        (
            ("--against", "eager-fp99"),
            "Invalid value for '--against': 'eager-fp99' is not one of eager-fp32, eager-tf32,",
        ),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(options, message, ssdtrt, tmp_path):
    done = ssdtrt("run", *options)
    assert (done.exit_code, done.stdout) == (2, "") and f"Error: {message}" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_backend_that_is_asked_for_is_not_replaced(ssdtrt, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = ssdtrt("run", "--backend", "tensorrt", "--batch-range", "1:8:32")
    assert (done.exit_code, done.stdout) == (1, "") and not list(tmp_path.iterdir())
    assert done.stderr.startswith("Error: A TensorRT engine cannot be built or run here; missing: a CUDA GPU (torch ")
    assert done.stderr.endswith(". For a CPU engine: --backend torchscript\n") and done.stderr.count("\n") == 1
    with pytest.raises(
        CompileError, match="The backend torchscript takes any batch: leave out the batch; found 1:8:32"
    ):
        run_job(folder="out", weights="random", backend="torchscript", batch="1:8:32")
    with pytest.raises(SsdtrtError, match="eager-fp99"):
        run_job(folder="out", weights="random", against=["eager-fp99"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options, batch", [((), 1), (("--batch-range", "1:8:32"), BatchRange(1, 8, 32))])
def test_the_batch_sizes_are_those_of_the_build(options, batch, ssdtrt, monkeypatch):
    def build(*_, **settings):
        asked.append((settings["backend"], settings["batch"]))
        raise CompileError("no further")

    asked = []
    monkeypatch.setattr(run, "compile_engine", build)
    monkeypatch.setattr(run.runtime, "why_not", lambda **_: None)
    assert_refused(ssdtrt("-q", "run", "--weights", "random", "--backend", "tensorrt", *options), "no further")
    assert asked == [("tensorrt", batch)]


def test_what_the_build_notes_is_a_note_of_the_job(tmp_path, monkeypatch):
    def build(*_, note, **__):
        note("built in another layout")
        raise CompileError("no further")

    monkeypatch.setattr(run, "compile_engine", build)
    notes = []
    with pytest.raises(CompileError, match="no further"):
        run_job(folder=tmp_path / "out", weights="random", note=notes.append)
    assert notes[-1] == "built in another layout"


def test_the_library_refuses_labels_of_another_number(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "all.pt")
    with pytest.raises(WeightsError, match="Found 2 labels; the weights have 80 classes besides the background"):
        run_job([], tmp_path / "out", weights=tmp_path / "all.pt", labels=["bolt", "nut"], trust=bool(TRUST))


def test_a_threshold_out_of_range_is_refused_before_any_work(tmp_path):
    with pytest.raises(SsdtrtError, match=r"^The threshold is 5; expected a number of 0..1.$"):
        run_job(folder=tmp_path / "out", weights="random", threshold=5)
    assert not (tmp_path / "out").exists()

"""Which container is named, and what is said where none is known."""

from pathlib import Path

from serving_files import tensorrt_file

from known import typed
from ssdtrt.artifact.metadata import read_metadata
from ssdtrt.serving.triton.container import choose_container


def choose(version, plan=False):
    found = tensorrt_file(plan=plan)
    found["versions"]["tensorrt"] = version
    return choose_container(Path("a.engine.ts"), typed(found))


BUILD = (
    "To make one that fits, run in nvcr.io/nvidia/pytorch:{0}-py3, on a GPU of compute capability 9.0 such as the server "
    "has: ssdtrt compile ssd300.ts --fp16 --batch-range 1:8:32; then serve it in nvcr.io/nvidia/tritonserver:{0}-py3 of "
    "the same month."
)


def test_no_container_has_the_tensorrt_of_pypi():
    assert choose("8.6.0") == (
        None, f"No container of NVIDIA's has TensorRT 8.6.0, of which a.engine.ts is. {BUILD.format('YY.MM')}"
    )  # fmt: skip


def test_the_newest_is_named_and_was_not_served_with():
    image, note = choose("11.1.0.5", plan=True)
    assert image == "nvcr.io/nvidia/tritonserver:26.07-py3"
    assert note == (
        f"{image} has TensorRT 11.1; the authors of ssdtrt have not served with it. a.engine.ts is of TensorRT 11.1.0.5, "
        "which has to be the very one."
    )
    image, note = choose("11.1.0.5")
    assert note.endswith(f"Its torch is NVIDIA's own. {BUILD.format('26.07')}")


def test_another_is_not_guessed():
    image, note = choose("10.9.0.34")
    assert image is None and note.startswith(
        "Which container has TensorRT 10.9.0.34, of which a.engine.ts is, is not known"
    )
    assert choose("11.10.0")[0] is None


def test_a_cpu_engine_needs_a_torch(engine):
    image, note = choose_container(engine, read_metadata(engine))
    assert image is None and f"CPU engine of torch {read_metadata(engine).versions.torch}: any container" in note

"""The notebook runs from top to bottom as it stands."""

import base64
import io
import os

import pytest
from PIL import Image

from conftest import ROOT

NOTEBOOK = ROOT / "examples" / "ssd300.ipynb"


@pytest.fixture(scope="module")
def notebook():
    import nbformat  # Here, so that GPU tests can be collected where it is not installed.

    return nbformat.read(NOTEBOOK, as_version=4)


def test_stores_no_outputs(notebook):
    import nbformat

    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 8
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


def text_of(cell):
    """What a cell printed on stdout."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


@pytest.mark.slow
def test_runs_and_prints_what_it_does_otherwise(notebook, tmp_path, monkeypatch, photographs, kept_engines):
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    startup = tmp_path / "IPYTHONDIR" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "start.py").write_text("import narrow; narrow.narrow()\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("SSDTRT_WEIGHTS", raising=False)
    where = {"metadata": {"path": str(tmp_path)}}
    from nbclient import NotebookClient

    done = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    printed = [text_of(cell) for cell in done.cells if cell.cell_type == "code"]
    assert printed[1].startswith(
        "Untrained random weights instead of COCO's, so the detections mean nothing. http://127."
    )
    assert printed[1].endswith("random weights on cpu\n")
    assert printed[2] == "['astronaut.jpg', 'chelsea.jpg', 'coffee.jpg'] (3, 3, 300, 300)\n"
    assert [line.split()[0] for line in printed[3].splitlines()] == ["astronaut.jpg", "chelsea.jpg", "coffee.jpg"]
    assert printed[5].startswith("An engine for the CPU instead of TensorRT, for which is missing: a CUDA GPU")
    assert printed[5].endswith("ssdtrt-notebook/ssd300.engine.ts fp32 on cpu\n")
    assert printed[6].startswith("loc: relative L2 distance ") and "matched" in printed[6]
    baseline, engine = printed[7].splitlines()
    assert baseline.startswith("eager-fp32: ") and baseline.endswith(" images/s, 1.00 times eager FP32")
    assert engine.startswith("ssdtrt-notebook/ssd300.engine.ts: ") and engine.endswith(" times eager FP32")
    pictures = [output.data["image/png"] for output in done.cells[-1].outputs if output.output_type == "display_data"]
    assert len(pictures) == 3
    for path, encoded in zip(photographs, pictures):
        with Image.open(path) as original, Image.open(io.BytesIO(base64.b64decode(encoded))) as shown:
            assert shown.width > 2 * original.width
    assert sorted(path.name for path in (tmp_path / "ssdtrt-notebook").iterdir()) == ["ssd300.engine.ts", "ssd300.ts"]

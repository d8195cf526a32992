"""The notebook runs from top to bottom as it stands, and holds the outputs of such a run."""

import ast
import base64
import io
import os
import re

import numpy as np
import pytest
from PIL import Image

import ssdtrt
from conftest import ROOT

NOTEBOOK = ROOT / "examples" / "ssd300.ipynb"


@pytest.fixture(scope="module")
def notebook():
    import nbformat  # Here, so that GPU tests can be collected where it is not installed.

    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_uses_public_names_only(notebook):
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    nodes = list(ast.walk(ast.parse(code)))
    modules = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    names = [
        (node.module, name.name) for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names
        if node.module != "pathlib"
    ]  # fmt: skip
    assert set(modules) == {"os", "ssdtrt"} and len(names) >= 8
    assert all(module == "ssdtrt" and name in ssdtrt.__all__ for module, name in names)
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not [name for name in attributes if name.startswith("_") and name != "__file__"]


def test_it_holds_its_outputs_and_ends_with_a_picture(notebook):
    import nbformat

    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 8 and NOTEBOOK.stat().st_size < 300_000
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells) and notebook.cells[-1] is cells[-1]
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    with Image.open(io.BytesIO(base64.b64decode(cells[-1].outputs[0].data["image/jpeg"]))) as shown:
        assert shown.size == (600, 400) and np.asarray(shown).std() > 30


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
    (startup / "start.py").write_text(
        "import narrow; narrow.narrow()\nfrom ssdtrt import config; config.PARITY_IMAGES = 2\n"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("SSDTRT_WEIGHTS", raising=False)
    where = {"metadata": {"path": str(tmp_path)}}
    from nbclient import NotebookClient

    done = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    cells = [cell for cell in done.cells if cell.cell_type == "code"]
    printed = [text_of(cell) for cell in cells]
    assert printed[0] == "['astronaut.jpg', 'chelsea.jpg', 'coffee.jpg']\n"
    assert printed[1].startswith(
        "Untrained random weights instead of COCO's, so the detections mean nothing. http://12"
    )
    assert printed[1].endswith("80 classes: person bicycle car ...\n")
    assert printed[3].startswith(
        "An engine for the CPU instead of TensorRT. A TensorRT engine cannot be built or run here"
    )
    table = cells[3].outputs[-1].data["text/html"]
    assert "<caption>ssdtrt-notebook/ssd300.engine.ts</caption>" in table and "<td>engine, torchscript</td>" in table
    assert printed[4].startswith("loc: relative L2 distance ") and "matched" in printed[4]
    baseline, engine = printed[5].splitlines()
    assert baseline.startswith("eager-fp32: ") and baseline.endswith(" images/s, 1.00 times eager FP32")
    assert engine.startswith("ssdtrt-notebook/ssd300.engine.ts: ") and engine.endswith(" times eager FP32")
    assert "<td>random, untrained</td>" in cells[6].outputs[-1].data["text/html"]
    lines = [re.fullmatch(r"(\w+\.jpg) (\d+) objects, (\d+) from 0.45 up", line) for line in printed[7].splitlines()]
    assert [line[1] for line in lines] == ["astronaut.jpg", "chelsea.jpg", "coffee.jpg"]
    assert all(int(line[2]) >= int(line[3]) for line in lines) and int(lines[-1][2]) > 0
    assert printed[8].startswith(f"({lines[-1][2]}, 4) float32 [") and "ssdtrt-notebook/boxes.jpg [(" in printed[8]
    with (
        Image.open(photographs[-1]) as original,
        Image.open(io.BytesIO(base64.b64decode(cells[-1].outputs[0].data["image/png"]))) as shown,
    ):
        assert shown.size == original.size and shown.tobytes() != original.convert("RGB").tobytes()
    names = sorted(path.name for path in (tmp_path / "ssdtrt-notebook").iterdir())
    assert names == ["boxes.jpg", "ssd300.engine.ts", "ssd300.ts"]

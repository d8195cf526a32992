"""An exported module in C++: the example is built with libtorch and says what Python says."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

SOURCE = Path(__file__).parent.parent / "examples" / "cpp" / "run_module.cpp"
TORCH = Path(torch.__file__).parent
COMPILER = shutil.which("g++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(not (TORCH / "include" / "torch" / "script.h").exists(), reason="torch without headers"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The example, built as its first lines say."""
    path = tmp_path_factory.mktemp("cpp") / "run_module"
    flags = ["-std=c++20", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
    headers = [f"-I{TORCH / 'include'}", f"-I{TORCH / 'include/torch/csrc/api/include'}"]
    libraries = [f"-L{TORCH / 'lib'}", f"-Wl,-rpath,{TORCH / 'lib'}", "-Wl,--no-as-needed", "-ltorch_cpu", "-lc10"]
    command = [COMPILER, *flags, "-w", *headers, str(SOURCE), "-o", str(path), *libraries]
    subprocess.run(command, check=True, timeout=600)
    return path


@pytest.mark.parametrize("batch", [1, 2])
def test_it_says_what_python_says(program, module, model, batch):
    done = subprocess.run([program, module, str(batch)], capture_output=True, text=True, check=True)
    images = torch.linspace(-1, 1, batch * 3 * 300 * 300, dtype=torch.float64).float().reshape(batch, 3, 300, 300)
    with torch.no_grad():
        expected = [output.double() for output in model(images)]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:4] for line in lines] == [["loc", str(batch), "4", "8732"], ["conf", str(batch), "81", "8732"]]
    for line, output in zip(lines, expected):
        total, magnitude = map(float, line[4:])
        assert magnitude == pytest.approx(float(output.abs().sum()), rel=1e-6)
        assert total == pytest.approx(float(output.sum()), abs=1e-6 * magnitude)


def test_what_is_no_module_is_an_error(program, tmp_path):
    (tmp_path / "text.ts").write_text("not a module")
    done = subprocess.run([program, tmp_path / "text.ts"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and "zip archive" in done.stderr
    assert subprocess.run([program], capture_output=True).returncode == 2

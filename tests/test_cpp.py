"""An exported module and a detector in C++: the examples are built with libtorch and print what Python computes."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from ssdtrt.runners import torchscript

SOURCES = Path(__file__).parent.parent / "examples" / "cpp"
TORCH = Path(torch.__file__).parent
COMPILER = shutil.which("g++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(not (TORCH / "include" / "torch" / "script.h").exists(), reason="torch without headers"),
]


# Both examples in one program, because torch's headers take most of the time; its first argument says which one runs.
BOTH = """
#include <torch/script.h>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#define main example
namespace run_module {
#include "run_module.cpp"
}
namespace run_detector {
#include "run_detector.cpp"
}
#undef main
int main(int argc, char** argv) {
  const bool module = std::string(argv[1]) == "run_module";
  return (module ? run_module::example : run_detector::example)(argc - 1, argv + 1);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The path of that program, built as the first lines of the examples describe."""
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "both.cpp").write_text(BOTH)
    path = folder / "both"
    flags = ["-std=c++20", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
    headers = [f"-I{SOURCES}", f"-I{TORCH / 'include'}", f"-I{TORCH / 'include/torch/csrc/api/include'}"]
    libraries = [f"-L{TORCH / 'lib'}", f"-Wl,-rpath,{TORCH / 'lib'}", "-Wl,--no-as-needed", "-ltorch_cpu", "-lc10"]
    command = [COMPILER, *flags, "-w", *headers, str(folder / "both.cpp"), "-o", str(path), *libraries]
    subprocess.run(command, check=True, timeout=600)
    return path


@pytest.mark.parametrize("batch", [1, 2])
def test_it_prints_what_python_computes(program, module, model, batch):
    done = subprocess.run([program, "run_module", module, str(batch)], capture_output=True, text=True, check=True)
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
    done = subprocess.run([program, "run_module", tmp_path / "text.ts"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and "zip archive" in done.stderr
    assert subprocess.run([program, "run_module"], capture_output=True).returncode == 2


def test_a_detector_prints_what_python_computes(program, detector_file):
    command = [program, "run_detector", detector_file, "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, heights = torch.arange(300).view(1, 1, 300, 1), torch.tensor([10, 11]).view(2, 1, 1, 1)
    pictures = (rows // heights * 53 % 256).to(torch.uint8).expand(2, 3, 300, 300).contiguous()
    with torch.no_grad():
        boxes, labels, scores, counts = torchscript.load(detector_file)(pictures)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [int(line[0]) for line in lines] == counts.tolist() and min(counts) > 0
    assert [int(line[1]) for line in lines] == labels[:, 0].tolist()
    for i, line in enumerate(lines):
        assert [float(value) for value in line[2:]] == pytest.approx(
            [float(scores[i, 0]), *boxes[i, 0].tolist()], abs=2e-5
        )

"""An exported module and a detector in C++: the examples are built with libtorch and print what Python computes."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import build_once
from ssdtrt.images.preprocess import to_pixels
from ssdtrt.images.tensors import prepare
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
# With `prepare` it writes the prepared picture's bytes.
BOTH = """
#include <torch/script.h>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <regex>
#include <stdexcept>
#include <string>
#include "prepare.h"
#define main example
namespace run_module {
#include "run_module.cpp"
}
namespace run_detector {
#include "run_detector.cpp"
}
#undef main
int main(int argc, char** argv) {
  if (std::string(argv[1]) == "prepare") {
    const auto pixels = prepare(run_detector::read_ppm(argv[3]), std::string(argv[2]) == "hub").contiguous();
    return std::fwrite(pixels.data_ptr<uint8_t>(), 1, pixels.numel(), stdout) == pixels.numel() ? 0 : 1;
  }
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


@pytest.fixture
def ppm(tmp_path, photographs):
    """A photograph, 427 x 640, as the examples read it, and the same as an image."""
    with Image.open(photographs[0]) as photograph:
        image = photograph.convert("RGB").resize((427, 640))
    image.save(tmp_path / "photograph.ppm")
    return tmp_path / "photograph.ppm", image


@pytest.mark.parametrize("size", [(427, 640), (1200, 500), (825, 1122), (3, 2), (300, 300)])
@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_pictures_are_prepared_as_in_python(program, tmp_path, size, preprocess):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.ppm")
    done = subprocess.run([program, "prepare", preprocess, tmp_path / "noise.ppm"], capture_output=True, check=True)
    found = np.frombuffer(done.stdout, np.uint8).reshape(3, 300, 300).astype(int)
    difference = np.abs(found - prepare(Image.fromarray(pixels), preprocess).numpy())
    assert difference.max() <= 1
    assert preprocess == "eval" or np.count_nonzero(difference) <= 100  # Where a sum is a half, but for rounding.


@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_boxes_of_a_picture_are_those_of_python(program, ppm, preprocess, request):
    """The best box's edges, mapped back with the very numbers with which the picture was cropped."""
    path, image = ppm
    if preprocess == "hub":
        file = build_once(request.getfixturevalue("hub_module"), "hub.detector.ts", detector=True)
    else:
        file = request.getfixturevalue("detector_file")
    done = subprocess.run([program, "run_detector", file, path], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    with torch.no_grad():
        boxes, labels, scores, counts = torchscript.load(file)(prepare(image, preprocess)[None])
    count, label, score, *box = map(float, line.split())
    # A byte may be another one, so that scores differ a little.
    assert abs(count - int(counts)) <= 2 and int(counts) > 2
    close = (labels[0] == label) & ((scores[0] - score).abs() < 2e-2)
    edges = to_pixels(boxes[0][close].numpy(), 427, 640, preprocess)
    assert len(edges) and np.abs(edges - box).max(axis=1).min() < 0.5


def test_what_is_no_picture_is_an_error(program, detector_file, tmp_path):
    for name, content, message in (
        ("text.ppm", b"no picture", "is no binary PPM of 8 bits; expected P6, width, height and 255."),
        ("short.ppm", b"P6 2 2 255\n12345", "ends too early."),
    ):
        (tmp_path / name).write_bytes(content)
        command = [program, "run_detector", detector_file, tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, f"{tmp_path / name} {message}\n")

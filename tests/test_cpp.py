"""An exported module and a detector in C++: the examples are built with libtorch and print what Python computes."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from conftest import ROOT, build_once
from known import metadata_like, typed
from ssdtrt.artifact.metadata import add_metadata, read_metadata
from ssdtrt.detection.drawing import color_of
from ssdtrt.images.decode import load_image
from ssdtrt.images.preprocess import to_pixels
from ssdtrt.images.tensors import prepare
from ssdtrt.runners import torchscript

SOURCES = ROOT / "examples" / "cpp"
CMAKE, COMPILER = shutil.which("cmake"), shutil.which("c++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(CMAKE is None, reason="no cmake"),
]


# Both examples in one program, because torch's headers take most of the time; its first argument says which one runs.
# Any other is for the pictures behind it: `read`, or the preprocessing with which they are prepared. Of each it writes
# the shape and the bytes, or three zeros and the error.
BOTH = """
#include <torch/script.h>
#include <cstdlib>
#include <exception>
#include <regex>
#include <vector>
#include "picture.h"
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
  const std::string what = argv[1];
  if (what == "run_module") return run_module::example(argc - 1, argv + 1);
  if (what == "run_detector") return run_detector::example(argc - 1, argv + 1);
  for (int i = 2; i < argc; ++i) {
    try {
      auto pixels = read_picture(argv[i]);
      if (what != "read") pixels = prepare(pixels, what == "hub").contiguous();
      std::printf("%d %d %d \\n", int(pixels.size(0)), int(pixels.size(1)), int(pixels.size(2)));
      std::fwrite(pixels.data_ptr<uint8_t>(), 1, pixels.numel(), stdout);
    } catch (const std::exception& error) {
      std::printf("0 0 0 %s\\n", error.what());
    }
  }
}
"""
BUILD = f"""
cmake_minimum_required(VERSION 3.18)
project(both LANGUAGES CXX)
add_subdirectory({SOURCES} examples EXCLUDE_FROM_ALL)
add_executable(both both.cpp)
target_include_directories(both PRIVATE {SOURCES})
target_link_libraries(both PRIVATE pictures)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)  # It looks for what it may forget in a tenth of its time.
  target_compile_options(both PRIVATE --param=ggc-min-expand=1000 --param=ggc-min-heapsize=4000000)
endif()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The path of that program, built with the examples' own CMakeLists.txt."""
    headers = "#include <cstdio>\n#include <jpeglib.h>\n#include <png.h>\n"
    command = [COMPILER, "-E", "-x", "c++", "-"]
    if subprocess.run(command, input=headers, capture_output=True, text=True).returncode:
        pytest.skip("no headers of libjpeg or libpng")
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "both.cpp").write_text(BOTH)
    (folder / "CMakeLists.txt").write_text(BUILD)
    settings = [f"-DPYTHON={sys.executable}", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O0 -Wall -Wextra -Werror"]
    subprocess.run([CMAKE, "-S", folder, "-B", folder / "build", *settings], check=True)
    subprocess.run([CMAKE, "--build", folder / "build"], check=True, timeout=600)
    return folder / "build" / "both"


@pytest.fixture
def pixels_of(program):
    """Reads pictures in C++: `pixels_of("read", *paths)` -> an array [H, W, 3] or an error's text for each."""

    def read(what, *paths):
        output = subprocess.run([program, what, *paths], capture_output=True, check=True).stdout
        found = []
        while output:
            line, _, output = output.partition(b"\n")
            *shape, error = line.decode().split(" ", 3)
            size = np.prod(shape := tuple(map(int, shape)))
            found.append(np.frombuffer(output[:size], np.uint8).reshape(shape) if size else error)
            output = output[size:]
        assert len(found) == len(paths)
        return found

    return read


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


@pytest.fixture
def photograph(photographs):
    """A photograph, 427 x 640."""
    with Image.open(photographs[0]) as opened:
        return opened.convert("RGB").resize((427, 640))


def test_pictures_are_read_as_in_python(pixels_of, photograph, tmp_path):
    """JPEG to the byte but for the versions of libjpeg, PNG to the byte, transparency but for rounding."""
    small, paths = photograph.resize((31, 20)), []

    def save(image, name, **options):
        paths.append(tmp_path / name)
        image.save(paths[-1], **options)

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif.endian = "<>"[orientation % 2]
        exif[0x010F], exif[0x0112] = "the maker's name", orientation
        save(small, f"{orientation}.jpg", quality=95, exif=exif)
    save(photograph, "photograph.jpg", quality=80)
    save(photograph, "progressive.jpg", progressive=True)
    save(photograph.convert("L"), "gray.jpg")
    exact = len(paths)
    save(photograph, "photograph.png")
    save(photograph.convert("L"), "gray.png")
    save(photograph.quantize(16), "palette.png")
    save(photograph.convert("1"), "bits.png")
    half = photograph.copy()
    half.putalpha(Image.linear_gradient("L").resize(half.size))
    save(half, "transparent.png")
    for path, found in zip(paths, pixels_of("read", *paths)):
        expected = np.asarray(load_image(path)).astype(int)
        assert found.shape == expected.shape, path.name
        most = {"transparent.png": 1}.get(path.name, 0 if path in paths[exact:] else 2)
        assert np.abs(found - expected).max() <= most, path.name


def test_what_cannot_be_read_is_an_error(pixels_of, photograph, tmp_path):
    for name in ("whole.jpg", "whole.png"):
        photograph.save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"half{name[5:]}").write_bytes(content[: len(content) // 2])
    photograph.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.full((2, 2), 4000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no picture")
    messages = {
        "half.jpg": " cannot be read as a picture (Premature end of JPEG file).",
        "half.png": " cannot be read as a picture (read beyond end of data).",
        "cmyk.jpg": " cannot be read as a picture (Unsupported color conversion request).",
        "deep.png": " cannot be read as a picture (16 bits a value; expected 8).",
        "text.png": " is neither a JPEG nor a PNG file.",
        "missing.jpg": " cannot be read.",
    }
    paths = [tmp_path / name for name in messages]
    assert pixels_of("read", *paths) == [f"{path}{messages[path.name]}" for path in paths]


@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_pictures_are_prepared_as_in_python(pixels_of, tmp_path, preprocess):
    pictures = {}
    for width, height in [(427, 640), (1200, 500), (825, 1122), (3, 2), (300, 300)]:
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / f"{width}.png"
        pictures[path] = Image.fromarray(pixels)
        pictures[path].save(path, compress_level=0)
    for found, image in zip(pixels_of(preprocess, *pictures), pictures.values()):
        difference = np.abs(found.astype(int) - prepare(image, preprocess).numpy())
        assert difference.max() <= 1, image.size
        # Where a sum is a half, but for rounding.
        assert preprocess == "eval" or np.count_nonzero(difference) <= 100, image.size


def run_detector(program, *arguments):
    """What the example prints: the objects' numbers [N, 5], their labels, and the last line."""
    command = [program, "run_detector", *map(str, arguments)]
    *lines, last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    parts = [line.split(" ", 5) for line in lines]
    return np.array([list(map(float, part[:5])) for part in parts]), [part[5] for part in parts], last


def in_python(file, image, preprocess="eval"):
    """Scores, boxes in pixels and class numbers of what a detector finds in a picture."""
    with torch.no_grad():
        boxes, labels, scores, counts = torchscript.load(file)(prepare(image, preprocess)[None])
    count = int(counts)
    edges = to_pixels(boxes[0, :count].numpy(), *image.size, preprocess)
    return scores[0, :count].numpy(), edges, labels[0, :count].tolist()


def test_a_detector_prints_what_python_computes(program, detector_file, photograph, tmp_path):
    """Every object, with its name in the file, in a picture that needs no resizing."""
    image = photograph.crop((50, 100, 350, 400))
    image.save(tmp_path / "square.png")
    found, labels, _ = run_detector(program, detector_file, tmp_path / "square.png", tmp_path / "drawn.png", 0)
    scores, boxes, classes = in_python(detector_file, image)
    names = read_metadata(detector_file).model.labels
    assert len(found) == len(scores) > 3 and labels == [names[number] for number in classes]
    assert np.abs(found[:, 0] - scores).max() < 2e-5
    assert np.abs(found[:, 1:] - boxes).max() < 6e-3  # 2e-5 of 300 pixels


@pytest.mark.parametrize("preprocess", ["eval", "hub"])
def test_boxes_of_a_picture_are_those_of_python(program, photograph, tmp_path, preprocess, request):
    """The best box's edges, mapped back with the very numbers with which the picture was cropped."""
    if preprocess == "hub":
        file = build_once(request.getfixturevalue("hub_module"), "hub.detector.ts", detector=True)
    else:
        file = request.getfixturevalue("detector_file")
    photograph.save(tmp_path / "photograph.png")
    found, _, _ = run_detector(program, file, tmp_path / "photograph.png", tmp_path / "drawn.png", 0.05)
    scores, boxes, _ = in_python(file, photograph, preprocess)
    # A byte may be another one, so that scores differ a little.
    assert abs(len(found) - len(scores)) <= 2 and len(scores) > 2
    close = np.abs(scores - found[0, 0]) < 2e-2
    assert close.any() and np.abs(boxes[close] - found[0, 1:]).max(axis=1).min() < 0.5


class Boxes(torch.nn.Module):
    """A detector that finds two overlapping boxes in every picture: the better one reaches two edges."""

    def forward(self, images: torch.Tensor):
        boxes = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.25, 0.25, 0.75, 0.75]]])
        return boxes, torch.tensor([[2, 1]]), torch.tensor([[0.75, 0.4]]), torch.tensor([2])


NAMES = ["background", 'a "]\\" cat', "Käse und Brot"]


@pytest.fixture
def boxes_file(tmp_path):
    """That detector as a file."""
    with torchscript.quiet():
        torchscript.save(torch.jit.script(Boxes()), tmp_path / "boxes.ts")
    add_metadata(tmp_path / "boxes.ts", typed(metadata_like("detector", labels=NAMES)))
    return tmp_path / "boxes.ts"


def test_boxes_are_drawn_in_the_colors_of_their_classes(program, boxes_file, tmp_path):
    image = Image.new("RGB", (640, 320), "gray")
    image.save(tmp_path / "gray.png")
    found, labels, _ = run_detector(program, boxes_file, tmp_path / "gray.png", tmp_path / "drawn.png")
    assert labels == [NAMES[2], NAMES[1]]
    assert found[:, 1:].tolist() == [[320, 160, 640, 320], [160, 80, 480, 240]]
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((160, 80, 480, 240), outline=color_of(1), width=2)
    canvas.rectangle((320, 160, 639, 319), outline=color_of(2), width=2)
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(image))
    found, _, last = run_detector(program, boxes_file, tmp_path / "gray.png", tmp_path / "drawn.png", 0.75)
    assert len(found) == 1 and last == f"1 object drawn in {tmp_path / 'drawn.png'}"


def test_what_cannot_be_done_is_one_line_and_an_exit_code(program, module, boxes_file, photograph, tmp_path):
    photograph.crop((0, 0, 30, 20)).save(picture := tmp_path / "small.png")
    nowhere = tmp_path / "nowhere" / "drawn.png"
    for arguments, code, message in (
        (
            (boxes_file, picture, "drawn.png", "high"),
            2,
            "usage: run_detector DETECTOR PICTURE DRAWN.png [THRESHOLD]",
        ),
        ((module, picture, nowhere), 1, f"{module} is no detector; expected a file of ssdtrt compile --detector."),
        ((boxes_file, module, nowhere), 1, f"{module} is neither a JPEG nor a PNG file."),
        ((boxes_file, picture, nowhere), 1, f"{nowhere} cannot be written (No such file or directory)."),
    ):
        done = subprocess.run([program, "run_detector", *arguments], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, f"{message}\n")

// Loads a detector that `ssdtrt compile --detector` wrote and detects with libtorch alone:
//
//   run_detector DETECTOR [BATCH | PICTURE.ppm]
//
// prints, for each picture, the number of detections and the best one: label, score, left, top, right, bottom. A picture
// (binary PPM, as `magick street.jpg street.ppm` writes it) is prepared as the file records, and its boxes are in its
// pixels. Without one the pictures are bands of gray, so that the figures can be compared with Python's, and boxes are
// 0..1. Build it as run_module.cpp, with prepare.h beside it; a TensorRT detector also needs -ltorchtrt_runtime, from
// torch_tensorrt/lib, and its pictures on the GPU.

#include <torch/script.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <regex>
#include <stdexcept>
#include <string>

#include "prepare.h"

namespace {

// uint8 [batch, 3, 300, 300]: each picture's rows in bands of its own height.
torch::Tensor bands(int64_t batch) {
  const auto rows = torch::arange(kSize, torch::kInt64).view({1, 1, kSize, 1});
  const auto heights = torch::arange(10, 10 + batch, torch::kInt64).view({batch, 1, 1, 1});
  const auto pixels = (rows.div(heights, "floor") * 53).remainder(256);
  return pixels.to(torch::kUInt8).expand({batch, 3, kSize, kSize}).contiguous();
}

// A binary PPM without comments: uint8 [height, width, 3].
torch::Tensor read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int64_t width = 0, height = 0, most = 0;
  file >> magic >> width >> height >> most;
  file.get();
  if (!file || magic != "P6" || most != 255 || width < 1 || height < 1) {
    throw std::runtime_error(path + " is no binary PPM of 8 bits; expected P6, width, height and 255.");
  }
  auto picture = torch::empty({height, width, 3}, torch::kUInt8);
  file.read(reinterpret_cast<char*>(picture.data_ptr<uint8_t>()), picture.numel());
  if (!file) throw std::runtime_error(path + " ends too early.");
  return picture;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: run_detector DETECTOR [BATCH | PICTURE.ppm]\n");
    return 2;
  }
  try {
    torch::InferenceMode inference;
    torch::jit::ExtraFilesMap record{{"ssdtrt.json", ""}};
    auto detector = torch::jit::load(argv[1], {}, record);
    detector.eval();
    const bool hub = std::regex_search(record["ssdtrt.json"], std::regex(R"("preprocess"\s*:\s*"hub")"));
    const std::string what = argc > 2 ? argv[2] : "1";
    const bool is_picture = what.find_first_not_of("0123456789") != std::string::npos;
    const auto picture = is_picture ? read_ppm(what) : torch::Tensor();
    const auto images = is_picture ? prepare(picture, hub).unsqueeze(0) : bands(std::atoll(what.c_str()));
    const auto found = detector.forward({images}).toTuple();
    const auto labels = found->elements()[1].toTensor(), scores = found->elements()[2].toTensor();
    const auto counts = found->elements()[3].toTensor();
    for (int64_t i = 0; i < counts.size(0); ++i) {
      auto boxes = found->elements()[0].toTensor()[i].to(torch::kFloat64);
      if (is_picture) boxes = to_pixels(boxes, picture.size(1), picture.size(0), hub);
      const auto box = boxes[0];
      std::printf("%lld %lld %.6f %.5f %.5f %.5f %.5f\n", static_cast<long long>(counts[i].item<int64_t>()),
                  static_cast<long long>(labels[i][0].item<int64_t>()), scores[i][0].item<float>(),
                  box[0].item<double>(), box[1].item<double>(), box[2].item<double>(), box[3].item<double>());
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

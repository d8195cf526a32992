// Loads a detector that `ssdtrt compile --detector` wrote and detects with libtorch alone:
//
//   run_detector DETECTOR [BATCH]
//
// prints, for each picture, the number of detections and the best one: label, score, left, top, right, bottom. The pictures
// are bands of gray, so that the figures can be compared with Python's. Build it as run_module.cpp; a TensorRT
// detector also needs -ltorchtrt_runtime, from torch_tensorrt/lib, and its pictures on the GPU.

#include <torch/script.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

namespace {

constexpr int64_t kSize = 300;

// uint8 [batch, 3, 300, 300]: each picture's rows in bands of its own height.
torch::Tensor bands(int64_t batch) {
  const auto rows = torch::arange(kSize, torch::kInt64).view({1, 1, kSize, 1});
  const auto heights = torch::arange(10, 10 + batch, torch::kInt64).view({batch, 1, 1, 1});
  const auto pixels = (rows.div(heights, "floor") * 53).remainder(256);
  return pixels.to(torch::kUInt8).expand({batch, 3, kSize, kSize}).contiguous();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: run_detector DETECTOR [BATCH]\n");
    return 2;
  }
  try {
    torch::InferenceMode inference;
    auto detector = torch::jit::load(argv[1]);
    detector.eval();
    const auto found = detector.forward({bands(argc > 2 ? std::atoll(argv[2]) : 1)}).toTuple();
    const auto boxes = found->elements()[0].toTensor(), labels = found->elements()[1].toTensor();
    const auto scores = found->elements()[2].toTensor(), counts = found->elements()[3].toTensor();
    for (int64_t i = 0; i < counts.size(0); ++i) {
      const auto box = boxes[i][0];
      std::printf("%lld %lld %.6f %.5f %.5f %.5f %.5f\n", static_cast<long long>(counts[i].item<int64_t>()),
                  static_cast<long long>(labels[i][0].item<int64_t>()), scores[i][0].item<float>(),
                  box[0].item<float>(), box[1].item<float>(), box[2].item<float>(), box[3].item<float>());
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

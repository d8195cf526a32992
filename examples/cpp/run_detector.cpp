// Loads a detector that `ssdtrt compile --detector` wrote, detects in a picture with libtorch alone and draws the boxes:
//
//   run_detector DETECTOR PICTURE DRAWN.png [THRESHOLD]
//
// prints a line for each object, the best first: score, left, top, right, bottom, label. The picture is a JPEG or a PNG;
// it is prepared as the detector's file records, and boxes are in its pixels. CMakeLists.txt beside it says how to build
// it. A TensorRT detector also needs Torch-TensorRT's runtime, before it is loaded: LD_PRELOAD=libtorchtrt_runtime.so.

#include <torch/script.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

#include "picture.h"
#include "prepare.h"

namespace {

constexpr double kThreshold = 0.4;

// The class names in a file's record, the background first.
std::vector<std::string> labels_in(const std::string& record) {
  std::vector<std::string> labels;
  std::smatch start;
  if (!std::regex_search(record, start, std::regex(R"("labels"\s*:\s*\[)"))) return labels;
  const std::regex name_or_end(R"re("((?:[^"\\]|\\.)*)"|\])re");
  for (std::sregex_iterator next(start[0].second, record.end(), name_or_end); (*next)[0] != "]"; ++next) {
    labels.push_back(std::regex_replace((*next)[1].str(), std::regex(R"(\\(["\\]))"), "$1"));
  }
  return labels;
}

void run(const char* file, const char* source, const char* drawn, double threshold) {
  torch::InferenceMode inference;
  torch::jit::ExtraFilesMap extra{{"ssdtrt.json", ""}};
  auto detector = torch::jit::load(file, {}, extra);
  detector.eval();
  const auto& record = extra["ssdtrt.json"];
  if (!std::regex_search(record, std::regex(R"("kind"\s*:\s*"detector")"))) {
    throw std::runtime_error(std::string(file) + " is no detector; expected a file of ssdtrt compile --detector.");
  }
  const auto labels = labels_in(record);
  const bool hub = std::regex_search(record, std::regex(R"("preprocess"\s*:\s*"hub")"));
  const bool on_gpu = std::regex_search(record, std::regex(R"("backend"\s*:\s*"tensorrt")"));

  const auto picture = read_picture(source);
  const auto images = prepare(picture, hub).unsqueeze(0).to(on_gpu ? torch::kCUDA : torch::kCPU);
  const auto found = detector.forward({images}).toTuple();
  const auto output = [&found](int i) { return found->elements()[i].toTensor()[0].cpu(); };
  const auto boxes = to_pixels(output(0), picture.size(1), picture.size(0), hub);
  const auto ids = output(1), scores = output(2);
  int64_t count = 0;
  while (count < output(3).item<int64_t>() && scores[count].item<double>() >= threshold) ++count;

  for (int64_t i = 0; i < count; ++i) {
    const auto id = ids[i].item<int64_t>();
    const auto edge = [&boxes, i](int64_t k) { return boxes[i][k].item<double>(); };
    std::printf("%.6f %.3f %.3f %.3f %.3f %s\n", scores[i].item<double>(), edge(0), edge(1), edge(2), edge(3),
                labels.at(id).c_str());
  }
  for (int64_t i = count - 1; i >= 0; --i) draw_box(picture, boxes[i], ids[i].item<int64_t>());  // The best on top.
  write_png(picture, drawn);
  std::printf("%lld object%s drawn in %s\n", static_cast<long long>(count), count == 1 ? "" : "s", drawn);
}

}  // namespace

int main(int argc, char** argv) {
  char* end = nullptr;
  const double threshold = argc == 5 ? std::strtod(argv[4], &end) : kThreshold;
  if (argc < 4 || argc > 5 || (end && (*end != '\0' || end == argv[4]))) {
    std::fprintf(stderr, "usage: run_detector DETECTOR PICTURE DRAWN.png [THRESHOLD]\n");
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3], threshold);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

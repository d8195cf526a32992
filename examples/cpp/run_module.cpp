// Loads a module that `ssdtrt export` wrote and runs it with libtorch alone:
//
//   run_module MODULE [BATCH]
//
// prints the shape, the sum and the sum of absolute values of each output. The input is an even ramp, so that the
// figures can be compared with Python's. CMakeLists.txt beside it says how to build it. A TensorRT engine also needs
// Torch-TensorRT's runtime, before it is loaded: LD_PRELOAD=libtorchtrt_runtime.so.

#include <torch/script.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

namespace {

constexpr int64_t kSize = 300;

// [batch, 3, 300, 300], from -1 to 1.
torch::Tensor ramp(int64_t batch) {
  const int64_t count = batch * 3 * kSize * kSize;
  return torch::arange(count, torch::kFloat64).mul(2.0 / static_cast<double>(count - 1)).sub(1.0).to(torch::kFloat32)
      .reshape({batch, 3, kSize, kSize});
}

void show(const char* name, const torch::Tensor& output) {
  const auto values = output.to(torch::kFloat64);
  std::printf("%s %lld %lld %lld %.9e %.9e\n", name, static_cast<long long>(output.size(0)),
              static_cast<long long>(output.size(1)), static_cast<long long>(output.size(2)),
              values.sum().item<double>(), values.abs().sum().item<double>());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: run_module MODULE [BATCH]\n");
    return 2;
  }
  try {
    torch::InferenceMode inference;
    auto module = torch::jit::load(argv[1]);
    module.eval();
    const auto outputs = module.forward({ramp(argc > 2 ? std::atoll(argv[2]) : 1)}).toTuple();
    show("loc", outputs->elements()[0].toTensor());
    show("conf", outputs->elements()[1].toTensor());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

// A picture to a detector's input, and its boxes back to the picture's pixels, as ssdtrt/images/preprocess.py does both.

#pragma once

#include <torch/script.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

constexpr int64_t kSize = 300;

// How one side of a picture is prepared: its length, the length that it is scaled to, and the first of the 300 pixels
// that the network sees.
struct Side {
  int64_t length, scaled, first;
};

// The width and the height. For `hub` the steps are those of NVIDIA's utilities, because they round; otherwise (`eval`)
// the network sees the whole picture.
inline std::array<Side, 2> sides(int64_t width, int64_t height, bool hub) {
  const double aspect = static_cast<double>(width) / static_cast<double>(height);
  const int64_t wide = hub && aspect > 1 ? static_cast<int64_t>(aspect * kSize) : kSize;
  const int64_t high = hub && aspect < 1 ? static_cast<int64_t>(kSize / aspect) : kSize;
  return {Side{width, wide, wide / 2 - kSize / 2}, Side{height, high, high / 2 - kSize / 2}};
}

// The place of a pixel beyond the edges, where the picture is mirrored and its last pixel not repeated.
inline int64_t mirrored(int64_t place, int64_t length) {
  const int64_t period = std::max<int64_t>(2 * length - 2, 1);
  const int64_t folded = (place % period + period) % period;
  return std::min(folded, 2 * (length - 1) - folded);
}

// `hub`'s matrix of a side, float64 [300, length]: scikit-image's `resize`, which blurs where the side shrinks and then
// interpolates linearly.
inline torch::Tensor weights(const Side& side) {
  const double factor = static_cast<double>(side.length) / static_cast<double>(side.scaled);
  const double sigma = std::max(factor - 1, 0.0) / 2;
  const auto radius = static_cast<int64_t>(4 * sigma + 0.5);
  std::vector<double> blur;
  double sum = 0;
  for (int64_t i = -radius; i <= radius; ++i) {
    blur.push_back(radius > 0 ? std::exp(-0.5 * static_cast<double>(i * i) / (sigma * sigma)) : 1);
    sum += blur.back();
  }
  auto matrix = torch::zeros({kSize, side.length}, torch::kFloat64);
  auto at = matrix.accessor<double, 2>();
  for (int64_t row = 0; row < kSize; ++row) {
    const double center = (static_cast<double>(side.first + row) + 0.5) * factor - 0.5;
    const auto before = static_cast<int64_t>(std::floor(center));
    const double share = center - static_cast<double>(before);  // of the pixel behind the center
    for (int64_t i = -radius; i <= radius; ++i) {
      const double weight = blur[i + radius] / sum;
      at[row][mirrored(before + i, side.length)] += (1 - share) * weight;
      at[row][mirrored(before + i + 1, side.length)] += share * weight;
    }
  }
  return matrix;
}

// An RGB picture, uint8 [height, width, 3] on the CPU, to uint8 [3, 300, 300].
inline torch::Tensor prepare(const torch::Tensor& picture, bool hub) {
  const auto planes = picture.permute({2, 0, 1}).to(torch::kFloat64);
  torch::Tensor resized;
  if (hub) {
    const auto [wide, high] = sides(picture.size(1), picture.size(0), hub);
    resized = torch::matmul(torch::matmul(weights(high), planes), weights(wide).t());
  } else {
    const auto one = planes.unsqueeze(0);  // Pillow's bilinear filter, but for its rounding between the two sides.
    resized = at::_upsample_bilinear2d_aa(one, {kSize, kSize}, /*align_corners=*/false).squeeze(0);
  }
  return (resized + 0.5).clamp(0, 255).to(torch::kUInt8);
}

// Boxes [K, 4] as fractions of the prepared picture to (left, top, right, bottom) in the picture's pixels.
inline torch::Tensor to_pixels(const torch::Tensor& boxes, int64_t width, int64_t height, bool hub) {
  auto pixels = boxes.to(torch::kFloat64).clone();
  const auto both = sides(width, height, hub);
  for (int64_t edge = 0; edge < 4; ++edge) {
    const auto& side = both[edge % 2];
    const double scale = static_cast<double>(side.length) / static_cast<double>(side.scaled);
    auto column = pixels.select(1, edge);
    column.mul_(kSize).add_(side.first).mul_(scale).clamp_(0, side.length);
  }
  return pixels;
}

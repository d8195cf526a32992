// JPEG and PNG files to tensors, boxes drawn on them, and PNG files of them.

#pragma once

#include <torch/script.h>

// <jpeglib.h> needs <cstdio> before it.
#include <cstdio>

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

using Bytes = std::string;

// libjpeg's error handler has to leave it. The exception passes through its C code, which Linux compilers allow.
[[noreturn]] inline void fail_jpeg(j_common_ptr jpeg) {
  char text[JMSG_LENGTH_MAX];
  jpeg->err->format_message(jpeg, text);
  throw std::runtime_error(text);
}

struct Jpeg : jpeg_decompress_struct {
  jpeg_error_mgr errors;

  Jpeg() {
    err = jpeg_std_error(&errors);
    errors.error_exit = fail_jpeg;
    errors.emit_message = [](j_common_ptr jpeg, int level) {
      if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) fail_jpeg(jpeg);  // The rest would be gray.
    };
    jpeg_create_decompress(this);
  }
  ~Jpeg() { jpeg_destroy_decompress(this); }
  Jpeg(const Jpeg&) = delete;
  Jpeg& operator=(const Jpeg&) = delete;
};

// The EXIF orientation, 1 to 8, that an APP1 segment holds; 1 if it holds none.
inline int orientation_of(const uint8_t* data, size_t size) {
  constexpr size_t kHeader = 6, kEntry = 12;  // "Exif\0\0"; an entry of a TIFF's directory
  if (size < kHeader + 8 || std::memcmp(data, "Exif\0\0", kHeader) != 0) return 1;
  const uint8_t* tiff = data + kHeader;
  const size_t end = size - kHeader;
  const bool big = tiff[0] == 'M';
  const auto number = [&](size_t place, int bytes) {
    size_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | tiff[place + (big ? i : bytes - 1 - i)];
    return value;
  };
  size_t place = number(4, 4);
  if (place + 2 > end) return 1;
  size_t entries = number(place, 2);
  for (place += 2; entries > 0 && place + kEntry <= end; --entries, place += kEntry) {
    if (number(place, 2) != 0x0112) continue;
    const size_t value = number(place + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

// A picture as it was taken, [height, width, 3], from its stored form.
inline torch::Tensor upright(torch::Tensor picture, int orientation) {
  if (orientation >= 5) picture = picture.transpose(0, 1);
  const int flips = (orientation - 1) % 4;  // none, left to right, both, top to bottom
  if (flips >= 2) picture = picture.flip(0);
  if (flips == 1 || flips == 2) picture = picture.flip(1);
  return picture.contiguous();
}

inline torch::Tensor read_jpeg(const Bytes& bytes) {
  Jpeg jpeg;
  jpeg_mem_src(&jpeg, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(&jpeg, TRUE);
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  auto picture = torch::empty({jpeg.output_height, jpeg.output_width, 3}, torch::kUInt8);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = picture.data_ptr<uint8_t>() + int64_t{jpeg.output_scanline} * jpeg.output_width * 3;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  int orientation = 1;  // before the end, which frees the markers
  for (auto marker = jpeg.marker_list; marker && orientation == 1; marker = marker->next) {
    orientation = orientation_of(marker->data, marker->data_length);
  }
  jpeg_finish_decompress(&jpeg);
  return upright(picture, orientation);
}

// libpng's simplified interface: whatever the file holds as RGBA, of which transparency is composed on white here.
inline torch::Tensor read_png(const Bytes& bytes) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size())) throw std::runtime_error(png.message);
  if (png.format & PNG_FORMAT_FLAG_LINEAR) {
    png_image_free(&png);
    throw std::runtime_error("16 bits a value; expected 8");
  }
  png.format = PNG_FORMAT_RGBA;
  auto rgba = torch::empty({png.height, png.width, 4}, torch::kUInt8);
  if (!png_image_finish_read(&png, nullptr, rgba.data_ptr<uint8_t>(), 0, nullptr)) {
    throw std::runtime_error(png.message);
  }
  const auto opacity = rgba.slice(2, 3).to(torch::kFloat32) / 255;
  return (rgba.slice(2, 0, 3) * opacity + 255 * (1 - opacity)).round().to(torch::kUInt8);
}

// A JPEG or PNG file as RGB, uint8 [height, width, 3], a JPEG turned by its EXIF orientation.
inline torch::Tensor read_picture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const Bytes bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) throw std::runtime_error(path + " cannot be read.");
  try {
    if (bytes.starts_with("\xff\xd8")) return read_jpeg(bytes);
    if (bytes.starts_with("\x89PNG")) return read_png(bytes);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path + " cannot be read as a picture (" + error.what() + ").");
  }
  throw std::runtime_error(path + " is neither a JPEG nor a PNG file.");
}

inline void write_png(const torch::Tensor& picture, const std::string& path) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.height = static_cast<uint32_t>(picture.size(0));
  png.width = static_cast<uint32_t>(picture.size(1));
  png.format = PNG_FORMAT_RGB;
  const auto pixels = picture.contiguous();
  if (!png_image_write_to_file(&png, path.c_str(), 0, pixels.data_ptr<uint8_t>(), 0, nullptr)) {
    throw std::runtime_error(path + " cannot be written (" + png.message + ").");
  }
}

// The color of a class, RGB, as `ssdtrt detect` has it: successive classes have hues far apart.
inline torch::Tensor color_of(int64_t label) {
  const double turns = std::fmod(static_cast<double>(label) * 0.381966, 1.0);
  const auto channel = [turns](double shift) {
    const double ramp = std::abs(std::fmod(turns * 6 + shift, 6.0) - 3) - 1;
    return static_cast<uint8_t>(std::lround(255 * 0.95 * (1 - 0.85 * (1 - std::clamp(ramp, 0.0, 1.0)))));
  };
  return torch::tensor({channel(0), channel(4), channel(2)}, torch::kUInt8);
}

// Draws the outline of a box (left, top, right, bottom) in pixels on a picture.
inline void draw_box(const torch::Tensor& picture, const torch::Tensor& box, int64_t label) {
  const int64_t height = picture.size(0), width = picture.size(1);
  const int64_t thickness = std::max(1L, std::lrint(static_cast<double>(std::min(height, width)) / 160));
  const auto edge = [&box](int64_t i) { return std::lround(box[i].item<double>()); };
  const auto inside = picture.slice(0, edge(1), edge(3) + 1).slice(1, edge(0), edge(2) + 1);
  for (const int64_t axis : {0, 1}) {
    inside.slice(axis, 0, thickness).copy_(color_of(label));
    inside.slice(axis, -thickness).copy_(color_of(label));
  }
}

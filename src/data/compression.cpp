// SPDX-License-Identifier: Apache-2.0
#include "compression.h"

#include <algorithm>
#include <memory>
#include <vector>

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kCompressionWhere[] = "data.compression";
constexpr uint64_t kInputBytes = 256 << 10;
constexpr size_t kOutputBytes = 1 << 20;
constexpr int kMaxWindowLog = 27;  // 128 MiB, what `zstd --ultra` needs; --long=31 is refused

/// The compressed bytes in order, and where they are.
class Input {
 public:
  explicit Input(const DataFile& file) : file_(file) {}
  /// The bytes not taken yet; empty at the end of the file.
  std::string_view peek() {
    if (at_ == buffer_.size() && next_ < file_.size()) {
      buffer_.resize(std::min(kInputBytes, file_.size() - next_));
      file_.read_into(next_, buffer_.data(), buffer_.size());
      next_ += buffer_.size();
      at_ = 0;
    }
    return std::string_view(buffer_).substr(at_);
  }
  void take(size_t count) { at_ += count; }
  uint64_t offset() const { return next_ - (buffer_.size() - at_); }

 private:
  const DataFile& file_;
  std::string buffer_;
  size_t at_ = 0;
  uint64_t next_ = 0;
};

/// Counts what comes out.
class Output {
 public:
  Output(const DataFile& file,
         uint64_t max_bytes,
         const std::function<void(std::string_view)>& sink)
      : file_(file), max_bytes_(max_bytes), sink_(sink) {}
  void give(std::string_view text) {
    total_ += text.size();
    if (total_ > max_bytes_) {
      throw Error(ErrorKind::Data,
                  {.where = kCompressionWhere,
                   .what = file_.path() + ": the compressed file grows too large",
                   .got = fmt::format("more than {} bytes from {}", max_bytes_, file_.size()),
                   .allowed = "data.max_expansion times its size",
                   .hint = "a larger data.max_expansion if the file is trusted"});
    }
    if (!text.empty()) {
      sink_(text);
    }
  }
  uint64_t total() const { return total_; }

 private:
  const DataFile& file_;
  uint64_t max_bytes_;
  const std::function<void(std::string_view)>& sink_;
  uint64_t total_ = 0;
};

[[noreturn]] void damaged(const DataFile& file, const Input& input, const std::string& reason) {
  throw Error(ErrorKind::Data,
              {.where = kCompressionWhere,
               .what = fmt::format(
                   "{}: the compressed data is damaged at byte {}", file.path(), input.offset()),
               .got = reason,
               .hint = "fetch or compress the file again"});
}

[[noreturn]] void cut(const DataFile& file, const Output& output) {
  throw Error(
      ErrorKind::Data,
      {.where = kCompressionWhere,
       .what = fmt::format(
           "{}: the compressed data ends in the middle, at byte {}", file.path(), file.size()),
       .got = fmt::format("{} bytes of text before that", output.total()),
       .hint = "the file was cut: fetch or compress it again"});
}

struct Inflater {
  z_stream stream = {};
  Inflater() {
    if (inflateInit2(&stream, MAX_WBITS + 16) != Z_OK) {
      throw std::bad_alloc();
    }
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

bool only_zeros(Input& input) {
  for (std::string_view rest = input.peek(); !rest.empty(); rest = input.peek()) {
    if (rest.find_first_not_of('\0') != std::string_view::npos) {
      return false;
    }
    input.take(rest.size());
  }
  return true;
}

/// RFC 1952: members one after the other; tapes pad the last with zeros.
void inflate_all(const DataFile& file, Input& input, Output& output) {
  Inflater inflater;
  z_stream& stream = inflater.stream;
  std::vector<char> buffer(kOutputBytes);
  bool inside = true;
  while (true) {
    const std::string_view bytes = input.peek();
    if (!inside) {
      if (bytes.empty() || (bytes.front() == '\0' && only_zeros(input))) {
        return;
      }
      inflateReset(&stream);
      inside = true;
    }
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream.avail_in = static_cast<uInt>(bytes.size());
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    const int code = inflate(&stream, Z_NO_FLUSH);
    input.take(bytes.size() - stream.avail_in);
    const size_t made = buffer.size() - stream.avail_out;
    output.give({buffer.data(), made});
    if (code == Z_STREAM_END) {
      inside = false;
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      damaged(file, input, stream.msg != nullptr ? stream.msg : "not a gzip stream");
    } else if (bytes.empty() && made == 0) {
      cut(file, output);
    }
  }
}

void unzstd_all(const DataFile& file, Input& input, Output& output) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   &ZSTD_freeDCtx);
  if (context == nullptr) {
    throw std::bad_alloc();
  }
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
  std::vector<char> buffer(kOutputBytes);
  size_t left = 0;  // 0: between frames
  bool flushed = true;
  while (true) {
    const std::string_view bytes = input.peek();
    if (bytes.empty() && (left == 0 || flushed)) {
      break;
    }
    ZSTD_inBuffer in = {bytes.data(), bytes.size(), 0};
    ZSTD_outBuffer out = {buffer.data(), buffer.size(), 0};
    left = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(left) != 0) {
      damaged(file, input, ZSTD_getErrorName(left));
    }
    input.take(in.pos);
    output.give({buffer.data(), out.pos});
    flushed = out.pos < out.size;  // a full buffer: the decoder may hold more
    if (bytes.empty() && out.pos == 0) {
      break;
    }
  }
  if (left != 0) {
    cut(file, output);
  }
}

}  // namespace

std::string without_compression_suffix(const std::string& path) {
  for (const std::string_view suffix : {".gz", ".zst"}) {
    if (path.ends_with(suffix)) {
      return path.substr(0, path.size() - suffix.size());
    }
  }
  return path;
}

Compression detect_compression(const DataFile& file) {
  const std::string head = file.read(0, std::min<uint64_t>(file.size(), 4));
  const bool gzip = head.starts_with("\x1F\x8B");
  // A frame, or a frame to be skipped (RFC 8878).
  const bool skippable =
      head.size() == 4 && (head[0] & 0xF0) == 0x50 && head.ends_with("\x2A\x4D\x18");
  const bool zstd = head == "\x28\xB5\x2F\xFD" || skippable;
  const bool gzip_name = file.path().ends_with(".gz");
  const bool zstd_name = file.path().ends_with(".zst");
  if ((gzip_name && !gzip) || (zstd_name && !zstd)) {
    throw Error(ErrorKind::Data,
                {.where = kCompressionWhere,
                 .what = file.path() + ": the file is not what its name says",
                 .allowed = gzip_name ? "a gzip stream" : "a zstd stream",
                 .hint = "the file may be cut, a web page instead of data, or wrongly named"});
  }
  return gzip ? Compression::Gzip : zstd ? Compression::Zstd : Compression::None;
}

void decompress(const DataFile& file,
                Compression compression,
                uint64_t max_bytes,
                const std::function<void(std::string_view)>& sink) {
  Input input(file);
  Output output(file, max_bytes, sink);
  if (compression == Compression::Gzip) {
    inflate_all(file, input, output);
  } else {
    unzstd_all(file, input, output);
  }
}

}  // namespace kamerton::data

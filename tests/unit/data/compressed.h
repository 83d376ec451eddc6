// SPDX-License-Identifier: Apache-2.0
// gzip and zstd streams for tests.
#pragma once

#include <memory>
#include <string>

#include <zlib.h>
#include <zstd.h>

namespace kamerton::data {

inline std::string gzip(const std::string& text) {
  z_stream stream = {};
  deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

inline std::string zstd_frame(const std::string& text, bool checksum) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(),
                                                                   &ZSTD_freeCCtx);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, checksum ? 1 : 0);
  out.resize(ZSTD_compress2(context.get(), out.data(), out.size(), text.data(), text.size()));
  return out;
}

inline std::string zstd(const std::string& text) {
  return zstd_frame(text, true);
}
/// Damage inside shows in the text, not at the end of the frame.
inline std::string zstd_unchecked(const std::string& text) {
  return zstd_frame(text, false);
}

}  // namespace kamerton::data

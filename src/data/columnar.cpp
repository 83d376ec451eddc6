// SPDX-License-Identifier: Apache-2.0
#include "columnar.h"

#include <algorithm>
#include <array>
#include <exception>
#include <filesystem>

#include <dlfcn.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"

#include "columnar_plugin.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kColumnarWhere[] = "data.columnar";
constexpr char kLibrary[] = "libkamerton_arrow.so";
constexpr char kHowToGet[] =
    "launch/setup --arrow, then build again; or write the data as JSONL, for example with "
    "datasets' to_json";
/// What the library may hold: a file's size times this, and always the base.
constexpr uint64_t kMemoryFactor = 16;
constexpr uint64_t kMemoryBase = uint64_t{512} << 20;

using Convert = int32_t (*)(const KamertonColumnarRequest*);

[[noreturn]] void unusable(const std::string& what, const std::string& got) {
  throw Error(ErrorKind::Config,
              {.where = kColumnarWhere, .what = what, .got = got, .hint = kHowToGet});
}

/// Beside the program, above its folder (tests), or in lib/ beside its folder.
std::filesystem::path find_library() {
  std::error_code error;
  const std::filesystem::path folder =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const auto& place : {folder / kLibrary,
                            folder.parent_path() / kLibrary,
                            folder.parent_path() / "lib" / kLibrary}) {
    if (std::filesystem::exists(place, error)) {
      return place;
    }
  }
  return {};
}

/// Loaded once and never closed: Arrow keeps threads and allocators.
Convert load(const std::string& path) {
  const std::filesystem::path place = find_library();
  if (place.empty()) {
    unusable(path + ": Parquet and Arrow files need a part of the program that was not built",
             std::string(kLibrary) + " is not beside the program");
  }
  void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    unusable(path + ": the part of the program for Parquet and Arrow files does not load",
             dlerror());
  }
  const auto version = reinterpret_cast<int32_t (*)()>(dlsym(library, "kamerton_arrow_version"));
  const auto convert = reinterpret_cast<Convert>(dlsym(library, "kamerton_arrow_convert"));
  if (version == nullptr || convert == nullptr || version() != kColumnarPluginVersion) {
    unusable(path + ": the part of the program for Parquet and Arrow files is of another version",
             place.string());
  }
  return convert;
}

/// The sink on this side of the border; exceptions wait here until the library has returned.
struct Writer {
  const DataFile& file;
  uint64_t max_bytes;
  const std::function<void(std::string_view)>& sink;
  uint64_t total = 0;
  std::exception_ptr failure = nullptr;

  void take(std::string_view text) {
    total += text.size();
    if (total > max_bytes) {
      throw Error(ErrorKind::Data,
                  {.where = kColumnarWhere,
                   .what = file.path() + ": the file's rows grow too large",
                   .got = fmt::format("more than {} bytes from {}", max_bytes, file.size()),
                   .allowed = "data.max_expansion times its size",
                   .hint = "a larger data.max_expansion if the file is trusted"});
    }
    sink(text);
  }

  static int32_t write(void* context, const char* bytes, uint64_t size) {
    auto* writer = static_cast<Writer*>(context);
    try {
      writer->take({bytes, size});
      return 0;
    } catch (...) {
      writer->failure = std::current_exception();
      return 1;
    }
  }
};

}  // namespace

ColumnarForm detect_columnar(const DataFile& file, const std::string& format) {
  const std::string head = file.read(0, std::min<uint64_t>(file.size(), 8));
  const bool arrow_name = file.path().ends_with(".arrow") || file.path().ends_with(".feather");
  const bool parquet_name = file.path().ends_with(".parquet");
  if (head.starts_with("PAR1") && (format == "auto" || format == "parquet")) {
    return ColumnarForm::Parquet;
  }
  if (head.starts_with("ARROW1") && (format == "auto" || format == "arrow")) {
    return ColumnarForm::ArrowFile;
  }
  // A stream starts with a continuation marker; only a name or data.format makes that certain.
  if (head.starts_with("\xFF\xFF\xFF\xFF") && (format == "arrow" || arrow_name)) {
    return ColumnarForm::ArrowStream;
  }
  if (format == "parquet" || format == "arrow" ||
      (format == "auto" && (arrow_name || parquet_name))) {
    throw Error(
        ErrorKind::Data,
        {.where = kColumnarWhere,
         .what = file.path() + ": the file is not what its name or data.format says",
         .got = head.starts_with("FEA1") ? "Feather of the first version" : "",
         .allowed = format == "parquet" || parquet_name ? "a Parquet file"
                                                        : "an Arrow IPC file or stream (Feather 2)",
         .hint = "the file may be cut, or wrongly named"});
  }
  return ColumnarForm::None;
}

void convert_columnar(const DataFile& file,
                      ColumnarForm form,
                      const std::vector<std::string>& columns,
                      uint64_t max_bytes,
                      const std::function<void(std::string_view)>& sink) {
  static const Convert convert = load(file.path());
  Writer writer{file, max_bytes, sink};
  std::vector<const char*> names;
  std::transform(columns.begin(), columns.end(), std::back_inserter(names), [](const auto& name) {
    return name.c_str();
  });
  std::array<char, 1024> message = {};
  const KamertonColumnarRequest request = {.path = file.path().c_str(),
                                           .form = form == ColumnarForm::Parquet ? kKamertonParquet
                                                   : form == ColumnarForm::ArrowFile
                                                       ? kKamertonArrowFile
                                                       : kKamertonArrowStream,
                                           .columns = names.data(),
                                           .column_count = names.size(),
                                           .max_memory = kMemoryBase + kMemoryFactor * file.size(),
                                           .context = &writer,
                                           .write = &Writer::write,
                                           .message = message.data(),
                                           .message_size = message.size()};
  const int32_t result = convert(&request);
  if (writer.failure) {
    std::rethrow_exception(writer.failure);
  }
  if (result != kKamertonDone) {
    throw Error(ErrorKind::Data,
                {.where = kColumnarWhere,
                 .what = file.path() + ": the file cannot be read: " + message.data(),
                 .hint = "the file may be cut or damaged: fetch or write it again"});
  }
}

}  // namespace kamerton::data

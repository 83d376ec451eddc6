// SPDX-License-Identifier: Apache-2.0
#include "payload/manifest.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"

namespace kamerton::checkpoint {
namespace {

constexpr char kWhere[] = "checkpoint.manifest";
constexpr char kFormatName[] = "kamerton-checkpoint";
constexpr size_t kMaxBytes = size_t{4} << 30;

[[noreturn]] void bad(core::ErrorKind kind,
                      const std::string& what,
                      const std::string& got,
                      const std::string& allowed) {
  throw core::Error(kind,
                    {.where = kWhere, .what = what, .got = got, .allowed = allowed, .hint = ""});
}

std::string quoted(const std::string& text) {
  return core::Json(text).dump();
}

std::string numbers(const std::vector<int64_t>& values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) {
    text += (i > 0 ? "," : "") + std::to_string(values[i]);
  }
  return text + "]";
}

std::string file_text(const FileRecord& file) {
  return "{\"name\":" + quoted(file.name) + ",\"size\":" + std::to_string(file.size) +
         ",\"digest\":" + quoted(file.digest) + "}";
}

/// Text is put together by hand: a checkpoint of many ranks has millions of pieces, each a JSON
/// value otherwise.
std::string tensor_text(const TensorRecord& tensor) {
  std::string text = "{\"name\":" + quoted(tensor.name) + ",\"dtype\":\"" +
                     std::string(name_of(tensor.dtype)) + "\",\"shape\":" + numbers(tensor.shape) +
                     ",\"slices\":[";
  for (size_t i = 0; i < tensor.pieces.size(); ++i) {
    const auto& piece = tensor.pieces[i];
    text += i > 0 ? "," : "";
    text += numbers({piece.file, piece.offset, piece.length});
  }
  return text + "]}";
}

std::vector<int64_t> integers(const core::Json& list,
                              const std::string& what,
                              const std::string& origin) {
  std::vector<int64_t> values;
  for (const auto& item : list) {
    if (!item.is_number_integer() ||
        (item.is_number_unsigned() && item.get<uint64_t>() > INT64_MAX) ||
        item.get<int64_t>() < 0) {
      bad(core::ErrorKind::Data,
          "'" + origin + "': " + what + " is not a list of non-negative integers",
          item.dump().substr(0, 50),
          "");
    }
    values.push_back(item.get<int64_t>());
  }
  return values;
}

const core::Json& list_of(const core::Json& object, const char* key, const std::string& origin) {
  const auto* found = object.is_object() ? core::json_find(object, key) : nullptr;
  if (found == nullptr || !found->is_array()) {
    bad(core::ErrorKind::Data, "'" + origin + "' has no list '" + key + "'", "", "");
  }
  return *found;
}

FileRecord parse_file(const core::Json& json, const std::string& origin) {
  FileRecord file;
  file.name = core::json_string(json, "name", origin);
  const int64_t size = core::json_int(json, "size", origin);
  file.digest = core::json_string(json, "digest", origin);
  const bool plain = !file.name.empty() && file.name.find('/') == std::string::npos &&
                     file.name != "." && file.name != "..";
  if (!plain || size < 0 || file.digest.size() != 2 * sizeof(storage::Digest)) {
    bad(core::ErrorKind::Data,
        "'" + origin + "' has a file record that cannot be",
        "'" + file.name + "'",
        "a plain name, a size, a digest of 64 digits");
  }
  file.size = static_cast<uint64_t>(size);
  return file;
}

TensorRecord parse_tensor(const core::Json& json, const std::string& origin) {
  TensorRecord tensor;
  tensor.name = core::json_string(json, "name", origin);
  const auto dtype = storage::dtype_from_name(core::json_string(json, "dtype", origin));
  tensor.shape =
      integers(list_of(json, "shape", origin), "the shape of '" + tensor.name + "'", origin);
  if (!dtype || !storage::checked_num_elements(tensor.shape)) {
    bad(core::ErrorKind::Data,
        "'" + origin + "': tensor '" + tensor.name + "' has a dtype or shape that cannot be",
        "",
        "");
  }
  tensor.dtype = *dtype;
  for (const auto& item : list_of(json, "slices", origin)) {
    const auto values = item.is_array() ? integers(item, "a slice of '" + tensor.name + "'", origin)
                                        : std::vector<int64_t>();
    if (values.size() != 3 || values[0] > INT32_MAX) {
      bad(core::ErrorKind::Data,
          "'" + origin + "': a slice of '" + tensor.name + "' is not [file, offset, length]",
          item.dump().substr(0, 50),
          "");
    }
    tensor.pieces.push_back({static_cast<int>(values[0]), values[1], values[2], 0});
  }
  return tensor;
}

/// Orders the pieces, finds where each lies in its file's dataset, and checks that they are the
/// tensor, once.
void settle(TensorRecord& tensor, size_t num_files, core::ErrorKind kind) {
  auto& pieces = tensor.pieces;
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.offset < b.offset;
  });
  std::unordered_map<int, int64_t> used;
  int64_t end = 0;
  for (auto& piece : pieces) {
    if (piece.offset != end || piece.length <= 0 || piece.length > tensor.num_elements() - end ||
        static_cast<size_t>(piece.file) >= num_files) {
      bad(kind,
          "the slices of tensor '" + tensor.name + "' leave elements out or give them twice",
          "a slice at " + std::to_string(piece.offset) + " of " + std::to_string(piece.length),
          "the next at " + std::to_string(end));
    }
    end += piece.length;
    piece.at = used[piece.file];
    used[piece.file] += piece.length;
  }
  if (end != tensor.num_elements() || end == 0) {
    bad(kind,
        "tensor '" + tensor.name + "' is not complete",
        std::to_string(end) + " elements",
        std::to_string(tensor.num_elements()) + ", at least 1");
  }
}

std::string preamble(const std::string& body) {
  return std::string("{\"format\":\"") + kFormatName +
         "\",\"version\":" + std::to_string(kFormatVersion) + ",\"digest\":\"" +
         storage::tagged(storage::digest_of(body)) + "\",\"body\":";
}

/// The body, whose digest matched.
std::string_view checked_body(std::string_view text, const std::string& origin) {
  const std::string mark = std::string("{\"format\":\"") + kFormatName + "\",\"version\":";
  if (!text.starts_with(mark)) {
    bad(core::ErrorKind::Data,
        "'" + origin + "' is not the manifest of a checkpoint",
        "'" + std::string(text.substr(0, 40)) + "'",
        "'" + mark + "...'");
  }
  const auto version = text.substr(mark.size(), text.find(',', mark.size()) - mark.size());
  if (version != std::to_string(kFormatVersion)) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = kWhere,
                       .what = "'" + origin + "' was written by another version of the program",
                       .got = "format version " + std::string(version.substr(0, 10)),
                       .allowed = std::to_string(kFormatVersion),
                       .hint = "the version that wrote it"});
  }
  const size_t begin = preamble("").size();
  const std::string_view tail = "}\n";
  const bool framed = text.size() >= begin + tail.size() && text.ends_with(tail);
  const auto body =
      framed ? text.substr(begin, text.size() - begin - tail.size()) : std::string_view();
  if (!framed || preamble(std::string(body)) != text.substr(0, begin)) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = kWhere,
                       .what = "'" + origin + "' is damaged: its digest does not fit",
                       .got = std::to_string(text.size()) + " bytes",
                       .allowed = "",
                       .hint = "an earlier checkpoint"});
  }
  return body;
}

}  // namespace

int64_t TensorRecord::num_elements() const {
  return storage::checked_num_elements(shape).value_or(0);
}

const TensorRecord* Manifest::find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors.begin(), tensors.end(), name, [](const TensorRecord& a, std::string_view b) {
        return a.name < b;
      });
  return found != tensors.end() && found->name == name ? &*found : nullptr;
}

std::string to_text(const RankPart& part) {
  std::string text = "{\"file\":" + file_text(part.file) + ",\"tensors\":[";
  for (size_t i = 0; i < part.tensors.size(); ++i) {
    text += (i > 0 ? "," : "") + tensor_text(part.tensors[i]);
  }
  return text + "]}";
}

RankPart parse_rank_part(std::string_view text, const std::string& origin) {
  const auto json = core::parse_json(text, origin, {.max_bytes = kMaxBytes, .max_depth = 8});
  RankPart part;
  part.file = parse_file(json.at("file"), origin);
  for (const auto& item : list_of(json, "tensors", origin)) {
    part.tensors.push_back(parse_tensor(item, origin));
  }
  return part;
}

Manifest assemble(std::vector<RankPart> parts) {
  Manifest manifest;
  manifest.world_size = static_cast<int>(parts.size());
  std::map<std::string, TensorRecord> tensors;
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    manifest.files.push_back(std::move(parts[rank].file));
    for (auto& tensor : parts[rank].tensors) {
      const auto [place, fresh] = tensors.try_emplace(
          tensor.name, TensorRecord{tensor.name, tensor.dtype, tensor.shape, {}});
      auto& whole = place->second;
      if (whole.dtype != tensor.dtype || whole.shape != tensor.shape) {
        bad(core::ErrorKind::Internal,
            "ranks disagree on dtype or shape of tensor '" + tensor.name + "'",
            "rank " + std::to_string(rank) + " differs",
            "");
      }
      for (auto piece : tensor.pieces) {
        piece.file = static_cast<int>(rank);
        whole.pieces.push_back(piece);
      }
    }
  }
  for (auto& [name, tensor] : tensors) {
    settle(tensor, manifest.files.size(), core::ErrorKind::Internal);
    manifest.tensors.push_back(std::move(tensor));
  }
  return manifest;
}

std::string to_text(const Manifest& manifest) {
  std::string body = "{\"step\":" + std::to_string(manifest.step) +
                     ",\"world_size\":" + std::to_string(manifest.world_size) +
                     ",\"program_version\":" + quoted(manifest.program_version) + ",\n\"files\":[";
  for (size_t i = 0; i < manifest.files.size(); ++i) {
    body += (i > 0 ? ",\n" : "\n") + file_text(manifest.files[i]);
  }
  body += "],\n\"tensors\":[";
  for (size_t i = 0; i < manifest.tensors.size(); ++i) {
    body += (i > 0 ? ",\n" : "\n") + tensor_text(manifest.tensors[i]);
  }
  body += "],\n\"extra\":" + manifest.extra.dump() + "}";
  return preamble(body) + body + "}\n";
}

Manifest parse_manifest(std::string_view text, const std::string& origin) {
  const auto body = checked_body(text, origin);
  auto json = core::parse_json(body, origin, {.max_bytes = kMaxBytes, .max_depth = 128});
  Manifest manifest;
  manifest.step = core::json_int(json, "step", origin);
  manifest.world_size = static_cast<int>(core::json_int(json, "world_size", origin));
  manifest.program_version = core::json_string(json, "program_version", origin);
  for (const auto& item : list_of(json, "files", origin)) {
    manifest.files.push_back(parse_file(item, origin));
  }
  for (const auto& item : list_of(json, "tensors", origin)) {
    manifest.tensors.push_back(parse_tensor(item, origin));
    settle(manifest.tensors.back(), manifest.files.size(), core::ErrorKind::Data);
  }
  for (size_t i = 1; i < manifest.tensors.size(); ++i) {
    if (manifest.tensors[i - 1].name >= manifest.tensors[i].name) {
      bad(core::ErrorKind::Data,
          "'" + origin + "': tensors are not in order",
          "'" + manifest.tensors[i].name + "'",
          "");
    }
  }
  if (json.contains("extra")) {
    manifest.extra = std::move(json["extra"]);
  }
  return manifest;
}

}  // namespace kamerton::checkpoint

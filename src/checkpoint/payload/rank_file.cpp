// SPDX-License-Identifier: Apache-2.0
#include "payload/rank_file.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <map>
#include <system_error>
#include <thread>

#include "kamerton/core/clock.h"
#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/storage/hdf5_file.h"

namespace kamerton::checkpoint {
namespace {

constexpr char kWhere[] = "checkpoint.rank_file";

[[noreturn]] void bad_slice(const Slice& slice, const std::string& what) {
  throw core::Error(
      core::ErrorKind::Internal,
      {.where = kWhere,
       .what = "tensor '" + slice.name + "': " + what,
       .got = "offset " + std::to_string(slice.offset) + ", length " + std::to_string(slice.length),
       .allowed = "",
       .hint = ""});
}

/// The slices that hold something, ordered by (name, offset).
std::vector<const Slice*> ordered(const std::vector<Slice>& slices) {
  std::vector<const Slice*> order;
  order.reserve(slices.size());
  for (const auto& slice : slices) {
    if (slice.length > 0) {
      order.push_back(&slice);
    }
  }
  std::sort(order.begin(), order.end(), [](const Slice* a, const Slice* b) {
    return a->name != b->name ? a->name < b->name : a->offset < b->offset;
  });
  return order;
}

/// Records of the tensors in a rank's file, in the order of their datasets.
std::vector<TensorRecord> records(const std::vector<const Slice*>& order) {
  std::vector<TensorRecord> tensors;
  for (const auto* slice : order) {
    if (tensors.empty() || tensors.back().name != slice->name) {
      tensors.push_back({slice->name, slice->dtype, slice->shape, {}});
    }
    auto& pieces = tensors.back().pieces;
    const int64_t at = pieces.empty() ? 0 : pieces.back().at + pieces.back().length;
    pieces.push_back({0, slice->offset, slice->length, at});
  }
  return tensors;
}

void write_tensor(storage::Hdf5File& file, const TensorRecord& tensor, const Slice* const* slices) {
  const int64_t length = tensor.pieces.back().at + tensor.pieces.back().length;
  file.create_dataset(tensor.name, tensor.dtype, length);
  std::vector<int64_t> ranges;
  for (size_t i = 0; i < tensor.pieces.size(); ++i) {
    const auto& piece = tensor.pieces[i];
    file.write(tensor.name, tensor.dtype, piece.at, piece.length, slices[i]->data);
    ranges.push_back(piece.offset);
    ranges.push_back(piece.length);
  }
  file.set_attribute(tensor.name, "dtype", name_of(tensor.dtype));
  file.set_attribute(tensor.name, "shape", tensor.shape);
  file.set_attribute(tensor.name, "slices", ranges);
}

/// One stretch of a file's dataset and where it goes.
struct Reading {
  const TensorRecord* tensor;
  int64_t at;
  int64_t count;
  std::byte* to;
};

void plan_slice(const Manifest& manifest,
                const Slice& slice,
                std::map<int, std::vector<Reading>>& by_file) {
  const auto& tensor = *manifest.find(slice.name);
  const int64_t end = slice.offset + slice.length;
  // The first piece that ends behind the slice's beginning.
  auto piece =
      std::partition_point(tensor.pieces.begin(), tensor.pieces.end(), [&](const Piece& p) {
        return p.offset + p.length <= slice.offset;
      });
  for (; piece != tensor.pieces.end() && piece->offset < end; ++piece) {
    const int64_t from = std::max(slice.offset, piece->offset);
    const int64_t to = std::min(end, piece->offset + piece->length);
    auto* target = static_cast<std::byte*>(slice.data) +
                   static_cast<size_t>(from - slice.offset) * size_of(slice.dtype);
    by_file[piece->file].push_back({&tensor, piece->at + from - piece->offset, to - from, target});
  }
}

}  // namespace

void check_slices(const std::vector<Slice>& slices, bool for_writing) {
  for (const auto& slice : slices) {
    const auto num_elements = storage::checked_num_elements(slice.shape);
    if (!num_elements || *num_elements == 0) {
      bad_slice(slice, "its shape is empty or overflows");
    }
    if (slice.offset < 0 || slice.length < 0 || slice.offset > *num_elements - slice.length) {
      bad_slice(slice, "a slice reaches beyond its " + std::to_string(*num_elements) + " elements");
    }
    if (slice.length > 0 && slice.data == nullptr) {
      bad_slice(slice, "a slice without memory");
    }
  }
  if (!for_writing) {
    return;
  }
  const auto order = ordered(slices);
  for (size_t i = 1; i < order.size(); ++i) {
    const auto& before = *order[i - 1];
    const auto& now = *order[i];
    if (before.name != now.name) {
      continue;
    }
    if (before.dtype != now.dtype || before.shape != now.shape) {
      bad_slice(now, "two slices disagree on dtype or shape");
    }
    if (before.offset + before.length > now.offset) {
      bad_slice(now, "two slices of one rank overlap");
    }
  }
}

int64_t total_bytes(const std::vector<Slice>& slices) {
  int64_t bytes = 0;
  for (const auto& slice : slices) {
    bytes += slice.length * static_cast<int64_t>(size_of(slice.dtype));
  }
  return bytes;
}

std::string rank_file_name(int rank) {
  std::array<char, 32> name;
  std::snprintf(name.data(), name.size(), "rank-%05d.h5", rank);
  return name.data();
}

FileRecord seal_file(const std::filesystem::path& path, int num_threads) {
  // With a thread to spare, the digest reads the page cache while the disk is still busy.
  std::exception_ptr flush_failure;
  const auto flush = [&] {
    try {
      storage::sync_file(path);
    } catch (...) {
      flush_failure = std::current_exception();
    }
  };
  std::thread flusher;
  if (num_threads > 1) {
    flusher = std::thread(flush);
  } else {
    flush();
  }
  FileRecord record;
  record.name = path.filename().string();
  std::exception_ptr digest_failure;
  try {
    record.size = storage::posix_filesystem().file_size(path).value_or(0);
    record.digest = storage::to_hex(storage::tree_digest_of_file(path, num_threads));
  } catch (...) {
    digest_failure = std::current_exception();
  }
  if (flusher.joinable()) {
    flusher.join();
  }
  if (flush_failure || digest_failure) {
    std::rethrow_exception(flush_failure ? flush_failure : digest_failure);
  }
  return record;
}

RankPart write_rank_file(const std::filesystem::path& folder,
                         const RankPlace& place,
                         const std::vector<Slice>& slices,
                         int num_threads,
                         WriteTimes& times) {
  const core::SteadyClock clock;
  const double start = clock.now_s();
  const auto path = folder / rank_file_name(place.rank);
  try {
    const auto order = ordered(slices);
    RankPart part;
    part.tensors = records(order);
    auto file = storage::Hdf5File::create(path);
    file.set_attribute("", "format", "kamerton-checkpoint");
    file.set_attribute("", "version", std::vector<int64_t>{kFormatVersion});
    file.set_attribute("", "step", std::vector<int64_t>{place.step});
    file.set_attribute("", "rank", std::vector<int64_t>{place.rank, place.world_size});
    size_t first = 0;
    for (const auto& tensor : part.tensors) {
      write_tensor(file, tensor, order.data() + first);
      first += tensor.pieces.size();
    }
    file.close();
    const double written = clock.now_s();
    part.file = seal_file(path, num_threads);
    times.write_s = written - start;
    times.digest_s = clock.now_s() - written;
    return part;
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    throw;
  }
}

void check_file(const std::filesystem::path& folder, const FileRecord& file, int num_threads) {
  const auto path = folder / file.name;
  const auto size = storage::posix_filesystem().file_size(path);
  if (!size || *size != file.size) {
    throw core::Error(
        core::ErrorKind::Data,
        {.where = kWhere,
         .what = "'" + path.string() + (size ? "' has the wrong size" : "' is missing"),
         .got = size ? std::to_string(*size) + " bytes" : "",
         .allowed = std::to_string(file.size) + " bytes",
         .hint = "an earlier checkpoint"});
  }
  const auto digest = storage::to_hex(storage::tree_digest_of_file(path, num_threads));
  if (digest != file.digest) {
    throw core::Error(
        core::ErrorKind::Io,
        {.where = kWhere,
         .what = "'" + path.string() + "' is damaged: its digest does not fit the manifest",
         .got = digest,
         .allowed = file.digest,
         .hint = "an earlier checkpoint, and a look at the disk"});
  }
}

void read_slices(const std::filesystem::path& folder,
                 const Manifest& manifest,
                 const std::vector<Slice>& slices,
                 int num_threads,
                 std::set<std::string>& checked) {
  std::map<int, std::vector<Reading>> by_file;
  for (const auto& slice : slices) {
    if (slice.length > 0) {
      plan_slice(manifest, slice, by_file);
    }
  }
  for (const auto& [number, readings] : by_file) {
    const auto& record = manifest.files[static_cast<size_t>(number)];
    if (checked.count(record.name) == 0) {
      check_file(folder, record, num_threads);
      checked.insert(record.name);
    }
    auto file = storage::Hdf5File::open(folder / record.name);
    for (const auto& reading : readings) {
      file.read(reading.tensor->name, reading.tensor->dtype, reading.at, reading.count, reading.to);
    }
    file.close();
  }
}

}  // namespace kamerton::checkpoint

// SPDX-License-Identifier: Apache-2.0
// libkamerton_arrow.so: the one file group that sees Arrow and Parquet.
#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/schema.h>
#include <parquet/properties.h>

#include "columnar_plugin.h"
#include "json_cells.h"

namespace kamerton::data::columnar {
namespace {

constexpr int64_t kBatchRows = 256;

/// The other side does not want more.
struct Stopped {};

template <class Value>
Value value_of(arrow::Result<Value> result) {
  if (!result.ok()) {
    throw std::runtime_error(result.status().ToString());
  }
  return std::move(result).ValueUnsafe();
}

void check(const arrow::Status& status) {
  if (!status.ok()) {
    throw std::runtime_error(status.ToString());
  }
}

std::vector<std::string> wanted(const KamertonColumnarRequest& request) {
  return {request.columns, request.columns + request.column_count};
}

/// Numbers of the schema's fields that are wanted.
std::vector<int> choose(const arrow::Schema& schema, const KamertonColumnarRequest& request) {
  const std::vector<std::string> names = wanted(request);
  std::vector<int> chosen;
  std::string all;
  for (int i = 0; i < schema.num_fields(); ++i) {
    const std::string& name = schema.field(i)->name();
    all += (all.empty() ? "'" : ", '") + name.substr(0, 40) + "'";
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      chosen.push_back(i);
    }
  }
  if (chosen.empty()) {
    throw std::runtime_error("no column of a known layout among its columns " + all.substr(0, 400) +
                             " (data.columns names others)");
  }
  return chosen;
}

/// Lines of the rows of a batch.
void write_batch(const arrow::RecordBatch& batch,
                 const std::vector<int>& columns,
                 const KamertonColumnarRequest& request,
                 std::string& text) {
  std::vector<std::string> names;
  for (const int column : columns) {
    check(batch.column(column)->ValidateFull());
    std::string& name = names.emplace_back(names.empty() ? "{" : ",");
    append_json_string(batch.column_name(column), name);
    name += ':';
  }
  for (int64_t row = 0; row < batch.num_rows(); ++row) {
    text.clear();
    for (size_t i = 0; i < columns.size(); ++i) {
      text += names[i];
      append_json(*batch.column(columns[i]), row, text);
    }
    text += "}\n";
    if (request.write(request.context, text.data(), text.size()) != 0) {
      throw Stopped{};
    }
  }
}

/// All batches of a file whose schema `choose` has seen.
void write_batches(const std::function<std::shared_ptr<arrow::RecordBatch>()>& next,
                   const std::vector<int>& columns,
                   const KamertonColumnarRequest& request) {
  std::string text;
  while (const auto batch = next()) {
    write_batch(*batch, columns, request, text);
  }
}

std::vector<int> all_columns(const arrow::Schema& schema) {
  std::vector<int> columns(static_cast<size_t>(schema.num_fields()));
  for (size_t i = 0; i < columns.size(); ++i) {
    columns[i] = static_cast<int>(i);
  }
  return columns;
}

void convert_parquet(const std::shared_ptr<arrow::io::ReadableFile>& file,
                     const KamertonColumnarRequest& request,
                     arrow::MemoryPool* pool) {
  parquet::ReaderProperties properties(pool);
  properties.enable_buffered_stream();
  parquet::ArrowReaderProperties arrow_properties(false);
  arrow_properties.set_batch_size(kBatchRows);
  arrow_properties.set_pre_buffer(false);
  parquet::arrow::FileReaderBuilder builder;
  check(builder.Open(file, properties));
  builder.memory_pool(pool)->properties(arrow_properties);
  const auto reader = value_of(builder.Build());
  std::shared_ptr<arrow::Schema> schema;
  check(reader->GetSchema(&schema));
  // Parquet counts leaves; a nested column has several.
  const std::vector<int> fields = choose(*schema, request);
  std::vector<int> leaves;
  const std::function<void(const parquet::arrow::SchemaField&)> collect =
      [&](const parquet::arrow::SchemaField& field) {
        if (field.column_index >= 0) {
          leaves.push_back(field.column_index);
        }
        std::for_each(field.children.begin(), field.children.end(), collect);
      };
  for (const int field : fields) {
    collect(reader->manifest().schema_fields.at(static_cast<size_t>(field)));
  }
  std::vector<int> groups(static_cast<size_t>(reader->num_row_groups()));
  for (size_t i = 0; i < groups.size(); ++i) {
    groups[i] = static_cast<int>(i);
  }
  const auto batches = value_of(reader->GetRecordBatchReader(groups, leaves));
  write_batches(
      [&] { return value_of(batches->Next()); }, all_columns(*batches->schema()), request);
}

void convert_ipc(const std::shared_ptr<arrow::io::ReadableFile>& file,
                 const KamertonColumnarRequest& request,
                 arrow::MemoryPool* pool) {
  arrow::ipc::IpcReadOptions options;
  options.memory_pool = pool;
  options.use_threads = false;
  if (request.form == kKamertonArrowStream) {
    const auto reader = value_of(arrow::ipc::RecordBatchStreamReader::Open(file, options));
    write_batches(
        [&] { return value_of(reader->Next()); }, choose(*reader->schema(), request), request);
    return;
  }
  const auto reader = value_of(arrow::ipc::RecordBatchFileReader::Open(file, options));
  int next = 0;
  write_batches(
      [&]() -> std::shared_ptr<arrow::RecordBatch> {
        return next < reader->num_record_batches() ? value_of(reader->ReadRecordBatch(next++))
                                                   : nullptr;
      },
      choose(*reader->schema(), request),
      request);
}

/// A pool of the system's allocator (the default one would keep what it has freed) that lives as
/// long as the process: Arrow's reading thread gives buffers back after the reader is gone.
arrow::MemoryPool* make_pool(int64_t limit) {
  static std::mutex mutex;
  static auto* pools = new std::deque<arrow::CappedMemoryPool>();
  const std::lock_guard lock(mutex);
  return &pools->emplace_back(arrow::system_memory_pool(), limit);
}

void convert(const KamertonColumnarRequest& request) {
  arrow::MemoryPool* pool = make_pool(static_cast<int64_t>(request.max_memory));
  const auto file = value_of(arrow::io::ReadableFile::Open(request.path, pool));
  if (request.form == kKamertonParquet) {
    convert_parquet(file, request, pool);
  } else {
    convert_ipc(file, request, pool);
  }
}

/// One line, cut to the room there is. Arrow's messages may go over several lines.
void say(const KamertonColumnarRequest& request, std::string text) {
  text = text.substr(0, text.find('\n'));
  const size_t length = std::min<size_t>(text.size(), request.message_size - 1);
  std::memcpy(request.message, text.data(), length);
  request.message[length] = '\0';
}

}  // namespace
}  // namespace kamerton::data::columnar

extern "C" {

__attribute__((visibility("default"))) int32_t kamerton_arrow_version(void) {
  return kColumnarPluginVersion;
}

__attribute__((visibility("default"))) int32_t kamerton_arrow_convert(
    const KamertonColumnarRequest* request) {
  using namespace kamerton::data::columnar;
  try {
    convert(*request);
    return kKamertonDone;
  } catch (const Stopped&) {
    return kKamertonStopped;
  } catch (const NoJsonForm& error) {
    say(*request, std::string("a column of type ") + error.what());
  } catch (const std::bad_alloc&) {
    say(*request, "out of memory");
  } catch (const std::exception& error) {
    say(*request, error.what());
  }
  return kKamertonBadData;
}
}

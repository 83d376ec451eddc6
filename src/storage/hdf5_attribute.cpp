// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kamerton/core/error.h"
#include "kamerton/storage/hdf5_file.h"

#include "hdf5_check.h"

namespace kamerton::storage {
namespace {

constexpr size_t kMaxAttributeBytes = size_t{1} << 20;

Hdf5Handle text_type(size_t size, const Hdf5Context& context) {
  Hdf5Handle type(hdf5_check(H5Tcopy(H5T_C_S1), "H5Tcopy", context), H5Tclose);
  hdf5_check(H5Tset_size(type.get(), std::max<size_t>(size, 1)), "H5Tset_size", context);
  hdf5_check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "H5Tset_cset", context);
  hdf5_check(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), "H5Tset_strpad", context);
  return type;
}

void write_attribute(hid_t file,
                     const Hdf5Context& context,
                     const std::string& key,
                     hid_t type,
                     hid_t space,
                     const void* data) {
  const char* object = context.object.empty() ? "." : context.object.c_str();
  Hdf5Handle attribute(
      hdf5_check(H5Acreate_by_name(
                     file, object, key.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                 "H5Acreate_by_name",
                 context),
      H5Aclose);
  if (data != nullptr) {
    hdf5_check(H5Awrite(attribute.get(), type, data), "H5Awrite", context);
  }
  attribute.close(context);
}

Hdf5Handle open_attribute(hid_t file, const Hdf5Context& context, const std::string& key) {
  const char* object = context.object.empty() ? "." : context.object.c_str();
  return {hdf5_check(H5Aopen_by_name(file, object, key.c_str(), H5P_DEFAULT, H5P_DEFAULT),
                     "H5Aopen_by_name",
                     context),
          H5Aclose};
}

}  // namespace

void Hdf5File::set_attribute(const std::string& object,
                             const std::string& key,
                             std::string_view text) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, object, text.size(), true};
  const auto type = text_type(text.size(), context);
  const Hdf5Handle space(hdf5_check(H5Screate(H5S_SCALAR), "H5Screate", context), H5Sclose);
  const std::string padded = text.empty() ? std::string(1, '\0') : std::string(text);
  write_attribute(file_, context, key, type.get(), space.get(), padded.data());
}

void Hdf5File::set_attribute(const std::string& object,
                             const std::string& key,
                             const std::vector<int64_t>& values) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, object, values.size() * sizeof(int64_t), true};
  const hsize_t length = values.size();
  const Hdf5Handle space(
      hdf5_check(H5Screate_simple(1, &length, nullptr), "H5Screate_simple", context), H5Sclose);
  write_attribute(
      file_, context, key, H5T_STD_I64LE, space.get(), values.empty() ? nullptr : values.data());
}

std::string Hdf5File::text_attribute(const std::string& object, const std::string& key) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, object, 0, false};
  const auto attribute = open_attribute(file_, context, key);
  const Hdf5Handle type(hdf5_check(H5Aget_type(attribute.get()), "H5Aget_type", context), H5Tclose);
  const auto size = H5Tget_size(type.get());
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0 ||
      size > kMaxAttributeBytes) {
    throw core::Error(
        core::ErrorKind::Data,
        {.where = "storage.hdf5_file",
         .what = "'" + path_.string() + "': attribute '" + key + "' is not a text of fixed length",
         .got = "",
         .allowed = "",
         .hint = ""});
  }
  std::string text(size, '\0');
  hdf5_check(
      H5Aread(attribute.get(), text_type(size, context).get(), text.data()), "H5Aread", context);
  text.resize(std::min(text.find('\0'), text.size()));
  return text;
}

std::vector<int64_t> Hdf5File::integer_attribute(const std::string& object,
                                                 const std::string& key) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, object, 0, false};
  const auto attribute = open_attribute(file_, context, key);
  const Hdf5Handle space(hdf5_check(H5Aget_space(attribute.get()), "H5Aget_space", context),
                         H5Sclose);
  const int64_t length = hdf5_check(
      H5Sget_simple_extent_npoints(space.get()), "H5Sget_simple_extent_npoints", context);
  if (static_cast<uint64_t>(length) > kMaxAttributeBytes / sizeof(int64_t)) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "storage.hdf5_file",
                       .what = "'" + path_.string() + "': attribute '" + key + "' is too long",
                       .got = std::to_string(length) + " values",
                       .allowed = "",
                       .hint = ""});
  }
  std::vector<int64_t> values(static_cast<size_t>(length));
  if (length > 0) {
    hdf5_check(H5Aread(attribute.get(), H5T_STD_I64LE, values.data()), "H5Aread", context);
  }
  return values;
}

}  // namespace kamerton::storage

// SPDX-License-Identifier: Apache-2.0
#include "hdf5_check.h"

#include <cstdlib>
#include <cstring>

#include "kamerton/core/error.h"

#include "posix_error.h"

namespace kamerton::storage {
namespace {

/// H5Ewalk2 callback: keeps the innermost entry's text.
herr_t keep_first(unsigned index, const H5E_error2_t* entry, void* text) {
  if (index == 0 && entry->desc != nullptr) {
    *static_cast<std::string*>(text) = entry->desc;
  }
  return 0;
}

/// The errno that the library quotes in its reason; 0 when it quotes none.
int quoted_errno(const std::string& reason) {
  constexpr char kMark[] = "errno = ";
  const auto at = reason.find(kMark);
  return at == std::string::npos ? 0 : std::atoi(reason.c_str() + at + std::strlen(kMark));
}

}  // namespace

int64_t hdf5_check(int64_t result, const char* call, const Hdf5Context& context) {
  if (result >= 0) {
    return result;
  }
  std::string reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &reason);
  H5Eclear2(H5E_DEFAULT);
  const int error = quoted_errno(reason);
  if (error != 0 && context.writing) {
    throw_write_error("storage.hdf5_file", context.path, error, context.needed);
  }
  if (error != 0) {
    throw_read_error("storage.hdf5_file", context.path, error);
  }
  const std::string object = context.object.empty() ? "" : ", '" + context.object + "'";
  throw core::Error(
      core::ErrorKind::Io,
      {.where = "storage.hdf5_file",
       .what = std::string(call) + " failed on '" + context.path.string() + "'" + object,
       .got = reason.empty() ? "no reason" : reason.substr(0, 300),
       .allowed = "",
       .hint = ""});
}

std::unique_lock<std::mutex> hdf5_library() {
  static std::mutex mutex;
  static const bool started = [] {
    // After a failed write the library's exit handler would crash trying to flush what cannot be
    // flushed.
    H5dont_atexit();
    H5open();
    H5PLset_loading_state(0);
    return true;
  }();
  static_cast<void>(started);
  std::unique_lock lock(mutex);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  return lock;
}

Hdf5Handle hdf5_type(DType dtype, const Hdf5Context& context) {
  const auto copy = [&](hid_t id) {
    return Hdf5Handle(hdf5_check(H5Tcopy(id), "H5Tcopy", context), H5Tclose);
  };
  const auto half = [&](size_t exponent_bits, size_t mantissa_bits, size_t bias) {
    auto type = copy(H5T_IEEE_F32LE);
    hdf5_check(H5Tset_fields(type.get(), 15, mantissa_bits, exponent_bits, 0, mantissa_bits),
               "H5Tset_fields",
               context);
    hdf5_check(H5Tset_size(type.get(), 2), "H5Tset_size", context);
    hdf5_check(H5Tset_ebias(type.get(), bias), "H5Tset_ebias", context);
    return type;
  };
  switch (dtype) {
    case DType::F32:
      return copy(H5T_IEEE_F32LE);
    case DType::F64:
      return copy(H5T_IEEE_F64LE);
    case DType::I64:
      return copy(H5T_STD_I64LE);
    case DType::I32:
      return copy(H5T_STD_I32LE);
    case DType::I16:
      return copy(H5T_STD_I16LE);
    case DType::I8:
      return copy(H5T_STD_I8LE);
    case DType::U8:
      return copy(H5T_STD_U8LE);
    case DType::F16:
      return half(5, 10, 15);
    case DType::BF16:
      return half(8, 7, 127);
    case DType::Bool:
      break;
  }
  Hdf5Handle type(hdf5_check(H5Tenum_create(H5T_STD_I8LE), "H5Tenum_create", context), H5Tclose);
  for (const int8_t value : {int8_t{0}, int8_t{1}}) {
    hdf5_check(H5Tenum_insert(type.get(), value == 0 ? "FALSE" : "TRUE", &value),
               "H5Tenum_insert",
               context);
  }
  return type;
}

}  // namespace kamerton::storage

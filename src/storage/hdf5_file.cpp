// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/hdf5_file.h"

#include <algorithm>
#include <utility>

#include "kamerton/core/error.h"

#include "hdf5_check.h"

namespace kamerton::storage {
namespace {

constexpr char kHdf5FileWhere[] = "storage.hdf5_file";
constexpr hsize_t kAlignFrom = 64 << 10;  // data of this size and more begins on a page
constexpr hsize_t kAlignTo = 4096;

static_assert(sizeof(hid_t) == sizeof(int64_t), "identifiers are kept as int64_t in the header");

[[noreturn]] void bad_object(const std::filesystem::path& path,
                             const std::string& what,
                             const std::string& got,
                             const std::string& allowed) {
  throw core::Error(core::ErrorKind::Data,
                    {.where = kHdf5FileWhere,
                     .what = "'" + path.string() + "': " + what,
                     .got = got,
                     .allowed = allowed,
                     .hint = ""});
}

Hdf5Handle property_list(hid_t kind, const Hdf5Context& context) {
  return {hdf5_check(H5Pcreate(kind), "H5Pcreate", context), H5Pclose};
}

Hdf5Handle access_list(const Hdf5Context& context) {
  auto list = property_list(H5P_FILE_ACCESS, context);
  // From 1.8 on metadata carries checksums; locks fail on network file systems (the checkpoint has
  // its own).
  hdf5_check(H5Pset_libver_bounds(list.get(), H5F_LIBVER_V18, H5F_LIBVER_V110),
             "H5Pset_libver_bounds",
             context);
  hdf5_check(H5Pset_file_locking(list.get(), false, true), "H5Pset_file_locking", context);
  hdf5_check(H5Pset_alignment(list.get(), kAlignFrom, kAlignTo), "H5Pset_alignment", context);
  hdf5_check(H5Pset_fclose_degree(list.get(), H5F_CLOSE_STRONG), "H5Pset_fclose_degree", context);
  return list;
}

/// Path parts must be real names: '.' would mean the group itself to HDF5.
void check_name(const std::filesystem::path& path, const std::string& name) {
  bool fine = !name.empty() && name.find('\0') == std::string::npos;
  for (size_t begin = 0; fine && begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const auto part = name.substr(begin, end - begin);
    fine = !part.empty() && part != "." && part != "..";
    begin = end + 1;
  }
  if (!fine) {
    bad_object(path,
               "a name that HDF5 cannot hold",
               "'" + name + "'",
               "parts separated by single '/', none of them '.' or '..'");
  }
}

/// Makes the groups that a name needs. Not left to HDF5's own option: that would record times.
void make_groups(hid_t file, const std::string& name, const Hdf5Context& context) {
  for (size_t end = name.find('/'); end != std::string::npos; end = name.find('/', end + 1)) {
    const auto group = name.substr(0, end);
    if (hdf5_check(H5Lexists(file, group.c_str(), H5P_DEFAULT), "H5Lexists", context) > 0) {
      continue;
    }
    const auto list = property_list(H5P_GROUP_CREATE, context);
    hdf5_check(H5Pset_obj_track_times(list.get(), false), "H5Pset_obj_track_times", context);
    Hdf5Handle made(
        hdf5_check(H5Gcreate2(file, group.c_str(), H5P_DEFAULT, list.get(), H5P_DEFAULT),
                   "H5Gcreate2",
                   context),
        H5Gclose);
    made.close(context);
  }
}

Hdf5Handle dataspace(const std::vector<hsize_t>& dims, const Hdf5Context& context) {
  return {hdf5_check(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
                     "H5Screate_simple",
                     context),
          H5Sclose};
}

std::vector<hsize_t> unsigned_dims(const std::vector<int64_t>& values) {
  return {values.begin(), values.end()};
}

/// HDF5 expands '%b' in the names of virtual sources.
std::string escaped(const std::string& name) {
  std::string result;
  for (const char c : name) {
    result += c;
    if (c == '%') {
      result += c;
    }
  }
  return result;
}

}  // namespace

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path, "", 0, true};
  const auto creation = property_list(H5P_FILE_CREATE, context);
  hdf5_check(H5Pset_obj_track_times(creation.get(), false), "H5Pset_obj_track_times", context);
  const auto access = access_list(context);
  Hdf5File file;
  file.path_ = path;
  file.file_ = hdf5_check(
      H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), "H5Fcreate", context);
  return file;
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path, "", 0, false};
  const auto access = access_list(context);
  Hdf5File file;
  file.path_ = path;
  file.file_ = hdf5_check(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), "H5Fopen", context);
  return file;
}

Hdf5File::Hdf5File(Hdf5File&& other) noexcept {
  *this = std::move(other);
}

Hdf5File& Hdf5File::operator=(Hdf5File&& other) noexcept {
  if (this != &other) {
    close_quietly();
    path_ = std::move(other.path_);
    file_ = std::exchange(other.file_, -1);
    datasets_ = std::exchange(other.datasets_, {});
  }
  return *this;
}

Hdf5File::~Hdf5File() {
  close_quietly();
}

void Hdf5File::close_quietly() noexcept {
  if (file_ < 0) {
    return;
  }
  const auto lock = hdf5_library();
  for (const auto& [name, id] : datasets_) {
    H5Dclose(id);
  }
  datasets_.clear();
  H5Fclose(std::exchange(file_, -1));
  H5Eclear2(H5E_DEFAULT);
}

void Hdf5File::close() {
  if (file_ < 0) {
    return;
  }
  const auto lock = hdf5_library();
  // A dataset's close may be the first call that meets a full disk.
  while (!datasets_.empty()) {
    const auto node = datasets_.extract(datasets_.begin());
    hdf5_check(H5Dclose(node.mapped()), "H5Dclose", {path_, node.key(), 0, true});
  }
  const Hdf5Context context{path_, "", 0, true};
  hdf5_check(H5Fflush(file_, H5F_SCOPE_GLOBAL), "H5Fflush", context);
  hdf5_check(H5Fclose(std::exchange(file_, -1)), "H5Fclose", context);
}

void Hdf5File::create_dataset(const std::string& name, DType dtype, int64_t length) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, name, static_cast<uint64_t>(length) * size_of(dtype), true};
  check_name(path_, name);
  make_groups(file_, name, context);
  const auto type = hdf5_type(dtype, context);
  const auto space = dataspace({static_cast<hsize_t>(length)}, context);
  const auto list = property_list(H5P_DATASET_CREATE, context);
  hdf5_check(H5Pset_obj_track_times(list.get(), false), "H5Pset_obj_track_times", context);
  hdf5_check(H5Pset_layout(list.get(), H5D_CONTIGUOUS), "H5Pset_layout", context);
  hdf5_check(H5Pset_alloc_time(list.get(), H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time", context);
  hdf5_check(H5Pset_fill_time(list.get(), H5D_FILL_TIME_NEVER), "H5Pset_fill_time", context);
  Hdf5Handle made(
      hdf5_check(
          H5Dcreate2(
              file_, name.c_str(), type.get(), space.get(), H5P_DEFAULT, list.get(), H5P_DEFAULT),
          "H5Dcreate2",
          context),
      H5Dclose);
  datasets_.emplace(name, made.get());
  made.release();
}

void Hdf5File::create_virtual_dataset(const std::string& name,
                                      DType dtype,
                                      const std::vector<int64_t>& shape,
                                      const std::vector<VirtualPart>& parts) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, name, 0, true};
  check_name(path_, name);
  make_groups(file_, name, context);
  const auto type = hdf5_type(dtype, context);
  const auto whole = dataspace(unsigned_dims(shape), context);
  const auto list = property_list(H5P_DATASET_CREATE, context);
  hdf5_check(H5Pset_obj_track_times(list.get(), false), "H5Pset_obj_track_times", context);
  for (const auto& part : parts) {
    const auto box = dataspace(unsigned_dims(shape), context);
    const auto start = unsigned_dims(part.start);
    const auto count = unsigned_dims(part.count);
    hdf5_check(H5Sselect_hyperslab(
                   box.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
               "H5Sselect_hyperslab",
               context);
    const auto source = dataspace({static_cast<hsize_t>(part.source_length)}, context);
    const auto from = static_cast<hsize_t>(part.source_offset);
    const auto length = static_cast<hsize_t>(H5Sget_select_npoints(box.get()));
    hdf5_check(H5Sselect_hyperslab(source.get(), H5S_SELECT_SET, &from, nullptr, &length, nullptr),
               "H5Sselect_hyperslab",
               context);
    hdf5_check(H5Pset_virtual(list.get(),
                              box.get(),
                              escaped(part.file).c_str(),
                              escaped(part.dataset).c_str(),
                              source.get()),
               "H5Pset_virtual",
               context);
  }
  Hdf5Handle made(
      hdf5_check(
          H5Dcreate2(
              file_, name.c_str(), type.get(), whole.get(), H5P_DEFAULT, list.get(), H5P_DEFAULT),
          "H5Dcreate2",
          context),
      H5Dclose);
  made.close(context);
}

int64_t Hdf5File::dataset(const std::string& name) {
  if (const auto found = datasets_.find(name); found != datasets_.end()) {
    return found->second;
  }
  const Hdf5Context context{path_, name, 0, false};
  check_name(path_, name);
  H5L_info_t link = {};
  hdf5_check(H5Lget_info(file_, name.c_str(), &link, H5P_DEFAULT), "H5Lget_info", context);
  if (link.type != H5L_TYPE_HARD) {
    bad_object(path_,
               "'" + name + "' is a link to elsewhere",
               "a soft or external link",
               "a dataset of this file");
  }
  Hdf5Handle opened(hdf5_check(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), "H5Dopen2", context),
                    H5Dclose);
  const Hdf5Handle list(
      hdf5_check(H5Dget_create_plist(opened.get()), "H5Dget_create_plist", context), H5Pclose);
  // Other layouts may name other files or need filters; this program writes neither.
  if (H5Pget_layout(list.get()) != H5D_CONTIGUOUS || H5Pget_external_count(list.get()) != 0) {
    bad_object(path_,
               "'" + name + "' is stored in another way than we write",
               "a chunked, virtual or external layout",
               "a contiguous dataset");
  }
  datasets_.emplace(name, opened.get());
  return opened.release();
}

int64_t Hdf5File::length(const std::string& name) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, name, 0, false};
  const Hdf5Handle space(hdf5_check(H5Dget_space(dataset(name)), "H5Dget_space", context),
                         H5Sclose);
  return hdf5_check(
      H5Sget_simple_extent_npoints(space.get()), "H5Sget_simple_extent_npoints", context);
}

int64_t Hdf5File::data_offset(const std::string& name, DType dtype) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, name, 0, false};
  const hid_t id = dataset(name);
  const auto type = hdf5_type(dtype, context);
  const Hdf5Handle stored(hdf5_check(H5Dget_type(id), "H5Dget_type", context), H5Tclose);
  if (hdf5_check(H5Tequal(type.get(), stored.get()), "H5Tequal", context) == 0) {
    bad_object(path_,
               "'" + name + "' has another type of elements",
               "another type",
               std::string(name_of(dtype)));
  }
  const haddr_t address = H5Dget_offset(id);
  H5Eclear2(H5E_DEFAULT);
  return address == HADDR_UNDEF ? 0 : static_cast<int64_t>(address);
}

void Hdf5File::write(
    const std::string& name, DType dtype, int64_t offset, int64_t count, const void* data) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, name, static_cast<uint64_t>(count) * size_of(dtype), true};
  const hid_t id = dataset(name);
  if (count == 0) {
    return;
  }
  const auto type = hdf5_type(dtype, context);
  const Hdf5Handle space(hdf5_check(H5Dget_space(id), "H5Dget_space", context), H5Sclose);
  const auto start = static_cast<hsize_t>(offset);
  const auto length = static_cast<hsize_t>(count);
  hdf5_check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &length, nullptr),
             "H5Sselect_hyperslab",
             context);
  const auto memory = dataspace({length}, context);
  hdf5_check(
      H5Dwrite(id, type.get(), memory.get(), space.get(), H5P_DEFAULT, data), "H5Dwrite", context);
}

void Hdf5File::read(
    const std::string& name, DType dtype, int64_t offset, int64_t count, void* data) {
  const auto lock = hdf5_library();
  const Hdf5Context context{path_, name, 0, false};
  const hid_t id = dataset(name);
  const auto type = hdf5_type(dtype, context);
  const Hdf5Handle stored(hdf5_check(H5Dget_type(id), "H5Dget_type", context), H5Tclose);
  if (hdf5_check(H5Tequal(type.get(), stored.get()), "H5Tequal", context) == 0) {
    bad_object(path_,
               "'" + name + "' has another type of elements",
               "another type",
               std::string(name_of(dtype)));
  }
  const Hdf5Handle space(hdf5_check(H5Dget_space(id), "H5Dget_space", context), H5Sclose);
  const int64_t available = hdf5_check(
      H5Sget_simple_extent_npoints(space.get()), "H5Sget_simple_extent_npoints", context);
  if (offset < 0 || count < 0 || offset > available - count) {
    bad_object(path_,
               "'" + name + "' is shorter than it should be",
               std::to_string(available) + " elements",
               std::to_string(offset) + " + " + std::to_string(count));
  }
  if (count == 0) {
    return;
  }
  const auto start = static_cast<hsize_t>(offset);
  const auto length = static_cast<hsize_t>(count);
  hdf5_check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &length, nullptr),
             "H5Sselect_hyperslab",
             context);
  const auto memory = dataspace({length}, context);
  hdf5_check(
      H5Dread(id, type.get(), memory.get(), space.get(), H5P_DEFAULT, data), "H5Dread", context);
}

}  // namespace kamerton::storage

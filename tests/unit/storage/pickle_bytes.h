// SPDX-License-Identifier: Apache-2.0
// Small torch.save archives as strings.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kamerton::storage {

inline std::string little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) {
    out += static_cast<char>(i < 8 ? (value >> (8 * i)) & 0xff : 0);
  }
  return out;
}

/// A zip archive of stored records.
inline std::string zip_bytes(const std::vector<std::pair<std::string, std::string>>& records) {
  std::string file;
  std::string directory;
  for (const auto& [name, data] : records) {
    const auto size = little(data.size(), 4);
    directory += "PK\x01\x02" + little(0, 16) + size + size + little(name.size(), 2) +
                 little(0, 12) + little(file.size(), 4) + name;
    file += "PK\x03\x04" + little(0, 14) + size + size + little(name.size(), 2) + little(0, 2) +
            name + data;
  }
  const auto count = little(records.size(), 2);
  return file + directory + "PK\x05\x06" + little(0, 4) + count + count +
         little(directory.size(), 4) + little(file.size(), 4) + little(0, 2);
}

inline std::string pickled_text(std::string_view text) {
  return "X" + little(text.size(), 4) + std::string(text);
}

/// What torch.save writes for a tensor: the call that makes it of a part of a storage.
inline std::string pickled_tensor(const std::string& type,
                                  const std::string& key,
                                  int elements,
                                  int first,
                                  const std::string& shape,
                                  const std::string& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + pickled_text("storage") + "ctorch\n" + type +
         "\n" + pickled_text(key) + pickled_text("cpu") + "J" +
         little(static_cast<uint64_t>(elements), 4) + "tQK" +
         little(static_cast<uint64_t>(first), 1) + shape + strides +
         "\x89"
         "ccollections\nOrderedDict\n)RtR";
}

/// An OrderedDict of these entries, with the attribute that state_dict() gives it.
inline std::string pickled_dict(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string out =
      "\x80\x02"
      "ccollections\nOrderedDict\n)Rq" +
      little(0, 1) + "(";
  for (const auto& [name, value] : entries) {
    out += pickled_text(name) + value;
  }
  return out + "u}" + pickled_text("_metadata") + "ccollections\nOrderedDict\n)Rsb.";
}

inline std::string archive(const std::string& pickle) {
  std::string floats;
  for (int i = 0; i < 6; ++i) {
    const float value = static_cast<float>(i) + 0.5F;
    floats.append(reinterpret_cast<const char*>(&value), 4);
  }
  return zip_bytes({{"model/data.pkl", pickle},
                    {"model/byteorder", "little"},
                    {"model/data/0", floats},
                    {"model/data/1", std::string(8, 'x')},
                    {"model/version", "3\n"}});
}

inline std::string good_archive() {
  return archive(pickled_dict(
      {{"a", pickled_tensor("FloatStorage", "0", 6, 0, "K\x02K\x03\x86", "K\x03K\x01\x86")},
       {"b", pickled_tensor("FloatStorage", "0", 6, 4, "K\x02\x85", "K\x01\x85")},
       {"c", pickled_tensor("LongStorage", "1", 1, 0, ")", ")")}}));
}

}  // namespace kamerton::storage

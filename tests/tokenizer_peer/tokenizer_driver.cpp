// SPDX-License-Identifier: Apache-2.0
// tokenizer_driver FILE_OR_FOLDER [--special]: texts on stdin, their encodings on stdout, for
// comparison with other libraries. A text: u32 size, bytes. An answer: u32 count, count i32 ids,
// 2 * count i32 offsets in characters, u32 size, the decoded bytes; numbers in the machine's order.
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "kamerton/text/tokenizer.h"

namespace kamerton::text {
namespace {

bool read_text(std::string& text) {
  uint32_t size = 0;
  if (std::fread(&size, sizeof size, 1, stdin) != 1) {
    return false;
  }
  text.resize(size);
  return std::fread(text.data(), 1, size, stdin) == size;
}

void write_size(size_t size) {
  const auto small = static_cast<uint32_t>(size);
  std::fwrite(&small, sizeof small, 1, stdout);
}

/// Byte positions to character positions.
std::vector<int32_t> char_positions(const std::string& text) {
  std::vector<int32_t> at(text.size() + 1);
  int32_t count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    count += i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 ? 1 : 0;
    at[i] = count;
  }
  at[text.size()] = text.empty() ? 0 : count + 1;
  return at;
}

int answer(const Tokenizer& tokenizer, bool special) {
  std::string text;
  while (read_text(text)) {
    const Encoding encoding = tokenizer.encode_with_offsets(text, special);
    if (tokenizer.encode(text, special) != encoding.ids) {
      std::fprintf(stderr, "ids differ with and without offsets: %s\n", text.c_str());
      return 1;
    }
    const auto at = char_positions(text);
    std::vector<int32_t> offsets;
    for (const auto& [begin, end] : encoding.offsets) {
      offsets.push_back(at[static_cast<size_t>(begin)]);
      offsets.push_back(at[static_cast<size_t>(end)]);
    }
    const std::string decoded = tokenizer.decode(encoding.ids, false);
    write_size(encoding.ids.size());
    std::fwrite(encoding.ids.data(), 4, encoding.ids.size(), stdout);
    std::fwrite(offsets.data(), 4, offsets.size(), stdout);
    write_size(decoded.size());
    std::fwrite(decoded.data(), 1, decoded.size(), stdout);
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

int run(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: tokenizer_driver FILE_OR_FOLDER [--special]\n");
    return 2;
  }
  const std::filesystem::path path = argv[1];
  const Tokenizer tokenizer = std::filesystem::is_directory(path) ? Tokenizer::from_folder(path)
                                                                  : Tokenizer::from_file(path);
  return answer(tokenizer, argc > 2 && std::strcmp(argv[2], "--special") == 0);
}

}  // namespace
}  // namespace kamerton::text

int main(int argc, char** argv) {
  try {
    return kamerton::text::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

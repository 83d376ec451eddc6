// SPDX-License-Identifier: Apache-2.0
// Bytes a CPU second of encoding beside the Hugging Face `tokenizers` library (peer_tokenizer.py),
// one thread each, turn by turn in one run on the same text:
//   tokenizer_bench --text FILE[,FILE...] --python <python with tokenizers> [--rounds 3]
//   [--megabytes 4] [--threads 2] TOKENIZER.json...
// The files' text is cut into documents of about 2 kB. Prints a table; figures of 10 MB lines
// without blanks and of all threads follow.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "kamerton/text/tokenizer.h"

namespace kamerton::bench {
namespace {

using text::Tokenizer;
using Texts = std::vector<std::string_view>;

struct Options {
  std::map<std::string, std::string> values = {
      {"text", ""}, {"python", ""}, {"rounds", "3"}, {"megabytes", "4"}, {"threads", "2"}};
  std::vector<std::string> tokenizers = {};
  int number(const char* name) const { return std::stoi(values.at(name)); }
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (!argument.starts_with("--")) {
      options.tokenizers.push_back(argument);
    } else if (options.values.count(argument.substr(2)) == 0 || i + 1 == argc) {
      throw std::invalid_argument("unknown or incomplete option " + argument);
    } else {
      options.values[argument.substr(2)] = argv[++i];
    }
  }
  return options;
}

std::string read_all(const std::string& list, size_t bytes) {
  std::string text;
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    std::ifstream file(list.substr(at, end - at), std::ios::binary);
    text.append(std::istreambuf_iterator<char>(file), {});
    at = end + 1;
  }
  while (!text.empty() && text.size() < bytes) {
    text += text.substr(0, bytes - text.size());
  }
  text.resize(std::min(text.size(), bytes));
  return text;
}

/// Cuts at line ends, at least 2,000 bytes each.
Texts documents(const std::string& text) {
  Texts out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin + 2000), text.size() - 1) + 1;
    out.push_back(std::string_view(text).substr(begin, end - begin));
    begin = end;
  }
  return out;
}

/// CPU seconds of this process: they mean something on a busy machine too.
template <class Work>
double cpu_seconds(Work work) {
  const std::clock_t begin = std::clock();
  work();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

template <class Work>
double seconds(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// What the peer needs for the documents of a file, one a line of sizes: seconds and tokens.
std::pair<double, size_t> peer(const Options& options,
                               const std::string& tokenizer,
                               const std::string& sizes) {
  const std::string command =
      fmt::format("RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false '{}' '{}' '{}' '{}'",
                  options.values.at("python"),
                  KAMERTON_PEER_TOKENIZER,
                  tokenizer,
                  sizes);
  FILE* pipe = popen(command.c_str(), "r");
  double time = 0;
  size_t tokens = 0;
  if (pipe == nullptr || std::fscanf(pipe, "%lf %zu", &time, &tokens) != 2) {
    throw std::runtime_error("the peer failed: " + command);
  }
  pclose(pipe);
  return {time, tokens};
}

void compare(const Options& options, const std::string& path, const Texts& texts, size_t bytes) {
  const Tokenizer tokenizer = Tokenizer::from_file(path);
  const auto folder = std::filesystem::temp_directory_path() / "kamerton_tokenizer_bench.txt";
  std::ofstream file(folder, std::ios::binary);
  for (const std::string_view text : texts) {
    file << text.size() << '\n' << text;
  }
  file.close();
  double ours = 1e30;
  double theirs = 1e30;
  double threaded = 1e30;
  size_t tokens = 0;
  size_t their_tokens = 0;
  for (int round = 0; round < options.number("rounds"); ++round) {
    ours = std::min(ours, cpu_seconds([&] {
                      tokens = 0;
                      for (const std::string_view text : texts) {
                        tokens += tokenizer.encode(text, false).size();
                      }
                    }));
    const auto [time, count] = peer(options, path, folder.string());
    theirs = std::min(theirs, time);
    their_tokens = count;
    threaded =
        std::min(threaded,
                 seconds([&] { tokenizer.encode_batch(texts, false, options.number("threads")); }));
  }
  std::filesystem::remove(folder);
  const double mb = static_cast<double>(bytes) / 1e6;
  fmt::print("| {} | {:.1f} | {:.1f} | {:.1f} | {:.1f} | {}{} |\n",
             std::filesystem::path(path).parent_path().filename().string(),
             mb / ours,
             mb / theirs,
             theirs / ours,
             mb / threaded,
             tokens,
             tokens == their_tokens ? "" : fmt::format(" (peer: {})", their_tokens));
  std::fflush(stdout);
}

/// A line of letters without blanks; the time for 10 MB beside that for 1 MB.
void long_line(const std::string& path) {
  const Tokenizer tokenizer = Tokenizer::from_file(path);
  std::string line(10'000'000, 'a');
  uint64_t state = 7;
  for (char& c : line) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    c = static_cast<char>('a' + (state >> 33) % 26);
  }
  const std::string_view whole = line;
  const double small = cpu_seconds([&] { tokenizer.encode(whole.substr(0, 1'000'000), false); });
  const double large = cpu_seconds([&] { tokenizer.encode(whole, false); });
  fmt::print("| {} | {:.2f} | {:.2f} | {:.1f} |\n",
             std::filesystem::path(path).parent_path().filename().string(),
             small,
             large,
             large / small);
  std::fflush(stdout);
}

void run(const Options& options) {
  const std::string text =
      read_all(options.values.at("text"), static_cast<size_t>(options.number("megabytes")) << 20);
  const Texts texts = documents(text);
  fmt::print("{} documents, {} bytes\n\n", texts.size(), text.size());
  fmt::print(
      "| tokenizer | kamerton MB/s | tokenizers MB/s | ratio | kamerton, {} threads | tokens |\n"
      "|---|---|---|---|---|---|\n",
      options.number("threads"));
  for (const std::string& path : options.tokenizers) {
    compare(options, path, texts, text.size());
  }
  fmt::print("\n| one line without blanks | 1 MB, s | 10 MB, s | ratio |\n|---|---|---|---|\n");
  for (const std::string& path : options.tokenizers) {
    long_line(path);
  }
}

}  // namespace
}  // namespace kamerton::bench

int main(int argc, char** argv) {
  try {
    kamerton::bench::run(kamerton::bench::parse(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}

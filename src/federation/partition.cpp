// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/partition.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/core/random.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::federation {
namespace {

using core::Error;
using core::ErrorKind;

constexpr uint64_t kPartitionMostBytes = uint64_t{8} << 30;

/// Gamma(alpha, 1) by Marsaglia and Tsang (2000); `lane` keys the draw.
double gamma_draw(double alpha, uint64_t seed, uint64_t lane) {
  if (alpha < 1) {
    const core::RandomStream boost(seed, "federation.gamma_boost", lane);
    return gamma_draw(alpha + 1, seed, lane) * std::pow(1 - boost.uniform(0), 1 / alpha);
  }
  const core::RandomStream random(seed, "federation.gamma", lane);
  const double d = alpha - 1.0 / 3.0;
  const double c = 1 / std::sqrt(9 * d);
  for (uint64_t i = 0;; i += 2) {
    const double x = random.normal(i);
    const double v = std::pow(1 + c * x, 3);
    const double u = 1 - random.uniform(i + 1);
    if (v > 0 && std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) {
      return d * v;
    }
  }
}

/// Cuts `count` into parts by a draw from a symmetric Dirichlet.
std::vector<int64_t> dirichlet_cut(
    int64_t count, int64_t parts, double alpha, uint64_t seed, uint64_t lane) {
  std::vector<double> draws;
  for (int64_t i = 0; i < parts; ++i) {
    draws.push_back(gamma_draw(alpha, seed, lane * 65536 + static_cast<uint64_t>(i)) + 1e-300);
  }
  const double total = std::accumulate(draws.begin(), draws.end(), 0.0);
  std::vector<int64_t> sizes;
  double sum = 0;
  int64_t given = 0;
  for (const double draw : draws) {
    sum += draw;
    const auto upto = std::llround(static_cast<double>(count) * sum / total);
    sizes.push_back(upto - given);
    given = upto;
  }
  return sizes;
}

/// The records of one pool, in an order that the seed decides, dealt out in parts.
void deal(const std::vector<int64_t>& pool,
          const std::vector<int64_t>& sizes,
          uint64_t seed,
          uint64_t lane,
          std::vector<int64_t>& owner) {
  const core::Permutation order(pool.size(), seed, "federation.deal", lane);
  uint64_t next = 0;
  for (size_t site = 0; site < sizes.size(); ++site) {
    for (int64_t i = 0; i < sizes[site]; ++i) {
      owner[static_cast<size_t>(pool[order(next++)])] = static_cast<int64_t>(site);
    }
  }
}

/// The richest sites give until every site has its least.
void level(int64_t least, int64_t sites, std::vector<int64_t>& owner) {
  std::vector<std::vector<size_t>> records(static_cast<size_t>(sites));
  for (size_t i = 0; i < owner.size(); ++i) {
    records[static_cast<size_t>(owner[i])].push_back(i);
  }
  for (size_t poor = 0; poor < records.size(); ++poor) {
    while (static_cast<int64_t>(records[poor].size()) < least) {
      auto& rich = *std::max_element(
          records.begin(), records.end(), [](auto& a, auto& b) { return a.size() < b.size(); });
      owner[rich.back()] = static_cast<int64_t>(poor);
      records[poor].push_back(rich.back());
      rich.pop_back();
    }
  }
}

std::vector<std::string> lines_of(const std::vector<std::string>& files) {
  std::vector<std::string> lines;
  for (const std::string& file : files) {
    const std::string text = storage::posix_filesystem().read_file(file, kPartitionMostBytes);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      if (text.find_first_not_of(" \t\r", begin) < end) {
        lines.push_back(text.substr(begin, end - begin));
      }
      begin = end + 1;
    }
  }
  return lines;
}

std::vector<std::string> labels_of(const std::vector<std::string>& lines, const std::string& key) {
  std::vector<std::string> labels;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string origin = fmt::format("record {}", i + 1);
    const core::Json record = core::parse_json(lines[i], origin);
    const core::Json* label = core::json_find(record, key);
    if (label == nullptr) {
      throw Error(ErrorKind::Data,
                  {.where = "federation.partition",
                   .what = origin + " has no label",
                   .allowed = fmt::format("a value for '{}' in every record", key),
                   .hint = "federation.partition.label, or kind: iid"});
    }
    labels.push_back(label->dump());
  }
  return labels;
}

}  // namespace

std::vector<int64_t> partition(const PartitionConfig& config,
                               int64_t records,
                               const std::vector<std::string>& labels,
                               uint64_t seed) {
  if (records < config.sites * config.min_examples) {
    throw Error(
        ErrorKind::Config,
        {.where = "federation.partition",
         .what = "too few records for so many sites",
         .got = fmt::format(
             "{} records, {} sites of at least {}", records, config.sites, config.min_examples)});
  }
  std::map<std::string, std::vector<int64_t>> pools;
  for (int64_t i = 0; i < records; ++i) {
    pools[config.kind == "dirichlet" ? labels[static_cast<size_t>(i)] : ""].push_back(i);
  }
  std::vector<int64_t> owner(static_cast<size_t>(records), 0);
  uint64_t lane = 0;
  for (const auto& [label, pool] : pools) {
    const auto count = static_cast<int64_t>(pool.size());
    std::vector<int64_t> sizes;
    if (config.kind == "iid") {
      for (int64_t site = 0; site < config.sites; ++site) {
        sizes.push_back(count * (site + 1) / config.sites - count * site / config.sites);
      }
    } else {
      sizes = dirichlet_cut(count, config.sites, config.alpha, seed, lane);
    }
    deal(pool, sizes, seed, lane, owner);
    ++lane;
  }
  level(config.min_examples, config.sites, owner);
  return owner;
}

std::vector<SiteConfig> write_partition(const PartitionConfig& config,
                                        const std::vector<std::string>& files,
                                        const std::filesystem::path& folder,
                                        uint64_t seed) {
  const std::vector<std::string> lines = lines_of(files);
  const std::vector<std::string> labels =
      config.kind == "dirichlet" ? labels_of(lines, config.label) : std::vector<std::string>();
  const std::vector<int64_t> owner =
      partition(config, static_cast<int64_t>(lines.size()), labels, seed);
  std::vector<std::string> texts(static_cast<size_t>(config.sites));
  for (size_t i = 0; i < lines.size(); ++i) {
    texts[static_cast<size_t>(owner[i])] += lines[i] + "\n";
  }
  storage::FileSystem& system = storage::posix_filesystem();
  system.make_directories(folder);
  std::vector<SiteConfig> sites;
  for (size_t site = 0; site < texts.size(); ++site) {
    const std::string name = fmt::format("site-{:03d}", site);
    const std::filesystem::path path = folder / (name + ".jsonl");
    if (!system.file_size(path).has_value() ||
        system.read_file(path, kPartitionMostBytes) != texts[site]) {  // untouched on resume
      storage::write_file_atomic(system, path, texts[site]);
    }
    sites.push_back({name, {path.string()}, {}});
  }
  return sites;
}

}  // namespace kamerton::federation

// SPDX-License-Identifier: Apache-2.0
// The visitor that fills a struct from a tree.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kamerton/config/field.h"

#include "yaml_tree.h"

namespace kamerton::config {

class Loader : public Fields {
 public:
  /// `place_of` says where a key that is unknown here belongs, or nothing.
  Loader(const YamlNode& root,
         const YamlSources& sources,
         std::function<std::string(const std::string&)> place_of);
  /// To be called after describe(): reports keys that nobody asked for at the top level.
  void finish();

 protected:
  void visit_bool(std::string_view name, bool& value, const Doc& doc) override;
  void visit_int(std::string_view name, int64_t& value, const Doc& doc) override;
  void visit_double(std::string_view name, double& value, const Doc& doc) override;
  void visit_string(std::string_view name, std::string& value, const Doc& doc) override;
  void visit_strings(std::string_view name,
                     std::vector<std::string>& value,
                     const Doc& doc) override;
  void visit_doubles(std::string_view name, std::vector<double>& value, const Doc& doc) override;
  void visit_optional_int(std::string_view name,
                          std::optional<int64_t>& value,
                          const Doc& doc) override;
  void visit_optional_double(std::string_view name,
                             std::optional<double>& value,
                             const Doc& doc) override;
  void visit_optional_string(std::string_view name,
                             std::optional<std::string>& value,
                             const Doc& doc) override;
  bool enter(std::string_view name, std::string_view text) override;
  void leave() override;
  ListPlan enter_list(std::string_view name, std::string_view text, size_t present) override;
  void enter_item(size_t index) override;
  void leave_list() override;

 private:
  struct Level {
    const YamlNode* node = nullptr;  // null: absent, the defaults stay
    std::string path;
    std::vector<std::string> names;  // what describe() asked for
  };

  const YamlNode* take(std::string_view name);
  std::string path_of(std::string_view name) const;
  void check_unknown(const Level& level) const;
  void check_is_map(const YamlNode& node, const std::string& path) const;
  ListPlan plan_patch(const YamlNode& node, const std::string& path, size_t present) const;
  [[noreturn]] void refuse(const YamlNode& node,
                           const std::string& path,
                           const std::string& allowed,
                           const std::string& hint) const;
  int64_t to_int(const YamlNode& node, const std::string& path, const Doc& doc) const;
  double to_double(const YamlNode& node, const std::string& path, const Doc& doc) const;
  std::string to_string(const YamlNode& node, const std::string& path, const Doc& doc) const;
  const std::vector<YamlNode>& to_list(const YamlNode& node,
                                       const std::string& path,
                                       const std::string& allowed) const;

  const YamlSources& sources_;
  std::function<std::string(const std::string&)> place_of_;
  std::vector<Level> levels_;
};

}  // namespace kamerton::config

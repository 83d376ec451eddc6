// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

#include "scalar.h"

namespace kamerton::config {
namespace {

class Dumper : public Fields {
 public:
  std::string text;

 protected:
  void visit_bool(std::string_view name, bool& value, const Doc&) override {
    line(name, value ? "true" : "false");
  }
  void visit_int(std::string_view name, int64_t& value, const Doc&) override {
    line(name, std::to_string(value));
  }
  void visit_double(std::string_view name, double& value, const Doc&) override {
    line(name, number(name, value));
  }
  void visit_string(std::string_view name, std::string& value, const Doc&) override {
    line(name, quote_string(value));
  }
  void visit_strings(std::string_view name, std::vector<std::string>& value, const Doc&) override {
    std::vector<std::string> items;
    for (const std::string& item : value) {
      items.push_back(quote_string(item));
    }
    line(name, flow(items));
  }
  void visit_doubles(std::string_view name, std::vector<double>& value, const Doc&) override {
    std::vector<std::string> items;
    for (const double item : value) {
      items.push_back(number(name, item));
    }
    line(name, flow(items));
  }
  void visit_optional_int(std::string_view name,
                          std::optional<int64_t>& value,
                          const Doc&) override {
    line(name, value ? std::to_string(*value) : "null");
  }
  void visit_optional_double(std::string_view name,
                             std::optional<double>& value,
                             const Doc&) override {
    line(name, value ? number(name, *value) : "null");
  }
  void visit_optional_string(std::string_view name,
                             std::optional<std::string>& value,
                             const Doc&) override {
    line(name, value ? quote_string(*value) : "null");
  }
  bool enter(std::string_view name, std::string_view) override {
    start_line();
    text += std::string(name) + ":\n";
    ++depth_;
    return true;
  }
  void leave() override {
    --depth_;
    if (starts_item_) {  // an element without a single knob
      starts_item_ = false;
      text += std::string(2 * depth_, ' ') + "- {}\n";
    }
  }
  ListPlan enter_list(std::string_view name, std::string_view, size_t present) override {
    start_line();
    text += std::string(name) + (present == 0 ? ": []\n" : ":\n");
    ++depth_;
    return {present, false};
  }
  void enter_item(size_t) override {
    starts_item_ = true;
    ++depth_;
  }
  void leave_list() override { --depth_; }

 private:
  /// Indentation; the first line of a list element carries its dash.
  void start_line() {
    if (starts_item_) {
      text += std::string(2 * (depth_ - 1), ' ') + "- ";
      starts_item_ = false;
    } else {
      text += std::string(2 * depth_, ' ');
    }
  }
  void line(std::string_view name, const std::string& value) {
    start_line();
    text += std::string(name) + ": " + value + "\n";
  }
  static std::string number(std::string_view name, double value) {
    if (!std::isfinite(value)) {
      throw core::Error(
          core::ErrorKind::Internal,
          {.where = "config.dump",
           .what = "the knob '" + std::string(name) + "' holds a number that is not finite",
           .got = std::to_string(value)});
    }
    return format_double(value);
  }
  static std::string flow(const std::vector<std::string>& items) {
    std::string result = "[";
    for (size_t i = 0; i < items.size(); ++i) {
      result += (i == 0 ? "" : ", ") + items[i];
    }
    return result + "]";
  }

  size_t depth_ = 0;
  bool starts_item_ = false;
};

}  // namespace

std::string dump_yaml(const std::function<void(Fields&)>& describe_config) {
  Dumper dumper;
  describe_config(dumper);
  return std::move(dumper.text);
}

}  // namespace kamerton::config

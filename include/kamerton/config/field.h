// SPDX-License-Identifier: Apache-2.0
// One declaration per knob. Loading, validation, --help, configs/README.md and the resolved dump
// all derive from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace kamerton::config {

/// What is said about a knob, once.
struct Doc {
  std::string text;       ///< what it does, one sentence
  std::string unit = {};  ///< "tokens", "optimizer updates", ...
  std::string cost = {};  ///< what raising or setting it costs, if anything
  double min = -std::numeric_limits<double>::infinity();  ///< numbers only, inclusive
  double max = std::numeric_limits<double>::infinity();
  bool min_exclusive = false;
  std::vector<std::string> choices =
      {};  ///< strings only: the allowed values, first is conventional
};

/// Visits the knobs of a configuration struct. A config struct `C` declares them in a free function
///   void describe(config::Fields& f, C& c) { f.knob("steps", c.steps, {...}); f.section("optim",
///   c.optim, "..."); }
/// found by argument-dependent lookup. Visitors (loader, dumper, help) implement the protected
/// virtuals.
class Fields {
 public:
  virtual ~Fields() = default;

  void knob(std::string_view name, bool& value, const Doc& doc) { visit_bool(name, value, doc); }
  void knob(std::string_view name, int64_t& value, const Doc& doc) { visit_int(name, value, doc); }
  void knob(std::string_view name, double& value, const Doc& doc) {
    visit_double(name, value, doc);
  }
  void knob(std::string_view name, std::string& value, const Doc& doc) {
    visit_string(name, value, doc);
  }
  void knob(std::string_view name, std::vector<std::string>& value, const Doc& doc) {
    visit_strings(name, value, doc);
  }
  void knob(std::string_view name, std::vector<double>& value, const Doc& doc) {
    visit_doubles(name, value, doc);
  }
  /// Absent until set ("none" in help; null or absent in YAML).
  void knob(std::string_view name, std::optional<int64_t>& value, const Doc& doc) {
    visit_optional_int(name, value, doc);
  }
  void knob(std::string_view name, std::optional<double>& value, const Doc& doc) {
    visit_optional_double(name, value, doc);
  }
  void knob(std::string_view name, std::optional<std::string>& value, const Doc& doc) {
    visit_optional_string(name, value, doc);
  }

  /// A nested struct with its own describe().
  template <class Section>
  void section(std::string_view name, Section& value, std::string_view text) {
    if (enter(name, text)) {
      describe(*this, value);
      leave();
    }
  }

  /// A list of structs (data sources, tasks). A list that the file gives replaces the default one;
  /// help shows one element.
  template <class Section>
  void list(std::string_view name, std::vector<Section>& values, std::string_view text) {
    if (shows_examples()) {
      Section example{};
      enter_list(name, text, 1);
      enter_item(0);
      describe(*this, example);
      leave();
      leave_list();
      return;
    }
    const ListPlan plan = enter_list(name, text, values.size());
    if (plan.starts_empty) {
      values.clear();
    }
    values.resize(plan.count);
    for (size_t i = 0; i < plan.count; ++i) {
      enter_item(i);
      describe(*this, values[i]);
      leave();
    }
    leave_list();
  }

 protected:
  virtual void visit_bool(std::string_view name, bool& value, const Doc& doc) = 0;
  virtual void visit_int(std::string_view name, int64_t& value, const Doc& doc) = 0;
  virtual void visit_double(std::string_view name, double& value, const Doc& doc) = 0;
  virtual void visit_string(std::string_view name, std::string& value, const Doc& doc) = 0;
  virtual void visit_strings(std::string_view name,
                             std::vector<std::string>& value,
                             const Doc& doc) = 0;
  virtual void visit_doubles(std::string_view name, std::vector<double>& value, const Doc& doc) = 0;
  virtual void visit_optional_int(std::string_view name,
                                  std::optional<int64_t>& value,
                                  const Doc& doc) = 0;
  virtual void visit_optional_double(std::string_view name,
                                     std::optional<double>& value,
                                     const Doc& doc) = 0;
  virtual void visit_optional_string(std::string_view name,
                                     std::optional<std::string>& value,
                                     const Doc& doc) = 0;
  /// false: nothing of the section is wanted.
  virtual bool enter(std::string_view name, std::string_view text) = 0;
  virtual void leave() = 0;
  /// How many elements there shall be, and whether those present (the defaults) are dropped first.
  struct ListPlan {
    size_t count = 0;
    bool starts_empty = false;
  };
  virtual ListPlan enter_list(std::string_view name, std::string_view text, size_t present) = 0;
  virtual void enter_item(size_t index) = 0;
  virtual void leave_list() = 0;
  virtual bool shows_examples() const { return false; }
};

}  // namespace kamerton::config

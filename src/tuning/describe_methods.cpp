// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/describe_methods.h"

#include <fmt/format.h>

#include "method.h"

namespace kamerton::tuning {

std::string methods_text() {
  std::string text;
  for (const Method& method : methods()) {
    text += fmt::format("{} ({}): {}\n", method.name, method.peft_type, method.text);
    for (const Setting& setting : method.settings) {
      text += fmt::format("  {:<34}{:<14}{}\n", setting.name, setting.value.dump(), setting.text);
    }
  }
  return text;
}

}  // namespace kamerton::tuning

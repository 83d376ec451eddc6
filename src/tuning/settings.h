// SPDX-License-Identifier: Apache-2.0
// Settings of a method, checked against its table row.
#pragma once

#include <string>

#include "method.h"

namespace kamerton::tuning {

core::Json default_settings(const Method& method);
/// "NAME=VALUE" from a configuration; ErrorKind::Config with the nearest name.
void take_setting(const Method& method, const std::string& line, core::Json& settings);
/// The settings that a PEFT configuration gives, defaults for the others; ErrorKind::Data for a
/// value of another type.
core::Json settings_of(const Method& method, const core::Json& config, const std::string& origin);

}  // namespace kamerton::tuning

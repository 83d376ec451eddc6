// SPDX-License-Identifier: Apache-2.0
// The secret that all noise of a place is a function of.
#pragma once

#include <filesystem>

#include "kamerton/privacy/secret.h"

namespace kamerton::privacy {

/// The key in `folder`/noise.key, made (mode 0600) when it is missing; processes that start
/// together find the same one. Who knows it can take the noise off: it stays at its place.
Secret noise_key(const std::filesystem::path& folder);

}  // namespace kamerton::privacy

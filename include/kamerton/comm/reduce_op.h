// SPDX-License-Identifier: Apache-2.0
// How values of different ranks become one.
#pragma once

namespace kamerton::comm {

enum class Reduce { Sum, Max, Min };

}  // namespace kamerton::comm

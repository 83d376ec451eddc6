// SPDX-License-Identifier: Apache-2.0
#include "family.h"

namespace kamerton::model {

const std::vector<const Family*>& families() {
  static const std::vector<const Family*> all = {&kLlama, &kMistral, &kQwen2, &kQwen3};
  return all;
}

}  // namespace kamerton::model

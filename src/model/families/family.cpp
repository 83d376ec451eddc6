// SPDX-License-Identifier: Apache-2.0
#include "family.h"

#include "kamerton/core/error.h"

namespace kamerton::model {

const std::vector<const Family*>& families() {
  static const std::vector<const Family*> all = {&kLlama,
                                                 &kMistral,
                                                 &kMixtral,
                                                 &kQwen2,
                                                 &kQwen3,
                                                 &kQwen3Moe,
                                                 &kGemma2,
                                                 &kGemma3,
                                                 &kPhi3,
                                                 &kGpt2,
                                                 &kGptNeox,
                                                 &kOlmo2,
                                                 &kGranite};
  return all;
}

const Family& family_of(const DecoderConfig& config) {
  for (const Family* family : families()) {
    if (family->architecture == config.architecture) {
      return *family;
    }
  }
  throw core::Error(core::ErrorKind::Internal,
                    {.where = "model.families",
                     .what = "a configuration of no known family",
                     .got = config.architecture});
}

}  // namespace kamerton::model

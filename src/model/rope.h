// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies by transformers' modeling_rope_utils, and the tables of a batch.
#pragma once

#include <ATen/core/Tensor.h>

#include "kamerton/model/architecture.h"
#include "kamerton/tensor/attention.h"

#include "config_reader.h"

namespace kamerton::model {

/// Reads rope_parameters, or rope_theta + rope_scaling, into config.rope (and config.local_rope,
/// where there is one: nested rope_parameters, or rope_local_base_freq). Family defaults are in
/// there already. ErrorKind::Data for an unknown type or spellings that disagree.
void read_rope(const ConfigReader& reader, DecoderConfig& config);

/// Rotated dimensions of a head.
int64_t rotated_dims(const DecoderConfig& config, const RopeConfig& rope);

/// Angles a position: fp32 [rotated / 2]. `length` is the document's ("dynamic" and "longrope"
/// ask); factor receives what cos and sin are multiplied by.
at::Tensor inverse_frequencies(const DecoderConfig& config,
                               const RopeConfig& rope,
                               int64_t length,
                               double& factor);

/// cos and sin of the positions [N] of documents [offsets[d], offsets[d + 1]). Where the
/// frequencies depend on the length, each document's own decides: the result does not depend on its
/// neighbours.
tensor::Rotary rotary_table(const DecoderConfig& config,
                            const RopeConfig& rope,
                            const at::Tensor& positions_N,
                            const std::vector<int64_t>& offsets);

/// The length above which the frequencies of a document change (longrope), 0: they never do.
int64_t length_of_change(const DecoderConfig& config);

}  // namespace kamerton::model

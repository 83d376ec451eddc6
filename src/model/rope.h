// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies by transformers' modeling_rope_utils, and the tables of a batch.
#pragma once

#include <ATen/core/Tensor.h>

#include "kamerton/model/architecture.h"
#include "kamerton/tensor/attention.h"

#include "config_reader.h"

namespace kamerton::model {

/// Reads rope_parameters, or rope_theta + rope_scaling, into config.rope. ErrorKind::Data for an
/// unknown type.
void read_rope(const ConfigReader& reader, DecoderConfig& config);

/// Rotated dimensions of a head.
int64_t rotated_dims(const DecoderConfig& config);

/// Angles a position: fp32 [rotated / 2]. `length` is the longest sequence (used by "dynamic"
/// only); factor receives what cos and sin are multiplied by.
at::Tensor inverse_frequencies(const DecoderConfig& config, int64_t length, double& factor);

/// cos and sin of the positions [N].
tensor::Rotary rotary_table(const DecoderConfig& config, const at::Tensor& positions_N);

}  // namespace kamerton::model

// SPDX-License-Identifier: Apache-2.0
// Losses over pairs of answers, as functions of their log-probabilities alone.
#pragma once

#include <utility>

#include <ATen/core/Tensor.h>

#include "kamerton/objective/config.h"

namespace kamerton::objective {

/// P pairs of a micro-batch; everything fp32 [P]. Policy values carry gradients.
struct PairLogProbs {
  at::Tensor chosen_P;  ///< sum over the answer's tokens of log p(token)
  at::Tensor rejected_P;
  at::Tensor ref_chosen_P;  ///< of the reference model; undefined where the loss needs none
  at::Tensor ref_rejected_P;
  at::Tensor chosen_tokens_P;  ///< lengths of the answers
  at::Tensor rejected_tokens_P;
};

/// DPO (Rafailov et al. 2023) and its relatives, each weighted and summed, one value a pair:
/// sigmoid, cdpo (label smoothing of Mitchell 2023), hinge (SLiC), ipo (Azar et al. 2023, averaged
/// over tokens), sigmoid_norm, exo_pair (Ji et al. 2024), nca_pair (Chen et al. 2024), robust
/// (Chowdhury et al. 2024), bco_pair (Jung et al. 2024), sppo_hard (Wu et al. 2024), aot and
/// aot_unpaired (Melnyk et al. 2024; they sort within the micro-batch), apo_zero and apo_down
/// (D'Oosterlinck et al. 2024), discopop (Lu et al. 2024). "sft" is no function of a pair and left
/// out: see sft_weight.
at::Tensor dpo_losses(const ObjectiveConfig& config, const PairLogProbs& pairs);

/// CPO (Xu et al. 2024: sigmoid, hinge, ipo), SimPO (Meng et al. 2024) and AlphaPO, without a
/// reference; one value a pair, without the likelihood term of cpo_alpha.
at::Tensor cpo_losses(const ObjectiveConfig& config, const PairLogProbs& pairs);

/// ORPO's odds-ratio term (Hong et al. 2024), one value a pair, without the likelihood term.
at::Tensor orpo_losses(const ObjectiveConfig& config, const PairLogProbs& pairs);

/// The method's losses.
at::Tensor pair_losses(const ObjectiveConfig& config, const PairLogProbs& pairs);

/// What the negative log-likelihood of the better answers, a mean over their tokens, is weighted
/// with: the weight of "sft" in DPO, cpo_alpha in CPO, 1 in ORPO.
double likelihood_weight(const ObjectiveConfig& config);

/// {better, worse answers'} log-probabilities as the method counts them: means over tokens for ORPO
/// and CPO's ipo and simpo, else sums.
std::pair<at::Tensor, at::Tensor> answer_log_probs(const ObjectiveConfig& config,
                                                   const PairLogProbs& pairs);

/// {rewards of better, of worse answers}, for metrics: beta times the log-ratio to the reference,
/// or times the (averaged) log-probability where there is none. Detached.
std::pair<at::Tensor, at::Tensor> implicit_rewards(const ObjectiveConfig& config,
                                                   const PairLogProbs& pairs);

}  // namespace kamerton::objective

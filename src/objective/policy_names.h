// SPDX-License-Identifier: Apache-2.0
// Names of what is attached to the tokens of generated answers.
#pragma once

namespace kamerton::objective {

inline constexpr char kAdvantages[] = "advantages";
inline constexpr char kOldLogProbs[] = "old log-probabilities";
inline constexpr char kReferenceLogProbs[] = "reference log-probabilities";
inline constexpr char kOldValues[] = "old values";
inline constexpr char kReturns[] = "returns";

}  // namespace kamerton::objective

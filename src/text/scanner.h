// SPDX-License-Identifier: Apache-2.0
// The pre-tokenizer expressions of GPT-2, Llama 3, Qwen2, cl100k and o200k as hand-written scanners
// (several times PCRE2's speed; a test compares the two on random text).
#pragma once

#include <string_view>
#include <vector>

#include "aligned_text.h"

namespace kamerton::text {

/// Words: the Whitespace pre-tokenizer's \w+|[^\w\s]+, in which \w is Unicode's alphabetic
/// characters, marks, digits and connectors; its pieces leave the blanks out.
enum class Scan { None, Gpt2, Llama3, Qwen2, Cl100k, O200k, Words };

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

inline constexpr std::string_view kCl100kPattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)";
inline constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// The scanner for a pattern, or None.
Scan scanner_for(std::string_view pattern);

/// Appends the pieces of s[begin, end): they cover it without gaps. Linear.
void scan(Scan kind, std::string_view s, Span range, std::vector<Span>& pieces);

}  // namespace kamerton::text

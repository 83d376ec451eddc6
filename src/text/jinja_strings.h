// SPDX-License-Identifier: Apache-2.0
// Python's string operations on UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kamerton::text::jinja {

class Interpreter;

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalized(std::string_view text);
/// str.title: a letter that follows a letter is small.
std::string title_words(std::string_view text);
std::string swapped_case(std::string_view text);

bool is_digits(std::string_view text);
bool is_letters(std::string_view text);
bool is_letters_or_digits(std::string_view text);
bool is_blank(std::string_view text);
bool is_upper(std::string_view text);
bool is_lower(std::string_view text);

std::string strip_blanks(std::string_view text, bool left, bool right);
std::string strip_chars(std::string_view text, std::string_view chars, bool left, bool right);
/// At most `most` cuts, all where it is negative.
std::vector<std::string> split_blanks(std::string_view text, int64_t most, bool from_right);
std::vector<std::string> split_by(std::string_view text,
                                  std::string_view separator,
                                  int64_t most,
                                  bool from_right);
std::vector<std::string> split_lines(std::string_view text, bool keep_ends);

int64_t count_of(std::string_view text, std::string_view wanted);
std::string replaced(std::string_view text,
                     std::string_view from,
                     std::string_view to,
                     int64_t most,
                     const Interpreter& interpreter);
/// align: < ^ >
std::string pad(std::string_view text,
                int64_t width,
                std::string_view fill,
                char align,
                const Interpreter& interpreter);
/// Counts the work of a search against the template's limits.
void charge_search(std::string_view text, std::string_view wanted);

}  // namespace kamerton::text::jinja

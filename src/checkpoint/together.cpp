// SPDX-License-Identifier: Apache-2.0
#include "together.h"

#include <charconv>
#include <new>
#include <string>

#include "kamerton/core/error.h"

namespace kamerton::checkpoint {
namespace {

/// "<kind> <text>"
std::string in_words(const std::exception_ptr& failure) {
  const auto words = [](core::ErrorKind kind, const std::string& text) {
    return std::to_string(static_cast<int>(kind)) + " " + text;
  };
  try {
    std::rethrow_exception(failure);
  } catch (const core::Error& error) {
    return words(error.kind(), error.what());
  } catch (const std::bad_alloc&) {
    return words(core::ErrorKind::Io, "[checkpoint] out of memory");
  } catch (const std::exception& error) {
    return words(core::ErrorKind::Internal, error.what());
  }
}

}  // namespace

void agree(const comm::Group& group, std::exception_ptr mine) {
  if (!group.any(mine != nullptr)) {
    return;
  }
  if (group.size() == 1) {
    std::rethrow_exception(mine);
  }
  const auto all = group.all_gather(std::string_view(mine ? in_words(mine) : std::string()));
  for (size_t rank = 0; rank < all.size(); ++rank) {
    const auto& words = all[rank];
    const auto space = words.find(' ');
    if (space == std::string::npos) {
      continue;
    }
    int kind = static_cast<int>(core::ErrorKind::Internal);
    std::from_chars(words.data(), words.data() + space, kind);
    throw core::Error(static_cast<core::ErrorKind>(kind),
                      words.substr(space + 1) + " (rank " + std::to_string(rank) + ")");
  }
}

}  // namespace kamerton::checkpoint

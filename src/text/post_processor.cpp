// SPDX-License-Identifier: Apache-2.0
#include "post_processor.h"

#include <nlohmann/json.hpp>

#include "json_reader.h"

namespace kamerton::text {
namespace {

int32_t id_from(const core::Json& json, const std::string& origin) {
  if (!json.is_number_integer() || json.get<int64_t>() < 0 || json.get<int64_t>() > INT32_MAX) {
    refuse(origin, "a post-processor's id is not an id", json.dump());
  }
  return json.get<int32_t>();
}

}  // namespace

PostProcessor PostProcessor::from_json(const core::Json& json, const std::string& origin) {
  PostProcessor post;
  if (!json.is_null()) {
    post.add(json, origin, 0);
  }
  return post;
}

void PostProcessor::add(const core::Json& json, const std::string& origin, int depth) {
  const std::string type = type_of(json, origin);
  if (type == "Sequence") {
    const core::Json* list = core::json_find(json, "processors");
    if (list == nullptr || !list->is_array() || depth > 8 || list->size() > 256) {
      refuse(origin, "a post-processor Sequence must hold a list of at most 256 'processors'");
    }
    for (const core::Json& item : *list) {
      add(item, origin, depth + 1);
    }
  } else if (type == "ByteLevel") {
    trim_offsets = flag(json, "trim_offsets", true);
    keeps_first_space = flag(json, "add_prefix_space", true);
  } else if (type == "TemplateProcessing") {
    add_template(json, origin);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    if (type == "RobertaProcessing") {
      trim_offsets = flag(json, "trim_offsets", true);
      keeps_first_space = flag(json, "add_prefix_space", true);
    }
    add_pair(json, origin);
  } else {
    refuse(origin, "this post-processor is not supported", type);
  }
}

void PostProcessor::add_pair(const core::Json& json, const std::string& origin) {
  for (const char* key : {"cls", "sep"}) {
    const core::Json* pair = core::json_find(json, key);
    if (pair == nullptr || !pair->is_array() || pair->size() != 2) {
      refuse(origin, std::string("the post-processor's '") + key + "' must be [token, id]");
    }
    const int32_t id = id_from((*pair)[1], origin);
    if (std::string_view(key) == "cls") {
      before.insert(before.begin(), id);
    } else {
      after.push_back(id);
    }
  }
}

void PostProcessor::add_template(const core::Json& json, const std::string& origin) {
  const core::Json* single = core::json_find(json, "single");
  const core::Json* tokens = core::json_find(json, "special_tokens");
  if (single == nullptr || !single->is_array() || tokens == nullptr || !tokens->is_object()) {
    refuse(origin, "TemplateProcessing needs 'single' and 'special_tokens'");
  }
  bool seen_text = false;
  std::vector<int32_t> front;
  for (const core::Json& piece : *single) {
    if (piece.is_object() && piece.contains("Sequence")) {
      if (seen_text) {
        refuse(origin, "TemplateProcessing names the text twice");
      }
      seen_text = true;
      continue;
    }
    const core::Json* special =
        piece.is_object() ? core::json_find(piece, "SpecialToken") : nullptr;
    const core::Json* entry = special != nullptr && special->is_object()
                                  ? core::json_find(*tokens, word(*special, "id", ""))
                                  : nullptr;
    const core::Json* ids =
        entry != nullptr && entry->is_object() ? core::json_find(*entry, "ids") : nullptr;
    if (ids == nullptr || !ids->is_array()) {
      refuse(origin,
             "TemplateProcessing names a token that special_tokens does not hold",
             piece.dump());
    }
    for (const core::Json& id : *ids) {
      (seen_text ? after : front).push_back(id_from(id, origin));
    }
  }
  if (!seen_text) {
    refuse(origin, "TemplateProcessing leaves the text out");
  }
  before.insert(before.begin(), front.begin(), front.end());
}

}  // namespace kamerton::text

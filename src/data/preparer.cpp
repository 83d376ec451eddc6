// SPDX-License-Identifier: Apache-2.0
#include "preparer.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/text/bundle.h"

#include "chat_mask.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

constexpr char kPreparerWhere[] = "data.mask";

bool is_assistant(const Json& message) {
  return message.value("role", std::string()) == "assistant";
}

/// The same error with the record's place in front.
[[noreturn]] void rethrow_at(const std::string& origin, const Error& error) {
  const std::string text = error.what();
  if (error.kind() != ErrorKind::Data || text.find(origin) != std::string::npos) {
    throw error;
  }
  throw Error(error.kind(), {.where = kPreparerWhere, .what = origin + ": " + text});
}

}  // namespace

Preparer::Preparer(const text::TokenizerBundle& bundle, TrainOn train_on, int64_t template_time)
    : bundle_(&bundle), train_on_(train_on) {
  options_.now = template_time;
}

const text::ChatTemplate& Preparer::chat_template(const Record& record) const {
  if (!bundle_->chat_template) {
    throw Error(
        ErrorKind::Config,
        {.where = kPreparerWhere,
         .what = record.origin + ": the record is a conversation, but the model has no chat "
                                 "template",
         .hint = "an instruct model, a chat_template.jinja in the model's folder, or "
                 "records of text"});
  }
  return *bundle_->chat_template;
}

std::string Preparer::with_end(std::string text) const {
  return text.ends_with(bundle_->eos_text) ? text : text + bundle_->eos_text;
}

Tokenized Preparer::prepare(const Record& record) const {
  try {
    switch (record.kind) {
      case Record::Kind::Chat:
        return prepare_chat(record);
      case Record::Kind::Pair:
        return prepare_pair(record);
      case Record::Kind::Tokens:
        throw Error(
            ErrorKind::Internal,
            {.where = kPreparerWhere, .what = record.origin + ": the record is tokens already"});
      case Record::Kind::Text:
        break;
    }
    return prepare_text(record);
  } catch (const Error& error) {
    rethrow_at(record.origin, error);
  }
}

TokenizedPair Preparer::prepare_preference(const Record& record) const {
  TokenizedPair pair{prepare(record), prepare(*record.rejected)};
  const auto start = [](const Tokenized& tokenized) {
    return std::find(tokenized.trained.begin(), tokenized.trained.end(), uint8_t{1}) -
           tokenized.trained.begin();
  };
  const auto common = std::min(start(pair.chosen), start(pair.rejected));
  for (Tokenized* one : {&pair.chosen, &pair.rejected}) {
    one->boundary_moved = one->boundary_moved || start(*one) != common;
    std::fill(one->trained.begin() + common, one->trained.end(), uint8_t{1});
  }
  return pair;
}

Tokenized Preparer::prepare_text(const Record& record) const {
  Tokenized result;
  result.ids = bundle_->tokenizer.encode(with_end(record.completion), true);
  result.trained.assign(result.ids.size(), 1);
  return result;
}

/// As TRL: the completion starts where the tokens of the prompt and of the whole differ.
void Preparer::clear_prompt(const std::vector<int32_t>& prompt, Tokenized& result) const {
  const size_t limit = std::min(prompt.size(), result.ids.size());
  const auto length =
      std::mismatch(
          prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(limit), result.ids.begin())
          .first -
      prompt.begin();
  std::fill_n(result.trained.begin(), length, uint8_t{0});
  result.boundary_moved = static_cast<size_t>(length) < prompt.size();
}

Tokenized Preparer::prepare_pair(const Record& record) const {
  Tokenized result;
  result.ids = bundle_->tokenizer.encode(with_end(record.prompt + record.completion), true);
  result.trained.assign(result.ids.size(), 1);
  if (train_on_ == TrainOn::Completion) {
    clear_prompt(bundle_->tokenizer.encode(record.prompt, true), result);
  } else if (train_on_ == TrainOn::Assistant) {
    throw Error(ErrorKind::Config,
                {.where = kPreparerWhere,
                 .what = record.origin + ": plain text has no assistant turns",
                 .hint = "data.train_on: completion or all"});
  }
  return result;
}

int64_t Preparer::prompt_length(const Record& record) const {
  if (record.prompt_messages >= 0) {
    return record.prompt_messages;
  }
  const auto count = static_cast<int64_t>(record.messages->size());
  if (!is_assistant(record.messages->back())) {
    throw Error(ErrorKind::Data,
                {.where = kPreparerWhere,
                 .what = record.origin + ": the last message is not the assistant's, so there is "
                                         "no completion to train"});
  }
  return count - 1;
}

std::string Preparer::render_prompt(const Record& record, int64_t count) const {
  const Json prompt(Json::array_t(record.messages->begin(), record.messages->begin() + count));
  text::RenderOptions asking = options_;
  asking.add_generation_prompt = true;
  return chat_template(record).render(prompt, asking, *record.template_variables).text;
}

Tokenized Preparer::prepare_chat(const Record& record) const {
  const text::ChatTemplate& form = chat_template(record);
  const text::Tokenizer& tokenizer = bundle_->tokenizer;
  Tokenized result;
  std::string text;
  if (train_on_ == TrainOn::Assistant) {
    MaskedChat chat =
        mask_chat(form, *record.messages, *record.template_variables, options_, record.origin);
    text::Encoding encoding = tokenizer.encode_with_offsets(chat.text, false);
    result.ids = std::move(encoding.ids);
    result.trained.assign(result.ids.size(), 0);
    mark_spans(chat.assistant, encoding.offsets, result.trained);
    text = std::move(chat.text);
  } else {
    text = form.render(*record.messages, options_, *record.template_variables).text;
    result.ids = tokenizer.encode(text, false);
    result.trained.assign(result.ids.size(), 1);
  }
  const bool cut_prompt = train_on_ == TrainOn::Completion ||
                          (train_on_ == TrainOn::Assistant && record.prompt_messages >= 0);
  if (cut_prompt) {
    const std::string prompt = render_prompt(record, prompt_length(record));
    if (!text.starts_with(prompt)) {
      throw Error(ErrorKind::Data,
                  {.where = kPreparerWhere,
                   .what = record.origin + ": the chat template writes the prompt alone otherwise "
                                           "than within the whole conversation",
                   .allowed = "the prompt's text is the start of the whole's",
                   .hint = "another template, or data.train_on: all"});
    }
    clear_prompt(tokenizer.encode(prompt, false), result);
  }
  return result;
}

Question Preparer::question(const Record& record) const {
  Question result;
  result.origin = record.origin;
  if (record.kind == Record::Kind::Pair) {
    result.prompt = record.prompt;
    result.reference = record.completion;
    return result;
  }
  if (record.kind == Record::Kind::Text || record.kind == Record::Kind::Tokens) {
    throw Error(ErrorKind::Data,
                {.where = kPreparerWhere,
                 .what = record.origin +
                         (record.kind == Record::Kind::Text ? ": raw text" : ": a token store") +
                         " asks nothing that an answer could be compared with",
                 .allowed = "messages, prompt and completion, alpaca or sharegpt records"});
  }
  const int64_t count = prompt_length(record);
  if (count == static_cast<int64_t>(record.messages->size())) {  // nothing but the prompt
    result.prompt = render_prompt(record, count);
    result.add_special_tokens = false;
    result.reference = record.completion;
    return result;
  }
  const Json& answer = record.messages->back();
  const Json* content = core::json_find(answer, "content");
  if (!is_assistant(answer) || content == nullptr || !content->is_string()) {
    throw Error(ErrorKind::Data,
                {.where = kPreparerWhere,
                 .what = record.origin + ": the last message is not an assistant's text"});
  }
  try {
    result.prompt = render_prompt(record, count);
  } catch (const Error& error) {
    rethrow_at(record.origin, error);
  }
  result.add_special_tokens = false;
  result.reference = content->get<std::string>();
  return result;
}

std::vector<int32_t> Preparer::encode_document(const std::string& text,
                                               bool first,
                                               bool last) const {
  return bundle_->tokenizer.encode(last ? with_end(text) : text, first);
}

}  // namespace kamerton::data

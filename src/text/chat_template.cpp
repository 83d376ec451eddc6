// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/chat_template.h"

#include <algorithm>
#include <ctime>

#include <nlohmann/json.hpp>

#include "jinja_ast.h"
#include "jinja_growth.h"
#include "jinja_interpreter.h"
#include "jinja_strings.h"
#include "unicode.h"

namespace kamerton::text {

struct ChatTemplate::Impl {
  std::string source;
  jinja::Template parsed;
  core::Json special_tokens;
};

namespace jinja {

std::string Interpreter::now(const std::string& format) const {
  const std::time_t time =
      options_.now ? static_cast<std::time_t>(*options_.now) : std::time(nullptr);
  std::tm parts{};
  localtime_r(&time, &parts);
  if (format.empty() || format.size() > 200) {
    return "";
  }
  char buffer[4096];
  return {buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &parts)};
}

}  // namespace jinja

namespace {

using jinja::Value;

constexpr const char* kReasoning[] = {"reasoning_content", "thinking", "reasoning"};
constexpr std::string_view kContinueMark = "CONTINUE_FINAL_MESSAGE_TAG ";

bool has_text(const core::Json& object, std::string_view key) {
  const core::Json* value = core::json_find(object, key);
  return value != nullptr && value->is_string();
}

/// Null fields go; reasoning is found as reasoning_content and as thinking, whatever name it came
/// under.
core::Json normalized_message(const core::Json& message) {
  if (!message.is_object()) {
    jinja::fail("a message must be an object");
  }
  core::Json out = core::Json::object();
  const core::Json* reasoning = nullptr;
  for (const char* name : kReasoning) {
    reasoning = reasoning == nullptr ? core::json_find(message, name) : reasoning;
  }
  if (reasoning != nullptr) {
    const core::Json* thinking = core::json_find(message, "thinking");
    out["thinking"] = thinking != nullptr ? *thinking : *reasoning;
  }
  for (const auto& [key, value] : message.items()) {
    if (!value.is_null()) {
      out[key] = value;
    }
  }
  if (reasoning != nullptr) {
    out["reasoning_content"] = *reasoning;
  }
  return out;
}

/// Puts the mark behind the text to continue; returns that text.
std::string mark_last(core::Json& messages, const std::string& field, const std::string& source) {
  core::Json& last = messages.back();
  const core::Json* found = core::json_find(last, field);
  if (found == nullptr) {
    jinja::fail("the final message has no '" + field + "' to continue");
  }
  const core::Json value = *found;
  if (value.is_array()) {
    for (size_t i = value.size(); i-- > 0;) {
      if (value[i].is_object() && has_text(value[i], "text")) {
        last[field][i]["text"] = value[i]["text"].get<std::string>() + std::string(kContinueMark);
        return value[i]["text"].get<std::string>();
      }
    }
    jinja::fail("the final message holds no text to continue");
  }
  if (!value.is_string()) {
    jinja::fail("the final message's '" + field + "' is not a text");
  }
  std::vector<std::string> fields{field};
  if (std::find(std::begin(kReasoning), std::end(kReasoning), field) != std::end(kReasoning)) {
    fields.clear();
    for (const char* name : kReasoning) {
      if (last.contains(name) && last[name] == value) {
        fields.emplace_back(name);
      }
    }
  }
  if (std::none_of(fields.begin(), fields.end(), [&](const auto& name) {
        return source.find(name) != std::string::npos;
      })) {
    jinja::fail("the template does not show '" + field + "', so it cannot be continued");
  }
  for (const std::string& name : fields) {
    last[name] = value.get<std::string>() + std::string(kContinueMark);
  }
  return value.get<std::string>();
}

void cut_at_mark(RenderedChat& chat, const std::string& said) {
  const std::string bare = jinja::strip_blanks(kContinueMark, true, true);
  const size_t at = chat.text.rfind(bare);
  if (at == std::string::npos ||
      chat.text.find(jinja::strip_blanks(said, true, true)) == std::string::npos) {
    jinja::fail(
        "the final message does not appear in the rendered chat, so it cannot be continued");
  }
  const bool keeps_blanks = chat.text.compare(at, kContinueMark.size(), kContinueMark) == 0;
  chat.text.resize(at);
  if (!keeps_blanks) {
    chat.text = jinja::strip_blanks(chat.text, false, true);
  }
  chat.turn_ends.clear();
  for (auto& [begin, end] : chat.generation_spans) {
    begin = std::min(begin, chat.text.size());
    end = std::min(end, chat.text.size());
  }
}

void put(std::vector<std::pair<std::string, Value>>& variables,
         const std::string& name,
         Value value) {
  const auto found = std::find_if(
      variables.begin(), variables.end(), [&](const auto& v) { return v.first == name; });
  if (found == variables.end()) {
    variables.emplace_back(name, std::move(value));
  } else {
    found->second = std::move(value);
  }
}

void put_all(std::vector<std::pair<std::string, Value>>& variables, const core::Json& object) {
  if (object.is_null()) {
    return;
  }
  if (!object.is_object()) {
    jinja::fail("template variables must be an object");
  }
  for (const auto& [name, value] : object.items()) {
    put(variables, name, Value::from_json(value));
  }
}

}  // namespace

ChatTemplate ChatTemplate::from_text(std::string_view jinja, const core::Json& special_tokens) {
  auto impl = std::make_shared<Impl>();
  impl->source = jinja;
  impl->parsed = jinja::parse(jinja);
  impl->parsed.turn_loop = jinja::growing_loop(impl->parsed);
  impl->special_tokens = special_tokens;
  return ChatTemplate(std::move(impl));
}

RenderedChat ChatTemplate::render_variables(const core::Json& variables,
                                            const RenderOptions& options) const {
  std::vector<std::pair<std::string, Value>> all;
  put_all(all, impl_->special_tokens);
  put_all(all, variables);
  return jinja::Interpreter(impl_->parsed, options).run(std::move(all));
}

RenderedChat ChatTemplate::render(const core::Json& messages,
                                  const RenderOptions& options,
                                  const core::Json& extra) const {
  if (!messages.is_array() || messages.empty()) {
    jinja::fail("a conversation must be a list with at least one message");
  }
  core::Json chat = core::Json::array();
  for (const core::Json& message : messages) {
    chat.push_back(normalized_message(message));
  }
  std::string said;
  if (!options.continue_final_message.empty()) {
    if (options.add_generation_prompt) {
      jinja::fail("a chat cannot both continue its final message and end with a generation prompt");
    }
    said = mark_last(chat, options.continue_final_message, impl_->source);
  }
  std::vector<std::pair<std::string, Value>> variables;
  variables.emplace_back("messages", Value::from_json(chat));
  variables.emplace_back("tools", Value::none());
  variables.emplace_back("documents", Value::none());
  variables.emplace_back("add_generation_prompt", Value::boolean(options.add_generation_prompt));
  put_all(variables, impl_->special_tokens);
  put_all(variables, extra);
  RenderedChat rendered = jinja::Interpreter(impl_->parsed, options).run(std::move(variables));
  if (!options.continue_final_message.empty()) {
    cut_at_mark(rendered, said);
  }
  return rendered;
}

RenderedChat ChatTemplate::render(const core::Json& messages,
                                  bool add_generation_prompt,
                                  const core::Json& extra) const {
  RenderOptions options;
  options.add_generation_prompt = add_generation_prompt;
  return render(messages, options, extra);
}

RenderedChat ChatTemplate::render(const core::Json& messages, bool add_generation_prompt) const {
  return render(messages, add_generation_prompt, core::Json::object());
}

bool ChatTemplate::grows() const {
  return impl_->parsed.turn_loop != nullptr;
}

bool ChatTemplate::has_generation_marks() const {
  return impl_->parsed.has_generation;
}

const std::string& ChatTemplate::source() const {
  return impl_->source;
}

}  // namespace kamerton::text

// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/template_lint.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::text {
namespace {

// Words that no template holds, so that they can be found again.
constexpr const char* kSystem = "zq-system-zq";
constexpr const char* kQuestions[] = {"zq-first-question-zq", "zq-second-question-zq"};
constexpr const char* kAnswers[] = {"zq-first-answer-zq", "zq-second-answer-zq"};

core::Json message(const char* role, const char* content) {
  return {{"role", role}, {"content", content}};
}

core::Json conversation(bool with_system, size_t turns) {
  core::Json messages = core::Json::array();
  if (with_system) {
    messages.push_back(message("system", kSystem));
  }
  for (size_t i = 0; i < turns; ++i) {
    messages.push_back(message("user", kQuestions[i]));
    messages.push_back(message("assistant", kAnswers[i]));
  }
  return messages;
}

class Linter {
 public:
  Linter(const TokenizerBundle& bundle, const RenderOptions& options)
      : bundle_(bundle), options_(options) {}

  TemplateFindings run() {
    findings_.marks_generation = bundle_.chat_template->has_generation_marks();
    const std::string whole = render(conversation(false, 2), false);
    check_system();
    check_prefixes(whole);
    check_closing(whole);
    check_bos(whole);
    return std::move(findings_);
  }

 private:
  std::string render(const core::Json& messages, bool prompt) const {
    RenderOptions options = options_;
    options.add_generation_prompt = prompt;
    return bundle_.chat_template->render(messages, options, core::Json::object()).text;
  }
  void problem(std::string text) { findings_.problems.push_back(std::move(text)); }

  void check_system() {
    try {
      const std::string text = render(conversation(true, 1), false);
      findings_.shows_system = text.find(kSystem) != std::string::npos;
    } catch (const core::Error&) {
      findings_.shows_system = false;  // the template raises: it has no place for a system message
    }
    if (!findings_.shows_system) {
      problem("the template does not show a system message");
    }
  }

  void check_prefixes(const std::string& whole) {
    core::Json messages = conversation(false, 2);
    for (size_t size = messages.size() - 1; size >= 1; --size) {
      messages.erase(messages.size() - 1);
      const bool asks = messages.back()["role"] == "user";
      const std::string plain = render(messages, false);
      const std::string prompted = asks ? render(messages, true) : plain;
      findings_.has_generation_prompt = findings_.has_generation_prompt || prompted != plain;
      if (!whole.starts_with(prompted)) {
        findings_.prefix_preserving = false;
      }
    }
    if (!findings_.prefix_preserving) {
      problem(
          "the template writes earlier turns otherwise when more follow: the model would not be "
          "trained on what it is shown when it answers");
    }
    if (!findings_.has_generation_prompt) {
      problem("the generation prompt adds nothing behind the user's message");
    }
  }

  void check_closing(const std::string& whole) {
    const size_t last = whole.rfind(kAnswers[1]);
    if (last == std::string::npos) {
      problem("the template does not show what the assistant says");
      return;
    }
    findings_.closing = whole.substr(last + std::string_view(kAnswers[1]).size());
    const auto ids = bundle_.tokenizer.encode(findings_.closing, false);
    findings_.ends_turns = std::any_of(ids.begin(), ids.end(), [&](int32_t id) {
      return id == bundle_.eos || std::count(bundle_.stop_ids.begin(), bundle_.stop_ids.end(), id);
    });
    if (!findings_.ends_turns) {
      problem(
          "no token at which generation stops follows the assistant's turn: the model would not "
          "learn to stop");
    }
  }

  void check_bos(const std::string& whole) {
    if (!bundle_.bos || bundle_.bos_text.empty()) {
      return;
    }
    const auto ids = bundle_.tokenizer.encode(whole, false);
    const auto plain = bundle_.tokenizer.encode("a", true);
    findings_.writes_bos = !ids.empty() && ids[0] == *bundle_.bos;
    findings_.tokenizer_adds_bos = !plain.empty() && plain[0] == *bundle_.bos;
    const bool twice = findings_.writes_bos && ids.size() > 1 && ids[1] == *bundle_.bos;
    findings_.doubles_bos = twice || (findings_.writes_bos && findings_.tokenizer_adds_bos);
    if (twice) {
      problem("the template writes the BOS token twice");
    }
  }

  const TokenizerBundle& bundle_;
  const RenderOptions& options_;
  TemplateFindings findings_;
};

}  // namespace

TemplateFindings lint_template(const TokenizerBundle& bundle, const RenderOptions& options) {
  if (!bundle.chat_template) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "text.template_lint",
                       .what = "the model has no chat template",
                       .got = "",
                       .allowed = "",
                       .hint = "put a chat_template.jinja into the model folder"});
  }
  return Linter(bundle, options).run();
}

}  // namespace kamerton::text

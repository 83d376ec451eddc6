// SPDX-License-Identifier: Apache-2.0
#include "generate_requests.h"

#include <cstdio>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/storage/filesystem.h"

#include "mixed_model.h"

namespace kamerton::cli {
namespace {

using core::Error;
using core::ErrorKind;

struct Request {
  std::string prompt;
  std::string adapter;  // "": the base
  core::Json others;    // the user's own keys: an id, an expected answer
  int64_t number = tuning::AdapterMix::kBase;
};

/// The keys that go into the answer's line as they came; a misspelt one of ours is no such key.
core::Json other_keys(const core::Json& object, const std::string& origin) {
  core::Json others = core::Json::object();
  for (const auto& [key, value] : object.items()) {
    if (key == "prompt" || key == "adapter") {
      continue;
    }
    const std::string meant = config::nearest(key, {"prompt", "adapter"});
    if (key == "text" || !meant.empty()) {
      throw Error(ErrorKind::Data,
                  {.where = "cli.generate",
                   .what = origin + " has a key that a request cannot have",
                   .got = "'" + key + "'",
                   .allowed = "prompt, adapter, and keys that come back as they are",
                   .hint = key == "text" ? "the answer will be there" : "'" + meant + "'"});
    }
    others[key] = value;
  }
  return others;
}

std::vector<Request> read_requests(const std::string& path, const MixedModel& model) {
  const std::string text = storage::posix_filesystem().read_file(path, uint64_t{1} << 30);
  std::vector<Request> requests;
  size_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) {
      continue;
    }
    const std::string origin = fmt::format("{}:{}", path, line_number);
    const core::Json object = core::parse_json(line, origin);
    Request request{.prompt = core::json_string(object, "prompt", origin),
                    .adapter = {},
                    .others = other_keys(object, origin)};
    request.number = model.number_of(object, origin);
    if (request.number != tuning::AdapterMix::kBase) {
      request.adapter = core::json_string(object, "adapter", origin);
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<int64_t> to_ids(const text::TokenizerBundle& bundle,
                            const std::string& prompt,
                            const std::optional<core::Json>& opening) {
  std::string text = prompt;
  if (opening.has_value()) {
    if (!bundle.chat_template.has_value()) {
      throw Error(ErrorKind::Config,
                  {.where = "cli.generate", .what = "the model has no chat template"});
    }
    core::Json messages = *opening;
    messages.push_back({{"role", "user"}, {"content", prompt}});
    text = bundle.chat_template->render(messages, true).text;
  }
  const std::vector<int32_t> ids = bundle.tokenizer.encode(text, !opening.has_value());
  return {ids.begin(), ids.end()};
}

std::string to_text(const text::TokenizerBundle& bundle, const std::vector<int64_t>& tokens) {
  text::StreamingDecoder stream(bundle.tokenizer, true);
  std::string text;
  for (const int64_t token : tokens) {
    text += stream.push(static_cast<int32_t>(token));
  }
  return text + stream.finish();
}

}  // namespace

void generate_requests(const po::variables_map& arguments,
                       const std::string& model_dir,
                       const std::string& file,
                       const text::TokenizerBundle& bundle,
                       const model::SampleOptions& options,
                       const std::optional<core::Json>& opening) {
  MixedModel model(arguments, model_dir);
  const std::vector<Request> requests = read_requests(file, model);
  std::vector<std::vector<int64_t>> prompts;
  for (const Request& request : requests) {
    prompts.push_back(to_ids(bundle, request.prompt, opening));
  }
  model::SampleOptions mixed = options;
  mixed.before_forward = [&](const std::vector<size_t>& documents,
                             const std::vector<int64_t>& offsets) {
    std::vector<int64_t> numbers;
    for (const size_t document : documents) {
      numbers.push_back(requests[document].number);
    }
    model.choose(numbers, offsets);
  };
  const std::vector<model::Generated> answers = model::generate(model.decoder(), prompts, mixed);
  for (size_t i = 0; i < answers.size(); ++i) {
    core::Json line = requests[i].others;
    line["prompt"] = requests[i].prompt;
    if (!requests[i].adapter.empty()) {
      line["adapter"] = requests[i].adapter;
    }
    line["text"] = to_text(bundle, answers[i].tokens);
    fmt::print("{}\n", line.dump(-1, ' ', false, core::Json::error_handler_t::replace));
  }
}

}  // namespace kamerton::cli

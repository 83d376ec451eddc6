// SPDX-License-Identifier: Apache-2.0
#include "generate_requests.h"

#include <cstdio>
#include <map>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/tuning/adapter_mix.h"
#include "kamerton/tuning/peft_format.h"

namespace kamerton::cli {
namespace {

using core::Error;
using core::ErrorKind;

struct Request {
  std::string prompt;
  std::string adapter;  // "": the base
  int64_t number = tuning::AdapterMix::kBase;
};

/// NAME=DIR of --mix, in order.
std::vector<std::pair<std::string, std::string>> named_adapters(
    const po::variables_map& arguments) {
  std::vector<std::pair<std::string, std::string>> named;
  for (const std::string& text : value_or<std::vector<std::string>>(arguments, "mix", {})) {
    const size_t at = text.find('=');
    if (at == std::string::npos || at == 0) {
      throw Error(ErrorKind::Config,
                  {.where = "cli.generate",
                   .what = "--mix gives an adapter a name",
                   .got = text,
                   .allowed = "NAME=DIR"});
    }
    named.emplace_back(text.substr(0, at), text.substr(at + 1));
  }
  return named;
}

std::vector<Request> read_requests(const std::string& path,
                                   const std::vector<std::pair<std::string, std::string>>& named) {
  std::map<std::string, int64_t> numbers;
  std::vector<std::string> names;
  for (const auto& [name, folder] : named) {
    numbers[name] = static_cast<int64_t>(names.size());
    names.push_back(name);
  }
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
    Request request{core::json_string(object, "prompt", origin), ""};
    if (core::json_find(object, "adapter") != nullptr) {
      request.adapter = core::json_string(object, "adapter", origin);
      if (numbers.count(request.adapter) == 0) {
        throw Error(ErrorKind::Data,
                    {.where = "cli.generate",
                     .what = origin + " names an adapter that --mix does not give",
                     .got = "'" + request.adapter + "'",
                     .allowed = fmt::format("{}", fmt::join(names, ", ")),
                     .hint = config::nearest(request.adapter, names)});
      }
      request.number = numbers[request.adapter];
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<int64_t> to_ids(const text::TokenizerBundle& bundle,
                            const std::string& prompt,
                            bool chat) {
  std::string text = prompt;
  if (chat) {
    if (!bundle.chat_template.has_value()) {
      throw Error(ErrorKind::Config,
                  {.where = "cli.generate", .what = "the model has no chat template"});
    }
    const core::Json messages =
        core::Json::array({core::Json{{"role", "user"}, {"content", prompt}}});
    text = bundle.chat_template->render(messages, true).text;
  }
  const std::vector<int32_t> ids = bundle.tokenizer.encode(text, !chat);
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

void read_adapter(tuning::PeftAdapter& file, const tuning::Adapter& adapter) {
  file.bind(adapter);
  const at::NoGradGuard no_grad;
  for (const tuning::AdapterEntry& entry : adapter.entries()) {
    file.read(*entry.parameter, 0, entry.parameter->value.detach().view({-1}));
  }
}

}  // namespace

void generate_requests(const po::variables_map& arguments,
                       const std::string& model_dir,
                       const std::string& file,
                       const text::TokenizerBundle& bundle,
                       const model::SampleOptions& options,
                       bool chat) {
  const auto named = named_adapters(arguments);
  const std::vector<Request> requests = read_requests(file, named);
  model::ModelOptions model_options;
  model_options.path = model_dir;
  model_options.dtype = arguments["dtype"].as<std::string>();
  model_options.device = arguments["device"].as<std::string>();
  model::Decoder decoder(model::read_config(model_dir), model_options);
  tuning::AdapterMix mix(decoder);
  std::vector<tuning::PeftAdapter> files;
  for (const auto& [name, folder] : named) {
    files.push_back(tuning::PeftAdapter::open(folder));
    mix.add(files.back().spec());
  }
  decoder.load_whole();
  for (size_t i = 0; i < files.size(); ++i) {
    read_adapter(files[i], mix[static_cast<int64_t>(i)]);
  }

  std::vector<std::vector<int64_t>> prompts;
  for (const Request& request : requests) {
    prompts.push_back(to_ids(bundle, request.prompt, chat));
  }
  model::SampleOptions mixed = options;
  mixed.before_forward = [&](const std::vector<size_t>& documents,
                             const std::vector<int64_t>& offsets) {
    std::vector<int64_t> numbers;
    for (const size_t document : documents) {
      numbers.push_back(requests[document].number);
    }
    mix.choose(numbers, offsets);
  };
  const std::vector<model::Generated> answers = model::generate(decoder, prompts, mixed);
  for (size_t i = 0; i < answers.size(); ++i) {
    core::Json line = {{"prompt", requests[i].prompt}};
    if (!requests[i].adapter.empty()) {
      line["adapter"] = requests[i].adapter;
    }
    line["text"] = to_text(bundle, answers[i].tokens);
    fmt::print("{}\n", line.dump(-1, ' ', false, core::Json::error_handler_t::replace));
  }
}

}  // namespace kamerton::cli

// SPDX-License-Identifier: Apache-2.0
// kamerton generate and kamerton chat: prompts to text.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/model/generate.h"

#include "assemble.h"
#include "command.h"
#include "generate_requests.h"

namespace kamerton::cli {
namespace {

using core::Error;
using core::ErrorKind;

void add_model_options(po::options_description& options) {
  options.add_options()("model,m",
                        po::value<std::string>(),
                        "model folder (config.json, model.safetensors, tokenizer.json)")(
      "adapter,a", po::value<std::string>(), "PEFT adapter folder, put on top of the model")(
      "dtype", po::value<std::string>()->default_value("auto"), "auto, fp32 or bf16")(
      "device", po::value<std::string>()->default_value("auto"), "auto, cpu or cuda")(
      "temperature,t", po::value<double>()->default_value(0), "0: always the most likely token")(
      "top-k",
      po::value<int64_t>()->default_value(0),
      "choose among the k most likely tokens only; 0: all")(
      "top-p",
      po::value<double>()->default_value(1),
      "choose among the most likely tokens that together have this probability")(
      "repetition-penalty",
      po::value<double>()->default_value(1),
      "above 1: tokens already seen become less likely")(
      "max-new-tokens,n", po::value<int64_t>()->default_value(256), "length of the answer at most")(
      "seed",
      po::value<int64_t>()->default_value(0),
      "for temperature above 0: same seed, same text")(
      "system", po::value<std::string>(), "the system's message of the conversation");
}

void check_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) {
    throw Error(ErrorKind::Config,
                {.where = "cli.generate",
                 .what = fmt::format("--{} is out of range", name),
                 .got = fmt::format("{}", value),
                 .allowed = fmt::format("{} to {}", low, high)});
  }
}

model::SampleOptions sample_options(const po::variables_map& arguments,
                                    const text::TokenizerBundle& bundle) {
  model::SampleOptions options;
  options.temperature = arguments["temperature"].as<double>();
  options.top_k = arguments["top-k"].as<int64_t>();
  options.top_p = arguments["top-p"].as<double>();
  options.repetition_penalty = arguments["repetition-penalty"].as<double>();
  options.max_new_tokens = arguments["max-new-tokens"].as<int64_t>();
  options.seed = static_cast<uint64_t>(arguments["seed"].as<int64_t>());
  check_range("temperature", options.temperature, 0, 100);
  check_range("top-p", options.top_p, 1e-9, 1);
  check_range("top-k", static_cast<double>(options.top_k), 0, 1e9);
  check_range("repetition-penalty", options.repetition_penalty, 1e-3, 100);
  check_range("max-new-tokens", static_cast<double>(options.max_new_tokens), 1, 1e7);
  options.stop_ids.assign(bundle.stop_ids.begin(), bundle.stop_ids.end());
  options.vocab_limit = bundle.tokenizer.vocab_size();
  return options;
}

const text::ChatTemplate& chat_template(const text::TokenizerBundle& bundle,
                                        const std::string& model_dir) {
  if (!bundle.chat_template.has_value()) {
    throw Error(ErrorKind::Config,
                {.where = "cli.generate",
                 .what = "the model has no chat template",
                 .got = model_dir,
                 .hint = "kamerton generate without --chat"});
  }
  return *bundle.chat_template;
}

/// What cannot go together, rather than leaving one of them out silently.
void refuse_unused(const po::variables_map& arguments) {
  const auto refuse = [&](const char* name, const std::string& why) {
    if (arguments.count(name) != 0) {
      throw Error(ErrorKind::Config,
                  {.where = "cli.generate", .what = fmt::format("--{} {}", name, why)});
    }
  };
  if (arguments.count("requests") != 0) {
    refuse("prompt", "and --requests exclude each other");
    refuse("adapter", "and --requests exclude each other: --mix NAME=DIR");
  } else {
    refuse("mix", "is of use with --requests only; of one prompt: --adapter");
  }
  if (arguments.count("chat") == 0) {
    refuse("system", "needs --chat");
  }
}

/// Bytes that are no text would be replaced silently.
void check_utf8(const std::string& name, const std::string& text) {
  try {
    core::Json(text).dump();
  } catch (const core::Json::type_error&) {
    throw Error(ErrorKind::Data,
                {.where = "cli.generate",
                 .what = name + " is not UTF-8 text",
                 .hint = "iconv -t UTF-8 converts from another encoding"});
  }
}

/// The start of a conversation: the system's message, when there is one.
core::Json opening(const po::variables_map& arguments) {
  core::Json messages = core::Json::array();
  if (arguments.count("system") != 0) {
    const std::string text = arguments["system"].as<std::string>();
    check_utf8("--system", text);
    messages.push_back({{"role", "system"}, {"content", text}});
  }
  return messages;
}

std::vector<int64_t> to_ids(const text::Tokenizer& tokenizer,
                            const std::string& text,
                            bool add_special_tokens) {
  const std::vector<int32_t> ids = tokenizer.encode(text, add_special_tokens);
  return {ids.begin(), ids.end()};
}

/// Streams the continuation of `prompt` to stdout; returns it.
std::string speak(model::Decoder& decoder,
                  const text::TokenizerBundle& bundle,
                  const std::vector<int64_t>& prompt,
                  const model::SampleOptions& options) {
  text::StreamingDecoder stream(bundle.tokenizer, true);
  std::string answer;
  const auto say = [&answer](const std::string& piece) {
    std::fputs(piece.c_str(), stdout);
    std::fflush(stdout);
    answer += piece;
  };
  model::generate(decoder, {prompt}, options, [&](size_t, int64_t token) {
    say(stream.push(static_cast<int32_t>(token)));
    return true;
  });
  say(stream.finish());
  return answer;
}

int run_generate(const po::variables_map& arguments, comm::Session*) {
  static const Command self = generate_command();
  const std::string model_dir = required(arguments, "model", self);
  refuse_unused(arguments);
  if (arguments.count("requests") != 0) {
    const text::TokenizerBundle words = text::load_bundle(model_dir);
    generate_requests(
        arguments,
        model_dir,
        arguments["requests"].as<std::string>(),
        words,
        sample_options(arguments, words),
        arguments.count("chat") != 0 ? std::optional(opening(arguments)) : std::nullopt);
    return 0;
  }
  std::string prompt = required(arguments, "prompt", self);
  if (prompt == "-") {
    prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  }
  check_utf8("the prompt", prompt);
  const text::TokenizerBundle bundle = text::load_bundle(model_dir);
  const model::SampleOptions options = sample_options(arguments, bundle);
  const bool chat = arguments.count("chat") != 0;
  if (chat) {
    core::Json messages = opening(arguments);
    messages.push_back({{"role", "user"}, {"content", prompt}});
    prompt = chat_template(bundle, model_dir).render(messages, true).text;
  }
  const auto decoder = load_for_inference(model_dir,
                                          value_or<std::string>(arguments, "adapter", ""),
                                          arguments["dtype"].as<std::string>(),
                                          arguments["device"].as<std::string>());
  speak(*decoder, bundle, to_ids(bundle.tokenizer, prompt, !chat), options);
  std::fputc('\n', stdout);
  return 0;
}

int run_chat(const po::variables_map& arguments, comm::Session*) {
  static const Command self = chat_command();
  const std::string model_dir = required(arguments, "model", self);
  const text::TokenizerBundle bundle = text::load_bundle(model_dir);
  const text::ChatTemplate& conversation = chat_template(bundle, model_dir);
  const model::SampleOptions options = sample_options(arguments, bundle);
  const auto decoder = load_for_inference(model_dir,
                                          value_or<std::string>(arguments, "adapter", ""),
                                          arguments["dtype"].as<std::string>(),
                                          arguments["device"].as<std::string>());
  const core::Json start = opening(arguments);
  core::Json messages = start;
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) {
    std::fputs("Type a message; /new begins anew, /quit or Ctrl-D ends.\n", stderr);
  }
  std::string line;
  while ((terminal ? std::fputs("> ", stderr) : 0) >= 0 && std::getline(std::cin, line)) {
    if (line == "/quit") {
      break;
    }
    if (line == "/new") {
      messages = start;
      continue;
    }
    if (line.empty()) {
      continue;
    }
    messages.push_back({{"role", "user"}, {"content", line}});
    try {
      check_utf8("the message", line);
      const std::string prompt = conversation.render(messages, true).text;
      const std::string answer =
          speak(*decoder, bundle, to_ids(bundle.tokenizer, prompt, false), options);
      std::fputc('\n', stdout);
      messages.push_back({{"role", "assistant"}, {"content", answer}});
    } catch (const Error& error) {
      if (!terminal || error.kind() != ErrorKind::Data) {
        throw;
      }
      fmt::print(stderr, "{}; /new begins anew\n", error.what());
      messages.erase(messages.size() - 1);
    }
  }
  return 0;
}

}  // namespace

Command generate_command() {
  return {.name = "generate",
          .summary = "continue a prompt, or answer it with --chat",
          .usage = "kamerton generate --model DIR --prompt TEXT [--chat] [--adapter DIR] [OPTIONS]",
          .description =
              "The text alone goes to stdout, as it is generated.\n\nExamples:\n"
              "  kamerton generate --model models/SmolLM2-135M-Instruct --chat --prompt \"What is "
              "the capital of Poland?\"\n"
              "  kamerton generate --model models/SmolLM2-135M-Instruct --prompt \"Once upon a "
              "time\" --temperature 0.8 --seed 7\n"
              "  kamerton generate --model models/SmolLM2-135M-Instruct --adapter "
              "runs/quickstart/adapter --chat --prompt - < ticket.txt\n"
              "  kamerton generate --model models/SmolLM2-135M-Instruct --mix "
              "law=adapters/law --mix style=adapters/style --requests requests.jsonl",
          .needs_ranks = false,
          .add_options =
              [](po::options_description& options, po::positional_options_description&) {
                add_model_options(options);
                options.add_options()(
                    "prompt,p", po::value<std::string>(), "what to continue; - reads stdin")(
                    "chat", "render the prompt as a user's message")(
                    "requests",
                    po::value<std::string>(),
                    "instead of a prompt: a file with {\"prompt\": ..., \"adapter\": NAME} a line; "
                    "other "
                    "keys (an id) come back; answers are JSON lines")(
                    "mix",
                    po::value<std::vector<std::string>>(),
                    "NAME=DIR: an adapter that requests may name; may be repeated");
              },
          .run = run_generate};
}

Command chat_command() {
  return {
      .name = "chat",
      .summary = "talk with a model in the terminal",
      .usage = "kamerton chat --model DIR [--adapter DIR] [OPTIONS]",
      .description =
          "Reads a message a line from stdin; the conversation so far is the context.\n\nExample:\n"
          "  kamerton chat --model models/SmolLM2-135M-Instruct --adapter runs/quickstart/adapter",
      .needs_ranks = false,
      .add_options = [](po::options_description& options,
                        po::positional_options_description&) { add_model_options(options); },
      .run = run_chat};
}

}  // namespace kamerton::cli

// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/generate.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"

#include "attention_cache.h"
#include "rope.h"
#include "sampler.h"

namespace kamerton::model {
namespace {

/// A prompt being continued.
struct Sequence {
  size_t prompt = 0;
  int64_t slot = 0;
  std::vector<int64_t> seen;  // prompt and answer
  int64_t next = 0;           // sampled, not yet in the cache
  int64_t drawn = 0;
};

[[noreturn]] void refuse(size_t prompt,
                         const std::string& what,
                         const std::string& got,
                         const std::string& allowed) {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "model.generate",
                     .what = fmt::format("prompt {}: {}", prompt, what),
                     .got = got,
                     .allowed = allowed});
}

class Generation {
 public:
  Generation(Decoder& decoder,
             const std::vector<std::vector<int64_t>>& prompts,
             const SampleOptions& options,
             const TokenCallback& on_token)
      : decoder_(decoder),
        prompts_(prompts),
        options_(options),
        on_token_(on_token),
        cache_(decoder.config(), at::TensorOptions(decoder.device()).dtype(decoder.dtype())),
        results_(prompts.size()) {
    stops_ = options.stop_ids.empty() ? decoder.config().eos_ids : options.stop_ids;
  }

  std::vector<Generated> run() {
    for (size_t p = 0; p < prompts_.size(); ++p) {
      check(p);
    }
    while (waiting_ < prompts_.size() || !running_.empty()) {
      admit();
      if (!running_.empty()) {
        decode();
      }
    }
    return std::move(results_);
  }

 private:
  void check(size_t p) const {
    const std::vector<int64_t>& prompt = prompts_[p];
    const DecoderConfig& config = decoder_.config();
    if (prompt.empty()) {
      refuse(p, "nothing to continue", "no tokens", "at least one token");
    }
    for (const int64_t token : prompt) {
      if (token < 0 || token >= config.vocab_size) {
        refuse(p,
               "a token is outside the vocabulary",
               fmt::format("id {}", token),
               fmt::format("0 to {}", config.vocab_size - 1));
      }
    }
    if (static_cast<int64_t>(prompt.size()) > config.context()) {
      refuse(p,
             "longer than the model's context",
             fmt::format("{} tokens", prompt.size()),
             fmt::format("at most {}", config.context()));
    }
  }

  /// Computes the prompts of the next waiting sequences in one go, up to the limits.
  void admit() {
    std::vector<std::vector<int64_t>> documents;
    std::vector<Sequence> fresh;
    int64_t tokens = 0;
    while (waiting_ < prompts_.size()) {
      const std::vector<int64_t>& prompt = prompts_[waiting_];
      const auto length = static_cast<int64_t>(prompt.size());
      const auto places = static_cast<int64_t>(running_.size() + fresh.size());
      const bool fits = places < std::max<int64_t>(1, options_.max_sequences) &&
                        (fresh.empty() || tokens + length <= options_.max_batch_tokens);
      if (!fits) {
        break;
      }
      fresh.push_back({waiting_++, cache_.add_sequence(), prompt, 0, 0});
      documents.push_back(prompt);
      tokens += length;
    }
    if (!fresh.empty()) {
      step(Rows::from_documents(documents), fresh);
      keep_unfinished(std::move(fresh));
    }
  }

  /// Sequences whose next token changes the rotary frequencies of all their tokens are computed
  /// again from the start, as the reference does; they then hold a next token as the others do.
  void restart_changed() {
    const int64_t change = length_of_change(decoder_.config());
    std::vector<Sequence> changed;
    std::vector<std::vector<int64_t>> documents;
    std::vector<Sequence> others;
    for (Sequence& sequence : running_) {
      if (change > 0 && cache_.length(sequence.slot) == change) {
        cache_.remove_sequence(sequence.slot);
        sequence.slot = cache_.add_sequence();
        documents.push_back(sequence.seen);
        changed.push_back(std::move(sequence));
      } else {
        others.push_back(std::move(sequence));
      }
    }
    running_ = std::move(others);
    if (!changed.empty()) {
      step(Rows::from_documents(documents), changed);
      keep_unfinished(std::move(changed));
    }
  }

  void decode() {
    restart_changed();
    if (running_.empty()) {
      return;
    }
    std::vector<int64_t> tokens;
    std::vector<int64_t> positions;
    Rows rows;
    rows.document_offsets.push_back(0);
    for (const Sequence& sequence : running_) {
      tokens.push_back(sequence.next);
      positions.push_back(cache_.length(sequence.slot));
      rows.document_offsets.push_back(static_cast<int64_t>(tokens.size()));
    }
    rows.tokens_N = at::tensor(tokens, at::kLong);
    rows.positions_N = at::tensor(positions, at::kLong);
    std::vector<Sequence> sequences = std::move(running_);
    running_.clear();
    step(rows, sequences);
    keep_unfinished(std::move(sequences));
  }

  /// One forward; samples the next token of each sequence from its last row.
  void step(const Rows& rows, std::vector<Sequence>& sequences) {
    std::vector<int64_t> slots;
    std::vector<int64_t> last;
    std::vector<size_t> documents;
    for (size_t i = 0; i < sequences.size(); ++i) {
      slots.push_back(sequences[i].slot);
      documents.push_back(sequences[i].prompt);
      last.push_back(rows.document_offsets[i + 1] - 1);
    }
    cache_.begin(std::move(slots));
    if (options_.before_forward) {
      options_.before_forward(documents, rows.document_offsets);
    }
    at::Tensor hidden = decoder_.forward(rows, {}, &cache_);
    if (hidden.size(0) != static_cast<int64_t>(last.size())) {
      hidden = hidden.index_select(0, at::tensor(last, at::kLong).to(hidden.device()));
    }
    at::Tensor logits = decoder_.logits(hidden).to(at::kCPU).contiguous();
    float* data = logits.mutable_data_ptr<float>();
    const int64_t vocab = logits.size(1);
    at::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Sequence& sequence = sequences[static_cast<size_t>(i)];
        sequence.next =
            sample(data + i * vocab,
                   vocab,
                   sequence.seen,
                   options_,
                   options_.keys.empty() ? sequence.prompt : options_.keys[sequence.prompt],
                   static_cast<uint64_t>(sequence.drawn));
      }
    });
  }

  void keep_unfinished(std::vector<Sequence> sequences) {
    for (Sequence& sequence : sequences) {
      if (accept(sequence)) {
        running_.push_back(std::move(sequence));
      } else {
        cache_.remove_sequence(sequence.slot);
      }
    }
  }

  /// Records the sampled token; false when the sequence is over.
  bool accept(Sequence& sequence) {
    Generated& result = results_[sequence.prompt];
    const bool stop = !options_.ignore_stop &&
                      std::find(stops_.begin(), stops_.end(), sequence.next) != stops_.end();
    if (options_.max_new_tokens <= 0) {
      return false;
    }
    if (stop) {
      result.stopped = true;
      result.stop_id = sequence.next;
      return false;
    }
    result.tokens.push_back(sequence.next);
    sequence.seen.push_back(sequence.next);
    ++sequence.drawn;
    const bool wanted = !on_token_ || on_token_(sequence.prompt, sequence.next);
    return wanted && sequence.drawn < options_.max_new_tokens &&
           static_cast<int64_t>(sequence.seen.size()) < decoder_.config().context();
  }

  Decoder& decoder_;
  const std::vector<std::vector<int64_t>>& prompts_;
  const SampleOptions& options_;
  const TokenCallback& on_token_;
  AttentionCache cache_;
  std::vector<int64_t> stops_;
  std::vector<Generated> results_;
  std::vector<Sequence> running_;
  size_t waiting_ = 0;
};

}  // namespace

std::vector<Generated> generate(Decoder& decoder,
                                const std::vector<std::vector<int64_t>>& prompts,
                                const SampleOptions& options,
                                const TokenCallback& on_token) {
  require_tokens(decoder.config(), "model.generate");
  const at::NoGradGuard no_grad;
  return Generation(decoder, prompts, options, on_token).run();
}

}  // namespace kamerton::model

// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/adapter_mix.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "kamerton/core/error.h"

#include "adapter_state.h"

namespace kamerton::tuning {

/// Of the next forward.
struct AdapterMix::Choice {
  at::Tensor adapter_N;               // of each row, int64
  std::vector<int64_t> present = {};  // the different ones among them
};

/// A module that some of the adapters change.
class AdapterMix::Module final : public model::LinearExtension {
 public:
  explicit Module(std::shared_ptr<Choice> choice) : choice_(std::move(choice)) {}

  void add(int64_t number, std::shared_ptr<model::LinearExtension> extension) {
    by_number_.resize(static_cast<size_t>(number) + 1);
    by_number_.back() = std::move(extension);
  }

  at::Tensor apply(const model::Linear& base,
                   const at::Tensor& x,
                   const at::Tensor& token_R) override {
    if (choice_->present.size() == 1) {
      return through(choice_->present[0], base, x, token_R);
    }
    const at::Tensor adapter_R =
        token_R.defined() ? choice_->adapter_N.index_select(0, token_R) : choice_->adapter_N;
    at::Tensor out = at::empty({x.size(0), base.out_features}, x.options());
    for (const int64_t number : choice_->present) {
      const at::Tensor rows = adapter_R.eq(number).nonzero().flatten();
      if (rows.numel() > 0) {
        const at::Tensor tokens = token_R.defined() ? token_R.index_select(0, rows) : rows;
        out.index_copy_(0, rows, through(number, base, x.index_select(0, rows), tokens));
      }
    }
    return out;
  }

 private:
  at::Tensor through(int64_t number,
                     const model::Linear& base,
                     const at::Tensor& x,
                     const at::Tensor& tokens) const {
    const auto at = static_cast<size_t>(number);
    return number == kBase || at >= by_number_.size() || by_number_[at] == nullptr
               ? base.product(x)
               : by_number_[at]->apply(base, x, tokens);
  }

  std::shared_ptr<Choice> choice_;
  std::vector<std::shared_ptr<model::LinearExtension>> by_number_;  // null: not changed by it
};

AdapterMix::AdapterMix(model::Decoder& decoder)
    : decoder_(decoder), choice_(std::make_shared<Choice>()) {
  choice_->present = {kBase};
}
AdapterMix::~AdapterMix() = default;

int64_t AdapterMix::size() const {
  return static_cast<int64_t>(adapters_.size());
}

const Adapter& AdapterMix::operator[](int64_t number) const {
  return *adapters_[static_cast<size_t>(number)];
}

const Adapter& AdapterMix::add(const AdapterSpec& spec) {
  std::vector<std::shared_ptr<model::LinearExtension>> before;
  for (model::Linear* linear : decoder_.linears()) {
    before.push_back(linear->extension);
  }
  auto adapter = std::make_unique<Adapter>(Adapter::attach(decoder_, spec));
  const model::Extensions& other = decoder_.extensions();
  const bool only_linear =
      other.embedding == nullptr && other.blocks.empty() && other.prompt == nullptr;
  if (!only_linear || !adapter->can_switch_off()) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "tuning.adapter_mix",
                       .what = "this adapter changes more than linear modules and cannot be mixed",
                       .got = spec.method,
                       .hint = "use it alone: --adapter DIR"});
  }
  const int64_t number = size();
  for (size_t i = 0; i < before.size(); ++i) {
    model::Linear* linear = decoder_.linears()[i];
    if (linear->extension == before[i]) {
      continue;
    }
    auto module = std::dynamic_pointer_cast<Module>(before[i]);
    if (module == nullptr) {
      module = std::make_shared<Module>(choice_);
    }
    module->add(number, linear->extension);
    linear->extension = module;
  }
  adapters_.push_back(std::move(adapter));
  return *adapters_.back();
}

void AdapterMix::choose(const std::vector<int64_t>& adapters, const std::vector<int64_t>& offsets) {
  std::vector<int64_t> rows;
  for (size_t d = 0; d < adapters.size(); ++d) {
    rows.insert(rows.end(), static_cast<size_t>(offsets[d + 1] - offsets[d]), adapters[d]);
  }
  choice_->adapter_N = at::tensor(rows, at::kLong).to(decoder_.device());
  choice_->present = adapters;
  std::sort(choice_->present.begin(), choice_->present.end());
  choice_->present.erase(std::unique(choice_->present.begin(), choice_->present.end()),
                         choice_->present.end());
}

}  // namespace kamerton::tuning

// SPDX-License-Identifier: Apache-2.0
// Bottleneck adapters a(x) = up(act(down(x))), h the residual stream before a part's result x comes
// to it. Houlsby (arXiv 1902.00751), both parts: h + x + a(x). Pfeiffer (2005.00052), feed-forward
// part: h + x + a(x + h). Parallel (2110.04366), feed-forward part: h + x + scaling a(h).
#include <optional>

#include <ATen/ATen.h>

#include "kamerton/tensor/linear.h"

#include "../method.h"
#include "../patterns.h"

namespace kamerton::tuning {
namespace {

enum class Place : uint8_t { OfResult, OfSum, OfStream };

struct Bottleneck {
  tensor::ParameterPtr down, down_bias, up, up_bias;
  bool silu = false;
  double scaling = 1.0;

  at::Tensor operator()(const at::Tensor& x) const {
    const at::Tensor narrow = tensor::linear(x, down, down_bias);
    const at::Tensor wide = tensor::linear(silu ? at::silu(narrow) : at::relu(narrow), up, up_bias);
    return scaling == 1.0 ? wide : wide * scaling;
  }
};

class BottleneckBlock final : public model::BlockExtension {
 public:
  BottleneckBlock(std::optional<Bottleneck> attention,
                  Bottleneck feed_forward,
                  Place place,
                  std::shared_ptr<DropoutKeys> switches)
      : attention_(std::move(attention)),
        feed_forward_(std::move(feed_forward)),
        place_(place),
        switches_(std::move(switches)) {}

  at::Tensor after_attention(const at::Tensor& h, const at::Tensor& added) override {
    return attention_.has_value() && !switches_->adapter_off ? changed(*attention_, h, added)
                                                             : added;
  }
  at::Tensor after_feed_forward(const at::Tensor& h, const at::Tensor& added) override {
    return switches_->adapter_off ? added : changed(feed_forward_, h, added);
  }

 private:
  at::Tensor changed(const Bottleneck& a, const at::Tensor& h, const at::Tensor& added) const {
    return added + a(place_ == Place::OfResult ? added : place_ == Place::OfSum ? added + h : h);
  }

  std::optional<Bottleneck> attention_;
  Bottleneck feed_forward_;
  Place place_;
  std::shared_ptr<DropoutKeys> switches_;
};

Place place_of(const std::string& method) {
  return method == "houlsby"    ? Place::OfResult
         : method == "pfeiffer" ? Place::OfSum
                                : Place::OfStream;
}

/// AdapterHub's starts: "bert": normal of deviation 0.02, biases zero; "mam_adapter": kaiming, up
/// zero.
Bottleneck add_bottleneck(Builder& builder, int64_t layer, const std::string& part) {
  const int64_t d = builder.decoder().config().hidden_size;
  const core::Json& size = builder.spec().settings->at("bottleneck_size");
  const auto narrow =
      size.is_number_integer()
          ? size.get<int64_t>()
          : static_cast<int64_t>(static_cast<double>(d) / builder.number("reduction_factor"));
  if (narrow < 1) {
    builder.refuse("nothing is left of the hidden size",
                   std::to_string(builder.number("reduction_factor")),
                   "at most " + std::to_string(d));
  }
  builder.settle("bottleneck_size", narrow);
  const std::string at =
      builder.decoder().config().names.layers + "." + std::to_string(layer) + "." + part;
  const bool mam = builder.text("init_weights") == "mam_adapter";
  const auto add =
      [&](const std::string& name, std::vector<int64_t> shape, const Initial& initial) {
        return builder.add(static_cast<int>(layer) + 1, at + name, std::move(shape), initial);
      };
  Bottleneck one;
  one.down =
      add(".adapter_down.weight", {narrow, d}, mam ? Initial::kaiming(d) : Initial::normal(0.02));
  one.down_bias = add(".adapter_down.bias", {narrow}, Initial::constant(0));
  one.up =
      add(".adapter_up.weight", {d, narrow}, mam ? Initial::constant(0) : Initial::normal(0.02));
  one.up_bias = add(".adapter_up.bias", {d}, Initial::constant(0));
  one.silu = builder.text("non_linearity") != "relu";
  one.scaling = builder.number("scaling");
  return one;
}

void attach_bottleneck(Builder& builder) {
  const std::string activation = builder.text("non_linearity");
  if (activation != "relu" && activation != "swish" && activation != "silu") {
    builder.refuse("unknown non_linearity", activation, "relu, swish");
  }
  const Place place = place_of(builder.spec().method);
  auto& blocks = builder.decoder().extensions().blocks;
  const int64_t layers = builder.decoder().config().layers;
  blocks.assign(static_cast<size_t>(layers), nullptr);
  for (int64_t i = 0; i < layers; ++i) {
    if (!in_chosen_layer(builder.spec(), "layers." + std::to_string(i) + ".")) {
      continue;
    }
    std::optional<Bottleneck> attention;
    if (place == Place::OfResult) {
      attention = add_bottleneck(builder, i, "attention_adapters");
    }
    blocks[static_cast<size_t>(i)] = std::make_shared<BottleneckBlock>(
        attention, add_bottleneck(builder, i, "output_adapters"), place, builder.switches());
  }
  builder.refuse_merge("it has an activation inside");
}

Method bottleneck(const char* name,
                  const char* text,
                  double reduction,
                  const char* activation,
                  double scaling,
                  const char* init,
                  bool (*wrote)(const core::Json&)) {
  return {.name = name,
          .peft_type = "BOTTLENECK",
          .text = text,
          .settings = {{"reduction_factor", reduction, "hidden size / width of the bottleneck"},
                       {"bottleneck_size", nullptr, "the width itself"},
                       {"non_linearity", activation, "relu or swish"},
                       {"scaling", scaling, "multiplies the adapter's result"},
                       {"init_weights", init, "bert or mam_adapter (starts as no change)"},
                       {"use_parallel_adapter", std::string_view(name) == "parallel", "the form"},
                       {"use_adapterp", std::string_view(name) == "pfeiffer", "the form"}},
          .targets = {},
          .attach = attach_bottleneck,
          .wrote = wrote};
}

bool flag_of(const core::Json& config, const char* key) {
  const core::Json* value = core::json_find(config, key);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

}  // namespace

std::vector<Method> bottleneck_methods() {
  return {bottleneck("houlsby",
                     "bottleneck adapters after attention and feed-forward part (arXiv 1902.00751)",
                     16,
                     "swish",
                     1.0,
                     "bert",
                     [](const core::Json& c) {
                       return !flag_of(c, "use_parallel_adapter") && !flag_of(c, "use_adapterp");
                     }),
          bottleneck("pfeiffer",
                     "bottleneck adapters after the feed-forward part (arXiv 2005.00052)",
                     16,
                     "relu",
                     1.0,
                     "bert",
                     [](const core::Json& c) { return flag_of(c, "use_adapterp"); }),
          bottleneck("parallel",
                     "bottleneck adapters beside the feed-forward part (arXiv 2110.04366)",
                     2,
                     "relu",
                     4.0,
                     "mam_adapter",
                     [](const core::Json& c) { return flag_of(c, "use_parallel_adapter"); })};
}

}  // namespace kamerton::tuning

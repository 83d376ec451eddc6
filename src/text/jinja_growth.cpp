// SPDX-License-Identifier: Apache-2.0
#include "jinja_growth.h"

#include <map>
#include <set>
#include <string>
#include <utility>

namespace kamerton::text::jinja {
namespace {

class GrowthCheck {
 public:
  const Node* run(const Template& parsed) {
    for (const NodePtr& node : parsed.body) {
      collect_namespaces(*node);
    }
    for (const NodePtr& node : parsed.body) {
      if (node->kind == NodeKind::For && sequence(*node->children[1])) {
        check_loop(*node);
      } else {
        visit(node.get());
      }
    }
    return sound_ ? loop_ : nullptr;
  }

 private:
  enum class Place { Before, Loop, After };

  void refuse_if(bool condition) { sound_ = sound_ && !condition; }

  /// Names bound to a namespace anywhere: what is in them may come from any message.
  void collect_namespaces(const Node& node) {
    if (node.kind == NodeKind::Set && node.children[0]->kind == NodeKind::Name &&
        mentions_namespace(node.children[1].get())) {
      late_.insert(node.children[0]->text);
    }
    for (const auto* list : {&node.body, &node.otherwise}) {
      for (const NodePtr& child : *list) {
        collect_namespaces(*child);
      }
    }
  }
  bool mentions_namespace(const Node* node) const {
    if (node == nullptr) {
      return false;
    }
    if (node->kind == NodeKind::Name) {
      return node->text == "namespace" || late_.count(node->text) > 0;
    }
    bool found = false;
    each_part(*node, [&](const Node* part) { found = found || mentions_namespace(part); });
    return found;
  }

  template <class Visit>
  static void each_part(const Node& node, Visit visit) {
    for (const NodePtr& child : node.children) {
      visit(child.get());
    }
    for (const NodePtr& child : node.arguments.positional) {
      visit(child.get());
    }
    for (const auto& [name, child] : node.arguments.named) {
      visit(child.get());
    }
    visit(node.arguments.list.get());
    visit(node.arguments.dict.get());
    for (const Parameter& parameter : node.parameters) {
      visit(parameter.otherwise.get());
    }
    for (const NodePtr& child : node.body) {
      visit(child.get());
    }
    for (const NodePtr& child : node.otherwise) {
      visit(child.get());
    }
  }

  static bool is_constant(const Node* node, int value) {
    return node != nullptr && node->kind == NodeKind::Const && node->value.is(Type::Int) &&
           node->value.as_int() == value;
  }

  /// Whether the expression is the messages from the first or the second on; `cut` then says that
  /// the first may be missing.
  bool sequence(const Node& node, bool* cut = nullptr) {
    bool ignored = false;
    cut = cut == nullptr ? &ignored : cut;
    if (node.kind == NodeKind::Name) {
      const auto found = sequences_.find(node.text);
      *cut = *cut || (found != sequences_.end() && found->second);
      return found != sequences_.end();
    }
    if (node.kind == NodeKind::Item && node.children[1]->kind == NodeKind::Slice) {
      const Node& slice = *node.children[1];
      bool inner = false;
      const bool from_first =
          slice.children[0] == nullptr || is_constant(slice.children[0].get(), 0);
      const bool plain = slice.children[1] == nullptr && slice.children[2] == nullptr &&
                         sequence(*node.children[0], &inner);
      *cut = *cut || inner || !from_first;
      return plain && !(inner && !from_first) &&
             (from_first || is_constant(slice.children[0].get(), 1));
    }
    if (node.kind == NodeKind::Condition && node.children[2] != nullptr) {
      visit(node.children[1].get());
      return sequence(*node.children[0], cut) && sequence(*node.children[2], cut);
    }
    return false;
  }

  void check_loop(const Node& node) {
    refuse_if(loop_ != nullptr || place_ != Place::Before || node.children[2] != nullptr ||
              node.flag || !node.otherwise.empty());
    loop_ = &node;
    place_ = Place::Loop;
    for (const NodePtr& child : node.body) {
      visit(child.get());
    }
    place_ = Place::After;
  }

  void visit(const Node* node) {
    if (node == nullptr || !sound_) {
      return;
    }
    switch (node->kind) {
      case NodeKind::Name:
        return visit_name(node->text);
      case NodeKind::Attribute:
        return visit_attribute(*node);
      case NodeKind::Test:
        if (node->text == "defined" && node->children[0]->kind == NodeKind::Name &&
            (node->children[0]->text == "add_generation_prompt" ||
             node->children[0]->text == "messages")) {
          return;  // both always are
        }
        return visit_parts(*node);
      case NodeKind::Item:
        // The first message is the same one in every beginning of the conversation.
        if (!in_macro_ && node->children[0]->kind == NodeKind::Name &&
            sequences_.count(node->children[0]->text) > 0 &&
            !sequences_.at(node->children[0]->text) && is_constant(node->children[1].get(), 0)) {
          return;
        }
        return visit_parts(*node);
      case NodeKind::Set:
        return visit_set(*node);
      case NodeKind::For:
        visit(node->children[1].get());
        ++inner_loops_;
        visit(node->children[2].get());
        for (const auto* list : {&node->body, &node->otherwise}) {
          for (const NodePtr& child : *list) {
            visit(child.get());
          }
        }
        --inner_loops_;
        return;
      case NodeKind::Macro:
        return visit_macro(*node);
      case NodeKind::Break:
        refuse_if(inner_loops_ == 0);
        return;
      default:
        return visit_parts(*node);
    }
  }
  void visit_parts(const Node& node) {
    each_part(node, [&](const Node* part) { visit(part); });
  }

  void visit_name(const std::string& name) {
    refuse_if(sequences_.count(name) > 0 || (name == "loop" && inner_loops_ == 0));
    refuse_if(name == "add_generation_prompt" && place_ != Place::After);
    refuse_if(place_ == Place::After && late_.count(name) > 0);
    uses_late_ = uses_late_ || late_.count(name) > 0;
  }

  void visit_attribute(const Node& node) {
    const Node& owner = *node.children[0];
    if (owner.kind == NodeKind::Name && owner.text == "loop" && inner_loops_ == 0) {
      refuse_if(node.text != "index" && node.text != "index0" && node.text != "first" &&
                node.text != "previtem");
      return;
    }
    visit_parts(node);
  }

  void visit_set(const Node& node) {
    const Node& target = *node.children[0];
    bool cut = false;
    if (target.kind == NodeKind::Name && place_ == Place::Before && inner_loops_ == 0 &&
        sequence(*node.children[1], &cut)) {
      const auto known = sequences_.find(target.text);
      sequences_[target.text] = cut || (known != sequences_.end() && known->second);
      return;
    }
    visit(node.children[1].get());
    if (target.kind == NodeKind::Name) {
      refuse_if(sequences_.count(target.text) > 0 ||
                (target.text == "add_generation_prompt" &&
                 node.children[1]->kind != NodeKind::Const));
    } else {
      visit(&target);
    }
  }

  /// A macro that reads a namespace gives what is in it when it is called.
  void visit_macro(const Node& node) {
    const bool before = std::exchange(uses_late_, false);
    const bool outer = std::exchange(in_macro_, true);
    ++inner_loops_;  // a loop seen from inside a macro is not the one over the messages
    visit_parts(node);
    --inner_loops_;
    in_macro_ = outer;
    if (uses_late_) {
      late_.insert(node.text);
    }
    uses_late_ = before;
  }

  /// Names of the messages, and whether the first one may be missing.
  std::map<std::string, bool> sequences_{{"messages", false}};
  std::set<std::string> late_;  ///< names whose value may depend on any message
  const Node* loop_ = nullptr;
  Place place_ = Place::Before;
  int inner_loops_ = 0;
  bool uses_late_ = false;
  bool in_macro_ = false;
  bool sound_ = true;
};

}  // namespace

const Node* growing_loop(const Template& parsed) {
  return GrowthCheck().run(parsed);
}

}  // namespace kamerton::text::jinja

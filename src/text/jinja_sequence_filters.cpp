// SPDX-License-Identifier: Apache-2.0
// Filters on lists, dicts and strings as sequences.
#include <algorithm>

#include "jinja_filter_table.h"
#include "jinja_strings.h"

namespace kamerton::text::jinja {
namespace {

using In = Interpreter&;
using Val = const Value&;
using Args = Arguments&;
using Values = std::vector<Value>;

/// "a.0.b" of a value; the value itself where no attribute is named.
Value path(In interpreter, Val value, const Value* attribute) {
  if (attribute == nullptr || attribute->is(Type::None)) {
    return value;
  }
  if (!attribute->is(Type::String)) {
    return interpreter.item(value, *attribute);
  }
  Value out = value;
  for (const std::string& part : split_by(attribute->text(), ".", -1, false)) {
    const bool number = !part.empty() && part.size() < 10 &&
                        part.find_first_not_of("0123456789") == std::string::npos;
    out = interpreter.item(out, number ? Value::integer(std::stol(part)) : Value::string(part));
  }
  return out;
}

Value folded(Val value, bool case_sensitive) {
  return !case_sensitive && value.is(Type::String) ? Value::string(lower(value.text())) : value;
}

Value length_filter(In, Val value, Args) {
  return Value::integer(length(value));
}

Value first(In, Val value, Args) {
  const Values items = iterate(value);
  return items.empty() ? Value::undefined("the first item of nothing") : items.front();
}

Value last(In, Val value, Args) {
  const Values items = iterate(value);
  return items.empty() ? Value::undefined("the last item of nothing") : items.back();
}

Value list_filter(In, Val value, Args) {
  return Value::list(iterate(value));
}

Value join(In interpreter, Val value, Args arguments) {
  const Bound args("join", arguments, {"d", "attribute"});
  const std::string separator = args[0] != nullptr ? to_str(*args[0]) : "";
  std::string out;
  bool begun = false;
  for (Val item : iterate(value)) {
    out += (begun ? separator : "") + to_str(path(interpreter, item, args[1]));
    interpreter.check_size(out.size());
    begun = true;
  }
  return interpreter.text(std::move(out));
}

Value sum(In interpreter, Val value, Args arguments) {
  const Bound args("sum", arguments, {"attribute", "start"});
  Value total = args[1] != nullptr ? *args[1] : Value::integer(0);
  for (Val item : iterate(value)) {
    total = operate(interpreter, "+", total, path(interpreter, item, args[0]));
  }
  return total;
}

Value extreme(In interpreter, Val value, Args arguments, int sign) {
  const Bound args("min", arguments, {"case_sensitive", "attribute"});
  const Values items = iterate(value);
  if (items.empty()) {
    return Value::undefined("the extreme of nothing");
  }
  size_t best = 0;
  const auto key = [&](size_t i) {
    return folded(path(interpreter, items[i], args[1]), args.boolean(0, false));
  };
  for (size_t i = 1; i < items.size(); ++i) {
    best = compare(key(i), key(best)) * sign > 0 ? i : best;
  }
  return items[best];
}

Value min_filter(In i, Val v, Args a) {
  return extreme(i, v, a, -1);
}
Value max_filter(In i, Val v, Args a) {
  return extreme(i, v, a, 1);
}

struct Keyed {
  Values keys;
  Value value;
};

int compare_keys(const Keyed& a, const Keyed& b) {
  spend(1);
  for (size_t i = 0; i < a.keys.size(); ++i) {
    if (const int order = compare(a.keys[i], b.keys[i]); order != 0) {
      return order;
    }
  }
  return 0;
}

/// Merge sort: unlike std::stable_sort it stays within its bounds when the order is none (NaN) or
/// comparing throws.
void sort_keyed(std::vector<Keyed>& items, bool reverse) {
  std::vector<Keyed> other(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t begin = 0; begin < items.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items.size());
      const size_t end = std::min(begin + 2 * width, items.size());
      size_t left = begin;
      size_t right = middle;
      for (size_t out = begin; out < end; ++out) {
        const bool take_right =
            left == middle ||
            (right < end && (reverse ? compare_keys(items[right], items[left]) > 0
                                     : compare_keys(items[right], items[left]) < 0));
        other[out] = std::move(items[take_right ? right++ : left++]);
      }
    }
    items.swap(other);
  }
}

Value sort(In interpreter, Val value, Args arguments) {
  const Bound args("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<Keyed> items;
  for (Val item : iterate(value)) {
    Keyed keyed{{}, item};
    if (args[2] != nullptr && args[2]->is(Type::String)) {
      for (const std::string& one : split_by(args[2]->text(), ",", -1, false)) {
        const Value attribute = Value::string(one);
        keyed.keys.push_back(folded(path(interpreter, item, &attribute), args.boolean(1, false)));
      }
    } else {
      keyed.keys.push_back(folded(path(interpreter, item, args[2]), args.boolean(1, false)));
    }
    items.push_back(std::move(keyed));
  }
  sort_keyed(items, args.boolean(0, false));
  Values out;
  for (Keyed& keyed : items) {
    out.push_back(std::move(keyed.value));
  }
  return Value::list(std::move(out));
}

Value dictsort(In, Val value, Args arguments) {
  const Bound args("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = args.string(1, "key");
  if (!value.is(Type::Dict) || (by != "key" && by != "value")) {
    fail("dictsort needs a dict, and by 'key' or 'value'");
  }
  std::vector<Keyed> items;
  for (const Pair& pair : value.dict_data().items) {
    items.push_back({{folded(by == "key" ? pair.key : pair.value, args.boolean(0, false))},
                     Value::list({pair.key, pair.value}, Type::Tuple)});
  }
  sort_keyed(items, args.boolean(2, false));
  Values out;
  for (Keyed& keyed : items) {
    out.push_back(std::move(keyed.value));
  }
  return Value::list(std::move(out));
}

Value items_filter(In, Val value, Args) {
  Values out;
  if (value.is(Type::Undefined)) {
    return Value::list(std::move(out), Type::Iterator);
  }
  if (!value.is(Type::Dict)) {
    fail(std::string("items needs a dict, not ") + type_name(value));
  }
  for (const Pair& pair : value.dict_data().items) {
    out.push_back(Value::list({pair.key, pair.value}, Type::Tuple));
  }
  return Value::list(std::move(out), Type::Iterator);
}

/// What is left of a filter's arguments behind the first `skip`.
Arguments rest(Args arguments, size_t skip) {
  Arguments out;
  out.positional.assign(arguments.positional.begin() +
                            static_cast<ptrdiff_t>(std::min(skip, arguments.positional.size())),
                        arguments.positional.end());
  out.named = arguments.named;
  return out;
}

Value chosen(In interpreter, Val value, Args arguments, bool by_attribute, bool wanted) {
  const size_t skip = by_attribute ? 1 : 0;
  if (arguments.positional.size() < skip) {
    fail("selectattr needs the name of an attribute");
  }
  const Value attribute = by_attribute ? arguments.positional[0] : Value::none();
  const bool tested = arguments.positional.size() > skip;
  const std::string test = tested ? string_of(arguments.positional[skip], "select") : "";
  Values out;
  for (Val item : iterate(value)) {
    const Value seen = path(interpreter, item, &attribute);
    Arguments given = rest(arguments, skip + 1);
    if ((tested ? interpreter.apply_test(test, seen, given) : seen.truthy()) == wanted) {
      out.push_back(item);
    }
  }
  return Value::list(std::move(out), Type::Iterator);
}

Value select(In i, Val v, Args a) {
  return chosen(i, v, a, false, true);
}
Value reject(In i, Val v, Args a) {
  return chosen(i, v, a, false, false);
}
Value selectattr(In i, Val v, Args a) {
  return chosen(i, v, a, true, true);
}
Value rejectattr(In i, Val v, Args a) {
  return chosen(i, v, a, true, false);
}

Value map(In interpreter, Val value, Args arguments) {
  Values out;
  if (arguments.positional.empty()) {
    const Bound args("map", arguments, {"attribute", "default"});
    args.need(0);
    for (Val item : iterate(value)) {
      Value seen = path(interpreter, item, args[0]);
      out.push_back(seen.is(Type::Undefined) && args[1] != nullptr ? *args[1] : seen);
    }
  } else {
    const std::string name = string_of(arguments.positional[0], "map");
    for (Val item : iterate(value)) {
      Arguments given = rest(arguments, 1);
      out.push_back(interpreter.apply_filter(name, item, given));
    }
  }
  return Value::list(std::move(out), Type::Iterator);
}

Value groupby(In interpreter, Val value, Args arguments) {
  const Bound args("groupby", arguments, {"attribute", "default", "case_sensitive"});
  args.need(0);
  std::vector<Keyed> items;
  Values shown;
  for (Val item : iterate(value)) {
    Value key = path(interpreter, item, args[0]);
    key = key.is(Type::Undefined) && args[1] != nullptr ? *args[1] : key;
    items.push_back({{folded(key, args.boolean(2, false)), key}, item});
  }
  for (Keyed& keyed : items) {  // sorted by the folded key alone; the second one is what is shown
    keyed.value = Value::list({keyed.keys[1], keyed.value}, Type::Tuple);
    keyed.keys.pop_back();
  }
  sort_keyed(items, false);
  Values out;
  for (size_t i = 0; i < items.size();) {
    Values group;
    size_t end = i;
    for (; end < items.size() && equal(items[end].keys[0], items[i].keys[0]); ++end) {
      group.push_back(items[end].value.items()[1]);
    }
    out.push_back(
        Value::list({items[i].value.items()[0], Value::list(std::move(group))}, Type::Tuple));
    i = std::max(end, i + 1);
  }
  return Value::list(std::move(out));
}

Value unique(In interpreter, Val value, Args arguments) {
  const Bound args("unique", arguments, {"case_sensitive", "attribute"});
  Values seen;
  Values out;
  for (Val item : iterate(value)) {
    const Value key = folded(path(interpreter, item, args[1]), args.boolean(0, false));
    if (std::none_of(seen.begin(), seen.end(), [&](Val known) { return equal(known, key); })) {
      seen.push_back(key);
      out.push_back(item);
    }
  }
  return Value::list(std::move(out), Type::Iterator);
}

Value batch(In, Val value, Args arguments) {
  const Bound args("batch", arguments, {"linecount", "fill_with"});
  const int64_t size = args.integer(0, 0);
  if (size < 1 || size > 1'000'000) {
    fail("batch needs a size from 1 to 1000000");
  }
  Values out;
  Values row;
  const auto close = [&] {
    out.push_back(Value::list(std::move(row)));
    row.clear();
  };
  for (Val item : iterate(value)) {
    if (static_cast<int64_t>(row.size()) == size) {
      close();
    }
    row.push_back(item);
  }
  if (!row.empty()) {
    if (args[1] != nullptr && !args[1]->is(Type::None)) {
      row.resize(static_cast<size_t>(size), *args[1]);
    }
    close();
  }
  return Value::list(std::move(out), Type::Iterator);
}

Value slice(In, Val value, Args arguments) {
  const Bound args("slice", arguments, {"slices", "fill_with"});
  const int64_t count = args.integer(0, 0);
  if (count < 1 || count > 1'000'000) {
    fail("slice needs a number of slices from 1 to 1000000");
  }
  const Values items = iterate(value);
  const size_t each = items.size() / static_cast<size_t>(count);
  const size_t longer = items.size() % static_cast<size_t>(count);
  const bool fills = args[1] != nullptr && !args[1]->is(Type::None);
  Values out;
  size_t at = 0;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const size_t size = each + (i < longer ? 1 : 0);
    Values row(items.begin() + static_cast<ptrdiff_t>(at),
               items.begin() + static_cast<ptrdiff_t>(at + size));
    at += size;
    if (fills && longer > 0 && i >= longer) {
      row.push_back(*args[1]);
    }
    out.push_back(Value::list(std::move(row)));
  }
  return Value::list(std::move(out), Type::Iterator);
}

Value reverse(In interpreter, Val value, Args) {
  Values items = iterate(value);
  std::reverse(items.begin(), items.end());
  if (!value.is(Type::String)) {
    return Value::list(std::move(items), Type::Iterator);
  }
  std::string out;
  for (Val item : items) {
    out += item.text();
  }
  return interpreter.text(std::move(out));
}

Value attr(In interpreter, Val value, Args arguments) {
  const Bound args("attr", arguments, {"name"});
  const std::string& name = string_of(args.need(0), "attr");
  return value.is(Type::Dict) && !has_method(value, name) ? Value::undefined(name)
                                                          : interpreter.attribute(value, name);
}

}  // namespace

void add_sequence_filters(FilterTable& t) {
  t["length"] = t["count"] = length_filter;
  t["first"] = first;
  t["last"] = last;
  t["list"] = list_filter;
  t["join"] = join;
  t["sum"] = sum;
  t["min"] = min_filter;
  t["max"] = max_filter;
  t["sort"] = sort;
  t["dictsort"] = dictsort;
  t["items"] = items_filter;
  t["select"] = select;
  t["reject"] = reject;
  t["selectattr"] = selectattr;
  t["rejectattr"] = rejectattr;
  t["map"] = map;
  t["groupby"] = groupby;
  t["unique"] = unique;
  t["batch"] = batch;
  t["slice"] = slice;
  t["reverse"] = reverse;
  t["attr"] = attr;
}

}  // namespace kamerton::text::jinja

#include "host/model/parameter_slots.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "einfield/error.hpp"
#include "host/files/text.hpp"

namespace einfield {

template <class Component>
void ParameterSlots::add(const ProfileInfo& info, const Component& c) {
  const std::size_t first = slots_.size();
  EINFIELD_REQUIRE(c.follows.empty() || c.follows.size() == c.values.size(),
                   "component " + std::to_string(first / kMaxProfileParameters) + " of the model: " +
                       std::to_string(c.follows.size()) + " relations, expected " + std::to_string(c.values.size()));
  slots_.resize(first + kMaxProfileParameters);
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    Slot& slot = slots_[first + i];
    slot = {&info.parameters[i], c.values[i], c.free[i] != 0};
    if (!c.priors.empty()) slot.prior = &c.priors[i];
    if (!c.follows.empty() && c.follows[i].given()) slot.follows = &c.follows[i];
  }
}

ParameterSlots::ParameterSlots(const Model& model) : model_(model) {
  for (const LensComponent& c : model.lens) add(lens_info(c.kind), c);
  for_each_light(model, [this](const LightComponent& c) { add(light_info(c.kind), c); });
  for (Slot& s : slots_)
    if (s.follows) s.target = find(s.follows->of);
}

int ParameterSlots::find(const std::string& name) const {
  for (int k = 0; k < size(); ++k)
    if (at(k).info && name.compare(name.rfind('.') + 1, std::string::npos, at(k).info->name) == 0 &&
        name == slot_name(model_, k))
      return k;
  return -1;
}

std::vector<std::string> ParameterSlots::names() const {
  std::vector<std::string> names;
  for (int k = 0; k < size(); ++k)
    if (at(k).info) names.push_back(slot_name(model_, k));
  return names;
}

SlotRelation ParameterSlots::root(int slot) const {
  SlotRelation r{slot};
  while (const Relation* const next = at(r.slot).follows) {
    r.offset += r.factor * next->offset;
    r.factor *= next->factor;
    r.slot = at(r.slot).target;
  }
  return r;
}

SlotRelation ParameterSlots::root(const Relation& relation) const {
  const SlotRelation r = root(find(relation.of));
  return {r.slot, relation.factor * r.factor, relation.factor * r.offset + relation.offset};
}

double ParameterSlots::value(int slot) const {
  const SlotRelation r = root(slot);
  return r.factor * at(r.slot).value + r.offset;
}

ParameterSlots::Range ParameterSlots::range(int slot) const {
  const SlotRelation r = root(slot);
  const Slot& s = at(r.slot);
  double lower = s.value, upper = s.value;
  if (s.free) {
    const bool bounded = s.prior && s.prior->bounded(), ellipticity = s.info->range == einfield::Range::ellipticity;
    lower = bounded ? s.prior->lower : ellipticity ? -1 : s.info->lower;
    upper = bounded ? s.prior->upper : ellipticity ? 1 : s.info->upper;
  }
  if (r.factor == 0) return {r.offset, r.offset};
  const double a = r.factor * lower + r.offset, b = r.factor * upper + r.offset;
  return {std::min(a, b), std::max(a, b)};
}

double ParameterSlots::reach(int slot) const {
  const Slot& s = at(slot);
  if (!s.follows && s.free && !(s.prior && s.prior->bounded())) return 0;
  const Range r = range(slot);
  return std::max(std::abs(r.lower), std::abs(r.upper));
}

std::string ParameterSlots::unknown(const std::string& name) const {
  return "no such parameter, found \"" + name + "\", expected " + suggestion(name, names());
}

/// What is wrong with the relation of one slot.
std::optional<std::string> ParameterSlots::problem_of(int slot) const {
  const Slot& s = at(slot);
  const std::string found = ", found \"" + to_text(*s.follows) + "\"";
  if (!std::isfinite(s.follows->factor) || !std::isfinite(s.follows->offset))
    return "not a finite relation" + found + ", expected finite numbers";
  if (s.info->range == einfield::Range::integer)
    return "a whole number cannot follow a parameter" + found + ", expected an integer";
  if (s.free) return "free although it follows a parameter" + found + ", expected it only in one of the two";
  int at_slot = slot;
  for (int steps = 0; const Relation* const next = at(at_slot).follows; ++steps) {
    if (steps > size()) return "follows itself" + found + ", expected a parameter that does not lead back to it";
    at_slot = at(at_slot).target;
    if (at_slot < 0) return unknown(next->of);
  }
  if (s.info->range == einfield::Range::ellipticity) return std::nullopt;  // together with the other component
  const Range r = range(slot);
  const bool point = r.lower == r.upper;
  const bool inside =
      point ? r.lower > s.info->lower && r.upper < s.info->upper : r.lower >= s.info->lower && r.upper <= s.info->upper;
  if (inside) return std::nullopt;
  return "can leave its range" + found + fmt::format(", which reaches from {:g} to {:g}", r.lower, r.upper) +
         fmt::format(", expected values between {:g} and {:g}; bounds of ", s.info->lower, s.info->upper) +
         slot_name(model_, at_slot) + " limit it";
}

/// What is wrong with the ellipticity of the component whose slots begin at `first`, if bounds or relations move it.
std::optional<RelationProblem> ParameterSlots::problem_of_ellipticity(int first) const {
  int pair[2] = {-1, -1}, follower = -1;
  bool bounded = false;
  for (int k = first; k < first + kMaxProfileParameters; ++k) {
    if (at(k).info == nullptr || at(k).info->range != einfield::Range::ellipticity) continue;
    (pair[0] < 0 ? pair[0] : pair[1]) = k;
    if (at(k).follows) follower = k;
    bounded = bounded || (at(k).prior && at(k).prior->bounded());
  }
  if (follower < 0 && !bounded) return std::nullopt;
  // Both follow the ellipticity of one other component and are no larger than it: inside whatever that is.
  const SlotRelation a = root(pair[0]), b = root(pair[1]);
  const auto is_ellipticity = [this](int slot) { return at(slot).info->range == einfield::Range::ellipticity; };
  const bool together = at(pair[0]).follows && at(pair[1]).follows && a.slot != b.slot &&
                        a.slot / kMaxProfileParameters == b.slot / kMaxProfileParameters && is_ellipticity(a.slot) &&
                        is_ellipticity(b.slot) && a.offset == 0 && b.offset == 0 &&
                        std::max(std::abs(a.factor), std::abs(b.factor)) <= 1;
  const double e1 = reach(pair[0]), e2 = reach(pair[1]);
  if (together || e1 * e1 + e2 * e2 < 1) return std::nullopt;
  const std::string found = fmt::format("|e1| = {:g}, |e2| = {:g}, expected e1² + e2² < 1", e1, e2);
  const std::string name = slot_name(model_, std::max(follower, first));
  if (follower < 0)
    return RelationProblem{name.substr(0, name.rfind('.')),
                           "the bounds of the ellipticity allow " + found + " everywhere within the bounds"};
  return RelationProblem{name, "the ellipticity can leave its range, found up to " + found +
                                   ": both components follow those of one other, or bounds limit what "
                                   "they follow"};
}

std::optional<RelationProblem> ParameterSlots::problem() const {
  for (int k = 0; k < size(); ++k) {
    if (!at(k).follows) continue;
    if (const auto message = problem_of(k)) return RelationProblem{slot_name(model_, k), *message};
  }
  for (int k = 0; k < size(); ++k) {
    const Slot& s = at(k);
    if (k % kMaxProfileParameters == 0)
      if (const auto problem = problem_of_ellipticity(k)) return problem;
    if (!s.prior || !s.prior->gaussian() || !s.prior->mean_of.given()) continue;
    const Relation& mean = s.prior->mean_of;
    std::string where = slot_name(model_, k);
    where.insert(where.rfind('.'), ".prior");
    if (!std::isfinite(mean.factor) || !std::isfinite(mean.offset))
      return RelationProblem{where, "not a finite relation, found \"" + to_text(mean) + "\", expected finite numbers"};
    if (find(mean.of) < 0) return RelationProblem{where, unknown(mean.of)};
    if (root(mean).slot == k)
      return RelationProblem{
          where, "the mean follows the parameter itself, found \"" + to_text(mean) + "\", expected another parameter"};
  }
  return std::nullopt;
}

std::optional<RelationProblem> try_follow(Model& model) {
  const ParameterSlots slots(model);
  if (auto problem = slots.problem()) return problem;
  int first = 0;
  const auto set = [&](auto& c) {
    for (std::size_t i = 0; i < c.follows.size(); ++i)
      if (c.follows[i].given()) c.values[i] = slots.value(first + static_cast<int>(i));
    for (ParameterPrior& prior : c.priors) {
      if (!prior.gaussian() || !prior.mean_of.given()) continue;
      const SlotRelation r = slots.root(prior.mean_of);
      prior.mean = r.factor * slots.value(r.slot) + r.offset;
    }
    first += kMaxProfileParameters;
  };
  for (LensComponent& c : model.lens) set(c);
  for_each_light(model, set);
  return std::nullopt;
}

void follow(Model& model) {
  if (const auto problem = try_follow(model)) throw InvalidInput(problem->where + ": " + problem->message);
}

std::string to_text(const Relation& relation) {
  std::string text = relation.factor == 1 ? relation.of : to_text(relation.factor) + " * " + relation.of;
  if (relation.offset > 0) text += " + " + to_text(relation.offset);
  if (relation.offset < 0) text += " - " + to_text(-relation.offset);
  return text;
}

std::optional<Relation> parse_relation(const std::string& text) {
  // + and - divide terms, except as the sign of an exponent and behind * or /.
  Relation relation{"", 1, 0};
  std::size_t begin = 0;
  const auto is_sign = [&](std::size_t i) {
    if (text[i] != '+' && text[i] != '-') return false;
    const std::size_t last = text.find_last_not_of(' ', i == 0 ? std::string::npos : i - 1);
    if (i == 0 || last == std::string::npos) return true;
    if (text[last] == '*' || text[last] == '/') return false;
    const bool exponent = (text[i - 1] == 'e' || text[i - 1] == 'E') && i >= 2 &&
                          (std::isdigit(static_cast<unsigned char>(text[i - 2])) != 0 || text[i - 2] == '.');
    return !exponent;
  };
  while (begin < text.size()) {
    double sign = 1;
    std::size_t at = begin;
    while (at < text.size() && (text[at] == ' ' || is_sign(at))) {
      if (text[at] == '-') sign = -sign;
      ++at;
    }
    std::size_t end = at;
    while (end < text.size() && !is_sign(end)) ++end;
    double factor = sign;
    std::string name;
    for (std::size_t from = at; from <= end;) {  // factors
      std::size_t to = from;
      while (to < end && text[to] != '*' && text[to] != '/') ++to;
      const std::string word = trimmed(text.substr(from, to - from));
      const bool divides = from > at && text[from - 1] == '/';
      if (const auto number = parse_number<double>(word)) {
        factor = divides ? factor / *number : factor * *number;
      } else {
        const bool is_name = !word.empty() && std::isalpha(static_cast<unsigned char>(word[0])) != 0 &&
                             std::all_of(word.begin(), word.end(),
                                         [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '.'; });
        if (!is_name || divides || !name.empty()) return std::nullopt;
        name = word;
      }
      from = to + 1;
    }
    if (name.empty()) {
      relation.offset += factor;
    } else {
      if (relation.given()) return std::nullopt;
      relation.of = name;
      relation.factor = factor;
    }
    begin = end;
  }
  if (!relation.given() || !std::isfinite(relation.factor) || !std::isfinite(relation.offset)) return std::nullopt;
  return relation;
}

}  // namespace einfield

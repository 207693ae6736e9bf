// The parameters of a model by their place in the table of physical values, and the relations between them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "einfield/model.hpp"

namespace einfield {

/// What is wrong with a relation, or with an ellipticity that bounds or relations move.
struct RelationProblem {
  std::string where;  ///< "lens.0.center_x", "lens.0.prior.center_x"
  std::string message;
};

/// factor · (value of a slot) + offset
struct SlotRelation {
  int slot;
  double factor = 1, offset = 0;
};

/// The slots of a model, kMaxProfileParameters per component; lens, then source, then lens light. It refers to the
/// model.
class ParameterSlots {
 public:
  explicit ParameterSlots(const Model& model);

  int size() const { return static_cast<int>(slots_.size()); }
  /// The slot of a name, or −1. @param name  "lens.0.theta_E"
  int find(const std::string& name) const;
  /// Every parameter's name, in order.
  std::vector<std::string> names() const;
  /// The first thing that is wrong. The other members may be called if there is none.
  std::optional<RelationProblem> problem() const;
  /// The parameter that a slot follows, down to one that follows none: itself, if it has no relation.
  SlotRelation root(int slot) const;
  /// A relation in terms of a parameter that follows none.
  SlotRelation root(const Relation& relation) const;
  /// The value of a slot, from those of the parameters that follow none.
  double value(int slot) const;
  /// Largest |e| that a component of an ellipticity reaches; 0 when it is free without bounds.
  double reach(int slot) const;

 private:
  struct Slot {
    const ParameterInfo* info = nullptr;  ///< null: no parameter
    double value = 0;
    bool free = false;
    const ParameterPrior* prior = nullptr;
    const Relation* follows = nullptr;
    int target = -1;  ///< what it follows; -1: no such parameter
  };
  struct Range {
    double lower, upper;
  };
  template <class Component>
  void add(const ProfileInfo& info, const Component& c);
  const Slot& at(int slot) const { return slots_[static_cast<std::size_t>(slot)]; }
  Range range(int slot) const;
  std::string unknown(const std::string& name) const;
  std::optional<std::string> problem_of(int slot) const;
  std::optional<RelationProblem> problem_of_ellipticity(int first) const;

  const Model& model_;
  std::vector<Slot> slots_;
};

/// follow(), except that it returns what is wrong and changes nothing then.
std::optional<RelationProblem> try_follow(Model& model);

/// A relation as text, "0.5 * lens_light.0.center_x + 0.1", and back; nothing if the text is none.
std::string to_text(const Relation& relation);
std::optional<Relation> parse_relation(const std::string& text);

}  // namespace einfield

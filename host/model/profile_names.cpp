#include "host/model/profile_names.hpp"

namespace einfield {
namespace {

template <class Kind>
std::optional<Kind> kind_of(const std::string& name, int count, const ProfileInfo& (*info)(Kind)) {
  for (int i = 0; i < count; ++i)
    if (name == info(static_cast<Kind>(i)).name) return static_cast<Kind>(i);
  return std::nullopt;
}

}  // namespace

std::optional<LensKind> lens_kind(const std::string& name) {
  return kind_of(name, kLensKinds, lens_info);
}

std::optional<LightKind> light_kind(const std::string& name) {
  return kind_of(name, kLightKinds, light_info);
}

}  // namespace einfield

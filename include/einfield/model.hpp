// What is fitted: lens, source and lens-light components, the network, which parameters are free, and the smooth
// transforms that keep free parameters inside their physical range.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "einfield/core.hpp"
#include "einfield/lens.hpp"
#include "einfield/network.hpp"
#include "einfield/profile.hpp"
#include "einfield/source.hpp"

namespace EINFIELD_API einfield {

/// A number that follows a parameter of the model: factor · (value of `of`) + offset.
struct Relation {
  std::string of;  ///< "lens_light.0.center_x"; empty: no relation
  double factor = 1, offset = 0;

  bool given() const { return !of.empty(); }
};

/// Prior of a free parameter: none, an interval, a Gaussian, or both.
struct ParameterPrior {
  double lower = -kInfinity, upper = kInfinity;  ///< ends of the interval, exclusive
  double mean = 0, sigma = 0;                    ///< of the Gaussian; sigma = 0: none
  Relation mean_of = {};                         ///< given: the mean follows another parameter, and `mean` is unused

  bool bounded() const { return lower > -kInfinity || upper < kInfinity; }
  bool gaussian() const { return sigma > 0; }
};

/// A lens profile with its parameters in the order of lens_info(kind).
struct LensComponent {
  LensKind kind{};
  std::vector<double> values;
  std::vector<std::uint8_t> free;           ///< one per value: 1 = fitted, 0 = fixed
  std::vector<ParameterPrior> priors = {};  ///< one per value, or empty: none
  std::vector<Relation> follows = {};       ///< one per value, or empty: none. A value that follows another is not free
};

/// A brightness profile, lensed (source) or not (lens_light). A PIXELATED one has pixels instead of parameters; a
/// NETWORK one has weights besides its parameters.
struct LightComponent {
  LightKind kind{};
  RadiusKind radius = RadiusKind::product_average;
  std::vector<double> values;
  std::vector<std::uint8_t> free;           ///< one per value: 1 = fitted, 0 = fixed
  std::vector<ParameterPrior> priors = {};  ///< one per value, or empty: none
  PixelGrid grid{};                         ///< PIXELATED only
  std::vector<double> pixels;               ///< PIXELATED only: (ny, nx)
  bool pixels_free = false;                 ///< PIXELATED only
  bool follows_rays = false;                ///< free PIXELATED source only: Gauss–Newton places `grid` over where the
                                            ///< rays of the used pixels come from, when it begins and as the lens moves
  NetworkShape network{};                   ///< NETWORK only
  std::vector<double> weights;              ///< NETWORK only: flat layout of `network`
  bool weights_free = false;                ///< NETWORK only
  std::vector<Relation> follows = {};       ///< one per value, or empty: none. A value that follows another is not free
};

/// The model of one lens system.
struct Model {
  std::vector<LensComponent> lens;
  std::vector<LightComponent> source;
  std::vector<LightComponent> lens_light;  ///< at most one component of `source` and `lens_light` is a NETWORK
  std::optional<NetworkShape> network;
  /// Factor on the terms of all Gaussian priors in the loss, > 0. Where a model misses the data by more than the noise,
  /// chi2 counts every pixel too much; the priors keep their say with the factor by which chi2 exceeds that of the
  /// noise (Suyu et al. 2006, section 5, scale the noise instead).
  double prior_weight = 1;

  /// @throws InvalidInput that names component, parameter, value, range and unit.
  void validate() const;
};

/// Gives the parameters that follow others, and the means of priors that do, their values.
/// @throws InvalidInput for a relation that is wrong: it names a parameter that does not exist or follows itself, the
///         parameter is free, or it can leave its range
void follow(Model& model);

/// Calls f(light) for every light component: the source's, then those of the lens light. @param model  const or not
template <class SomeModel, class F>
void for_each_light(SomeModel& model, F&& f) {
  for (auto& light : model.source) f(light);
  for (auto& light : model.lens_light) f(light);
}

/// The NETWORK component of a model, or null.
const LightComponent* network_light(const Model& model);
/// Index of the NETWORK component among all components (lens, then source, then lens light), or −1.
int network_light_index(const Model& model);

/// How a free parameter p follows from the unconstrained number u that the optimizer moves:
///
///     identity     p = u
///     exponential  p = lower + e^u                                          p in (lower, ∞)
///     logistic     p = lower + (upper − lower) σ(u)                         p in (lower, upper)
///     disk         e_i = B u_i / √(1 + u_i² + u_j²)                         e1² + e2² < 1
/// For `disk`, j is the other component of the ellipticity. When it is free, B = 1; when it is fixed, u_j = 0 and
/// B = √(1 − e_j²). A parameter with bounds is `logistic` between them. When one component of an ellipticity has
/// bounds, the other is treated as if that one were fixed at the largest |e_j| within its bounds.
enum class TransformKind : int { identity, exponential, logistic, disk };

/// One free parameter: where it lives in the table of physical values and how it is transformed.
template <class Real>
struct FreeParameter {
  int slot;     ///< index into the table
  int partner;  ///< index of the other ellipticity component in the list of free parameters, or −1
  TransformKind kind;
  Real lower;
  Real upper;  ///< logistic: upper end; disk: B
};

/// Physical value of free parameter i from the unconstrained numbers u.
template <class Real>
EINFIELD_HD Real transform(const FreeParameter<Real>* free, int i, const Real* u) {
  const FreeParameter<Real> f = free[i];
  switch (f.kind) {
    case TransformKind::exponential:
      return f.lower + exp(u[i]);
    case TransformKind::logistic:
      return f.lower + (f.upper - f.lower) / (1 + exp(-u[i]));
    case TransformKind::disk: {
      const Real other = f.partner < 0 ? Real(0) : u[f.partner];
      return f.upper * u[i] / sqrt(1 + u[i] * u[i] + other * other);
    }
    case TransformKind::identity:
      break;
  }
  return u[i];
}

/// Adjoint of transform over the whole list, gathered for free parameter i: ū_i = Σ_k p̄_k ∂p_k/∂u_i.
///
///     exponential  ∂p/∂u = e^u      logistic  ∂p/∂u = (upper − lower) σ(1 − σ)
///     disk         with w = 1/√(1 + u_i² + u_j²):  ∂e_i/∂u_i = B w³ (1 + u_j²),  ∂e_j/∂u_i = −B w³ u_i u_j
/// @param table_bar cotangent of the physical table (slots)
template <class Real>
EINFIELD_HD Real transform_adjoint(const FreeParameter<Real>* free, int i, const Real* u, const Real* table_bar) {
  const FreeParameter<Real> f = free[i];
  const Real bar = table_bar[f.slot];
  switch (f.kind) {
    case TransformKind::exponential:
      return bar * exp(u[i]);
    case TransformKind::logistic: {
      const Real sigma = 1 / (1 + exp(-u[i]));
      const Real tau = 1 / (1 + exp(u[i]));
      return bar * (f.upper - f.lower) * sigma * tau;
    }
    case TransformKind::disk: {
      const Real other = f.partner < 0 ? Real(0) : u[f.partner];
      const Real w = 1 / sqrt(1 + u[i] * u[i] + other * other);
      const Real partner_bar = f.partner < 0 ? Real(0) : table_bar[free[f.partner].slot];
      return f.upper * w * w * w * (bar * (1 + other * other) - partner_bar * u[i] * other);
    }
    case TransformKind::identity:
      break;
  }
  return bar;
}

/// u_i from the physical value of a free parameter: the inverse of transform().
/// @param partner_value  disk with a partner: physical value of the partner
double inverse_transform(const FreeParameter<double>& f, double value, double partner_value);

/// A parameter that follows a free one: p = factor · (value of the free one) + offset.
template <class Real>
struct TiedParameter {
  int slot;  ///< index into the table of physical values
  int free;  ///< index into the list of free parameters
  Real factor, offset;
};

/// Physical value of a parameter that follows a free one.
template <class Real>
EINFIELD_HD Real tied_value(const TiedParameter<Real>& tied, const FreeParameter<Real>* free, const Real* u) {
  return tied.factor * transform(free, tied.free, u) + tied.offset;
}

/// Adjoint of tied_value for all n: p̄_free += factor · p̄_tied.
/// @param table_bar  cotangent of the physical table, added to
template <class Real>
EINFIELD_HD void tied_adjoint(const TiedParameter<Real>* tied, int n, const FreeParameter<Real>* free,
                              Real* table_bar) {
  for (int k = 0; k < n; ++k) table_bar[free[tied[k].free].slot] += tied[k].factor * table_bar[tied[k].slot];
}

/// A Gaussian prior of a free parameter p: the loss has the term weight · ((p − factor · q − mean)/sigma)², with q
/// another free parameter or no such term.
template <class Real>
struct GaussianPrior {
  int free;   ///< index into the list of free parameters
  int other;  ///< of q, or −1
  Real factor;
  Real mean, sigma;
};

/// z = (p − factor · q − mean)/sigma. The penalty is z², −2 ln of the Gaussian without its normalization.
/// @param value  physical value of a free parameter by its index
template <class Real, class Value>
EINFIELD_HD Real prior_deviation(const GaussianPrior<Real>& prior, Value&& value) {
  const Real at = prior.other < 0 ? prior.mean : prior.factor * value(prior.other) + prior.mean;
  return (value(prior.free) - at) / prior.sigma;
}

/// Adjoint of z²: ∂z²/∂p = 2 z/sigma, ∂z²/∂q = −factor · 2 z/sigma.
/// @param add  called with the index of a free parameter and its cotangent
EINFIELD_NO_EXEC_CHECK
template <class Real, class Add>
EINFIELD_HD void prior_adjoint(const GaussianPrior<Real>& prior, Real z, Add&& add) {
  const Real bar = 2 * z / prior.sigma;
  add(prior.free, bar);
  if (prior.other >= 0) add(prior.other, -prior.factor * bar);
}

class ParameterSlots;

/// Layout of the flat parameter vector, [network | free scalars (unconstrained) | free source pixels | free weights of
/// a NETWORK light], and of the table of physical values (kMaxProfileParameters slots per component; lens, then source,
/// then lens light).
struct ParameterLayout {
  std::size_t n_network = 0;
  std::vector<FreeParameter<double>> free;
  std::vector<std::string> names;           ///< of the free scalars: "lens.0.theta_E"
  std::vector<TiedParameter<double>> tied;  ///< those that follow a free one; what follows a fixed one is fixed
  std::vector<GaussianPrior<double>> priors;
  std::vector<double> table;          ///< physical values, fixed and initial
  std::vector<double> pixels;         ///< all PIXELATED values, component after component
  std::vector<int> free_pixels;       ///< indices into `pixels` of the free ones
  std::vector<double> light_weights;  ///< of the NETWORK component, fixed or initial
  std::size_t n_light_weights = 0;    ///< how many of them are free: all or none

  std::size_t n_free() const { return free.size(); }
  std::size_t light_weights_offset() const { return n_network + free.size() + free_pixels.size(); }
  std::size_t size() const { return light_weights_offset() + n_light_weights; }

  /// @throws InvalidInput like Model::validate()
  explicit ParameterLayout(const Model& model);
  ParameterLayout() = default;

  /// Unconstrained starting values of the free scalars.
  std::vector<double> initial_scalars() const;
  /// Unconstrained values of the free scalars from their physical ones, one per free scalar.
  std::vector<double> unconstrained(const std::vector<double>& values) const;
  /// Physical values of the free scalars from their unconstrained ones.
  std::vector<double> physical(const double* u) const;
  /// The table of physical values with those of the free scalars, and what follows them.
  std::vector<double> table_of(const std::vector<double>& values) const;
  /// The slots that a free scalar moves, each with ∂(its value)/∂(the scalar's): its own one first.
  std::vector<std::pair<int, double>> slots_of(std::size_t free_index) const;
  /// The flat vector that a fit starts from.
  /// @param network  the network's weights, n_network values
  std::vector<double> initial_parameters(const std::vector<double>& network) const;

 private:
  void relate(const Model& model, const ParameterSlots& slots);
};

/// The free pixels of one PIXELATED component: (ny, nx) values of the flat vector, from `offset` on.
struct FreePixels {
  int nx, ny;
  std::size_t offset;
};

/// The free pixels of the components of the source, in their order.
std::vector<FreePixels> free_source_pixels(const Model& model);

/// Name of the parameter in a slot of the table: "lens.0.theta_E", "source.1.amp" …
std::string slot_name(const Model& model, int slot);

/// A copy of the model with the values of a flat parameter vector, except for the weights of Model::network.
Model with_parameters(const Model& model, const ParameterLayout& layout, const std::vector<double>& parameters);

}  // namespace einfield

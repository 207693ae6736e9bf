// How much mass a small perturber may have at each of many places, by linear response: the derivative of the image with
// respect to the mass, with source pixels and profile parameters marginalized. A few seconds for hundreds of places.
//
// Around the maximum x of the posterior of joint_model.hpp, a perturber of mass m with the deflection m α_k changes the
// residuals by m c_k, c_k = σ⁻¹ P (−∇S·α_k). With J and H of joint_model.hpp (2), whose g is 0 there, and m without a
// prior,
//
//     I = Cᵀ (1 − J H⁻¹ Jᵀ) C,   s = −Cᵀ (r − J H⁻¹ g),   m_k = s_k/I_kk ± 1/√I_kk                                 (1)
//
// (Vegetti & Koopmans 2009 correct the potential in the same way, pixel by pixel.) Where there is no perturber, s is
// normal with mean 0 and covariance I, for noise and sources from the prior; so the largest s/√I_kk of all places has a
// distribution that is drawn in no time.
#pragma once

#include <cstdint>
#include <Eigen/Core>
#include <vector>

#include "einfield/lens.hpp"
#include "host/fit/joint_model.hpp"

namespace einfield {

/// Masses of a profile in units of its first parameter, which its deflection must be proportional to (SIS: theta_E), or
/// to the square of which (POINT_MASS: theta_E²).
struct PerturberMap {
  std::vector<Vec2<double>> places;
  Eigen::MatrixXd information;  ///< I of (1)
  Eigen::VectorXd score;        ///< s of (1)

  double mass(std::size_t k) const { return score[at(k)] / information(at(k), at(k)); }
  /// 1 σ of the mass; infinite where the data say nothing.
  double sigma(std::size_t k) const { return 1 / std::sqrt(information(at(k), at(k))); }
  /// s_k/√I_kk
  double significance(std::size_t k) const { return score[at(k)] / std::sqrt(information(at(k), at(k))); }
  /// The largest significance of all places, or 0.
  double highest() const;

 private:
  static Eigen::Index at(std::size_t k) { return static_cast<Eigen::Index>(k); }
};

/// @param model    the smooth lens, without a network, at the maximum of its posterior
/// @param x        that maximum
/// @param kind     SIS or POINT_MASS
/// @param places   in the units of the model's problem
PerturberMap perturber_map(JointModel& model, const std::vector<double>& x, const Regularization& weights,
                           LensKind kind, std::vector<Vec2<double>> places, ThreadPool& pool);

/// The largest significance of `draws` maps without a perturber, in ascending order.
std::vector<double> highest_by_chance(const PerturberMap& map, int draws, std::uint64_t seed);

}  // namespace einfield

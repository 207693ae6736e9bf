// The objective of host/fit/joint_model.hpp (1) and its gradient by one evaluation of the CPU backend, for what moves
// through parameter space without new linearizations: the members of a randomized fit, each with its own draws of noise
// and priors (host/fit/randomized.hpp), and, without draws, a chain that samples the posterior
// (tests/posterior_chain.cpp).
#pragma once

#include <cstddef>
#include <Eigen/SparseCore>
#include <memory>
#include <optional>
#include <vector>

#include "einfield/backend.hpp"
#include "host/fit/joint_model.hpp"
#include "host/fit/member_draws.hpp"

namespace einfield {

/// The prior of the source pixels, factored: R = PᵀLLᵀP. Empty without free pixels.
struct PixelPrior {
  SourcePrior::Sparse precision, factor;                                    ///< R and L
  Eigen::PermutationMatrix<Eigen::Dynamic, Eigen::Dynamic, int> unpermute;  ///< Pᵀ

  /// @throws InvalidInput when R is not positive definite
  explicit PixelPrior(const JointModel& model);
};

class MemberObjective {
 public:
  struct Point {
    std::vector<double> x;     ///< flat vector
    double value = 0;          ///< of randomized.hpp (2)
    Eigen::VectorXd gradient;  ///< half of it: the pixels, then the rest of JointModel
  };

  /// @param model  kept by reference like `prior`; its problem is in the units of the fit
  /// @param draws  nothing: F itself
  MemberObjective(const JointModel& model, const PixelPrior& prior, const std::optional<MemberDraws>& draws);

  int evaluations() const { return evaluations_; }
  /// Value and gradient at at.x.
  void evaluate(Point& at);
  /// x + length · direction. @param direction  like a gradient
  std::vector<double> moved(std::vector<double> x, double length, const Eigen::VectorXd& direction) const;

 private:
  void draw_potential(const MemberDraws& draws);
  void draw_weights(const MemberDraws& draws);
  void draw_pixels(const MemberDraws& draws);
  double add_deflection_terms();

  const JointModel& model_;
  const PixelPrior& prior_;
  std::unique_ptr<Backend<double>> backend_;
  int n_data_;
  int evaluations_ = 0;
  std::vector<double> deflection_bar_;  ///< ᾱ of (2), all x, then all y; empty without draws
  std::vector<double> linear_;          ///< c of (2), flat
  Eigen::VectorXd held_at_;             ///< of joint_model.hpp (3)
};

}  // namespace einfield

// Randomized maximum likelihood (Oliver, He & Reynolds 1996; for networks Pearce et al. 2020) around the end of a fit
// that JointModel describes: members are minima of the same objective, each with its own draw of the noise and of every
// prior that is Gaussian. For a linear model they are draws from the posterior.
//
// With ε, z, ζ, … standard normal numbers of the member, the terms of the objective F of host/fit/joint_model.hpp (1)
// become
//
//     |r − ε|²,   w |κ − z/√w|² per node and likewise for ∇∇ψ − ⟨∇∇ψ⟩ and weight decay,   (s − t)ᵀ R (s − t) with
//     t ~ N(0, R⁻¹) for source pixels,   ((p − mean)/sigma − ζ)²,   (b − ζ)²                                    (1)
//
// and in joint_model.hpp (3) α_NN,0 gets a draw of width σ.
//
// so that every penalty pulls towards a draw of the prior that it stands for, and not towards zero. Up to a constant
//
//     F_m(x) = F(x; data + σε, mean + sigma ζ) − 2 (ᾱ·α(x) + c·x)                                               (2)
//
// with ᾱ a cotangent on the deflection of all rays (the adjoint of the differences that make κ and ∇∇ψ of α) and c on
// weights and pixels; R t ~ N(0, R) is L times normal numbers with R = LLᵀ. One-sided penalties and bounds are not
// drawn.
//
// A member starts from the unperturbed fit and descends by L-BFGS whose first matrix is H⁻¹ there: exact in one step
// for a linear model. An evaluation is one of the CPU backend, which costs little beside the factorization.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "einfield/problem.hpp"
#include "host/cpu/thread_pool.hpp"

namespace einfield {

struct RandomizedSettings {
  int members = 32;
  std::uint64_t seed = 1;
  int steps = 100;
  /// A member ends when F falls by less than this in five steps. Each of the parameters that the data determine, tens
  /// to hundreds, has about 1 of F in its scatter.
  double tolerance = 1;
};

struct RandomizedMember {
  std::vector<double> x;  ///< flat vector
  double fall = 0;        ///< of (2), from the start
  int evaluations = 0;
  bool converged = false;
};

struct RandomizedFit {
  /// The unperturbed fit, continued in the same way: how far it was from the minimum.
  RandomizedMember center;
  std::vector<RandomizedMember> members;
  bool interrupted = false;
};

/// @param problem  in the units of the fit, with the weights of the penalties that the fit ended with
/// @param x        flat vector of the fit
/// @param done     called after each member with the number of those done; true ends the run
/// @throws InvalidInput for a problem that JointModel does not cover or whose priors do not determine every parameter
RandomizedFit randomized_fit(const Problem& problem, const std::vector<double>& x, const RandomizedSettings& settings,
                             ThreadPool& pool, const std::function<bool(int)>& done = nullptr);

/// Upper limit of the bytes of a run.
std::size_t randomized_bytes(const Problem& problem, int members, int threads);

}  // namespace einfield

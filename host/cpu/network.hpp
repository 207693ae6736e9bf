// The neural potential on the CPU: value, deflection, convergence and the adjoint, tile by tile (network_tiles.hpp).
// Formulas and contract: include/einfield/network.hpp.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "einfield/network.hpp"
#include "host/cpu/thread_pool.hpp"

namespace einfield {

/// Evaluates one network shape at up to `n_points` positions. Results are the same bits for any number of threads: the
/// adjoint sums sixteen fixed chunks of points, each on its own, and adds them in order.
template <class Real>
class CpuNetwork {
 public:
  /// Largest tape that is kept between forward() and adjoint(), 1000 × 1000 points at width 256 in single precision;
  /// above it, or above half of the machine's memory, adjoint() recomputes it tile by tile, which costs a third more
  /// time.
  static constexpr std::size_t kTapeLimit = std::size_t{4} << 30;

  /// Allocates everything; the calls below allocate nothing.
  /// @param n_points    largest number of positions, ≥ 0
  /// @param tape_limit  [bytes]
  /// @throws InvalidInput for a shape or a number of points out of range.
  CpuNetwork(const NetworkShape& shape, int n_points, ThreadPool& pool, std::size_t tape_limit = kTapeLimit);
  ~CpuNetwork();
  CpuNetwork(const CpuNetwork&) = delete;
  CpuNetwork& operator=(const CpuNetwork&) = delete;

  /// ψ and α = ∇ψ; keeps a private tape for adjoint().
  /// @param parameters  flat layout, shape.size() values
  /// @param theta       2 × n, all x, then all y [arcsec]
  /// @param psi         n values [arcsec²], or null
  /// @param alpha       2 × n, all x, then all y [arcsec]
  /// @throws InvalidInput when n is above n_points.
  void forward(const Real* parameters, const Real* theta, int n, Real* psi, Real* alpha);

  /// Adds the gradient of Σ ψ̄ψ + ᾱ·α to `gradient` (flat layout). Points whose cotangents are all exactly zero are
  /// skipped. Parameters, theta and n are those of the last forward().
  /// @param psi_bar    n values, or null for zero
  /// @param alpha_bar  2 × n values, or null for zero
  void adjoint(const Real* parameters, const Real* theta, int n, const Real* psi_bar, const Real* alpha_bar,
               Real* gradient);

  /// κ = ½ ∇²ψ at n positions, any number; value only. Leaves the tape alone.
  void kappa(const Real* parameters, const Real* theta, int n, Real* kappa);

  /// Bytes that this object has allocated.
  std::size_t bytes() const;
  /// Bytes that an object would allocate.
  static std::size_t planned_bytes(const NetworkShape& shape, int n_points, int threads,
                                   std::size_t tape_limit = kTapeLimit);
  /// The vector instructions chosen at run time, as Google Highway names them: "AVX3", "AVX2", "NEON", …
  static std::string instructions();

 private:
  struct Storage;
  std::unique_ptr<Storage> storage_;
};

/// ψ, α and κ at any number of positions, in batches, so that the memory needed stays small. The result is the same bit
/// by bit for any number of threads.
/// @param parameters  flat layout of `shape`
/// @param theta       2 × n, all x, then all y [arcsec]
/// @param with_convergence  false: κ stays 0; it costs as much as ψ and α together
template <class Real>
NetworkFields<Real> evaluate_network(const NetworkShape& shape, const std::vector<Real>& parameters,
                                     const std::vector<Real>& theta, ThreadPool& pool, bool with_convergence = true);

}  // namespace einfield

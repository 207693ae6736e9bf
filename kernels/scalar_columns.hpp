// The columns of a Jacobian on a CUDA device: many points of one or more systems at once, in double precision. Behind a
// header that needs no CUDA; host/fit/ prepares what it takes and decides on what it gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "einfield/amplitudes.hpp"
#include "einfield/network.hpp"
#include "einfield/observation.hpp"
#include "host/model/scene_tables.hpp"

namespace einfield::cuda {

/// What systems that are evaluated together have in common.
struct ColumnsShape {
  int n_lens = 0, n_source = 0, n_lens_light = 0;
  int rays_per_side = 1;         ///< of a pixel
  int psf_supersampling = 1;     ///< sub-pixels that the PSF acts on, a pixel's side
  std::vector<int> linear_slot;  ///< of the table of physical values, per amplitude that moves
  /// Per other parameter that moves: its slot and those that follow it, each with ∂(its value)/∂(the parameter).
  std::vector<std::vector<std::pair<int, double>>> other_slots;
  std::optional<NetworkShape> network;  ///< of the lens potential; its deflection is computed once
  int light_component = -1;             ///< the NETWORK light among all components, or −1
  std::optional<NetworkShape> light;    ///< its network
  std::size_t light_weights = 0;        ///< number of its weights

  int n_components() const { return n_lens + n_source + n_lens_light; }
  int n_slots() const { return n_components() * kMaxProfileParameters; }
  int n_linear() const { return static_cast<int>(linear_slot.size()); }
  int n_other() const { return static_cast<int>(other_slots.size()); }
  /// Residual, amplitudes, other parameters.
  int n_columns() const { return 1 + n_linear() + n_other(); }
};

/// One system: its rays and pixels, and what does not move. Images are a cut-out of the observation.
struct ColumnsSystem {
  SceneTables<double> tables;
  std::vector<Amplitude> amplitudes;
  int nx = 0, ny = 0;                ///< of the cut-out [pixels]
  std::vector<int> rendered;         ///< (ny, nx): place among the pixels that have rays, or −1
  std::vector<double> theta;         ///< of every ray: all x, then all y [arcsec]
  std::vector<int> used;             ///< (ny, nx): place among the pixels that enter the loss, or −1
  std::vector<double> weight, data;  ///< of those: square root of the loss weight; data times it
  std::vector<double> chi2_ratio;    ///< square root of the weight of χ² over `weight`
  Psf psf;
  std::vector<double> network_weights, light_weights;
};

/// Sizes from which memory follows.
struct ColumnsPlan {
  std::size_t bytes = 0;
  int points_at_once = 0;  ///< more are evaluated one group after the other
  bool by_fft = false;     ///< how the PSF is applied
};

/// A point to evaluate.
struct ColumnsPoint {
  int system = 0;
  bool solve = true;           ///< for the amplitudes; false: they are those of the table
  double curvature_up_to = 0;  ///< largest loss, priors of the amplitudes included, for which columns are wanted
  std::vector<double> table;   ///< physical values, n_slots()
};

struct ColumnsResult {
  bool finite = false;  ///< false: nothing else is set
  bool curved = false;  ///< whether `products` holds all columns
  double loss = 0, chi2_reduced = 0;
  std::vector<double> amplitudes;
  std::vector<std::uint8_t> pinned;  ///< 1 = at the end of its range
  /// (n_columns, n_columns): inner products of the weighted columns. Column 0 is the residual, then come the amplitudes
  /// and the other parameters.
  std::vector<double> products;
};

/// Counts since the construction.
struct ColumnsCounts {
  std::int64_t rounds = 0, points = 0, launches = 0, copies = 0, synchronizations = 0;
};

class ScalarColumns {
 public:
  /// @param points  that the caller evaluates at once, at most
  /// @throws InvalidInput for a shape that the device cannot take, CudaError when it lacks memory
  ScalarColumns(int device, const ColumnsShape& shape, const std::vector<ColumnsSystem>& systems, int points);
  ~ScalarColumns();
  ScalarColumns(ScalarColumns&&) noexcept;
  ScalarColumns& operator=(ScalarColumns&&) noexcept;

  /// What a ScalarColumns will allocate, its constructor's working space included.
  /// @param copies  number of copies of each system
  static ColumnsPlan plan(int device, const ColumnsShape& shape, const std::vector<ColumnsSystem>& systems, int copies,
                          int points);

  /// Results in the order of the points, which do not depend on each other. Copies the points to the device, waits
  /// once.
  std::vector<ColumnsResult> evaluate(const std::vector<ColumnsPoint>& points);
  const ColumnsCounts& counts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace einfield::cuda

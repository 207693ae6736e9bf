// A model with its data, from a configuration file or from arguments and arrays; its posterior, images and fields.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/load.hpp"
#include "host/fields/critical_curves.hpp"
#include "host/results/stored_result.hpp"
#include "python/src/posterior.hpp"

namespace einfield::python {

/// Arrays by the file name that stands for them in a configuration.
using Arrays = std::map<std::string, std::shared_ptr<const ImageArray>>;

/// Puts the arrays in the place of the files of a configuration.
/// @throws InvalidInput for an array that no key names
void use_arrays(Config& config, const Arrays& arrays);

/// Reads the images that a configuration names, so that it needs their files no longer.
void take_images(Config& config);

/// The configuration of another package's model, with its images in memory.
/// @param format  "lenstronomy" or "coolest"
/// @param ignore  keys of lenstronomy to leave out with a warning
/// @param dir     of files that are written on the way, and are not needed afterwards
/// @throws InvalidInput "FILE: …"
Config exchanged_config(const std::string& format, const std::string& file, const std::vector<std::string>& ignore,
                        const std::string& dir);

class LensModel {
 public:
  /// @param truth  of simulated data, or nothing @throws InvalidInput
  LensModel(Config config, std::optional<Truth> truth, int threads);

  const Config& config() const { return config_; }
  const LoadedProblem& loaded() const { return loaded_; }
  Posterior& posterior() { return posterior_; }
  const Observation& observation() const { return loaded_.problem.observation; }
  int threads() const { return threads_; }

  /// A part of the parameters beside the free scalars: weights of a network or pixels.
  struct Block {
    std::string name;  ///< "network", "source.0.pixels", "source.1.network"
    std::size_t offset;
    std::vector<std::size_t> shape;
  };
  std::vector<Block> blocks() const;

  /// Parameters where a fit starts, free scalars as physical values.
  std::vector<double> initial() const;
  /// The lens at a flat vector of the library's layout.
  StoredLens lens_at(const std::vector<double>& flat) const;
  /// All components at a flat vector, with fixed parameters.
  Model model_at(const std::vector<double>& flat) const;
  /// γ of the profiles and of the network at positions, 2 × n each: all γ1, then all γ2. That of the network comes from
  /// differences of its deflection in double, over 1e-4 of the field's unit: its relative error is about 1e-8.
  struct Shears {
    std::vector<double> smooth, network;
  };
  /// @param positions  2 × n, all x, then all y [arcsec]
  Shears shears_at(const std::vector<double>& flat, const std::vector<double>& positions) const;
  /// residual_jacobian() at a flat vector.
  std::vector<double> jacobian_at(const std::vector<double>& flat, Space space) const;
  CriticalCurves critical_curves_at(const std::vector<double>& flat) const;

 private:
  Config config_;
  LoadedProblem loaded_;
  int threads_;
  Posterior posterior_;
};

}  // namespace einfield::python

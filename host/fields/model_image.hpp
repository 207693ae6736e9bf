// Images of a model by themselves, with any supersampling: for the checks of a finished fit. The backends render for
// the fit.
#pragma once

#include <vector>

#include "einfield/model.hpp"
#include "einfield/observation.hpp"
#include "host/cpu/thread_pool.hpp"

namespace einfield {

/// Model images after the PSF, (ny, nx) [image unit].
struct ModelImages {
  std::vector<double> source;      ///< lensed
  std::vector<double> lens_light;  ///< not lensed
};

/// Renders in double precision, in blocks of rows that bound the memory.
/// @param model     weights of a NETWORK component included
/// @param network   weights of Model::network; not used without one
/// @param finer     every pixel gets this times Grid::supersampling rays along each axis
ModelImages model_images(const Model& model, const std::vector<double>& network, const Observation& observation,
                         int finer, ThreadPool& pool);

}  // namespace einfield

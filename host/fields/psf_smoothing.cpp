#include "host/fields/psf_smoothing.hpp"

namespace einfield {

PsfSmoothing::PsfSmoothing(const Observation& observation)
    : nx_(observation.grid.nx),
      ny_(observation.grid.ny),
      f_(observation.psf.supersampling),
      psf_(nx_ * f_, ny_ * f_, observation.psf),
      fine_(static_cast<std::size_t>(nx_ * f_) * static_cast<std::size_t>(ny_ * f_)),
      convolved_(fine_.size()) {}

void PsfSmoothing::apply(const double* map, double* result) {
  std::size_t i = 0;
  for (int y = 0; y < ny_ * f_; ++y)
    for (int x = 0; x < nx_ * f_; ++x, ++i) fine_[i] = map[y / f_ * nx_ + x / f_];
  psf_.apply(fine_.data(), convolved_.data());
  mean_of_subpixels(convolved_.data(), nx_, ny_, f_, result);
}

std::vector<double> PsfSmoothing::operator()(const std::vector<double>& map) {
  std::vector<double> result(map.size());
  apply(map.data(), result.data());
  return result;
}

}  // namespace einfield

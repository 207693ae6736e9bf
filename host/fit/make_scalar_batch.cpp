// The batch of a backend.
#include "host/fit/make_scalar_batch.hpp"

#include <utility>

#ifdef EINFIELD_HAVE_CUDA
#include "host/fit/cuda_scalar_batch.hpp"
#include "kernels/cuda_backend.hpp"
#endif

namespace einfield {

template <class Real>
bool has_device_batch([[maybe_unused]] const Backend<Real>& backend, [[maybe_unused]] const Observation& observation) {
#ifdef EINFIELD_HAVE_CUDA
  return cuda_device_index(backend) >= 0 && observation.noise_correlation.empty();
#else
  return false;
#endif
}

template <class Real>
std::unique_ptr<ScalarBatch> make_scalar_batch([[maybe_unused]] const Backend<Real>& backend,
                                               std::vector<ScalarModel> models, int concurrent, ThreadPool& pool) {
#ifdef EINFIELD_HAVE_CUDA
  if (has_device_batch(backend, models.front().problem().observation))
    return std::make_unique<CudaScalarBatch>(cuda_device_index(backend), std::move(models), concurrent);
#endif
  return std::make_unique<CpuScalarBatch>(std::move(models), concurrent, pool);
}

template bool has_device_batch(const Backend<float>&, const Observation&);
template bool has_device_batch(const Backend<double>&, const Observation&);
template std::unique_ptr<ScalarBatch> make_scalar_batch(const Backend<float>&, std::vector<ScalarModel>, int,
                                                        ThreadPool&);
template std::unique_ptr<ScalarBatch> make_scalar_batch(const Backend<double>&, std::vector<ScalarModel>, int,
                                                        ThreadPool&);

}  // namespace einfield

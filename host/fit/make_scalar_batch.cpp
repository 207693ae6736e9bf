// The batch of a backend.
#include "host/fit/make_scalar_batch.hpp"

#include <utility>

namespace einfield {

template <class Real>
bool has_device_batch(const Backend<Real>&) {
  return false;
}

template <class Real>
std::unique_ptr<ScalarBatch> make_scalar_batch(const Backend<Real>&, std::vector<ScalarModel> models, int concurrent,
                                               ThreadPool& pool) {
  return std::make_unique<CpuScalarBatch>(std::move(models), concurrent, pool);
}

template bool has_device_batch(const Backend<float>&);
template bool has_device_batch(const Backend<double>&);
template std::unique_ptr<ScalarBatch> make_scalar_batch(const Backend<float>&, std::vector<ScalarModel>, int,
                                                        ThreadPool&);
template std::unique_ptr<ScalarBatch> make_scalar_batch(const Backend<double>&, std::vector<ScalarModel>, int,
                                                        ThreadPool&);

}  // namespace einfield

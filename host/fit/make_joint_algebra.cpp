// The algebra of a backend.
#include "host/fit/make_joint_algebra.hpp"

#include "host/fit/make_scalar_batch.hpp"

#ifdef EINFIELD_HAVE_CUDA
#include "host/fit/cuda_joint_algebra.hpp"
#include "kernels/cuda_backend.hpp"
#endif

namespace einfield {

template <class Real>
std::unique_ptr<JointAlgebra> make_joint_algebra([[maybe_unused]] const Backend<Real>& backend, const JointModel& model,
                                                 ThreadPool& pool) {
#ifdef EINFIELD_HAVE_CUDA
  if (has_device_batch(backend, model.problem().observation))
    return std::make_unique<CudaJointAlgebra>(cuda_device_index(backend), model);
#endif
  return std::make_unique<CpuJointAlgebra>(model.pixels().size(), pool);
}

template std::unique_ptr<JointAlgebra> make_joint_algebra(const Backend<float>&, const JointModel&, ThreadPool&);
template std::unique_ptr<JointAlgebra> make_joint_algebra(const Backend<double>&, const JointModel&, ThreadPool&);

}  // namespace einfield

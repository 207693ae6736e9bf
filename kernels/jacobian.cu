// Products with the Jacobian of the model image: J v from the tangents of every ray (tangent.hpp) and the PSF, Jᵀ w
// from the adjoints of both.
#include "einfield/cuda_jacobian.hpp"

#include <string>

#include "einfield/tangent.hpp"
#include "kernels/raii.cuh"
#include "kernels/reduce.cuh"
#include "kernels/render.cuh"
#include "kernels/scene.cuh"
#include "kernels/storage.cuh"

namespace einfield::cuda {
namespace {

/// Rays common to all systems, and their pixels.
template <class Real>
struct TangentRays {
  const Real* positions;  ///< [2][n_rays]
  int n_rays, n_pixels, nx, rays_per_pixel;
};

/// The parts of a direction that are free source pixels, into a table of all pixels.
template <class Real>
__global__ void __launch_bounds__(kThreads) place_direction_kernel(SceneArrays<Real> scenes, const Real* direction,
                                                                   const int* free_pixels, int n, Real* table) {
  const int system = static_cast<int>(blockIdx.y);
  const Real* v = direction + system * scenes.parameter_stride + scenes.n_network + scenes.n_free;
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x * blockDim.x))
    table[static_cast<std::size_t>(system) * scenes.n_pixels + free_pixels[i]] = v[i];
}

/// The derivative of every pixel along a direction, before the PSF; one thread per pixel.
template <class Real>
__global__ void __launch_bounds__(kThreads, 1)
    tangent_kernel(SceneArrays<Real> scenes, TangentRays<Real> rays, const Real* parameters, const Real* alpha_nn,
                   const Real* direction, const Real* pixels, const Real* pixel_direction, NetworkLight<Real> light,
                   ImageView<Real> tangent) {
  extern __shared__ double shared[];
  const int system = static_cast<int>(blockIdx.y), thread = static_cast<int>(threadIdx.x);
  Scene<Real> scene = unpack<true>(scenes, system, parameters, shared);
  scene.pixels = pixels + static_cast<std::size_t>(system) * scenes.n_pixels;
  pixel_direction += static_cast<std::size_t>(system) * scenes.n_pixels;
  // ṗ of every slot behind the scene.
  auto* p_dot = reinterpret_cast<Real*>(shared + scenes.shared_bytes() / sizeof(double));
  for (int i = thread; i < scenes.n_slots(); i += kThreads) p_dot[i] = 0;
  __syncthreads();
  const FreeParameter<Real>* free = scenes.free + static_cast<std::size_t>(system) * scenes.n_free;
  const std::size_t first = system * scenes.parameter_stride + scenes.n_network;
  for (int i = thread; i < scenes.n_free; i += kThreads)
    p_dot[free[i].slot] = transform_tangent(free, i, parameters + first, direction + first);
  __syncthreads();

  const std::size_t ray_offset = static_cast<std::size_t>(system) * rays.n_rays;
  const int stride = static_cast<int>(gridDim.x * blockDim.x), first_light = scene.n_lens + scene.n_source;
  for (int pixel = static_cast<int>(blockIdx.x * blockDim.x) + thread; pixel < rays.n_pixels; pixel += stride) {
    Real sum = 0;
    for (int ray = pixel * rays.rays_per_pixel; ray < (pixel + 1) * rays.rays_per_pixel; ++ray) {
      const Vec2<Real> theta{rays.positions[ray], rays.positions[rays.n_rays + ray]};
      Vec2<Real> alpha{};
      if (alpha_nn != nullptr) alpha = {alpha_nn[2 * ray_offset + ray], alpha_nn[2 * ray_offset + rays.n_rays + ray]};
      NetworkSample<Real> sample{};
      if (light.value != nullptr)
        sample = {light.value[ray_offset + ray],
                  {light.gradient[2 * ray_offset + ray], light.gradient[2 * ray_offset + rays.n_rays + ray]}};
      render_ray_tangents(
          scene, theta, alpha, true, [](int) { return true; },
          [&](int c, const Real* derivative) {
#pragma unroll
            for (int k = 0; k < kMaxProfileParameters; ++k) sum += derivative[k] * p_dot[c * kMaxProfileParameters + k];
          },
          sample);
      // Brightness is linear in the pixels of a PIXELATED component: its tangent is their direction's brightness.
      const Vec2<Real> beta = theta - macro_deflection(scene, theta) - alpha;
      for (int c = scene.n_lens; c < first_light + scene.n_lens_light; ++c)
        if (scene.components[c].kind == static_cast<int>(LightKind::pixelated))
          sum += pixelated_brightness(scene.components[c].grid, pixel_direction + scene.components[c].pixel_offset,
                                      c < first_light ? beta : theta);
    }
    tangent.data[system * tangent.system_stride + (pixel / rays.nx) * tangent.row_stride + pixel % rays.nx] =
        sum / static_cast<Real>(rays.rays_per_pixel);
  }
}

struct JacobianSizes {
  std::size_t systems, rays, source_pixels, free_pixels, pixels;
  JacobianSizes(const Grid& grid, const std::vector<Model>& models) {
    EINFIELD_REQUIRE(!models.empty(), "a Jacobian of no model, expected at least one");
    const ParameterLayout layout(models.front());
    systems = models.size();
    rays = static_cast<std::size_t>(grid.n_rays());
    pixels = static_cast<std::size_t>(grid.n_pixels());
    source_pixels = layout.pixels.size();
    free_pixels = layout.free_pixels.size();
  }
};

template <class Real>
struct JacobianStorage {
  DeviceBuffer<Real> pixels, pixel_direction, alpha_bar;
  DeviceBuffer<int> free_pixels;

  template <class Take>
  void each(Take&& take, const JacobianSizes& s) {
    for (DeviceBuffer<Real>* tables : {&pixels, &pixel_direction}) take(*tables, s.systems * s.source_pixels);
    take(alpha_bar, s.systems * 2 * s.rays);
    take(free_pixels, s.free_pixels);
  }
};

void require_pixels(const std::vector<Psf>& psfs) {
  for (const Psf& psf : psfs)
    EINFIELD_REQUIRE(psf.supersampling == 1, "a PSF of " + std::to_string(psf.supersampling) +
                                                 " samples a pixel's side, expected 1 in a JacobianStage");
}

}  // namespace

template <class Real>
struct JacobianStage<Real>::Impl {
  JacobianSizes sizes;
  Grid grid;
  RenderStage<Real> render;
  ConvolutionStage<Real> convolution;
  JacobianStorage<Real> storage;
  bool network_light;

  Impl(const Grid& of, const std::vector<Model>& models, const std::vector<Psf>& psfs, std::size_t parameter_stride,
       cudaStream_t stream)
      : sizes(of, models),
        grid(of),
        render(of, models, parameter_stride, stream),
        convolution(of.ny, of.nx, psfs, stream),
        network_light(network_light_index(models.front()) >= 0) {
    require_pixels(psfs);
    const std::size_t components =
        models.front().lens.size() + models.front().source.size() + models.front().lens_light.size();
    EINFIELD_REQUIRE(components <= kMaxSharedComponents, std::to_string(components) + " components, expected at most " +
                                                             std::to_string(kMaxSharedComponents) +
                                                             " in a JacobianStage");
    EINFIELD_REQUIRE(psfs.size() == models.size(), std::to_string(psfs.size()) + " PSFs for " +
                                                       std::to_string(models.size()) + " models, expected as many");
    allocate_all(storage, stream, sizes);
    std::vector<Real> pixels;
    for (const Model& model : models)
      for (const double v : ParameterLayout(model).pixels) pixels.push_back(static_cast<Real>(v));
    storage.pixels.upload(pixels, stream);
    storage.free_pixels.upload(ParameterLayout(models.front()).free_pixels, stream);
    EINFIELD_CUDA(cudaStreamSynchronize(stream));  // the vectors end here
  }

  void place(cudaStream_t stream, const Real* from, Real* table) {
    const int n = static_cast<int>(sizes.free_pixels);
    if (n == 0) return;
    place_direction_kernel<<<dim3(sum_blocks(n), static_cast<unsigned>(sizes.systems)), kThreads, 0, stream>>>(
        SceneAccess::arrays(render, Queue(stream), from), from, storage.free_pixels.get(), n, table);
    EINFIELD_LAUNCH_CHECK();
  }
};

template <class Real>
JacobianStage<Real>::JacobianStage(const Grid& grid, const std::vector<Model>& models, const std::vector<Psf>& psfs,
                                   std::size_t parameter_stride, cudaStream_t stream)
    : impl_(std::make_unique<Impl>(grid, models, psfs, parameter_stride, stream)) {}
template <class Real>
JacobianStage<Real>::~JacobianStage() = default;
template <class Real>
JacobianStage<Real>::JacobianStage(JacobianStage&&) noexcept = default;
template <class Real>
JacobianStage<Real>& JacobianStage<Real>::operator=(JacobianStage&&) noexcept = default;

template <class Real>
std::size_t JacobianStage<Real>::planned_bytes(const Grid& grid, const std::vector<Model>& models,
                                               const std::vector<Psf>& psfs) {
  return planned_bytes_of<JacobianStorage<Real>>(JacobianSizes(grid, models)) +
         RenderStage<Real>::planned_bytes(grid, models) + ConvolutionStage<Real>::planned_bytes(grid.ny, grid.nx, psfs);
}

template <class Real>
RenderStage<Real>& JacobianStage<Real>::rays() {
  return impl_->render;
}

template <class Real>
void JacobianStage<Real>::forward(cudaStream_t stream, const Real* parameters, const Real* alpha_nn,
                                  const Real* direction, Real* tangent, const NetworkLight<Real>& light) {
  Impl& m = *impl_;
  const bool given = light.value != nullptr && light.gradient != nullptr;
  EINFIELD_REQUIRE(given == m.network_light, std::string("Jacobian: a network of a NETWORK component is ") +
                                                 (given ? "given" : "missing") +
                                                 ", expected it with such a component and not without");
  m.place(stream, parameters, m.storage.pixels.get());
  m.place(stream, direction, m.storage.pixel_direction.get());
  const SceneArrays<Real> scenes = SceneAccess::arrays(m.render, Queue(stream), parameters);
  const TangentRays<Real> rays{m.render.positions(), m.grid.n_rays(), m.grid.n_pixels(), m.grid.nx,
                               m.grid.rays_per_pixel()};
  const std::size_t shared = scenes.shared_bytes() + static_cast<std::size_t>(scenes.n_slots()) * sizeof(Real);
  tangent_kernel<<<dim3(sum_blocks(rays.n_pixels), static_cast<unsigned>(m.sizes.systems)), kThreads, shared, stream>>>(
      scenes, rays, parameters, alpha_nn, direction, static_cast<const Real*>(m.storage.pixels.get()),
      static_cast<const Real*>(m.storage.pixel_direction.get()), light, m.convolution.image());
  EINFIELD_LAUNCH_CHECK();
  m.convolution.forward(stream);
  const ImageView<Real> model = m.convolution.model();
  const auto nx = static_cast<std::size_t>(m.grid.nx);
  for (std::size_t system = 0; system < m.sizes.systems; ++system)
    EINFIELD_CUDA(cudaMemcpy2DAsync(tangent + system * m.sizes.pixels, nx * sizeof(Real),
                                    model.data + system * model.system_stride, model.row_stride * sizeof(Real),
                                    nx * sizeof(Real), static_cast<std::size_t>(m.grid.ny), cudaMemcpyDeviceToDevice,
                                    stream));
}

template <class Real>
void JacobianStage<Real>::adjoint(cudaStream_t stream, const Real* parameters, const Real* alpha_nn,
                                  const Real* model_bar, Real* gradient, const NetworkLight<Real>& light) {
  Impl& m = *impl_;
  const ImageView<Real> bar = m.convolution.model_bar();
  const auto nx = static_cast<std::size_t>(m.grid.nx);
  for (std::size_t system = 0; system < m.sizes.systems; ++system)
    EINFIELD_CUDA(cudaMemcpy2DAsync(bar.data + system * bar.system_stride, bar.row_stride * sizeof(Real),
                                    model_bar + system * m.sizes.pixels, nx * sizeof(Real), nx * sizeof(Real),
                                    static_cast<std::size_t>(m.grid.ny), cudaMemcpyDeviceToDevice, stream));
  m.convolution.adjoint(stream);
  m.render.adjoint(stream, parameters, alpha_nn, m.convolution.image_bar(), m.storage.alpha_bar.get(), gradient, light);
}

template class JacobianStage<float>;
template class JacobianStage<double>;

}  // namespace einfield::cuda

// Products with the Jacobian of the model image: J v from the tangents of every ray (tangent.hpp) and the PSF, Jᵀ w
// from the adjoints of both.
#include "einfield/cuda_jacobian.hpp"

#include <algorithm>
#include <string>

#include "einfield/tangent.hpp"
#include "kernels/arguments.cuh"
#include "kernels/convolve.cuh"
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

/// A direction as the rays need it.
template <class Real>
struct TangentTables {
  Real* slots;            ///< [systems][n_slots] ṗ of the physical values; 0 where nothing is free
  Real* pixels;           ///< [systems][n_pixels] of PIXELATED components
  Real* pixel_direction;  ///< likewise
};

/// Free scalars and source pixels of the parameters and of a direction: from the flat vectors into the tables.
template <class Real>
__global__ void __launch_bounds__(kThreads)
    place_direction_kernel(SceneArrays<Real> scenes, const Real* parameters, const Real* direction,
                           const int* free_pixels, int n_pixels, TangentTables<Real> tables) {
  const auto system = static_cast<std::size_t>(blockIdx.y);
  const std::size_t first = system * scenes.parameter_stride + scenes.n_network;
  const Real *u = parameters + first, *u_dot = direction + first;
  const FreeParameter<Real>* free = scenes.free + system * scenes.n_free;
  Real* const slots = tables.slots + system * scenes.n_slots();
  const int begin = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int i = begin; i < scenes.n_free; i += stride) slots[free[i].slot] = transform_tangent(free, i, u, u_dot);
  const TiedParameter<Real>* tied = scenes.tied + system * scenes.n_tied;
  for (int i = begin; i < scenes.n_tied; i += stride)
    slots[tied[i].slot] = tied[i].factor * transform_tangent(free, tied[i].free, u, u_dot);
  for (int i = begin; i < n_pixels; i += stride) {
    const std::size_t place = system * scenes.n_pixels + free_pixels[i];
    tables.pixels[place] = u[scenes.n_free + i];
    tables.pixel_direction[place] = u_dot[scenes.n_free + i];
  }
}

/// The derivative of every pixel along a direction, before the PSF; one thread per pixel.
/// @param light_value, light_gradient  of the NETWORK component, or null
template <class Real, bool kShared>
__global__ void __launch_bounds__(kThreads, 1)
    tangent_kernel(SceneArrays<Real> scenes, TangentRays<Real> rays, const Real* parameters, const Real* alpha_nn,
                   TangentTables<Real> tables, const Real* light_value, const Real* light_gradient,
                   ImageView<Real> tangent) {
  extern __shared__ double shared[];
  const auto system = static_cast<std::size_t>(blockIdx.y);
  Scene<Real> scene = unpack<kShared>(scenes, static_cast<int>(system), parameters, shared);
  scene.pixels = tables.pixels + system * scenes.n_pixels;
  const Real* const pixel_direction = tables.pixel_direction + system * scenes.n_pixels;
  const Real* const p_dot = tables.slots + system * scenes.n_slots();
  const std::size_t ray_offset = system * rays.n_rays;
  const int stride = static_cast<int>(gridDim.x * blockDim.x), first_light = scene.n_lens + scene.n_source;
  for (int pixel = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); pixel < rays.n_pixels; pixel += stride) {
    Real sum = 0;
    for (int ray = pixel * rays.rays_per_pixel; ray < (pixel + 1) * rays.rays_per_pixel; ++ray) {
      const Vec2<Real> theta{rays.positions[ray], rays.positions[rays.n_rays + ray]};
      Vec2<Real> alpha{};
      if (alpha_nn != nullptr) alpha = {alpha_nn[2 * ray_offset + ray], alpha_nn[2 * ray_offset + rays.n_rays + ray]};
      NetworkSample<Real> sample{};
      if (light_value != nullptr)
        sample = {light_value[ray_offset + ray],
                  {light_gradient[2 * ray_offset + ray], light_gradient[2 * ray_offset + rays.n_rays + ray]}};
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
  std::size_t systems, rays, slots, source_pixels, free, free_pixels, parameters, pixels;
  JacobianSizes(const Grid& grid, const std::vector<Model>& models) {
    EINFIELD_REQUIRE(!models.empty(), "a Jacobian of no model, expected at least one");
    const ParameterLayout layout(models.front());
    systems = models.size();
    rays = static_cast<std::size_t>(grid.n_rays());
    pixels = static_cast<std::size_t>(grid.n_pixels());
    slots = layout.table.size();
    source_pixels = layout.pixels.size();
    free = layout.n_free();
    free_pixels = layout.free_pixels.size();
    parameters = layout.size();
  }
};

template <class Real>
struct JacobianStorage {
  DeviceBuffer<Real> slots, pixels, pixel_direction, alpha_bar;
  DeviceBuffer<int> free_pixels;

  template <class Take>
  void each(Take&& take, const JacobianSizes& s) {
    take(slots, s.systems * s.slots);
    for (DeviceBuffer<Real>* tables : {&pixels, &pixel_direction}) take(*tables, s.systems * s.source_pixels);
    take(alpha_bar, s.systems * 2 * s.rays);
    take(free_pixels, s.free_pixels);
  }
};

/// Device memory of the two stages, and of the rest.
template <class Real>
struct JacobianBytes {
  std::size_t render, convolution, own;
  JacobianBytes(const Grid& grid, const std::vector<Model>& models, const std::vector<Psf>& psfs)
      : render(RenderStage<Real>::workspace_bytes(grid, models)),
        convolution(ConvolutionStage<Real>::workspace_bytes(grid.ny, grid.nx, psfs)),
        own(workspace_bytes_of<JacobianStorage<Real>>(JacobianSizes(grid, models))) {}
  std::size_t all() const { return render + convolution + own; }
};

void require_pixels(const std::vector<Psf>& psfs) {
  for (const Psf& psf : psfs)
    EINFIELD_REQUIRE(psf.supersampling == 1,
                     "JacobianStage: a PSF with " + std::to_string(psf.supersampling) +
                         " samples a pixel's side (observation.psf_supersampling), expected 1: the stage has no images "
                         "of sub-pixels. A fit takes such a PSF");
}

}  // namespace

template <class Real>
struct JacobianStage<Real>::Impl {
  static constexpr const char* kName = "Jacobian";

  StageDevice device;
  JacobianSizes sizes;
  Grid grid;
  std::size_t stride;
  JacobianBytes<Real> bytes;
  RenderStage<Real> render;
  ConvolutionStage<Real> convolution;
  JacobianStorage<Real> storage;
  bool network_light;

  Impl(const Grid& of, const std::vector<Model>& models, const std::vector<Psf>& psfs, std::size_t parameter_stride,
       cudaStream_t stream, Workspace workspace)
      : sizes(of, models),
        grid(of),
        stride(parameter_stride),
        bytes(of, models, psfs),
        render(of, models, parameter_stride, stream, 1, part_of(checked(workspace, bytes.all()), 0, bytes.render)),
        convolution(of.ny, of.nx, psfs, stream, ConvolutionMethod::automatic,
                    part_of(workspace, bytes.render, bytes.convolution)),
        network_light(network_light_index(models.front()) >= 0) {
    require_pixels(psfs);
    EINFIELD_REQUIRE(psfs.size() == models.size(), std::to_string(psfs.size()) + " PSFs for " +
                                                       std::to_string(models.size()) + " models, expected as many");
    BufferSource source(kName, part_of(workspace, bytes.render + bytes.convolution, bytes.own), bytes.own);
    take_all(source, storage, stream, sizes);
    std::vector<Real> pixels;
    for (const Model& model : models)
      for (const double v : ParameterLayout(model).pixels) pixels.push_back(static_cast<Real>(v));
    storage.pixels.upload(pixels, stream);
    storage.free_pixels.upload(ParameterLayout(models.front()).free_pixels, stream);
    EINFIELD_CUDA(cudaStreamSynchronize(stream));  // the vectors end here
  }

  static Workspace checked(Workspace workspace, std::size_t bytes) {
    (void)BufferSource(kName, workspace, bytes);
    return workspace;
  }
  void require_light(const NetworkLight<Real>& light) const {
    const bool given = !light.value.empty() && !light.gradient.empty();
    EINFIELD_REQUIRE(given == network_light, std::string("Jacobian: a network of a NETWORK component is ") +
                                                 (given ? "given" : "missing") +
                                                 ", expected it with such a component and not without");
    if (!given) return;
    require_size(kName, "light.value", light.value, sizes.systems * sizes.rays);
    require_size(kName, "light.gradient", light.gradient, 2 * sizes.systems * sizes.rays);
  }
};

template <class Real>
JacobianStage<Real>::JacobianStage(const Grid& grid, const std::vector<Model>& models, const std::vector<Psf>& psfs,
                                   std::size_t parameter_stride, cudaStream_t stream, Workspace workspace)
    : impl_(std::make_unique<Impl>(grid, models, psfs, parameter_stride, stream, workspace)) {}
template <class Real>
JacobianStage<Real>::~JacobianStage() = default;
template <class Real>
JacobianStage<Real>::JacobianStage(JacobianStage&&) noexcept = default;
template <class Real>
JacobianStage<Real>& JacobianStage<Real>::operator=(JacobianStage&&) noexcept = default;

template <class Real>
std::size_t JacobianStage<Real>::workspace_bytes(const Grid& grid, const std::vector<Model>& models,
                                                 const std::vector<Psf>& psfs) {
  return JacobianBytes<Real>(grid, models, psfs).all();
}

template <class Real>
RenderStage<Real>& JacobianStage<Real>::rays() {
  return impl_->render;
}

template <class Real>
void JacobianStage<Real>::forward(cudaStream_t stream, View<const Real> parameters, View<const Real> alpha_nn,
                                  View<const Real> direction, View<Real> tangent, const NetworkLight<Real>& light) {
  Impl& m = *impl_;
  const JacobianSizes& s = m.sizes;
  m.device.require_current(Impl::kName);
  m.require_light(light);
  require_vectors(Impl::kName, "parameters", parameters, s.systems, m.stride, s.parameters);
  require_vectors(Impl::kName, "direction", direction, s.systems, m.stride, s.parameters);
  require_size_or_none(Impl::kName, "alpha_nn", alpha_nn, 2 * s.systems * s.rays);
  require_size(Impl::kName, "tangent", tangent, s.systems * s.pixels);
  const SceneArrays<Real> scenes = SceneAccess::arrays(m.render);
  SceneAccess::place(m.render, stream, parameters.data());
  const TangentTables<Real> tables{m.storage.slots.get(), m.storage.pixels.get(), m.storage.pixel_direction.get()};
  const auto systems = static_cast<unsigned>(s.systems);
  if (const int most = static_cast<int>(std::max(s.free, s.free_pixels)); most > 0) {
    place_direction_kernel<<<dim3(sum_blocks(most), systems), kThreads, 0, stream>>>(
        scenes, parameters.data(), direction.data(), m.storage.free_pixels.get(), static_cast<int>(s.free_pixels),
        tables);
    EINFIELD_LAUNCH_CHECK();
  }
  const TangentRays<Real> rays{m.render.positions().data(), m.grid.n_rays(), m.grid.n_pixels(), m.grid.nx,
                               m.grid.rays_per_pixel()};
  with_placement(scenes, [&](auto shared) {
    tangent_kernel<Real, shared.value>
        <<<dim3(sum_blocks(rays.n_pixels), systems), kThreads, scenes.shared_bytes(), stream>>>(
            scenes, rays, parameters.data(), alpha_nn.data(), tables, light.value.data(), light.gradient.data(),
            m.convolution.image());
    EINFIELD_LAUNCH_CHECK();
  });
  m.convolution.forward(stream);
  copy_images<Real>(stream, s.systems, m.convolution.model(), dense_images(tangent, m.grid.ny, m.grid.nx), m.grid.ny,
                    m.grid.nx);
}

template <class Real>
void JacobianStage<Real>::adjoint(cudaStream_t stream, View<const Real> parameters, View<const Real> alpha_nn,
                                  View<const Real> model_bar, View<Real> gradient, const NetworkLight<Real>& light) {
  Impl& m = *impl_;
  const JacobianSizes& s = m.sizes;
  m.device.require_current(Impl::kName);
  m.require_light(light);
  require_vectors(Impl::kName, "gradient", gradient, s.systems, m.stride, s.parameters);
  require_size(Impl::kName, "model_bar", model_bar, s.systems * s.pixels);
  copy_images<Real>(stream, s.systems, dense_images(model_bar, m.grid.ny, m.grid.nx), m.convolution.model_bar(),
                    m.grid.ny, m.grid.nx);
  m.convolution.adjoint(stream);
  m.render.adjoint(stream, parameters, alpha_nn, m.convolution.image_bar(), m.storage.alpha_bar, gradient, light);
}

template class JacobianStage<float>;
template class JacobianStage<double>;

}  // namespace einfield::cuda

// NetworkStage of cuda.hpp: owns the packed weights and the tape, and launches the kernels of its plan.
// Kernels: tile/ (fused tiles), batch.cuh (cuBLAS over the whole batch). The choice between them: plan.cu.
#include <algorithm>
#include <type_traits>

#include "einfield/cuda.hpp"
#include "kernels/arguments.cuh"
#include "kernels/network/batch.cuh"
#include "kernels/network/plan.cuh"
#include "kernels/network/tile/reduce.cuh"
#include "kernels/storage.cuh"

namespace einfield::cuda {
namespace {

using tiled::ceil_div;
using tiled::Network;
using tiled::TileChoice;

/// The tile path: layout, tape and launches.
template <class Real>
class Tiles {
 public:
  Tiles(const Chosen<Real>& chosen, int systems, BufferSource& source)
      : plan_(chosen.plan),
        tile_(chosen.tile),
        net_(chosen.net),
        systems_(static_cast<unsigned>(systems)),
        packed_(source.take<Real>(count(net_.pack_size, 1))),
        tape_(source.take<Real>(count(net_.tape_size, keeps_tape() ? net_.tiles : plan_.blocks))),
        sums_(source.take<Real>(count(net_.sums_size, keeps_tape() ? plan_.blocks : 0))) {
    net_.packed = packed_.get();
    net_.tape = tape_.get();
    net_.sums = sums_.get();
    tile_.allow_shared(DeviceLimits::current().shared_bytes_per_block);
  }

  void forward(const Queue& queue, const Real* parameters, std::size_t stride, const Real* positions,
               bool own_positions, Real* psi, Real* alpha) {
    net_.position_rows = own_positions ? 2 : 0;
    net_.systems = queue.systems;
    const int pack_blocks = net_.stages + ceil_div(net_.constants_size, kThreads);
    tile_.pack(dim3(static_cast<unsigned>(pack_blocks), rows_of(queue, systems_)), queue.stream, net_, parameters,
               stride);
    if (keeps_tape())
      tile_.forward(grid(queue, plan_.blocks), plan_.shared_bytes, queue.stream, net_, parameters, stride, positions,
                    psi, alpha);
    else
      forward_in_turns(queue, parameters, stride, positions, psi, alpha);
  }

  /// Needs no parameters: the packed ones are still those of forward().
  void adjoint(const Queue& queue, std::size_t stride, const Real* positions, bool own_positions, const Real* alpha_bar,
               Real* gradient, const Real* psi_bar) {
    net_.position_rows = own_positions ? 2 : 0;
    net_.systems = queue.systems;
    tile_.adjoint(grid(queue, plan_.blocks), plan_.shared_bytes, queue.stream, net_, positions, alpha_bar, psi_bar);
    const int blocks = net_.reduce_blocks + ceil_div(net_.partial_size - net_.numbers_partial, tiled::kLanes);
    auto* reduce = tiled::reduce_kernel<Real, false>;
    if constexpr (std::is_same_v<Real, float>)
      if (tile_.fragments) reduce = tiled::reduce_kernel<Real, true>;
    reduce<<<dim3(static_cast<unsigned>(blocks), rows_of(queue, systems_)), dim3(tiled::kLanes, tiled::kStrands), 0,
             queue.stream>>>(net_, gradient, stride, plan_.blocks);
    EINFIELD_LAUNCH_CHECK();
  }

 private:
  std::size_t count(int numbers, int times) const {
    return static_cast<std::size_t>(numbers) * static_cast<std::size_t>(times) * systems_;
  }
  dim3 grid(const Queue& queue, int blocks) const {
    return dim3(static_cast<unsigned>(blocks), rows_of(queue, systems_));
  }
  bool keeps_tape() const { return plan_.tape == NetworkTape::kept; }
  /// Without a tape: launches of as many tiles as there are blocks, which use the same memory one after the other. All
  /// tiles of a launch are full, but for those of the first: the last launch begins early enough for that, and computes
  /// some points of the one before again, to the same bits.
  void forward_in_turns(const Queue& queue, const Real* parameters, std::size_t stride, const Real* positions,
                        Real* psi, Real* alpha) {
    for (int first = 0; first < net_.points;) {
      Network<Real> part = net_;
      part.tiles = std::min(plan_.blocks, ceil_div(net_.points - first, plan_.tile));
      const int begin = std::min(first, std::max(net_.points - part.tiles * plan_.tile, 0));
      tile_.forward(grid(queue, part.tiles), plan_.shared_bytes, queue.stream, part, parameters, stride,
                    positions + begin, psi + begin, alpha + begin);
      first += part.tiles * plan_.tile;
    }
  }

  NetworkPlan plan_;
  TileChoice<Real> tile_;
  Network<Real> net_;
  unsigned systems_;
  DeviceBuffer<Real> packed_, tape_, sums_;
};

}  // namespace

template <class Real>
struct NetworkStage<Real>::Impl {
  static constexpr const char* kName = "network";

  StageDevice device;
  NetworkPlan plan;
  std::size_t parameters;  // of one system
  std::size_t points, systems;
  std::unique_ptr<Tiles<Real>> tiles;
  std::unique_ptr<batch::Batch<Real>> batch;

  void require(View<const Real> all_parameters, std::size_t stride, View<const Real> positions) const {
    device.require_current(kName);
    EINFIELD_REQUIRE(systems == 1 || stride >= parameters, "network: parameter_stride = " + std::to_string(stride) +
                                                               ", expected at least the " + std::to_string(parameters) +
                                                               " parameters of a system");
    require_vectors(kName, "parameters", all_parameters, systems, stride, parameters);
    require_size(kName, "positions", positions, own_positions(positions) ? 2 * points * systems : 2 * points);
  }
  /// Whether every system has its own.
  bool own_positions(View<const Real> positions) const { return positions.size() > 2 * points; }
};

template <class Real>
NetworkPlan NetworkStage<Real>::make_plan(const NetworkShape& shape, int n_points, int n_systems,
                                          const DeviceLimits& limits, NetworkPath path, NetworkMath math,
                                          NetworkTape tape) {
  return choose<Real>(shape, n_points, n_systems, limits, path, math, tape).plan;
}

template <class Real>
NetworkStage<Real>::NetworkStage(const NetworkShape& shape, int n_points, int n_systems, const DeviceLimits& limits,
                                 NetworkPath path, NetworkMath math, NetworkTape tape, Workspace workspace)
    : impl_(std::make_unique<Impl>()) {
  const Chosen<Real> chosen = choose<Real>(shape, n_points, n_systems, limits, path, math, tape);
  impl_->plan = chosen.plan;
  impl_->parameters = shape.size();
  impl_->points = static_cast<std::size_t>(n_points);
  impl_->systems = static_cast<std::size_t>(n_systems);
  BufferSource source(Impl::kName, workspace, chosen.plan.workspace_bytes);
  if (chosen.plan.path == NetworkPath::tiles)
    impl_->tiles = std::make_unique<Tiles<Real>>(chosen, n_systems, source);
  else
    impl_->batch = std::make_unique<batch::Batch<Real>>(shape, n_points, n_systems,
                                                        tape == NetworkTape::none ? 1 : n_systems, source);
}

template <class Real>
NetworkStage<Real>::NetworkStage(const NetworkShape& shape, int n_points, int n_systems, NetworkMath math,
                                 NetworkTape tape, Workspace workspace)
    : NetworkStage(shape, n_points, n_systems, DeviceLimits::current(), NetworkPath::automatic, math, tape, workspace) {
}

template <class Real>
NetworkStage<Real>::~NetworkStage() = default;
template <class Real>
NetworkStage<Real>::NetworkStage(NetworkStage&&) noexcept = default;
template <class Real>
NetworkStage<Real>& NetworkStage<Real>::operator=(NetworkStage&&) noexcept = default;

template <class Real>
const NetworkPlan& NetworkStage<Real>::plan() const {
  return impl_->plan;
}

template <class Real>
std::size_t NetworkStage<Real>::workspace_bytes(const NetworkShape& shape, int n_points, int n_systems,
                                                NetworkMath math, NetworkTape tape) {
  return make_plan(shape, n_points, n_systems, DeviceLimits::current(), NetworkPath::automatic, math, tape)
      .workspace_bytes;
}

template <class Real>
void NetworkStage<Real>::forward(const Queue& queue, View<const Real> parameters, std::size_t parameter_stride,
                                 View<const Real> positions, View<Real> potential, View<Real> alpha_nn) {
  Impl& m = *impl_;
  m.require(parameters, parameter_stride, positions);
  require_size(Impl::kName, "potential", potential, m.systems * m.points);
  require_size(Impl::kName, "alpha_nn", alpha_nn, 2 * m.systems * m.points);
  const bool own = m.own_positions(positions);
  if (m.tiles)
    m.tiles->forward(queue, parameters.data(), parameter_stride, positions.data(), own, potential.data(),
                     alpha_nn.data());
  else
    m.batch->forward(queue.stream, parameters.data(), parameter_stride, positions.data(), own, potential.data(),
                     alpha_nn.data());
}

template <class Real>
void NetworkStage<Real>::adjoint(const Queue& queue, View<const Real> parameters, std::size_t parameter_stride,
                                 View<const Real> positions, View<const Real> alpha_bar, View<Real> gradient,
                                 View<const Real> potential_bar) {
  Impl& m = *impl_;
  m.require(parameters, parameter_stride, positions);
  EINFIELD_REQUIRE(m.plan.tape == NetworkTape::kept,
                   "network: adjoint of a stage without a tape, expected one with it");
  require_size_or_none(Impl::kName, "alpha_bar", alpha_bar, 2 * m.systems * m.points);
  require_vectors(Impl::kName, "gradient", gradient, m.systems, parameter_stride, m.parameters);
  require_size_or_none(Impl::kName, "potential_bar", potential_bar, m.systems * m.points);
  const bool own = m.own_positions(positions);
  if (m.tiles)
    m.tiles->adjoint(queue, parameter_stride, positions.data(), own, alpha_bar.data(), gradient.data(),
                     potential_bar.data());
  else
    m.batch->adjoint(queue.stream, parameters.data(), parameter_stride, positions.data(), own, alpha_bar.data(),
                     gradient.data(), potential_bar.data());
}

template class NetworkStage<float>;
template class NetworkStage<double>;

}  // namespace einfield::cuda

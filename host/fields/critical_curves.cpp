// det A on nodes, chains of edges across which it changes sign, and its roots on them.
#include "host/fields/critical_curves.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

#include "einfield/lens.hpp"

namespace einfield {
namespace {

/// Step of the differences in the search: in double they err by 1e-8 of α'' or so.
constexpr double kStep = 1e-4;
/// Trials on an edge at most; false position needs a few.
constexpr int kSearches = 60;
/// A determinant that is as good as 0.
constexpr double kZero = 1e-9;
/// Shorter lines are left out: a core far below the spacing, or noise of a network.
constexpr std::size_t kFewestPoints = 9;
/// Radius of the circle around a singular center [arcsec], and the number of points on it.
constexpr double kCutRadius = 1e-6;
constexpr int kCutPoints = 180;

/// A Jacobian, which is symmetric.
struct Jacobian {
  double xx = 1, xy = 0, yy = 1;
  double determinant() const { return xx * yy - xy * xy; }
};

Jacobian smooth_jacobian(const std::vector<LensComponent>& smooth, Vec2<double> theta) {
  Jacobian a;
  for (const LensComponent& c : smooth) {
    const LensValues<double> v = lens_values(c.kind, c.values.data(), theta);
    a.xx -= v.kappa + v.gamma1;
    a.yy -= v.kappa - v.gamma1;
    a.xy -= v.gamma2;
  }
  return a;
}

std::vector<double> flat(const Polyline& points) {
  std::vector<double> theta(2 * points.size());
  for (std::size_t i = 0; i < points.size(); ++i) {
    theta[i] = points[i].x;
    theta[points.size() + i] = points[i].y;
  }
  return theta;
}

/// Positions of a source whose light arrives from these directions.
Polyline traced(const Polyline& theta, const std::vector<LensComponent>& smooth, const Deflection& more) {
  Polyline beta = theta;
  const std::vector<double> alpha = more ? more(flat(theta)) : std::vector<double>(2 * theta.size(), 0.0);
  for (std::size_t i = 0; i < theta.size(); ++i) {
    beta[i] = beta[i] - Vec2<double>{alpha[i], alpha[theta.size() + i]};
    for (const LensComponent& c : smooth) beta[i] = beta[i] - lens_deflection(c.kind, c.values.data(), theta[i]);
  }
  return beta;
}

/// det A at points.
std::vector<double> determinants(const Polyline& theta, const std::vector<LensComponent>& smooth,
                                 const Deflection& more) {
  const std::size_t n = theta.size();
  std::vector<Jacobian> a;
  for (const Vec2<double> position : theta) a.push_back(smooth_jacobian(smooth, position));
  if (more) {
    Polyline around;  // right, left, above, below
    for (const Vec2<double> step : {Vec2<double>{kStep, 0}, {-kStep, 0}, {0, kStep}, {0, -kStep}})
      for (const Vec2<double> position : theta) around.push_back(position + step);
    const std::vector<double> alpha = more(flat(around));
    const auto slope = [&](std::size_t component, std::size_t side, std::size_t i) {
      const double* const values = alpha.data() + component * 4 * n + side * n;
      return (values[i] - values[n + i]) / (2 * kStep);
    };
    for (std::size_t i = 0; i < n; ++i) {
      a[i].xx -= slope(0, 0, i);
      a[i].yy -= slope(1, 2, i);
      a[i].xy -= (slope(0, 2, i) + slope(1, 0, i)) / 2;
    }
  }
  std::vector<double> result;
  for (const Jacobian& jacobian : a) result.push_back(jacobian.determinant());
  return result;
}

Vec2<double> node(const PixelGrid& nodes, int index) {
  const int column = index % nodes.nx, row = index / nodes.nx;
  return {nodes.center_x + (column - 0.5 * (nodes.nx - 1)) * nodes.pixel_scale,
          nodes.center_y + (row - 0.5 * (nodes.ny - 1)) * nodes.pixel_scale};
}

/// det A at the nodes; derivatives of `more` are differences between neighbors, one-sided at the edge.
std::vector<double> node_determinants(const PixelGrid& nodes, const std::vector<LensComponent>& smooth,
                                      const Deflection& more) {
  const int nx = nodes.nx, ny = nodes.ny;
  Polyline theta;
  for (int i = 0; i < nx * ny; ++i) theta.push_back(node(nodes, i));
  const std::vector<double> alpha = more ? more(flat(theta)) : std::vector<double>();
  const auto difference = [&](std::size_t component, int low, int high, int steps) {
    const double* const values = alpha.data() + component * theta.size();
    return (values[high] - values[low]) / (steps * nodes.pixel_scale);
  };
  std::vector<double> determinant;
  for (int iy = 0; iy < ny; ++iy)
    for (int ix = 0; ix < nx; ++ix) {
      const int i = iy * nx + ix;
      Jacobian a = smooth_jacobian(smooth, theta[static_cast<std::size_t>(i)]);
      if (more) {
        const int left = ix > 0 ? 1 : 0, right = ix + 1 < nx ? 1 : 0, below = iy > 0 ? 1 : 0,
                  above = iy + 1 < ny ? 1 : 0;
        const int across = std::max(left + right, 1), upward = std::max(below + above, 1);
        a.xx -= difference(0, i - left, i + right, across);
        a.yy -= difference(1, i - below * nx, i + above * nx, upward);
        a.xy -=
            (difference(0, i - below * nx, i + above * nx, upward) + difference(1, i - left, i + right, across)) / 2;
      }
      determinant.push_back(a.determinant());
    }
  return determinant;
}

/// Where det A vanishes between pairs of points: false position after Illinois (Dowell & Jarratt 1971), all pairs at
/// once. A pair without a change of sign, which happens where differences between nodes were too coarse, gets the point
/// that they say.
/// @param fraction  of the way from the first to the second point, by linear interpolation between the nodes
Polyline roots(Polyline first, Polyline second, const std::vector<double>& fraction,
               const std::vector<LensComponent>& smooth, const Deflection& more) {
  const std::size_t n = first.size();
  Polyline result(n);
  for (std::size_t i = 0; i < n; ++i) result[i] = first[i] + fraction[i] * (second[i] - first[i]);
  std::vector<double> f = determinants(first, smooth, more), g = determinants(second, smooth, more);
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < n; ++i)
    if (std::isfinite(f[i]) && std::isfinite(g[i]) && (f[i] > 0) != (g[i] > 0)) open.push_back(i);
  std::vector<int> kept(n, 0);  // −1, 1: the first, second point was kept last time
  for (int search = 0; search < kSearches && !open.empty(); ++search) {
    Polyline trial;
    for (const std::size_t i : open) trial.push_back(first[i] + (f[i] / (f[i] - g[i])) * (second[i] - first[i]));
    const std::vector<double> value = determinants(trial, smooth, more);
    std::vector<std::size_t> still;
    for (std::size_t k = 0; k < open.size(); ++k) {
      const std::size_t i = open[k];
      result[i] = trial[k];
      if (!std::isfinite(value[k]) || std::abs(value[k]) < kZero) continue;
      if ((value[k] > 0) == (f[i] > 0)) {
        first[i] = trial[k];
        f[i] = value[k];
        if (kept[i] == 1) g[i] /= 2;
        kept[i] = 1;
      } else {
        second[i] = trial[k];
        g[i] = value[k];
        if (kept[i] == -1) f[i] /= 2;
        kept[i] = -1;
      }
      const Vec2<double> between = second[i] - first[i];
      if (dot(between, between) > 1e-24) still.push_back(i);
    }
    open = std::move(still);
  }
  return result;
}

double extent(const Polyline& line) {
  double low_x = kInfinity, high_x = -kInfinity, low_y = kInfinity, high_y = -kInfinity;
  for (const Vec2<double> p : line) {
    low_x = std::min(low_x, p.x);
    high_x = std::max(high_x, p.x);
    low_y = std::min(low_y, p.y);
    high_y = std::max(high_y, p.y);
  }
  return std::max(high_x - low_x, high_y - low_y);
}

Vec2<double> center_of(const LensComponent& c) {
  const auto at = static_cast<std::size_t>(lens_center(c.kind));
  return {c.values[at], c.values[at + 1]};
}

/// The image of a small circle around a center where the deflection jumps; nothing where it is continuous (the image
/// shrinks with the circle) or has no limit (it changes with the circle).
std::optional<Polyline> cut(Vec2<double> center, const std::vector<LensComponent>& smooth, const Deflection& more) {
  const auto circle = [&](double radius) {
    Polyline theta;
    for (int i = 0; i < kCutPoints; ++i) {
      const double phi = 2 * kPi * i / kCutPoints;
      theta.push_back(center + radius * Vec2<double>{std::cos(phi), std::sin(phi)});
    }
    theta.push_back(theta.front());
    return traced(theta, smooth, more);
  };
  Polyline line = circle(kCutRadius);
  const double size = extent(line), wider = extent(circle(10 * kCutRadius));
  if (!(size > 1e3 * kCutRadius) || !(std::abs(wider / size - 1) < 1e-2)) return std::nullopt;
  return line;
}

}  // namespace

std::vector<std::vector<int>> sign_changes(int nx, int ny, const std::vector<double>& values) {
  const auto n = static_cast<std::size_t>(nx) * static_cast<std::size_t>(ny);
  // The edges of a line before and behind each edge, −1 = none.
  std::vector<std::array<int, 2>> next(2 * n, {-1, -1});
  const auto join = [&next](int a, int b) {
    for (const auto& [from, to] : {std::pair{a, b}, {b, a}}) {
      std::array<int, 2>& places = next[static_cast<std::size_t>(from)];
      (places[0] < 0 ? places[0] : places[1]) = to;
    }
  };
  for (int iy = 0; iy + 1 < ny; ++iy)
    for (int ix = 0; ix + 1 < nx; ++ix) {
      const int i = iy * nx + ix;
      // Corners and the edges behind them, counter-clockwise from the lower left.
      const std::array<int, 4> corners = {i, i + 1, i + nx + 1, i + nx};
      const std::array<int, 4> edges = {2 * i, 2 * (i + 1) + 1, 2 * (i + nx), 2 * i + 1};
      std::array<bool, 4> positive{};
      double mean = 0;
      for (std::size_t k = 0; k < 4; ++k) {
        const double value = values[static_cast<std::size_t>(corners[k])];
        positive[k] = value > 0;
        mean += value / 4;
      }
      if (!std::isfinite(mean)) continue;
      std::vector<int> crossed;
      for (std::size_t k = 0; k < 4; ++k)
        if (positive[k] != positive[(k + 1) % 4]) crossed.push_back(edges[k]);
      if (crossed.size() == 2) join(crossed[0], crossed[1]);
      if (crossed.size() < 4) continue;
      // A saddle: lines go around the corners whose sign is not that of the middle.
      const bool around_first = positive[0] != (mean > 0);
      join(edges[around_first ? 3 : 0], edges[around_first ? 0 : 1]);
      join(edges[around_first ? 1 : 2], edges[around_first ? 2 : 3]);
    }

  std::vector<std::vector<int>> chains;
  std::vector<std::uint8_t> done(2 * n, 0);
  const auto follow = [&](int start) {
    std::vector<int> chain;
    for (int edge = start; edge >= 0;) {
      chain.push_back(edge);
      done[static_cast<std::size_t>(edge)] = true;
      const std::array<int, 2>& places = next[static_cast<std::size_t>(edge)];
      const auto is_open = [&](int candidate) { return candidate >= 0 && !done[static_cast<std::size_t>(candidate)]; };
      edge = is_open(places[0]) ? places[0] : is_open(places[1]) ? places[1] : -1;
    }
    const std::array<int, 2>& last = next[static_cast<std::size_t>(chain.back())];
    if (chain.size() > 2 && (last[0] == start || last[1] == start)) chain.push_back(start);
    chains.push_back(std::move(chain));
  };
  // Lines that end at the rim first, from their ends; what is left is closed.
  for (const bool closed : {false, true})
    for (std::size_t edge = 0; edge < next.size(); ++edge)
      if (!done[edge] && next[edge][0] >= 0 && (closed || next[edge][1] < 0)) follow(static_cast<int>(edge));
  return chains;
}

CriticalCurves critical_curves(const PixelGrid& nodes, const std::vector<LensComponent>& smooth,
                               const Deflection& more) {
  CriticalCurves result;
  const std::vector<double> values = node_determinants(nodes, smooth, more);
  for (const std::vector<int>& chain : sign_changes(nodes.nx, nodes.ny, values)) {
    if (chain.size() < kFewestPoints) continue;
    Polyline first, second;
    std::vector<double> fraction;
    for (const int edge : chain) {
      const int from = edge / 2, to = from + (edge % 2 == 0 ? 1 : nodes.nx);
      first.push_back(node(nodes, from));
      second.push_back(node(nodes, to));
      const double f = values[static_cast<std::size_t>(from)], g = values[static_cast<std::size_t>(to)];
      fraction.push_back(f / (f - g));
    }
    CriticalCurve curve;
    curve.image = roots(std::move(first), std::move(second), fraction, smooth, more);
    curve.source = traced(curve.image, smooth, more);
    result.curves.push_back(std::move(curve));
  }
  for (std::size_t i = 0; i < smooth.size(); ++i) {
    const Vec2<double> center = center_of(smooth[i]);
    // Profiles with the same center have one jump together.
    const bool seen = std::any_of(smooth.begin(), smooth.begin() + static_cast<std::ptrdiff_t>(i), [&](const auto& c) {
      const Vec2<double> offset = center_of(c) - center;
      return dot(offset, offset) < kCutRadius * kCutRadius;
    });
    if (seen) continue;
    if (std::optional<Polyline> line = cut(center, smooth, more)) result.cuts.push_back(std::move(*line));
  }
  return result;
}

double effective_radius(const CriticalCurves& lines) {
  double largest = 0;
  for (const CriticalCurve& curve : lines.curves) {
    const Polyline& line = curve.image;
    if (line.front().x != line.back().x || line.front().y != line.back().y) continue;
    double twice = 0;  // the area, by the shoelace formula
    for (std::size_t i = 1; i < line.size(); ++i) twice += line[i - 1].x * line[i].y - line[i - 1].y * line[i].x;
    largest = std::max(largest, std::abs(twice) / 2);
  }
  return largest > 0 ? std::sqrt(largest / kPi) : std::nan("");
}

}  // namespace einfield

// Sky from the outer pixels; the galaxy from medians on ellipses; arcs from what remains; theta_E from pairs of arcs on
// opposite sides.
#include "host/config/survey.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

#include "einfield/least_squares.hpp"
#include "einfield/profile.hpp"
#include "host/model/median.hpp"

namespace einfield {
namespace {

constexpr double kSignificant = 5;     ///< of a mean of 3 × 3 pixels: light and not noise
constexpr double kFaint = 3;           ///< of the fainter image of a pair, opposite a significant one
constexpr double kAlone = 0.75;        ///< theta_E per radius of an image whose counter-image is not seen: that is
                                       ///< theta_E + beta, and beta lies between 0 and theta_E
constexpr double kCore = 1.5;          ///< FWHM of the PSF; closer to the center residuals of the galaxy are larger
constexpr double kClip = 2.5;          ///< σ: what is brighter than an isophote by more is not the galaxy
constexpr double kMostHarmonic = 0.1;  ///< of the mean of an isophote: about 0.05 in its ellipticity
constexpr std::size_t kFewestOfIsophote = 12;  ///< pixels, for three numbers
constexpr double kShapeWindow = 0.5;           ///< theta_E: the ellipticity is that of the galaxy inside the arcs
constexpr double kGalaxyError = 0.05;          ///< of the brightness of the galaxy: what its ellipses leave
constexpr double kOpposite = 0.35;             ///< rad from 180° between the arcs of a pair
constexpr double kLargestWeight = 20;          ///< σ: a bright knot does not outweigh an arc
constexpr double kReach = 0.8;                 ///< of half the side: arcs are looked for inside
constexpr int kFewestPixels = 9;               ///< of significant arcs: one patch of 3 × 3
constexpr double kOutsideArcs = 1.7;           ///< theta_E: a source at 0.7 theta_E has an image there, and one at 0.3
constexpr double kNeighborReach = 3;           ///< theta_E
constexpr int kMostArcPixels = 3000;           ///< the brightest ones; pairs take the square of it

/// Median and σ without the values that lie far from the others.
struct Level {
  double value = 0, sigma = 0;
  int count = 0;
};

Level level_of(std::vector<double> values, double limit) {
  Level level;
  for (int round = 0; round < 8 && !values.empty(); ++round) {
    level.value = upper_median(values);
    level.count = static_cast<int>(values.size());
    // From the values below: light of objects lies above.
    std::vector<double> below;
    for (const double v : values)
      if (v <= level.value) below.push_back(level.value - v);
    level.sigma = kMedianToSigma * upper_median(below);
    const std::size_t before = values.size();
    std::erase_if(values, [&](double v) { return v > level.value + limit * level.sigma; });
    if (values.size() == before) break;
  }
  return level;
}

/// Normal equations of a linear fit of a few numbers.
template <std::size_t kSize>
class SquareSum {
 public:
  void add(const std::array<double, kSize>& row, double value) {
    for (std::size_t i = 0; i < kSize; ++i) {
      right_[i] += row[i] * value;
      for (std::size_t j = 0; j < kSize; ++j) matrix_[i * kSize + j] += row[i] * row[j];
    }
  }
  /// False when the rows do not determine the numbers.
  bool solve(std::array<double, kSize>& result) const {
    constexpr int kCount = static_cast<int>(kSize);
    std::array<double, kSize> scale{};
    std::array<double, kSize * kSize> lower{};
    if (cholesky_factor(matrix_.data(), kCount, nullptr, kCount, scale.data(), lower.data()) < kCount) return false;
    cholesky_solve(scale.data(), lower.data(), kCount, right_.data(), result.data());
    return true;
  }

 private:
  std::array<double, kSize * kSize> matrix_{};
  std::array<double, kSize> right_{};
};

/// The pixels of an image and what is known of it so far.
class Surveyor {
 public:
  explicit Surveyor(const Observation& o) : o_(o), nx_(o.grid.nx), ny_(o.grid.ny), n_(o.image.size()) {
    half_side_ = 0.5 * std::min(nx_, ny_) * o.grid.pixel_scale;
    fwhm_ = std::max(width_of(o.psf), 1.0) * o.grid.pixel_scale;
  }

  Survey run() {
    find_center();
    measure_sky();
    measure_shape(o_.image, std::max(2 * fwhm_, 3 * o_.grid.pixel_scale));
    subtract_galaxy();
    find_arcs();
    measure_shape(without_arcs(), kShapeWindow * s_.theta_E);
    find_neighbors();
    return s_;
  }

 private:
  bool used(std::size_t i) const { return o_.mask[i] != 0; }
  Vec2<double> at(std::size_t i) const { return o_.grid.pixel(static_cast<int>(i)); }
  double distance(std::size_t i) const {
    const Vec2<double> theta = at(i);
    return hypot(theta.x - s_.center.x, theta.y - s_.center.y);
  }
  /// Radius of the ellipse through a pixel: the product average of its semi-axes.
  double ellipse_radius(std::size_t i) const {
    const Vec2<double> theta = at(i);
    const double x = theta.x - s_.center.x, y = theta.y - s_.center.y;
    const double u = (1 - s_.e1) * x - s_.e2 * y, v = (1 + s_.e1) * y - s_.e2 * x;
    return std::sqrt((u * u + v * v) / (1 - s_.e1 * s_.e1 - s_.e2 * s_.e2));
  }

  /// Mean of the used pixels among 3 × 3 times the square root of their number.
  std::vector<double> smoothed(const std::vector<double>& map) const {
    std::vector<double> result(n_, 0.0);
    for (int y = 0; y < ny_; ++y)
      for (int x = 0; x < nx_; ++x) {
        double sum = 0;
        int count = 0;
        for (int v = std::max(y - 1, 0); v <= std::min(y + 1, ny_ - 1); ++v)
          for (int w = std::max(x - 1, 0); w <= std::min(x + 1, nx_ - 1); ++w) {
            const auto i = static_cast<std::size_t>(v * nx_ + w);
            if (!used(i)) continue;
            sum += map[i];
            ++count;
          }
        const auto i = static_cast<std::size_t>(y * nx_ + x);
        if (used(i) && count > 0) result[i] = sum / std::sqrt(count);
      }
    return result;
  }

  /// The brightest place, where the middle of the image counts more: a cut-out is made around its lens.
  void find_center() {
    std::vector<double> image = o_.image;
    for (std::size_t i = 0; i < n_; ++i)
      if (!used(i)) image[i] = 0;
    const std::vector<double> smooth = smoothed(image);
    const Vec2<double> middle{o_.grid.center_x, o_.grid.center_y};
    const double width = half_side_ / 3;
    double best = -kInfinity;
    for (std::size_t i = 0; i < n_; ++i) {
      const Vec2<double> theta = at(i);
      const double r = hypot(theta.x - middle.x, theta.y - middle.y) / width;
      const double value = smooth[i] * std::exp(-0.5 * r * r);
      if (!used(i) || !(value > best)) continue;
      best = value;
      s_.center = theta;
    }
    // The centroid of what is brighter than half of the peak, within the width of the PSF.
    for (int round = 0; round < 5; ++round) {
      double peak = -kInfinity, sum = 0;
      Vec2<double> moment{};
      for (std::size_t i = 0; i < n_; ++i)
        if (used(i) && distance(i) < fwhm_) peak = std::max(peak, o_.image[i]);
      for (std::size_t i = 0; i < n_; ++i) {
        if (!used(i) || distance(i) >= fwhm_ || o_.image[i] < 0.5 * peak) continue;
        const double w = o_.image[i] - 0.5 * peak;
        sum += w;
        moment += w * at(i);
      }
      if (!(sum > 0)) break;
      s_.center = {moment.x / sum, moment.y / sum};
    }
  }

  /// Blank sky: the pixels of the outer part that are not significantly brighter than their median.
  void measure_sky() {
    std::vector<double> radii;
    for (std::size_t i = 0; i < n_; ++i)
      if (used(i)) radii.push_back(distance(i));
    const auto cut = radii.begin() + static_cast<std::ptrdiff_t>(0.8 * static_cast<double>(radii.size()));
    if (cut == radii.end()) return;
    std::nth_element(radii.begin(), cut, radii.end());
    std::vector<double> values, noise;
    for (std::size_t i = 0; i < n_; ++i)
      if (used(i) && distance(i) >= *cut) {
        values.push_back(o_.image[i]);
        noise.push_back(o_.noise[i]);
      }
    const Level level = level_of(values, 3);
    s_.background = level.value;
    s_.sky_scatter = level.sigma;
    s_.sky_pixels = level.count;
    s_.sky_noise = upper_median(noise);
  }

  /// Moments in a Gaussian window of the same shape, repeated (Bernstein & Jarvis 2002, section 3.1).
  /// @param width  1 σ of the window [arcsec]
  void measure_shape(const std::vector<double>& image, double width) {
    for (int round = 0; round < 30; ++round) {
      double sum = 0, xx = 0, xy = 0, yy = 0;
      for (std::size_t i = 0; i < n_; ++i) {
        if (!used(i)) continue;
        const double r = ellipse_radius(i);
        if (r > 4 * width) continue;
        const Vec2<double> theta = at(i);
        const double x = theta.x - s_.center.x, y = theta.y - s_.center.y;
        const double w = std::exp(-0.5 * r * r / (width * width)) * (image[i] - s_.background);
        sum += w;
        xx += w * x * x;
        xy += w * x * y;
        yy += w * y * y;
      }
      if (!(sum > 0) || !(xx * yy > xy * xy)) break;
      // The axis ratio of the moments is that of the ellipse: e = (1 − q)/(1 + q), q² = the ratio of their eigenvalues.
      const double half = 0.5 * (xx - yy), root = std::hypot(half, xy), mean = 0.5 * (xx + yy);
      const double q = std::sqrt((mean - root) / (mean + root)), e = std::min((1 - q) / (1 + q), 0.5);
      const double new_e1 = root > 0 ? e * half / root : 0, new_e2 = root > 0 ? e * xy / root : 0;
      const double change = std::hypot(new_e1 - s_.e1, new_e2 - s_.e2);
      s_.e1 = new_e1;
      s_.e2 = new_e2;
      if (change < 1e-4) break;
    }
  }

  /// The galaxy on one ellipse: its mean brightness, and the harmonic of the angle by which isophotes of other
  /// ellipticity and orientation differ: mean, cos 2φ, sin 2φ.
  using Harmonics = std::array<double, 3>;

  double angle(std::size_t i) const {
    const Vec2<double> theta = at(i);
    return std::atan2(theta.y - s_.center.y, theta.x - s_.center.x);
  }
  static Harmonics waves(double phi) { return {1, std::cos(2 * phi), std::sin(2 * phi)}; }
  static double sum_of(const Harmonics& h, const Harmonics& w) {
    double sum = 0;
    for (std::size_t k = 0; k < h.size(); ++k) sum += h[k] * w[k];
    return sum;
  }

  /// Least squares over the pixels that are not much brighter than the fit. The harmonic stays small: a stronger one is
  /// that of arcs.
  Harmonics isophote(std::vector<std::size_t> pixels) const {
    std::vector<double> values;
    for (const std::size_t i : pixels) values.push_back(o_.image[i] - s_.background);
    Harmonics fit{level_of(values, kClip).value, 0, 0};
    for (int round = 0; round < 5 && pixels.size() >= kFewestOfIsophote; ++round) {
      std::vector<double> below;
      for (const std::size_t i : pixels)
        if (const double left = o_.image[i] - s_.background - sum_of(fit, waves(angle(i))); left <= 0)
          below.push_back(-left);
      const double limit = kClip * kMedianToSigma * upper_median(below);
      std::vector<std::size_t> kept;
      for (const std::size_t i : pixels)
        if (o_.image[i] - s_.background - sum_of(fit, waves(angle(i))) <= limit) kept.push_back(i);
      if (kept.size() < kFewestOfIsophote) break;
      SquareSum<3> squares;
      for (const std::size_t i : kept) squares.add(waves(angle(i)), o_.image[i] - s_.background);
      if (!squares.solve(fit)) break;
      const double harmonic = std::hypot(fit[1], fit[2]), most = kMostHarmonic * std::abs(fit[0]);
      if (harmonic > most)
        for (const std::size_t k : {std::size_t{1}, std::size_t{2}}) fit[k] *= most / harmonic;
      pixels = std::move(kept);
    }
    return fit;
  }

  /// The galaxy, ellipse by ellipse, falling outwards; and what it leaves.
  void subtract_galaxy() {
    const double pixel = o_.grid.pixel_scale;
    std::vector<double> edges{0};
    while (edges.back() < 1.5 * half_side_) edges.push_back(edges.back() + std::max(pixel, 0.08 * edges.back()));
    std::vector<std::vector<std::size_t>> rings(edges.size() - 1);
    for (std::size_t i = 0; i < n_; ++i) {
      const auto above = std::upper_bound(edges.begin(), edges.end(), ellipse_radius(i));
      if (used(i) && above != edges.end()) rings[static_cast<std::size_t>(above - edges.begin()) - 1].push_back(i);
    }
    std::vector<double> radius, grown;
    std::vector<Harmonics> galaxy;
    double flux = 0;
    for (std::size_t k = 0; k < rings.size(); ++k) {
      if (rings[k].size() < 4) continue;
      Harmonics fit = isophote(rings[k]);
      if (!galaxy.empty()) fit[0] = std::min(fit[0], galaxy.back()[0]);
      radius.push_back(0.5 * (edges[k] + edges[k + 1]));
      galaxy.push_back(fit);
      flux += std::max(fit[0], 0.0) * kPi * (edges[k + 1] * edges[k + 1] - edges[k] * edges[k]);
      grown.push_back(flux);
    }
    for (std::size_t k = 0; k < grown.size(); ++k)
      if (s_.half_light_radius == 0 && grown[k] >= 0.5 * flux) s_.half_light_radius = radius[k];
    left_.assign(n_, 0.0);
    galaxy_.assign(n_, 0.0);
    for (std::size_t i = 0; i < n_ && !radius.empty(); ++i)
      if (used(i)) {
        const double model = galaxy_[i] = brightness(radius, galaxy, i);
        left_[i] = (o_.image[i] - s_.background - model) / std::hypot(o_.noise[i], kGalaxyError * model);
      }
    left_ = smoothed(left_);
    std::vector<double> sizes;
    for (std::size_t i = 0; i < n_; ++i)
      if (used(i) && distance(i) > core()) sizes.push_back(std::abs(left_[i]));
    scatter_ = std::max(kMedianToSigma * upper_median(sizes), 1e-12);
  }
  /// The image with the galaxy in the place of light that it does not have.
  std::vector<double> without_arcs() const {
    std::vector<double> image = o_.image;
    for (std::size_t i = 0; i < n_; ++i)
      if (left_[i] > kFaint * scatter_ && distance(i) > core()) image[i] = s_.background + galaxy_[i];
    return image;
  }
  double core() const { return std::max(kCore * fwhm_, 3 * o_.grid.pixel_scale); }

  /// Of the galaxy at a pixel: harmonics between two ellipses, the mean as a power of the radius where it is positive.
  double brightness(const std::vector<double>& radius, const std::vector<Harmonics>& galaxy, std::size_t i) const {
    const double r = ellipse_radius(i);
    const auto above = std::upper_bound(radius.begin(), radius.end(), r);
    const auto k = static_cast<std::size_t>(above - radius.begin());
    if (k == 0) return sum_of(galaxy.front(), waves(angle(i)));
    if (k == radius.size()) return sum_of(galaxy.back(), waves(angle(i)));
    const double share = (r - radius[k - 1]) / (radius[k] - radius[k - 1]);
    const Harmonics &a = galaxy[k - 1], &b = galaxy[k];
    Harmonics between;
    for (std::size_t m = 0; m < between.size(); ++m) between[m] = a[m] + share * (b[m] - a[m]);
    if (a[0] > 0 && b[0] > 0) between[0] = a[0] * std::pow(b[0] / a[0], share);
    return sum_of(between, waves(angle(i)));
  }

  struct ArcPixel {
    std::size_t index;
    double r, phi, weight;
  };

  std::vector<ArcPixel> arc_pixels(double from, double to, double least) const {
    std::vector<ArcPixel> pixels;
    for (std::size_t i = 0; i < n_; ++i) {
      const double r = distance(i), z = left_[i] / scatter_;
      if (!used(i) || r < from || r > to || z < least) continue;
      pixels.push_back({i, r, angle(i), std::min(z, kLargestWeight)});
    }
    std::stable_sort(pixels.begin(), pixels.end(),
                     [](const ArcPixel& a, const ArcPixel& b) { return a.weight > b.weight; });
    if (pixels.size() > kMostArcPixels) pixels.resize(kMostArcPixels);
    return pixels;
  }

  /// The place of the peak of a histogram, smoothed over its neighbors: the mean of the three bins around it.
  static double peak_of(const std::vector<double>& bins, double width) {
    std::size_t best = 0;
    double highest = -1;
    const auto sum = [&bins](std::size_t k) {
      return bins[k] + (k > 0 ? bins[k - 1] : 0) + (k + 1 < bins.size() ? bins[k + 1] : 0);
    };
    for (std::size_t k = 0; k < bins.size(); ++k)
      if (sum(k) > highest) {
        highest = sum(k);
        best = k;
      }
    double total = 0, moment = 0;
    for (std::size_t k = best > 0 ? best - 1 : 0; k <= std::min(best + 1, bins.size() - 1); ++k) {
      total += bins[k];
      moment += bins[k] * (static_cast<double>(k) + 0.5) * width;
    }
    return total > 0 ? moment / total : 0;
  }

  /// β = θ − θ_E θ/|θ| of an isothermal sphere, averaged over the arcs.
  void trace_source(const std::vector<ArcPixel>& pixels) {
    Vec2<double> sum{};
    double total = 0;
    for (const ArcPixel& a : pixels) {
      if (a.r > kOutsideArcs * s_.theta_E) continue;
      const double beta = a.r - s_.theta_E;
      sum += a.weight * Vec2<double>{beta * std::cos(a.phi), beta * std::sin(a.phi)};
      total += a.weight;
    }
    s_.source = s_.center;
    if (total > 0) s_.source += (1 / total) * sum;
  }

  void find_arcs() {
    const double from = core(), to = kReach * half_side_;
    const std::vector<ArcPixel> pixels = arc_pixels(from, to, kSignificant), fainter = arc_pixels(from, to, kFaint);
    s_.arc_pixels = static_cast<int>(pixels.size());
    s_.arcs = s_.arc_pixels >= kFewestPixels;
    if (!s_.arcs) {
      s_.theta_E = s_.outer = std::max(0.2 * half_side_, 3 * o_.grid.pixel_scale);
      s_.source = s_.center;
      return;
    }
    // The images of a source on opposite sides of an isothermal lens are 2 theta_E apart, wherever the source is.
    const double width = std::max(o_.grid.pixel_scale, 0.02 * half_side_);
    std::vector<double> by_pair(static_cast<std::size_t>(to / width) + 2, 0.0), by_radius = by_pair;
    double paired = 0, alone = 0;
    for (const ArcPixel& a : pixels) {
      s_.peak = std::max(s_.peak, left_[a.index] / scatter_);
      by_radius[static_cast<std::size_t>(a.r / width)] += a.weight;
      double opposite = 0;
      for (const ArcPixel& b : fainter) {
        if (std::abs(std::abs(std::remainder(a.phi - b.phi, 2 * kPi)) - kPi) > kOpposite) continue;
        by_pair[static_cast<std::size_t>(0.5 * (a.r + b.r) / width)] += a.weight * b.weight;
        opposite += b.weight;
      }
      (opposite > 0 ? paired : alone) += a.weight;
    }
    s_.pairs = paired > alone;
    s_.theta_E = s_.pairs ? peak_of(by_pair, width) : kAlone * peak_of(by_radius, width);
    trace_source(pixels);
    double within = 0, total = 0;
    std::vector<std::pair<double, double>> sorted;
    for (const ArcPixel& a : pixels)
      if (a.r < kOutsideArcs * s_.theta_E) {
        sorted.emplace_back(a.r, a.weight);
        total += a.weight;
      }
    std::sort(sorted.begin(), sorted.end());
    for (const auto& [r, weight] : sorted) {
      within += weight;
      s_.outer = r;
      if (within > 0.98 * total) break;
    }
  }

  /// Groups of connected significant pixels that lie outside the arcs.
  void find_neighbors() {
    std::vector<std::uint8_t> seen(n_, 0);
    for (std::size_t first = 0; first < n_; ++first) {
      if (seen[first] || !used(first) || left_[first] / scatter_ < kSignificant) continue;
      std::vector<std::size_t> group{first};
      seen[first] = 1;
      double nearest = kInfinity, weight = 0;
      Vec2<double> moment{};
      for (std::size_t k = 0; k < group.size(); ++k) {
        const std::size_t i = group[k];
        nearest = std::min(nearest, distance(i));
        weight += left_[i];
        moment += left_[i] * at(i);
        const int x = static_cast<int>(i) % nx_, y = static_cast<int>(i) / nx_;
        for (int v = std::max(y - 1, 0); v <= std::min(y + 1, ny_ - 1); ++v)
          for (int w = std::max(x - 1, 0); w <= std::min(x + 1, nx_ - 1); ++w) {
            const auto j = static_cast<std::size_t>(v * nx_ + w);
            if (seen[j] || !used(j) || left_[j] / scatter_ < kSignificant) continue;
            seen[j] = 1;
            group.push_back(j);
          }
      }
      const Vec2<double> center{moment.x / weight, moment.y / weight};
      if (group.size() < kFewestPixels || nearest < kOutsideArcs * s_.theta_E ||
          hypot(center.x - s_.center.x, center.y - s_.center.y) > kNeighborReach * s_.theta_E)
        continue;
      double radius = 0;
      for (const std::size_t i : group) {
        const Vec2<double> theta = at(i);
        radius = std::max(radius, hypot(theta.x - center.x, theta.y - center.y));
      }
      s_.neighbors.push_back({center, radius + fwhm_});
    }
  }

  const Observation& o_;
  int nx_, ny_;
  std::size_t n_;
  double half_side_ = 0, fwhm_ = 0;
  std::vector<double> galaxy_;  ///< model of the galaxy [image unit]
  std::vector<double> left_;    ///< smoothed() image without sky and galaxy, in units of the noise
  double scatter_ = 1;          ///< 1 σ of it
  Survey s_;
};

}  // namespace

Survey survey(const Observation& o) {
  return Surveyor(o).run();
}

double width_of(const Psf& psf) {
  if (psf.empty()) return 0;
  const auto peak = std::max_element(psf.values.begin(), psf.values.end());
  const int place = static_cast<int>(peak - psf.values.begin()), x = place % psf.nx, y = place / psf.nx;
  double sum = 0;
  int count = 0;
  for (const auto& [u, v] : {std::pair(x - 1, y), {x + 1, y}, {x, y - 1}, {x, y + 1}})
    if (u >= 0 && u < psf.nx && v >= 0 && v < psf.ny) {
      sum += psf.values[static_cast<std::size_t>(v * psf.nx + u)];
      ++count;
    }
  const double ratio = sum > 0 ? *peak * count / sum : kInfinity;
  const double least = 1.0 / psf.supersampling;  // a kernel of one sample
  return ratio > 1 ? std::max(std::sqrt(4 * std::log(2) / std::log(ratio)) / psf.supersampling, least) : least;
}

}  // namespace einfield

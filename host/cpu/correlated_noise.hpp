// Random numbers with the correlation of the noise of a resampled image.
#pragma once

#include <cstdint>
#include <vector>

#include "einfield/observation.hpp"

namespace einfield {

/// Eigenvalues of the correlation on a torus of width × height pixels: the power of the noise by frequency, (height,
/// width). @param width, height  at least those of the kernel
std::vector<double> noise_power(const NoiseCorrelation& kernel, int width, int height);

/// Normal numbers of variance 1 with the correlation of `kernel`, (ny, nx). The same seed gives the same numbers.
///
/// On a torus, K is a circulant: its eigenvalues are λ = F(k), real because k is symmetric. With white noise ε,
/// F⁻¹(√λ F ε) has the covariance F⁻¹ λ F = K. A torus that exceeds the image by the radius of the kernel (here: by its
/// size) has the same covariance inside the image as the plane.
/// @param stream  of the random numbers
/// @throws InvalidInput when an eigenvalue is negative beyond rounding: no noise has such a correlation
std::vector<double> correlated_normals(const NoiseCorrelation& kernel, int nx, int ny, std::uint64_t seed,
                                       std::uint64_t stream);

}  // namespace einfield

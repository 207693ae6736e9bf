#!/usr/bin/env bash
# Runs Valgrind's memcheck over a simulation, a fit with all kinds of terms, its resumption and an evaluation.
#   tools/memcheck.sh BINARY
set -euo pipefail
binary=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check() {
  valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite,indirect \
    --errors-for-leak-kinds=definite "$binary" "$@"
}
cat >"$work/lens.toml" <<'END'
[observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
psf = { fwhm = 0.5, size = 3 }
pixel_scale = 0.3
supersampling = 2
[[lens]]
profile = "EPL"
theta_E = 1.2
gamma = 2.1
e1 = 0.1
e2 = -0.05
fit = ["theta_E", "e1", "e2"]
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 10.0
R_sersic = 0.8
n_sersic = 1.5
[[source]]
profile = "PIXELATED"
nx = 5
ny = 4
pixel_scale = 0.3
fit = ["pixels"]
[network]
encoding = "fourier"
fourier_features = 4
hidden = [8, 7]
ensemble = 2
[regularization]
source_gradient = 0.1
source_curvature = 0.1
weight_decay = 1e-3
[optimizer]
stop = "none"
checkpoint_every = 1
[[optimizer.stage]]
name = "adam"
steps = 3
[[optimizer.stage]]
name = "lbfgs"
steps = 3
[truth]
file = "data.fits"
[simulate]
nx = 14
ny = 12
noise = 0.5
[[perturbation]]
profile = "SIE"
theta_E = 0.2
END
cd "$work"
check simulate lens.toml >/dev/null
check fit lens.toml --backend cpu --threads 2 --quiet --out out
check fit lens.toml --backend cpu --threads 2 --quiet --out out --resume --set 'optimizer.stage.1.steps=4'
check evaluate out --grid 8,8,0.2
echo "memcheck: nothing found"

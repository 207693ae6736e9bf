"""Time to the mark: how long einfield and the paper's recipe in JAX take until the model fits as well as the noise allows.

The mark is a reduced χ² of the noise's own (that of the true image) + 0.02. Both fit the same simulated images, one after the
other on the same processors. JAX is the fastest variant of compare.py; its compilation is not counted, nor is einfield's start.
Called by run.sh.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time

os.environ["JAX_PLATFORMS"] = "cpu"
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from astropy.io import fits

import peer

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
MARGIN = 0.02
# One small network of Fourier features, and L-BFGS that stops at the mark; everything else is the default recipe.
QUICK = ["network.hidden=[32,32,32]", "network.fourier_scale=2.0", "network.ensemble=1", 'optimizer.stop="chi2"']
HIDDEN, STEPS, SIGMA = [200, 200, 200], 200, 2.0
SOURCE = {"amp": 10.0, "R_sersic": 1.2, "n_sersic": 1.5, "e1": -0.09, "e2": 0.03, "center_x": 0.4, "center_y": 0.15}
LENS = {"theta_E": 1.6, "e1": 0.15, "e2": -0.04, "center_x": 0.0, "center_y": 0.0}


class Image(peer.Problem):
    """A simulated image, in the form of the other peers' problem."""

    def __init__(self, path):
        with fits.open(path) as hdus:
            read = lambda name: np.asarray(hdus[name].data, np.float64)
            self.image, self.psf, true = read("IMAGE"), read("PSF"), read("IMAGE_TRUE")
        self.n, self.psf_size, self.pixel_scale = len(self.image), len(self.psf), 0.08
        self.lens, self.source = LENS, SOURCE
        axis = (np.arange(self.n) - (self.n - 1) / 2) * self.pixel_scale
        self.x, self.y = np.meshgrid(axis, axis)
        self.mark = np.mean(((self.image - true) / SIGMA) ** 2) + MARGIN


class Potential(nn.Module):
    @nn.compact
    def __call__(self, xi):
        for width in HIDDEN:
            xi = nn.swish(nn.Dense(width)(xi))
        return nn.Dense(1)(xi)[..., 0]


def train_jax(problem, seed, limit):
    """Steps (None: not in `limit`) and seconds to the mark, and seconds of the paper's 200 steps."""
    network, n = Potential(), problem.n
    alpha_x, alpha_y = problem.macro_deflection()
    beta = jnp.asarray(np.stack([(problem.x - alpha_x).ravel(), (problem.y - alpha_y).ravel()], -1), jnp.float32)
    xi = jnp.asarray(np.stack([problem.x.ravel(), problem.y.ravel()], -1), jnp.float32)
    band, data = jnp.asarray(problem.banded_psf(), jnp.float32), jnp.asarray(problem.image, jnp.float32)

    def loss(w):
        source = beta - jax.grad(lambda z: network.apply(w, z).sum())(xi)
        model = band @ problem.sersic(source[:, 0], source[:, 1], jnp).reshape(n, n) @ band.T
        return jnp.mean((model - data) ** 2)

    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(w, moments):
        value, gradient = jax.value_and_grad(loss)(w)
        update, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(w, update), moments, value

    w = network.init(jax.random.PRNGKey(seed), xi)
    moments = optimizer.init(w)
    jax.block_until_ready(step(w, moments))  # compiles
    reached = whole = None
    start = time.perf_counter()
    for i in range(limit + 1):
        w, moments, value = step(w, moments)
        if reached is None and float(value) / SIGMA**2 <= problem.mark:
            reached = i, time.perf_counter() - start
        if i + 1 == STEPS:
            whole = time.perf_counter() - start
        if reached and whole:
            return *reached, whole
    return None, time.perf_counter() - start, whole


def fit(einfield, configuration, directory, settings, threads):
    """result.json and the seconds of the process; without figures: gnuplot is hidden."""
    command = [einfield, "fit", configuration, "--out", f"{directory}/fit", "--overwrite", "--quiet", "--backend", "cpu",
               "--threads", str(threads)] + [part for setting in settings for part in ("--set", setting)]
    start = time.perf_counter()
    subprocess.run(command, check=True, env={"PATH": directory}, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    with open(f"{directory}/fit/result.json") as file:
        return json.load(file), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--einfield", required=True, help="the program")
    parser.add_argument("--systems", nargs="+", default=["sie", "shear"], choices=["sie", "shear"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of the noise and of the networks")
    parser.add_argument("--repeat", type=int, default=5, help="fits by einfield, whose median is given")
    parser.add_argument("--limit", type=int, default=600, help="steps of JAX")
    args = parser.parse_args()
    threads = len(os.sched_getaffinity(0))

    print(f"{platform.machine()}, {threads} threads, float32, JAX {jax.__version__}, load average before "
          f"{os.getloadavg()[0]:.2f}\n")
    print("| image | JAX to the mark | einfield to the mark | ratio | ψ error in the arcs there | JAX, 200 steps | einfield, "
          "default recipe, start to files | ratio |\n" + "| --- " * 8 + "|", flush=True)
    for system in args.systems:
        ratios, whole_ratios = [], []
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as directory:
                configuration = f"{directory}/{system}_noisy.toml"
                text = (EXAMPLES / f"{system}_noisy.toml").read_text()
                pathlib.Path(configuration).write_text(text.replace('recipe = "biggio2021"', 'recipe = "default"'))
                subprocess.run([args.einfield, "simulate", configuration, "--set", f"simulate.seed={seed}"], check=True,
                               stdout=subprocess.DEVNULL)
                problem = Image(f"{directory}/{system}_noisy.fits")
                steps, seconds, whole = train_jax(problem, seed, args.limit)
                quick = QUICK + [f"optimizer.stop_chi2={problem.mark}", f"network.seed={seed}"]
                fits_made = [fit(args.einfield, configuration, directory, quick, threads)[0] for _ in range(args.repeat)]
                ours = statistics.median(result["time_total_s"] for result in fits_made)
                result = fits_made[0]
                if result["stop_reason"] != "chi2":
                    raise SystemExit(f"einfield: not at the mark: {result['stop_reason']}")
                default = statistics.median(fit(args.einfield, configuration, directory, [f"network.seed={seed}"], threads)[1]
                                            for _ in range(3))
                ratios.append(seconds / ours)
                whole_ratios.append(whole / default)
                reached = f"{steps} steps" if steps is not None else f"not in {args.limit} steps"
                print(f"| {system} {seed} | {seconds:.1f} s ({reached}) | {ours:.3f} s ({result['steps']} steps) | "
                      f"{ratios[-1]:.0f} × | {100 * result['metrics']['psi_relative_rms_arc']:.1f} % | {whole:.1f} s | "
                      f"{default:.2f} s | {whole_ratios[-1]:.1f} × |", flush=True)
        print(f"| {system}, median | | | **{statistics.median(ratios):.0f} ×** | | | | **{statistics.median(whole_ratios):.1f} ×** |",
              flush=True)


main()

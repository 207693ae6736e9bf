#!/usr/bin/env python3
"""Is there a subhalo in SDSS J0946+1006? The tables of docs/j0946.md.

    tools/subhalo.py EINFIELD DATA parametric     an isothermal sphere on top of the smooth model, other sources
    tools/subhalo.py EINFIELD DATA network        a network on top: other seeds, penalties, masks, sources
    tools/subhalo.py EINFIELD DATA held_out       the sphere at pixels that the fit did not see; also held_out_pixels with a
                                                  source of pixels, and held_out_network

DATA holds the four FITS files. Every fit is smooth.toml of the example with the blocks below, one thread. Positions are printed
with North up, x to the West: (y, -x) of the image as it is stored.
"""
import argparse
import csv
import json
import math
import pathlib
import random
import subprocess
import tempfile
import tomllib

from study import flags, read_map, row

SMOOTH = pathlib.Path(__file__).resolve().parents[1] / "examples/slacs_j0946+1006/smooth.toml"
PUBLISHED = (-0.651, 1.040)  # Vegetti et al. 2010 (MNRAS 408, 1969; arXiv:0910.0760), North up [arcsec]
STORED = (-PUBLISHED[1], PUBLISHED[0])
NEAR = 0.3  # arcsec
FOLDS = 3
STARTS = 8  # of the subhalo, around the ring
NOISE = 0.016  # (mean 1/sigma^2)^(-1/2) of the pixels within 1.85 arcsec [image unit]

SPHERE = """
[[lens]]
profile = "SIS"
theta_E = 0.03
fit = ["theta_E", "center_x", "center_y"]
bounds = { theta_E = [0.0001, 0.5], center_x = [-1.8, 1.8], center_y = [-1.8, 1.8] }
"""
SERSIC = """
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 0.1
R_sersic = 0.3
n_sersic = 1.0
center_x = 0.1
fit = ["amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y"]
"""
PIXELS = """
[[source]]
profile = "PIXELATED"
nx = 60
ny = 60
pixel_scale = 0.03
center_x = 0.15
center_y = -0.06
fit = ["pixels"]
"""
LIGHT_NETWORK = """
[[source]]
profile = "NETWORK"
amp = 0.02
center_x = 0.15
center_y = -0.06
encoding = "fourier"
fit = ["network"]
"""
NETWORK = """
[network]
ensemble = 1
fourier_scale = 1.0

[regularization]
smoothness = 3.0
curvature = 0.0
negative_convergence = 20.0
negative_total_convergence = 2000.0
"""
LBFGS = ['optimizer.name="lbfgs"', "optimizer.starts=1", "optimizer.memory=300", 'optimizer.stop="plateau"',
         "optimizer.steps=1000"]
ALONE = ["optimizer.starts=1"]
COARSE = "observation.supersampling=1"  # a quarter of the rays: for the network, whose fits take longest


def quoted(path):
    return json.dumps(str(path))


class Fit:
    """The results of a fit."""

    def __init__(self, out):
        self.out = out
        self.result = json.loads((out / "result.json").read_text())
        with open(out / "history.csv") as file:
            last = list(csv.DictReader(file))[-1]
        self.pixels = sum(read_map(out / "result.fits", "MASK"))
        self.chi2 = self.result["metrics"]["chi2_reduced"]
        self.objective = self.pixels * (float(last["loss"]) + float(last["regularization"] or 0))

    def settings(self):
        """Starts another fit from the free parameters, source pixels and source network of this one."""
        values = [f"{name}={self.result['parameters'][name]!r}" for name in self.result["free"]]
        pixels = [key for key, profile in self.result["profiles"].items() if profile == "PIXELATED"]
        networks = [key for key, profile in self.result["profiles"].items() if profile == "NETWORK"]
        return (values +
                [f"{key}.image={quoted(self.out / 'result.fits')[:-1]}[{key.upper().replace('.', '_')}]\"" for key in pixels] +
                [f"{key}.initial={quoted(self.out / 'source_network.safetensors')}" for key in networks])

    def sphere(self):
        """θ_E and center of the subhalo as stored."""
        return tuple(self.result["parameters"][f"lens.2.{name}"] for name in ("theta_E", "center_x", "center_y"))


class Study:
    def __init__(self, einfield, data, directory):
        self.einfield, self.data, self.directory, self.count = einfield, data, directory, 0

    def call(self, *arguments):
        # No figures: gnuplot is not on this path.
        done = subprocess.run([self.einfield, *map(str, arguments)], capture_output=True, text=True,
                              env={"PATH": str(self.directory)})
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr}")

    def fit(self, blocks="", settings=(), start=None):
        """Fits smooth.toml with more blocks, starting from the finished fit `start` if given. Values in the blocks win over those of `start`."""
        self.count += 1
        path, out = self.directory / f"{self.count}.toml", self.directory / f"{self.count}"
        path.write_text(SMOOTH.read_text() + blocks)
        config = tomllib.loads(path.read_text())
        known = [s for s in (start.settings() if start else [])
                 if int(s.split(".")[1]) < len(config.get(s.split(".")[0], []))]
        files = [f"observation.{key}={quoted(self.data / name)}" for key, name in
                 (("image", "data.fits"), ("noise", "noise_map.fits"), ("psf", "psf.fits"),
                  ("mask", "mask_extra_galaxies.fits"))]
        self.call("fit", path, "--out", out, "--quiet", "--backend", "cpu", "--threads", "1",
                  *flags(files + known + list(settings)))
        return Fit(out)

    def peak(self, fit):
        """The highest convergence of the network on used pixels and its position; the mass near the published position."""
        kappa, mask = read_map(fit.out / "result.fits", "KAPPA_NN"), read_map(fit.out / "result.fits", "MASK")
        side = math.isqrt(len(kappa))
        place = lambda i: (0.05 * (i % side - (side - 1) / 2), 0.05 * (i // side - (side - 1) / 2))
        used = [i for i in range(len(kappa)) if mask[i]]
        ring = [i for i in used if math.hypot(*place(i)) > 0.6]
        best = max(ring, key=lambda i: kappa[i])
        near = [kappa[i] for i in used if math.dist(place(i), STORED) < NEAR]
        return kappa[best], place(best), max(near), 0.05**2 * sum(near)


def table(*columns):
    print("\n| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|", flush=True)


def north_up(stored):
    return stored[1], -stored[0]


def place_text(stored):
    x, y = north_up(stored)
    return f"({x:.2f}, {y:.2f}) | {math.dist((x, y), PUBLISHED):.2f}″"


def curvature(weight):
    """A weight of the tables is in 1/image unit², one of a configuration relative to the noise."""
    return f"regularization.source_curvature={weight * NOISE**2}"


def sources(study):
    """Name, blocks, settings and the smooth fit of every model of the source."""
    sersic = study.fit()
    yield "Sérsic", "", ALONE, sersic
    yield "two Sérsics", SERSIC, ALONE, study.fit(SERSIC)
    for weight in (10, 100):
        pixels = LBFGS + [curvature(weight)]
        yield f"Sérsic and pixels, curvature {weight}", PIXELS, pixels, study.fit(PIXELS, pixels, sersic)


def parametric(study):
    """Rows: the best subhalo of all starts around the ring. If that lies elsewhere, also the best one near the published position."""
    table("source", "χ² without", "χ² with", "−Δ objective", "θ_E of the subhalo", "where (North up)", "from the published place",
          "starts that end within 0.3″ of that")
    for name, blocks, settings, smooth in sources(study):
        runs = []
        for k in range(STARTS):
            x, y = (1.25 * f(2 * math.pi * k / STARTS) for f in (math.cos, math.sin))
            fit = study.fit(blocks + SPHERE, settings + [f"lens.2.center_x={x}", f"lens.2.center_y={y}"], smooth)
            runs.append((fit.chi2, fit.objective, fit.sphere()))
        runs.sort(key=lambda run: run[1])
        close = [run for run in runs if math.dist(run[2][1:], STORED) < NEAR]
        for chi2, objective, (theta_e, x, y) in [runs[0]] + [run for run in close[:1] if run is not runs[0]]:
            row(name, f"{smooth.chi2:.3f}", f"{chi2:.3f}", f"{smooth.objective - objective:.0f}", f"{theta_e:.3f}″",
                place_text((x, y)), f"{len(close)} of {len(runs)}")


def network(study):
    """Adds a network; the smooth lens is held at its best values without it."""
    table("what is changed", "χ² without", "χ² with", "highest κ on the ring", "where (North up)", "from the published place",
          "highest κ within 0.3″ of that", "mass there [arcsec²]")
    sersic = study.fit(settings=[COARSE])

    def one(label, smooth, blocks="", settings=(), region=(), free=("network", "source"), rays=COARSE):
        if region:
            smooth = study.fit(blocks, [rays, *ALONE, *region, *settings], smooth)
        fit = study.fit(blocks + NETWORK, LBFGS + [rays, "optimizer.steps=250", f"optimizer.free={json.dumps(list(free))}",
                                                   *region, *settings], smooth)
        kappa, place, near, mass = study.peak(fit)
        row(label, f"{smooth.chi2:.3f}", f"{fit.chi2:.3f}", f"{kappa:.2f}", place_text(place), f"{near:.2f}", f"{mass:.3f}")

    one("nothing: Sérsic source, smooth lens held", sersic)
    one("two Sérsics", study.fit(SERSIC, [COARSE, *ALONE], sersic), SERSIC)
    for weight in (10, 100):
        settings = [curvature(weight)]
        one(f"Sérsic and pixels, curvature {weight}", study.fit(PIXELS, LBFGS + [COARSE] + settings, sersic), PIXELS, settings)
    for seed in (2, 3):
        one(f"seed {seed}", sersic, settings=[f"network.seed={seed}"])
    for weight in (0.3, 30):
        one(f"smoothness {weight}", sersic, settings=[f"regularization.smoothness={float(weight)}"])
    one("frequencies of 1 rad per 4″", sersic, settings=["network.fourier_scale=4.0"])
    one("pixels within 1.7″", sersic, region=["observation.region.0.radius=1.7"])
    one("other galaxies not masked", sersic, region=["observation.mask_used=1", f"observation.mask={quoted(study.ones)}"])
    one("smooth lens free", sersic, free=("network", "source", "lens"))
    one("Sérsic and network", study.fit(LIGHT_NETWORK, LBFGS + [COARSE], sersic), LIGHT_NETWORK)
    one("4 rays a pixel", study.fit(), rays="observation.supersampling=2")


def holes(fold):
    """A dozen held-out circles on the ring."""
    draw, text = random.Random(fold), ""
    for _ in range(12):
        radius, angle = draw.uniform(0.9, 1.75), draw.uniform(0, 2 * math.pi)
        text += (f'\n[[observation.region]]\nshape = "circle"\nradius = 0.2\nkeep = false\n'
                 f'center_x = {radius * math.cos(angle):.3f}\ncenter_y = {radius * math.sin(angle):.3f}\n')
    return text


def compare(study, name, blocks, settings, added, rays=()):
    """Rows of a table of χ² over the held-out pixels, the same in all rows. added: (label, list of starts, each blocks and
    settings). Of several starts the one with the best fitted χ² counts, because fits of profiles may end in a local minimum."""
    table("source", "added to the smooth lens", "χ² of the pixels fitted", "χ² of those held out", "change of its sum")
    whole = study.fit(settings=rays)
    used = read_map(whole.out / "result.fits", "MASK")
    folds = [holes(fold) for fold in range(FOLDS)]

    def one(label, fits, reference=None):
        total = pixels = 0
        for fit in fits:
            model, data, noise, mask = (read_map(fit.out / "result.fits", name) for name in ("MODEL", "DATA", "NOISE", "MASK"))
            hidden = [i for i in range(len(mask)) if used[i] and not mask[i]]
            pixels += len(hidden)
            total += sum(((data[i] - model[i]) / noise[i])**2 for i in hidden)
        row(name, label, f"{sum(f.chi2 for f in fits) / len(fits):.3f}", f"{total / pixels:.3f}",
            "" if reference is None else f"{total - reference:+.0f} of {pixels} pixels")
        return total

    smooth = [study.fit(fold, [*ALONE, *rays], whole) for fold in folds]
    base = [study.fit(fold + blocks, [*settings, *rays], s) for fold, s in zip(folds, smooth)] if blocks else smooth
    reference = one("nothing", base)
    for label, ways in added:
        one(label, [min((study.fit(fold + blocks + more, [*settings, *rays, *begin], b) for more, begin in ways),
                        key=lambda fit: fit.objective) for fold, b in zip(folds, base)], reference)


def sphere_at(place, radii=(0.03,)):
    x, y = place
    return [(SPHERE, [f"lens.2.center_x={x}", f"lens.2.center_y={y}", f"lens.2.theta_E={radius}"]) for radius in radii]


def held_out(study):
    """With profiles only."""
    compare(study, "Sérsic", "", ALONE,
            [("subhalo, from the published place", sphere_at(STORED, (0.01, 0.03, 0.06))),
             ("subhalo, from the opposite place", sphere_at([-x for x in STORED], (0.01, 0.03, 0.06)))])


def held_out_pixels(study, weight=10):
    compare(study, f"Sérsic and pixels, curvature {weight}", PIXELS, LBFGS + [curvature(weight)],
            [("subhalo, from the published place", sphere_at(STORED)),
             ("subhalo, from the opposite place", sphere_at([-x for x in STORED]))])


def held_out_network(study):
    compare(study, "Sérsic, 1 ray a pixel", "", ALONE,
            [("network", [(NETWORK, LBFGS + ["optimizer.steps=250", 'optimizer.free=["network", "source"]'])])], [COARSE])


def write_ones(path, side=281):
    """A mask that uses every pixel."""
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2",
             f"NAXIS1  = {side:20d}", f"NAXIS2  = {side:20d}", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880)
    data = bytes([1]) * side**2
    path.write_bytes(header.encode() + data + bytes(-len(data) % 2880))
    return path


if __name__ == "__main__":
    studies = {study.__name__: study for study in (parametric, network, held_out, held_out_pixels, held_out_network)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("einfield", help="path of the command einfield", type=pathlib.Path)
    parser.add_argument("data", help="directory of the FITS files", type=pathlib.Path)
    parser.add_argument("study", choices=studies)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        study = Study(str(args.einfield.resolve()), args.data.resolve(), pathlib.Path(directory))
        study.ones = write_ones(pathlib.Path(directory) / "ones.fits")
        studies[args.study](study)

#!/usr/bin/env python3
"""How often the truth lies within the error bars: the share of pixels within 1 and 2 sigma, pooled over many images, as a
Markdown table. Each share has an interval that holds 68 %, from images drawn with replacement: pixels are correlated.

    tools/coverage_study.py EINFIELD                     every case
    tools/coverage_study.py EINFIELD prior_fixed sie     some of them
    tools/coverage_study.py EINFIELD --images 100 --method randomized --set uncertainty.members=32

Truths that are drawn from the prior of the fit: a potential of Fourier features with the penalties of the fit as its prior,
    prior_fixed      with the source known
    prior_smooth     with Einstein radius, shear and source position free, drawn from their Gaussian priors
    prior_pixels     with a source of free pixels, drawn from its prior
Truths that are the same in every image, with other noise, and the default recipe:
    sie, shear, subhalo, random_field, multipole

psi without its mean, alpha_x, alpha_y, and kappa smoothed by the PSF, in the arcs (noise-free image above 5 sigma) and in the
whole field. Right error bars have 68 % and 95 % where truths come from the prior. A fixed truth is not a draw of the prior:
its coverage also shows what the priors smooth away."""
import argparse
import array
import json
import math
import pathlib
import random
import struct
import sys
import tempfile

from study import EXAMPLES, Study, flags, read_map, row, table

SIZE, SCALE, NOISE = 40, 0.2, 1.0  # a field of 8 arcsec, where the unit of angle of a fit is 1 arcsec
SOURCE, SOURCE_SCALE = 18, 0.2
PENALTIES = {"smoothness": 8.0, "curvature": 3.0, "weight_decay": 0.1, "source_curvature": 0.001}
FEATURES = 12
PRIORS = {("lens.0", "theta_E"): (1.6, 0.02), ("lens.1", "gamma1"): (0.02, 0.02), ("lens.1", "gamma2"): (0.0, 0.02),
          ("source.0", "center_x"): (0.4, 0.03), ("source.0", "center_y"): (0.15, 0.03)}
CONFIG = """[observation]
image = "{name}.fits[IMAGE]"
noise = {noise}
psf = {{ fwhm = 0.4, size = 7 }}
pixel_scale = {scale}
[[lens]]
profile = "SIE"
e1 = 0.15
e2 = -0.04
{lens0}
[[lens]]
profile = "SHEAR"
{lens1}
[[source]]
{source0}
[network]
{network}
[optimizer]
name = "gauss_newton"
loss = "chi2"
stop = "none"
steps = {steps}
[regularization]
automatic = false
negative_convergence = 0.0
negative_total_convergence = 0.0
{penalties}
{truth}
"""
SERSIC = 'profile = "SERSIC_ELLIPSE"\namp = 10.0\nR_sersic = 1.2\nn_sersic = 1.5\ne1 = -0.09\ne2 = 0.03'


# ---- files ------------------------------------------------------------------------------------------------------------

def write_fits(path, maps):
    """Maps {EXTNAME: (planes, pixels)} of SIZE x SIZE pixels as image extensions."""
    def block(cards):
        text = "".join(f"{card:<80}" for card in (*cards, "END"))
        return text.encode("ascii") + b" " * (-len(text) % 2880)

    data = block(["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0",
                  "EXTEND  =                    T"])
    for name, (planes, pixels) in maps.items():
        axes = [SIZE, SIZE] + [planes] * (planes > 1)
        data += block(["XTENSION= 'IMAGE   '", "BITPIX  =                  -64", f"NAXIS   = {len(axes):>20}",
                       *(f"NAXIS{i + 1}  = {n:>20}" for i, n in enumerate(axes)), "PCOUNT  =                    0",
                       "GCOUNT  =                    1", f"EXTNAME = '{name:<8}'"])
        body = struct.pack(f">{len(pixels)}d", *pixels)
        data += body + bytes(-len(body) % 2880)
    path.write_bytes(data)


def read_network(path):
    """Header and tensors {name: numbers} of network.safetensors."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        values = array.array({"F32": "f", "F64": "d"}[entry["dtype"]], data[8 + size + begin:8 + size + end])
        if sys.byteorder == "big":
            values.byteswap()
        tensors[name] = list(values)
    return header, tensors


def write_network(path, header, tensors):
    body, entries = b"", {"__metadata__": header["__metadata__"]}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        values = struct.pack(f"<{len(tensors[name])}d", *tensors[name])
        entries[name] = {"dtype": "F64", "shape": entry["shape"], "data_offsets": [len(body), len(body) + len(values)]}
        body += values
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


# ---- draws from the prior -----------------------------------------------------------------------------------------------

def cholesky(matrix):
    """L of a symmetric positive definite matrix, row by row; zeros left of the first entry of a row stay zero."""
    n = len(matrix)
    first = [next(j for j in range(n) if matrix[i][j] != 0) for i in range(n)]
    lower = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(first[i], i + 1):
            k = max(first[i], first[j])
            value = matrix[i][j] - sum(a * b for a, b in zip(lower[i][k:j], lower[j][k:j]))
            lower[i][j] = math.sqrt(value) if i == j else value / lower[j][j]
    return lower


def draw(lower, rng):
    """A draw of N(0, (L L^T)^-1): L^T x = z."""
    n = len(lower)
    x = [0.0] * n
    z = [rng.gauss(0, 1) for _ in range(n)]
    for i in reversed(range(n)):
        x[i] = (z[i] - sum(lower[k][i] * x[k] for k in range(i + 1, n))) / lower[i][i]
    return x


def potential_precision(tensors):
    """The penalties of a fit as a quadratic form of the weights of a linear readout: central differences of alpha at the
    inner pixels, N times their means, and weight decay (einfield/regularization.hpp, host/fit/joint_model.hpp)."""
    kernel, bias = tensors["layers.0.kernel"], tensors["layers.0.bias"]
    features = len(bias)
    place = [(i - (SIZE - 1) / 2) * SCALE for i in range(SIZE)]
    kappas, shapes = [], [[], [], []]
    for f in range(features):
        kx, ky, phase = kernel[f], kernel[features + f], bias[f]
        slope = [[math.cos(kx * x + ky * y + phase) for x in place] for y in place]  # alpha = (kx, ky) slope
        inner = range(1, SIZE - 1)
        xx = [kx * (slope[y][x + 1] - slope[y][x - 1]) / (2 * SCALE) for y in inner for x in inner]
        yy = [ky * (slope[y + 1][x] - slope[y - 1][x]) / (2 * SCALE) for y in inner for x in inner]
        xy = [(kx * (slope[y + 1][x] - slope[y - 1][x]) + ky * (slope[y][x + 1] - slope[y][x - 1])) / (4 * SCALE)
              for y in inner for x in inner]
        kappas.append([(a + b) / 2 for a, b in zip(xx, yy)])
        for shape, h, factor in zip(shapes, (xx, yy, xy), (1, 1, math.sqrt(2))):
            mean = sum(h) / len(h)
            shape.append([factor * (v - mean) for v in h])
    share = SIZE * SIZE / (SIZE - 2)**2
    matrix = [[0.0] * features for _ in range(features)]
    for i in range(features):
        for j in range(i + 1):
            value = PENALTIES["smoothness"] * share * sum(a * b for a, b in zip(kappas[i], kappas[j]))
            value += PENALTIES["curvature"] * share * sum(a * b for s in shapes for a, b in zip(s[i], s[j]))
            matrix[i][j] = matrix[j][i] = value + (PENALTIES["weight_decay"] * SIZE * SIZE / 2 if i == j else 0)
    return matrix


def source_precision():
    """The curvature penalty of the source's pixels: zeros outside the grid."""
    n = SOURCE
    weight = PENALTIES["source_curvature"] / NOISE**2 * SIZE * SIZE / (n * n)
    matrix = [[0.0] * (n * n) for _ in range(n * n)]
    for y in range(n):
        for x in range(n):
            for dx, dy in ((1, 0), (0, 1)):
                ends = [(x - dx, y - dy, 1.0), (x, y, -2.0), (x + dx, y + dy, 1.0)]
                inside = [(v * n + u, c) for u, v, c in ends if 0 <= u < n and 0 <= v < n]
                for i, a in inside:
                    for j, b in inside:
                        matrix[i][j] += weight * a * b
    return matrix


class Prior:
    """Images whose truths are draws of the prior of the fit."""

    def __init__(self, study, free):
        self.study, self.free, self.folder = study, free, pathlib.Path(study.directory)
        self.evaluate("start", {}, None, None)
        self.header, self.tensors = read_network(self.folder / "fit" / "network.safetensors")
        self.potential = cholesky(potential_precision(self.tensors))
        self.source = cholesky(source_precision()) if free == "pixels" else None

    def config(self, name, values, network, fitted):
        """@param fitted  whether it is the fit, else the truth"""
        def block(component):
            lines = []
            for (owner, key), (mean, sigma) in PRIORS.items():
                if owner != component or (component == "source.0" and self.free == "pixels"):
                    continue
                lines.append(f"{key} = {mean if fitted else values.get((owner, key), mean)!r}")
                if fitted and self.free == "smooth":
                    lines.append(f"prior.{key} = {{ mean = {mean}, sigma = {sigma} }}")
            if fitted and self.free == "smooth":
                keys = [key for owner, key in PRIORS if owner == component]
                lines.append(f"fit = {json.dumps(keys)}")
            return "\n".join(lines)

        source = f"{SERSIC}\n{block('source.0')}"
        if self.free == "pixels":
            source = f'profile = "PIXELATED"\nnx = {SOURCE}\nny = {SOURCE}\npixel_scale = {SOURCE_SCALE}\n'
            source += 'fit = ["pixels"]' if fitted else f'image = "{name}_source.fits[SOURCE]"' if network else ""
        penalties = {k: v for k, v in PENALTIES.items() if k != "source_curvature" or (fitted and self.free == "pixels")}
        drawn = f'encoding = "fourier"\nhidden = []\nfourier_features = {FEATURES}\nfourier_scale = 1.0\nensemble = 1\nseed = 5'
        return CONFIG.format(name=name, noise=NOISE, scale=SCALE, lens0=block("lens.0"), lens1=block("lens.1"), source0=source,
                             network=f'initial = "{network}"' if network and not fitted else drawn,
                             steps=60 if fitted else 0, penalties="\n".join(f"{k} = {v}" for k, v in penalties.items()),
                             truth=f'[truth]\nfile = "{name}.fits"' if fitted else "")

    def evaluate(self, name, values, network, source):
        """Renders a model without fitting it. Returns the path of its maps."""
        write_fits(self.folder / f"{name}.fits", {"IMAGE": (1, [0.0] * (SIZE * SIZE))})
        if source:
            write_source(self.folder / f"{name}_source.fits", source)
        path = self.folder / f"{name}.toml"
        path.write_text(self.config(name, values, network, False))
        self.study.settings = []
        self.study.fit(path, ["uncertainty.method=\"none\""], precision="double")
        return self.folder / "fit" / "result.fits"

    def image(self, number):
        """Simulates an image and fits it. Returns the coverage of the fit."""
        rng = random.Random(1000 + number)
        self.tensors["layers.1.kernel"] = draw(self.potential, rng)
        self.tensors["layers.1.bias"] = [0.0]
        write_network(self.folder / "truth.safetensors", self.header, self.tensors)
        values = {key: rng.gauss(*prior) for key, prior in PRIORS.items()} if self.free == "smooth" else {}
        source = draw(self.source, rng) if self.source else None
        maps = self.evaluate("truth", values, "truth.safetensors", source)
        clean = list(read_map(maps, "MODEL"))
        write_fits(self.folder / "image.fits",
                   {"IMAGE": (1, [v + rng.gauss(0, NOISE) for v in clean]), "IMAGE_TRUE": (1, clean),
                    "PSI_TRUE": (1, read_map(maps, "PSI_NN")), "ALPHA_TRUE": (2, read_map(maps, "ALPHA_NN")),
                    "KAPPA_TRUE": (1, read_map(maps, "KAPPA_NN"))})
        path = self.folder / "image.toml"
        path.write_text(self.config("image", values, None, True))
        self.study.settings = []
        return self.study.fit(path, precision="double")


def write_source(path, pixels):
    global SIZE
    size, SIZE = SIZE, SOURCE
    write_fits(path, {"SOURCE": (1, pixels)})
    SIZE = size


class Fixed:
    """Images of an example with other noise."""

    def __init__(self, study, example, lines=()):
        self.study, self.example, self.lines = study, example, lines

    def image(self, number):
        settings = [f"simulate.seed={100 + number}"]
        return self.study.fit(self.study.simulate(self.example, settings, self.lines))


CASES = {"prior_fixed": lambda study: Prior(study, "nothing"), "prior_smooth": lambda study: Prior(study, "smooth"),
         "prior_pixels": lambda study: Prior(study, "pixels"), "sie": lambda study: Fixed(study, "sie_noisy"),
         "shear": lambda study: Fixed(study, "shear_noisy"), "subhalo": lambda study: Fixed(study, "subhalo"),
         "random_field": lambda study: Fixed(study, "random_field"), "multipole": lambda study: Fixed(study, "multipole")}
FIELDS = (("ψ", "psi"), ("α_x", "alpha_x"), ("α_y", "alpha_y"), ("κ", "kappa_psf"))


class Fits(Study):
    """Fits with a method of error bars."""

    def __init__(self, einfield, directory, changes, method):
        super().__init__(einfield, directory)
        self.fit_changes, self.method = list(changes), method

    def fit(self, path, settings=(), resume=False, precision="single"):
        method = [f'uncertainty.method="{self.method}"']
        out = pathlib.Path(self.directory) / "fit"
        changes = [] if 'uncertainty.method="none"' in settings else self.fit_changes
        self.call("fit", path, "--out", out, "--overwrite", "--quiet", "--backend", "cpu", "--precision", precision,
                  *flags(method + self.settings + changes + list(settings)))
        return json.loads((out / "result.json").read_text())


def pooled(shares, rng):
    """The mean over images, and the interval of means over images drawn with replacement that holds 68 %."""
    mean = sum(shares) / len(shares)
    means = sorted(sum(rng.choice(shares) for _ in shares) / len(shares) for _ in range(1000))
    return f"{100 * mean:.0f} [{100 * means[160]:.0f}, {100 * means[840]:.0f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("einfield", help="path of the command einfield")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; without one, all")
    parser.add_argument("--images", type=int, default=20, help="images of each case (default: 20)")
    parser.add_argument("--method", default="laplace", choices=("spread", "laplace", "randomized"))
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="changes")
    args = parser.parse_args()
    for case in args.cases:
        if case not in CASES:
            parser.error(f"no case {case}, expected one of {', '.join(CASES)}")
    table("truths", "where", "images", "reduced χ²",
          *(f"{symbol}: {k} σ [%]" for symbol, _ in FIELDS for k in (1, 2)))
    for case in args.cases or CASES:
        with tempfile.TemporaryDirectory() as directory:
            images = CASES[case](Fits(str(pathlib.Path(args.einfield).resolve()), directory, args.changes, args.method))
            results = [images.image(i) for i in range(args.images)]
        chi2 = sum(result["metrics"]["chi2_reduced"] for result in results) / len(results)
        for where, name in (("arc", "arcs"), ("all", "field")):
            rng = random.Random(7)
            cells = []
            for _, field in FIELDS:
                for k in ("1_sigma", "2_sigma"):
                    shares = [result["uncertainty"]["coverage"].get(f"{field}_{where}", {}).get(k) for result in results]
                    shares = [share for share in shares if share is not None]
                    cells.append(pooled(shares, rng) if shares else "–")
            row(case, name, str(len(results)), f"{chi2:.3f}", *cells)


if __name__ == "__main__":
    main()

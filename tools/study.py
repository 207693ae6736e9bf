#!/usr/bin/env python3
"""The studies behind the tables in docs/studies.md and examples/README.md. Each prints a Markdown table.
`--set SECTION.KEY=VALUE` changes the recipe of all fits of a study.

    tools/study.py EINFIELD robustness       ten systems that are hard for a network: sharp sources, small perturbers
    tools/study.py EINFIELD stopping         the automatic stop, compared with the best one, which needs the truth
    tools/study.py EINFIELD rules            other stopping rules
    tools/study.py EINFIELD too_long         twenty times as many steps as the automatic stop takes
    tools/study.py EINFIELD calibration      how often the truth lies within the scatter of an ensemble
    tools/study.py EINFIELD options          one change at a time to the default recipe: its cost and its effect
    tools/study.py EINFIELD free_source      a source of free pixels: strengths by evidence, and strengths set by hand
"""
import argparse
import array
import csv
import json
import math
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


def images_of(path):
    """Header and bytes of every HDU of a FITS file that einfield wrote."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        cards = {}
        while "END" not in cards:
            for i in range(at, at + 2880, 80):
                card = data[i:i + 80].decode("ascii")
                value = card[10:].strip()
                cards[card[:8].strip()] = value[1:].split("'")[0].strip() if value.startswith("'") else value.split("/")[0].strip()
            at += 2880
        axes = [int(cards[f"NAXIS{i + 1}"]) for i in range(int(cards["NAXIS"]))]
        size = math.prod(axes) * abs(int(cards["BITPIX"])) // 8 if axes else 0
        yield cards, data[at:at + size]
        at += -(-size // 2880) * 2880


def read_map(path, name):
    """The pixels of a two-dimensional image that einfield wrote, row by row."""
    for cards, pixels in images_of(path):
        if cards.get("EXTNAME") == name:
            values = array.array({"8": "B", "-32": "f", "-64": "d"}[cards["BITPIX"]], pixels)
            if sys.byteorder == "little":
                values.byteswap()
            return values
    raise SystemExit(f"{path}: no {name}")


def flags(settings):
    """Command-line arguments for settings "section.key=value"; the last setting of a key wins."""
    values = dict(setting.split("=", 1) for setting in settings)
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


class Study:
    def __init__(self, einfield, directory, changes=()):
        self.einfield, self.directory, self.changes = einfield, directory, list(changes)

    def call(self, *arguments):
        # No figures: gnuplot is not on this path.
        done = subprocess.run([self.einfield, *map(str, arguments)], capture_output=True, text=True,
                              env={"PATH": str(self.directory)})
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout

    def simulate(self, example, settings, lines=()):
        """Simulates an example with the default recipe and other settings. Returns the path of the configuration."""
        path = pathlib.Path(self.directory) / f"{example}.toml"
        path.write_text((EXAMPLES / f"{example}.toml").read_text().replace('recipe = "biggio2021"', 'recipe = "default"')
                        + "\n".join(lines))
        self.settings = list(settings)
        self.call("simulate", path, "--overwrite", *flags(self.changes + self.settings))
        return path

    def fit(self, path, settings=(), resume=False):
        out = pathlib.Path(self.directory) / "fit"
        self.call("fit", path, "--out", out, "--resume" if resume else "--overwrite", "--quiet", "--backend", "cpu",
                  *flags(self.changes + self.settings + list(settings)))
        with open(out / "history.csv") as file:
            start = next(csv.DictReader(file))
        return json.loads((out / "result.json").read_text()) | {"start_chi2": float(start["chi2_reduced"])}


PENALTIES = ("smoothness", "curvature", "negative_convergence", "negative_total_convergence")


def table(*columns):
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|", flush=True)


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def percent(value):
    return f"{100 * value:.2g} %" if value < 0.995 else f"{100 * value:.0f} %"


def errors(result):
    metrics = result["metrics"]
    return [metrics[f"{field}_relative_rms_{where}"] for field in ("psi", "alpha") for where in ("arc", "all")]


def robustness(study):
    """Random hard systems: cuspy and small sources, fine pixels, perturbers of 0.07 arcsec on the ring."""
    table("n", "R_sersic", "pixel", "perturber", "χ² without it", "χ²", "model − truth, of σ", "ψ, arcs", "ψ, field", "α, arcs",
          "steps")
    draw = random.Random(2021)
    for i in range(10):
        n, radius = (3.0, 0.4) if i < 3 else (round(draw.uniform(1.5, 4), 2), round(draw.uniform(0.15, 0.6), 2))
        pixel = 0.05 if i % 2 == 0 else 0.08
        theta_e = 0.07 if i % 3 == 0 else round(draw.uniform(0.05, 0.2), 3)
        x, y = draw.choice([(1.9, -0.4), (1.2, 1.1), (-1.6, 0.5), (0.2, -1.7), (1.9, -1.4)])
        settings = [f"observation.pixel_scale={pixel}", f"simulate.nx={round(8 / pixel)}", f"simulate.ny={round(8 / pixel)}",
                    f"source.0.n_sersic={n}", f"source.0.R_sersic={radius}",
                    f"source.0.center_x={draw.uniform(-0.3, 0.4):.3f}", f"source.0.center_y={draw.uniform(-0.3, 0.3):.3f}",
                    f"perturbation.0.theta_E={theta_e}", f"perturbation.0.center_x={x}", f"perturbation.0.center_y={y}",
                    f"simulate.seed={i + 1}"]
        result = study.fit(study.simulate("sie_noisy", settings))
        metrics = result["metrics"]
        row(f"{n:g}", f"{radius:g}″", f"{pixel}″", f"{theta_e:g}″ at ({x}, {y})", f"{result['start_chi2']:.2f}",
            f"{metrics['chi2_reduced']:.3f}", f"{metrics['image_rms_over_sigma']:.2f}", *map(percent, errors(result)[:3]),
            str(result["steps"]))


def noisy(study, example, level, seed):
    """Settings of an example with this noise: its σ, or the rms of its background."""
    key = "noise" if example in ("sie_noisy", "shear_noisy") else "background_rms"
    settings = [f"simulate.{key}={float(level)}", f"simulate.seed={seed}"]
    return study.simulate(example, settings + [f"observation.noise={float(level)}"] * (key == "noise"))


def after_steps(study, path):
    """The metrics after every number of STEPS."""
    return [study.fit(path, [f"optimizer.steps={n}", 'optimizer.stop="none"'], resume=n > STEPS[0])["metrics"] for n in STEPS]


def stopping(study):
    """Error of the state that stop = "plateau" chose, relative to the best state after one of STEPS (which needs the truth), and
    the same for the number of steps that is best for all noises of the system. Medians over the noises."""
    table("system", "noise", "steps, automatic", *(f"{region}: {cell}" for region in ("arcs", "field")
                                                   for cell in ("ψ", "above the best", "best steps", "above, same steps for all")))
    for example, levels in (("sie_noisy", (1, 2, 4)), ("shear_noisy", (1, 2, 4)), ("subhalo", (0.5, 1, 2)),
                            ("random_field", (0.5, 1, 2))):
        for level in levels:
            chosen, states = [], []
            for seed in SEEDS:
                path = noisy(study, example, level, seed)
                chosen.append(study.fit(path))
                states.append(after_steps(study, path))
            cells = [str(statistics.median(result["steps"] for result in chosen))]
            for metric in ("psi_relative_rms_arc", "psi_relative_rms_all"):
                here = [result["metrics"][metric] for result in chosen]
                after = [[state[metric] for state in noise] for noise in states]
                best = [min(noise) for noise in after]
                above = [statistics.median(a / b - 1 for a, b in zip(column, best)) for column in [here, *zip(*after)]]
                cells += [percent(statistics.median(here)), percent(above[0]),
                          ", ".join(str(STEPS[noise.index(b)]) for noise, b in zip(after, best)), percent(min(above[1:]))]
            row(example, str(level), *cells)


RULES = {"plateau, patience 30": (), "plateau, patience 15": ("optimizer.patience=15",),
         **{f"held out, patience {n}": ('optimizer.stop="heldout"', f"optimizer.patience={n}") for n in (30, 60, 100)},
         "discrepancy": ('optimizer.stop="chi2"',)}


def rules(study):
    """Steps, and the error of ψ in the arcs relative to the best of STEPS; medians over the noises."""
    systems = (("sie_noisy", 2), ("shear_noisy", 2), ("subhalo", 1), ("random_field", 2))
    table("rule", *(f"{example}, {level}" for example, level in systems))
    cells = {rule: [] for rule in RULES}
    for example, level in systems:
        found = {rule: [] for rule in RULES}
        for seed in SEEDS:
            path = noisy(study, example, level, seed)
            best = min(state["psi_relative_rms_arc"] for state in after_steps(study, path))
            for rule, settings in RULES.items():
                result = study.fit(path, settings)
                found[rule].append((result["steps"], result["metrics"]["psi_relative_rms_arc"] / best - 1))
        for rule, fits in found.items():
            steps, above = map(statistics.median, zip(*fits))
            cells[rule].append(f"{steps}: {percent(above)}")
    for rule, columns in cells.items():
        row(rule, *columns)


def too_long(study):
    """The automatic stop, and twenty times as many steps, with the recipe's regularization and without; medians."""
    table("system", "regularization", "steps", "ψ, arcs", "ψ, field", "α, arcs", "α, field")
    for example in ("sie_noisy", "shear_noisy"):
        for regularization in ("the recipe's", "none"):
            rows = []
            for seed in SEEDS:
                settings = [f"regularization.{key}=0.0" for key in PENALTIES] if regularization == "none" else []
                path = study.simulate(example, settings + [f"simulate.seed={seed}"])
                short = study.fit(path)
                long = study.fit(path, [f"optimizer.steps={20 * short['steps']}", 'optimizer.stop="none"'])
                rows.append([[result["steps"], *errors(result)] for result in (short, long)])
            short, long = ([statistics.median(column) for column in zip(*results)] for results in zip(*rows))
            row(example, regularization, str(short[0]), *map(percent, short[1:]))
            row(example, regularization, str(long[0]), *(f"{percent(b)} ({b / a:.2f}×)" for a, b in zip(short[1:], long[1:])))


def calibration(study):
    """Share of pixels in which the mean is within the ensemble's scatter of the truth."""
    table("system", "members", "ψ, arcs: 1 σ", "2 σ", "α_x, arcs: 1 σ", "2 σ", "α_x, field: 1 σ", "2 σ")
    for example in ("sie_noisy", "shear_noisy", "subhalo"):
        for members in (3, 10):
            settings = [f"network.ensemble={members}", 'uncertainty.method="spread"']
            coverage = study.fit(study.simulate(example, settings))["uncertainty"]["coverage"]
            row(example, str(members), *(percent(coverage[region][f"{k}_sigma"])
                                         for region in ("psi_arc", "alpha_x_arc", "alpha_x_all") for k in (1, 2)))


CHANGES = [
    (), ("network.ensemble=1",), ("optimizer.patience=20",), ("optimizer.memory=20",), ('network.encoding="none"',),
    ("network.fourier_scale=2.0",), ("network.fourier_scale=1.0",), ("network.hidden=[24,24,24]",),
    ("network.hidden=[64,64,64]", "network.ensemble=1", "network.fourier_scale=2.0"), ('network.last_layer="random"',),
    ("regularization.curvature=0.0",), ("regularization.smoothness=0.0",), ("regularization.negative_convergence=0.0",),
    ("regularization.negative_total_convergence=0.0",), tuple(f"regularization.{key}=0.0" for key in PENALTIES)]


def options(study):
    """Medians over three noises. The mark is a reduced χ² of that of the noise + 0.02, for one network."""
    table("change", "ψ, arcs", "ψ, field", "α, arcs", "κ, arcs", "steps to the mark", "evaluations")
    for change in CHANGES:
        rows = []
        for seed in SEEDS:
            path = study.simulate("sie_noisy", [f"simulate.seed={seed}"])
            image, true = (read_map(path.with_suffix(".fits"), name) for name in ("IMAGE", "IMAGE_TRUE"))
            mark = sum(((a - b) / 2.0)**2 for a, b in zip(image, true)) / len(image) + 0.02
            one = [c for c in change if not c.startswith(("network.ensemble", "optimizer.patience"))] + ["network.ensemble=1"]
            to_mark = study.fit(path, one + ['optimizer.stop="chi2"', f"optimizer.stop_chi2={mark}"])
            result = study.fit(path, change)
            metrics = result["metrics"]
            rows.append([metrics[f"psi_relative_rms_{where}"] for where in ("arc", "all")] +
                        [metrics["alpha_relative_rms_arc"], metrics["kappa_rms_arc"], to_mark["steps"], result["evaluations"]])
        psi, field, alpha, kappa, mark_steps, evaluations = map(statistics.median, zip(*rows))
        name = "no regularization" if len(change) == len(PENALTIES) else ", ".join(f"`{c}`" for c in change) or "none"
        row(name, percent(psi), percent(field), percent(alpha), f"{kappa:.3f}",
            f"{mark_steps:.0f}", f"{evaluations:.0f}")


FREE_SOURCE = """[observation]
image = "{name}.fits[IMAGE]"
noise = "{name}.fits[NOISE]"
psf = {{ fwhm = 0.0875, size = 9 }}
pixel_scale = 0.04375
region = [{{ shape = "annulus", inner = 0.45, outer = 1.6 }}]
[[lens]]
profile = "SIE"
theta_E = 1.006
e1 = 0.11
e2 = 0.0
[[lens]]
profile = "SHEAR"
gamma1 = 0.03
gamma2 = 0.0
{source}
[network]
[truth]
file = "{name}.fits"
"""
SIMULATED = """[simulate]
nx = 80
ny = 80
noise = {noise}
seed = {seed}
[[perturbation]]
{perturbation}
"""
PIXELS = '[[source]]\nprofile = "PIXELATED"\nnx = 60\nny = 60\npixel_scale = 0.02\nfit = ["pixels"]'
RANDOM_FIELD = 'profile = "GAUSSIAN_RANDOM_FIELD"\nvariance = 4.3e-5\nslope = 5\nseed = {}'
BY_HAND = ["regularization.automatic=false", "regularization.smoothness=20", "regularization.curvature=7",
           "regularization.source_curvature=0.3", "regularization.source_contrast=1", "network.frequencies=\"normal\"",
           "network.fourier_features=64", "network.fourier_scale=1.0"]


def clumps(*numbers):
    return "\n".join(f'[[source]]\nprofile = "GAUSSIAN"\namp = {amp}\nsigma = {sigma}\ncenter_x = {x}\ncenter_y = {y}'
                     for amp, sigma, x, y in numbers)


def random_clumps(seed):
    draw = random.Random(seed)
    return clumps(*((round(draw.uniform(0.15, 0.5), 3), round(draw.uniform(0.035, 0.09), 3), round(draw.gauss(0, 0.15), 3),
                     round(draw.gauss(0.05, 0.15), 3)) for _ in range(5)))


def without_plane(values, places):
    """The values minus their best plane, which a free source can take up."""
    rows = [(1.0, x, y) for x, y in places]
    matrix = [[sum(r[i] * r[j] for r in rows) for j in range(3)] + [sum(r[i] * v for r, v in zip(rows, values))] for i in range(3)]
    for i in range(3):
        matrix[i] = [a / matrix[i][i] for a in matrix[i]]
        for j in range(3):
            if j != i:
                matrix[j] = [a - matrix[j][i] * b for a, b in zip(matrix[j], matrix[i])]
    plane = [m[3] for m in matrix]
    return [v - sum(p * a for p, a in zip(plane, r)) for r, v in zip(rows, values)]


def potential_error(study, path, size):
    """rms of psi - truth over rms of the truth in the used pixels, both without mean and plane."""
    result = pathlib.Path(study.directory) / "fit" / "result.fits"
    found, used = read_map(result, "PSI_NN"), read_map(result, "MASK")
    true = read_map(path.with_suffix(".fits"), "PSI_TRUE")
    places = [(i % size, i // size) for i in range(len(true)) if used[i]]
    error = without_plane([f - t for f, t, u in zip(found, true, used) if u], places)
    return math.sqrt(sum(e * e for e in error) / sum(t * t for t in without_plane([t for t, u in zip(true, used) if u], places)))


def spiral():
    """A bulge and two arms of small clumps."""
    arms = [(round(0.18 * math.exp(-turn / 3), 3), 0.03 + 0.006 * (k % 3), round((0.05 + 0.05 * turn) * math.cos(turn + side), 3),
             round(0.05 + (0.05 + 0.05 * turn) * math.sin(turn + side), 3))
            for k, turn in enumerate(0.5 + 0.28 * k for k in range(12)) for side in (0, math.pi)]
    return clumps((0.5, 0.06, 0.0, 0.05), *arms)


def free_source_systems():
    """Name of the source, what is missing in the smooth lens, and both as tables."""
    two = clumps((1.0, 0.1, 0.05, 0.1), (0.6, 0.08, -0.15, -0.02))
    multipole = 'profile = "MULTIPOLE"\nm = 4\na_m = {}\nphi_m = 0.4'
    perturber = 'profile = "SIE"\ntheta_E = 0.05\ne1 = 0.0\ne2 = 0.1\ncenter_x = 0.8\ncenter_y = -0.55'
    fields = [("two Gaussians", two, 3), ("two Gaussians", two, 8), ("five clumps", random_clumps(1), 5),
              ("five clumps", random_clumps(2), 9), ("five clumps", random_clumps(5), 11), ("five clumps", random_clumps(6), 12),
              ("spiral", spiral(), 13)]
    return [(name, "random field", source, RANDOM_FIELD.format(seed)) for name, source, seed in fields] + [
        ("two Gaussians", "multipole of 0.06″", two, multipole.format(0.06)),
        ("five clumps", "multipole of 0.02″", random_clumps(7), multipole.format(0.02)),
        ("five clumps", "SIE of 0.05″", random_clumps(3), perturber)]


def free_source(study):
    """A field of 3.5 arcsec, the source 60 x 60 free pixels: the default recipe, whose strengths come from the evidence, and
    strengths set by hand, the best of a study with one source and one random field. psi: see potential_error()."""
    table("source", "missing", "noise", "χ²", "ψ", "ln evidence", "smoothness, curvature, source_curvature", "steps",
          "by hand: χ²", "ψ", "ln evidence")
    for i, (name, missing, source, perturbation) in enumerate(free_source_systems()):
        for noise in (0.19, 0.38, 0.76):
            path = pathlib.Path(study.directory) / "system.toml"
            path.write_text(FREE_SOURCE.format(name="system", source=source) +
                            SIMULATED.format(noise=noise, seed=i + 1, perturbation=perturbation))
            study.settings = []
            study.call("simulate", path, "--overwrite", *flags(study.changes))
            path.write_text(FREE_SOURCE.format(name="system", source=PIXELS))
            cells = []
            for settings in ([], BY_HAND):
                result = study.fit(path, settings)
                metrics, evidence = result["metrics"], result["evidence"]
                weights = evidence["regularization"]
                cells += [f"{metrics['chi2_reduced']:.3f}", percent(potential_error(study, path, 80)),
                          f"{evidence['log_evidence']:.1f}"]
                if not settings:
                    cells += [", ".join(f"{weights[k]:.3g}" for k in ("smoothness", "curvature", "source_curvature")),
                              str(result["steps"])]
            row(name, missing, str(noise), *cells)


SEEDS = (1, 2, 3)
STEPS = [20, 30, 45, 65, 100, 150, 220, 330, 500]
STUDIES = {study.__name__: study for study in (robustness, stopping, rules, too_long, calibration, options, free_source)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("einfield", help="path of the command einfield")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="changes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        STUDIES[args.study](Study(str(pathlib.Path(args.einfield).resolve()), directory, args.changes))

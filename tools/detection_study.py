#!/usr/bin/env python3
"""How often `einfield detect` finds a perturber, and how often it finds one that is not there.

    tools/detection_study.py EINFIELD OUT --lenses 400 [--jobs 2]     makes and searches what is missing, then the table
    tools/detection_study.py EINFIELD OUT --table                     the table only

OUT gets one folder per lens. Killed and started again, the command continues where it was; one lens takes about 40 s of processor time.

The lenses (z 0.2 and 0.6): EPL with theta_E 0.9 to 1.5 arcsec, gamma 2.0 +- 0.1, q 0.6 to 1, shear up to 0.08; sources of a
Sersic (n = 1, R 0.1 to 0.25 arcsec) and three to six clumps; 80 x 80 pixels of 0.05 arcsec, PSF of 0.1 arcsec (FWHM), a peak of 15
to 40 sigma. Every second lens has a perturber: an NFW of log M200 8.5 to 10.5 with the concentration of Duffy et al. (2008, MNRAS 390,
L64, table 1, full sample, M200), at 0.6 to 1.4 theta_E from the center. Independently, every second lens has a multipole m = 4 of 0 to
1.5 % in any direction. The fit has EPL, shear and 40 x 40 source pixels; it starts up to 2 % from the truth. The score of a lens is by how
much an SIS beside multipoles raises ln evidence above multipoles alone; a lens without candidates has 0. One threshold for all: the score
that 10 % of the lenses without a perturber exceed.
"""
import argparse
import concurrent.futures
import json
import math
import pathlib
import random
import subprocess

from study import read_map

Z_LENS, Z_SOURCE, H0, OM0 = 0.2, 0.6, 70.0, 0.3
KPC_PER_ARCSEC = 3.30  # at z = 0.2
NEAR = 0.16  # arcsec
FALSE = 0.10


def distance(z1, z2, steps=2000):
    """Angular diameter distance in a flat universe [Mpc]."""
    h = (z2 - z1) / steps
    total = sum(h / math.sqrt(OM0 * (1 + z1 + (i + 0.5) * h) ** 3 + 1 - OM0) for i in range(steps))
    return 299792.458 / H0 * total / (1 + z2)


def critical_density():
    """[solar masses per kpc^2]"""
    d_l, d_s, d_ls = distance(0, Z_LENS), distance(0, Z_SOURCE), distance(Z_LENS, Z_SOURCE)
    return 1.6629e18 * d_s / (d_l * d_ls) / 1e6  # c^2/(4 pi G) in solar masses per Mpc


def nfw(log_mass):
    """Rs and alpha_Rs [arcsec] and the projected mass within 1 kpc [solar masses]."""
    mass = 10**log_mass
    concentration = 5.71 * (mass * H0 / 100 / 2e12) ** -0.084 * (1 + Z_LENS) ** -0.47
    rho_crit = 2.775e-7 * H0**2 / 1e4 * 1e9 * (OM0 * (1 + Z_LENS) ** 3 + 1 - OM0)  # solar masses per kpc^3
    r200 = (3 * mass / (800 * math.pi * rho_crit)) ** (1 / 3)
    rs = r200 / concentration
    rho_s = mass / (4 * math.pi * rs**3 * (math.log(1 + concentration) - concentration / (1 + concentration)))
    kappa_s = rho_s * rs / critical_density()

    def projected(x):  # of 4 pi rho_s rs^3 (Bartelmann 1996)
        if x < 1:
            return math.log(x / 2) + math.acosh(1 / x) / math.sqrt(1 - x * x)
        return math.log(x / 2) + math.acos(1 / x) / math.sqrt(x * x - 1)

    rs_arcsec = rs / KPC_PER_ARCSEC
    return rs_arcsec, 4 * kappa_s * rs_arcsec * (1 + math.log(0.5)), 4 * math.pi * rho_s * rs**3 * projected(1 / rs)


def ellipticity(rng, least):
    q, phi = rng.uniform(least, 1), rng.uniform(0, math.pi)
    e = (1 - q) / (1 + q)
    return e * math.cos(2 * phi), e * math.sin(2 * phi)


def component(block, profile, free=None, **values):
    lines = [f"[[{block}]]", f'profile = "{profile}"'] + [f"{k} = {v:.6g}" for k, v in values.items()]
    return "\n".join(lines + ([f"fit = {json.dumps(free)}"] if free else [])) + "\n"


def lens(k, folder):
    """Writes truth.toml and lens.toml; returns what is true."""
    rng = random.Random(k)
    theta_e, (e1, e2) = rng.uniform(0.9, 1.5), ellipticity(rng, 0.6)
    gamma, shear, angle = rng.gauss(2, 0.1), rng.uniform(0, 0.08), rng.uniform(0, math.pi)
    g1, g2 = shear * math.cos(2 * angle), shear * math.sin(2 * angle)
    x, y = rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15)
    true = {"perturber": k % 2 == 0, "multipole": rng.uniform(0, 0.015) if (k // 2) % 2 == 0 else 0.0, "theta_E": theta_e}
    observation = ('psf = { fwhm = 0.1, size = 9 }\npixel_scale = 0.05\nsupersampling = 2\n')
    light = component("source", "SERSIC_ELLIPSE", amp=10, R_sersic=rng.uniform(0.1, 0.25), n_sersic=1, center_x=x, center_y=y,
                      **dict(zip(("e1", "e2"), ellipticity(rng, 0.5))))
    for _ in range(rng.randint(3, 6)):
        light += component("source", "GAUSSIAN", amp=rng.uniform(0.05, 0.3), sigma=rng.uniform(0.02, 0.05),
                           center_x=x + rng.gauss(0, 0.12), center_y=y + rng.gauss(0, 0.12))
    more = ""
    if true["multipole"] > 0:
        more += component("perturbation", "MULTIPOLE", m=4, a_m=true["multipole"] * theta_e, phi_m=rng.uniform(0, math.pi))
    if true["perturber"]:
        true["log_mass"] = rng.uniform(8.5, 10.5)
        rs, alpha, true["mass_1_kpc"] = nfw(true["log_mass"])
        r, phi = theta_e * rng.uniform(0.6, 1.4), rng.uniform(0, 2 * math.pi)
        true["x"], true["y"] = r * math.cos(phi), r * math.sin(phi)
        more += component("perturbation", "NFW", Rs=rs, alpha_Rs=alpha, center_x=true["x"], center_y=true["y"])
    macro = component("lens", "EPL", theta_E=theta_e, gamma=gamma, e1=e1, e2=e2) + component("lens", "SHEAR", gamma1=g1, gamma2=g2)
    true["peak"] = rng.uniform(15, 40)
    (folder / "truth.toml").write_text(f'[observation]\nimage = "data.fits"\n{observation}{macro}{light}'
                                       f"[simulate]\nnx = 80\nny = 80\nnoise = {true.get('noise', 1.0):g}\nseed = {k + 1}\n{more}")

    def off(value):
        return value * (1 + rng.uniform(-0.02, 0.02))

    start = component("lens", "EPL", ["theta_E", "gamma", "e1", "e2", "center_x", "center_y"], theta_E=off(theta_e),
                      gamma=2, e1=off(e1), e2=off(e2))
    start += ("[lens.prior]\ngamma = { mean = 2.0, sigma = 0.15 }\n"
              "e1 = { mean = 0.0, sigma = 0.15 }\ne2 = { mean = 0.0, sigma = 0.15 }\n")
    start += component("lens", "SHEAR", ["gamma1", "gamma2"], gamma1=off(g1), gamma2=off(g2))
    start += "[lens.prior]\ngamma1 = { mean = 0.0, sigma = 0.05 }\ngamma2 = { mean = 0.0, sigma = 0.05 }\n"
    (folder / "lens.toml").write_text(
        f'recipe = "galaxy"\n[observation]\nimage = "data.fits[IMAGE]"\nnoise = "data.fits[NOISE]"\n{observation}'
        f'[[observation.region]]\nshape = "annulus"\ninner = 0.35\nouter = {theta_e + 0.55:.3f}\n{start}'
        '[[source]]\nprofile = "PIXELATED"\nnx = 40\nny = 40\nfit = ["pixels"]\n'
        f"[cosmology]\nz_lens = {Z_LENS}\nz_source = {Z_SOURCE}\n"
        '[[optimizer.stage]]\nname = "gauss_newton"\nsteps = 300\n')
    return true


def run(einfield, *words):
    subprocess.run([einfield, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def search(einfield, out, k):
    folder = out / f"{k:04d}"
    row = folder / "row.json"
    if row.exists():
        return json.loads(row.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    true = lens(k, folder)
    # The noise follows from the peak of the image: simulated once without noise.
    config = folder / "truth.toml"
    run(einfield, "simulate", config, "--overwrite", "--set", "simulate.noise=0.001")
    peak = max(read_map(folder / "data.fits", "IMAGE"))
    run(einfield, "simulate", config, "--overwrite", "--set", f"simulate.noise={peak / true['peak']:.6g}")
    run(einfield, "detect", folder / "lens.toml", "--out", folder / "detect", "--nulls", 0, "--injections", 0, "--threads", 1,
        "--overwrite", "--quiet")
    found = json.loads((folder / "detect/detect.json").read_text())
    row.write_text(json.dumps({"k": k, "true": true, "found": found}))
    return {"k": k, "true": true, "found": found}


def score_of(row):
    gains = {a["name"]: a["evidence_gain"] for a in reversed(row["found"]["alternatives"])}
    both, bare = gains.get("SIS and multipoles 3 and 4"), gains.get("multipoles 3 and 4")
    return max(both - bare, 0.0) if both is not None and bare is not None else 0.0


def interval(n, of):
    """68 % interval of a share (Wilson)."""
    if of == 0:
        return "-"
    p, z2 = n / of, 1.0
    middle, half = (p + z2 / (2 * of)) / (1 + z2 / of), math.sqrt(p * (1 - p) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return f"{100 * p:.0f} % [{100 * (middle - half):.0f}, {100 * (middle + half):.0f}] of {of}"


def table(rows):
    empty = sorted((score_of(r) for r in rows if not r["true"]["perturber"]), reverse=True)
    threshold = empty[int(FALSE * len(empty))] if empty else 0.0
    print(f"{len(rows)} lenses, {len(empty)} without a perturber; threshold: the SIS raises ln evidence by {threshold:.1f}\n")
    print("| log M200 | found | within 0.16 arcsec of the truth, of those found |\n| --- | --- | --- |")
    near_all, shifts = [], []
    for low, high in ((8.5, 9), (9, 9.5), (9.5, 10), (10, 10.5)):
        here = [r for r in rows if r["true"]["perturber"] and low <= r["true"]["log_mass"] < high]
        found = [r for r in here if score_of(r) > threshold]
        near = []
        for r in found:
            sis = next(a for a in r["found"]["alternatives"] if a["name"] == "SIS and multipoles 3 and 4")["added"][-1]
            at = math.hypot(sis["center_x"]["value"] - r["true"]["x"], sis["center_y"]["value"] - r["true"]["y"])
            near.append(at < NEAR)
            if at < NEAR:
                shifts.append(math.log10(sis["mass_within_1_kpc"] / r["true"]["mass_1_kpc"]))
        near_all += near
        print(f"| {low} to {high} | {interval(len(found), len(here))} | {interval(sum(near), len(near))} |")
    print(f"\nwithin {NEAR} arcsec, all masses: {interval(sum(near_all), len(near_all))}")
    if shifts:
        mean = sum(shifts) / len(shifts)
        scatter = math.sqrt(sum((s - mean) ** 2 for s in shifts) / len(shifts))
        print(f"mass within 1 kpc, found and near: {mean:+.2f} dex, scatter {scatter:.2f} dex ({len(shifts)})")
    for name, chosen in (("without multipoles", [r for r in rows if r["true"]["multipole"] == 0]),
                         ("with a multipole of 0 to 1.5 %", [r for r in rows if r["true"]["multipole"] > 0])):
        none = [r for r in chosen if not r["true"]["perturber"]]
        print(f"false, {name}: {interval(sum(score_of(r) > threshold for r in none), len(none))}; "
              f"called found by detect itself: {interval(sum(r['found']['found'] for r in none), len(none))}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("einfield")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--lenses", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only the lenses that are there")
    options = parser.parse_args()
    if options.table:
        rows = [json.loads(p.read_text()) for p in sorted(options.out.glob("*/row.json"))]
    else:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            rows = list(pool.map(lambda k: search(options.einfield, options.out, k), range(options.lenses)))
    table(rows)


if __name__ == "__main__":
    main()

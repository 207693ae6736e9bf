#!/usr/bin/env python3
"""Runs the two problems of this folder, which other projects defined (README.md).

    compare.py EINFIELD forward                  # the brightest pixel of the image beside that of lenstronomy
    compare.py EINFIELD starts [--fits 10]       # how often fits from many starts find the lens

`forward` ends with status 1 if the two differ by more than 1e-6. Needs Python and this source tree.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))
from study import read_map  # noqa: E402

LENSTRONOMY = 0.11256600509921973  # the output of the notebook for lenstronomy, and for jaxtronomy


def run(einfield, *arguments):
    subprocess.run([einfield, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def forward(einfield, folder, _):
    run(einfield, "simulate", folder / "forward.toml")
    peak = max(read_map(folder / "forward.fits", "IMAGE_TRUE"))
    difference = peak / LENSTRONOMY - 1
    print(f"brightest pixel: einfield {peak:.9f}, lenstronomy {LENSTRONOMY:.9f}, relative difference {difference:.1e}")
    return 0 if abs(difference) < 1e-6 else 1


def starts(einfield, folder, fits):
    print("| fit | reduced chi2 | theta_E | its sigma | starts that reached the best chi2 |")
    print("| --- | --- | --- | --- | --- |")
    found, reached, total = 0, 0, 0
    for fit in range(fits):
        run(einfield, "simulate", folder / "starts.toml", "--overwrite", "--set", f"simulate.seed={fit + 1}")
        run(einfield, "fit", folder / "starts.toml", "--overwrite", "--out", folder / "fit", "--set", "lens.0.theta_E=1.2",
            "--set", f"optimizer.starts_seed={fit + 1}")
        result = json.loads((folder / "fit" / "result.json").read_text())
        chi2, theta_e = result["metrics"]["chi2_reduced"], result["parameters"]["lens.0.theta_E"]
        sigma = result["uncertainties"]["sigma"]["lens.0.theta_E"]
        count, hits = result["starts"]["count"], result["starts"]["reached_best"]
        found += abs(theta_e - 1.6) < 5 * sigma
        reached, total = reached + hits, total + count
        print(f"| {fit + 1} | {chi2:.4f} | {theta_e:.4f} | {sigma:.4f} | {hits} of {count} |")
    print(f"\n{found} of {fits} fits end within 5 sigma of theta_E = 1.6")
    print(f"{reached} of {total} starts reach the best chi2 of their fit")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("einfield")
    parser.add_argument("problem", choices=["forward", "starts"])
    parser.add_argument("--fits", type=int, default=10)
    arguments = parser.parse_args()
    einfield = shutil.which(arguments.einfield) or sys.exit(f"{arguments.einfield} is no command")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copy(HERE / f"{arguments.problem}.toml", folder)
        return {"forward": forward, "starts": starts}[arguments.problem](einfield, folder, arguments.fits)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Are the stated uncertainties right? Simulates a lens many times with new noise, fits each image, and counts how often
the true parameters lie within 1 and 2 sigma of the fitted ones.

    tools/mocks.py build/cpu/einfield examples/mocks.toml [--mocks 100] [--start KEY=VALUE]...

The configuration is simulated as it is. The fit starts from the same values; --start changes them.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile
import tomllib


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("einfield")
    parser.add_argument("configuration", type=pathlib.Path)
    parser.add_argument("--mocks", type=int, default=100)
    parser.add_argument("--start", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()

    configuration = tomllib.loads(arguments.configuration.read_text())
    deviations, chi2 = {}, []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copy(arguments.configuration, folder / "lens.toml")

        def run(command, *settings):
            subprocess.run([pathlib.Path(arguments.einfield).resolve(), command, folder / "lens.toml", *settings],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           env={"PATH": ""})  # no figures: gnuplot is not on this path

        for mock in range(arguments.mocks):
            run("simulate", "--overwrite", "--set", f"simulate.seed={mock + 1}")
            settings = [part for setting in arguments.start for part in ("--set", setting)]
            run("fit", "--overwrite", "--out", folder / "fit", *settings)
            result = json.loads((folder / "fit" / "result.json").read_text())
            chi2.append(result["metrics"]["chi2_reduced"])
            for name, sigma in result["uncertainties"]["sigma"].items():
                block, index, parameter = name.split(".")
                truth = configuration[block][int(index)].get(parameter, 0)
                deviations.setdefault(name, []).append((result["parameters"][name] - truth) / sigma)

    print(f"{len(chi2)} mocks, reduced chi2 {sum(chi2) / len(chi2):.4f}")
    print("| parameter | within 1 sigma | within 2 sigma | mean deviation | rms deviation |")
    print("| --- | --- | --- | --- | --- |")
    everything = [d for values in deviations.values() for d in values]
    for name, values in [*deviations.items(), ("all", everything)]:
        one, two = (sum(abs(d) <= limit for d in values) / len(values) for limit in (1, 2))
        mean = sum(values) / len(values)
        rms = (sum(d * d for d in values) / len(values)) ** 0.5
        print(f"| `{name}` | {one:.0%} | {two:.0%} | {mean:+.2f} | {rms:.2f} |")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Fits every lens of a directory with the same command, and compares the Einstein radii with published ones.

    tools/known_lenses.py EINFIELD DIRECTORY OUT [--threads N] [--only NAME ...] [-- further options of einfield fit]

DIRECTORY has one folder per lens with data.fits, noise_map.fits, psf.fits and, if there is one, mask.fits, and a README.md
with a table whose first column is the name of the folder. Its columns whose titles begin with "b_SIE" and "Cao" hold a
number, and a number with an interval in parentheses. Each lens is fitted by `einfield fit data.fits …` without a
configuration, in DIRECTORY's pixel scale (--pixel-scale, 0.05 without it). A fit is right when theta_E is within 5 % of
the first number or inside the interval, and wrong when it is beyond 10 % of both numbers. The radius is that of
the circle with the area of the critical curve, or theta_E of the SIE where that curve is not closed in the image. Where a
network has been fitted (further options: --network), the last column is how much it raises the evidence.
"""
import argparse
import json
import os
import re
import resource
import subprocess
import sys


def published(directory):
    """{name: (b_SIE, (median, lower, upper) or None)} from the table of README.md."""
    titles, found = None, {}
    with open(os.path.join(directory, "README.md"), encoding="utf-8") as text:
        for line in text:
            if not line.startswith("|"):
                titles = None
                continue
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if titles is None:
                titles = cells
                continue
            row = dict(zip(titles, cells))
            number = next((v for k, v in row.items() if k.startswith("b_SIE")), "")
            other = next((v for k, v in row.items() if k.startswith("Cao")), "")
            if not re.fullmatch(r"[0-9.]+", number):
                continue
            parts = re.findall(r"[0-9.]+", other)
            interval = tuple(float(p) for p in parts[:3]) if len(parts) >= 3 else None
            found[cells[0]] = (float(number), interval)
    return found


def fit(options, name):
    folder, out = os.path.join(options.directory, name), os.path.join(options.out, name)
    command = [options.einfield, "fit", os.path.join(folder, "data.fits"), "--noise",
               os.path.join(folder, "noise_map.fits"), "--psf", os.path.join(folder, "psf.fits"), "--pixel-scale",
               str(options.pixel_scale), "--threads", str(options.threads), "--overwrite", "--out", out]
    if os.path.exists(os.path.join(folder, "mask.fits")):
        command += ["--mask", os.path.join(folder, "mask.fits")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command + options.more, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with open(os.path.join(options.out, name + ".log"), "w", encoding="utf-8") as log:
        log.write(done.stdout + done.stderr)
    try:
        with open(os.path.join(out, "result.json"), encoding="utf-8") as file:
            return json.load(file), seconds, done.returncode
    except OSError:
        return None, seconds, done.returncode


def gain(result):
    """How much a network raises the evidence; "–" without one."""
    evidence = result.get("evidence") or {}
    without = evidence.get("log_evidence_without_network")
    return "–" if without is None else f"{evidence['log_evidence'] - without:+.1f}"


def judge(theta, b_sie, interval):
    """("right", "near" or "wrong", deviations from both in percent)."""
    off = [100 * (theta / b_sie - 1)]
    inside = False
    if interval:
        off.append(100 * (theta / interval[0] - 1))
        inside = interval[1] <= theta <= interval[2]
    if inside or abs(off[0]) <= 5:
        return "right", off
    return ("wrong" if all(abs(d) > 10 for d in off) else "near"), off


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("einfield")
    parser.add_argument("directory")
    parser.add_argument("out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pixel-scale", type=float, default=0.05)
    parser.add_argument("--only", nargs="+", default=[])
    words = sys.argv[1:]
    more = words[words.index("--") + 1:] if "--" in words else []
    options = parser.parse_args(words[:words.index("--")] if "--" in words else words)
    options.more = more
    os.makedirs(options.out, exist_ok=True)
    known = published(options.directory)
    if not known:
        sys.exit(f"{options.directory}/README.md: no table with names and b_SIE, expected one")
    count = {"right": 0, "near": 0, "wrong": 0, "failed": 0}
    unflagged = []
    print("| lens | theta_E | published | off by | verdict | chi2 | status | flags | CPU s | ln evidence of the network |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (b_sie, interval) in known.items():
        if options.only and name not in options.only:
            continue
        result, seconds, code = fit(options, name)
        text = f"{b_sie:.2f}" + (f"; {interval[0]:.3f} ({interval[1]:.3f} to {interval[2]:.3f})" if interval else "")
        if result is None:
            count["failed"] += 1
            print(f"| {name} | – | {text} | – | no result (exit {code}) | – | – | – | {seconds:.0f} | – |", flush=True)
            continue
        theta = result["einstein_radius_effective"] or result["parameters"]["lens.0.theta_E"]
        verdict, off = judge(theta, b_sie, interval)
        count[verdict] += 1
        flags = [flag["name"] for flag in result["flags"]]
        if verdict == "wrong" and result["status"] == "ok":
            unflagged.append(name)
        print(f"| {name} | {theta:.3f} | {text} | {', '.join(f'{d:+.1f} %' for d in off)} | {verdict} | "
              f"{result['metrics']['chi2_reduced']:.3f} | {result['status']} | {', '.join(dict.fromkeys(flags)) or 'none'} | "
              f"{seconds:.0f} | {gain(result)} |", flush=True)
    print(f"\n{count['right']} right, {count['near']} near, {count['wrong']} wrong, {count['failed']} without a result; "
          f"wrong without a flag: {', '.join(unflagged) or 'none'}")


if __name__ == "__main__":
    main()

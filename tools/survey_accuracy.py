#!/usr/bin/env python3
"""How good the table of a simulated survey is: bias, scatter and coverage of its parameters, and whether what is wrong has
a flag.

    einfield simulate --survey 2000 --out sim
    einfield batch run sim/survey.ecsv --template sim/lens.toml --out fits
    einfield batch collect fits --out fits.ecsv
    tools/survey_accuracy.py fits.ecsv sim/truth.ecsv

Needs Python 3 only.
"""
import csv
import math
import statistics
import sys

FAILURE = 0.05  # of theta_E: a lens that is further off has failed


def read(path):
    with open(path, encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(line for line in file if not line.startswith("#"))}


def number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def summary(name, pairs):
    """One line: median of value - truth, its scatter, and how many truths lie within 1, 2 and 3 sigma."""
    errors = [value - true for value, _, true, _ in pairs]
    pulls = [abs(value - true) / sigma for value, sigma, true, _ in pairs if sigma > 0]
    if not errors or not pulls:
        return f"| {name} | 0 | | | | | |"
    middle = statistics.median(errors)
    scatter = 1.4826 * statistics.median(abs(e - middle) for e in errors)
    within = [sum(p < n for p in pulls) / len(pulls) for n in (1, 2)]
    # The interval of the table, which is not symmetric.
    within.append(sum(lower < true < upper for _, sigma, true, (lower, upper) in pairs if sigma > 0) / len(pulls))
    return f"| {name} | {len(errors)} | {middle:+.2g} | {scatter:.2g} | " + " | ".join(f"{w:.1%}" for w in within) + " |"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    table, truth = read(sys.argv[1]), read(sys.argv[2])
    rows = [(table[i], true) for i, true in truth.items() if i in table and table[i]["status"] != "unfinished"]
    print(f"{len(rows)} of {len(truth)} lenses are finished")
    broken = [(row, true) for row, true in rows if true["broken"]]
    for row, true in broken:
        print(f"broken: {row['id']}: {true['broken']}: {row['status']} ({row['flag_names']})")
    good = [(row, true) for row, true in rows if not true["broken"]]
    failed = [row for row, true in good
              if not abs(number(row["lens.0.theta_E"]) / number(true["lens.0.theta_E"]) - 1) < FAILURE]
    unflagged = [row["id"] for row in failed if row["status"] == "ok"]
    unflagged += [row["id"] for row, _ in broken if row["status"] == "ok"]
    print(f"theta_E off by more than {FAILURE:.0%}: {len(failed)} of {len(good)}; wrong or broken without a flag: "
          f"{len(unflagged)} {' '.join(unflagged)}")
    names = [name for name in next(iter(truth.values())) if name.startswith("lens.")]
    for title, chosen in (("status ok, no subhalo", lambda row, true: row["status"] == "ok" and true["perturber"] == "0"),
                          ("status ok, with a subhalo", lambda row, true: row["status"] == "ok" and true["perturber"] != "0"),
                          ("suspect", lambda row, true: row["status"] == "suspect")):
        some = [(row, true) for row, true in good if chosen(row, true)]
        print(f"\n{title}: {len(some)} lenses\n")
        print("| parameter | lenses | bias | scatter | within 1 sigma | within 2 sigma | within 3 sigma |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name in names:
            pairs = [(number(row[name]), number(row[name + "_err"]), number(true[name]),
                      (number(row[name + "_lower3"]), number(row[name + "_upper3"]))) for row, true in some if name in row]
            print(summary(name, [p for p in pairs if math.isfinite(p[0])]))
    if unflagged:
        sys.exit(1)


if __name__ == "__main__":
    main()

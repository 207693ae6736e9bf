"""Times the same work by einfield and its peers, which take turns in one run, after checking that they agree. Called by run.sh.

Every code is a process that holds the problem; in each round every process does a few steps while the others wait, so that
whatever else the machine does hits all alike. The first step of a turn warms the caches and is not counted. No time is
printed for codes whose losses and gradients (or images) disagree: that is an error.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
STEP_PEERS = {"jax": "peer_jax.py", "herculens": "peer_jax.py", "torch": "peer_torch.py"}
FORWARD_PEERS = {name: "peer_forward.py" for name in ("lenstronomy", "herculens", "jaxtronomy")}
# Rounding in sums of 10⁴ pixels and 200 channels; measured 1e-7 to 2e-5 in float32, 1e-13 to 1e-8 in float64 (the rest is the
# core of the SIE, which the peers do not have).
LOSS_TOLERANCE = {"float32": 1e-5, "float64": 1e-6}
RESULT_TOLERANCE = {"float32": 2e-4, "float64": 1e-5}


class Peer:
    """A process that answers "time N"."""

    def __init__(self, name, command, threads):
        self.name, self.times, self.peak_mb = name, [], 0.0
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
            environment[f"{library}_NUM_THREADS"] = str(threads)
        environment["JAX_PLATFORMS"] = "cpu"
        processors = set(sorted(os.sched_getaffinity(0))[:threads])  # XLA starts as many threads as it may use processors
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: os.sched_setaffinity(0, processors))
        self.ready = self.answer()

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"{self.name}: ended with status {self.process.wait()}")

    def turn(self, steps, clock):
        self.process.stdin.write(f"time {steps + 1}\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.times += answer[clock][1:]
        self.peak_mb = answer["peak_mb"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def check(peers, directory, dtype):
    """Differences from einfield: loss, and gradient or image (root of the sum of squares, relative)."""
    ours = np.fromfile(f"{directory}/einfield.f64")
    for peer in peers:
        loss, reference = peer.ready["loss"], peers[0].ready["loss"]
        peer.loss_error = abs(loss - reference) / reference if loss else 0.0  # a forward model has no loss
        theirs = np.fromfile(f"{directory}/{peer.name}.f64")
        peer.error = np.linalg.norm(theirs - ours) / np.linalg.norm(ours)
        if not (peer.loss_error <= LOSS_TOLERANCE[dtype] and peer.error <= RESULT_TOLERANCE[dtype]):
            sys.exit(f"{peer.name} disagrees: loss by {peer.loss_error:.1e}, result by {peer.error:.1e}")


def compare(options, kind, n, width, threads):
    """One row of the table."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([options.einfield, "export", directory, str(n), str(width)], check=True)
        peers = [Peer("einfield", [options.einfield, kind, directory, options.dtype, str(threads)], threads)]
        for name, script in (STEP_PEERS if kind == "step" else FORWARD_PEERS).items():
            if not options.codes or name in options.codes:
                peers.append(Peer(name, [sys.executable, f"{HERE}/{script}", directory, "--name", name, "--dtype",
                                         options.dtype, "--threads", str(threads)], threads))
        check(peers, directory, options.dtype)
        first = time.perf_counter()
        while len(peers[0].times) < options.rounds * 2 and time.perf_counter() - first < options.seconds:
            for peer in peers:
                time.sleep(0.02)  # the worker threads of the previous code fall asleep
                peer.turn(2 if kind == "step" else 20, options.clock)
        for peer in peers:
            peer.close()
    return peers


def row(label, peers):
    ours = np.median(peers[0].times)
    cells = [label, f"**{ours:.3g}**"]
    for peer in peers[1:]:
        median = np.median(peer.times)
        cells.append(f"{median:.3g} ({median / ours:.2f}×)")
    cells.append(f"{np.quantile(peers[0].times, 0.25):.3g}–{np.quantile(peers[0].times, 0.75):.3g}")
    cells.append(" / ".join(f"{peer.peak_mb:.0f}" for peer in peers))
    cells.append(f"{max(p.loss_error for p in peers):.0e}, {max(p.error for p in peers):.0e}")
    return "| " + " | ".join(cells) + " |"


def table(title, rows):
    peers = rows[0][1]
    names = [peer.name for peer in peers]
    versions = ", ".join(f"{peer.name} {peer.ready['version']}" for peer in peers)
    heading = ["", *(f"{name} [ms]" for name in names), "einfield, quartiles [ms]", f"peak MB: {' / '.join(names)}",
               "greatest difference: loss, result"]
    lines = [f"{title} ({versions}). Medians; in brackets how many times einfield's.", "", "| " + " | ".join(heading) + " |",
             "|" + " --- |" * len(heading)]
    return "\n".join(lines + [row(label, peers) for label, peers in rows])


def processor():
    with open("/proc/cpuinfo") as file:
        return next((line.split(": ")[1].strip() for line in file if line.startswith("model name")), platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--einfield", required=True, help="the binary einfield_peer")
    parser.add_argument("--kinds", nargs="+", choices=["step", "forward"], default=["step", "forward"])
    parser.add_argument("--sizes", nargs="*", type=int, default=[50, 100, 200, 400], help="pixels a side, at width 200")
    parser.add_argument("--widths", nargs="*", type=int, default=[64, 128, 200, 256], help="at 100 pixels a side")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, len(os.sched_getaffinity(0)))}))
    parser.add_argument("--codes", nargs="+", help="peers to run (default: all)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: processor time, for a busy machine; one thread only")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=120, help="limit for one row")
    parser.add_argument("--out", help="file for the table")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads != [1]:
        parser.error("--clock cpu: threads that wait for each other use processor time too, expected --threads 1")

    cases = [(100, width) for width in options.widths] + [(n, 200) for n in options.sizes if n != 100]
    text = [f"{processor()}, {platform.system()}, {options.dtype}, {options.clock} time, {time.strftime('%Y-%m-%d')}, load average before "
            f"{os.getloadavg()[0]:.2f}; `bench/peers/run.sh {' '.join(sys.argv[3:])}`"]
    if "step" in options.kinds:
        rows = []
        for n, width in cases:
            for threads in options.threads:
                label = f"{n}² pixels, width {width}, {threads} thread{'s' if threads > 1 else ''}"
                rows.append((label, compare(options, "step", n, width, threads)))
                print(row(*rows[-1]), file=sys.stderr, flush=True)
        text.append(table("One training step: forward, gradient, Adam", rows))
    if "forward" in options.kinds:
        rows = []
        for n in sorted({100, 200} & {100, *options.sizes}):
            for threads in options.threads:
                label = f"{n}² pixels, {threads} thread{'s' if threads > 1 else ''}"
                rows.append((label, compare(options, "forward", n, 1, threads)))
                print(row(*rows[-1]), file=sys.stderr, flush=True)
        text.append(table("The forward model alone: SIE, Sérsic, PSF", rows))
    result = "\n\n".join(text)
    print(result)
    if options.out:
        with open(options.out, "w") as file:
            file.write(result + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Estimates the time of CUDA kernels from counters, for cards that nobody has at hand. Not a measurement.

The counters come from a virtual CUDA device: JSON with, per kernel, launches, blocks, instructions by class, shared-
memory wavefronts, sectors, distinct bytes and barriers. They are those of PTX. Prints a Markdown table: one row per
kernel, the sum per step, and with --evaluations the time of a whole fit.

The time of a kernel is the SUM of phases where one block fills a multiprocessor, as with the network: its warps meet
at barriers, so that phases do not overlap. With b blocks on a multiprocessor at a time, the phases beside the longest
one count 1/b. All counts are those of the busiest multiprocessor: work per block times ceil(blocks /
multiprocessors). The phases:

  math      the largest of: instructions at 4 a clock; fp32 instructions on their units; fp64 likewise; products of
            the matrix units at the rate that mma.sync reaches; and the longest chain, one clock per multiply-add and
            two per other instruction of one warp. A multiply-add counts as `ports` instructions where the register
            file has one port of 32 lanes per bank (see KNOWN; --no-ports leaves that out)
  special   exponentials, reciprocals and roots at 16 lanes a clock
  shared    wavefronts at one a clock, less those that multiply-adds hide: at most 3/4 of a wavefront per clock of
            products
  memory    loads: the largest of sectors over the bandwidth of L2; sectors over 64 bytes a clock and multiprocessor;
            distinct bytes over 85 % of the bandwidth of DRAM; and the latency: loads of a warp, four in flight, each
            a trip to L2, and one to DRAM per round of blocks. Stores, and the asynchronous copies of the network's
            weights, only as far as math does not hide them
  barriers  40 clocks each, per round of blocks
  launch    per node of a graph 1.5 us to start and drain, and 1 us to the next; 5 us for a launch without a graph

The counters must be those of the card in question: other numbers of multiprocessors and bytes of shared memory get
other tiles.

What this does not know: instruction fetch of code larger than its cache (0 to 60 us a step for the network kernels of
three layers of 200, each block of which runs most of 120 to 220 KB once), imbalance within a block beyond KNOWN,
clocks that fall under load, what ptxas makes of PTX beyond KNOWN, and libraries (cuFFT, cuBLAS: 3/4 of the fp32 peak,
or L2). How far an estimate is off is unknown: none has been compared with a card.
"""
import argparse
import json
import math
import re
import sys
from dataclasses import dataclass, replace

# Gaps and latencies, the same for every card. Orders of magnitude of published microbenchmarks (Luo et al. 2024,
# arXiv 2402.13499: L2 about 260 clocks, DRAM 480 to 800, shared memory 30; graph nodes 1 to 2 us apart).
NODE_START_US, NODE_GAP_US, DIRECT_LAUNCH_US = 1.5, 1.0, 5.0
L2_LATENCY, DRAM_LATENCY, BARRIER = 270, 700, 40
LOADS_IN_FLIGHT = 4
HIDDEN_WAVEFRONTS = 0.75
DRAM_SHARE = 0.85
L2_PORT = 64  # bytes a clock and multiprocessor


@dataclass(frozen=True)
class Card:
    """Rates per multiprocessor and clock unless said otherwise.

    Multiprocessors, clocks, memory bandwidth, TF32 rates: NVIDIA's white papers and data sheets (A100 2020, H100 2022, Ada
    2022, H200 2024, Blackwell 2024). Lanes per clock: CUDA C++ Programming Guide, "Throughput of Native Arithmetic
    Instructions". Bandwidth of L2: measured by others (Chips and Cheese 2023 for A100, H100 and Ada), B200 a guess.
    mma_share, what mma.sync reaches of the data sheet's rate: Luo et al. 2024 (H100 62 %, A100 and Ada above 95 %); B200
    assumed as H100, since only tcgen05 has its full rate.
    """

    name: str
    multiprocessors: int
    clock_ghz: float
    fp32_lanes: int
    fp64_lanes: int
    tf32_flop: int
    mma_share: float
    l2: float  # bytes/s of the card
    dram: float  # bytes/s of the card
    shared_bytes: int
    threads: int
    one_port: bool  # see KNOWN; an A100 issues a multiply-add over two clocks, which two ports serve


CARDS = {
    "h100": Card("H100 SXM", 132, 1.755, 128, 64, 2048, 0.62, 5.5e12, 3.35e12, 233472, 2048, True),
    "h200": Card("H200", 132, 1.755, 128, 64, 2048, 0.62, 5.5e12, 4.8e12, 233472, 2048, True),
    "a100": Card("A100 SXM 80 GB", 108, 1.41, 64, 32, 1024, 0.95, 4.0e12, 2.04e12, 167936, 2048, False),
    "rtx4090": Card("RTX 4090", 128, 2.52, 128, 2, 256, 0.95, 5.0e12, 1.008e12, 102400, 1536, True),
    "b200": Card("B200", 148, 1.755, 128, 64, 2048, 0.62, 7.0e12, 8.0e12, 233472, 2048, True),
}


@dataclass(frozen=True)
class Known:
    """What the counters of PTX cannot show, read off the machine code (nvcc 13.0, sm_90)."""

    kernel: str  # pattern of the name
    ports: float  # clocks of a multiply-add whose registers come from two banks with one port each
    imbalance: float  # busiest warp scheduler over the average
    resident: int  # blocks of a multiprocessor, by registers


# ports: Huerta et al. 2025 (arXiv 2503.20481) found two banks with one read port each. Loops of the products read 299
# registers of one bank for 256 multiply-adds; in the adjoint 318, and 791 for the 640 of a gradient.
# Narrow tiles: assumed as the products of the wide ones.
# imbalance: fragments of 25 eights of channels over 8 warps give schedulers 0 seven of them, on average 6.25.
KNOWN = (
    Known(r"tiled::network_(adjoint_)?kernel<.*Tile<float, \d+, \d+, [^>]*[12][,>]", 1.0, 1.12, 1),
    Known(r"tiled::network_(adjoint_)?kernel<.*Tile<float, \d+, \d+, [^>]*true>", 299 / 256, 1.0, 2),
    Known(r"tiled::network_kernel<.*Tile<float", 299 / 256, 1.0, 1),
    Known(r"tiled::network_adjoint_kernel<.*Tile<float", (2 * 318 / 256 + 2 * 791 / 640) / 4, 1.0, 1),
    Known(r"tiled::network_(adjoint_)?kernel<.*Tile<double", 1.0, 1.0, 1),
)
# A conversion is several instructions (cvt.rna.tf32: 4) or runs on 16 lanes.
SLOTS = {"convert": 4}
FP32 = ("fp32_add", "fp32_mul", "fp32_fma")
FP64 = ("fp64_add", "fp64_mul", "fp64_fma")
PHASES = ("math", "special", "shared", "memory", "barriers", "launch")


def known(name):
    """What is known of a kernel, or neutral factors."""
    return next((k for k in KNOWN if re.search(k.kernel, name)), Known("", 1.0, 1.0, 32))


def estimate(kernel, card, clock_ghz):
    """Microseconds of each phase for all launches of a kernel, as they add up, and the share of the multiprocessors in use."""
    launches, blocks = kernel["launches"], max(1, kernel["blocks"] // kernel["launches"])
    classes = kernel["warp_instructions_by_class"]
    k = known(kernel["name"])
    ports = k.ports if card.one_port else 1.0
    on_busiest = math.ceil(blocks / card.multiprocessors)
    threads = max(32, kernel["threads"] // (launches * blocks))
    warps = math.ceil(threads / 32)
    shared = kernel.get("shared_dynamic_bytes", 0) + kernel.get("shared_static_bytes", 0)
    resident = max(1, min(card.threads // threads, card.shared_bytes // (shared + 1024), k.resident))
    rounds = math.ceil(blocks / (card.multiprocessors * resident))

    def busiest(count):  # per launch
        return count / launches / blocks * on_busiest

    def total(names):
        return sum(classes.get(name, 0) for name in names)

    fma = classes.get("fp32_fma", 0)
    slots = sum(SLOTS.get(name, 1) * count for name, count in classes.items()) + (ports - 1) * fma
    per_warp = (sum(classes.values()) * 2 - fma) / launches / blocks / warps
    math_clocks = max(
        busiest(slots) * k.imbalance / 4,
        busiest(total(FP32) + (ports - 1) * fma) * 32 / card.fp32_lanes,
        busiest(total(FP64)) * 32 / card.fp64_lanes,
        busiest(kernel.get("flops_mma", 0)) * k.imbalance / (card.tf32_flop * card.mma_share),
        per_warp * rounds)
    special = busiest(classes.get("special", 0)) * 2
    wavefronts = busiest(kernel["shared_load"]["wavefronts"] + kernel["shared_store"]["wavefronts"])
    product_clocks = max(busiest(fma) * 32 / card.fp32_lanes,
                         busiest(kernel.get("flops_mma", 0)) / (card.tf32_flop * card.mma_share))
    exposed = max(0.0, wavefronts - HIDDEN_WAVEFRONTS * product_clocks)

    us = 1e-3 / clock_ghz  # a clock
    loads, stores = kernel["global_load"], kernel["global_store"]

    def bandwidth(sector_bytes, distinct_bytes):
        return max(sector_bytes / launches / card.l2 * 1e6, busiest(sector_bytes) / L2_PORT * us,
                   distinct_bytes / launches / (DRAM_SHARE * card.dram) * 1e6)

    # Every block of the network reads all weights, by copies that no register takes part in: what is read again beyond the
    # distinct bytes is theirs.
    all_loads = max(1, loads["bytes_transferred"])
    again = max(0, all_loads - kernel["distinct_bytes_read"]) if "tiled::network" in kernel["name"] else 0
    requests = loads["requests"] * (1 - again / all_loads) / launches / blocks / warps
    waiting = max(bandwidth(loads["bytes_transferred"] - again, kernel["distinct_bytes_read"]),
                  rounds * (math.ceil(requests / LOADS_IN_FLIGHT) * L2_LATENCY + DRAM_LATENCY) * us)
    hidden = bandwidth(again, 0) + bandwidth(stores["bytes_transferred"], kernel["distinct_bytes_written"])
    barriers = kernel.get("barriers", 0) / launches / blocks / warps * BARRIER * rounds

    once = {"math": math_clocks * us, "special": special * us, "shared": exposed * us, "barriers": barriers * us,
            "memory": waiting + max(0.0, hidden - math_clocks * us)}
    at_a_time = min(resident, on_busiest)
    longest = max(once, key=once.get)
    times = {phase: value * launches / (1 if phase == longest else at_a_time) for phase, value in once.items()}
    in_graph = kernel.get("launches_in_graphs", 0)
    times["launch"] = in_graph * (NODE_START_US + NODE_GAP_US) + (launches - in_graph) * DIRECT_LAUNCH_US
    return times, blocks / (card.multiprocessors * on_busiest)


def short(name):
    """The kernel's name without namespaces, arguments and template arguments that say nothing."""
    name = re.sub(r"^void ", "", name)
    name = re.sub(r"\(anonymous namespace\)::", "", name)
    name = re.sub(r"\(.*$", "", name)
    return re.sub(r"<.*$", "", name).split("::")[-1]


def table(report, card, clock_ghz, steps, extra_nodes):
    """Lines of Markdown, and microseconds of one step."""
    head = ("kernel", "launches", "blocks", "fill") + PHASES + ("sum, µs",)
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    sums = dict.fromkeys(PHASES, 0.0)
    rows = []
    for kernel in report["kernels"]:
        times, fill = estimate(kernel, card, clock_ghz)
        for phase in PHASES:
            sums[phase] += times[phase] / steps
        rows.append((sum(times.values()) / steps, kernel, times, fill))
    for us, kernel, times, fill in sorted(rows, key=lambda row: -row[0]):
        cells = [f"`{short(kernel['name'])}`", f"{kernel['launches'] / steps:g}", f"{kernel['blocks'] // kernel['launches']}",
                 f"{fill:.2f}"] + [f"{times[phase] / steps:.1f}" for phase in PHASES] + [f"{us:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    for call in report.get("library_calls") or []:
        peak = card.multiprocessors * card.fp32_lanes * 2 * clock_ghz * 1e9
        us = max(call.get("flops", 0) / (0.75 * peak), call.get("bytes", 0) / card.l2) * 1e6 + call["calls"] * NODE_START_US
        sums["math"] += us / steps
        lines.append(f"| {call['function']} (library) | {call['calls'] / steps:g} | | | {us / steps:.1f}" + " |" * 6 +
                     f" {us / steps:.1f} |")
    sums["launch"] += extra_nodes * (NODE_START_US + NODE_GAP_US)
    step = sum(sums.values())
    lines.append("| **a step** | | | | " + " | ".join(f"{sums[phase]:.1f}" for phase in PHASES) + f" | **{step:.1f}** |")
    return lines, step


def positive(text):
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}, expected a number > 0")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", help="JSON with the counters of a run")
    parser.add_argument("--card", default="h100", choices=CARDS)
    parser.add_argument("--clock", type=positive, help="GHz; default: that of the card's data sheet, 1.755 for H100 and H200")
    parser.add_argument("--no-ports", action="store_true", help="without the limit of register ports, which H100 may not have")
    parser.add_argument("--steps", type=positive, default=1, help="steps or evaluations in the report")
    parser.add_argument("--nodes", type=float, default=1, help="memsets and copies of a step, which are no kernels (default 1)")
    parser.add_argument("--evaluations", type=positive, help="also print the time of this many")
    parser.add_argument("--host", type=float, default=0, help="microseconds of the host per evaluation, where it decides")
    arguments = parser.parse_args()
    try:
        with open(arguments.report) as file:
            report = json.load(file)
        card = CARDS[arguments.card]
        if arguments.no_ports:
            card = replace(card, one_port=False)
        clock = arguments.clock or card.clock_ghz
        lines, step = table(report, card, clock, arguments.steps, arguments.nodes)
    except OSError as error:
        sys.exit(f"estimate_gpu: {arguments.report}: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"estimate_gpu: {arguments.report}: {error!r}, expected the counters of a virtual device as JSON")
    print(f"{card.name}, {card.multiprocessors} multiprocessors, {clock:g} GHz: estimate by phases, in µs, not measured\n")
    print("\n".join(lines))
    if arguments.evaluations:
        ms = arguments.evaluations * (step + arguments.host) / 1e3
        print(f"\n{arguments.evaluations:g} evaluations: {ms:.1f} ms (estimate; {step:.1f} µs on the card and "
              f"{arguments.host:g} µs of the host each)")


if __name__ == "__main__":
    main()

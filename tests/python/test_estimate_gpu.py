"""tools/estimate_gpu.py: each phase from counters that leave it alone, and the report of a whole step.

step_counters.json is what a virtual device counted for `einfield_one_step cuda float 100 200`, without the members that the
estimate does not read.
"""
import json
import pathlib
import subprocess
import sys
import unittest
from dataclasses import replace

HERE = pathlib.Path(__file__).resolve().parent
TOOL = HERE.parents[1] / "tools" / "estimate_gpu.py"
REPORT = HERE / "step_counters.json"
sys.path.insert(0, str(TOOL.parent))
import estimate_gpu  # noqa: E402

H100 = estimate_gpu.CARDS["h100"]


def kernel(name="k", blocks=132, warps=64, launches=1, classes=None, **more):
    """Counters of a kernel that does nothing else than what is given."""
    nothing = {"requests": 0, "bytes_transferred": 0, "wavefronts": 0}
    return {"name": name, "launches": launches, "launches_in_graphs": launches, "blocks": blocks * launches,
            "threads": blocks * launches * warps * 32, "warp_instructions_by_class": classes or {}, "global_load": nothing,
            "global_store": nothing, "shared_load": nothing, "shared_store": nothing, "distinct_bytes_read": 0,
            "distinct_bytes_written": 0, **more}


def times(*arguments, card=H100, clock=1.0, **named):
    return estimate_gpu.estimate(kernel(*arguments, **named), card, clock)


class Phases(unittest.TestCase):
    def test_instructions_take_the_busiest_multiprocessor(self):
        # 1000 instructions of each of 64 warps at 4 a clock: 16000 clocks, 16 us at 1 GHz; one block more: a second round.
        one, fill = times(classes={"int": 132 * 64 * 1000})
        self.assertAlmostEqual(one["math"], 16.0)
        self.assertAlmostEqual(fill, 1.0)
        two, fill = times(blocks=133, classes={"int": 133 * 64 * 1000})
        self.assertAlmostEqual(two["math"], 32.0)
        self.assertAlmostEqual(fill, 133 / 264)

    def test_a_kernel_of_few_warps_waits_for_its_own_chain(self):
        self.assertAlmostEqual(times(warps=1, classes={"int": 132 * 1000})[0]["math"], 2.0)
        self.assertAlmostEqual(times(warps=1, classes={"fp32_fma": 132 * 1000})[0]["math"], 1.0)

    def test_multiply_adds_wait_for_the_register_ports(self):
        name = "void einfield::cuda::tiled::network_kernel<einfield::cuda::tiled::Tile<float, 5, 16, 0>, false>(x)"
        fma = {"fp32_fma": 132 * 64 * 1000}
        self.assertAlmostEqual(times(name, classes=fma)[0]["math"], 16.0 * 299 / 256)
        a100 = estimate_gpu.CARDS["a100"]  # 64 lanes, whose ports suffice
        self.assertAlmostEqual(times(name, blocks=108, classes={"fp32_fma": 108 * 64 * 1000}, card=a100)[0]["math"], 32.0)

    def test_matrix_units(self):
        flop = 132 * 2048 * 1000
        self.assertAlmostEqual(times(flops_mma=flop)[0]["math"], 1.0 / 0.62)

    def test_special_functions(self):
        self.assertAlmostEqual(times(classes={"special": 132 * 1000})[0]["special"], 2.0)

    def test_products_hide_three_quarters_of_a_wavefront_a_clock(self):
        shared = {"requests": 0, "wavefronts": 132 * 20000}
        alone = times(shared_load=shared)[0]
        self.assertAlmostEqual(alone["shared"], 20.0)
        beside = times(shared_load=shared, classes={"fp32_fma": 132 * 64000})[0]  # 16000 clocks
        self.assertAlmostEqual(beside["shared"], 20.0 - 0.75 * 16)

    def test_memory(self):
        def moved(megabytes, distinct):
            load = {"requests": 0, "bytes_transferred": megabytes * 10**6}
            return times(global_load=load, distinct_bytes_read=distinct * 10**6)[0]["memory"]

        self.assertAlmostEqual(moved(0, 0), 0.7)  # a trip to DRAM
        self.assertAlmostEqual(moved(0, 3350), 1e3 / 0.85)
        self.assertAlmostEqual(moved(1000, 0), 1e9 / 5.5e6)
        one = times(blocks=1, global_load={"requests": 0, "bytes_transferred": 10**6})[0]
        self.assertAlmostEqual(one["memory"], 1e6 / 64e3)  # 64 bytes a clock and multiprocessor
        load = {"requests": 132 * 64 * 40, "bytes_transferred": 1}
        self.assertAlmostEqual(times(global_load=load)[0]["memory"], 10 * 0.27 + 0.7)  # 40 loads of a warp, 4 in flight

    def test_blocks_side_by_side_overlap(self):
        # 16 warps a block and 8 blocks on each multiprocessor, 4 of them at a time: 40 us of special functions and a quarter
        # of 16 us of other instructions.
        result = times(blocks=8 * 132, warps=16, classes={"special": 132 * 20000, "int": 132 * 44000})[0]
        self.assertAlmostEqual(result["special"], 40.0)
        self.assertAlmostEqual(result["math"], 4.0)

    def test_registers_limit_the_blocks_of_the_network(self):
        work = {"special": 4 * 132 * 20000, "int": 4 * 132 * 40000}
        name = "void einfield::cuda::tiled::network_kernel<einfield::cuda::tiled::Tile<float, {}>, false>"
        wide = times(name.format("5, 16, (einfield::NetworkMath)0, false"), blocks=4 * 132, warps=8, classes=work)[0]
        narrow = times(name.format("64, 8, (einfield::NetworkMath)0, true"), blocks=4 * 132, warps=8, classes=work)[0]
        self.assertAlmostEqual(wide["math"], 60.0)
        self.assertAlmostEqual(narrow["math"], 30.0)
        self.assertAlmostEqual(narrow["special"], wide["special"])

    def test_barriers_and_launches(self):
        result = times(launches=3, barriers=3 * 132 * 64 * 100)[0]
        self.assertAlmostEqual(result["barriers"], 3 * 4.0)
        self.assertAlmostEqual(result["launch"], 3 * 2.5)
        self.assertAlmostEqual(times(launches_in_graphs=0)[0]["launch"], 5.0)


class WholeStep(unittest.TestCase):
    def run_tool(self, *arguments):
        return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False)

    def test_the_step_of_the_paper(self):
        report = json.loads(REPORT.read_text())
        _, step = estimate_gpu.table(report, H100, 1.755, 1, 1)
        self.assertGreater(step, 250)  # the least that any model of phases gives
        self.assertLess(step, 360)
        _, faster = estimate_gpu.table(report, H100, 1.98, 1, 1)
        self.assertLess(faster, step)
        _, portless = estimate_gpu.table(report, replace(H100, one_port=False), 1.755, 1, 1)
        self.assertGreater(portless, 250)
        self.assertLess(portless, step - 30)
        _, half = estimate_gpu.table(report, H100, 1.755, 2, 0)
        _, whole = estimate_gpu.table(report, H100, 1.755, 1, 0)
        self.assertAlmostEqual(whole, 2 * half)

    def test_the_table_and_the_totals(self):
        done = self.run_tool(REPORT, "--card", "a100", "--clock", "1.2", "--evaluations", "1000", "--host", "10")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertIn("A100 SXM 80 GB, 108 multiprocessors, 1.2 GHz: estimate by phases, in µs, not measured", lines)
        columns = {line.count("|") for line in lines if line.startswith("|")}
        self.assertEqual(len(columns), 1)
        sums = [float(line.split("|")[-2].strip(" *")) for line in lines if line.startswith(("| `", "| **"))]
        self.assertAlmostEqual(sum(sums[:-1]) + 2.5, sums[-1], delta=0.06 * len(sums))  # 2.5: the memset
        self.assertRegex(lines[-1], r"^1000 evaluations: \d+\.\d ms \(estimate; \d+\.\d µs on the card and 10 µs of the host ")

    def test_bad_input_is_one_line(self):
        for arguments in ([HERE / "nowhere.json"], [__file__], [REPORT, "--card", "abacus"], [REPORT, "--clock", "0"]):
            done = self.run_tool(*arguments)
            self.assertNotEqual(done.returncode, 0)
            self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    unittest.main()

"""Memory, import, threads, forks."""

import concurrent.futures
import os
import subprocess
import sys
import threading
import time

import einfield
import numpy as np
from conftest import near, small_model


def resident_kb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_ten_thousand_calls_do_not_grow():
    model = small_model(side=16)
    theta = near(model, 2)
    x, y = np.zeros(5), np.ones(5)

    def calls(n):
        for i in range(n):
            model.value_and_grad(theta[0])
            model.log_prob(theta)
            model.image(theta[1])
            model.residuals(theta[1])
            model.deflection(x, y, theta[0])
            try:
                model.pack({"nothing": i})
            except einfield.InvalidInput:
                pass

    calls(500)
    before = resident_kb()
    calls(2000)
    middle = resident_kb()
    calls(8000)
    # An array of 16 x 16 that is lost in every call would be 20 MB.
    assert resident_kb() - before < 2000, (before, middle, resident_kb())


def test_models_are_freed():
    small_model(side=60).value_and_grad(small_model(side=60).initial)
    before = resident_kb()
    for _ in range(100):
        model = small_model(side=60)
        model.value_and_grad(model.initial)
    assert resident_kb() - before < 8000


def test_import_is_fast_and_light(tmp_path):
    """Beside NumPy, in time of the processor: other processes may be busy."""
    code = ("import numpy, time; t = time.process_time(); import einfield; dt = time.process_time() - t; import sys; "
            "heavy = [m for m in ('jax', 'torch', 'matplotlib', 'tqdm', 'scipy') if m in sys.modules]; print(dt, heavy)")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": str(tmp_path)}
    seconds = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
        dt, heavy = done.stdout.split(" ", 1)
        assert heavy.strip() == "[]"
        seconds.append(float(dt))
    assert min(seconds) < 0.1, seconds


def test_two_threads_use_two_models_at_once():
    models = [small_model(side=40), small_model(side=40, lens=small_lens())]
    points = [near(m, 1)[0] for m in models]
    expected = [m.value_and_grad(p) for m, p in zip(models, points, strict=True)]
    wrong, begun = [], threading.Barrier(2)

    def work(k):
        begun.wait()
        for _ in range(200):
            value, gradient = models[k].value_and_grad(points[k])
            if value != expected[k][0] or not np.array_equal(gradient, expected[k][1]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_threads_may_share_a_model():
    model = small_model(threads=2)
    theta = near(model, 8)
    expected = model.log_prob(theta)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for values in pool.map(lambda i: (i % 8, model.log_prob(theta[i % 8]), model.log_prob(theta)), range(200)):
            assert values[1] == expected[values[0]]
            np.testing.assert_array_equal(values[2], expected)


def test_the_gil_is_released():
    model = small_model(side=60, threads=1)
    batch = np.repeat(model.initial[None], 400, axis=0)
    model.log_prob(batch[:2])
    ticks = []
    worker = threading.Thread(target=lambda: model.value_and_grad(batch))
    worker.start()
    while worker.is_alive():
        ticks.append(time.monotonic())
        time.sleep(0.0005)
    # One call in the other thread, and this one went on meanwhile.
    assert len(ticks) > 10, len(ticks)


FORKING = """
import multiprocessing, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from conftest import near, small_model

def in_child(queue):
    queue.put((model.log_prob(theta), model.log_prob(theta[0])))

model = small_model(threads=2)
theta = near(model, 4)
expected = model.log_prob(theta)
model.log_prob(theta[0])
context = multiprocessing.get_context("fork")
queue = context.Queue()
child = context.Process(target=in_child, args=(queue,), daemon=True)
child.start()
many, one = queue.get(timeout=60)
child.join(60)
assert child.exitcode == 0
np.testing.assert_array_equal(many, expected)
assert one == expected[0]
np.testing.assert_array_equal(model.log_prob(theta), expected)
"""


def test_a_model_works_in_a_forked_process():
    """As in emcee's pools: the threads of the parent do not exist in the child. In a separate process: that of the tests
    may hold JAX, which a fork can stop."""
    here = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run([sys.executable, "-c", FORKING, here], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_the_module_hides_the_names_of_the_library():
    path = einfield._core.__file__
    symbols = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    exported = [line.split()[-1] for line in symbols.splitlines()]
    assert "PyInit__core" in exported
    assert [s for s in exported if "einfield" in s] == []
    assert os.path.getsize(path) < 12e6


def small_lens():
    from conftest import LENS

    return [LENS | {"fit": ["theta_E"]}]

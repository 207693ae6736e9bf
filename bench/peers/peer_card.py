"""The training step of the timed problem in JAX and in PyTorch on a card; called by tools/card.sh.

    peer_card.py DIR jax|torch [--device cpu]

DIR holds what `einfield_peer export` wrote. Times are medians of five turns. Both run in true single precision ("fp32") and
with products in TF32, which is JAX's default on such cards: einfield's `math = "fp32"`, `"tf32x3"` and `"tf32"` compare with the
first two and the last. Prints lines of a Markdown table, with the loss of the first step: all codes must agree on it.
"""
import argparse
import statistics
import time

import numpy as np

import peer

CALLS, TURNS = 50, 5


def timed(run, wait, calls=CALLS):
    """Median milliseconds of a call, `calls` of them in a row."""
    turns = []
    for _ in range(TURNS):
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        wait()
        turns.append((time.perf_counter() - start) * 1e3 / calls)
    return statistics.median(turns)


def report(code, how, ms, loss):
    print(f"| {code}, {how} | {ms:.4f} ms a step; loss {loss:.8g} |", flush=True)


def run_jax(problem):
    import jax
    import jax.numpy as jnp

    n, rate, single = problem.n, problem.learning_rate, jnp.float32
    alpha_x, alpha_y = problem.macro_deflection()
    xi = jnp.asarray(np.stack([problem.x.ravel(), problem.y.ravel()], -1), single)
    beta = jnp.asarray(np.stack([(problem.x - alpha_x).ravel(), (problem.y - alpha_y).ravel()], -1), single)
    data, band = jnp.asarray(problem.image, single), jnp.asarray(problem.banded_psf(), single)
    weights = [(jnp.asarray(kernel, single), jnp.asarray(bias, single)) for kernel, bias in problem.layers]

    def potential(w, z):
        for kernel, bias in w[:-1]:
            z = jax.nn.silu(z @ kernel + bias)
        return (z @ w[-1][0] + w[-1][1])[..., 0]

    def loss(w):
        source = beta - jax.grad(lambda z: potential(w, z).sum())(xi)
        image = problem.sersic(source[:, 0], source[:, 1], jnp).reshape(n, n)
        return jnp.mean((band @ image @ band.T - data) ** 2)

    def adam(state, _):
        w, m, v, t = state
        value, gradient = jax.value_and_grad(loss)(w)
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradient)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradient)
        w = jax.tree.map(lambda w, m, v: w - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), w, m, v)
        return (w, m, v, t), value

    zero = jax.tree.map(jnp.zeros_like, weights)
    for name, precision in (("fp32", "highest"), ("TF32", "tensorfloat32")):
        with jax.default_matmul_precision(precision):
            one = jax.jit(lambda state: adam(state, None))
            many = jax.jit(lambda state: jax.lax.scan(adam, state, None, length=CALLS))
            held = {"state": (weights, zero, zero, jnp.zeros((), single))}
            held["state"], first = one(held["state"])

            def step(call):
                held["state"], _ = call(held["state"])

            wait = lambda: jax.block_until_ready(held["state"])
            code, first = f"JAX {jax.__version__}, {name}", float(first)
            report(code, f"jit, {CALLS} calls in a row", timed(lambda: step(one), wait), first)
            step(many)
            report(code, f"lax.scan of {CALLS} steps", timed(lambda: step(many), wait, 1) / CALLS, first)


def run_torch(problem, device):
    import torch

    tensor = lambda values: torch.as_tensor(np.asarray(values), dtype=torch.float32, device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for name in ("fp32", "TF32"):
        torch.backends.cuda.matmul.allow_tf32 = name == "TF32"
        weights = [tensor(part.copy()).requires_grad_() for layer in problem.layers for part in layer]
        adam = torch.optim.Adam(weights, lr=problem.learning_rate, fused=device == "cuda", capturable=device == "cuda")
        loss = peer.torch_loss(problem, tensor, weights)

        def step():
            adam.zero_grad(set_to_none=False)
            loss().backward(inputs=weights)
            adam.step()

        first = loss().item()
        if device == "cuda":  # steps before a capture run on a stream of their own
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(side)
        code = f"PyTorch {torch.__version__}, {name}"
        report(code, f"{CALLS} calls in a row", timed(step, wait), first)
        if device == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            report(code, "CUDA graph", timed(graph.replay, wait), first)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("code", choices=["jax", "torch"])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a rehearsal")
    args = parser.parse_args()
    problem = peer.Problem(args.directory)
    if args.code == "torch":
        run_torch(problem, args.device)
        return
    import jax

    if args.device == "cuda" and jax.default_backend() != "gpu":
        raise SystemExit(f"peer_card: JAX runs on {jax.default_backend()}, expected gpu: pip install 'jax[cuda13]'")
    run_jax(problem)


main()

"""Shared by the peers: the problem that einfield_peer exports, and the answers to compare.py.

A peer is a process. When it is ready it writes its result (gradient or image) as float64 to DIR/NAME.f64 and prints one
line of JSON; then every request "time N" is answered by N times in milliseconds (on the wall and of all its threads
together) and the peak of its memory.
"""
import argparse
import importlib.metadata
import json
import resource
import sys
import time

import numpy as np


def arguments(implementations):
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--name", choices=implementations, required=True)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


class Problem:
    """The exported problem; positions are (n, n), x along the columns, in arcsec."""

    def __init__(self, directory):
        with open(f"{directory}/problem.json") as file:
            vars(self).update(json.load(file))
        n, size = self.n, self.psf_size
        read = lambda name: np.fromfile(f"{directory}/{name}.f64")
        self.image = read("image").reshape(n, n)
        self.psf = read("psf").reshape(size, size)
        axis = (np.arange(n) - (n - 1) / 2) * self.pixel_scale
        self.x, self.y = np.meshgrid(axis, axis)
        flat, self.layers = read("parameters"), []
        for inputs, outputs in zip([2] + self.hidden, self.hidden + [1]):
            kernel, bias, flat = np.split(flat, [inputs * outputs, (inputs + 1) * outputs])
            self.layers.append((kernel.reshape(inputs, outputs), bias))

    def banded_psf(self):
        """The PSF is an outer product k kᵀ: convolving is B I Bᵀ with B banded, which is the fastest way in XLA and torch."""
        k = self.psf.sum(axis=0)
        assert np.allclose(np.outer(k, k), self.psf, atol=1e-12)
        return sum(k[j] * np.eye(self.n, k=self.psf_size // 2 - j) for j in range(self.psf_size))

    def macro_deflection(self):
        """SIE; the core of 1e-10 arcsec of einfield and lenstronomy moves a ray by less than 1e-8 arcsec."""
        lens = self.lens
        e = np.hypot(lens["e1"], lens["e2"])
        q, phi = (1 - e) / (1 + e), np.arctan2(lens["e2"], lens["e1"]) / 2
        dx, dy = self.x - lens["center_x"], self.y - lens["center_y"]
        c, s, f = np.cos(phi), np.sin(phi), np.sqrt(1 - q * q)
        u, v = c * dx + s * dy, c * dy - s * dx
        psi, b = np.sqrt(q * q * u * u + v * v), lens["theta_E"] * np.sqrt(q) / f
        a, o = b * np.arctan2(f * u, psi), b * np.arctanh(f * v / psi)
        return c * a - s * o, s * a + c * o

    def sersic(self, x, y, xp):
        """Brightness on the source plane; xp is the array module (numpy, jax.numpy, torch)."""
        p = self.source
        e = np.hypot(p["e1"], p["e2"])
        q, phi = (1 - e) / (1 + e), np.arctan2(p["e2"], p["e1"]) / 2
        dx, dy = x - p["center_x"], y - p["center_y"]
        c, s = float(np.cos(phi)), float(np.sin(phi))
        radius = xp.sqrt((c * dx + s * dy) ** 2 + ((c * dy - s * dx) / float(q)) ** 2) / p["R_sersic"]
        b = 1.9992 * p["n_sersic"] - 0.3271
        return p["amp"] * xp.exp(-b * (radius ** (1 / p["n_sersic"]) - 1))


def torch_loss(problem, tensor, parameters):
    """The loss of a training step in PyTorch, a function without arguments. `tensor` brings arrays to the device and precision;
    `parameters` are kernel and bias of one layer after the other."""
    import torch

    data, band = tensor(problem.image), tensor(problem.banded_psf())
    alpha_x, alpha_y = problem.macro_deflection()
    beta_x, beta_y = tensor((problem.x - alpha_x).ravel()), tensor((problem.y - alpha_y).ravel())
    xi = torch.stack([tensor(problem.x.ravel()), tensor(problem.y.ravel())], -1).requires_grad_()

    def loss():
        h = xi
        for i in range(0, len(parameters), 2):
            h = torch.addmm(parameters[i + 1], h, parameters[i])
            if i + 2 < len(parameters):
                h = torch.nn.functional.silu(h)
        (alpha,) = torch.autograd.grad(h.sum(), xi, create_graph=True)
        image = problem.sersic(beta_x - alpha[:, 0], beta_y - alpha[:, 1], torch).reshape(data.shape)
        return ((band @ image @ band.T - data) ** 2).mean()

    return loss


def serve(args, loss, result, run):
    """Answers requests until the input ends. `run()` does one step and returns when it is done."""
    np.concatenate([np.ravel(np.asarray(part, np.float64)) for part in result]).tofile(f"{args.directory}/{args.name}.f64")
    print(json.dumps({"version": importlib.metadata.version(args.name), "loss": float(loss)}), flush=True)
    for line in sys.stdin:
        answer = {"wall": [], "cpu": []}
        for _ in range(int(line.split()[1])):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            answer["wall"].append((time.perf_counter() - wall) * 1e3)
            answer["cpu"].append((time.process_time() - cpu) * 1e3)
        answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), flush=True)

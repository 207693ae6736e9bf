"""The paper's method in PyTorch: the same training step, eager (compiling it makes it slower on the CPU)."""
import peer

args = peer.arguments(["torch"])

import torch

torch.set_num_threads(args.threads)
problem = peer.Problem(args.directory)
real = getattr(torch, args.dtype)
tensor = lambda values: torch.as_tensor(values, dtype=real)

data, band = tensor(problem.image), tensor(problem.banded_psf())
alpha_x, alpha_y = problem.macro_deflection()
beta_x, beta_y = tensor((problem.x - alpha_x).ravel()), tensor((problem.y - alpha_y).ravel())
xi = torch.stack([tensor(problem.x.ravel()), tensor(problem.y.ravel())], -1).requires_grad_()
parameters = [tensor(part.copy()).requires_grad_() for layer in problem.layers for part in layer]
optimizer = torch.optim.Adam(parameters, lr=problem.learning_rate, fused=True)


def loss():
    h = xi
    for i in range(0, len(parameters), 2):
        h = torch.addmm(parameters[i + 1], h, parameters[i])
        if i + 2 < len(parameters):
            h = torch.nn.functional.silu(h)
    (alpha,) = torch.autograd.grad(h.sum(), xi, create_graph=True)
    image = problem.sersic(beta_x - alpha[:, 0], beta_y - alpha[:, 1], torch).reshape(data.shape)
    return ((band @ image @ band.T - data) ** 2).mean()


def run():
    optimizer.zero_grad()
    value = loss()
    value.backward(inputs=parameters)
    optimizer.step()
    return value


initial = loss()
gradient = torch.autograd.grad(initial, parameters, allow_unused=True)  # the last bias shifts the potential alone
gradient = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradient)]
run()
peer.serve(args, initial.item(), [g.numpy() for g in gradient], run)

"""The paper's method in PyTorch: the same training step, eager (compiling it makes it slower on the CPU)."""
import peer

args = peer.arguments(["torch"])

import torch

torch.set_num_threads(args.threads)
problem = peer.Problem(args.directory)
real = getattr(torch, args.dtype)
tensor = lambda values: torch.as_tensor(values, dtype=real)

parameters = [tensor(part.copy()).requires_grad_() for layer in problem.layers for part in layer]
optimizer = torch.optim.Adam(parameters, lr=problem.learning_rate, fused=True)
loss = peer.torch_loss(problem, tensor, parameters)


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

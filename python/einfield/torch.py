"""einfield's posterior for PyTorch, with the gradient of the hand-written adjoints, in double precision on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import InvalidInput
from .model import Model, Space, _constrained

try:
    import torch
except ImportError as missing:
    raise ImportError("einfield.torch needs PyTorch: pip install torch") from missing


class _Density(torch.autograd.Function):
    """The value, and its gradient as the adjoint."""

    @staticmethod
    def forward(ctx: Any, theta: Any, model: Model, space: Space, jacobian: bool) -> Any:
        wants_gradient = ctx.needs_input_grad[0]
        at = np.from_dlpack(theta.detach().cpu())
        value, gradient = model._evaluate_unchecked(at, space, jacobian, gradient=wants_gradient)
        if wants_gradient:
            ctx.save_for_backward(_tensor(gradient, theta))
        return _tensor(value, theta)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return cotangent.unsqueeze(-1) * gradient, None, None, None


def _tensor(array: Any, like: Any) -> Any:
    return torch.from_dlpack(np.ascontiguousarray(array).reshape(array.shape)).to(dtype=like.dtype, device=like.device)


class LogProb(torch.nn.Module):
    """`Model.log_prob` as a module of PyTorch.

    Parameters
    ----------
    model : einfield.Model
    space, jacobian : as for `Model.log_prob`

    `LogProb(model)(theta)` takes a tensor (..., size) of float32 or float64 and returns (...). In single precision theta and
    what is returned are rounded; the computation is in double. A tensor on a device is copied to the CPU and back. A theta
    that is not finite gives NaN. Derivatives of first order only.
    """

    def __init__(self, model: Model, space: Space = "constrained", jacobian: bool = True) -> None:
        super().__init__()
        if not isinstance(model, Model):
            raise InvalidInput(f"model: found {type(model).__name__}, expected einfield.Model")
        _constrained(space)
        self.model = model
        self.space: Space = space
        self.jacobian = jacobian

    def forward(self, theta: Any) -> Any:
        if not torch.is_floating_point(theta) or theta.ndim < 1 or theta.shape[-1] != self.model.size:
            raise InvalidInput(f"theta: found a tensor of {theta.dtype} and shape {tuple(theta.shape)}, expected floating "
                               f"point and shape (..., {self.model.size})")
        return _Density.apply(theta, self.model, self.space, self.jacobian)

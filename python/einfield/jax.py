"""einfield's posterior for JAX: works under `jit`, `grad` and `vmap`. JAX differentiates nothing: the gradient is that of
the hand-written adjoints, in double precision on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import InvalidInput
from .model import Model, Space, _constrained

try:
    import jax
    import jax.numpy as jnp
except ImportError as missing:
    raise ImportError("einfield.jax needs JAX: pip install jax") from missing


def log_prob(model: Model, space: Space = "constrained", jacobian: bool = True) -> Callable[[Any], Any]:
    """`Model.log_prob` as a function of JAX.

    Parameters
    ----------
    model : Model
    space, jacobian : as for `Model.log_prob`

    Returns
    -------
    callable
        From theta (size,) to a scalar of theta's type. Under `vmap` all points of the batch are evaluated in one call. In
        single precision (JAX's default) theta and what is returned are rounded; the computation is in double. A theta that
        is not finite gives NaN. Derivatives of first order only.
    """
    if not isinstance(model, Model):
        raise InvalidInput(f"model: found {type(model).__name__}, expected einfield.Model")
    _constrained(space)

    def value_only(theta: Any) -> Any:
        at = np.asarray(theta)
        return model._evaluate_unchecked(at, space, jacobian, gradient=False)[0].astype(at.dtype)

    def value_and_gradient(theta: Any) -> Any:
        at = np.asarray(theta)
        value, gradient = model._evaluate_unchecked(at, space, jacobian, gradient=True)
        return value.astype(at.dtype), gradient.astype(at.dtype)

    def checked(theta: Any) -> Any:
        theta = jnp.asarray(theta)
        if theta.ndim != 1 or theta.shape[0] != model.size:
            raise InvalidInput(f"theta: found shape {theta.shape}, expected ({model.size},); vmap takes batches")
        return theta if jnp.issubdtype(theta.dtype, jnp.floating) else theta.astype(float)

    @jax.custom_vjp
    def density(theta: Any) -> Any:
        return jax.pure_callback(value_only, jax.ShapeDtypeStruct((), theta.dtype), theta, vmap_method="broadcast_all")

    def forward(theta: Any) -> Any:
        shapes = (jax.ShapeDtypeStruct((), theta.dtype), jax.ShapeDtypeStruct(theta.shape, theta.dtype))
        return jax.pure_callback(value_and_gradient, shapes, theta, vmap_method="broadcast_all")

    def backward(gradient: Any, cotangent: Any) -> Any:
        return (cotangent * gradient,)

    density.defvjp(forward, backward)
    return lambda theta: density(checked(theta))

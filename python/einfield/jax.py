"""einfield's posterior for JAX: works under `jit`, `grad` and `vmap`. JAX differentiates nothing: the gradient is that of
the hand-written adjoints, in double precision on the CPU. Compiled functions of JAX call it directly (`jax.ffi`) where the
module was built with jaxlib's headers, and by way of Python (`jax.pure_callback`) else and on other devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _core
from .errors import InvalidInput
from .model import Model, Space, _constrained

try:
    import jax
    import jax.numpy as jnp
except ImportError as missing:
    raise ImportError("einfield.jax needs JAX: pip install jax") from missing


#: Whether compiled functions call einfield without Python.
_direct = hasattr(_core, "xla_handlers") and hasattr(jax, "ffi")
if _direct:
    for _name, _handler in _core.xla_handlers().items():
        jax.ffi.register_ffi_target(_name, _handler, platform="cpu")


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

    target = _core.XlaTarget(model._lens, _constrained(space), bool(jacobian)) if _direct else None

    def call(theta: Any, gradient: bool) -> Any:
        """The value or, with the gradient, both; of all points of a batch at once."""
        shapes = (jax.ShapeDtypeStruct((), theta.dtype),) + gradient * (jax.ShapeDtypeStruct(theta.shape, theta.dtype),)

        def by_python(theta: Any) -> Any:
            def evaluate(theta: Any) -> Any:
                at = np.asarray(theta)
                found = model._evaluate_unchecked(at, space, jacobian, gradient=gradient)
                return tuple(array.astype(at.dtype) for array in found if array is not None)

            return jax.pure_callback(evaluate, shapes, theta, vmap_method="broadcast_all")

        if target is None:
            return by_python(theta)
        name = "einfield_value_and_grad" if gradient else "einfield_log_prob"
        directly = jax.ffi.ffi_call(name, shapes, vmap_method="broadcast_all")
        number = np.int64(target.number())
        return jax.lax.platform_dependent(theta, cpu=lambda t: directly(t, target=number), default=by_python)

    def checked(theta: Any) -> Any:
        theta = jnp.asarray(theta)
        if theta.ndim != 1 or theta.shape[0] != model.size:
            raise InvalidInput(f"theta: found shape {theta.shape}, expected ({model.size},); vmap takes batches")
        return theta if jnp.issubdtype(theta.dtype, jnp.floating) else theta.astype(float)

    @jax.custom_vjp
    def density(theta: Any) -> Any:
        return call(theta, gradient=False)[0]

    def forward(theta: Any) -> Any:
        return call(theta, gradient=True)

    def backward(gradient: Any, cotangent: Any) -> Any:
        return (cotangent * gradient,)

    density.defvjp(forward, backward)

    def of_theta(theta: Any) -> Any:
        theta = checked(theta)
        if theta.dtype.itemsize >= 4:
            return density(theta)
        return density(theta.astype(np.float32)).astype(theta.dtype)

    return of_theta

"""Arrays from callers: checked, and converted to what the compiled part takes."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInput


_FLOAT64 = np.dtype(np.float64)


def as_array(name: str, value: Any) -> NDArray[np.float64]:
    """The value as a contiguous array of float64 in the machine's byte order; a copy only where it is not one already.

    Takes what `numpy.asarray` takes: arrays of any real type and layout, read-only ones, lists, tensors on the CPU.
    """
    if type(value) is np.ndarray and value.dtype is _FLOAT64 and value.flags.c_contiguous:
        return value
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise InvalidInput(f"{name}: a masked array, expected a plain array, and the mask as a separate argument")
        value = value.data
    if getattr(value, "unit", None) is not None:
        raise InvalidInput(f"{name}: a quantity in {value.unit}, expected plain numbers: its .to_value(...)")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors on a device
        raise InvalidInput(f"{name}: not an array, {_one_line(error)}") from None
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"{name}: wrong type, found {array.dtype}, expected real numbers")
    return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)


def as_points(
    theta: Any, names: list[str], size: int, check_finite: bool = True
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Points as (n, size), and the shape of their leading axes. `names` of the entries, for messages."""
    array = as_array("theta", theta)
    if array.ndim == 0 or array.shape[-1] != size:
        raise InvalidInput(f"theta: found shape {array.shape}, expected (..., {size}), one entry per name of the model")
    leading = array.shape[:-1]
    if len(leading) != 1:
        array = array.reshape(math.prod(leading), size)
    if check_finite and not np.isfinite(array).all():
        point, entry = np.argwhere(~np.isfinite(array))[0]
        where = names[entry] + (f" of point {point}" if leading else "")
        raise InvalidInput(f"theta: {where} = {array[point, entry]}, expected a finite number")
    return array, leading


def as_positions(x: Any, y: Any) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Positions as (2, n), and the shape of x and y broadcast against each other."""
    first, second = as_array("x", x), as_array("y", y)
    try:
        first, second = np.broadcast_arrays(first, second)
    except ValueError:
        raise InvalidInput(f"x: found shape {first.shape}, expected one that fits that of y, {second.shape}") from None
    positions = np.stack([first.ravel(), second.ravel()])
    if not np.isfinite(positions).all():
        axis, i = np.argwhere(~np.isfinite(positions))[0]
        raise InvalidInput(f"{'xy'[axis]}: found {positions[axis, i]}, expected finite positions in arcsec")
    return positions, first.shape


def as_whole(name: str, value: Any) -> int:
    """A whole number that the compiled part takes."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral) or not -2**31 <= int(value) < 2**31:
        raise InvalidInput(f"{name}: found {value!r}, expected a whole number")
    return int(value)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())

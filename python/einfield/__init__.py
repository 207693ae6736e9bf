"""einfield: strong gravitational lenses with a neural correction of the lens potential.

Arrays in, arrays out: `Model` holds data and a model, with its likelihood and gradients for any sampler; `fit` fits it;
`simulate` makes data; `open_result` reads what the command `einfield fit` left; `batch` fits a survey. `einfield.jax.log_prob` and
`einfield.torch.LogProb` hand the same gradients to JAX and PyTorch, which are imported only then.

Conventions are lenstronomy's: positions in arcsec, x to the right and y up; images (ny, nx) with row 0 at the bottom;
names of profiles and parameters. Brightness is per pixel, without a pixel-area factor.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _core, batch
from .errors import (
    BackendUnavailable,
    CublasError,
    CudaError,
    CufftError,
    EinfieldWarning,
    Error,
    InvalidInput,
    IoError,
    NotBuilt,
    NumericalError,
)
from .model import Model, fit
from .result import Map, Parameter, Result, open_result
from .simulation import Simulation, simulate

if TYPE_CHECKING:
    from . import jax as jax
    from . import torch as torch

__version__: str = _core.version()

__all__ = [
    "BackendUnavailable", "CublasError", "CudaError", "CufftError", "EinfieldWarning", "Error", "InvalidInput", "IoError",
    "Map", "Model", "NotBuilt", "NumericalError", "Parameter", "Result", "Simulation", "batch", "fit", "open_result", "simulate",
]


def __getattr__(name: str) -> Any:
    if name in ("jax", "torch"):  # the bridges, imported on first use
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Simulated images of a lens, with the truth behind them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._toml import Document, settings
from .errors import EinfieldWarning, InvalidInput
from .model import _LENSES, _LIGHTS, Components, _image

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Simulation:
    """A simulated observation.

    Attributes
    ----------
    image : (ny, nx), with noise
    noise : (ny, nx), 1 sigma
    psf : (odd, odd) or None
    pixel_scale : [arcsec]
    truth : "image" without noise, and "psi" [arcsec²], "alpha" (2, ny, nx) [arcsec], "kappa" of the missing mass alone; for
        `Model(..., truth=...)`
    """

    image: Floats
    noise: Floats
    psf: Floats | None
    pixel_scale: float
    truth: dict[str, Floats]


def simulate(
    config: str | os.PathLike[str] | None = None,
    *,
    set: Mapping[str, Any] | None = None,
    lens: Components = (),
    source: Components = (),
    lens_light: Components = (),
    perturbation: Components = (),
    nx: int | None = None,
    ny: int | None = None,
    pixel_scale: float | None = None,
    psf: ArrayLike | Mapping[str, Any] | None = None,
    noise: float | None = None,
    background_rms: float | None = None,
    exposure_time: float | None = None,
    seed: int | None = None,
    center_x: float = 0.0,
    center_y: float = 0.0,
    supersampling: int = 1,
    noise_correlation: ArrayLike | None = None,
    observation: Mapping[str, Any] | None = None,
) -> Simulation:
    """An image of the smooth lens and the missing mass, with noise. The same arguments give the same bits.

    Parameters
    ----------
    config : path of a configuration with [simulate], in the place of all that follows but `set`
    set : dict, optional
        Keys of the configuration and their new values.
    lens, source, lens_light : as for `Model`
    perturbation : list of dict
        The missing mass: in the image, never in a fitted model.
    nx, ny : pixels of the image
    pixel_scale : [arcsec]
    psf : as for `Model`
    noise : 1 sigma of every pixel; or `background_rms` with `exposure_time`, for photon noise as well
    seed : of the noise
    noise_correlation : (odd, odd), optional
        Correlation of the noise of two pixels by their offset, 1 in the middle.

    Raises
    ------
    InvalidInput
    """
    if config is not None:
        if lens or source or lens_light or perturbation or nx is not None or psf is not None:
            raise InvalidInput("simulate: found a configuration and arguments, expected one of them")
        return _simulation(_core.simulate_file(os.fspath(config), settings(set)))
    if set is not None:
        raise InvalidInput("set: found without a configuration, expected arguments")
    document = Document()
    kernel = psf if psf is None or isinstance(psf, (Mapping, str, os.PathLike)) else _image("psf", psf)
    geometry = {"pixel_scale": pixel_scale, "psf": kernel, "center_x": center_x, "center_y": center_y,
                "supersampling": supersampling}
    document.table("observation", geometry | dict(observation or {}), {"psf": "psf"})
    document.components("lens", lens, _LENSES)
    document.components("source", source, _LIGHTS)
    document.components("lens_light", lens_light, _LIGHTS)
    document.components("perturbation", perturbation, _LENSES)
    correlation = None if noise_correlation is None else _image("noise_correlation", noise_correlation)
    document.table("simulate", {"nx": nx, "ny": ny, "noise": noise, "background_rms": background_rms,
                                "exposure_time": exposure_time, "seed": seed, "noise_correlation": correlation},
                   {"noise_correlation": "noise_correlation"})
    return _simulation(_core.simulate_arguments(document.text, document.arrays))


def _simulation(made: dict[str, Any]) -> Simulation:
    for message in made["warnings"]:
        warnings.warn(message, EinfieldWarning, stacklevel=3)
    truth = {name: made[f"{name}_true"] for name in ("image", "psi", "alpha", "kappa")}
    return Simulation(made["image"], made["noise"], made.get("psf"), made["pixel_scale"], truth)

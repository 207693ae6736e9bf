"""The result of a fit: in memory, or read from a directory that `einfield fit` wrote."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arrays import as_positions
from .errors import EinfieldWarning, InvalidInput

Floats = NDArray[np.float64]
Part = Literal["total", "smooth", "network"]

#: The maps that a directory of results can have, with those of pixel sources up to a hundred components.
_MAP_NAMES = [
    "DATA", "NOISE", "MASK", "PSF", "MODEL", "RESIDUAL", "LENS_LIGHT", "ARCS", "ARCS_MODEL", "SOURCE",
    *(f"SOURCE_{i}" for i in range(100)), *(f"LENS_LIGHT_{i}" for i in range(100)),
    "PSI_NN", "ALPHA_NN", "KAPPA_NN", "PSI_NN_STD", "ALPHA_NN_STD", "KAPPA_NN_STD", "KAPPA_NN_SNR", "KAPPA_NN_PSF",
    "KAPPA_NN_PSF_STD", "SENSITIVITY", "PSI_MACRO", "ALPHA_MACRO", "KAPPA_MACRO", "PSI_TRUE", "ALPHA_TRUE", "KAPPA_TRUE",
    "IMAGE_TRUE",
]


@dataclass(frozen=True)
class Map:
    """An image with unit and coordinates. NumPy and matplotlib take it as an array.

    Attributes
    ----------
    values : (ny, nx), or (2, ny, nx) of a deflection: x, then y
    unit : "arcsec2", "arcsec", "" (no unit, or unknown) ...
    x, y : (nx,), (ny,), coordinates of the pixel centers [arcsec]
    """

    values: Floats
    unit: str
    x: Floats
    y: Floats
    _half_pixel: float = 0.5

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Edges of the image for matplotlib's `imshow(..., origin="lower", extent=...)` [arcsec]."""
        h = self._half_pixel
        return float(self.x[0] - h), float(self.x[-1] + h), float(self.y[0] - h), float(self.y[-1] + h)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        if copy is False and dtype is not None and np.dtype(dtype) != self.values.dtype:
            raise ValueError(f"a map is float64; it cannot be {np.dtype(dtype)} without a copy")
        return np.array(self.values, dtype=dtype) if copy else np.asarray(self.values, dtype=dtype)

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in self.values.shape)
        return f"<einfield.Map: {shape}{', ' + self.unit if self.unit else ''}>"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a profile.

    Attributes
    ----------
    value : with an ensemble of networks, the mean over its members
    sigma : 1 sigma; NaN for a fixed parameter, and where the data do not determine it
    unit : "arcsec", "rad", "" ...
    free : whether it was fitted
    """

    value: float
    sigma: float
    unit: str
    free: bool

    def __float__(self) -> float:
        return self.value


class _Maps(Mapping[str, Map]):
    """Maps by EXTNAME, read when they are asked for."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._known: dict[str, Map | None] = {}

    def _find(self, name: str) -> Map | None:
        if name not in self._known:
            found = self._result._raw_map(name)
            self._known[name] = None if found is None else _map_of(*found)
        return self._known[name]

    def __getitem__(self, name: str) -> Map:
        found = self._find(name) if isinstance(name, str) else None
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name in _MAP_NAMES if self._find(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<maps {', '.join(self)}>"


class Result:
    """A finished fit.

    Attributes
    ----------
    status : "ok", "suspect" or "failed"
    flags : what may be wrong, by name: a sentence each
    stop_reason : "steps", "plateau", "converged", "chi2", "heldout", "interrupted" or "non-finite"
    message : why the fit failed, or ""
    metrics : "chi2_reduced", "loss" and, with a truth, the errors
    parameters : all parameters of all profiles by name
    history : columns of the logged steps by name: "step", "loss", "chi2_reduced" ...
    maps : all maps by name, as in result.fits: "MODEL", "KAPPA_NN_STD" ...
    einstein_radius : of the smooth model and the network together [arcsec]; NaN without a closed critical curve
    warnings : one sentence each
    info : everything in result.json
    """

    def __init__(self) -> None:
        raise InvalidInput("Result: made by einfield.fit and einfield.open_result only")

    _source: Any
    _threads: int

    @classmethod
    def _make(cls, source: Any, info: dict[str, Any], threads: int) -> Result:
        result = cls.__new__(cls)
        result._source = source
        result._threads = threads
        result.info = info
        result.status = info.get("status", "ok")
        result.flags = {}
        for flag in info.get("flags", []):  # one may be raised twice
            known = result.flags.get(flag["name"])
            result.flags[flag["name"]] = f"{known}; {flag['text']}" if known else flag["text"]
        result.stop_reason = info["stop_reason"]
        result.message = info.get("message", "")
        result.warnings = list(info.get("warnings", []))
        result.metrics = {name: _number(value) for name, value in info["metrics"].items()}
        result.einstein_radius = _number(info.get("einstein_radius_effective"))
        result.parameters = _parameters(info)
        result.history = source.history()
        result.maps = _Maps(result)
        return result

    info: dict[str, Any]
    status: str
    flags: dict[str, str]
    stop_reason: str
    message: str
    warnings: list[str]
    metrics: dict[str, float]
    einstein_radius: float
    parameters: dict[str, Parameter]
    history: dict[str, Floats]
    maps: Mapping[str, Map]

    @classmethod
    def _of_memory(cls, source: _core.MemoryFit, threads: int) -> Result:
        return cls._make(source, json.loads(source.json()), threads)

    @cached_property
    def _all_maps(self) -> dict[str, Any]:
        return dict(self._source.maps())

    def _raw_map(self, name: str) -> Any:
        if isinstance(self._source, _core.StoredFit):
            return self._source.map(name)
        return self._all_maps.get(name)

    # ---- maps ------------------------------------------------------------------------------------------------------

    @property
    def psi(self) -> Map:
        """Potential of the network (ny, nx) [arcsec²]; 0 without one. A constant in it means nothing."""
        return self.maps["PSI_NN"]

    @property
    def alpha(self) -> Map:
        """Deflection of the network (2, ny, nx), x then y [arcsec]; 0 without one."""
        return self.maps["ALPHA_NN"]

    @property
    def kappa(self) -> Map:
        """Convergence of the network (ny, nx); 0 without one."""
        return self.maps["KAPPA_NN"]

    @property
    def model(self) -> Map:
        """Model image after the PSF (ny, nx)."""
        return self.maps["MODEL"]

    @property
    def data(self) -> Map:
        """The image that was fitted (ny, nx)."""
        return self.maps["DATA"]

    @property
    def residual(self) -> Map:
        """(data - model)/noise (ny, nx); NaN where masked."""
        return self.maps["RESIDUAL"]

    @property
    def source(self) -> Map:
        """The source on the grid of the source plane (ny, nx)."""
        return self.maps["SOURCE"]

    def deflection(self, x: ArrayLike, y: ArrayLike, part: Part = "total") -> tuple[Floats, Floats]:
        """Deflection alpha_x, alpha_y of the fitted lens at positions [arcsec].

        Parameters
        ----------
        x, y : positions in the image plane [arcsec], broadcast against each other
        part : "total", or the "smooth" profiles or the "network" alone
        """
        alpha = self._fields(x, y, part)[1]
        return alpha[0], alpha[1]

    def potential(self, x: ArrayLike, y: ArrayLike, part: Part = "total") -> Floats:
        """Potential psi at positions [arcsec²]; arguments as for `deflection`."""
        return self._fields(x, y, part)[0]

    def convergence(self, x: ArrayLike, y: ArrayLike, part: Part = "total") -> Floats:
        """Convergence kappa at positions; arguments as for `deflection`."""
        return self._fields(x, y, part)[2]

    def _fields(self, x: ArrayLike, y: ArrayLike, part: Part) -> tuple[Floats, Floats, Floats]:
        from .model import combined_fields

        positions, shape = as_positions(x, y)
        return combined_fields(self._source.fields(positions, self._threads), part, shape)

    # ---- for people ------------------------------------------------------------------------------------------------

    def save(self, directory: str | os.PathLike[str], *, figures: bool = True, overwrite: bool = False) -> None:
        """Writes what the command `einfield fit` leaves in a directory: result.fits, result.json, history.csv, networks,
        coolest.json and, with gnuplot, figures and report.html.

        Raises
        ------
        InvalidInput
            For a directory that holds results, unless `overwrite`; for a result that was read from one.
        IoError
        """
        if isinstance(self._source, _core.StoredFit):
            raise InvalidInput(f"save: this result was read from {self._source_dir}, expected one that einfield.fit made")
        for message in self._source.save(os.fspath(directory), bool(figures), bool(overwrite)):
            warnings.warn(message, EinfieldWarning, stacklevel=2)

    _source_dir: str = ""

    def to_coolest(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> str:
        """Writes the fitted lens in the standard COOLEST: coolest.json, the FITS files that it names and, if the lens has
        them, its networks. `save` writes the same files beside all others.

        Parameters
        ----------
        directory : path, made when it is absent
        overwrite : bool
            Replace an earlier coolest.json.

        Returns
        -------
        str
            The path of coolest.json, for `Model.from_coolest`. What may surprise a reader of the files is a warning.

        Raises
        ------
        InvalidInput
            For a directory that has a coolest.json, unless `overwrite`.
        IoError
        """
        path = os.fspath(directory)
        for note in self._source.exchange("coolest", path, bool(overwrite)):
            warnings.warn(note, EinfieldWarning, stacklevel=2)
        return os.path.join(path, "coolest.json")

    def to_lenstronomy(self) -> dict[str, Any]:
        """The fitted lens as lenstronomy's keyword dictionaries, in lenstronomy's units: amplitudes per arcsec².

        Returns
        -------
        dict
            `kwargs_model` (lens_model_list, source_light_model_list, lens_light_model_list), `kwargs_lens`,
            `kwargs_source`, `kwargs_lens_light`, `kwargs_fixed_lens` ..., `kwargs_data`, `kwargs_psf`, `kwargs_numerics`,
            `kwargs_likelihood`, with arrays (ny, nx) for images; and `einfield`, which has priors, bounds and notes for
            `Model.from_lenstronomy`. The network is an INTERPOL of its deflection at the rays of the image, which
            `Model.from_lenstronomy` does not read. What may surprise a user is a warning.
        """
        import tempfile

        with tempfile.TemporaryDirectory(prefix="einfield-") as folder:
            notes = self._source.exchange("lenstronomy", folder, False)
            with open(os.path.join(folder, "lenstronomy.json"), encoding="utf-8") as file:
                stored: dict[str, Any] = json.load(file)
            own = stored.pop("einfield")
            dictionaries: dict[str, Any] = _with_arrays(stored, folder)
        # Networks are in files, which are gone.
        for block in ("lens", "source", "lens_light"):
            own[block] = [{key: value for key, value in component.items() if key != "network"} for component in own[block]]
        for note in notes:
            warnings.warn(note, EinfieldWarning, stacklevel=2)
        return dictionaries | {"einfield": own}

    def plot(self, figure: Any = None) -> Any:
        """Data, model, residuals, source and, with a network, its convergence and potential, with matplotlib.

        Parameters
        ----------
        figure : matplotlib Figure to draw into, optional

        Returns
        -------
        matplotlib.figure.Figure
            Raises InvalidInput when matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise InvalidInput("plot: matplotlib is not installed, expected it: pip install matplotlib") from None
        panels: list[tuple[str, Map, str, bool]] = [
            ("data", self.data, "viridis", False), ("model", self.model, "viridis", False),
            ("(data − model) / σ", self.residual, "RdBu_r", True), ("source", self.source, "viridis", False)]
        if np.any(self.alpha.values):
            panels += [("κ of the network", self.kappa, "RdBu_r", True), ("ψ of the network [arcsec²]", self.psi, "viridis", False)]
        if figure is None:
            figure = _new_figure((4.2 * math.ceil(len(panels) / 2), 7.5), Figure)
        axes = figure.subplots(2, math.ceil(len(panels) / 2)).ravel()
        for axis, (title, shown, colors, signed) in zip(axes, panels, strict=True):
            finite = np.abs(shown.values[np.isfinite(shown.values)])
            limit = float(finite.max()) if finite.size else 1.0
            span = {"vmin": -limit, "vmax": limit} if signed else {}
            picture = axis.imshow(shown.values, origin="lower", extent=shown.extent, cmap=colors, **span)
            axis.set_title(title)
            axis.set_xlabel("x [arcsec]")
            axis.set_ylabel("y [arcsec]")
            figure.colorbar(picture, ax=axis, shrink=0.8)
        figure.suptitle(f"status {self.status}, reduced χ² {self.metrics['chi2_reduced']:.4f}")
        figure.set_layout_engine("constrained")
        return figure

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("status", self.status), ("stop", f"{self.stop_reason} after {self.info['steps']} steps")]
        rows += [("reduced χ²", f"{self.metrics['chi2_reduced']:.4f}"), ("Einstein radius", f"{self.einstein_radius:.4f} arcsec")]
        rows += [(f"flag {name}", text) for name, text in self.flags.items()]
        for name, p in self.parameters.items():
            if p.free:
                sigma = f" ± {p.sigma:.2g}" if math.isfinite(p.sigma) else ""
                rows.append((name, f"{p.value:.6g}{sigma}{' ' + p.unit if p.unit else ''}"))
        return rows

    def __repr__(self) -> str:
        return "<einfield.Result\n" + "\n".join(f"  {name}: {text}" for name, text in self._rows()) + ">"

    def _repr_html_(self) -> str:
        import html

        cells = "".join(f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
                        f"<td style='text-align:left'>{html.escape(text)}</td></tr>" for name, text in self._rows())
        return f"<table>{cells}</table>"


def open_result(directory: str | os.PathLike[str]) -> Result:
    """The results that `einfield fit` or `Result.save` left in a directory.

    Raises
    ------
    InvalidInput
        "DIR/FILE: ..." when a file is missing, damaged, or not what a fit writes.
    """
    path = os.fspath(directory)
    source = _core.open_result(path)
    with open(os.path.join(path, "result.json"), encoding="utf-8") as file:
        info = json.load(file)
    result = Result._make(source, info, 0)
    result._source_dir = path
    return result


def _with_arrays(value: Any, folder: str) -> Any:
    """Arrays in the place of "FILE.fits[HDU]" in what lenstronomy.json holds."""
    if isinstance(value, dict):
        return {key: _with_arrays(v, folder) for key, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(v, folder) for v in value]
    if isinstance(value, str) and value.startswith("lenstronomy.fits["):
        hdu = value[:-1].split("[")[1]
        array = _core.read_image(os.path.join(folder, "lenstronomy.fits"), hdu)
        return array[0] if hdu in ("NETWORK_X", "NETWORK_Y") else array  # axes are stored as an image of one row
    return value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _map_of(values: Floats, unit: str, scale: float, center_x: float, center_y: float) -> Map:
    ny, nx = values.shape[-2:]
    x = center_x + (np.arange(nx) - (nx - 1) / 2) * scale
    y = center_y + (np.arange(ny) - (ny - 1) / 2) * scale
    return Map(values, unit, x, y, scale / 2)


def _parameters(info: dict[str, Any]) -> dict[str, Parameter]:
    units = {profile: {name: unit for name, unit, _ in table}
             for profiles in (_core.lens_profiles(), _core.light_profiles()) for profile, table in profiles.items()}
    free = set(info["free"])
    sigmas = info.get("uncertainties", {}).get("sigma", {})
    parameters = {}
    for name, value in info["parameters"].items():
        component, parameter = name.rsplit(".", 1)
        unit = units.get(info["profiles"][component], {}).get(parameter, "")
        parameters[name] = Parameter(_number(value), _number(sigmas.get(name)), unit, name in free)
    return parameters


def _new_figure(size: tuple[float, float], figure_class: Any) -> Any:
    """A figure of pyplot where it is in use, so that notebooks show it; else one without a window."""
    import sys

    if "matplotlib.pyplot" in sys.modules:
        return sys.modules["matplotlib.pyplot"].figure(figsize=size)
    return figure_class(figsize=size)

"""A lens model with its data: likelihood, gradients, images and fields; and the fit."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arrays import as_array, as_points, as_positions, as_whole
from ._toml import Arrays, Document, settings
from .errors import EinfieldWarning, InvalidInput
from .result import Result

Floats = NDArray[np.float64]
Space = Literal["constrained", "unconstrained"]
Part = Literal["total", "smooth", "network"]
Components = Sequence[Mapping[str, Any]]

_LENSES = _core.lens_profiles()
_LIGHTS = _core.light_profiles()


class Model:
    """Data and model of one lens.

    Parameters
    ----------
    image : (ny, nx) array
        Brightness per pixel, row 0 at the bottom. Pixels that are not finite are masked, with a warning.
    noise : (ny, nx) array or float
        1 sigma of every pixel, in the unit of the image.
    psf : (odd, odd) array or dict, optional
        Kernel, centered on its middle pixel; or a profile, `{"fwhm": 0.1}` (Gaussian) or
        `{"type": "moffat", "fwhm": 0.1, "beta": 3.0}`, in arcsec.
    pixel_scale : float
        Side of a pixel [arcsec].
    lens, source, lens_light : list of dict
        Components: `profile`, and its parameters by lenstronomy's names; `fit`, the names of the free parameters or
        "all"; `bounds = {name: (lower, upper)}`; `prior = {name: {"mean": ..., "sigma": ...}}`. What is free starts from
        the value that is given.
    mask : (ny, nx) array, optional
        1 = used, 0 = masked.
    network : dict, optional
        A neural correction of the potential; `{}` takes the defaults of the recipe.
    center_x, center_y : float
        Coordinates of the middle of the image [arcsec].
    supersampling : int
        Rays per pixel along each axis.
    recipe : str, optional
        Defaults for network, optimizer and regularization: "default", "biggio2021", "evidence", "galaxy".
    observation, optimizer, regularization, uncertainty, cosmology : dict, optional
        Further keys of these tables of a configuration; `einfield info --keys` lists them.
    truth : dict of arrays, optional
        Of simulated data: "image" without noise, and "psi", "alpha" (2, ny, nx), "kappa" of the missing mass. A fit then
        reports its errors.
    title : str, optional
    threads : int
        0 = as many as the process may use. Results are the same bits for any number.

    Arrays of any real type and layout are taken; what is not contiguous float64 is copied. Arrays and settings are copied
    once: changing them later changes nothing.

    Raises
    ------
    InvalidInput
        One line: the key, what was found, what is expected.

    Notes
    -----
    A point `theta` is a vector of `size` numbers: weights of the network if there is one, the scalars `names`, then free
    pixels of the source and weights of a NETWORK light. For a smooth model these are just the scalars. Leading axes of
    `theta` are a batch. In the space "constrained" scalars are physical values; in "unconstrained" they are the numbers
    that the optimizers move, which can be any real number (`constrain` and `unconstrain` convert).

    Calls of one model from several threads take turns; different models run side by side. A model can be pickled, and
    works in processes that were forked. The grid of a free PIXELATED source without pixel_scale follows the lens in a fit
    only: in the functions of a model it stays where it is placed at the start.
    """

    _lens: _core.LensModel

    def __init__(
        self,
        image: ArrayLike,
        noise: ArrayLike | float,
        psf: ArrayLike | Mapping[str, Any] | None = None,
        pixel_scale: float | None = None,
        *,
        lens: Components = (),
        source: Components = (),
        lens_light: Components = (),
        mask: ArrayLike | None = None,
        network: Mapping[str, Any] | None = None,
        center_x: float = 0.0,
        center_y: float = 0.0,
        supersampling: int = 1,
        recipe: str | None = None,
        observation: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        regularization: Mapping[str, Any] | None = None,
        uncertainty: Mapping[str, Any] | None = None,
        cosmology: Mapping[str, Any] | None = None,
        truth: Mapping[str, ArrayLike] | None = None,
        title: str | None = None,
        threads: int = 0,
    ) -> None:
        if pixel_scale is None and not isinstance(image, (str, os.PathLike)) and "pixel_scale" not in (observation or {}):
            raise InvalidInput("pixel_scale: missing, expected a number > 0 arcsec")
        document = Document()
        document.put("title", title)
        document.put("recipe", recipe)
        data = {
            "image": _image("image", image),
            "noise": noise if _is_number(noise) else _image("noise", noise),
            "psf": psf if psf is None or isinstance(psf, (Mapping, str, os.PathLike)) else _image("psf", psf),
            "mask": None if mask is None else _image("mask", mask),
            "pixel_scale": pixel_scale,
            "center_x": center_x,
            "center_y": center_y,
            "supersampling": supersampling,
        }
        for key in observation or {}:
            if data.get(key) is not None:
                raise InvalidInput(f"observation.{key}: found twice, expected it as a separate argument only")
        document.table("observation", data | dict(observation or {}), {k: k for k in ("image", "noise", "psf", "mask")})
        document.components("lens", lens, _LENSES)
        document.components("source", source, _LIGHTS)
        document.components("lens_light", lens_light, _LIGHTS)
        document.table("network", network)
        document.table("optimizer", optimizer)
        document.table("regularization", regularization)
        document.table("uncertainty", uncertainty)
        document.table("cosmology", cosmology)
        self._begin("arguments", (document.text, document.arrays, _truth(truth), as_whole("threads", threads)))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], *, set: Mapping[str, Any] | None = None, threads: int = 0) -> Model:
        """The model of a configuration file, with the data that it names.

        Parameters
        ----------
        path : path of the TOML file
        set : dict, optional
            Keys and their new values, as with `--set`: `{"lens.0.theta_E": 1.2, "optimizer.steps": 50}`.
        """
        model = cls.__new__(cls)
        model._begin("file", (os.fspath(path), settings(set), as_whole("threads", threads)))
        return model

    @classmethod
    def from_lenstronomy(cls, dictionaries: Mapping[str, Any], *, ignore: Sequence[str] = (), threads: int = 0) -> Model:
        """The model of lenstronomy's keyword dictionaries.

        Parameters
        ----------
        dictionaries : dict of dict
            `kwargs_model` (lens_model_list, source_light_model_list, lens_light_model_list), `kwargs_data` (image_data,
            noise_map or background_rms with exposure_time, transform_pix2angle, ra_at_xy_0, dec_at_xy_0), `kwargs_psf`,
            `kwargs_numerics`, `kwargs_likelihood`; parameters as `kwargs_lens`, `kwargs_source`, `kwargs_lens_light`, or
            inside of `kwargs_result`. What no `kwargs_fixed_lens`, `kwargs_fixed_source` ... names is free.
        ignore : list of str
            Keys to leave out, with a warning. Every other key must be one that einfield can represent.

        Amplitudes become brightness per pixel; a mirrored image is mirrored. `docs/exchange.md` has the details.
        """
        text = _as_json(dictionaries)
        model = cls.__new__(cls)
        model._begin("exchange", ("lenstronomy", text, [str(key) for key in ignore], as_whole("threads", threads)))
        return model

    @classmethod
    def from_coolest(cls, path: str | os.PathLike[str], *, threads: int = 0) -> Model:
        """The model of a file of the COOLEST standard, with the FITS files beside it."""
        model = cls.__new__(cls)
        model._begin("exchange", ("coolest", os.path.abspath(os.fspath(path)), [], as_whole("threads", threads)))
        return model

    def _begin(self, maker: str, arguments: tuple[Any, ...], warn: bool = True) -> None:
        self._made_by = (maker, arguments)
        self._lens = _MAKERS[maker](*arguments)
        self._names = self._lens.names()
        self._offset = self._lens.offset()
        self._size = self._lens.size()
        self._blocks = self._lens.blocks()
        self._entries: list[str] | None = None
        #: What was done with the data, one sentence each.
        self.warnings: list[str] = self._lens.warnings()
        if warn:
            for message in self.warnings:
                warnings.warn(message, EinfieldWarning, stacklevel=3)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), *self._made_by)

    def __repr__(self) -> str:
        o = self.observation
        return (f"<einfield.Model: {o['image'].shape[1]} x {o['image'].shape[0]} pixels of {o['pixel_scale']:g} arcsec, "
                f"{self._size} free parameters, {len(self._names)} of them scalars>")

    # ---- parameters ------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of the free scalars, in the order of theta: "lens.0.theta_E", ..."""
        return list(self._names)

    @property
    def size(self) -> int:
        """Length of theta."""
        return self._size

    @property
    def bounds(self) -> Floats:
        """(len(names), 2): lower and upper end of each free scalar, excluded. Of a free pair e1, e2 also e1² + e2² < 1."""
        return self._lens.bounds()

    @property
    def initial(self) -> Floats:
        """(size,): the point where a fit starts, constrained."""
        return self._lens.initial()

    def pack(self, values: Mapping[str, ArrayLike]) -> Floats:
        """theta from a dictionary with every name that `unpack` gives, and no other."""
        shapes = {name: () for name in self._names} | {name: tuple(shape) for name, _, shape in self._blocks}
        for name in values:
            if name not in shapes:
                import difflib  # here, and others like it: `import einfield` takes no longer than it must

                near = difflib.get_close_matches(str(name), list(shapes), 1)
                raise InvalidInput(f"{name}: not a free parameter, expected {near[0] if near else ', '.join(shapes)}")
        theta = np.empty(self._size)
        for i, name in enumerate(self._names):
            theta[self._offset + i] = self._entry(values, name, ())
        for name, offset, shape in self._blocks:
            theta[offset:offset + int(np.prod(shape))] = self._entry(values, name, tuple(shape)).ravel()
        return theta

    @staticmethod
    def _entry(values: Mapping[str, ArrayLike], name: str, shape: tuple[int, ...]) -> Floats:
        if name not in values:
            raise InvalidInput(f"{name}: missing, expected a value for every free parameter")
        value = as_array(name, values[name])
        if value.shape != shape:
            raise InvalidInput(f"{name}: found shape {value.shape}, expected {shape or 'one number'}")
        return value

    def unpack(self, theta: ArrayLike) -> dict[str, Any]:
        """A dictionary from one point: floats for scalars; arrays for "network", "source.0.pixels" ..."""
        point = self._point(theta)[0]
        values: dict[str, Any] = {name: float(point[self._offset + i]) for i, name in enumerate(self._names)}
        for name, offset, shape in self._blocks:
            values[name] = point[offset:offset + int(np.prod(shape))].reshape(shape).copy()
        return values

    def components(self, theta: ArrayLike | None = None) -> dict[str, list[dict[str, Any]]]:
        """The blocks "lens", "source", "lens_light" at a point: each component with `profile` and all its parameters,
        fixed ones included. Without "profile", the lens dictionaries are lenstronomy's kwargs_lens."""
        return cast("dict[str, list[dict[str, Any]]]", self._lens.components(self._point(theta)))

    def constrain(self, u: ArrayLike) -> Floats:
        """(..., size): constrained points from unconstrained ones."""
        points, leading = as_points(u, self._entry_names(), self._size)
        return self._lens.transformed(points, True).reshape(*leading, self._size)

    def unconstrain(self, theta: ArrayLike) -> Floats:
        """(..., size): unconstrained points from constrained ones, which must lie inside of `bounds`."""
        points, leading = as_points(theta, self._entry_names(), self._size)
        return self._lens.transformed(points, False).reshape(*leading, self._size)

    def prior_transform(self, cube: ArrayLike) -> Floats:
        """(..., size): constrained points from points of the unit cube, for nested sampling with `log_likelihood`.

        A scalar with a Gaussian prior follows it, inside of its bounds; a free pair e1, e2 is flat in the unit disk; all
        others are flat between their bounds. For a model whose only free parameters are scalars.

        Raises
        ------
        InvalidInput
            For a scalar without a Gaussian that has no bounds: a flat prior without an end has no transform.
        """
        points, leading = as_points(cube, self._entry_names(), self._size)
        if self._size != len(self._names):
            raise InvalidInput(f"prior_transform: found {self._blocks[0][0]} among the free parameters, expected scalars only")
        if not ((points >= 0) & (points <= 1)).all():
            raise InvalidInput("cube: found a number outside of [0, 1], expected points of the unit cube")
        return _from_cube(points, self._names, self.bounds, self._lens.priors()).reshape(*leading, self._size)

    # ---- likelihood ------------------------------------------------------------------------------------------------

    def log_likelihood(self, theta: ArrayLike, space: Space = "constrained") -> Any:
        """ln of the likelihood, -1/2 sum(((model - data)/noise)²) over the used pixels, not normalized.

        Parameters
        ----------
        theta : (..., size)

        Returns
        -------
        float, or (...) for a batch; -inf where a scalar is outside of its range.
        """
        return self._values(theta, space, priors=False, volume=False)

    def log_prob(self, theta: ArrayLike, space: Space = "constrained", jacobian: bool = True) -> Any:
        """ln of the posterior, not normalized: the likelihood, -1/2 ((p - mean)/sigma)² for every Gaussian prior, and
        -inf outside of `bounds`, inside of which other priors are flat. Penalties on a network or on source pixels
        ([regularization]) count as priors.

        Parameters
        ----------
        theta : (..., size)
        space : "constrained" or "unconstrained"
        jacobian : bool
            In the unconstrained space, add ln abs(d constrained / d unconstrained): the value is then the density of the
            unconstrained numbers, which samplers need. False gives the same value as in the constrained space.
        """
        return self._values(theta, space, priors=True, volume=jacobian)

    def value_and_grad(self, theta: ArrayLike, space: Space = "constrained", jacobian: bool = True) -> tuple[Any, Floats]:
        """`log_prob` and its gradient with respect to theta, from the hand-written adjoints, in double precision.

        Parameters
        ----------
        theta : (..., size)
        space, jacobian : as for `log_prob`

        Returns
        -------
        value : float, or (...) for a batch
        gradient : (..., size); 0 where the value is -inf
        """
        points, leading = as_points(theta, self._entry_names(), self._size)
        value, gradient = self._lens.evaluate(points, _constrained(space), True, True, bool(jacobian))
        if not leading:
            return float(value[0]), gradient[0]
        return value.reshape(leading), gradient.reshape(*leading, self._size)

    def _values(self, theta: ArrayLike, space: Space, priors: bool, volume: bool) -> Any:
        points, leading = as_points(theta, self._entry_names(), self._size)
        value, _ = self._lens.evaluate(points, _constrained(space), False, priors, bool(volume))
        return _shaped(value, leading)

    def _evaluate_unchecked(self, theta: Any, space: Space, jacobian: bool, gradient: bool) -> tuple[Floats, Any]:
        """For the bridges: a point that is not finite gives NaN, which samplers take for a divergence."""
        points, leading = as_points(theta, [], self._size, check_finite=False)
        value, gradients = self._lens.evaluate(points, _constrained(space), gradient, True, bool(jacobian))
        return value.reshape(leading), None if gradients is None else gradients.reshape(*leading, self._size)

    # ---- images and fields -----------------------------------------------------------------------------------------

    @property
    def observation(self) -> dict[str, Any]:
        """What is fitted: arrays "image", "noise", "mask" and, with a PSF, "psf"; "pixel_scale", "center_x" ... [arcsec]."""
        return cast("dict[str, Any]", self._lens.observation())

    @property
    def coordinates(self) -> tuple[Floats, Floats]:
        """x and y of the pixel centers, (ny, nx) each [arcsec]."""
        o = self.observation
        ny, nx = o["image"].shape
        x = o["center_x"] + (np.arange(nx) - (nx - 1) / 2) * o["pixel_scale"]
        y = o["center_y"] + (np.arange(ny) - (ny - 1) / 2) * o["pixel_scale"]
        grid_x, grid_y = np.meshgrid(x, y)
        return grid_x, grid_y

    def image(self, theta: ArrayLike | None = None, space: Space = "constrained") -> Floats:
        """(..., ny, nx): the model image after the PSF; of `initial` without theta."""
        points, leading = as_points(self.initial if theta is None else theta, self._entry_names(), self._size)
        images = self._lens.images(points, _constrained(space) or theta is None)
        return images.reshape(*leading, *images.shape[1:])

    def residuals(self, theta: ArrayLike | None = None, space: Space = "constrained") -> Floats:
        """(..., ny, nx): (data - model)/noise; NaN where masked."""
        o = self.observation
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(o["mask"] != 0, (o["image"] - self.image(theta, space)) / o["noise"], np.nan)

    def jacobian(self, theta: ArrayLike | None = None, space: Space = "constrained") -> Floats:
        """Derivatives of `residuals` with respect to theta, for least squares and Fisher matrices, in double precision.

        Parameters
        ----------
        theta : (..., size); None: `initial`
        space : "constrained" or "unconstrained"

        Returns
        -------
        (..., ny, nx, size) array
            d residuals[..., iy, ix] / d theta[k], by the unit of theta[k]; NaN where masked. Columns of fixed weights of a
            network and of the constant of its potential are 0. `J = model.jacobian(theta)[model.observation["mask"] != 0]`
            has the shape (n_used, size), and `J.T @ J` is the Fisher matrix of independent noise, without priors.

        Raises
        ------
        InvalidInput
            For a point outside of `bounds`.
        IoError
            When the array is larger than the memory of this machine.
        """
        points, leading = as_points(self.initial if theta is None else theta, self._entry_names(), self._size)
        columns = self._lens.jacobians(points, _constrained(space) or theta is None)
        return np.moveaxis(columns.reshape(*leading, *columns.shape[1:]), -3, -1)

    def deflection(self, x: ArrayLike, y: ArrayLike, theta: ArrayLike | None = None, part: Part = "total") -> tuple[Floats, Floats]:
        """Deflection alpha_x, alpha_y at positions [arcsec].

        Parameters
        ----------
        x, y : positions in the image plane [arcsec], broadcast against each other
        theta : (size,), constrained; None: `initial`
        part : "total", or the "smooth" profiles or the "network" alone
        """
        alpha = self._fields(x, y, theta, part)[1]
        return alpha[0], alpha[1]

    def potential(self, x: ArrayLike, y: ArrayLike, theta: ArrayLike | None = None, part: Part = "total") -> Floats:
        """Potential psi at positions [arcsec²]; arguments as for `deflection`."""
        return self._fields(x, y, theta, part)[0]

    def convergence(self, x: ArrayLike, y: ArrayLike, theta: ArrayLike | None = None, part: Part = "total") -> Floats:
        """Convergence kappa at positions; arguments as for `deflection`."""
        return self._fields(x, y, theta, part)[2]

    def shear(self, x: ArrayLike, y: ArrayLike, theta: ArrayLike | None = None, part: Part = "total") -> tuple[Floats, Floats]:
        """Shear gamma1, gamma2 at positions; arguments as for `deflection`. That of a network comes from differences of
        its deflection, to about 1e-8."""
        _known_part(part)
        positions, shape = as_positions(x, y)
        found = self._lens.shears(self._point(theta), positions)
        gamma = found["smooth"] + found["network"] if part == "total" else found[part]
        return gamma[0].reshape(shape), gamma[1].reshape(shape)

    def magnification(self, x: ArrayLike, y: ArrayLike, theta: ArrayLike | None = None, part: Part = "total") -> Floats:
        """Magnification 1 / ((1 - kappa)² - gamma²) at positions, with its sign; infinite on a critical curve. Arguments as
        for `deflection`."""
        kappa = self.convergence(x, y, theta, part)
        gamma1, gamma2 = self.shear(x, y, theta, part)
        with np.errstate(divide="ignore"):
            return np.asarray(1 / ((1 - kappa)**2 - gamma1**2 - gamma2**2))

    def _fields(self, x: ArrayLike, y: ArrayLike, theta: ArrayLike | None, part: Part) -> tuple[Floats, Floats, Floats]:
        positions, shape = as_positions(x, y)
        return combined_fields(self._lens.fields(self._point(theta), positions), part, shape)

    def critical_curves(self, theta: ArrayLike | None = None) -> list[tuple[Floats, Floats]]:
        """Critical curves around the used pixels, each with its caustic: (n, 2) arrays of x, y [arcsec]."""
        return list(self._lens.critical_curves(self._point(theta))[0])

    def einstein_radius(self, theta: ArrayLike | None = None) -> float:
        """Radius of the circle with the area inside the largest critical curve [arcsec]: theta_E of an isothermal lens.
        The network is included. NaN without a closed curve."""
        return float(self._lens.critical_curves(self._point(theta))[2])

    def to_toml(self) -> str:
        """The complete configuration, defaults included. Arrays stand in it by their name."""
        return self._lens.toml()

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _point(self, theta: ArrayLike | None) -> Floats:
        """One point as (1, size)."""
        points, leading = as_points(self.initial if theta is None else theta, self._entry_names(), self._size)
        if leading:
            raise InvalidInput(f"theta: found shape {(*leading, self._size)}, expected one point, ({self._size},)")
        return points

    def _entry_names(self) -> list[str]:
        """The name of every entry of theta, for messages."""
        if self._entries is None:
            entries = [f"theta[{i}]" for i in range(self._size)]
            entries[self._offset:self._offset + len(self._names)] = self._names
            for name, offset, shape in self._blocks:
                n = int(np.prod(shape))
                entries[offset:offset + n] = [f"{name}[{i}]" for i in range(n)]
            self._entries = entries
        return self._entries


def fit(
    model: Model,
    *,
    backend: str = "auto",
    device: int | None = None,
    threads: int = 0,
    precision: Literal["single", "double"] = "single",
    log_every: int = 10,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[int, float, float], None] | None = None,
) -> Result:
    """Fits a model from where it starts, by its recipe and optimizer. Nothing is written but a checkpoint, if asked for.

    Parameters
    ----------
    backend : "auto", "cpu" or "cuda"
        "auto": CUDA where this build has it and a device is usable. A backend that is named is used, or is an error.
    device : int, optional
        Index of the CUDA device.
    threads : int
        0 = as many as the process may use. Results are the same bits for any number.
    precision : "single" or "double"
    log_every : int
        Steps between rows of the history.
    checkpoint : path of a directory, optional
        A checkpoint is written there every optimizer.checkpoint_every steps and at the end, also of a fit that is
        interrupted. Where there is one, the fit continues from it, to the same bits as without a pause; model and data
        must be the same.
    progress : bool or callable, optional
        True: a bar by tqdm. A callable gets (step, loss, reduced chi²) for every row of the history, from the thread that
        called `fit`. None: a bar if tqdm is installed and there is a terminal or a notebook to show it.

    Returns
    -------
    Result
        Ctrl-C ends the fit: the result is then the state that was reached, its `stop_reason` "interrupted", without error
        bars that take long. While error bars are computed it ends those of `method = "randomized"`, with a warning, and
        lets others be finished; a checkpoint is that of the finished fit, so that `fit` computes them later. A loss that
        becomes NaN ends a fit as well; `status` is then "failed".

    Raises
    ------
    InvalidInput, BackendUnavailable, CudaError, IoError
    """
    if not isinstance(model, Model):
        raise InvalidInput(f"model: found {type(model).__name__}, expected einfield.Model")
    if backend not in ("auto", "cpu", "cuda"):
        raise InvalidInput(f'backend: found {backend!r}, expected "auto", "cpu" or "cuda"')
    if precision not in ("single", "double"):
        raise InvalidInput(f'precision: found {precision!r}, expected "single" or "double"')
    if as_whole("log_every", log_every) < 1:
        raise InvalidInput(f"log_every: found {log_every}, expected at least 1")
    if progress not in (None, True, False) and not callable(progress):
        raise InvalidInput(f"progress: found {progress!r}, expected True, False, None or a function")
    of_device = None if device is None else as_whole("device", device)
    of_threads = as_whole("threads", threads)
    bar = _progress_bar(model._lens.steps()) if progress is True or (progress is None and _shows_bars()) else None
    report = bar.report if bar else progress if callable(progress) else None
    try:
        fitted = model._lens.fit(backend, of_device, of_threads, precision == "double", int(log_every),
                                 "" if checkpoint is None else os.fspath(checkpoint), report, bar.note if bar else None)
    finally:
        if bar:
            bar.close()
    result = Result._of_memory(fitted, of_threads)
    known = set(model.warnings)
    for message in [w for w in result.warnings if w not in known]:
        warnings.warn(message, EinfieldWarning, stacklevel=2)
    return result


class _progress_bar:
    """A bar of tqdm over the steps of all stages."""

    def __init__(self, steps: int) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise InvalidInput("progress: tqdm is not installed, expected it for progress=True: pip install tqdm") from None
        self._bar = tqdm(total=steps, unit="step", desc="einfield")

    def report(self, step: int, loss: float, chi2: float) -> None:
        self._bar.set_postfix_str(f"chi2 {chi2:.4g}", refresh=False)
        self._bar.update(max(0, step - self._bar.n))

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(text)

    def close(self) -> None:
        self._bar.close()


def _shows_bars() -> bool:
    import importlib.util

    if importlib.util.find_spec("tqdm") is None:
        return False
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


def combined_fields(fields: Mapping[str, Any], part: Part, shape: tuple[int, ...]) -> tuple[Floats, Floats, Floats]:
    """psi, alpha, kappa of one part or of both, in the shape of the positions."""
    _known_part(part)
    if part == "total":
        chosen = tuple(a + b for a, b in zip(fields["smooth"], fields["network"], strict=True))
    else:
        chosen = fields[part]
    psi, alpha, kappa = chosen
    return psi.reshape(shape), alpha.reshape(2, *shape), kappa.reshape(shape)


def _known_part(part: str) -> None:
    if part not in ("total", "smooth", "network"):
        raise InvalidInput(f'part: found {part!r}, expected "total", "smooth" or "network"')


def _from_cube(cube: Floats, names: list[str], bounds: Floats, priors: Floats) -> Floats:
    """See `Model.prior_transform`. The columns of `priors`: mean, sigma, index of the other component of an ellipticity,
    index of the scalar that the mean follows, and its factor."""
    from statistics import NormalDist

    standard = NormalDist()
    theta = np.empty_like(cube)
    follows = priors[:, 3].astype(int)
    order = [i for i in range(len(names)) if follows[i] < 0]
    while len(order) < len(names):
        ready = [i for i in range(len(names)) if i not in order and follows[i] in order]
        if not ready:
            raise InvalidInput("prior_transform: found means of priors that follow each other, expected one without a relation")
        order += ready
    for i in order:
        (lower, upper), (mean, sigma, partner, _, factor) = bounds[i], priors[i]
        other = int(partner)
        if np.isfinite(sigma):
            if other >= 0:
                raise InvalidInput(f"{names[i]}: found a Gaussian prior without bounds on an ellipticity, expected bounds as well")
            center = mean + (factor * theta[:, follows[i]] if follows[i] >= 0 else np.zeros(len(cube)))
            below, above = (np.array([standard.cdf(z) for z in (end - center) / sigma]) for end in (lower, upper))
            inside = np.clip(below + cube[:, i] * (above - below), 1e-300, 1 - 1e-16)
            theta[:, i] = np.clip(center + sigma * np.array([standard.inv_cdf(p) for p in inside]), lower, upper)
        elif other >= 0:
            first, second = sorted((i, other))  # r² and the angle are flat
            turn = (np.cos if i == first else np.sin)(2 * np.pi * cube[:, second])
            theta[:, i] = np.sqrt(cube[:, first]) * turn
        elif np.isfinite(lower) and np.isfinite(upper):
            theta[:, i] = lower + cube[:, i] * (upper - lower)
        else:
            raise InvalidInput(f"{names[i]}: found a flat prior without an end, expected bounds or a Gaussian prior")
    return theta


def _from_arguments(toml: str, arrays: Arrays, truth: Arrays, threads: int) -> _core.LensModel:
    return _core.LensModel.from_arguments(toml, arrays, truth, threads)


def _from_exchange(format: str, source: str, ignore: list[str], threads: int) -> _core.LensModel:
    """From a file of COOLEST, or from lenstronomy's dictionaries as JSON. Files on the way are gone afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="einfield-") as folder:
        file = source
        if format == "lenstronomy":
            file = os.path.join(folder, "lenstronomy.json")
            with open(file, "w", encoding="utf-8") as stream:
                stream.write(source)
        try:
            return _core.LensModel.from_exchange(format, file, ignore, folder, threads)
        except InvalidInput as error:
            raise InvalidInput(str(error).replace(folder + os.sep, "")) from None


_MAKERS: dict[str, Callable[..., _core.LensModel]] = {
    "arguments": _from_arguments, "file": _core.LensModel.from_file, "exchange": _from_exchange}


def _restored(cls: type[Model], maker: str, arguments: tuple[Any, ...]) -> Model:
    model = cls.__new__(cls)
    model._begin(maker, arguments, warn=False)
    return model


def _as_json(dictionaries: Mapping[str, Any]) -> str:
    import json

    def plain(value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            return value.tolist()
        raise InvalidInput(f"dictionaries: found {type(value).__name__}, expected numbers, texts, lists, arrays, dictionaries")

    if not isinstance(dictionaries, Mapping):
        raise InvalidInput(f"dictionaries: found {type(dictionaries).__name__}, expected a dictionary of dictionaries")
    try:
        return json.dumps(dict(dictionaries), default=plain, allow_nan=False)
    except ValueError:
        raise InvalidInput("dictionaries: found a number that is not finite, expected finite numbers") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) or np.ndim(value) == 0


def _image(name: str, value: Any) -> Any:
    """An image as an array, or the name of a FITS file."""
    if isinstance(value, (str, os.PathLike)):
        return value
    array = as_array(name, value)
    if array.ndim != 2:
        raise InvalidInput(f"{name}: found shape {array.shape}, expected two dimensions, (ny, nx)")
    return array


def _truth(truth: Mapping[str, ArrayLike] | None) -> Arrays:
    known = ("image", "psi", "alpha", "kappa")
    for name in truth or {}:
        if name not in known:
            raise InvalidInput(f"truth.{name}: unknown name, expected {', '.join(known)}")
    return {name: as_array(f"truth.{name}", value) for name, value in (truth or {}).items()}


def _constrained(space: str) -> bool:
    if space not in ("constrained", "unconstrained"):
        raise InvalidInput(f'space: found {space!r}, expected "constrained" or "unconstrained"')
    return space == "constrained"


def _shaped(value: Floats, leading: tuple[int, ...]) -> Any:
    return value.reshape(leading) if leading else float(value[0])

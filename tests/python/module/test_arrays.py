"""What callers may pass in: layouts, types, bad values; and the messages that they get."""

import pickle
import re

import einfield
import numpy as np
import pytest
from conftest import LENS, PSF, SOURCE, small_model


def build(image, noise=1.0, psf=None, **more):
    return einfield.Model(image, noise, psf, 0.15, **{"lens": [LENS | {"fit": ["theta_E"]}], "source": [SOURCE]} | more)


@pytest.fixture
def image():
    return np.random.default_rng(2).normal(5.0, 1.0, (12, 14))


def test_any_layout_and_type_gives_the_same_model(image):
    image = np.round(image)  # the same number in every type
    expected = build(image)
    theta = np.linspace(0.9, 1.2, 3)[:, None]
    value, gradient = expected.value_and_grad(theta)
    wide = np.zeros((24, 28))
    wide[::2, ::2] = image
    read_only = image.copy()
    read_only.flags.writeable = False
    for other in [np.asfortranarray(image), wide[::2, ::2], image[::-1][::-1], image.astype(np.float32), image.astype(">f8"),
                  image.astype(np.int16), image.tolist(), read_only, image.astype(np.longdouble)]:
        np.testing.assert_array_equal(build(other).log_prob(theta), value)
    many = np.zeros((6, 2))
    many[::2, :1] = theta
    for points in [many[::2, :1], np.asfortranarray(theta), theta.tolist(), theta.astype(">f8")]:
        v, g = expected.value_and_grad(points)
        np.testing.assert_array_equal(v, value)
        np.testing.assert_array_equal(g, gradient)
    theta.flags.writeable = False
    np.testing.assert_array_equal(expected.log_prob(theta), value)


def test_the_model_has_its_own_copy(image):
    model = build(image)
    before = model.log_prob([1.1])
    image[:] = 0
    model.observation["image"][:] = 0
    model.initial[:] = 0
    assert model.log_prob([1.1]) == before


def test_batches_of_size_zero():
    model = small_model()
    value, gradient = model.value_and_grad(np.empty((0, model.size)))
    assert value.shape == (0,) and gradient.shape == (0, model.size)
    assert model.image(np.empty((2, 0, model.size))).shape == (2, 0, 24, 24)
    psi = model.potential(np.empty((0, 3)), np.empty((0, 3)))
    assert psi.shape == (0, 3)


def test_pixels_that_are_not_finite_are_masked_with_a_warning(image):
    image[3, 4] = np.nan
    image[5, 6] = np.inf
    with pytest.warns(einfield.EinfieldWarning, match=r"^image\[array\]: .*2 pixels"):
        model = build(image)
    assert model.observation["mask"].sum() == image.size - 2
    assert np.isfinite(model.log_prob([1.1]))
    assert np.isnan(model.residuals()).sum() == 2


@pytest.mark.parametrize("change, message", [
    ({"image": np.zeros((0, 5))}, r"image: size out of range, found shape \(0, 5\), expected 1 to 16384 pixels a side"),
    ({"image": np.zeros(5)}, r"image: found shape \(5,\), expected two dimensions, \(ny, nx\)"),
    ({"image": np.zeros((2, 5, 5))}, r"image: found shape \(2, 5, 5\), expected two dimensions"),
    ({"image": np.full((5, 5), "a")}, r"image: wrong type, found <U1, expected real numbers"),
    ({"image": np.ones((5, 5), complex)}, r"image: wrong type, found complex128, expected real numbers"),
    ({"image": [[1.0, 2.0], [3.0]]}, r"image: not an array, "),
    ({"image": np.ma.masked_array(np.ones((5, 5)), np.eye(5))}, r"image: a masked array, expected a plain array"),
    ({"image": np.full((12, 14), np.nan)}, r"image\[array\]: every pixel is masked"),
    ({"noise": np.ones((5, 5))}, r"noise\[array\]: different shape, found 5 x 5 pixels, expected 14 x 12 as in image\[array\]"),
    ({"noise": -1.0}, r"^observation.noise: out of range, found -1"),
    ({"noise": np.zeros((12, 14))}, r"noise\[array\]: invalid noise, found 0 at column 1, row 1"),
    ({"noise": None}, r"observation.noise: missing"),
    ({"psf": np.ones((4, 4))}, r"psf\[array\]: a PSF of even size, found 4 x 4 pixels"),
    ({"psf": -np.ones((3, 3))}, r"psf\[array\]: the PSF sums to -9"),
    ({"psf": {"fwhm": -1.0}}, r"observation.psf.fwhm: out of range, found -1.0 arcsec, expected a number > 0 arcsec"),
    ({"mask": np.full((12, 14), 2.0)}, r"mask\[array\]: a mask value other than 0 and 1, found 2"),
    ({"mask": np.zeros((12, 14))}, r"mask"),
    ({"lens": [{"profile": "SIE"}]}, r"^lens.0.theta_E: missing, expected number > 0 arcsec"),
    ({"lens": [{"profile": "SEI", "theta_E": 1.0}]}, r"^lens.0.profile: .*SEI.*SIE"),
    ({"lens": [LENS | {"thetaE": 1.0}]}, r"^lens.0.thetaE: unknown key, found thetaE, expected theta_E"),
    ({"lens": [LENS | {"theta_E": "big"}]}, r"^lens.0.theta_E: wrong type"),
    ({"lens": [LENS | {"fit": ["e3"]}]}, r"^lens.0.fit: .*e3"),
    ({"lens": LENS}, r"lens: found dict, expected a list of dictionaries"),
    ({"lens": [1.0]}, r"lens.0: found float, expected a dictionary"),
    ({"lens": [LENS | {"theta_E": np.ones((2, 2))}]}, r"lens.0.theta_E: "),
    ({"source": []}, r"^source: missing, expected at least one"),
    ({"source": [{"profile": "PIXELATED", "nx": 3, "ny": 4, "pixel_scale": 0.3, "image": np.ones((3, 4))}]},
     r"source.0.image\[array\]: different shape, found 4 x 3 pixels, expected 3 x 4"),
    ({"optimizer": {"step": 3}}, r"^optimizer.step: unknown key, found step, expected steps"),
    ({"observation": {"mask": 1}, "mask": np.ones((12, 14))}, r"observation.mask: found twice"),
    ({"recipe": "best"}, r"^recipe: .*best"),
    ({"threads": -1}, r"threads"),
])
def test_bad_arguments_get_one_line(image, change, message):
    with pytest.raises(einfield.InvalidInput, match=message) as raised:
        build(**{"image": image} | change)
    text = str(raised.value)
    assert "\n" not in text and "<arguments>" not in text and "std::" not in text


@pytest.mark.parametrize("theta, message", [
    ([1.0, 2.0], r"theta: found shape \(2,\), expected \(\.\.\., 10\)"),
    (1.0, r"theta: found shape \(\), expected \(\.\.\., 10\)"),
    (np.full((3, 10), np.nan), r"theta: lens.0.theta_E of point 0 = nan, expected a finite number"),
    ([1.0] * 9 + [np.inf], r"theta: source.0.e1 = inf, expected a finite number"),
    (["a"] * 10, r"theta: wrong type, found <U1"),
])
def test_bad_points_get_one_line(theta, message):
    with pytest.raises(einfield.InvalidInput, match=message):
        small_model().value_and_grad(theta)


def test_other_bad_calls_get_one_line():
    model = small_model()
    for call, message in [
        (lambda: model.log_prob(model.initial, space="bounded"), 'space: found .bounded., expected "constrained"'),
        (lambda: model.deflection(1.0, np.nan), "y: found nan, expected finite positions"),
        (lambda: model.deflection([1.0, 2.0], [1.0, 2.0, 3.0]), "x: found shape"),
        (lambda: model.potential(0.0, 0.0, part="all"), "part: found 'all', expected"),
        (lambda: model.einstein_radius(np.ones((2, model.size))), "expected one point"),
        (lambda: einfield.fit(model, precision="half"), "precision: found 'half'"),
        (lambda: einfield.fit(model, backend="gpu"), 'backend: found .gpu., expected "auto", "cpu" or "cuda"'),
        (lambda: einfield.fit(model, device="0"), "device: found '0', expected a whole number"),
        (lambda: einfield.fit(model, threads=1.5), "threads: found 1.5, expected a whole number"),
        (lambda: einfield.fit(model, threads=5000), "threads"),
        (lambda: einfield.fit(model, log_every=0), "log_every: found 0, expected at least 1"),
        (lambda: einfield.fit(model, progress=3), "progress: found 3, expected True, False, None or a function"),
        (lambda: einfield.fit("lens.toml"), "model: found str, expected einfield.Model"),
        (lambda: einfield.Model.from_toml("/nowhere.toml", threads=None), "threads: found None, expected a whole number"),
        (lambda: einfield.Model.from_toml("/nowhere.toml"), "/nowhere.toml: no such file"),
        (lambda: einfield.Model.from_toml("/nowhere.toml", set={1: 2}), "set: found the key 1, expected names"),
        (lambda: einfield.Model(np.ones((5, 5)), 1.0), "pixel_scale: missing, expected a number > 0 arcsec"),
        (lambda: einfield.Result(), "made by einfield.fit and einfield.open_result only"),
        (lambda: einfield.open_result("/nowhere"), "/nowhere"),
        (lambda: einfield.simulate(lens=[LENS], source=[SOURCE], nx=10, ny=10, noise=1.0), "observation.pixel_scale: missing"),
        (lambda: einfield.simulate(lens=[LENS], source=[SOURCE], nx=0, ny=10, noise=1.0, pixel_scale=0.1), "simulate.nx"),
    ]:
        with pytest.raises(einfield.InvalidInput, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_cuda_is_refused_by_name():
    """In a build without CUDA; with it and without a device the same class of error says so."""
    with pytest.raises(einfield.BackendUnavailable, match="(?i)cuda"):
        einfield.fit(small_model(), backend="cuda", device=0)


def test_errors_are_those_of_python_as_well():
    assert issubclass(einfield.InvalidInput, ValueError) and issubclass(einfield.IoError, OSError)
    assert issubclass(einfield.NotBuilt, einfield.BackendUnavailable)
    assert all(issubclass(getattr(einfield, name), einfield.Error) for name in ("InvalidInput", "IoError", "CudaError", "NumericalError"))


def test_a_pickled_model_has_the_same_bits(image):
    model = build(image, psf=PSF, truth={"kappa": np.zeros((12, 14))})
    again = pickle.loads(pickle.dumps(model))
    assert again.names == model.names
    assert again.log_prob([1.1]) == model.log_prob([1.1])


def test_nothing_is_printed(image, capfd):
    model = build(image)
    model.value_and_grad([1.1])
    einfield.fit(model, progress=False)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_repr_is_short():
    assert re.fullmatch(r"<einfield.Model: 24 x 24 pixels of 0.15 arcsec, \d+ free parameters, \d+ of them scalars>",
                        repr(small_model()))

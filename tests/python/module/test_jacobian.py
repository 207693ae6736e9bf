"""The Jacobian of the residuals: against the gradient of the adjoints, finite differences and the data themselves."""

import einfield
import numpy as np
import pytest
from conftest import LENS, PSF, SHEAR, SOURCE, near, small_data, small_model

PIXELS = {"profile": "PIXELATED", "nx": 9, "ny": 7, "pixel_scale": 0.3, "value": 1.0, "fit": "all"}
NETWORK = {"hidden": [5, 4], "last_layer": "random", "ensemble": 1}
NO_PENALTY = dict.fromkeys(["smoothness", "curvature", "negative_convergence", "negative_total_convergence"], 0.0)
ENCODING = 2 * 6 + 6  # weights of three sines and three cosines, which are never fitted


def model_of(kind):
    """Every kind of parameter."""
    data = small_data(20)
    free = {"fit": "all"}
    arguments = {"lens": [LENS | free, SHEAR | {"fit": ["gamma1", "gamma2"]}], "source": [SOURCE | free], "threads": 2,
                 "regularization": NO_PENALTY}
    if kind == "pixels":
        arguments |= {"source": [PIXELS], "lens_light": [PIXELS | {"nx": 4, "ny": 5}]}
    elif kind == "network":
        arguments |= {"network": NETWORK | {"encoding": "none"}, "supersampling": 2}
    elif kind == "encoded network":
        arguments |= {"network": NETWORK | {"encoding": "fourier", "fourier_features": 3}}
    elif kind == "network light":
        arguments |= {"source": [{"profile": "NETWORK", "amp": 3.0, "hidden": [4, 3], "fit": "all"}]}
    elif kind == "fine psf":
        kernel = np.outer([1, 2, 4, 2, 1], [1, 3, 5, 3, 1])
        arguments |= {"supersampling": 4, "observation": {"psf_supersampling": 2}, "mask": 1.0 - np.eye(20), "psf": kernel / kernel.sum()}
    elif kind == "tied":
        arguments |= {"source": [SOURCE | free], "lens_light": [
            {"profile": "GAUSSIAN", "amp": 2.0, "sigma": 0.3, "center_x": "lens.0.center_x", "fit": ["amp", "sigma"]}]}
    psf = arguments.pop("psf", data.psf)
    return einfield.Model(data.image, data.noise, psf, data.pixel_scale, **arguments)


KINDS = ["smooth", "pixels", "network", "encoded network", "network light", "fine psf", "tied"]


def central_differences(f, theta, step):
    columns = []
    for i in range(theta.size):
        h = step * max(1.0, abs(theta[i]))
        up, down = theta.copy(), theta.copy()
        up[i] += h
        down[i] -= h
        columns.append((f(up) - f(down)) / (up[i] - down[i]))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("space", ["constrained", "unconstrained"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_jacobian_is_that_of_finite_differences(kind, space):
    model = model_of(kind)
    theta = near(model, 1)[0]
    point = theta if space == "constrained" else model.unconstrain(theta)
    found = model.jacobian(point, space=space)
    assert found.shape == (20, 20, model.size)
    expected = central_differences(lambda t: model.residuals(t, space=space), point, 1e-6)
    if kind == "encoded network":
        expected[..., :ENCODING] = 0
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    used = model.observation["mask"] != 0
    scale = np.max(np.abs(expected[used]))
    # The cusp in the middle of a Sersic is not smooth: differences are off there, and the test below is exact.
    rows = np.abs(found[used] - expected[used]).max(axis=-1) < 2e-6 * scale
    assert rows.mean() > 0.97, rows.mean()
    assert np.all(np.abs(found[used]).max(axis=0)[np.abs(expected[used]).max(axis=0) > 1e-3 * scale] > 0)


@pytest.mark.parametrize("space", ["constrained", "unconstrained"])
@pytest.mark.parametrize("kind", KINDS)
def test_its_product_with_the_residuals_is_the_gradient_of_the_adjoints(kind, space):
    """d ln L = -rᵀ J: two ways through the library. Models without priors: the posterior is the likelihood."""
    model = model_of(kind)
    theta = near(model, 2, seed=4)
    points = theta if space == "constrained" else model.unconstrain(theta)
    gradient = model.value_and_grad(points, space=space, jacobian=False)[1]
    used = model.observation["mask"] != 0
    for point, expected in zip(points, gradient, strict=True):
        product = -model.residuals(point, space=space)[used] @ model.jacobian(point, space=space)[used]
        np.testing.assert_allclose(product, expected, rtol=1e-8, atol=1e-9 * np.max(np.abs(expected)))


def test_a_batch_and_threads_give_the_same_bits():
    many, one = small_model(threads=3), small_model(threads=1)
    theta = near(one, 4).reshape(2, 2, -1)
    batch = many.jacobian(theta)
    assert batch.shape == (2, 2, 24, 24, one.size)
    for index in np.ndindex(2, 2):
        np.testing.assert_array_equal(batch[index], one.jacobian(theta[index]))
    np.testing.assert_array_equal(one.jacobian(), one.jacobian(one.initial))
    assert one.jacobian(np.empty((0, one.size))).shape == (0, 24, 24, one.size)


def test_least_squares_by_its_columns_find_the_lens():
    """Gauss-Newton by hand."""
    data = small_data(30)
    model = einfield.Model(data.image, data.noise, PSF, data.pixel_scale, lens=[LENS | {"theta_E": 1.12, "fit": ["theta_E", "e1"]}],
                           source=[SOURCE | {"amp": 7.0, "fit": ["amp", "center_x"]}])
    used = model.observation["mask"] != 0
    theta = model.initial
    for _ in range(20):
        step, *_ = np.linalg.lstsq(model.jacobian(theta)[used], -model.residuals(theta)[used], rcond=None)
        theta = theta + step
    assert np.max(np.abs(step)) < 1e-6
    value, gradient = model.value_and_grad(theta)
    assert value > model.log_prob(model.initial) + 10
    assert np.max(np.abs(gradient)) < 1e-3 * np.max(np.abs(model.value_and_grad(model.initial)[1]))


def test_outside_of_the_bounds_is_one_line():
    model = small_model()
    with pytest.raises(einfield.InvalidInput, match=r"theta: lens.0.theta_E = -1, expected > 0"):
        model.jacobian(model.pack(model.unpack(model.initial) | {"lens.0.theta_E": -1.0}))

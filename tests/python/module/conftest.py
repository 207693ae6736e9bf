"""Small lenses for the tests of the Python module."""

import pathlib

import einfield
import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"

LENS = {"profile": "SIE", "theta_E": 1.1, "e1": 0.12, "e2": -0.07, "center_x": 0.02, "center_y": -0.03}
SHEAR = {"profile": "SHEAR", "gamma1": 0.03, "gamma2": -0.02}
SOURCE = {"profile": "SERSIC_ELLIPSE", "amp": 8.0, "R_sersic": 0.4, "n_sersic": 1.2, "e1": -0.1, "e2": 0.05, "center_x": 0.15,
          "center_y": 0.1}
PSF = {"fwhm": 0.2, "size": 5}


def small_data(side=24, seed=3):
    """An image of the smooth lens, with noise."""
    return einfield.simulate(lens=[LENS, SHEAR], source=[SOURCE], nx=side, ny=side, pixel_scale=0.15, psf=PSF, noise=0.5,
                             seed=seed)


def small_model(threads=1, side=24, **changes):
    """Every kind of transform: positive, an ellipticity with both or one component free, an interval, none; bounds, priors."""
    data = small_data(side)
    arguments = {
        "lens": [LENS | {"fit": ["theta_E", "e1", "e2", "center_x"], "bounds": {"center_x": (-0.3, 0.4)},
                         "prior": {"theta_E": {"mean": 1.0, "sigma": 0.1}}},
                 SHEAR | {"fit": ["gamma1", "gamma2"]}],
        "source": [SOURCE | {"fit": ["amp", "R_sersic", "n_sersic", "e1"]}],
        "threads": threads} | changes
    return einfield.Model(data.image, data.noise, data.psf, data.pixel_scale, **arguments)


@pytest.fixture(scope="session")
def model():
    return small_model()


@pytest.fixture(scope="session")
def data():
    return small_data()


def near(model, n=3, seed=1, scale=0.02):
    """Points around the start, inside of every range."""
    rng = np.random.default_rng(seed)
    u = model.unconstrain(model.initial)
    return model.constrain(u + scale * rng.standard_normal((n, model.size)))

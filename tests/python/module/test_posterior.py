"""Likelihood, posterior, gradients and images: against C++, finite differences, and numbers of lenstronomy."""

import json
import os
import subprocess

import einfield
import numpy as np
import pytest
from conftest import GOLDEN, LENS, PSF, SHEAR, SOURCE, near, small_data, small_model


def central_differences(f, theta, step=1e-5):
    gradient = np.empty_like(theta)
    for i in range(theta.size):
        h = step * max(1.0, abs(theta[i]))
        up, down = theta.copy(), theta.copy()
        up[i] += h
        down[i] -= h
        gradient[i] = (f(up) - f(down)) / (up[i] - down[i])
    return gradient


@pytest.mark.parametrize("space", ["constrained", "unconstrained"])
@pytest.mark.parametrize("jacobian", [True, False])
def test_gradient_is_that_of_finite_differences(model, space, jacobian):
    for theta in near(model, 4):
        point = theta if space == "constrained" else model.unconstrain(theta)
        value, gradient = model.value_and_grad(point, space=space, jacobian=jacobian)
        expected = central_differences(lambda t: model.log_prob(t, space=space, jacobian=jacobian), point)
        assert value == model.log_prob(point, space=space, jacobian=jacobian)
        assert np.max(np.abs(gradient - expected)) < 2e-6 * np.max(np.abs(expected))
        # Each entry by itself as well: small ones must not hide behind a large one.
        np.testing.assert_allclose(gradient, expected, rtol=2e-4, atol=2e-6 * np.max(np.abs(expected)))


def test_the_volume_is_that_of_the_transform(model):
    """log |d theta / d u| from the determinant of finite differences."""
    for theta in near(model, 3, scale=0.3):
        u = model.unconstrain(theta)
        step = 1e-6
        jacobian = np.stack([(model.constrain(u + step * e) - model.constrain(u - step * e)) / (2 * step)
                             for e in np.eye(model.size)], axis=1)
        with_it = model.log_prob(u, space="unconstrained", jacobian=True)
        without = model.log_prob(u, space="unconstrained", jacobian=False)
        assert with_it - without == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-6)
        # Its gradient, which is small beside that of the likelihood.
        gradient = np.subtract(*(model.value_and_grad(u, space="unconstrained", jacobian=j)[1] for j in (True, False)))
        volume = lambda v: np.subtract(*(model.log_prob(v, space="unconstrained", jacobian=j) for j in (True, False)))  # noqa: E731
        np.testing.assert_allclose(gradient, central_differences(volume, u, 1e-4), rtol=1e-5, atol=1e-5)


def saved_config(model, folder):
    """A configuration file of the same model, whose data are those of a saved fit."""
    einfield.fit(model, precision="double", threads=1).save(folder / "fit", figures=False)
    config = folder / "again.toml"
    config.write_text(einfield.open_result(folder / "fit").info["config_toml"])
    return config


@pytest.mark.skipif("EINFIELD_GRADIENT" not in os.environ, reason="EINFIELD_GRADIENT names no C++ program")
@pytest.mark.parametrize("kind", ["smooth", "network", "pixels"])
def test_gradient_has_the_bits_of_cpp(tmp_path, kind):
    data = small_data()  # the PSF as a profile: a kernel from a file is normalized once more
    free = {"fit": "all"}
    more = {}
    source = SOURCE | free
    if kind == "network":
        more = {"network": {"hidden": [8, 8], "encoding": "none", "last_layer": "random", "ensemble": 1}}
    if kind == "pixels":
        source = {"profile": "PIXELATED", "nx": 9, "ny": 7, "pixel_scale": 0.3, "value": 1.0, "fit": "all"}
    model = einfield.Model(data.image, data.noise, PSF, data.pixel_scale, lens=[LENS | free, SHEAR | free],
                           source=[source], threads=2, optimizer={"steps": 1}, **more)
    # The same data and model for C++, from files.
    config = saved_config(model, tmp_path)
    rng = np.random.default_rng(5)
    u = model.unconstrain(model.initial) + 0.01 * rng.standard_normal(model.size)
    numbers = subprocess.run([os.environ["EINFIELD_GRADIENT"], config, *(float(x).hex() for x in u)], check=True, text=True,
                             capture_output=True).stdout.split()
    expected = np.array([float.fromhex(x) for x in numbers])
    value, gradient = model.value_and_grad(u, space="unconstrained", jacobian=False)
    assert expected.size == model.size + 1
    assert value == expected[0]
    np.testing.assert_array_equal(gradient, expected[1:])


def test_a_batch_has_the_bits_of_its_points():
    many, one = small_model(threads=4), small_model(threads=1)
    theta = near(one, 6).reshape(2, 3, one.size)
    value, gradient = many.value_and_grad(theta)
    assert value.shape == (2, 3) and gradient.shape == theta.shape
    images = many.image(theta)
    assert images.shape == (2, 3, 24, 24)
    for index in np.ndindex(2, 3):
        v, g = one.value_and_grad(theta[index])
        assert isinstance(v, float) and v == value[index]
        np.testing.assert_array_equal(g, gradient[index])
        np.testing.assert_array_equal(one.image(theta[index]), images[index])


def test_log_likelihood_is_half_of_chi2_and_priors_are_added(model, data):
    theta = near(model, 1)[0]
    residuals = (model.image(theta) - data.image) / data.noise
    chi2 = np.sum(residuals**2)
    assert model.log_likelihood(theta) == pytest.approx(-chi2 / 2, rel=1e-12)
    prior = -0.5 * ((model.unpack(theta)["lens.0.theta_E"] - 1.0) / 0.1)**2
    assert model.log_prob(theta) - model.log_likelihood(theta) == pytest.approx(prior, rel=1e-7)
    np.testing.assert_allclose(model.residuals(theta), -residuals, rtol=1e-10, atol=1e-10)


def test_outside_of_a_range_the_density_is_zero(model):
    theta = model.initial
    lower, upper = model.bounds.T
    assert np.all(lower < theta) and np.all(theta < upper)
    for name, value in [("lens.0.theta_E", -0.1), ("lens.0.theta_E", 0.0), ("lens.0.center_x", 0.4), ("lens.0.e1", 0.999),
                        ("source.0.n_sersic", 11.0), ("source.0.amp", -1.0)]:
        outside = model.pack(model.unpack(theta) | {name: value, "lens.0.e2": 0.2})
        value, gradient = model.value_and_grad(outside)
        assert value == -np.inf and np.all(gradient == 0)
        assert model.log_likelihood(outside) == -np.inf
        with pytest.raises(einfield.InvalidInput, match=f"theta: {name} = "):
            model.image(outside)
    far = model.unconstrain(theta)
    far[model.names.index("source.0.amp")] = 800.0  # e^800 is no number
    assert model.log_prob(far, space="unconstrained") == -np.inf


def test_the_prior_transform_follows_the_priors():
    ends = {"center_x": (-0.3, 0.4), "center_y": (-0.2, 0.2), "theta_E": (1.05, 3.0)}
    normal = {"theta_E": {"mean": 1.0, "sigma": 0.1}, "center_y": {"mean": 0.0, "sigma": 5.0}}
    model = small_model(lens=[LENS | {"fit": "all", "bounds": ends, "prior": normal}],
                        source=[SOURCE | {"fit": ["n_sersic"]}])
    assert model.names == [f"lens.0.{p}" for p in ("theta_E", "e1", "e2", "center_x", "center_y")] + ["source.0.n_sersic"]
    cube = np.random.default_rng(4).uniform(size=(4000, 6))
    theta = model.prior_transform(cube)
    assert np.isfinite(model.log_prob(theta)).all()  # inside of every range
    # The volume that a point stands for is one over the density of the priors, up to one constant.
    density = []
    for c, t in zip(cube[:20], theta[:20], strict=True):
        steps = np.stack([(model.prior_transform(np.clip(c + 1e-6 * e, 0, 1)) - model.prior_transform(np.clip(c - 1e-6 * e, 0, 1))) / 2e-6
                          for e in np.eye(6)], axis=1)
        density.append(-np.linalg.slogdet(steps)[1] - (model.log_prob(t) - model.log_likelihood(t)))
    assert np.ptp(density) < 1e-4
    assert np.mean(theta[:, 1]**2 + theta[:, 2]**2) == pytest.approx(0.5, abs=0.02)
    assert np.mean(theta[:, 3]) == pytest.approx(0.05, abs=0.02)
    np.testing.assert_array_equal(model.prior_transform(cube[0]), theta[0])
    with pytest.raises(einfield.InvalidInput, match="lens.0.center_x: found a flat prior without an end, expected bounds"):
        small_model(lens=[LENS | {"fit": ["center_x"]}], source=[SOURCE]).prior_transform([0.5])
    with pytest.raises(einfield.InvalidInput, match="cube: found a number outside"):
        model.prior_transform(np.full(6, 1.5))


def test_parameters_and_priors_follow_others():
    light = {"profile": "MULTI_GAUSSIAN_ELLIPSE", "amp": 6.0, "components": 3, "sigma_min": 0.05, "sigma_max": 0.8,
             "center_x": "lens.0.center_x", "center_y": "lens.0.center_y", "fit": "all"}
    lens = LENS | {"e1": "0.5 * lens_light.0.e1", "e2": "0.5 * lens_light.0.e2", "fit": "all",
                   "prior": {"center_x": {"mean": 0.01, "sigma": 0.02}, "theta_E": {"mean": "lens.0.center_x + 1", "sigma": 0.1},
                             "center_y": {"mean": "2 * lens.0.theta_E - 2", "sigma": 0.1}}}
    model = small_model(lens=[lens], source=[SOURCE], lens_light=[light])
    assert model.names == ["lens.0.theta_E", "lens.0.center_x", "lens.0.center_y", "lens_light.0.amp", "lens_light.0.e1",
                           "lens_light.0.e2", "lens_light.1.amp", "lens_light.2.amp"]
    theta = model.initial.copy()
    theta[model.names.index("lens_light.0.e1")] = 0.3
    theta[model.names.index("lens.0.center_x")] = 0.04
    blocks = model.components(theta)
    assert blocks["lens"][0]["e1"] == pytest.approx(0.15)
    assert [c["center_x"] for c in blocks["lens_light"]] == pytest.approx([0.04] * 3)
    value, gradient = model.value_and_grad(theta)
    np.testing.assert_allclose(gradient, central_differences(model.log_prob, theta),
                               rtol=2e-4, atol=2e-6 * np.max(np.abs(gradient)))
    assert value == model.log_prob(theta)
    with pytest.raises(einfield.InvalidInput, match="lens.0.e1: no such parameter"):
        small_model(lens=[LENS | {"e1": "lens.1.e1"}], source=[SOURCE])

    priors = small_model(lens=[lens | {"e1": 0.0, "e2": 0.0, "fit": ["theta_E", "center_x", "center_y"]}], source=[SOURCE])
    middle = priors.prior_transform([0.5, 0.5, 0.5])
    assert middle == pytest.approx([1.01, 0.01, 0.02], abs=1e-6)  # a theta_E below 0 has no part in the prior
    outer = priors.prior_transform([0.5, 0.8413447460685429, 0.5])  # center_x one sigma above its mean
    assert outer == pytest.approx([1.03, 0.03, 0.06], abs=1e-6)


def test_images_are_those_of_lenstronomy():
    golden = json.loads((GOLDEN / "sie_perturber_crop.json").read_text())
    macro = {"profile": "SIE", "theta_E": 1.6, "e1": 0.15, "e2": -0.04}
    mass = {"profile": "SIE", "theta_E": 0.15, "e1": 0.0, "e2": 0.3, "center_x": 1.9, "center_y": -1.4}
    source = {"profile": "SERSIC_ELLIPSE", "amp": 10.0, "R_sersic": 1.2, "radius": "major_axis", "n_sersic": 1.5, "e1": -0.09,
              "e2": 0.03, "center_x": 0.4, "center_y": 0.15}
    psf = {"fwhm": 0.2, "size": 13}
    rows, columns = (slice(golden[k], golden[k] + golden["size"]) for k in ("row", "column"))
    expected = {k: np.reshape(golden[k], (12, 12)) for k in ("CONV", "PERPSI", "PERAX", "PERAY", "PERKAPPA")}

    model = einfield.Model(np.ones((100, 100)), 2.0, psf, 0.08, lens=[macro, mass], source=[source])
    np.testing.assert_allclose(model.image()[rows, columns], expected["CONV"], atol=1e-10)
    alone = einfield.Model(np.ones((100, 100)), 2.0, psf, 0.08, lens=[mass], source=[source])
    x, y = (c[rows, columns] for c in alone.coordinates)
    alpha_x, alpha_y = alone.deflection(x, y)
    np.testing.assert_allclose(alone.potential(x, y), expected["PERPSI"], atol=1e-13)
    np.testing.assert_allclose(alpha_x, expected["PERAX"], atol=1e-13)
    np.testing.assert_allclose(alpha_y, expected["PERAY"], atol=1e-13)
    np.testing.assert_allclose(alone.convergence(x, y), expected["PERKAPPA"], atol=1e-12)

    made = einfield.simulate(lens=[macro], perturbation=[mass], source=[source], nx=100, ny=100, pixel_scale=0.08, psf=psf,
                             noise=2.0, seed=1)
    np.testing.assert_allclose(made.truth["image"][rows, columns], expected["CONV"], atol=1e-10)
    np.testing.assert_allclose(made.truth["kappa"][rows, columns], expected["PERKAPPA"], atol=1e-12)
    assert np.std((made.image - made.truth["image"]) / made.noise) == pytest.approx(1.0, abs=0.03)


def test_fields_of_every_lens_are_those_of_lenstronomy():
    golden = json.loads((GOLDEN / "profiles.json").read_text())["profiles"]
    x, y = np.array(golden["points"]).T
    checked = 0
    for case in golden["profiles"]:
        parameters = dict(case["params"])
        model = einfield.Model(np.ones((5, 5)), 1.0, None, 0.2, lens=[{"profile": case["name"], **parameters}],
                               source=[SOURCE])
        alpha_x, alpha_y = model.deflection(x, y)
        scale = np.max(np.abs(case["ax"])) + np.max(np.abs(case["ay"]))
        np.testing.assert_allclose(alpha_x, case["ax"], rtol=1e-9, atol=1e-9 * scale)
        np.testing.assert_allclose(alpha_y, case["ay"], rtol=1e-9, atol=1e-9 * scale)
        if "g1" in case:
            gamma = np.array(model.shear(x, y))
            np.testing.assert_allclose(gamma, [case["g1"], case["g2"]], rtol=1e-8, atol=1e-9)
            expected = 1 / ((1 - np.array(case["kappa"]))**2 - np.sum(gamma**2, axis=0))
            np.testing.assert_allclose(model.magnification(x, y), expected, rtol=1e-6)
        checked += 1
    assert checked >= 10


def test_einstein_radius_and_critical_curves():
    sis = {"profile": "SIS", "theta_E": 0.9, "fit": ["theta_E"]}
    model = einfield.Model(np.ones((60, 60)), 1.0, None, 0.06, lens=[sis], source=[SOURCE])
    assert model.einstein_radius() == pytest.approx(0.9, abs=1e-3)
    assert model.einstein_radius([0.7]) == pytest.approx(0.7, abs=1e-3)
    image, source = model.critical_curves()[0]
    np.testing.assert_allclose(np.hypot(*image.T), 0.9, atol=1e-6)
    assert np.max(np.hypot(*source.T)) < 1e-6


def test_a_network_counts_in_fields_and_is_part_of_theta():
    data = small_data()
    model = einfield.Model(data.image, data.noise, data.psf, data.pixel_scale, lens=[LENS | {"fit": ["theta_E"]}],
                           source=[SOURCE], network={"hidden": [6], "encoding": "none", "last_layer": "random"}, threads=1)
    assert model.names == ["lens.0.theta_E"] and model.size == 6 * 2 + 6 + 6 + 1 + 1
    values = model.unpack(model.initial)
    np.testing.assert_array_equal(model.pack(values), model.initial)
    x, y = np.array([0.3, -1.0]), np.array([0.8, 0.2])
    total, smooth, network = (model.deflection(x, y, part=p)[0] for p in ("total", "smooth", "network"))
    np.testing.assert_array_equal(total, smooth + network)
    step = 1e-5
    slope = (model.potential(x + step, y, part="network") - model.potential(x - step, y, part="network")) / (2 * step)
    np.testing.assert_allclose(network, slope, rtol=1e-6)
    assert np.all(network != 0)
    gamma1, gamma2 = model.shear(x, y, part="network")
    h = 1e-4
    right, left, up, down = (np.array(model.deflection(x + dx, y + dy, part="network"))
                             for dx, dy in ((h, 0), (-h, 0), (0, h), (0, -h)))
    np.testing.assert_allclose(gamma1, (right - left - (up - down)[::-1])[0] / (4 * h), rtol=1e-5)
    np.testing.assert_allclose(gamma2, (right - left)[1] / (2 * h), rtol=1e-5)
    both = [np.array(model.shear(x, y, part=p)) for p in ("total", "smooth", "network")]
    np.testing.assert_array_equal(both[0], both[1] + both[2])
    value, gradient = model.value_and_grad(model.initial)
    expected = central_differences(model.log_prob, model.initial)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=3e-6 * np.max(np.abs(expected)))


def test_the_configuration_names_arrays(model):
    lines = model.to_toml().splitlines()
    assert all(f'{name} = "{name}"' in lines for name in ("image", "noise", "psf"))
    assert 'profile = "SIE"' in lines


def test_pack_unpack_and_components(model):
    theta = near(model, 1)[0]
    values = model.unpack(theta)
    assert list(values) == model.names
    np.testing.assert_array_equal(model.pack(values), theta)
    np.testing.assert_allclose(model.constrain(model.unconstrain(theta)), theta, rtol=1e-12)
    lens = model.components(theta)["lens"]
    assert [c["profile"] for c in lens] == ["SIE", "SHEAR"]
    assert lens[0]["theta_E"] == pytest.approx(values["lens.0.theta_E"], rel=1e-12)
    assert lens[0]["center_y"] == LENS["center_y"]  # fixed
    with pytest.raises(einfield.InvalidInput, match="lens.0.theta_e: not a free parameter, expected lens.0.theta_E"):
        model.pack(values | {"lens.0.theta_e": 1.0})
    del values["source.0.amp"]
    with pytest.raises(einfield.InvalidInput, match="source.0.amp: missing"):
        model.pack(values)
    with pytest.raises(einfield.InvalidInput, match=r"source.0.amp: found shape \(2,\), expected one number"):
        model.pack(model.unpack(theta) | {"source.0.amp": [1.0, 2.0]})


def test_a_configuration_gives_the_same_model(tmp_path):
    (tmp_path / "lens.toml").write_text(f"""
[observation]
image = "lens.fits[IMAGE]"
noise = "lens.fits[NOISE]"
psf = {{ fwhm = {PSF['fwhm']}, size = {PSF['size']} }}
pixel_scale = 0.15
[[lens]]
profile = "SIE"
theta_E = 1.1
fit = ["theta_E"]
[[source]]
profile = "GAUSSIAN"
amp = 5.0
sigma = 0.2
[simulate]
nx = 20
ny = 18
noise = 0.3
""")
    made = einfield.simulate(tmp_path / "lens.toml")
    assert made.image.shape == (18, 20)
    with pytest.raises(einfield.InvalidInput, match="lens.fits"):
        einfield.Model.from_toml(tmp_path / "lens.toml")  # no data yet
    with pytest.raises(einfield.InvalidInput, match=r"lens.toml:9: lens.0.theta_E|--set: lens.0.theta_E"):
        einfield.Model.from_toml(tmp_path / "lens.toml", set={"lens.0.theta_E": -1.0})
    lens = [{"profile": "SIE", "theta_E": 1.1, "fit": ["theta_E"]}]
    source = [{"profile": "GAUSSIAN", "amp": 5.0, "sigma": 0.2}]
    model = einfield.Model(made.image, 0.3, PSF, 0.15, lens=lens, source=source)
    again = einfield.Model.from_toml(saved_config(model, tmp_path), set={"lens.0.theta_E": 1.1})
    theta = np.array([[1.0], [1.2]])
    np.testing.assert_array_equal(again.log_prob(theta), model.log_prob(theta))

"""Fits from arrays, their results in memory and on disk, and simulations."""

import json
import os
import signal
import sys
import threading
import time

import einfield
import numpy as np
import pytest
from conftest import LENS, PSF, SHEAR, SOURCE, small_data

FREE_LENS = [LENS | {"fit": "all", "theta_E": 1.0, "e1": 0.0, "e2": 0.0}, SHEAR | {"fit": ["gamma1", "gamma2"], "gamma1": 0.0, "gamma2": 0.0}]
FREE_SOURCE = [SOURCE | {"fit": ["amp", "R_sersic", "center_x", "center_y"], "R_sersic": 0.6, "amp": 5.0}]
ADAM = {"name": "adam", "steps": 100000, "stop": "none"}


def smooth_model(**more):
    data = small_data(side=40)
    return einfield.Model(data.image, data.noise, data.psf, data.pixel_scale,
                          **{"lens": FREE_LENS, "source": FREE_SOURCE, "threads": 1} | more)


@pytest.fixture(scope="module")
def fitted():
    return einfield.fit(smooth_model(optimizer={"name": "levenberg_marquardt"}), precision="double", threads=1)


@pytest.fixture(scope="module")
def with_network():
    data = einfield.simulate(lens=[LENS], source=[SOURCE], nx=30, ny=30, pixel_scale=0.12, psf=PSF, noise=0.2, seed=1,
                             perturbation=[{"profile": "SIS", "theta_E": 0.1, "center_x": 0.9, "center_y": 0.4}])
    model = einfield.Model(data.image, data.noise, data.psf, data.pixel_scale, lens=[LENS], source=[SOURCE], truth=data.truth,
                           network={"hidden": [8, 8], "ensemble": 2}, optimizer={"steps": 60})
    return einfield.fit(model, precision="double", threads=2), data


def test_a_fit_finds_the_lens(fitted):
    assert fitted.status == "ok" and fitted.flags == {}
    assert fitted.stop_reason == "converged"
    assert fitted.metrics["chi2_reduced"] == pytest.approx(1.0, abs=0.15)
    assert fitted.einstein_radius == pytest.approx(LENS["theta_E"], abs=0.02)
    for name, truth in [("lens.0.theta_E", LENS["theta_E"]), ("lens.0.e1", LENS["e1"]), ("lens.1.gamma1", SHEAR["gamma1"]),
                        ("source.0.amp", SOURCE["amp"]), ("source.0.center_x", SOURCE["center_x"])]:
        p = fitted.parameters[name]
        assert p.free and 0 < p.sigma < 1 and abs(p.value - truth) < 5 * p.sigma, (name, p)
    assert fitted.parameters["lens.0.theta_E"].unit == "arcsec"
    assert float(fitted.parameters["lens.0.theta_E"]) == fitted.parameters["lens.0.theta_E"].value
    fixed = fitted.parameters["source.0.n_sersic"]
    assert not fixed.free and np.isnan(fixed.sigma) and fixed.value == SOURCE["n_sersic"]


def test_the_result_is_where_the_density_of_the_model_peaks(fitted):
    model = smooth_model()
    theta = model.pack({name: fitted.parameters[name].value for name in model.names})
    assert model.log_prob(theta) > model.log_prob(model.initial)
    np.testing.assert_allclose(model.image(theta), fitted.model, rtol=1e-9, atol=1e-9)
    # A step of one sigma in any direction lowers it.
    for i, name in enumerate(model.names):
        for sign in (-1, 1):
            beside = theta.copy()
            beside[i] += sign * fitted.parameters[name].sigma
            assert model.log_prob(beside) < model.log_prob(theta) + 1e-6


def test_maps_have_units_and_coordinates(with_network):
    result, data = with_network
    assert set(result.maps) >= {"DATA", "NOISE", "MASK", "PSF", "MODEL", "RESIDUAL", "SOURCE", "PSI_NN", "ALPHA_NN",
                                "KAPPA_NN", "PSI_MACRO", "ALPHA_MACRO", "KAPPA_MACRO", "KAPPA_TRUE", "IMAGE_TRUE"}
    np.testing.assert_array_equal(result.data, data.image)
    kappa = result.kappa
    assert kappa.values.shape == (30, 30) and kappa.unit == "" and result.psi.unit == "arcsec2"
    assert result.alpha.values.shape == (2, 30, 30)
    np.testing.assert_allclose(kappa.x, (np.arange(30) - 14.5) * 0.12)
    assert kappa.extent == pytest.approx((-1.8, 1.8, -1.8, 1.8))
    assert "NOT_THERE" not in result.maps
    x, y = np.meshgrid(kappa.x, kappa.y)
    np.testing.assert_allclose(result.convergence(x, y, part="network"), kappa, atol=1e-12)
    np.testing.assert_allclose(result.deflection(x, y, part="smooth")[1], result.maps["ALPHA_MACRO"].values[1], atol=1e-12)
    np.testing.assert_allclose(result.potential(x, y), result.psi.values + result.maps["PSI_MACRO"].values, atol=1e-12)
    assert result.metrics["psi_relative_rms_arc"] > 0  # a truth was given
    residual = (data.image - result.model.values) / data.noise
    np.testing.assert_allclose(result.residual, residual, atol=1e-9)


def test_saved_results_are_those_in_memory(with_network, tmp_path):
    result, _ = with_network
    result.save(tmp_path / "fit", figures=False)
    again = einfield.open_result(tmp_path / "fit")
    assert again.status == result.status and again.stop_reason == result.stop_reason
    assert again.parameters.keys() == result.parameters.keys()
    assert list(again.maps) == list(result.maps)
    for name in result.maps:
        np.testing.assert_array_equal(again.maps[name], result.maps[name], err_msg=name)
        np.testing.assert_allclose(again.maps[name].x, result.maps[name].x, atol=1e-12)
        assert again.maps[name].unit == result.maps[name].unit
    for name, column in result.history.items():
        np.testing.assert_allclose(again.history[name], column, rtol=1e-14, err_msg=name)
    x, y = np.array([0.2, -0.7]), np.array([0.4, 0.1])
    np.testing.assert_allclose(again.convergence(x, y), result.convergence(x, y), rtol=1e-12)
    with pytest.raises(einfield.InvalidInput, match="holds results, expected a new directory or overwrite=True"):
        result.save(tmp_path / "fit", figures=False)
    result.save(tmp_path / "fit", figures=False, overwrite=True)
    with pytest.raises(einfield.InvalidInput, match="was read from"):
        again.save(tmp_path / "other")
    (tmp_path / "fit" / "result.fits").write_bytes(b"damaged")
    with pytest.raises(einfield.InvalidInput, match="result.fits"):
        einfield.open_result(tmp_path / "fit").maps["MODEL"]
    (tmp_path / "file").write_text("")
    with pytest.raises(einfield.InvalidInput, match="is a file, expected the name of a directory"):
        result.save(tmp_path / "file")


def test_progress_is_called_and_may_raise():
    rows = []
    einfield.fit(smooth_model(optimizer={"name": "adam", "steps": 20, "stop": "none"}), log_every=5,
                 progress=lambda step, loss, chi2: rows.append((step, loss, chi2)))
    assert [r[0] for r in rows] == [0, 5, 10, 15, 20]
    assert all(np.isfinite(r).all() for r in rows)

    def refuse(step, loss, chi2):
        raise ZeroDivisionError("from the callback")

    with pytest.raises(ZeroDivisionError, match="from the callback"):
        einfield.fit(smooth_model(optimizer=ADAM), log_every=1, progress=refuse)


def test_a_bar_of_tqdm_goes_to_the_end(capfd):
    pytest.importorskip("tqdm")
    einfield.fit(smooth_model(optimizer={"name": "adam", "steps": 20, "stop": "none"}), progress=True)
    assert "20/20" in capfd.readouterr().err


def test_ctrl_c_ends_a_fit_with_its_state():
    model = smooth_model(optimizer=ADAM)
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    result = einfield.fit(model, threads=1)
    assert time.monotonic() - started < 30
    assert result.stop_reason == "interrupted" and 0 < result.info["steps"] < 100000
    assert np.isfinite(result.metrics["chi2_reduced"])


def test_an_interrupted_fit_continues_from_its_checkpoint_to_the_same_bits(tmp_path):
    optimizer = {"name": "adam", "steps": 2000, "stop": "none", "checkpoint_every": 50}
    expected = einfield.fit(smooth_model(optimizer=optimizer), threads=1)

    def press(step, loss, chi2):
        if step == 200:
            os.kill(os.getpid(), signal.SIGINT)

    begun = einfield.fit(smooth_model(optimizer=optimizer), threads=1, checkpoint=tmp_path / "fit", progress=press)
    assert begun.stop_reason == "interrupted" and 200 <= begun.info["steps"] < 2000
    with pytest.raises(einfield.InvalidInput, match="checkpoint"):
        einfield.fit(smooth_model(optimizer=optimizer, lens=[LENS | {"fit": ["theta_E"]}]), checkpoint=tmp_path / "fit")
    steps = []
    ended = einfield.fit(smooth_model(optimizer=optimizer), threads=1, checkpoint=tmp_path / "fit",
                         progress=lambda step, loss, chi2: steps.append(step))
    assert steps[0] >= 200 and ended.info["steps"] == 2000
    np.testing.assert_array_equal(ended.model, expected.model)
    assert {k: p.value for k, p in ended.parameters.items()} == {k: p.value for k, p in expected.parameters.items()}
    again = einfield.fit(smooth_model(optimizer=optimizer), threads=1, checkpoint=tmp_path / "fit")  # it was at its end
    np.testing.assert_array_equal(again.model, expected.model)


def test_a_fit_lets_other_threads_run():
    ticks = []
    fit = threading.Thread(target=lambda: einfield.fit(smooth_model(optimizer={"name": "adam", "steps": 400, "stop": "none"}),
                                                       threads=1))
    fit.start()
    while fit.is_alive():
        ticks.append(time.monotonic())
        time.sleep(0.001)
    longest = max(np.diff(ticks), default=0)
    assert len(ticks) > 10 and longest < 0.5 * (ticks[-1] - ticks[0])


def test_a_fit_repeats_its_bits():
    optimizer = {"name": "lbfgs", "steps": 15}
    one, two = (einfield.fit(smooth_model(optimizer=optimizer), threads=n) for n in (1, 2))
    assert one.parameters == {k: v for k, v in two.parameters.items()} or all(
        one.parameters[k].value == two.parameters[k].value for k in one.parameters)
    np.testing.assert_array_equal(one.model, two.model)


def test_nothing_free_is_an_evaluation():
    data = small_data()
    model = einfield.Model(data.image, data.noise, data.psf, data.pixel_scale, lens=[LENS, SHEAR], source=[SOURCE])
    assert model.size == 0 and model.names == []
    result = einfield.fit(model, precision="double")
    np.testing.assert_allclose(result.model, model.image(), atol=1e-12)
    assert model.log_prob([]) == pytest.approx(-0.5 * result.metrics["chi2_reduced"] * data.image.size)


def test_plot_and_html(with_network, tmp_path):
    result, _ = with_network
    page = result._repr_html_()
    assert page.startswith("<table>") and "reduced" in page and result.status in page
    assert "chi" in repr(result) or "χ²" in repr(result)
    pytest.importorskip("matplotlib")
    figure = result.plot()
    assert [a.get_title() for a in figure.axes if a.get_title()][:4] == ["data", "model", "(data − model) / σ", "source"]
    figure.savefig(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").stat().st_size > 10000
    shown = next(a for a in figure.axes if a.get_title() == "data").images[0]
    np.testing.assert_array_equal(shown.get_array(), result.data)
    assert shown.origin == "lower"


def test_plot_without_matplotlib_is_one_line(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(einfield.InvalidInput, match="plot: matplotlib is not installed"):
        fitted.plot()


def test_simulations_repeat_and_take_arrays():
    kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    make = lambda **more: einfield.simulate(lens=[LENS], source=[SOURCE], nx=16, ny=12, pixel_scale=0.15, psf=kernel,  # noqa: E731
                                            **{"background_rms": 0.1, "exposure_time": 50.0, "seed": 7} | more)
    one, two, other = make(), make(), make(seed=8)
    np.testing.assert_array_equal(one.image, two.image)
    assert np.any(one.image != other.image)
    np.testing.assert_allclose(one.noise**2, 0.01 + np.maximum(one.truth["image"], 0) / 50.0)
    np.testing.assert_array_equal(one.psf, kernel)
    assert one.truth["alpha"].shape == (2, 12, 16) and not one.truth["kappa"].any()  # no missing mass


def test_the_information_is_that_of_result_json(fitted, tmp_path):
    fitted.save(tmp_path / "fit", figures=False)
    stored = json.loads((tmp_path / "fit" / "result.json").read_text())
    for key in ("parameters", "metrics", "status", "free", "uncertainties"):
        assert stored[key] == fitted.info[key]
    assert "<arguments>" not in json.dumps(fitted.info)


RANDOMIZED = {"method": "randomized", "members": 400}


def test_ctrl_c_during_randomized_error_bars_leaves_the_fit_and_its_checkpoint(tmp_path):
    """Members are fits: the first one begins after the last step of the fit."""
    def fit(members, progress=None):
        model = smooth_model(optimizer={"name": "lbfgs", "steps": 12}, uncertainty=RANDOMIZED | {"members": members},
                             network={"hidden": [6], "ensemble": 1})
        return einfield.fit(model, threads=1, checkpoint=tmp_path / "fit", progress=progress)

    timers = []

    def press_later(step, loss, chi2):
        if not timers:
            timers.append(threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)))
            timers[0].start()

    with pytest.warns(einfield.EinfieldWarning, match="uncertainty: interrupted, the error bars are those of"):
        begun = fit(400, press_later)
    timers[0].join()
    assert begun.stop_reason != "interrupted"
    ended = fit(2)  # continues from the checkpoint of the finished fit
    np.testing.assert_array_equal(ended.model, begun.model)
    assert np.isfinite(ended.parameters["lens.0.theta_E"].sigma)


def test_ctrl_c_during_other_error_bars_loses_nothing():
    """Laplace's approximation is finished: the fit is complete, and nothing is raised."""
    model = smooth_model(lens=[LENS], source=[SOURCE], network={"hidden": [24, 24], "ensemble": 1}, optimizer={"steps": 4})
    pressed = []

    def press_at_the_end(step, loss, chi2):
        if step >= 4 and not pressed:
            pressed.append(threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)))
            pressed[0].start()

    started = time.monotonic()
    result = einfield.fit(model, threads=1, progress=press_at_the_end, log_every=1)
    pressed[0].join()
    assert time.monotonic() - started > 0.2
    assert result.stop_reason != "interrupted"
    assert np.isfinite(result.maps["KAPPA_NN_STD"]).any()


def test_a_bar_of_tqdm_tells_of_error_bars(capfd):
    pytest.importorskip("tqdm")
    model = smooth_model(optimizer={"name": "gauss_newton", "steps": 4}, uncertainty=RANDOMIZED | {"members": 3},
                         source=[SOURCE, {"profile": "PIXELATED", "nx": 6, "ny": 6, "pixel_scale": 0.3, "value": 1.0, "fit": "all"}],
                         regularization={"source_gradient": 1.0}, lens=[LENS | {"fit": ["theta_E"]}])
    einfield.fit(model, threads=1, progress=True)
    assert "error bars: 3 of 3 members" in capfd.readouterr().err

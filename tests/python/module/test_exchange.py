"""Models of lenstronomy and COOLEST, with the images that those packages make of them."""

import copy
import json
import pickle

import einfield
import numpy as np
import pytest
from conftest import GOLDEN, LENS, PSF, SHEAR, SOURCE, small_data

GOLD = json.loads((GOLDEN / "exchange.json").read_text())


def with_image(dictionaries, image):
    """A lens that can be fitted: the golden ones have no data."""
    full = copy.deepcopy(dictionaries)
    data = full["kwargs_data"]
    shape = (data.pop("ny"), data.pop("nx"))
    data["image_data"] = np.reshape(image, shape)
    return full


@pytest.mark.parametrize("name", ["lenstronomy", "lenstronomy_mirrored"])
def test_images_of_lenstronomys_dictionaries_are_lenstronomys(name):
    image = np.array(GOLD[name + "_image"]).reshape(13, 13)
    model = einfield.Model.from_lenstronomy(with_image(GOLD[name], image))
    assert np.max(np.abs(model.image() - model.observation["image"])) < 1e-9 * np.max(image)
    assert model.size > 40  # nothing was fixed
    # The log-likelihood of lenstronomy for its own image is 0, and that of an image with an offset is known.
    assert abs(model.log_likelihood(model.initial)) < 1e-9
    other = einfield.Model.from_lenstronomy(with_image(GOLD[name], image + 0.3))
    assert other.log_likelihood(other.initial) == pytest.approx(-0.5 * 169 * (0.3 / 0.5)**2, rel=1e-9)
    again = pickle.loads(pickle.dumps(other))
    assert again.log_likelihood(again.initial) == other.log_likelihood(other.initial)


def test_fits_of_such_a_model_can_be_saved(tmp_path):
    full = with_image(GOLD["lenstronomy"], GOLD["lenstronomy_image"])
    full["kwargs_model"] = {"lens_model_list": ["SIE"], "source_light_model_list": ["SERSIC_ELLIPSE"]}
    full["kwargs_lens"] = full["kwargs_lens"][:1]
    full["kwargs_source"] = full["kwargs_source"][:1]
    del full["kwargs_lens_light"]
    model = einfield.Model.from_lenstronomy(full)
    assert model.names[:2] == ["lens.0.theta_E", "lens.0.e1"]
    einfield.fit(model, precision="double").save(tmp_path / "fit", figures=False)
    config = tmp_path / "lens.toml"
    config.write_text(einfield.open_result(tmp_path / "fit").info["config_toml"])
    np.testing.assert_array_equal(einfield.Model.from_toml(config).image(), model.image())


def test_what_cannot_be_represented_gets_one_line():
    full = with_image(GOLD["lenstronomy"], GOLD["lenstronomy_image"])
    full["kwargs_model"]["multi_plane"] = True
    with pytest.raises(einfield.InvalidInput, match="^lenstronomy.json: kwargs_model.multi_plane: "):
        einfield.Model.from_lenstronomy(full)
    with pytest.warns(einfield.EinfieldWarning, match="multi_plane"):
        einfield.Model.from_lenstronomy(full, ignore=["multi_plane"])
    with pytest.raises(einfield.InvalidInput, match="dictionaries: found list, expected a dictionary"):
        einfield.Model.from_lenstronomy([])
    with pytest.raises(einfield.InvalidInput, match="dictionaries: found a number that is not finite"):
        einfield.Model.from_lenstronomy({"kwargs_lens": [{"theta_E": np.nan}]})
    with pytest.raises(einfield.InvalidInput, match="/nowhere.json"):
        einfield.Model.from_coolest("/nowhere.json")


def test_a_saved_fit_is_read_from_its_coolest_file(tmp_path):
    full = with_image(GOLD["lenstronomy"], GOLD["lenstronomy_image"])
    model = einfield.Model.from_lenstronomy(full)
    einfield.fit(model, precision="double", threads=1).save(tmp_path / "fit", figures=False)
    stored = einfield.open_result(tmp_path / "fit")
    again = einfield.Model.from_coolest(tmp_path / "fit" / "coolest.json")
    assert np.max(np.abs(again.image() - stored.model)) < 1e-6 * np.max(stored.model)


FREE_SOURCE = SOURCE | {"fit": "all", "prior": {"n_sersic": {"mean": 1.0, "sigma": 0.3}}}
PIXELS = {"profile": "PIXELATED", "nx": 5, "ny": 6, "pixel_scale": 0.3, "value": 1.0, "fit": "all"}


@pytest.fixture(scope="module")
def fitted():
    data = small_data()
    model = einfield.Model(data.image, data.noise, PSF, data.pixel_scale, lens=[LENS | {"fit": "all"}, SHEAR],
                           source=[FREE_SOURCE, PIXELS], lens_light=[SOURCE | {"amp": 0.5}], optimizer={"steps": 5})
    return einfield.fit(model, precision="double", threads=1)


@pytest.fixture(scope="module")
def with_network():
    data = small_data()
    model = einfield.Model(data.image, data.noise, PSF, data.pixel_scale, lens=[LENS | {"fit": ["theta_E"]}], source=[SOURCE],
                           network={"hidden": [4], "ensemble": 2, "last_layer": "random"}, optimizer={"steps": 3})
    return einfield.fit(model, precision="double", threads=1)


def same(one, two):
    """Equal dictionaries with arrays in them."""
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list):
        return isinstance(two, list) and len(one) == len(two) and all(map(same, one, two))
    return np.array_equal(one, two)


def test_lenstronomys_dictionaries_of_a_fit_give_the_fit(fitted, tmp_path):
    dictionaries = fitted.to_lenstronomy()
    assert dictionaries["kwargs_model"] == {"lens_model_list": ["SIE", "SHEAR"],
                                            "source_light_model_list": ["SERSIC_ELLIPSE", "INTERPOL"],
                                            "lens_light_model_list": ["SERSIC_ELLIPSE"]}
    assert dictionaries["kwargs_lens"][0]["theta_E"] == fitted.parameters["lens.0.theta_E"].value
    assert dictionaries["kwargs_source"][0]["amp"] == pytest.approx(fitted.parameters["source.0.amp"].value / 0.15**2, rel=1e-14)
    np.testing.assert_array_equal(dictionaries["kwargs_data"]["image_data"], fitted.data)
    assert dictionaries["kwargs_source"][1]["image"].shape == (6, 5)
    again = einfield.Model.from_lenstronomy(dictionaries)
    assert np.max(np.abs(again.image() - fitted.model)) < 1e-9 * np.max(fitted.model)
    def prior(n):
        theta = again.pack(again.unpack(again.initial) | {"source.0.n_sersic": n})
        return again.log_prob(theta) - again.log_likelihood(theta)

    assert prior(1.6) - prior(1.0) == pytest.approx(-2.0, abs=1e-6)
    fitted.save(tmp_path / "fit", figures=False)
    assert same(einfield.open_result(tmp_path / "fit").to_lenstronomy(), dictionaries)


def test_a_network_is_a_map_in_lenstronomys_dictionaries(with_network):
    with pytest.warns(einfield.EinfieldWarning, match="network: stored as its deflection"):
        dictionaries = with_network.to_lenstronomy()
    assert dictionaries["kwargs_model"]["lens_model_list"] == ["SIE", "INTERPOL"]
    interpol = dictionaries["kwargs_lens"][1]
    assert interpol["grid_interp_x"].shape == (24,) and interpol["f_"].shape == (24, 24)
    np.testing.assert_allclose(interpol["f_x"], with_network.alpha.values[0], atol=1e-12)
    with pytest.raises(einfield.InvalidInput, match="lens_model_list.*not supported, found INTERPOL"):
        einfield.Model.from_lenstronomy(dictionaries)


def test_a_coolest_file_of_a_fit_gives_the_fit(fitted, with_network, tmp_path):
    path = fitted.to_coolest(tmp_path / "smooth")
    again = einfield.Model.from_coolest(path)
    assert np.max(np.abs(again.image() - fitted.model)) < 1e-9 * np.max(fitted.model)
    with pytest.raises(einfield.InvalidInput, match="smooth/coolest.json exists, expected a new directory or overwrite=True"):
        fitted.to_coolest(tmp_path / "smooth")
    assert fitted.to_coolest(tmp_path / "smooth", overwrite=True) == path
    with pytest.raises(einfield.InvalidInput, match="coolest.json is a file"):
        fitted.to_coolest(path)
    # From memory, and from a directory into another one: the networks come along.
    with_network.save(tmp_path / "fit", figures=False)
    before = (tmp_path / "fit" / "network.safetensors").read_bytes()
    stored = einfield.open_result(tmp_path / "fit")
    models = []
    for result, folder in [(with_network, "memory"), (stored, "elsewhere"), (stored, "fit")]:
        with pytest.warns(einfield.EinfieldWarning, match="network"):
            models.append(einfield.Model.from_coolest(result.to_coolest(tmp_path / folder, overwrite=True)))
    assert (tmp_path / "fit" / "network.safetensors").read_bytes() == before
    for model in models:
        assert model.size > 1
        np.testing.assert_array_equal(model.image(), models[0].image())

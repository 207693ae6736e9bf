"""Models of lenstronomy and COOLEST, with the images that those packages make of them."""

import copy
import json
import pickle

import einfield
import numpy as np
import pytest
from conftest import GOLDEN

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

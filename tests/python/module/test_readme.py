"""The Python of README.md runs as it stands."""

import pathlib
import re

import einfield
import numpy as np
import pytest
from conftest import LENS, SOURCE


def test_the_blocks_of_the_readme_run(capsys):
    pytest.importorskip("jax")
    text = (pathlib.Path(__file__).resolve().parents[3] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    data = einfield.simulate(lens=[LENS], source=[SOURCE], nx=40, ny=40, pixel_scale=0.08, psf={"fwhm": 0.2}, noise=0.5)
    names = {"image": data.image, "noise": data.noise, "psf": data.psf}
    exec(blocks[0], names)
    assert "lens.0.theta_E" in capsys.readouterr().out
    exec(blocks[1], names)
    assert np.isfinite(names["value"]) and names["gradient"].shape == (names["model"].size,)
    assert names["J"].shape == (40, 40, names["model"].size)
    assert float(names["log_prob"](names["theta"].astype(np.float32))) == pytest.approx(names["value"], rel=1e-4)

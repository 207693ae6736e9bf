"""The notebooks of examples/notebooks run from beginning to end. They check their own numbers."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "examples" / "notebooks"
#: What a notebook needs beside NumPy.
NEEDS = {"first_fit": [], "nuts": ["jax", "numpyro"], "emcee_bounds": ["emcee"]}


def test_every_notebook_is_listed():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_a_notebook_runs(name, tmp_path):
    if NEEDS[name] and "EINFIELD_NOTEBOOKS" not in os.environ:
        pytest.skip("a sampler: tools/test.sh --full runs it")
    missing = [package for package in NEEDS[name] if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    done = subprocess.run([sys.executable, FOLDER / f"{name}.py"], cwd=tmp_path, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr

"""Stubs and annotations."""

import importlib.resources
import inspect
import pathlib
import subprocess
import sys

import einfield
import pytest


def test_the_stub_is_that_of_the_module():
    stubgen = pytest.importorskip("nanobind.stubgen")
    if not hasattr(einfield._core, "xla_handlers"):
        pytest.skip("built without the headers of jaxlib, whose functions the stub has")
    stub = stubgen.StubGen(module=einfield._core)
    stub.put(einfield._core)
    written = (importlib.resources.files(einfield) / "_core.pyi").read_text()
    assert stub.get() == written, "write it anew: python -m nanobind.stubgen -m einfield._core -o python/einfield/_core.pyi"
    assert (importlib.resources.files(einfield) / "py.typed").is_file()


def test_everything_public_has_a_docstring():
    public = [getattr(einfield, name) for name in einfield.__all__]
    for thing in public:
        assert thing.__doc__, thing
    for cls in (einfield.Model, einfield.Result, einfield.Map):
        for name, member in inspect.getmembers(cls):
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                assert member.__doc__, f"{cls.__name__}.{name}"


def test_mypy_finds_nothing():
    pytest.importorskip("mypy.version")
    sources = pathlib.Path(einfield.model.__file__).resolve().parent
    assert (sources / "_core.pyi").exists()
    # JAX and PyTorch count as untyped, wherever they are installed; the stub that is generated has bare dict and tuple.
    options = ["--strict", "--allow-any-generics", "--allow-subclassing-any", "--allow-untyped-calls", "--allow-untyped-decorators",
               "--ignore-missing-imports", "--cache-dir=/dev/null"]
    done = subprocess.run([sys.executable, "-m", "mypy", *options, str(sources)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

"""What is in a wheel that tools/wheel.sh has made. EINFIELD_WHEEL names the wheel."""

import os
import pathlib
import re
import zipfile

import einfield
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def wheel():
    if "EINFIELD_WHEEL" not in os.environ:
        pytest.skip("EINFIELD_WHEEL names no wheel: tools/test.sh --full makes one")
    with zipfile.ZipFile(os.environ["EINFIELD_WHEEL"]) as archive:
        yield archive


@pytest.fixture(scope="module")
def licenses(wheel):
    """By their names, those that Debian writes once for all packages with "common/"."""
    (folder,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    prefix = f"{folder}/licenses/"
    return {name.removeprefix(prefix): wheel.read(name).decode() for name in wheel.namelist() if name.startswith(prefix)}


def test_the_package_is_complete_and_small(wheel):
    names = set(wheel.namelist())
    python = {path.name for path in (ROOT / "python" / "einfield").iterdir() if path.suffix in (".py", ".pyi", ".typed")}
    assert {f"einfield/{name}" for name in python} <= names
    assert len([name for name in names if re.fullmatch(r"einfield/_core.*\.so", name)]) == 1
    assert [name for name in names if name.endswith((".a", ".hpp", ".cpp"))] == []
    assert os.path.getsize(wheel.filename) < 12e6
    name = os.path.basename(wheel.filename)
    assert re.match(rf"einfield-{re.escape(einfield.__version__)}-cp(311-cp311|312-abi3)-manylinux", name), name


def test_every_library_has_its_license(wheel, licenses):
    assert "MIT License" in licenses["LICENSE"]
    # In the code of the module. CLI11 is in the command only, but counts all the same.
    table = (ROOT / "packaging" / "linked_libraries.csv").read_text().splitlines()
    for name in [line.split(",")[0] for line in table if not line.startswith("#")] + ["nanobind"]:
        assert len(licenses[name]) > 400, name
    # Brought along: auditwheel adds a checksum to the names, before the first dot.
    bundled = [name.split("/")[1] for name in wheel.namelist() if name.startswith("einfield.libs/")]
    assert any(name.startswith("libcfitsio") for name in bundled) and any(name.startswith("libhwy") for name in bundled)
    package_of = dict(line.split() for line in licenses["libraries.txt"].splitlines())
    stems = {name.split(".")[0]: package for name, package in package_of.items()}
    assert len(bundled) == len(package_of)
    for name in bundled:
        stem = re.sub(r"-[0-9a-f]{8}$", "", name.split(".")[0])
        assert len(licenses[stems[stem]]) > 400, name
    # What the licenses refer to is there, too.
    for text in list(licenses.values()):
        for common in re.findall(r"/usr/share/common-licenses/([A-Za-z0-9.-]*[A-Za-z0-9])", text):
            assert f"common/{common}" in licenses or not pathlib.Path("/usr/share/common-licenses", common).is_file(), common

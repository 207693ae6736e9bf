"""A survey from Python: the same files, table and statuses as those of the command."""

import os
import pathlib
import signal
import threading

import einfield
import numpy as np
import pytest

TEMPLATE = """
[observation]
image = "image.fits"
noise = 1.0
pixel_scale = 0.15
psf = { fwhm = 0.2, size = 5 }
[[lens]]
profile = "SIE"
theta_E = 1.0
fit = ["theta_E"]
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 8.0
R_sersic = 0.4
n_sersic = 1.2
center_x = 0.2
fit = ["amp"]
[optimizer]
name = "levenberg_marquardt"
"""
LENS = {"profile": "SIE", "theta_E": 1.0}
SOURCE = {"profile": "SERSIC_ELLIPSE", "amp": 8.0, "R_sersic": 0.4, "n_sersic": 1.2, "center_x": 0.2}
PSF = {"fwhm": 0.2, "size": 5}


@pytest.fixture
def survey(tmp_path):
    """Two lenses, and a third one whose noise is missing."""
    rows = ["# %ECSV 1.0", "# ---", "# datatype:"]
    rows += [f"# - {{name: {name}, datatype: string}}" for name in ("id", "image", "noise")]
    rows += ["id image noise"]
    for k in range(2):
        made = einfield.simulate(lens=[LENS | {"theta_E": 1.0 + 0.05 * k}], source=[SOURCE], nx=20, ny=20, pixel_scale=0.15,
                                 psf=PSF, noise=0.5, seed=k)
        model = einfield.Model(made.image, made.noise, PSF, 0.15, lens=[LENS], source=[SOURCE])
        einfield.fit(model).save(tmp_path / f"data{k}", figures=False)  # for its FITS files
        rows.append(f'lens{k} "data{k}/result.fits[DATA]" "data{k}/result.fits[NOISE]"')
    rows.append('broken "data0/result.fits[DATA]" "absent.fits"')
    manifest = tmp_path / "survey.ecsv"
    manifest.write_text("\n".join(rows) + "\n")
    template = tmp_path / "template.toml"
    template.write_text(TEMPLATE)
    return manifest, template, tmp_path / "survey"


def test_a_survey_is_planned_run_and_collected(survey, tmp_path):
    manifest, template, directory = survey
    lines = []
    planned = einfield.batch.plan(manifest, template, threads=1, progress=lines.append)
    assert planned.status == "failed" and planned.exit_status == 1  # a lens has a problem
    assert lines == planned.log and planned.log[0].endswith("survey.ecsv: 3 lenses")
    assert len(planned.warnings) == 1 and planned.warnings[0].startswith("lens broken: ") and "absent.fits" in planned.warnings[0]
    assert not directory.exists()

    done = einfield.batch.run(manifest, directory, template, threads=2, precision="double", keep="all")
    assert done.status == "failed" and done.exit_status == 1
    assert "2 ok, 0 suspect, 1 failed, 0 unfinished" in done.log[-1]
    assert any(warning.startswith("lens broken") for warning in done.warnings)
    counts = einfield.batch.status(directory)
    assert (counts.lenses, counts.ok, counts.suspect, counts.failed, counts.unfinished) == (3, 2, 0, 1, 0)
    assert counts.log[0].startswith("3 lenses")

    table = einfield.batch.collect(directory)
    assert (directory / "lenses.fits").exists()
    assert list(table["id"]) == ["lens0", "lens1", "broken"] and list(table["status"]) == ["ok", "ok", "failed"]
    np.testing.assert_allclose(table["lens.0.theta_E"][:2], [1.0, 1.05], atol=0.02)
    assert table["flags"].dtype == np.int64 and np.isnan(table["chi2"][2])
    kept = einfield.open_result(directory / "lenses" / "lens1")
    assert kept.parameters["lens.0.theta_E"].value == pytest.approx(table["lens.0.theta_E"][1], rel=1e-12)
    assert kept.parameters["lens.0.theta_E"].sigma == pytest.approx(table["lens.0.theta_E_err"][1], rel=1e-12)

    again = einfield.batch.run(manifest, directory, template, threads=1, precision="double")
    assert "0 lenses fitted here" in "\n".join(again.log)
    only = einfield.batch.run(manifest, directory, template, threads=1, precision="double", only=["lens0"])
    assert only.status == "failed" and "1 lens fitted here" in "\n".join(only.log)
    einfield.batch.collect(directory, tmp_path / "lenses.ecsv", gallery=tmp_path / "gallery")
    assert (tmp_path / "gallery" / "report.html").exists()
    with pytest.raises(einfield.InvalidInput, match="--out: .*lenses.ecsv exists"):
        einfield.batch.collect(directory, tmp_path / "lenses.ecsv")


def test_errors_are_those_of_the_command(survey, tmp_path):
    manifest, template, directory = survey
    for call, message in [
        (lambda: einfield.batch.status(tmp_path), "holds no survey"),
        (lambda: einfield.batch.collect(tmp_path), "holds no survey"),
        (lambda: einfield.batch.plan(tmp_path / "none.ecsv"), "none.ecsv: "),
        (lambda: einfield.batch.run(manifest, tmp_path, template), "--out: .* holds no survey, found"),
        (lambda: einfield.batch.run(manifest, directory, template, shard="3"), "--shard: "),
        (lambda: einfield.batch.run(manifest, directory, template, only="nothing"), "--only: "),
        (lambda: einfield.batch.run(manifest, directory, template, time_limit="soon"), "--time-limit: "),
        (lambda: einfield.batch.run(manifest, directory, template, keep="some"), 'keep: found .some., expected "none"'),
        (lambda: einfield.batch.plan(manifest, template, backend="gpu"), "backend: found .gpu."),
        (lambda: einfield.batch.plan(manifest, template, precision="half"), "precision: found .half."),
        (lambda: einfield.batch.plan(manifest, template, threads=1.5), "threads: found 1.5, expected a whole number"),
        (lambda: einfield.batch.plan(manifest, template, progress=3), "progress: found 3, expected None or a function"),
    ]:
        with pytest.raises(einfield.InvalidInput, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
    assert not directory.exists()


def test_a_callback_that_raises_ends_a_run(survey):
    manifest, template, directory = survey

    def refuse(line):
        raise ZeroDivisionError(line)

    with pytest.raises(ZeroDivisionError):
        einfield.batch.run(manifest, directory, template, threads=1, progress=refuse)


def test_out_of_time_and_ctrl_c_are_outcomes(survey):
    manifest, template, directory = survey
    slow = pathlib.Path(template)
    slow.write_text(TEMPLATE.replace('name = "levenberg_marquardt"', 'name = "adam"\nsteps = 10000000\nstop = "none"'))
    ended = einfield.batch.run(manifest, directory, slow, threads=1, time_limit=0.5)
    assert ended.status == "out of time" and ended.exit_status == 75
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    ended = einfield.batch.run(manifest, directory, slow, threads=2)
    timer.join()
    assert ended.status == "interrupted" and ended.exit_status == 130
    assert ended.log[-1] == "interrupted; the same command continues"
    assert einfield.batch.status(directory).unfinished >= 2

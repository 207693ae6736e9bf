#!/usr/bin/env python3
"""The files that einfield exchanges, judged by the packages that they are for: coolest and lenstronomy.

    exchange.py check EINFIELD     fits a few lenses with this binary; coolest reads, validates and evaluates what they
                                   leave, lenstronomy evaluates what `einfield convert` makes of them, and einfield reads
                                   both back; images must agree to 1e-6 of their maximum, parameters to 1e-12
    exchange.py golden FILE.json   what both packages make of models of their own: the numbers of tests/golden/exchange.json

Exit status: 0 passed, 1 failed, 77 a package is missing (skipped). Versions: tests/python/requirements.txt.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    from astropy.io import fits
    from coolest.api.composable_models import ComposableLensModel, ComposableLightModel
    from coolest.template.json import JSONSerializer
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel
    from scipy.signal import fftconvolve
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

IMAGE = 1e-6  # of the maximum
PARAMETER = 1e-12


# ---- evaluation by the packages ------------------------------------------------------------------------------------


def coolest_image(path, convolved, supersampling, files=True):
    """Model image of a template, lens light included. `path` ends with .json; `files`: it names existing FITS files."""
    directory = os.path.dirname(os.path.abspath(path))
    template = JSONSerializer(os.path.abspath(path)[:-5], check_external_files=files).load(verbose=False)
    entities = list(template.lensing_entities)
    mass = [i for i, e in enumerate(entities) if len(e.mass_model) > 0]
    source = [i for i, e in enumerate(entities) if e.name == "source"]
    light = [i for i, e in enumerate(entities) if e.name not in ("source", "background") and e.type == "Galaxy"]
    light = [i for i in light if len(entities[i].light_model) > 0]
    model = ComposableLensModel(
        template,
        directory,
        kwargs_selection_source={"entity_selection": source},
        kwargs_selection_lens_mass={"entity_selection": mass},
    )
    if light:  # adds the unlensed light where coolest adds up the lensed one
        unlensed = ComposableLightModel(template, directory, entity_selection=light)
        lensed = model.evaluate_lensed_surface_brightness
        model.evaluate_lensed_surface_brightness = lambda x, y: lensed(x, y) + unlensed.evaluate_surface_brightness(x, y)
    image, _ = model.model_image(supersampling=supersampling, convolved=convolved)
    background = sum(  # which coolest does not evaluate
        profile.parameters["A"].point_estimate.value
        for entity in entities
        if entity.name == "background"
        for profile in entity.light_model
    )
    if background:
        assert convolved
        flat = np.full_like(image, background * template.instrument.pixel_size**2)
        kernel = template.instrument.psf.pixels.get_pixels()
        factor = round(template.instrument.pixel_size / template.instrument.psf.pixels.pixel_size)
        flat = fftconvolve(np.kron(flat, np.ones((factor, factor))), kernel / kernel.sum(), mode="same")
        image = image + flat.reshape(image.shape[0], factor, image.shape[1], factor).mean((1, 3))
    return image, template


def load_dictionaries(path):
    """lenstronomy's dictionaries with the arrays that they name."""

    def arrays(value):
        if isinstance(value, dict):
            return {k: arrays(v) for k, v in value.items()}
        if isinstance(value, list):
            return [arrays(v) for v in value]
        if isinstance(value, str) and ".fits[" in value:
            name, hdu = value[:-1].split("[")
            array = fits.getdata(os.path.join(os.path.dirname(path), name), hdu).astype(float)
            return array[0] if array.shape[0] == 1 and hdu.startswith("NETWORK_") else array
        return value

    with open(path) as file:
        return {k: v if k == "einfield" else arrays(v) for k, v in json.load(file).items()}


def lenstronomy_image(kwargs):
    models = kwargs["kwargs_model"]
    image = ImageModel(
        ImageData(**kwargs["kwargs_data"]),
        PSF(**kwargs["kwargs_psf"]),
        LensModel(models["lens_model_list"]),
        LightModel(models["source_light_model_list"]),
        LightModel(models["lens_light_model_list"]),
        kwargs_numerics=kwargs["kwargs_numerics"],
    )
    return image.image(kwargs["kwargs_lens"], kwargs["kwargs_source"], kwargs["kwargs_lens_light"])


# ---- check ---------------------------------------------------------------------------------------------------------

LENS = """
[observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
psf = { fwhm = 0.2 }
pixel_scale = 0.08
supersampling = SUPERSAMPLING
psf_supersampling = PSF
[[lens]]
profile = "EPL"
theta_E = 1.2
gamma = 2.1
e1 = 0.12
e2 = -0.07
center_x = 0.03
center_y = -0.05
fit = ["theta_E", "gamma", "e1", "e2"]
[[lens]]
profile = "SHEAR"
gamma1 = 0.03
gamma2 = -0.05
ra_0 = 0.2
dec_0 = -0.1
fit = ["gamma1", "gamma2"]
[[lens]]
profile = "SIE"
theta_E = 0.15
e1 = -0.1
e2 = 0.2
center_x = 0.9
center_y = -0.8
[[lens]]
profile = "SIS"
theta_E = 0.05
center_x = -0.713
center_y = 0.907
[[lens]]
profile = "CONVERGENCE"
kappa = 0.04
ra_0 = -0.3
dec_0 = 0.15
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 10.0
R_sersic = 0.4
radius = "major_axis"
n_sersic = 1.5
e1 = -0.09
e2 = 0.13
center_x = 0.1
center_y = 0.05
fit = ["amp", "R_sersic"]
[[source]]
profile = "GAUSSIAN"
amp = 2.0
sigma = 0.1
center_x = -0.1
center_y = 0.12
[[lens_light]]
profile = "SERSIC_ELLIPSE"
amp = 3.0
R_sersic = 0.6
n_sersic = 4.0
e1 = 0.05
e2 = 0.02
[[lens_light]]
profile = "UNIFORM"
amp = 0.2
fit = ["amp"]
[lens_light.prior]
amp = { mean = 0.1, sigma = 0.05 }
[optimizer]
steps = 0
[simulate]
nx = NX
ny = NY
noise = 0.5
"""
NETWORK = """
[[lens]]
profile = "NFW_ELLIPSE_POTENTIAL"
Rs = 2.0
alpha_Rs = 0.1
e1 = 0.05
[[lens]]
profile = "MULTIPOLE"
m = 4
a_m = 0.01
phi_m = 0.3
[[lens]]
profile = "MULTIPOLE"
m = 1
a_m = 0.01
phi_m = 0.5
r_E = 1.2
[[lens]]
profile = "TNFW"
Rs = 0.3
alpha_Rs = 0.02
r_trunc = 0.8
center_x = 0.9
[[lens]]
profile = "FLEXION"
g1 = 0.004
g2 = -0.002
g3 = 0.001
g4 = 0.003
[[lens]]
profile = "NIE"
theta_E = 0.1
s_scale = 0.05
e1 = 0.1
e2 = 0.1
center_x = -0.5
[[lens]]
profile = "NFW"
Rs = 1.0
alpha_Rs = 0.02
[[lens]]
profile = "POINT_MASS"
theta_E = 0.05
center_x = 1.01
[[source]]
profile = "PIXELATED"
nx = 5
ny = 3
pixel_scale = 0.2
center_x = 0.1
value = 1.5
fit = ["pixels"]
[network]
encoding = "none"
hidden = [16, 16]
last_layer = "random"
ensemble = 1
"""

failures = 0


def expect(holds, text):
    global failures
    failures += not holds
    print(("ok      " if holds else "FAILED  ") + text)


def agrees(name, image, ours):
    if image.shape != ours.shape:  # padded to a square; what lies in the padding is blurred into the border
        below, left = ((a - b) // 2 for a, b in zip(image.shape, ours.shape))
        image = image[below : below + ours.shape[0], left : left + ours.shape[1]]
        image, ours = image[4:-4, 4:-4], ours[4:-4, 4:-4]
    error = np.max(np.abs(image - ours)) / np.max(np.abs(ours))
    expect(image.shape == ours.shape and error < IMAGE, f"{name}: image to {error:.1e} of its maximum")


def same_parameters(name, a, b):
    """Every parameter of two result.json, in the convention of the fit."""
    a, b = (json.load(open(os.path.join(d, "result.json"))) for d in (a, b))
    names = sorted(a["parameters"])
    expect(names == sorted(b["parameters"]) and a["profiles"] == b["profiles"], f"{name}: the same components")
    expect(a["free"] == b["free"], f"{name}: the same free parameters")
    error = max(abs(a["parameters"][n] - b["parameters"][n]) / max(1, abs(a["parameters"][n])) for n in names)
    expect(error < PARAMETER, f"{name}: parameters to {error:.1e}")


def run(binary, *arguments, directory):
    done = subprocess.run([binary, *arguments], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"einfield {' '.join(arguments)}: {done.stderr}")
    for line in done.stderr.splitlines():
        print("        " + line)


def check(binary):
    binary = os.path.abspath(binary)
    for name, nx, ny, supersampling, psf, network in (
        ("square", 40, 40, 1, 1, False),
        ("supersampled", 30, 30, 2, 1, False),
        ("PSF on sub-pixels", 30, 30, 3, 3, False),
        ("oblong", 40, 32, 1, 1, False),
        ("network", 36, 36, 2, 1, True),
    ):
        with tempfile.TemporaryDirectory() as directory:
            text = LENS.replace("NX", str(nx)).replace("NY", str(ny)).replace("SUPERSAMPLING", str(supersampling))
            text = text.replace("PSF", str(psf))
            with open(os.path.join(directory, "lens.toml"), "w") as file:
                head, tail = text.split("[optimizer]")
                file.write(head + (NETWORK if network else "") + "[optimizer]" + tail)
            run(binary, "simulate", "lens.toml", directory=directory)
            run(binary, "fit", "lens.toml", "--out", "fit", "--precision", "double", "--quiet", directory=directory)
            fit = os.path.join(directory, "fit")
            ours = fits.getdata(os.path.join(fit, "result.fits"), "MODEL")

            template = JSONSerializer(os.path.join(fit, "coolest")).load(verbose=False)
            expect(template.mode == "MAP", f"{name}: coolest reads and validates")
            noise = template.observation.noise.noise_map.get_pixels()
            mask = template.likelihoods[0].get_mask_pixels()
            expect(noise.shape == mask.shape and np.sum(mask) == nx * ny, f"{name}: coolest reads the maps")
            if not network:  # coolest evaluates no potential on pixels
                image, _ = coolest_image(os.path.join(fit, "coolest.json"), True, supersampling)
                agrees(f"{name}: coolest", image, ours)

            run(binary, "convert", "--to-lenstronomy", "fit", directory=directory)
            kwargs = load_dictionaries(os.path.join(fit, "lenstronomy.json"))
            agrees(f"{name}: lenstronomy", lenstronomy_image(kwargs), ours)

            for package in ("coolest", "lenstronomy"):
                source = os.path.join("fit", package + ".json")
                run(binary, "convert", f"--from-{package}", source, "--out", package, directory=directory)
                again = package + "_fit"
                run(binary, "fit", package + "/lens.toml", "--out", again, "--precision", "double", "--quiet",
                    "--set", "optimizer.steps=0", directory=directory)
                same_parameters(f"{name}: back from {package}", fit, os.path.join(directory, again))
                model = fits.getdata(os.path.join(directory, again, "result.fits"), "MODEL")
                agrees(f"{name}: back from {package}", model, ours)
    sys.exit(1 if failures else 0)


# ---- golden --------------------------------------------------------------------------------------------------------


def parameter(value, fixed=None):
    json_parameter = {"point_estimate": {"value": value}, "prior": {"type": None}}
    if fixed is not None:
        json_parameter["fixed"] = fixed
    return json_parameter


def coolest_template():
    """A mock of four entities, without FITS files: what coolest evaluates without einfield."""

    def profile(kind, **values):
        return {"type": kind, "parameters": {name: parameter(value) for name, value in values.items()}}

    side, scale = 16, 0.16
    half = 0.5 * side * scale
    grid = {"field_of_view_x": [-half, half], "field_of_view_y": [-half, half], "num_pix_x": side, "num_pix_y": side,
            "fits_file": {"path": None}}
    return {
        "standard": "COOLEST",
        "mode": "MOCK",
        "meta": {},
        "coordinates_origin": {"ra": "00h00m00s", "dec": "+00d00m00s"},
        "cosmology": {"H0": 70.0, "Om0": 0.3, "astropy_name": "FlatLambdaCDM"},
        "instrument": {"pixel_size": scale, "name": "", "band": "", "readout_noise": 0.0, "psf": {"type": None}},
        "observation": {"pixels": grid, "exposure_time": None, "mag_sky_brightness": None, "mag_zero_point": None,
                        "noise": {"type": "UniformGaussianNoise", "std_dev": 0.5}},
        "lensing_entities": [
            {"type": "Galaxy", "name": "lens", "redshift": 0.4,
             "mass_model": [profile("PEMD", theta_E=0.9, gamma=2.15, q=0.7, phi=32.0, center_x=0.02, center_y=-0.04),
                            profile("PEMD", theta_E=0.1, gamma=2.0, q=0.55, phi=-71.0, center_x=0.6, center_y=0.5)],
             "light_model": [profile("Sersic", I_eff=90.0, theta_eff=0.3, n=3.5, q=0.8, phi=-15.0, center_x=0.02,
                                     center_y=-0.04)]},
            {"type": "MassField", "name": "field", "redshift": 0.4,
             "mass_model": [profile("ExternalShear", gamma_ext=0.06, phi_ext=-40.0),
                            profile("ConvergenceSheet", kappa_s=0.03)]},
            {"type": "Galaxy", "name": "source", "redshift": 1.9, "mass_model": [],
             "light_model": [profile("Sersic", I_eff=400.0, theta_eff=0.25, n=1.2, q=0.6, phi=85.0, center_x=0.07,
                                     center_y=0.05),
                             profile("Sersic", I_eff=150.0, theta_eff=0.1, n=0.5, q=1.0, phi=0.0, center_x=-0.1,
                                     center_y=0.1)]},
        ],
    }


def lenstronomy_dictionaries(mirrored):
    """Every profile that both have; with x to the right or, as on the sky, to the left."""
    nx, ny, scale = 13, 13, 0.16  # lenstronomy 1.14.2 supersamples squares only
    ramp = [[1.0 + 0.2 * i + 0.5 * j for i in range(4)] for j in range(3)]
    sign = -1 if mirrored else 1
    return {
        "kwargs_model": {
            "lens_model_list": ["SIE", "SIS", "NIE", "EPL", "NFW", "NFW_ELLIPSE_POTENTIAL", "SHEAR", "CONVERGENCE",
                                "POINT_MASS", "MULTIPOLE", "MULTIPOLE", "TNFW", "FLEXION"],
            "source_light_model_list": ["SERSIC_ELLIPSE", "GAUSSIAN", "INTERPOL"],
            "lens_light_model_list": ["SERSIC"],
        },
        "kwargs_lens": [
            {"theta_E": 0.5, "e1": 0.1, "e2": -0.15, "center_x": 0.03, "center_y": -0.02},
            {"theta_E": 0.05, "center_x": 0.5, "center_y": 0.35},
            {"theta_E": 0.2, "e1": -0.1, "e2": 0.2, "s_scale": 0.1, "center_x": -0.1, "center_y": 0.0},
            {"theta_E": 0.2, "gamma": 1.9, "e1": 0.05, "e2": 0.1, "center_x": 0.0, "center_y": 0.1},
            {"Rs": 1.5, "alpha_Rs": 0.05, "center_x": 0.2, "center_y": -0.3},
            {"Rs": 2.0, "alpha_Rs": 0.06, "e1": 0.1, "e2": 0.05, "center_x": -0.2, "center_y": 0.3},
            {"gamma1": 0.04, "gamma2": -0.03, "ra_0": 0.1, "dec_0": 0.2},
            {"kappa": 0.02, "ra_0": -0.1, "dec_0": 0.1},
            {"theta_E": 0.08, "center_x": 0.63, "center_y": -0.41},
            {"m": 3, "a_m": 0.02, "phi_m": 0.4, "center_x": 0.01, "center_y": 0.02, "r_E": 1},
            {"m": 1, "a_m": 0.01, "phi_m": 0.7, "center_x": 0.01, "center_y": 0.02, "r_E": 0.8},
            {"Rs": 0.4, "alpha_Rs": 0.03, "r_trunc": 0.9, "center_x": -0.3, "center_y": 0.5},
            {"g1": 0.02, "g2": -0.01, "g3": 0.015, "g4": 0.01, "ra_0": 0.1, "dec_0": 0.2},
        ],
        "kwargs_source": [
            {"amp": 300.0, "R_sersic": 0.3, "n_sersic": 1.3, "e1": 0.1, "e2": -0.2, "center_x": 0.05, "center_y": 0.08},
            {"amp": 20.0, "sigma": 0.15, "center_x": -0.1, "center_y": 0.0},
            {"image": ramp, "amp": 20.0, "center_x": 0.1, "center_y": -0.05, "phi_G": 0, "scale": 0.2},
        ],
        "kwargs_lens_light": [{"amp": 100.0, "R_sersic": 0.4, "n_sersic": 3.0, "center_x": 0.03, "center_y": -0.02}],
        "kwargs_data": {
            "nx": nx,
            "ny": ny,
            "ra_at_xy_0": -sign * (0.5 * (nx - 1) * scale - 0.13),
            "dec_at_xy_0": -0.5 * (ny - 1) * scale - 0.07,
            "transform_pix2angle": [[sign * scale, 0.0], [0.0, scale]],
            "background_rms": 0.5,
        },
        "kwargs_psf": {"psf_type": "NONE"},
        "kwargs_numerics": {"supersampling_factor": 2, "supersampling_convolution": False},
    }


def golden(path):
    numbers = {"coolest": coolest_template()}
    with tempfile.TemporaryDirectory() as directory:
        file = os.path.join(directory, "template.json")
        with open(file, "w") as stream:
            json.dump(numbers["coolest"], stream)
        image, _ = coolest_image(file, False, 1, files=False)
        numbers["coolest_image"] = image.ravel().tolist()
    for name, mirrored in (("lenstronomy", False), ("lenstronomy_mirrored", True)):
        numbers[name] = lenstronomy_dictionaries(mirrored)
        kwargs = copy.deepcopy(numbers[name])
        data = kwargs["kwargs_data"]
        data["image_data"] = np.zeros((data.pop("ny"), data.pop("nx")))
        kwargs["kwargs_source"][2]["image"] = np.array(kwargs["kwargs_source"][2]["image"])
        numbers[name + "_image"] = lenstronomy_image(kwargs).ravel().tolist()
    with open(path, "w") as stream:
        json.dump(numbers, stream, indent=1)
        stream.write("\n")


if __name__ == "__main__":
    commands = {"check": check, "golden": golden}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](sys.argv[2])

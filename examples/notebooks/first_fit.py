# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first fit from arrays
#
# Arrays in, arrays out. The image here is simulated; put your own image, noise map and PSF in its place.

# %%
import einfield
import numpy as np

lens = {"profile": "SIE", "theta_E": 1.4, "e1": 0.1, "e2": -0.05}
shear = {"profile": "SHEAR", "gamma1": 0.03, "gamma2": -0.01}
source = {"profile": "SERSIC_ELLIPSE", "amp": 10.0, "R_sersic": 0.5, "n_sersic": 1.0, "center_x": 0.1, "center_y": 0.05}
data = einfield.simulate(lens=[lens, shear], source=[source], nx=80, ny=80, pixel_scale=0.08, psf={"fwhm": 0.15}, noise=2.0, seed=1)
image, noise, psf, pixel_scale = data.image, data.noise, data.psf, data.pixel_scale

# %% [markdown]
# The model: what is known of the lens and of the source, and what is free. Names and conventions are lenstronomy's; what is free
# starts from the value that is given.

# %%
model = einfield.Model(
    image, noise, psf, pixel_scale,
    lens=[{"profile": "SIE", "theta_E": 1.3, "fit": "all"}, {"profile": "SHEAR", "gamma1": 0.0, "gamma2": 0.0, "fit": ["gamma1", "gamma2"]}],
    source=[{"profile": "SERSIC_ELLIPSE", "amp": 5.0, "R_sersic": 0.4, "n_sersic": 1.5, "fit": "all"}],
    optimizer={"name": "levenberg_marquardt", "starts": 4},
)
print(model)

# %%
result = einfield.fit(model)
result

# %% [markdown]
# `status` says whether to trust the fit, `flags` why not. A parameter has its value, its error and its unit; a map has its
# unit and its coordinates, and NumPy takes it as an array.

# %%
print(result)
theta_E = result.parameters["lens.0.theta_E"]
print(f"theta_E = {theta_E.value:.4f} +- {theta_E.sigma:.4f} {theta_E.unit}, Einstein radius {result.einstein_radius:.4f} arcsec")
residual = np.asarray(result.residual)
print(f"residuals: mean {np.nanmean(residual):.3f}, standard deviation {np.nanstd(residual):.3f}")

# %%
try:
    result.plot()
except einfield.InvalidInput as error:  # matplotlib is not installed
    print(error)

# %% [markdown]
# The lens anywhere: deflection, potential, convergence; critical curves and their caustics.

# %%
theta = model.pack({name: result.parameters[name].value for name in model.names})
alpha_x, alpha_y = model.deflection([0.0, 1.0], [1.0, 0.5], theta)
print("alpha =", alpha_x, alpha_y, "arcsec; magnification there", model.magnification([0.0, 1.0], [1.0, 0.5], theta))
curve, caustic = model.critical_curves(theta)[0]
print("critical curve of", len(curve), "points")

# %% [markdown]
# For other packages: `result.to_lenstronomy()`, `result.to_coolest(directory)`. `result.save(directory)` writes everything, as the
# command `einfield fit` does, and `einfield.open_result(directory)` reads it.

# %%
print(result.to_lenstronomy()["kwargs_lens"])

# %%
# What was simulated is found.
assert result.status == "ok", result
for name, true in [("lens.0.theta_E", 1.4), ("lens.0.e1", 0.1), ("lens.1.gamma1", 0.03), ("source.0.R_sersic", 0.5)]:
    found = result.parameters[name]
    assert abs(found.value - true) < 5 * found.sigma, (name, found, true)

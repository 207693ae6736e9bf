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
# # emcee inside of bounds
#
# A sampler without gradients. `prior_transform` maps the unit cube to the prior, which is flat inside of the bounds here;
# `log_prob` is minus infinity outside of them. Needs `pip install emcee`. Nested samplers (nautilus, dynesty) take
# `prior_transform` and `log_likelihood` in the same way.

# %%
import einfield
import emcee
import numpy as np

lens = {"profile": "SIE", "theta_E": 1.4, "e1": 0.1, "e2": -0.05}
source = {"profile": "SERSIC_ELLIPSE", "amp": 10.0, "R_sersic": 0.5, "n_sersic": 1.0, "center_x": 0.1, "center_y": 0.05}
data = einfield.simulate(lens=[lens], source=[source], nx=60, ny=60, pixel_scale=0.1, psf={"fwhm": 0.15}, noise=2.0, seed=1)


def model_with(lens_bounds, source_bounds):
    return einfield.Model(
        data.image, data.noise, data.psf, data.pixel_scale,
        lens=[lens | {"fit": list(lens_bounds), "bounds": lens_bounds}],
        source=[source | {"fit": list(source_bounds), "bounds": source_bounds}],
        optimizer={"name": "levenberg_marquardt"},
    )


model = model_with({"theta_E": (1.37, 1.43), "center_x": (-0.03, 0.03)}, {"amp": (8.0, 12.0), "R_sersic": (0.4, 0.6)})
result = einfield.fit(model, precision="double")
result

# %% [markdown]
# emcee hands over all walkers at once, which the threads of the processor share.

# %%
rng = np.random.default_rng(4)
np.random.seed(5)  # emcee draws from it
walkers = 32
start = model.prior_transform(rng.random((walkers, model.size)))
sampler = emcee.EnsembleSampler(walkers, model.size, model.log_prob, vectorize=True)
state = sampler.run_mcmc(start, 300)
sampler.reset()
sampler.run_mcmc(state, 700)
chain = sampler.get_chain(flat=True)
print(f"autocorrelation {sampler.get_autocorr_time(quiet=True).max():.0f} steps, acceptance {sampler.acceptance_fraction.mean():.2f}")
for i, name in enumerate(model.names):
    p = result.parameters[name]
    print(f"{name:20} fit {p.value:.5f} +- {p.sigma:.5f}   emcee {chain[:, i].mean():.5f} +- {chain[:, i].std():.5f}")

# %%
lower, upper = model.bounds.T
assert np.all((chain > lower) & (chain < upper))
for i, name in enumerate(model.names):
    p = result.parameters[name]
    assert abs(chain[:, i].mean() - p.value) < 0.4 * p.sigma, name
    assert abs(chain[:, i].std() / p.sigma - 1) < 0.3, name

# %% [markdown]
# A bound that cuts the posterior: the samples stop there, and their mean moves away from it.

# %%
edge = result.parameters["lens.0.theta_E"].value
cut = model_with({"theta_E": (edge, 1.42), "center_x": (-0.03, 0.03)}, {"amp": (8.0, 12.0), "R_sersic": (0.4, 0.6)})
sampler = emcee.EnsembleSampler(walkers, cut.size, cut.log_prob, vectorize=True)
state = sampler.run_mcmc(cut.prior_transform(rng.random((walkers, cut.size))), 300)
sampler.reset()
sampler.run_mcmc(state, 500)
theta_E = sampler.get_chain(flat=True)[:, cut.names.index("lens.0.theta_E")]
sigma = result.parameters["lens.0.theta_E"].sigma
print(f"theta_E > {edge:.5f}: {theta_E.mean():.5f} +- {theta_E.std():.5f}")
assert theta_E.min() > edge
assert abs((theta_E.mean() - edge) / sigma - np.sqrt(2 / np.pi)) < 0.25  # half of a Gaussian

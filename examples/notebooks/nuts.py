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
# # The posterior by NUTS, beside the error bars of a fit
#
# NumPyro's No-U-Turn Sampler runs inside of JAX and asks einfield for ln of the posterior and its gradient. Needs
# `pip install numpyro`.

# %%
import time

import einfield
import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS

jax.config.update("jax_enable_x64", True)

lens = {"profile": "SIE", "theta_E": 1.4, "e1": 0.1, "e2": -0.05}
shear = {"profile": "SHEAR", "gamma1": 0.03, "gamma2": -0.01}
source = {"profile": "SERSIC_ELLIPSE", "amp": 10.0, "R_sersic": 0.5, "n_sersic": 1.0, "e1": 0.1, "center_x": 0.1, "center_y": 0.05}
data = einfield.simulate(lens=[lens, shear], source=[source], nx=100, ny=100, pixel_scale=0.08, psf={"fwhm": 0.15}, noise=2.0, seed=1)
model = einfield.Model(
    data.image, data.noise, data.psf, data.pixel_scale,
    lens=[lens | {"fit": "all"}, shear | {"fit": ["gamma1", "gamma2"]}],
    source=[source | {"fit": "all"}],
    optimizer={"name": "levenberg_marquardt"},
)

# %% [markdown]
# The fit, with its error bars: the inverse of the Fisher matrix.

# %%
result = einfield.fit(model, precision="double")
theta = model.pack({name: result.parameters[name].value for name in model.names})
result

# %% [markdown]
# The sampler moves in z, with u = u_fit + L z in the unconstrained space. L comes from the Jacobian of the residuals: the
# posterior of z is close to a Gaussian of unit width, so that short trajectories do.

# %%
u_fit = model.unconstrain(theta)
jacobian = model.jacobian(u_fit, space="unconstrained")[model.observation["mask"] != 0]
L = np.linalg.cholesky(np.linalg.inv(jacobian.T @ jacobian))
log_prob = einfield.jax.log_prob(model, space="unconstrained")


def potential(z):
    return -log_prob(u_fit + L @ z)


chains, warmup, samples = 2, 200, 500
sampler = MCMC(NUTS(potential_fn=potential), num_warmup=warmup, num_samples=samples, num_chains=chains,
               chain_method="sequential", progress_bar=False)
start = 0.1 * np.random.default_rng(2).standard_normal((chains, model.size))
started = time.perf_counter()
sampler.run(jax.random.key(3), init_params=start, extra_fields=("num_steps", "diverging"))
seconds = time.perf_counter() - started

# %%
z = np.asarray(sampler.get_samples(group_by_chain=True))
posterior = model.constrain(u_fit + z @ L.T)  # (chains, samples, size)
effective = effective_sample_size(posterior)
mean, width = posterior.mean(axis=(0, 1)), posterior.std(axis=(0, 1))
steps = int(np.sum(sampler.get_extra_fields()["num_steps"]))
print(f"{chains} chains of {warmup} + {samples} in {seconds:.1f} s, with compilation; {steps / (chains * samples):.1f} gradients a sample")
print(f"effective samples: {effective.min():.0f} at least, {effective.min() / seconds:.1f} a second")
print(f"{'':24}{'fit':>12}{'sigma':>10}{'NUTS mean':>12}{'width':>10}")
for i, name in enumerate(model.names):
    p = result.parameters[name]
    print(f"{name:24}{p.value:12.5f}{p.sigma:10.5f}{mean[i]:12.5f}{width[i]:10.5f}")

# %%
# Means and widths are those of the fit, within what a few hundred independent samples can tell.
sigma = np.array([result.parameters[name].sigma for name in model.names])
assert not np.any(sampler.get_extra_fields()["diverging"])
assert np.all(split_gelman_rubin(posterior) < 1.05)
assert np.all(np.abs(mean - theta) < 0.3 * sigma), (mean - theta) / sigma
assert np.all(np.abs(width / sigma - 1) < 0.25), width / sigma

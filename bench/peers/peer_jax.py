"""The paper's method in JAX: a training step of the neural potential.

jax        plain JAX, one (N, 2) batch, PSF as two banded matrices: the fastest variant known
herculens  as its authors would write it today: herculens, Flax, optax
"""
import peer

args = peer.arguments(["jax", "herculens"])

import jax

jax.config.update("jax_enable_x64", args.dtype == "float64")
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax

problem = peer.Problem(args.directory)
real = jnp.dtype(args.dtype)
data = jnp.asarray(problem.image, real)
n, scale = problem.n, problem.pixel_scale


class Potential(nn.Module):
    @nn.compact
    def __call__(self, xi):
        for width in problem.hidden:
            xi = nn.swish(nn.Dense(width, param_dtype=real, dtype=real)(xi))
        return nn.Dense(1, param_dtype=real, dtype=real)(xi)[..., 0]


network = Potential()
layers = {f"Dense_{i}": {"kernel": jnp.asarray(k, real), "bias": jnp.asarray(b, real)} for i, (k, b) in enumerate(problem.layers)}
parameters = {"params": layers}

if args.name == "jax":
    alpha_x, alpha_y = problem.macro_deflection()
    beta = jnp.asarray(np.stack([(problem.x - alpha_x).ravel(), (problem.y - alpha_y).ravel()], -1), real)
    xi = jnp.asarray(np.stack([problem.x.ravel(), problem.y.ravel()], -1), real)
    band = jnp.asarray(problem.banded_psf(), real)

    def simulate(w):
        source = beta - jax.grad(lambda z: network.apply(w, z).sum())(xi)
        return band @ problem.sersic(source[:, 0], source[:, 1], jnp).reshape(n, n) @ band.T

else:
    # herculens 0.3.0 calls jnp.clip(a_max=...), which JAX 0.10 no longer knows.
    clip = jnp.clip
    jnp.clip = lambda x, min=None, max=None, *, a_min=None, a_max=None: clip(
        x, a_min if min is None else min, a_max if max is None else max)
    from herculens.Coordinates.pixel_grid import PixelGrid
    from herculens.Instrument.psf import PSF
    from herculens.LensImage.lens_image import LensImage
    from herculens.LightModel.light_model import LightModel
    from herculens.LightModel.Profiles.sersic import Sersic
    from herculens.MassModel.mass_model import MassModel
    from herculens.MassModel.Profiles.sie import SIE

    class NeuralPotential:
        param_names = ["w"]

        def function(self, x, y, w):
            return network.apply(w, jnp.stack([x, y], -1))

        def derivatives(self, x, y, w):
            return jax.grad(lambda u, v: self.function(u, v, w).sum(), argnums=(0, 1))(x, y)

        def hessian(self, x, y, w):  # asked for by herculens, not needed for an image
            raise NotImplementedError

    corner = -(n - 1) / 2 * scale
    grid = PixelGrid(nx=n, ny=n, ra_at_xy_0=corner, dec_at_xy_0=corner, transform_pix2angle=scale * np.eye(2))
    lens_image = LensImage(
        grid, PSF(psf_type="PIXEL", kernel_point_source=problem.psf),
        lens_mass_model_class=MassModel([SIE(), NeuralPotential()]),
        source_model_class=LightModel([Sersic(radius_major_axis=True)]), kwargs_numerics={"supersampling_factor": 1})
    lens = {key: real.type(value) for key, value in problem.lens.items()}
    source = {key: real.type(value) for key, value in problem.source.items()}

    def simulate(w):
        image = lens_image.model(kwargs_lens=[lens, {"w": w}], kwargs_source=[source], lens_light_add=False,
                                 point_source_add=False)
        return image / real.type(scale**2)  # herculens multiplies by the pixel's area


def loss(w):
    return jnp.mean((simulate(w) - data) ** 2)


optimizer = optax.adam(problem.learning_rate)


@jax.jit
def step(w, moments):
    value, gradient = jax.value_and_grad(loss)(w)
    update, moments = optimizer.update(gradient, moments)
    return optax.apply_updates(w, update), moments, value


value, gradient = jax.jit(jax.value_and_grad(loss))(parameters)
state = [parameters, optimizer.init(parameters), value]
state = list(step(*state[:2]))


def run():
    state[:] = step(*state[:2])
    jax.block_until_ready(state)


gradient = gradient["params"]
peer.serve(args, value,
           [gradient[f"Dense_{i}"][part] for i in range(len(problem.layers)) for part in ("kernel", "bias")], run)

"""JAX and PyTorch get the bits of the model's own gradient."""

import gc
import subprocess
import sys

import einfield
import numpy as np
import pytest
from conftest import near, small_model


@pytest.fixture(params=["directly", "by way of Python"])
def jax(request, monkeypatch):
    """JAX, which calls the module in either way."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    if request.param == "by way of Python":
        monkeypatch.setattr(einfield.jax, "_direct", False)
    elif not einfield.jax._direct:
        pytest.skip("built without the headers of jaxlib")
    return jax


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("space", ["constrained", "unconstrained"])
def test_jax_has_the_bits_of_the_model(jax, model, space):
    density = einfield.jax.log_prob(model, space=space)
    for theta in near(model, 3):
        point = theta if space == "constrained" else model.unconstrain(theta)
        value, gradient = model.value_and_grad(point, space=space)
        for f in (density, jax.jit(density)):
            assert float(f(point)) == value
            v, g = jax.value_and_grad(f)(point)
            assert float(v) == value
            np.testing.assert_array_equal(g, gradient)


def test_jax_vmap_jit_and_chain_rule(jax, model):
    density = einfield.jax.log_prob(model)
    theta = near(model, 5)
    value, gradient = model.value_and_grad(theta)
    v, g = jax.jit(jax.vmap(jax.value_and_grad(density)))(theta)
    np.testing.assert_array_equal(v, value)
    np.testing.assert_array_equal(g, gradient)
    v, g = jax.vmap(jax.vmap(jax.value_and_grad(density)))(theta.reshape(5, 1, -1))
    np.testing.assert_array_equal(g[:, 0], gradient)
    scaled = jax.grad(lambda s: 3.0 * density(s * theta[0]))(1.0)
    assert float(scaled) == pytest.approx(3.0 * gradient[0] @ theta[0], rel=1e-12)
    total = jax.grad(lambda t: jax.numpy.sum(jax.vmap(density)(t) ** 2))(theta)
    np.testing.assert_allclose(total, 2 * value[:, None] * gradient, rtol=1e-12)


def test_jax_evaluates_a_batch_in_one_call(jax, model, monkeypatch):
    calls = []
    inner = type(model)._evaluate_unchecked

    def counted(self, theta, *args, **kwargs):
        calls.append(np.shape(theta))
        return inner(self, theta, *args, **kwargs)

    monkeypatch.setattr(type(model), "_evaluate_unchecked", counted)
    gradients = jax.jit(jax.vmap(jax.grad(einfield.jax.log_prob(model))))
    theta = near(model, 4)
    gradients(theta).block_until_ready()
    if einfield.jax._direct:
        assert calls == []
        text = gradients.lower(theta).as_text()
        assert text.count("custom_call @einfield_value_and_grad") == 1
        assert "(tensor<4x10xf64>) -> (tensor<4xf64>, tensor<4x10xf64>)" in text
    else:
        assert calls == [(4, model.size)]


def test_jax_takes_other_types_in_the_way_of_jax(jax, model):
    density = einfield.jax.log_prob(model)
    integers = jax.numpy.ones(model.size, int)
    assert float(density(integers)) == model.log_prob(np.ones(model.size))
    half = jax.numpy.asarray(model.initial, jax.numpy.float16)
    value = density(half)
    assert value.dtype == np.float16
    assert value == np.float16(model.log_prob(np.asarray(half, float)))


def test_a_function_of_jax_may_outlive_its_model(jax):
    model = small_model()
    density = einfield.jax.log_prob(model)
    theta, expected = model.initial, model.log_prob(model.initial)
    compiled = jax.jit(density).lower(theta).compile()
    del model
    gc.collect()
    assert float(compiled(theta)) == expected  # the function has the model
    del density
    jax.clear_caches()
    gc.collect()
    if einfield.jax._direct:
        with pytest.raises(Exception, match="einfield: the model of this function does not exist any more"):
            compiled(theta).block_until_ready()


def test_jax_and_threads_of_python_share_a_model(jax):
    import concurrent.futures

    model = small_model(threads=2)
    theta = near(model, 6)
    value, gradient = model.value_and_grad(theta)
    f = jax.jit(jax.value_and_grad(einfield.jax.log_prob(model)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for i, (v, g) in pool.map(lambda i: (i % 6, (f if i % 2 else model.value_and_grad)(theta[i % 6])), range(60)):
            assert float(v) == value[i]
            np.testing.assert_array_equal(g, gradient[i])


def test_jax_in_single_precision_rounds_at_the_border(jax, model):
    theta = near(model, 1)[0].astype(np.float32)
    value, gradient = model.value_and_grad(theta)
    v, g = jax.value_and_grad(einfield.jax.log_prob(model))(jax.numpy.asarray(theta))
    assert v.dtype == np.float32 and g.dtype == np.float32
    assert float(v) == np.float32(value)
    np.testing.assert_array_equal(g, gradient.astype(np.float32))


def test_jax_takes_nan_for_a_divergence_and_refuses_shapes(jax, model):
    density = einfield.jax.log_prob(model)
    assert np.isnan(float(density(np.full(model.size, np.nan))))
    with pytest.raises(einfield.InvalidInput, match="theta: found shape"):
        density(np.zeros((2, model.size)))
    with pytest.raises(einfield.InvalidInput, match="model: found dict"):
        einfield.jax.log_prob({})
    with pytest.raises(einfield.InvalidInput, match="space"):
        einfield.jax.log_prob(model, space="free")


@pytest.mark.parametrize("space", ["constrained", "unconstrained"])
def test_torch_has_the_bits_of_the_model(torch, model, space):
    density = einfield.torch.LogProb(model, space=space)
    theta = near(model, 4).reshape(2, 2, -1)
    points = theta if space == "constrained" else model.unconstrain(theta)
    value, gradient = model.value_and_grad(points, space=space)
    tensor = torch.tensor(points.tolist(), dtype=torch.float64, requires_grad=True)
    v = density(tensor)
    np.testing.assert_array_equal(np.array(v.tolist()), value)
    v.sum().backward()
    np.testing.assert_array_equal(np.array(tensor.grad.tolist()), gradient)
    # One point; a layout that is not contiguous; no gradient asked for.
    assert density(tensor[0, 1]).item() == value[0, 1]
    turned = torch.tensor(points.transpose(1, 0, 2).tolist(), dtype=torch.float64).transpose(0, 1)
    assert not turned.is_contiguous()
    np.testing.assert_array_equal(np.array(density(turned).tolist()), value)


def test_torch_checks_its_own_gradient(torch, model):
    u = torch.tensor(model.unconstrain(near(model, 1)[0]).tolist(), dtype=torch.float64, requires_grad=True)
    density = einfield.torch.LogProb(model, space="unconstrained")
    assert torch.autograd.gradcheck(density, (u,), eps=1e-6, atol=1e-2, rtol=1e-3)
    single = u.detach().float().requires_grad_(True)
    value = density(single)
    assert value.dtype == torch.float32
    value.backward()
    assert single.grad.dtype == torch.float32
    assert torch.isnan(density(torch.full((model.size,), float("nan"), dtype=torch.float64)))
    with pytest.raises(einfield.InvalidInput, match="theta: found a tensor"):
        density(torch.zeros(3))


@pytest.mark.parametrize("package", ["jax", "torch"])
def test_a_bridge_without_its_package_is_one_line(package):
    code = f"import sys; sys.modules['{package}'] = None\nimport einfield\ntry:\n  einfield.{package}\nexcept ImportError as e:\n  print(e)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert f"einfield.{package} needs" in out and f"pip install {package}" in out



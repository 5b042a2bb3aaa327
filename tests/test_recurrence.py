"""The recurrence is vanilla, and every backend computes it."""

import numpy as np
import pytest
import torch
from tolerances import BACKENDS

from speechrnn.recurrence import Recurrence, loop


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_loop_is_the_equation(activation):
    """h[t] = tanh(W_ih x[t] + b + W_hh h[t-1]), unit by unit, weight by weight."""
    random = np.random.default_rng(0)
    x, h = random.normal(size=(3, 2)), random.normal(size=4)
    w_ih, w_hh, b = random.normal(size=(4, 2)), random.normal(size=(4, 4)), random.normal(size=4)
    expected, state = [], h
    for step in x:
        state = [
            (np.tanh if activation == "tanh" else lambda z: max(z, 0.0))(
                sum(w_ih[i, j] * step[j] for j in range(2)) + b[i] + sum(w_hh[i, j] * state[j] for j in range(4))
            )
            for i in range(4)
        ]
        expected.append(state)
    outputs, last = loop(*(torch.from_numpy(array) for array in (x[None], h[None], w_ih, w_hh, b)), activation)
    np.testing.assert_allclose(outputs[0].numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(last[0].numpy(), expected[-1], rtol=1e-12)


def _layer(activation: str, inputs: int, hidden: int, dtype: torch.dtype) -> Recurrence:
    torch.manual_seed(0)
    layer = Recurrence(inputs, hidden, activation).to(dtype)
    torch.nn.init.normal_(layer.bias_ih_l0)
    return layer


def _values_and_gradients(layer: Recurrence, backend: str, x: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
    layer.backend = backend
    x, hidden = x.clone().requires_grad_(), hidden.clone().requires_grad_()
    outputs, last = layer(x, hidden)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=x.dtype).view_as(outputs)
    loss = (outputs * weights).sum() + last.square().sum()
    return [outputs, last, *torch.autograd.grad(loss, [x, hidden, layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0])]


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("batch", "steps", "inputs", "hidden"), [(4, 50, 40, 64), (1, 1, 1, 1), (3, 7, 5, 33), (1, 100, 80, 96)])
def test_torch_backend_equals_the_loop_in_values_and_gradients(activation, dtype, batch, steps, inputs, hidden):
    layer = _layer(activation, inputs, hidden, dtype)
    x, h = torch.randn(batch, steps, inputs, dtype=dtype), torch.randn(batch, hidden, dtype=dtype)
    if activation == "relu":
        x /= steps  # a sum that grows with every step would hide small errors behind large values
    tolerance = BACKENDS[str(dtype).removeprefix("torch.")]
    found, expected = (_values_and_gradients(layer, backend, x, h) for backend in ("torch", "loop"))
    for name, one, other in zip(("outputs", "last", "x", "h", "W_ih", "W_hh", "b"), found, expected, strict=True):
        torch.testing.assert_close(
            one, other, rtol=tolerance, atol=tolerance * other.abs().max().item(), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("backend", ["torch", "loop"])
def test_saturated_units_are_exact_and_have_no_gradient(backend):
    layer = _layer("tanh", 2, 3, torch.float64)
    outputs, _, gradient, *_ = _values_and_gradients(
        layer, backend, torch.full((1, 4, 2), 1e4, dtype=torch.float64), torch.zeros(1, 3).double()
    )
    assert torch.equal(outputs.abs(), torch.ones_like(outputs))
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("backend", ["torch", "loop"])
def test_gradients_of_the_recurrence_are_those_of_finite_differences(backend):
    layer = _layer("tanh", 3, 4, torch.float64)
    layer.backend = backend
    inputs = (torch.randn(2, 5, 3).double().requires_grad_(), torch.randn(2, 4).double().requires_grad_())
    assert torch.autograd.gradcheck(layer, inputs)


def test_tanh_layer_starts_with_an_orthogonal_matrix():
    weight = Recurrence(8, 32).weight_hh_l0
    torch.testing.assert_close(weight @ weight.T, torch.eye(32), atol=1e-5, rtol=0)


def test_relu_layer_starts_with_the_identity():
    assert torch.equal(Recurrence(8, 32, "relu").weight_hh_l0, torch.eye(32))


def test_relu_layer_remembers_an_input_for_a_hundred_steps():
    """What the identity is for: Le, Jaitly and Hinton 2015."""
    layer = Recurrence(2, 8, "relu")
    x = torch.zeros(1, 100, 2)
    x[0, 0] = 1.0
    outputs, _ = layer(x, torch.zeros(1, 8))
    torch.testing.assert_close(outputs[0, 0], outputs[0, -1])


def test_the_second_bias_of_nn_rnn_is_zero_and_is_not_trained():
    layer = Recurrence(4, 8)
    layer(torch.randn(2, 3, 4), torch.zeros(2, 8))[0].sum().backward()
    assert not layer.bias_hh_l0.any()
    assert layer.bias_hh_l0.grad is None


@pytest.mark.parametrize("argument", ["activation", "backend"])
def test_unknown_choice_lists_the_known_ones(argument):
    with pytest.raises(ValueError, match=f"{argument} is 'lstm': expected one of"):
        Recurrence(4, 8, **{argument: "lstm"})

"""The recurrence is vanilla, and every backend computes it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerances import BACKENDS

from speechrnn import recurrence
from speechrnn.recurrence import Recurrence, in_place, loop, on_chip


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
                sum(w_ih[i, j] * step[j] for j in range(2))
                + b[i]
                + sum(w_hh[i, j] * state[j] for j in range(4))
            )
            for i in range(4)
        ]
        expected.append(state)
    outputs, last = loop(
        *(torch.from_numpy(array) for array in (x[None], h[None], w_ih, w_hh, b)), activation
    )
    np.testing.assert_allclose(outputs[0].numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(last[0].numpy(), expected[-1], rtol=1e-12)


def _layer(activation: str, inputs: int, hidden: int, dtype: torch.dtype) -> Recurrence:
    torch.manual_seed(0)
    layer = Recurrence(inputs, hidden, activation).to(dtype)
    torch.nn.init.normal_(layer.bias_ih_l0)
    return layer


NAMES = ("outputs", "last", "x", "h", "W_ih", "W_hh", "b")


def _values_and_gradients(
    layer: Recurrence, backend: str, x: torch.Tensor, hidden: torch.Tensor
) -> list[torch.Tensor]:
    layer.backend = backend
    x, hidden = x.detach().requires_grad_(), hidden.detach().requires_grad_()
    outputs, last = layer(x, hidden)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype, device=x.device).view_as(
        outputs
    )
    loss = (outputs * weights).sum() + last.square().sum()
    return [
        outputs,
        last,
        *torch.autograd.grad(
            loss, [x, hidden, layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0]
        ),
    ]


def _assert_equals_the_loop(
    layer: Recurrence, backend: str, x: torch.Tensor, hidden: torch.Tensor, tolerance: float
) -> None:
    """Against the loop in float64 on the CPU, relative to the largest value of each."""
    reference = Recurrence(layer.input_size, layer.hidden_size, layer.activation).double()
    reference.load_state_dict({name: value.cpu() for name, value in layer.state_dict().items()})
    found = _values_and_gradients(layer, backend, x, hidden)
    expected = _values_and_gradients(reference, "loop", x.cpu().double(), hidden.cpu().double())
    for name, one, other in zip(NAMES, found, expected, strict=True):
        error = (one.cpu().double() - other).abs().max() / other.abs().max().clamp(min=1e-30)
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


SIZES = [(4, 50, 40, 64), (1, 1, 1, 1), (3, 7, 5, 33), (1, 100, 80, 96)]  # B, T, I, H


@pytest.mark.parametrize("backend", ["torch", "in_place"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("batch", "steps", "inputs", "hidden"), SIZES)
def test_backend_equals_the_loop_in_values_and_gradients(
    backend, activation, dtype, batch, steps, inputs, hidden
):
    layer = _layer(activation, inputs, hidden, dtype)
    x, h = torch.randn(batch, steps, inputs, dtype=dtype), torch.randn(batch, hidden, dtype=dtype)
    if activation == "relu":
        x /= steps  # a sum that grows with every step would hide small errors behind large values
    _assert_equals_the_loop(layer, backend, x, h, BACKENDS[str(dtype).removeprefix("torch.")])


def test_in_place_without_gradients_gives_the_states_that_it_gives_with_them():
    layer = _layer("tanh", 5, 33, torch.float32)
    x, h = torch.randn(3, 7, 5), torch.randn(3, 33)
    expected = _values_and_gradients(layer, "in_place", x, h)[:2]
    before = x.clone(), h.clone()
    with torch.inference_mode():
        for one, other in zip(layer(x, h), expected, strict=True):
            assert torch.equal(one, other)
    assert torch.equal(x, before[0])
    assert torch.equal(h, before[1])


def test_in_place_follows_autocast():
    layer = _layer("tanh", 5, 32, torch.float32)
    x, h = torch.randn(4, 20, 5), torch.randn(4, 32)
    with torch.autocast("cpu", torch.bfloat16):
        found = _values_and_gradients(layer, "in_place", x, h)
    assert found[0].dtype == torch.bfloat16
    for one, other in zip(found, _values_and_gradients(layer, "loop", x, h), strict=True):
        assert (one.float() - other).abs().max() < BACKENDS["bfloat16"] * other.abs().max()


@pytest.mark.parametrize("backend", ["torch", "loop", "in_place"])
def test_saturated_units_are_exact_and_have_no_gradient(backend):
    layer = _layer("tanh", 2, 3, torch.float64)
    outputs, _, gradient, *_ = _values_and_gradients(
        layer, backend, torch.full((1, 4, 2), 1e4, dtype=torch.float64), torch.zeros(1, 3).double()
    )
    assert torch.equal(outputs.abs(), torch.ones_like(outputs))
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("backend", ["torch", "loop", "in_place"])
def test_gradients_of_the_recurrence_are_those_of_finite_differences(backend):
    layer = _layer("tanh", 3, 4, torch.float64)
    layer.backend = backend
    inputs = (
        torch.randn(2, 5, 3).double().requires_grad_(),
        torch.randn(2, 4).double().requires_grad_(),
    )
    assert torch.autograd.gradcheck(layer, inputs)


# The kernels: on a GPU as they are, elsewhere through Triton's interpreter, which has no bfloat16
# products but float64.
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
KINDS = (
    ["float32", "tf32", "float16", "bfloat16"] if GPU else ["float64", "float32", "tf32", "float16"]
)
KERNEL_SIZES = [
    (16, 5, 7, 32),
    (1, 1, 1, 1),
    (3, 7, 5, 33),
    (17, 4, 3, 20),
    (2, 6, 4, 96),
]  # B, T, I, H
KERNEL_SIZES += (
    [(64, 100, 40, 256), (1024, 33, 96, 96), (5000, 10, 40, 64), (16, 50, 40, 192)]
    if GPU
    else [(2049, 2, 3, 8)]
)


@pytest.fixture
def kind(request) -> Iterator[torch.dtype]:
    """The type of numbers; `tf32` is float32 with products that may be rounded."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if request.param == "tf32" else "highest")
    yield torch.float32 if request.param == "tf32" else getattr(torch, request.param)
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("kind", "tolerance"), [(name, BACKENDS[name]) for name in KINDS], indirect=["kind"], ids=KINDS
)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("batch", "steps", "inputs", "hidden"), KERNEL_SIZES)
def test_kernels_equal_the_loop_in_values_and_gradients(
    kind, tolerance, activation, batch, steps, inputs, hidden
):
    layer = _layer(activation, inputs, hidden, kind).to(DEVICE)
    x, h = torch.randn(batch, steps, inputs), torch.randn(batch, hidden).tanh()
    if activation == "relu":
        x /= steps
    _assert_equals_the_loop(layer, "triton", x.to(DEVICE, kind), h.to(DEVICE, kind), tolerance)


@pytest.mark.parametrize("kind", ["float32", "tf32"], indirect=True, ids=str)
def test_kernels_saturate_without_nan(kind):
    layer = _layer("tanh", 2, 3, kind).to(DEVICE)
    outputs, _, gradient, *_ = _values_and_gradients(
        layer, "triton", torch.full((1, 4, 2), 1e4, device=DEVICE), torch.zeros(1, 3, device=DEVICE)
    )
    assert torch.equal(outputs.abs(), torch.ones_like(outputs))
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_kernels_follow_gradients_that_explode():
    """Relu and 2 I double every state and gradient in each of 30 steps, to 1e9."""
    layer = Recurrence(4, 16, "relu").to(DEVICE)
    with torch.no_grad():
        layer.weight_hh_l0.mul_(2)
    x, h = torch.rand(3, 30, 4, device=DEVICE), torch.zeros(3, 16, device=DEVICE)
    assert _values_and_gradients(layer, "triton", x, h)[0].max() > 1e8
    _assert_equals_the_loop(layer, "triton", x, h, BACKENDS["float32"])


def test_kernels_take_inputs_whose_numbers_do_not_lie_side_by_side():
    layer = _layer("tanh", 6, 24, torch.float32).to(DEVICE)
    x = torch.randn(5, 8, 6, device=DEVICE).transpose(0, 1)
    h = torch.randn(24, device=DEVICE).expand(8, 24)
    _assert_equals_the_loop(layer, "triton", x, h, BACKENDS["float32"])
    layer.backend = "triton"
    gradient = torch.autograd.grad(layer(x, h)[0].sum(), layer.weight_hh_l0)[
        0
    ]  # that of a sum has one number for all
    layer.backend = "loop"
    expected = torch.autograd.grad(layer(x, h)[0].sum(), layer.weight_hh_l0)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_kernels_give_the_same_bits_twice():
    layer = _layer("tanh", 7, 40, torch.float32).to(DEVICE)
    x, h = torch.randn(20, 9, 7, device=DEVICE), torch.randn(20, 40, device=DEVICE)
    for one, other in zip(
        *(_values_and_gradients(layer, "triton", x, h) for _ in range(2)), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.skipif(GPU, reason="the kernels have float64 in the interpreter only")
def test_gradients_of_the_kernels_are_those_of_finite_differences():
    from speechrnn.recurrence_triton import recurrence

    arguments = [
        torch.randn(*shape).double().requires_grad_() for shape in ((3, 4, 5), (3, 5), (5, 5))
    ]
    assert torch.autograd.gradcheck(
        lambda z, first, weight: recurrence(z, first, weight, False), arguments
    )


def test_kernels_are_operators_that_torch_compile_can_keep_whole():
    from speechrnn.recurrence_triton import recurrence, recurrence_backward

    z, first, weight = (
        torch.randn(*shape, device=DEVICE, requires_grad=True)
        for shape in ((3, 4, 16), (3, 16), (16, 16))
    )
    torch.library.opcheck(recurrence, (z, first, weight, False))
    states = recurrence(z, first, weight, False).detach()
    torch.library.opcheck(
        recurrence_backward,
        (torch.ones_like(states), first.detach(), weight.detach(), states, False),
    )


@pytest.mark.parametrize("equation", [on_chip, in_place])
def test_compiled_equation_has_the_gradients_of_the_loop(equation):
    """Compiled as one graph; without the last stage, which needs a C++ compiler or a GPU."""
    torch.manual_seed(0)
    shapes = (3, 5, 7), (3, 16), (16, 7), (16, 16), (16,)
    arguments = [(torch.randn(*shape, device=DEVICE) / 4).requires_grad_() for shape in shapes]
    compiled = torch.compile(equation, backend="aot_eager", fullgraph=True)
    for (outputs, last), (expected, expected_last) in [(compiled(*arguments), loop(*arguments))]:
        torch.testing.assert_close(outputs, expected)
        found = torch.autograd.grad(outputs.sum() + last.sum(), arguments)
        torch.testing.assert_close(
            found, torch.autograd.grad(expected.sum() + expected_last.sum(), arguments)
        )


def test_kernels_compiled_for_an_h100_fit_its_shared_memory_and_spill_no_register(tmp_path):
    """Triton brings NVIDIA's assembler along, so this needs no GPU."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("kernel_resources.py")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 36
    for kind, hidden, batch, kernel, kept, tensor_cores, shared, stack in rows:
        what = f"{kernel} of {kind}, H {hidden}, B {batch}"
        assert int(shared) <= 227 * 1024, what
        assert stack == "0", what  # where spilt registers go
        assert (tensor_cores == "True") == (kind != "float32"), what
        assert (kept == "True") == (kind == "float16" or (kind == "tf32" and hidden != "256")), what


@pytest.mark.parametrize(
    ("shared", "kept"), [(227, [96, 128, 256]), (163, [96, 128, 256]), (99, [96, 128])]
)
def test_matrix_is_kept_where_the_shared_memory_of_the_gpu_holds_it(shared, kept):
    """KB: of an H100, an A100, and the RTX series, which cannot keep one of 256 units."""
    from speechrnn.recurrence_triton import constants

    assert [
        h for h in (96, 128, 256) if constants(64, h, torch.float16, False, shared * 1024)["KEPT"]
    ] == kept


def test_the_kernels_say_why_they_cannot_run(monkeypatch):
    from speechrnn import recurrence_triton

    layer = Recurrence(4, 300, backend="triton")
    with pytest.raises(
        RuntimeError,
        match=r"'triton' cannot run here: hidden_size is 300: .* 256 units .* 'auto' or 'torch'",
    ):
        layer(torch.zeros(1, 2, 4), torch.zeros(1, 300))
    assert "complex64 has no kernel" in recurrence_triton.obstacle(DEVICE, torch.complex64, 16)
    monkeypatch.setattr(recurrence_triton, "INTERPRETED", False)
    layer = Recurrence(4, 16, backend="triton")
    with pytest.raises(RuntimeError, match="need an NVIDIA GPU, and the tensors are on cpu"):
        layer(torch.zeros(1, 2, 4), torch.zeros(1, 16))


def test_without_triton_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "speechrnn.recurrence_triton", None)
    with pytest.raises(RuntimeError, match=r"cannot run here: .*; it comes with torch on Linux"):
        Recurrence(4, 16, backend="triton")(torch.zeros(1, 2, 4), torch.zeros(1, 16))


def test_auto_on_a_cpu_is_in_place_and_says_so_once(caplog):
    layer, other = Recurrence(4, 16), Recurrence(4, 16, backend="in_place")
    other.load_state_dict(layer.state_dict())
    x, h = torch.randn(2, 3, 4), torch.zeros(2, 16)
    recurrence._say.cache_clear()
    with caplog.at_level("INFO", "speechrnn"):
        for _ in range(3):
            assert torch.equal(layer(x, h)[0], other(x, h)[0])
    assert caplog.messages == ["recurrence: in_place, on a CPU"]


@pytest.mark.parametrize(("other", "expected"), [(2.0, "triton"), (0.4, "torch")])
def test_auto_on_a_gpu_takes_what_a_trial_shows_to_be_faster(other, expected, monkeypatch, caplog):
    times = {"torch": other, "triton": 0.5}
    monkeypatch.setattr(
        recurrence, "_milliseconds", lambda layer, backend, x, hidden: times[backend]
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    with caplog.at_level("INFO", "speechrnn"):
        assert Recurrence(4, 16)._measure(torch.zeros(2, 3, 4), torch.zeros(2, 16)) == expected
    said = f"torch {other:.2f} ms, triton 0.50 ms a layer"
    assert caplog.messages == [
        f"recurrence: {expected} ({said}), for batch 2, 3 steps, 16 units, torch.float32 on a GPU"
    ]


def test_auto_on_a_gpu_tells_why_it_did_not_try_the_kernels(caplog):
    with caplog.at_level("INFO", "speechrnn"):
        assert Recurrence(4, 300)._measure(torch.zeros(2, 3, 4), torch.zeros(2, 300)) == "torch"
    assert caplog.messages[0].startswith(
        "recurrence: torch (hidden_size is 300: the kernels keep W_hh on the chip"
    )


@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_auto_tries_each_size_once(monkeypatch):
    recurrence._fastest.clear()
    layer = Recurrence(4, 16).cuda()
    for steps in (5, 7, 8):
        layer(torch.zeros(2, steps, 4).cuda(), torch.zeros(2, 16).cuda())
    assert len(recurrence._fastest) == 1


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

"""The vanilla recurrence: h[t] = tanh(W_ih x[t] + b + W_hh h[t-1]). All its memory is h.

In: x (B, T, I) and h[-1] (B, H). Out: every h[t] (B, T, H) and the last one. All backends give the
same values and gradients: `loop` states the equation; `torch` is `torch.nn.RNN` (cuDNN on a GPU);
`in_place` is the loop with two operator calls a step, for CPUs; `triton` are the kernels of
recurrence_triton. It does not know what x is, or what h is used for.
"""

import functools
import logging
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Activation = Literal["tanh", "relu"]
Backend = Literal["auto", "loop", "torch", "in_place", "triton"]

log = logging.getLogger(__name__)
_fastest: dict[tuple[Any, ...], Backend] = {}  # on a GPU, as it was measured in this process


def loop(
    x: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    activation: Activation = "tanh",
) -> tuple[Tensor, Tensor]:
    """The reference: the equation, one time step after the other.

    Args:
        x: (B, T, I) inputs.
        hidden: (B, H), the state h[-1] before the first step.
        weight_ih: (H, I) W_ih.
        weight_hh: (H, H) W_hh.
        bias: (H,) b.
        activation: tanh (Elman 1990) or relu (Le, Jaitly and Hinton 2015).

    Returns:
        All states (B, T, H) and the last one (B, H).
    """
    squash = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    outputs = []
    for step in x.unbind(1):
        hidden = squash(step @ weight_ih.T + bias + hidden @ weight_hh.T)
        outputs.append(hidden)
    return torch.stack(outputs, dim=1), hidden


def in_place(
    x: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    activation: Activation = "tanh",
) -> tuple[Tensor, Tensor]:
    """What `loop` gives, in two operator calls a step, where `nn.RNN` makes four.

    A state takes the place of its input.
    """
    if (
        torch.compiler.is_compiling()
    ):  # torch 2.11 would lose the gradient, and a compiler merges calls by itself
        return loop(x, hidden, weight_ih, weight_hh, bias, activation)
    rows, first, weight = _project(x, hidden, weight_ih, weight_hh, bias)
    if torch.is_grad_enabled():
        apply: Any = _InPlace.apply  # torch gives it no types
        states: Tensor = apply(rows, first, weight, activation == "relu").view(*x.shape[:2], -1)
    else:
        states = _advance(rows.view(*x.shape[:2], -1), first, weight, activation == "relu")
    return states, states[:, -1]


def on_chip(
    x: Tensor,
    hidden: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    activation: Activation = "tanh",
) -> tuple[Tensor, Tensor]:
    """What `loop` gives, by the kernels of recurrence_triton."""
    from speechrnn.recurrence_triton import recurrence

    rows, first, weight = _project(x, hidden, weight_ih, weight_hh, bias)
    states: Tensor = recurrence(rows.view(*x.shape[:2], -1), first, weight, activation == "relu")
    return states, states[:, -1]


def _project(
    x: Tensor, hidden: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """z = W_ih x[t] + b of all steps, as rows (B T, H); h[-1] and W_hh in the type of z.

    Under autocast that is half precision.

    As rows, because with three dimensions `linear` takes twice as long for a few steps, and because
    what autograd sees changed in place should be no view of something else.
    """
    rows = nn.functional.linear(x.flatten(0, 1), weight_ih, bias)
    return rows, hidden.to(rows.dtype), weight_hh.to(rows.dtype)


def _advance(z: Tensor, first: Tensor, weight: Tensor, relu: bool) -> Tensor:
    """States (B, T, H) in the place of z (B, T, H)."""
    hidden, transposed = first, weight.T
    for step in z.unbind(1):
        step.addmm_(hidden, transposed)
        hidden = step.relu_() if relu else step.tanh_()
    return z


class _InPlace(torch.autograd.Function):
    """`_advance` of rows (B T, H), and backpropagation through time (Werbos 1990) likewise."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, first: Tensor, weight: Tensor, relu: bool) -> Tensor:
        _advance(rows.view(len(first), -1, rows.shape[1]), first, weight, relu)
        ctx.mark_dirty(rows)
        ctx.save_for_backward(rows, first, weight)
        ctx.relu = relu
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, first, weight = ctx.saved_tensors
        states = rows.view(len(first), -1, rows.shape[1])
        dz = gradient.reshape(states.shape).clone()
        slopes = (states > 0).to(dz.dtype) if ctx.relu else 1 - states.square()
        later = None
        for step, slope in zip(reversed(dz.unbind(1)), reversed(slopes.unbind(1)), strict=True):
            if later is not None:
                step.addmm_(later, weight)
            later = step.mul_(slope)
        before = torch.cat((first.unsqueeze(1), states[:, :-1]), 1).view(rows.shape)
        drows = dz.view(rows.shape)
        return drows, dz[:, 0] @ weight, drows.T @ before, None


class Recurrence(nn.RNN):
    """One vanilla recurrent layer, with the parameters of a one-layer `torch.nn.RNN`.

    The equation has one bias, `bias_ih_l0`; the second one of `nn.RNN`, `bias_hh_l0`, stays zero.
    W_hh starts as a random orthogonal matrix for tanh, which keeps the length of h and of its
    gradient (Saxe et al. 2014; Henaff et al. 2016), and as the identity for relu (Le, Jaitly and
    Hinton 2015, arXiv 1504.00941). W_ih starts orthogonal, b at zero.

    Args:
        input_size: I, features of a frame.
        hidden_size: H, units.
        activation: tanh or relu.
        backend: how it is computed. `auto` is `in_place` on a CPU; on a GPU `torch` or `triton`,
            whichever is faster in a trial that the first call with each size makes. What it took is
            logged.
    """

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: Activation = "tanh",
        backend: Backend = "auto",
    ) -> None:
        for name, value, known in (
            ("activation", activation, Activation),
            ("backend", backend, Backend),
        ):
            if value not in get_args(known):
                raise ValueError(
                    f"{name} is {value!r}: expected one of {', '.join(get_args(known))}"
                )
        self.activation: Activation = activation
        self.backend: Backend = backend
        super().__init__(input_size, hidden_size, nonlinearity=activation, batch_first=True)

    def reset_parameters(self) -> None:
        """Initial weights, as the class says."""
        self.bias_hh_l0.requires_grad_(False)
        if (
            self.weight_hh_l0.is_meta
        ):  # the values are about to be loaded, and a QR on `meta` takes a second to import
            return
        nn.init.orthogonal_(self.weight_ih_l0)
        if self.activation == "relu":
            nn.init.eye_(self.weight_hh_l0)
        else:
            nn.init.orthogonal_(self.weight_hh_l0)
        nn.init.zeros_(self.bias_ih_l0)
        nn.init.zeros_(self.bias_hh_l0)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, T, H) and the last (B, H), from inputs (B, T, I) and the state before (B, H).

        Raises:
            RuntimeError: if the backend was asked for by name and cannot do this.
        """
        backend = self._choose(x, hidden) if self.backend == "auto" else self.backend
        if backend == "triton" and (reason := _obstacle(self, x)):
            raise RuntimeError(
                f"backend 'triton' cannot run here: {reason}; use backend 'auto' or 'torch'"
            )
        return self._compute(backend, x, hidden)

    def _compute(self, backend: Backend, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        if backend == "torch":
            outputs, last = nn.RNN.forward(self, x, hidden.unsqueeze(0))
            return outputs, last.squeeze(0)
        equation = {"loop": loop, "in_place": in_place, "triton": on_chip}[backend]
        return equation(
            x, hidden, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.activation
        )

    def _choose(self, x: Tensor, hidden: Tensor) -> Backend:
        """What `auto` takes for this input."""
        if torch.compiler.is_compiling():
            return "torch"
        if x.device.type == "cpu":
            _say("recurrence: in_place, on a CPU")
            return "in_place"
        if x.device.type != "cuda":
            return "torch"
        # Batches and lengths up to the next power of two are taken to behave alike.
        sizes = tuple(1 << (size - 1).bit_length() for size in x.shape[:2])
        key = (
            x.device,
            _computed_in(x),
            self.hidden_size,
            self.activation,
            torch.is_grad_enabled(),
            *sizes,
        )
        if key not in _fastest:
            _fastest[key] = self._measure(x, hidden)
        return _fastest[key]

    def _measure(self, x: Tensor, hidden: Tensor) -> Backend:
        what = (
            f"batch {x.shape[0]}, {x.shape[1]} steps, {self.hidden_size} units, {_computed_in(x)}"
        )
        if reason := _obstacle(self, x):
            log.info("recurrence: torch (%s), for %s", reason, what)
            return "torch"
        names: tuple[Backend, ...] = ("torch", "triton")
        times = {name: _milliseconds(self, name, x.detach(), hidden.detach()) for name in names}
        best = min(names, key=times.__getitem__)
        said = ", ".join(f"{name} {time:.2f} ms" for name, time in times.items())
        log.info(
            "recurrence: %s (%s a layer), for %s on %s",
            best,
            said,
            what,
            torch.cuda.get_device_name(x.device),
        )
        return best


@functools.cache
def _say(message: str) -> None:
    """Log it, once."""
    log.info(message)


def _computed_in(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _obstacle(layer: Recurrence, x: Tensor) -> str | None:
    """Why the Triton kernels cannot compute this; None if they can."""
    try:
        from speechrnn.recurrence_triton import obstacle
    except ImportError as error:
        return f"{error}; it comes with torch on Linux"
    return obstacle(x.device, _computed_in(x), layer.hidden_size)


def _milliseconds(layer: Recurrence, backend: Backend, x: Tensor, hidden: Tensor) -> float:
    """Median time of a call on a GPU, with its backward pass where gradients are wanted."""
    x, hidden = x.clone().requires_grad_(torch.is_grad_enabled()), hidden.clone()
    times = []
    for _ in range(13):
        event: Any = torch.cuda.Event  # torch gives it no types
        begin, end = (event(enable_timing=True) for _ in range(2))
        begin.record()
        outputs, _ = layer._compute(backend, x, hidden)
        if outputs.requires_grad:
            torch.autograd.grad(
                outputs.sum(),
                [x, *(weight for weight in layer.parameters() if weight.requires_grad)],
            )
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return float(sorted(times[3:])[5])  # the first ones compile, and warm up


def recurrences(network: nn.Module) -> list[Recurrence]:
    """Every recurrent layer of a network, in its order."""
    return [part for part in network.modules() if isinstance(part, Recurrence)]

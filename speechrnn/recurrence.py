"""The vanilla recurrence: h[t] = tanh(W_ih x[t] + b + W_hh h[t-1]). The whole memory of the network is h.

In: x (B, T, I) and h[-1] (B, H). Out: every h[t] (B, T, H) and the last one. Two backends give the same values and gradients:
`loop` states the equation, `torch` is `torch.nn.RNN` (cuDNN on a GPU). It does not know what x is or what is made of h.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

Activation = Literal["tanh", "relu"]
Backend = Literal["loop", "torch"]


def loop(
    x: Tensor, hidden: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, activation: Activation = "tanh"
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


class Recurrence(nn.RNN):
    """One vanilla recurrent layer, with the parameters of a one-layer `torch.nn.RNN` under the same names.

    The equation has one bias, `bias_ih_l0`; the second one of `nn.RNN`, `bias_hh_l0`, stays zero. W_hh starts as a random
    orthogonal matrix for tanh, which keeps the length of h and of its gradient (Saxe et al. 2014; Henaff et al. 2016), and as the
    identity for relu (Le, Jaitly and Hinton 2015, arXiv 1504.00941). W_ih starts orthogonal, b at zero.

    Args:
        input_size: I, features of a frame.
        hidden_size: H, units.
        activation: tanh or relu.
        backend: `torch` or `loop`.
    """

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(self, input_size: int, hidden_size: int, activation: Activation = "tanh", backend: Backend = "torch") -> None:
        for name, value, known in (("activation", activation, Activation), ("backend", backend, Backend)):
            if value not in get_args(known):
                raise ValueError(f"{name} is {value!r}: expected one of {', '.join(get_args(known))}")
        self.activation: Activation = activation
        self.backend: Backend = backend
        super().__init__(input_size, hidden_size, nonlinearity=activation, batch_first=True)

    def reset_parameters(self) -> None:
        """Initial weights, as the class says."""
        self.bias_hh_l0.requires_grad_(False)
        if self.weight_hh_l0.is_meta:  # the values are about to be loaded, and a QR on `meta` takes a second to import
            return
        nn.init.orthogonal_(self.weight_ih_l0)
        if self.activation == "relu":
            nn.init.eye_(self.weight_hh_l0)
        else:
            nn.init.orthogonal_(self.weight_hh_l0)
        nn.init.zeros_(self.bias_ih_l0)
        nn.init.zeros_(self.bias_hh_l0)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, T, H) and the last one (B, H), from inputs (B, T, I) and the state before them (B, H)."""
        if self.backend == "loop":
            return loop(x, hidden, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.activation)
        outputs, last = nn.RNN.forward(self, x, hidden.unsqueeze(0))
        return outputs, last.squeeze(0)


def recurrences(network: nn.Module) -> list[Recurrence]:
    """Every recurrent layer of a network, in its order."""
    return [part for part in network.modules() if isinstance(part, Recurrence)]

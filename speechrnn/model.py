"""The network in torch: wave (B, N) -> MFCC (B, T, F) -> recurrences (B, T, H) -> logits (B, T, C).

It is trained, and runs on GPUs; `network` computes the same with NumPy. Streaming is an argument:
`logits, state = model(wave, state)`. A whole clip is a stream of one chunk, and any other cut of
the audio into chunks gives the same logits. It does not know losses, thresholds or recordings.
"""

from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from speechrnn import network
from speechrnn.config import Activation, ModelConfig
from speechrnn.features import Mfcc
from speechrnn.folder import read_folder
from speechrnn.recurrence import Backend, Recurrence, recurrences


class State(NamedTuple):
    """All that a stream remembers; its size does not grow with the audio."""

    audio: Tensor  # (B, P): samples that the next frames still need
    hidden: Tensor  # (L, B, H): h of each layer


class FeedForward(nn.Module):
    """The gated feed-forward part, W_out (silu(W_gate n) * W_value n) with n = norm(x).

    Source: Shazeer, GLU Variants Improve Transformer (arXiv 2002.05202). The gate sees the present
    step only: it is no memory.
    """

    def __init__(self, hidden_size: int, units: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.gate = nn.Linear(hidden_size, units)
        self.value = nn.Linear(hidden_size, units)
        self.outward = nn.Linear(units, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H) to (B, T, H)."""
        # As rows: with three dimensions `linear` takes twice as long for a few steps.
        rows = self.norm(x).flatten(0, 1)
        out: Tensor = self.outward(nn.functional.silu(self.gate(rows)) * self.value(rows))
        return out.view_as(x)


class Block(nn.Module):
    """A recurrence and a feed-forward part, each behind a normalisation and beside a residual path.

    Normalising the input of the recurrence, not the recurrence, is Deep Speech 2's (arXiv
    1512.02595); the pre-norm residual block is the transformer's, with the recurrence in the place
    of attention. Everything but the recurrence works frame by frame.
    """

    def __init__(self, hidden_size: int, feed_forward: int, activation: Activation) -> None:
        super().__init__()
        self.recurrence_norm = nn.LayerNorm(hidden_size)
        self.recurrence = Recurrence(hidden_size, hidden_size, activation)
        self.feed_forward = FeedForward(hidden_size, feed_forward)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, H) and h[-1] (B, H) to (B, T, H) and the last h (B, H)."""
        states, hidden = self.recurrence(self.recurrence_norm(x), hidden)
        x = x + states
        return x + self.feed_forward(x), hidden


class Model(nn.Module):
    """A recogniser of spoken commands whose every recurrent layer is vanilla.

    Args:
        config: its shape, its features and its labels.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.mfcc = Mfcc(config)
        self.input = nn.Linear(config.stack * config.coefficients, config.hidden_size)
        self.blocks = nn.ModuleList(
            Block(config.hidden_size, config.feed_forward, config.activation)
            for _ in range(config.layers)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(config.hidden_size), nn.Linear(config.hidden_size, len(config.labels))
        )

    @classmethod
    def load(cls, name_or_folder: str | Path | None = None) -> "Model":
        """A trained model in evaluation mode, on the CPU.

        Args:
            name_or_folder: a shipped model's name, a model folder, or a run folder with `model/` in
                it; None for the shipped default.

        Raises:
            FileNotFoundError: if there is no such model, or a file of it is missing.
            ValueError: if a file is damaged, of another version, or not what it should be.
        """
        folder = read_folder(name_or_folder)
        with torch.device("meta"):  # the values are about to be loaded
            model = cls(folder.config)
        arrays = folder.weights().items()
        model.load_state_dict(
            {name: torch.from_numpy(array) for name, array in arrays}, assign=True
        )
        return model.eval()

    def arrays(self) -> dict[str, np.ndarray]:
        """Weights and buffers by name, as `folder.save_folder` takes them."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}

    def set_backend(self, backend: Backend) -> None:
        """Compute every recurrence with this backend, see `Recurrence`; `loop` is the equation."""
        if backend not in get_args(Backend):
            known = ", ".join(get_args(Backend))
            raise ValueError(f"backend is {backend!r}: expected one of {known}")
        for recurrence in recurrences(self):
            recurrence.backend = backend

    def initial_state(self, batch: int) -> State:
        """The state before the first sample: silence in the past, h = 0."""
        config = self.config
        hidden = self.input.weight.new_zeros(config.layers, batch, config.hidden_size)
        return State(self.mfcc.initial_past(batch), hidden)

    def forward(self, wave: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of every step, and the state to go on with.

        Args:
            wave: (B, N) float, 16 kHz, full scale +-1; N may be anything, also 0.
            state: what the call before returned; None at the start of a stream.

        Returns:
            Logits (B, T, C), one step for every `stack * hop` samples that are complete, and the
            new state.
        """
        state = self.initial_state(len(wave)) if state is None else state
        frames, past = self.mfcc.frames(wave, state.audio)
        logits, hidden = self.from_log_mel(self.mfcc.log_mel(frames), state.hidden)
        return logits, State(past, hidden)

    def from_log_mel(self, log_mel: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T / stack, C) and the last h (L, B, H), from log mel frames and h before them.

        Args:
            log_mel: (B, T, M), T a multiple of `stack`.
            hidden: (L, B, H).
        """
        x, hidden = self._recur(log_mel, hidden)
        return self.head(x), hidden

    def answer(self, log_mel: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One answer (B, C) for each clip, and the last h: what `pool` makes of `from_log_mel`.

        The head comes behind the pooling, as both are linear: one product a clip, not one a step.
        """
        x, hidden = self._recur(log_mel, hidden)
        norm, linear = self.head
        x = norm(x)
        weight = (x @ self.head.get_parameter("1.weight").mean(0)).float().softmax(1)
        answer: Tensor = linear((weight[..., None] * x).sum(1))
        return answer, hidden

    def _recur(self, log_mel: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What the head reads (B, T / stack, H), and the last h."""
        x = self.mfcc.cepstrum(log_mel)
        if x.shape[1] == 0:  # nn.RNN refuses an empty sequence
            return x.new_empty(len(x), 0, self.config.hidden_size), hidden
        x = self.input(x.reshape(len(x), -1, self.config.stack * self.config.coefficients))
        last = []
        for block, before in zip(self.blocks, hidden, strict=True):
            x, after = block(x, before)
            last.append(after)
        return x, torch.stack(last)


class TorchRuntime:
    """A torch model behind the interface of `network.Runtime`: arrays in, arrays out.

    Args:
        model: on any device; it is put into evaluation mode.
    """

    def __init__(self, model: Model) -> None:
        self.config = model.config
        self._model = model.eval()

    @torch.inference_mode()
    def step(self, wave: np.ndarray, state: Any = None) -> tuple[np.ndarray, Any]:
        """Logits (B, T, C) of a wave (B, N), and the state to go on with."""
        kind = self._model.input.weight
        logits, state = self._model(torch.as_tensor(wave).to(kind), state)
        return logits.cpu().numpy(), network.State(*state)


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pool(logits: Tensor, window: int | None = None) -> Tensor:
    """What `network.pool` computes, for tensors: logits (B, T, C) to (B, C), or to one a window.

    Args:
        logits: (B, T, C).
        window: steps in a window; None for one window over all T.
    """
    weight = logits.mean(-1, keepdim=True)
    if window is None:
        return (weight.softmax(1) * logits).sum(1)
    return (weight.unfold(1, window, 1).softmax(-1) * logits.unfold(1, window, 1)).sum(-1)

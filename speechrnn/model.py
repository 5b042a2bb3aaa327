"""The recogniser: wave (B, N) -> MFCC (B, T, F) -> stack of vanilla recurrences (B, T, H) -> logits (B, T, C) -> pool (B, C).

Streaming is an argument: `logits, state = model(wave, state)`. A whole clip is a stream of one chunk, and any other cut of the
audio into chunks gives the same logits. It does not know files (audio, checkpoint), seconds (stream) or losses (training).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from speechrnn.audio import SAMPLE_RATE, read_wave
from speechrnn.features import Mfcc
from speechrnn.recurrence import Activation, Backend, Recurrence, recurrences

CLIP_SAMPLES = SAMPLE_RATE  # the corpus's clips, and so the window in which a word is looked for, last one second
BATCH = 64  # clips at once in `classify_waves`: 4 MB of audio, where larger batches were no faster on two cores


@dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes a model; stored beside its weights.

    Args:
        labels: names of the C classes, in the order of the logits; `_silence_` and `_unknown_` are no words.
        window_ms: length of the analysis window, ms.
        hop_ms: distance between frames, ms.
        fft_size: points of the FFT.
        mel_low_hz: lower edge of the mel bands, Hz.
        mel_high_hz: upper edge of the mel bands, Hz.
        mel_bands: number of mel bands.
        coefficients: number F of MFCC coefficients.
        log_floor: added to the power of a mel band before the logarithm.
        stack: neighbouring frames joined into one input of the recurrence.
        hidden_size: H, units of each recurrent layer.
        layers: L, recurrent layers.
        feed_forward: units of the gated part after each recurrence.
        activation: tanh or relu.
        dropout: share of each residual branch dropped in training.
    """

    labels: tuple[str, ...]
    window_ms: float = 25.0
    hop_ms: float = 10.0
    fft_size: int = 512
    mel_low_hz: float = 20.0
    mel_high_hz: float = 7600.0
    mel_bands: int = 40
    coefficients: int = 40
    log_floor: float = 1e-6
    stack: int = 3
    hidden_size: int = 96
    layers: int = 4
    feed_forward: int = 128
    activation: Activation = "tanh"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise ValueError(f"labels are {self.labels!r}: expected two or more different names")
        for name in ("stack", "hidden_size", "layers", "feed_forward"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")

    @property
    def words(self) -> tuple[str, ...]:
        """The labels that are words."""
        return tuple(label for label in self.labels if not label.startswith("_"))

    @property
    def seconds_per_step(self) -> float:
        """Time between two logits, s."""
        return self.stack * self.hop_ms / 1000

    @property
    def window_steps(self) -> int:
        """Steps in the window of one second in which a word is looked for."""
        return round(CLIP_SAMPLES / SAMPLE_RATE / self.seconds_per_step)


class State(NamedTuple):
    """All that a stream remembers; its size does not grow with the audio."""

    audio: Tensor  # (B, P): samples that the next frames still need
    hidden: Tensor  # (L, B, H): h of each layer


@dataclass(frozen=True)
class Prediction:
    """What was heard in one file: the best label, its probability, and the `top_k` best with theirs."""

    label: str
    score: float
    top: tuple[tuple[str, float], ...]
    notes: tuple[str, ...] = ()  # what was done to the audio first, such as "resampled from 44100 Hz"


class FeedForward(nn.Module):
    """The gated feed-forward part, W_out (silu(W_gate n) * W_value n) with n = norm(x), on each step alone.

    Source: Shazeer, GLU Variants Improve Transformer (arXiv 2002.05202). The gate sees the present step only: it is no memory.
    """

    def __init__(self, hidden_size: int, units: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.gate = nn.Linear(hidden_size, units)
        self.value = nn.Linear(hidden_size, units)
        self.outward = nn.Linear(units, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H) to (B, T, H)."""
        rows = self.norm(x).flatten(0, 1)  # with three dimensions `linear` takes twice as long for a few steps
        out: Tensor = self.outward(nn.functional.silu(self.gate(rows)) * self.value(rows))
        return out.view_as(x)


class Block(nn.Module):
    """A recurrence and a feed-forward part, each behind a normalisation and beside a residual path.

    Normalising the input of the recurrence, not the recurrence, is Deep Speech 2's (arXiv 1512.02595); the pre-norm residual
    block is the transformer's, with the recurrence in attention's place. All but the recurrence works frame by frame.
    """

    def __init__(self, hidden_size: int, feed_forward: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.recurrence_norm = nn.LayerNorm(hidden_size)
        self.recurrence = Recurrence(hidden_size, hidden_size, activation)
        self.feed_forward = FeedForward(hidden_size, feed_forward)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()  # even of nothing, a call takes 4 microseconds

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, H) and h[-1] (B, H) to (B, T, H) and the last h (B, H)."""
        states, hidden = self.recurrence(self.recurrence_norm(x), hidden)
        x = x + self.dropout(states)
        return x + self.dropout(self.feed_forward(x)), hidden


class Model(nn.Module):
    """A recogniser of spoken commands whose every recurrent layer is vanilla.

    Args:
        config: its shape, its features and its labels.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.thresholds: dict[str, float] = {}  # of words in a stream, where they were measured
        self.mfcc = Mfcc(
            window_ms=config.window_ms,
            hop_ms=config.hop_ms,
            fft_size=config.fft_size,
            mel_low_hz=config.mel_low_hz,
            mel_high_hz=config.mel_high_hz,
            mel_bands=config.mel_bands,
            coefficients=config.coefficients,
            log_floor=config.log_floor,
            group=config.stack,
        )
        self.input = nn.Linear(config.stack * config.coefficients, config.hidden_size)
        self.blocks = nn.ModuleList(
            Block(config.hidden_size, config.feed_forward, config.activation, config.dropout) for _ in range(config.layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(config.hidden_size), nn.Linear(config.hidden_size, len(config.labels)))

    @property
    def parameter_count(self) -> int:
        """How many numbers training may change."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    @property
    def multiplications(self) -> int:
        """Real multiplications for a second of audio: those of the features in a second's frames, and of its steps.

        A step counts the multiply-accumulates of the network's matrices, each used once: input, W_ih and W_hh, the three of the
        feed-forward part, and head. What is done once to each number is not counted: biases, normalisations, activations, gates,
        residual paths and the pool.
        """
        return round(SAMPLE_RATE / self.mfcc.hop * (self.mfcc.multiplications + self.step_multiplications / self.config.stack))

    @property
    def step_multiplications(self) -> int:
        """Those of the network's matrices in a step: each of their numbers is used once."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.ndim == 2)

    def set_backend(self, backend: Backend) -> None:
        """Compute every recurrence with this backend, see `Recurrence`; `loop` is the equation as it is written."""
        if backend not in get_args(Backend):
            raise ValueError(f"backend is {backend!r}: expected one of {', '.join(get_args(Backend))}")
        for recurrence in recurrences(self):
            recurrence.backend = backend

    def initial_state(self, batch: int) -> State:
        """The state before the first sample: silence in the past, h = 0."""
        hidden = self.input.weight.new_zeros(self.config.layers, batch, self.config.hidden_size)
        return State(self.mfcc.initial_past(batch), hidden)

    def forward(self, wave: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of every step, and the state to go on with.

        Args:
            wave: (B, N) float, 16 kHz, full scale +-1; N may be anything, 0 too.
            state: what the call before returned; None at the start of a stream.

        Returns:
            Logits (B, T, C), one step for every `stack * hop_ms` of audio that is complete, and the new state.
        """
        state = self.initial_state(len(wave)) if state is None else state
        frames, past = self.mfcc.frames(wave, state.audio)
        logits, hidden = self.from_log_mel(self.mfcc.log_mel(frames), state.hidden)
        return logits, State(past, hidden)

    def from_log_mel(self, log_mel: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T / stack, C) and the last h (L, B, H), from log mel frames (B, T, mel_bands) and h before them."""
        x = self.mfcc.cepstrum(log_mel)
        if x.shape[1] == 0:  # nn.RNN refuses an empty sequence
            return x.new_empty(len(x), 0, len(self.config.labels)), hidden
        x = self.input(x.reshape(len(x), -1, self.config.stack * self.config.coefficients))
        last = []
        for block, before in zip(self.blocks, hidden, strict=True):
            x, after = block(x, before)
            last.append(after)
        return self.head(x), torch.stack(last)

    def classify(self, audio: str | Path | BinaryIO | np.ndarray | Tensor, top_k: int = 1) -> Prediction:
        """What is said in a recording.

        Args:
            audio: path of an audio file of any rate and number of channels, or an open one, or a wave (N,) of floats at 16 kHz.
            top_k: how many of the best labels to give.

        The model must be in evaluation mode, as `load` gives it: dropout makes answers random.

        Raises:
            AudioError: if the file cannot be read, or holds no samples.
            ValueError: if an array is no mono wave of finite floats.
        """
        notes: list[str] = []
        if isinstance(audio, Tensor):
            audio = (audio.float() if audio.is_floating_point() else audio).detach().cpu().numpy()
        if isinstance(audio, np.ndarray):
            wave = audio
            if wave.ndim != 1 or wave.size == 0 or not np.issubdtype(wave.dtype, np.floating) or not np.isfinite(wave).all():
                raise ValueError(
                    f"audio is an array of shape {wave.shape} and type {wave.dtype}: expected (N,) finite floats at "
                    f"{SAMPLE_RATE} Hz, full scale +-1; for 16-bit samples divide by 32768"
                )
        else:
            wave = read_wave(audio, notes)
        return self.classify_waves([wave], top_k, [notes])[0]

    @torch.inference_mode()
    def classify_waves(
        self, waves: Sequence[np.ndarray], top_k: int = 1, notes: Sequence[list[str]] | None = None
    ) -> list[Prediction]:
        """What is said in each of many waves (N,) of floats at 16 kHz, in their order; equal lengths run together.

        A shorter wave than a second is filled up with silence at its end. A longer one is looked at through a window of one
        second, and the window in which a word is surest speaks for it.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}: expected 1 or more")
        step = self.mfcc.hop * self.config.stack
        notes = [[] for _ in waves] if notes is None else notes
        # A longer wave is filled up to whole steps, so that its end is heard too.
        lengths = [max(CLIP_SAMPLES, -(-len(wave) // step) * step if len(wave) > CLIP_SAMPLES else 0) for wave in waves]
        predictions: dict[int, Prediction] = {}
        for length in sorted(set(lengths)):
            same = [index for index, other in enumerate(lengths) if other == length]
            together = max(1, BATCH * CLIP_SAMPLES // length)
            for start in range(0, len(same), together):
                batch = same[start : start + together]
                padded = torch.zeros(len(batch), length)
                for row, index in zip(padded, batch, strict=True):
                    row[: len(waves[index])] = torch.from_numpy(waves[index])
                    if len(waves[index]) < CLIP_SAMPLES:
                        notes[index].append(f"padded from {len(waves[index])} to {CLIP_SAMPLES} samples")
                for index, probabilities in zip(batch, self._surest(padded), strict=True):
                    predictions[index] = self._prediction(probabilities, top_k, notes[index])
        return [predictions[index] for index in range(len(waves))]

    def _surest(self, waves: Tensor) -> Tensor:
        """Probabilities (B, C) of the window in which a word is surest, in waves (B, N); they are heard part by part."""
        window = self.config.window_steps
        words = [label in self.config.words for label in self.config.labels]
        waves = waves.to(self.input.weight.device)
        state = None
        best = recent = waves.new_zeros(len(waves), 0, len(words))
        for part in torch.split(waves, BATCH * CLIP_SAMPLES, 1):
            logits, state = self(part, state)
            recent = torch.cat((recent, logits), 1)
            if recent.shape[1] >= window:
                candidates = torch.cat((best, pool(recent, window).softmax(-1)), 1)
                surest = candidates[..., words].amax(-1).argmax(1)
                best = candidates[torch.arange(len(waves)), surest].unsqueeze(1)
                recent = recent[:, recent.shape[1] - window + 1 :]
        return best[:, 0]

    def _prediction(self, probabilities: Tensor, top_k: int, notes: list[str]) -> Prediction:
        scores, classes = probabilities.topk(min(top_k, len(self.config.labels)))
        top = tuple((self.config.labels[index], score) for index, score in zip(classes.tolist(), scores.tolist(), strict=True))
        return Prediction(*top[0], top, tuple(notes))


def pool(logits: Tensor, window: int | None = None) -> Tensor:
    """One answer from the logits of many steps: their mean, weighted by how much each step has to say.

    The weight of a step is the softmax over the steps of its mean logit. A softmax over classes does not see the mean logit, so
    the network is free to learn it as the step's weight: attention models' learned weighted pooling without a parameter more.

    Args:
        logits: (B, T, C).
        window: steps in a window; None for one window over all T.

    Returns:
        (B, C), or with a window (B, T - window + 1, C): one for each place of the window.
    """
    weight = logits.mean(-1, keepdim=True)
    if window is None:
        return (weight.softmax(1) * logits).sum(1)
    return (weight.unfold(1, window, 1).softmax(-1) * logits.unfold(1, window, 1)).sum(-1)

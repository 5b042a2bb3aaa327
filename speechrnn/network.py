"""The chain in NumPy: wave (B, N) -> MFCC (B, T, F) -> recurrences (B, T, H) -> logits (B, T, C).

This is the network that users run, and the page to read beside the equation
`h[t] = tanh(W_ih x[t] + b + W_hh h[t-1])`. A whole clip is a stream of one chunk:
`step(wave, state)` gives the logits of the steps that are complete and the state to go on with, and
any cut of the audio into chunks gives the same logits. It does not know files, words or thresholds.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from speechrnn.config import SAMPLE_RATE, ModelConfig

NORM_EPSILON = 1e-5  # added to the variance in a normalisation, as in torch's LayerNorm


FRAMES_AT_ONCE = 400  # of all streams together: more in one go leave the cache, and take longer


class State(NamedTuple):
    """All that a stream remembers; its size does not grow with the audio."""

    audio: np.ndarray  # (B, P): samples that the next frames still need
    hidden: np.ndarray  # (L, B, H): h of each layer


class Runtime(Protocol):
    """Whatever computes the chain: `Network`, or another one held to the same numbers."""

    config: ModelConfig

    def step(self, wave: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """Logits (B, T, C) of a wave (B, N), and the state to go on with."""
        ...


class Network:
    """A trained network, computed with NumPy.

    Args:
        config: its shape.
        weights: its arrays, as `ModelConfig.shapes` names them.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self.weights = dict(weights)
        self._squash = np.tanh if config.activation == "tanh" else _relu

    def initial_state(self, batch: int) -> State:
        """The state before the first sample: silence in the past, h = 0."""
        config, kind = self.config, self.weights["input.weight"].dtype
        audio = np.zeros((batch, config.window_size - config.hop), kind)
        return State(audio, np.zeros((config.layers, batch, config.hidden_size), kind))

    def step(self, wave: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """Logits of every step, and the state to go on with.

        Args:
            wave: (B, N) float, 16 kHz, full scale +-1; N may be anything, also 0.
            state: what the call before returned; None at the start of a stream.

        Returns:
            Logits (B, T, C), one step for every `stack * hop` samples that are complete, and the
            new state.
        """
        state = self.initial_state(len(wave)) if state is None else state
        frames, past = self.frames(wave, state.audio)
        if not frames.shape[1]:
            return np.zeros((len(wave), 0, len(self.config.labels)), frames.dtype), State(
                past, state.hidden
            )
        size = max(1, FRAMES_AT_ONCE // len(frames))
        parts = [
            self.features(frames[:, start : start + size])
            for start in range(0, frames.shape[1], size)
        ]
        logits, hidden = self.recur(np.concatenate(parts, 1), state.hidden)
        return logits, State(past, hidden)

    def embed(self, wave: np.ndarray) -> np.ndarray:
        """What the head makes its answers of: one row (B, H) for each clip of a wave (B, N).

        It is the mean of what the head reads at each step, weighed as `pool` weighs the logits; so
        the head's product with it is the pool of the logits, but for the bias.
        """
        start = self.initial_state(len(wave))
        frames, _ = self.frames(wave, start.audio)
        read, _ = self._read(self.features(frames), start.hidden)
        weight = softmax((read @ self.weights["head.1.weight"].mean(0)).T)  # (B, T)
        embedding: np.ndarray = np.matmul(weight[:, None], read.swapaxes(0, 1))[:, 0]
        return embedding

    def frames(self, wave: np.ndarray, past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut a wave (B, N) into overlapping frames, each complete when its last sample is there.

        Returns:
            Frames (B, T, window), T a multiple of `stack`, and the audio that the next call needs.
        """
        config = self.config
        audio = np.concatenate((past, wave), 1)
        overlap = config.window_size - config.hop
        used = (audio.shape[1] - overlap) // config.step_samples * config.step_samples
        if used <= 0:
            return np.zeros((len(audio), 0, config.window_size), audio.dtype), audio
        windows = sliding_window_view(audio[:, : overlap + used], config.window_size, 1)
        return windows[:, :: config.hop], audio[:, used:]

    def features(self, frames: np.ndarray) -> np.ndarray:
        """Normalised mel-frequency cepstral coefficients (B, T, F) of frames (B, T, window).

        Source: Davis and Mermelstein 1980.
        """
        spectrum = np.fft.rfft(frames * self.weights["mfcc.window"], self.config.fft_size)
        power = spectrum.real**2 + spectrum.imag**2
        log_mel = np.log(power @ self.weights["mfcc.mel"] + self.config.log_floor)
        cepstrum: np.ndarray = log_mel @ self.weights["mfcc.dct"]
        cepstrum -= self.weights["mfcc.mean"]
        cepstrum /= self.weights["mfcc.std"]
        return cepstrum

    def recur(self, features: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B, T / stack, C) and the last h (L, B, H), from features (B, T, F) and h."""
        read, last = self._read(features, hidden)
        return self._linear("head.1", read).swapaxes(0, 1), last

    def _read(self, features: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the head reads, (T / stack, B, H), and the last h.

        Time comes first, so that the rows of a step lie side by side.
        """
        batch = len(features)
        x = features.reshape(batch, -1, self.config.stack * self.config.coefficients)
        x = self._linear("input", x.swapaxes(0, 1))
        last = np.empty_like(hidden)
        for layer in range(self.config.layers):
            states = self.recurrence(
                layer, self._norm(f"blocks.{layer}.recurrence_norm", x), hidden[layer]
            )
            last[layer] = states[-1]
            x = x + states
            x = x + self.feed_forward(layer, x)
        return self._norm("head.0", x), last

    def recurrence(self, layer: int, x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """Every h[t] = tanh(W_ih x[t] + b + W_hh h[t-1]).

        Args:
            layer: from 0 on.
            x: (T, B, H).
            hidden: (B, H), h[-1].

        Returns:
            (T, B, H).
        """
        block = f"blocks.{layer}.recurrence"
        weight = self.weights[f"{block}.weight_hh_l0"].T
        states = _product(x, self.weights[f"{block}.weight_ih_l0"])
        states += self.weights[f"{block}.bias_ih_l0"]
        for state in states:  # a state takes the place of what goes into its tanh
            state += hidden @ weight
            hidden = self._squash(state, out=state)
        return states

    def feed_forward(self, layer: int, x: np.ndarray) -> np.ndarray:
        """W_out (silu(W_gate n) * W_value n), n = norm(x): (T, B, H) to (T, B, H), each step alone.

        Source: Shazeer, GLU Variants Improve Transformer (arXiv 2002.05202).
        """
        block = f"blocks.{layer}.feed_forward"
        normed = self._norm(f"{block}.norm", x)
        gate = self._linear(f"{block}.gate", normed)
        gate *= np.tanh(gate * 0.5) * 0.5 + 0.5  # silu, without overflow
        gate *= self._linear(f"{block}.value", normed)
        return self._linear(f"{block}.outward", gate)

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        out = _product(x, self.weights[f"{name}.weight"])
        out += self.weights[f"{name}.bias"]
        return out

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """Mean 0 and variance 1 over the last axis, then a weight and a bias for each unit.

        Source: Ba, Kiros and Hinton, Layer Normalization (arXiv 1607.06450).
        """
        x = x - np.add.reduce(x, -1, keepdims=True) / x.shape[-1]
        x /= np.sqrt(np.vecdot(x, x)[..., None] / x.shape[-1] + NORM_EPSILON)
        x *= self.weights[f"{name}.weight"]
        x += self.weights[f"{name}.bias"]
        return x


def mfcc(network: Network, wave: np.ndarray) -> np.ndarray:
    """Features (T, F) of a wave (N,) of any length, in parts of a minute."""
    past, parts = network.initial_state(1).audio, []
    for start in range(0, len(wave), 60 * SAMPLE_RATE):
        frames, past = network.frames(wave[None, start : start + 60 * SAMPLE_RATE], past)
        parts.append(network.features(frames)[0])
    return np.concatenate(parts)


def pool(logits: np.ndarray, window: int | None = None) -> np.ndarray:
    """One answer from the logits of many steps: a mean in which each step has a weight of its own.

    The weight of a step is the softmax over the steps of its mean logit. A softmax over classes
    does not see the mean logit, so the network is free to learn it as the step's weight: the
    weighted pooling that attention models learn, without a parameter more.

    Args:
        logits: (..., T, C).
        window: steps in a window; None for one window over all T.

    Returns:
        (..., C), or with a window (..., T - window + 1, C): one for each place of the window.
    """
    if window is None:
        return pool(logits, logits.shape[-2])[..., 0, :]
    return weigh(logits, step_weights(logits, window))


def step_weights(logits: np.ndarray, window: int) -> np.ndarray:
    """Weight of each step in each window: logits (..., T, C) to (..., T - window + 1, window)."""
    means = np.add.reduce(logits, -1) / logits.shape[-1]
    return softmax(means[..., _windows(logits, window)])


def weigh(logits: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weighted mean of each window: logits (..., T, C) and `step_weights` to (..., T', C)."""
    windows = logits[..., _windows(logits, weight.shape[-1]), :]  # (..., T', window, C)
    means: np.ndarray = np.matmul(weight[..., None, :], windows)[..., 0, :]
    return means


def _windows(logits: np.ndarray, window: int) -> np.ndarray:
    """Places (T - window + 1, window) of the steps in each window."""
    return np.arange(logits.shape[-2] - window + 1)[:, None] + np.arange(window)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    shares: np.ndarray = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return shares


def answer_shares(logits: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Probabilities (..., A) of a model's answers, from pooled logits (..., C)."""
    shares = softmax(logits)
    if len(config.answers) == len(config.labels):
        return shares
    sums = np.zeros((len(config.labels), len(config.answers)), shares.dtype)
    sums[np.arange(len(config.labels)), config.answer_places] = 1
    answers: np.ndarray = shares @ sums
    return answers


def _product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """W x for every row of x (..., I): one matrix product, where NumPy would make one a step."""
    rows: np.ndarray = x.reshape(-1, x.shape[-1]) @ weight.T
    return rows.reshape(*x.shape[:-1], -1)


def _relu(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    np.maximum(x, 0, out=out)
    return out

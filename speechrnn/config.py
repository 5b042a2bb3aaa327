"""What shapes a model: its labels, its features and its layers.

In: the values that `config.json` of a model folder holds. Out: a checked `ModelConfig`, the shape
of each weight, and counts that need no weights. It does not know what the weights are.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Activation = Literal["tanh", "relu"]
SAMPLE_RATE = 16_000  # Hz, of all audio inside
SILENCE, UNKNOWN = "_silence_", "_unknown_"
CLIP_SECONDS = 1.0  # the clips of the corpus; also the window in which a word is looked for
CLIP_SAMPLES = round(CLIP_SECONDS * SAMPLE_RATE)
DEFAULT_THRESHOLD = 0.6  # of a word for which the model folder has none
# The settings of the mel frames: models that agree in these can be given the same frames.
FRAME_SETTINGS = (
    "window_ms", "hop_ms", "fft_size", "mel_low_hz", "mel_high_hz", "mel_bands", "log_floor",
    "stack",
)  # fmt: skip


def words_among(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels that are words: `_silence_` and `_unknown_` are not."""
    return tuple(label for label in labels if not label.startswith("_"))


def _answer(label: str) -> str:
    return next((rest for rest in (SILENCE, UNKNOWN) if label.startswith(rest)), label)


def row_labels(label: str, rows: int) -> tuple[str, ...]:
    """Labels of rows of a head that stand for one answer: `_unknown_`, `_unknown_2`, ..."""
    return (label, *(f"{label}{row}" for row in range(2, rows + 1)))


@dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes a model; stored beside its weights.

    Args:
        labels: names of the C classes, in the order of the logits; those that begin with
            `_silence_` or `_unknown_` stand for these answers together.
        window_ms: length of the Hann window of a frame, ms.
        hop_ms: distance between frames, ms; at most the window.
        fft_size: points of the FFT; at least the samples of the window.
        mel_low_hz: lower edge of the lowest mel band, Hz.
        mel_high_hz: upper edge of the highest mel band, Hz; at most half the sample rate.
        mel_bands: number M of triangular mel filters.
        coefficients: number F of cepstral coefficients kept; at most `mel_bands`.
        log_floor: added to the power of a mel band before the logarithm, so that digital silence
            is finite.
        stack: neighbouring frames joined into one step of the recurrence.
        hidden_size: H, units of each recurrent layer.
        layers: L, recurrent layers.
        feed_forward: units of the gated part after each recurrence.
        activation: tanh or relu.

    Raises:
        ValueError: if a value is out of its range, or values contradict each other.
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

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise ValueError(f"labels are {self.labels!r}: expected two or more different names")
        for name in ("stack", "hidden_size", "layers", "feed_forward"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if not 0 < self.hop <= self.window_size <= self.fft_size:
            raise ValueError(
                f"hop_ms ({self.hop} samples), window_ms ({self.window_size}) and fft_size "
                f"({self.fft_size}) must grow in this order"
            )
        if not 0 <= self.mel_low_hz < self.mel_high_hz <= SAMPLE_RATE / 2:
            raise ValueError(
                f"mel bands from {self.mel_low_hz} to {self.mel_high_hz} Hz: expected a range "
                f"inside 0 to {SAMPLE_RATE / 2:.0f} Hz"
            )
        if self.log_floor <= 0:
            raise ValueError(f"log_floor is {self.log_floor}: expected more than 0")
        if not 0 < self.coefficients <= self.mel_bands:
            raise ValueError(
                f"coefficients is {self.coefficients}: expected 1 to mel_bands ({self.mel_bands})"
            )
        if self.activation not in ("tanh", "relu"):
            raise ValueError(f"activation is {self.activation!r}: expected tanh or relu")

    @property
    def words(self) -> tuple[str, ...]:
        """The labels that are words."""
        return words_among(self.labels)

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """What can be answered: the labels, with silence and unknown once each."""
        return tuple(dict.fromkeys(map(_answer, self.labels)))

    @cached_property
    def answer_places(self) -> tuple[int, ...]:
        """The place in `answers` of each label."""
        places = {answer: place for place, answer in enumerate(self.answers)}
        return tuple(places[_answer(label)] for label in self.labels)

    @property
    def window_size(self) -> int:
        """Samples in the window of a frame."""
        return round(self.window_ms * SAMPLE_RATE / 1000)

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return round(self.hop_ms * SAMPLE_RATE / 1000)

    @property
    def step_samples(self) -> int:
        """Samples of a step of the recurrence."""
        return self.hop * self.stack

    @property
    def seconds_per_step(self) -> float:
        """Time between two logits, s."""
        return self.stack * self.hop_ms / 1000

    @property
    def window_steps(self) -> int:
        """Steps in the window of one second in which a word is looked for."""
        return round(CLIP_SECONDS / self.seconds_per_step)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array in `model.safetensors`, by its name.

        Those of a recurrence are `torch.nn.RNN`'s names. Its second bias, `bias_hh_l0`, is zero.
        """
        hidden, units, bins = self.hidden_size, self.feed_forward, self.fft_size // 2 + 1
        found: dict[str, tuple[int, ...]] = {
            "mfcc.window": (self.window_size,),
            "mfcc.mel": (bins, self.mel_bands),
            "mfcc.dct": (self.mel_bands, self.coefficients),
            "mfcc.mean": (self.coefficients,),
            "mfcc.std": (self.coefficients,),
        }
        linear = {"input": (hidden, self.stack * self.coefficients)}
        norms = []
        for layer in range(self.layers):
            block = f"blocks.{layer}"
            for matrix in ("weight_ih_l0", "weight_hh_l0"):
                found[f"{block}.recurrence.{matrix}"] = (hidden, hidden)
            for bias in ("bias_ih_l0", "bias_hh_l0"):
                found[f"{block}.recurrence.{bias}"] = (hidden,)
            norms += [f"{block}.recurrence_norm", f"{block}.feed_forward.norm"]
            linear |= {
                f"{block}.feed_forward.{name}": (units, hidden) for name in ("gate", "value")
            }
            linear[f"{block}.feed_forward.outward"] = (hidden, units)
        norms.append("head.0")
        linear["head.1"] = (len(self.labels), hidden)
        for name in norms:
            found |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
        for name, shape in linear.items():
            found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return found

    @property
    def parameter_count(self) -> int:
        """How many numbers training may change: all but the front end and the second biases."""
        return sum(
            math.prod(shape)
            for name, shape in self.shapes.items()
            if not name.startswith("mfcc.") and not name.endswith("bias_hh_l0")
        )

    @property
    def step_multiplications(self) -> int:
        """Those of the network's matrices in a step: each of their numbers is used once."""
        return sum(
            math.prod(shape)
            for name, shape in self.shapes.items()
            if len(shape) == 2 and not name.startswith("mfcc.")
        )

    @property
    def frame_multiplications(self) -> int:
        """Real multiplications for the features of a frame: window, FFT, mel and DCT matrices.

        An FFT of N points counts 2 N log2 N: N / 2 log2 N butterflies of one complex product each,
        of four real ones (Cooley and Tukey 1965; for a real wave half of it would do). The mel
        matrix counts as it is computed, zeros included.
        """
        fft = round(2 * self.fft_size * math.log2(self.fft_size))
        mel, dct = self.shapes["mfcc.mel"], self.shapes["mfcc.dct"]
        return self.window_size + fft + math.prod(mel) + math.prod(dct)

    @property
    def multiplications(self) -> int:
        """Real multiplications for a second of audio: of its frames, and of its steps.

        What is done once to each number is not counted: biases, normalisations, activations,
        gates, residual paths and the pool.
        """
        frames = SAMPLE_RATE / self.hop
        return round(frames * (self.frame_multiplications + self.step_multiplications / self.stack))

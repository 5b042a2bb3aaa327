"""What a user holds: a model that answers for recordings and finds words in audio without end.

In: paths, arrays, or blocks of audio as they come. Out: `Prediction`s for whole recordings,
`Detection`s in streams. It does not know how the network is computed: any `Runtime` will do.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

import numpy as np

from speechrnn.audio import as_wave, read_wave
from speechrnn.config import CLIP_SAMPLES, SAMPLE_RATE, ModelConfig
from speechrnn.detection import REFRACTORY_SECONDS, Detection, SlidingWindow, Trigger
from speechrnn.network import Runtime, State, answer_shares, pool

BATCH = 32  # clips at once in `classify_waves`: as fast as more, in less memory
PART_SAMPLES = 64 * CLIP_SAMPLES  # of a long recording computed at once
# Computed at once in a stream: 0.15 s of audio with steps of 30 ms. With 8 a stream costs 0.7 times
# as much, and words come up to 0.09 s later.
PIECE_STEPS = 5
TAIL_SECONDS = 0.6  # of silence after the last block, so that a word at the very end is complete


@dataclass(frozen=True)
class Prediction:
    """The answer for a recording: the best label, its probability, and the `top_k` best."""

    label: str
    score: float
    top: tuple[tuple[str, float], ...]
    notes: tuple[
        str, ...
    ] = ()  # what was done to the audio first, such as "resampled from 44100 Hz"


class Recogniser:
    """A model ready to use.

    Args:
        runtime: computes its logits.
        thresholds: for each word the probability from which it counts in a stream.
    """

    def __init__(self, runtime: Runtime, thresholds: Mapping[str, float]) -> None:
        self.runtime = runtime
        self.thresholds = dict(thresholds)

    @property
    def config(self) -> ModelConfig:
        """Shape, features and labels of the model."""
        return self.runtime.config

    @property
    def labels(self) -> tuple[str, ...]:
        """All answers that `classify` can give."""
        return self.config.answers

    @property
    def words(self) -> tuple[str, ...]:
        """The labels that are words: what a stream is searched for."""
        return self.config.words

    def classify(
        self, audio: str | os.PathLike[str] | BinaryIO | np.ndarray, top_k: int = 1
    ) -> Prediction:
        """Which word is spoken in a recording.

        Args:
            audio: path of an audio file of any rate and number of channels, or an open one, or a
                wave (N,) of floats at 16 kHz.
            top_k: how many of the best labels to give.

        Raises:
            AudioError: if the file cannot be read, or holds no samples.
            ValueError: if an array is not a mono wave of finite floats.
        """
        notes: list[str] = []
        is_file = isinstance(audio, str | os.PathLike) or hasattr(audio, "read")
        wave = read_wave(cast("str | BinaryIO", audio), notes) if is_file else audio
        (answer,) = self.classify_waves([cast(np.ndarray, wave)], top_k)
        return replace(answer, notes=(*notes, *answer.notes))

    def classify_waves(self, waves: Sequence[np.ndarray], top_k: int = 1) -> list[Prediction]:
        """Which word is spoken in each of many waves, in their order; equal lengths run together.

        A wave shorter than a second is filled up with silence at its end. A longer one is looked at
        through a window of one second, and the window with the most probable word decides.

        Args:
            waves: each (N,) floats at 16 kHz, full scale +-1, one sample or more.
            top_k: how many of the best labels to give.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}: expected 1 or more")
        waves = [as_wave(wave, least=1) for wave in waves]
        step = self.config.step_samples
        # A longer wave is filled up to whole steps, so that its end counts too.
        lengths = [
            CLIP_SAMPLES if len(w) <= CLIP_SAMPLES else -(-len(w) // step) * step for w in waves
        ]
        predictions: dict[int, Prediction] = {}
        for length in sorted(set(lengths)):
            same = [index for index, other in enumerate(lengths) if other == length]
            together = max(1, BATCH * CLIP_SAMPLES // length)
            for start in range(0, len(same), together):
                batch = same[start : start + together]
                padded = np.zeros((len(batch), length), np.float32)
                for row, index in zip(padded, batch, strict=True):
                    row[: len(waves[index])] = waves[index]
                for index, shares in zip(batch, self._decide(padded), strict=True):
                    predictions[index] = self._prediction(shares, top_k, len(waves[index]))
        return [predictions[index] for index in range(len(waves))]

    def listener(
        self,
        thresholds: float | Mapping[str, float] | None = None,
        refractory: float = REFRACTORY_SECONDS,
    ) -> "Listener":
        """Find words in one stream, pushed block by block.

        Args:
            thresholds: probability from which a word counts, above 0 and below 1, for all words or
                by word; None for the model's own.
            refractory: s after a word in which no other begins.
        """
        if thresholds is None:
            thresholds = self.thresholds
        elif not isinstance(thresholds, Mapping):
            thresholds = dict.fromkeys(self.words, thresholds)
        return Listener(self.runtime, {**self.thresholds, **thresholds}, refractory)

    def detect(
        self,
        blocks: Iterable[np.ndarray],
        thresholds: float | Mapping[str, float] | None = None,
        refractory: float = REFRACTORY_SECONDS,
    ) -> Iterator[Detection]:
        """Words in blocks (n,) of audio at 16 kHz, each as soon as it is sure; see `listener`."""
        listener = self.listener(thresholds, refractory)
        for block in blocks:
            yield from listener.push(block)
        yield from listener.finish()

    def _decide(self, waves: np.ndarray) -> np.ndarray:
        """Probabilities (B, C) of the window with the most probable word, in waves (B, N)."""
        window = self.config.window_steps
        words = [self.labels.index(word) for word in self.words]
        state = None
        best = np.zeros((len(waves), 0, len(self.labels)), np.float32)
        recent = np.zeros((len(waves), 0, len(self.config.labels)), np.float32)
        for start in range(0, waves.shape[1], PART_SAMPLES):
            logits, state = self.runtime.step(waves[:, start : start + PART_SAMPLES], state)
            recent = np.concatenate((recent, logits), 1)
            if recent.shape[1] >= window:
                shares = answer_shares(pool(recent, window), self.config)
                candidates = np.concatenate((best, shares), 1)
                surest = candidates[..., words].max(-1).argmax(1)
                best = candidates[np.arange(len(waves)), surest][:, None]
                recent = recent[:, recent.shape[1] - window + 1 :]
        return best[:, 0]

    def _prediction(self, shares: np.ndarray, top_k: int, samples: int) -> Prediction:
        order = np.argsort(-shares, kind="stable")[:top_k].tolist()
        top = tuple((self.labels[index], float(shares[index])) for index in order)
        notes = (
            (f"padded from {samples} to {CLIP_SAMPLES} samples",) if samples < CLIP_SAMPLES else ()
        )
        return Prediction(*top[0], top, notes)


class Listener:
    """Finds words in one stream of audio; take a new one for the next recording.

    The audio is computed in pieces of `PIECE_STEPS`, however it arrives, so that the words do not
    depend on the blocks, to the bit.

    Args:
        runtime: computes the logits.
        thresholds: for each word the probability from which it counts.
        refractory: s after a word in which no other begins.
    """

    def __init__(
        self, runtime: Runtime, thresholds: Mapping[str, float], refractory: float
    ) -> None:
        config = runtime.config
        self.words, self.thresholds = config.words, dict(thresholds)
        self._runtime = runtime
        self._state: State | None = None
        self._window = SlidingWindow(config)
        self._trigger = Trigger(config, thresholds, refractory, PIECE_STEPS)
        self._columns = [config.answers.index(word) for word in config.words]
        self._piece = PIECE_STEPS * config.step_samples
        self._waiting: list[np.ndarray] = []
        self._waiting_samples = self._samples = 0
        self.probabilities = np.zeros((0, len(config.words)), np.float32)
        """Of the words (T, W), at the steps that the last call computed."""

    @property
    def seconds(self) -> float:
        """How much audio has been pushed, s."""
        return self._samples / SAMPLE_RATE

    def push(self, block: np.ndarray) -> list[Detection]:
        """The words that are sure with this block.

        Args:
            block: (n,) floats at 16 kHz, full scale +-1; n may be 0.

        Raises:
            ValueError: if it is something else.
        """
        block = as_wave(block)
        self._samples += len(block)
        return self._hear(block)

    def finish(self) -> list[Detection]:
        """The words that are sure now that the recording is over; none lies after its end."""
        end = self.seconds
        tail = round(TAIL_SECONDS * SAMPLE_RATE) + self._waiting_samples
        zeros = -tail % self._piece + tail - self._waiting_samples
        return [
            replace(word, end=min(word.end, end), reported=min(word.reported, end))
            for word in self._hear(np.zeros(zeros, np.float32))
            if word.start < end
        ]

    def _hear(self, block: np.ndarray) -> list[Detection]:
        self._waiting.append(block)
        self._waiting_samples += len(block)
        found: list[Detection] = []
        shares = [self.probabilities[:0]]
        if self._waiting_samples >= self._piece:
            audio = np.concatenate(self._waiting)
            whole = len(audio) - len(audio) % self._piece
            for start in range(0, whole, self._piece):
                logits, self._state = self._runtime.step(
                    audio[None, start : start + self._piece], self._state
                )
                posteriors = self._window.push(logits[0])
                shares.append(posteriors.probabilities[:, self._columns])
                found += self._trigger.push(posteriors)
            self._waiting, self._waiting_samples = [audio[whole:]], len(audio) - whole
        self.probabilities = np.concatenate(shares)
        return found

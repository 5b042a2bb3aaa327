"""Audio that does not end: a model that remembers between blocks, and its logits as words with times.

In: float blocks (n,) at 16 kHz, of any and changing size. Out: logits as they become complete, or detections in seconds. What it
remembers has a fixed size. It does not know files (audio).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speechrnn.audio import SAMPLE_RATE
from speechrnn.model import Model, State, pool

NOTHING = -1e4  # a logit so low that its step has no weight in the pool: what stands before the first step
THRESHOLD = 0.9  # on joined validation clips 0.8 found as many words and half as many wrong ones again
TAIL_SECONDS = 0.5  # silence after the last block, so that a word at the very end is heard to its end


@dataclass(frozen=True)
class Detection:
    """A word that was heard: from `start` to `end`, s from the beginning, with the probability `score`."""

    start: float
    end: float
    label: str
    score: float


class Stream:
    """A model on audio that arrives in blocks.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._state: State | None = None

    @torch.inference_mode()
    def push(self, block: np.ndarray | Tensor) -> Tensor:
        """Logits (T, C) of the steps that this block (n,) completes; T may be 0."""
        wave = torch.as_tensor(block)
        if wave.ndim != 1 or not wave.is_floating_point():
            raise ValueError(
                f"block of shape {tuple(wave.shape)} and type {wave.dtype}: expected (n,) floats at {SAMPLE_RATE} Hz, "
                "full scale +-1; for 16-bit samples divide by 32768"
            )
        wave = wave.to(self.model.input.weight)
        logits: Tensor
        logits, self._state = self.model(wave.unsqueeze(0), self._state)
        return logits[0]

    def detect(self, blocks: Iterable[np.ndarray | Tensor], threshold: float = THRESHOLD) -> Iterator[Detection]:
        """Words in audio of any length, each as soon as it is over. A stream is for one recording: take a new one for the next.

        Args:
            blocks: float (n,) at 16 kHz, full scale +-1.
            threshold: probability from which a word counts as heard, 0 to 1.
        """
        detector = Detector(self.model, threshold)
        samples = 0
        for block in blocks:
            samples += len(block)
            yield from detector.push(self.push(block))
        end = samples / SAMPLE_RATE
        last = [
            *detector.push(self.push(np.zeros(round(TAIL_SECONDS * SAMPLE_RATE), dtype=np.float32))),
            *detector.finish(),
        ]
        for word in last:
            yield Detection(min(word.start, end), min(word.end, end), word.label, word.score)


class Detector:
    """Logits to words: the last second is pooled at each step, as for a clip, and a word is heard while it is probable there.

    A detection begins when a word's probability reaches the threshold and is over when it falls below half of it. Its times span
    the steps that hold nine tenths of the pool's weight, in that second which has most of the weight.

    Args:
        model: for its labels and the length of a step.
        threshold: probability from which a word counts as heard, 0 to 1.
    """

    def __init__(self, model: Model, threshold: float) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold is {threshold}: expected a probability between 0 and 1")
        self.labels, self.threshold = model.config.labels, threshold
        self.words = [self.labels.index(word) for word in model.config.words]
        self.seconds_per_step, self.window = model.config.seconds_per_step, model.config.window_steps
        self._recent = torch.full((self.window - 1, len(self.labels)), NOTHING, device=model.input.weight.device)
        self._step = 0
        self._heard: Detection | None = None  # the word being heard, so far
        self._weight = 0.0  # logarithm of the weight in the second that its times come from
        self._free = 0.0  # s; what lies before belongs to a word

    def push(self, logits: Tensor) -> Iterator[Detection]:
        """Words that are over with these steps (T, C)."""
        logits = torch.cat((self._recent, logits))
        self._recent = logits[len(logits) - self.window + 1 :]
        if len(logits) < self.window:
            return
        for place, probabilities in enumerate(pool(logits.unsqueeze(0), self.window)[0].softmax(-1).tolist()):
            yield from self._advance(probabilities, logits[place : place + self.window])

    def finish(self) -> Iterator[Detection]:
        """The word that is still being heard, if there is one."""
        if self._heard is not None:
            yield self._heard
            self._heard = None

    def _advance(self, probabilities: list[float], window: Tensor) -> Iterator[Detection]:
        self._step += 1
        if self._heard is not None and probabilities[self.labels.index(self._heard.label)] < self.threshold / 2:
            yield from self.finish()
        best = max(self.words, key=probabilities.__getitem__)
        score = probabilities[best]
        if score < self.threshold:
            return
        start, end = self._span(window)
        weight = float(window.mean(-1).logsumexp(0))
        if self._heard is not None and self._heard.label == self.labels[best]:
            if weight <= self._weight:
                start, end, weight = self._heard.start, self._heard.end, self._weight
            score = max(score, self._heard.score)
        elif start < self._free:  # the end of a word as it leaves the window, not a word of its own
            return
        else:
            yield from self.finish()
        self._weight, self._free = weight, end
        self._heard = Detection(start, end, self.labels[best], score)

    def _span(self, window: Tensor) -> tuple[float, float]:
        """Start and end, s, of the middle nine tenths of the weight in a window that ends with the present step."""
        passed = window.mean(-1).softmax(0).cumsum(0)
        first = int((passed < 0.05).sum())
        last = int((passed < 0.95).sum()) + 1
        before = self._step - self.window
        return max(0, before + first) * self.seconds_per_step, min(self._step, before + last) * self.seconds_per_step

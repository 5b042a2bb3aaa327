"""Audio that does not end: a model that remembers between blocks, and its logits as words with times.

In: float blocks (n,) at 16 kHz, of any and changing size. Out: logits as they become complete, or detections in seconds. What it
remembers has a fixed size. It does not know files (audio).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speechrnn.audio import SAMPLE_RATE
from speechrnn.model import Model, State, pool

NOTHING = -1e4  # a logit so low that its step has no weight in the pool: what stands before the first step
THRESHOLD = 0.6  # of a word for which the model folder has none; `evaluate --false-alarms-per-hour` measures better ones
HOLD_SECONDS = 0.3  # how long a word must be probable; at 0 s there were 20 times as many false alarms for the same misses
REFRACTORY_SECONDS = 0.15  # after a word; longer ones miss words that follow closely
BLOCK_STEPS = 8  # heard at once by `detect`: 0.24 s of audio with steps of 30 ms
TAIL_SECONDS = 0.6  # silence after the last block, so that a word at the very end is heard to its end


@dataclass(frozen=True)
class Detection:
    """A word that was heard.

    Args:
        start: s from the beginning of the recording.
        end: likewise.
        label: the word.
        score: its probability when it was reported.
        reported: how much audio had been heard then, s.
    """

    start: float
    end: float
    label: str
    score: float
    reported: float


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

    def detect(
        self,
        blocks: Iterable[np.ndarray | Tensor],
        thresholds: float | Mapping[str, float] | None = None,
        refractory: float = REFRACTORY_SECONDS,
        follow: Callable[[Tensor], object] | None = None,
    ) -> Iterator[Detection]:
        """Words in audio of any length, each as soon as it is sure. A stream is for one recording: take a new one for the next.

        The audio is heard in pieces of `BLOCK_STEPS`, however it arrives, so that the words do not depend on the blocks to a bit.

        Args:
            blocks: float (n,) at 16 kHz, full scale +-1.
            thresholds: probability from which a word counts as heard, 0 to 1, of all words or by word; None for the model's own.
            refractory: s after a word in which no other one begins.
            follow: called with the probabilities (T, W) of the words at each step, as they become known.
        """
        detector = Detector(self.model, thresholds, refractory, follow)
        piece = BLOCK_STEPS * self.model.mfcc.hop * self.model.config.stack
        waiting: list[np.ndarray] = []
        samples = 0
        for block in blocks:
            samples += len(block)
            waiting.append(np.asarray(block))
            if sum(map(len, waiting)) >= piece:
                joined = np.concatenate(waiting)
                whole = len(joined) - len(joined) % piece
                for start in range(0, whole, piece):
                    yield from detector.push(self.push(joined[start : start + piece]))
                waiting = [joined[whole:]]
        end = samples / SAMPLE_RATE
        tail = np.zeros(round(TAIL_SECONDS * SAMPLE_RATE), dtype=np.float32)
        joined = np.concatenate((*waiting, tail))
        for start in range(0, len(joined), piece):
            for word in detector.push(self.push(joined[start : start + piece])):
                if word.start < end:
                    yield Detection(word.start, min(word.end, end), word.label, word.score, min(word.reported, end))


class Detector:
    """Logits to words: the last second is pooled at each step, as for a clip; a word is heard when it stays probable there.

    Args:
        model: for its labels, its thresholds and the length of a step.
        thresholds: probability from which a word counts as heard, 0 to 1, of all words or by word; None for the model's own.
        refractory: s after a word in which no other one begins.
        follow: called with the probabilities (T, W) of the words at each step.
    """

    def __init__(
        self,
        model: Model,
        thresholds: float | Mapping[str, float] | None = None,
        refractory: float = REFRACTORY_SECONDS,
        follow: Callable[[Tensor], object] | None = None,
    ) -> None:
        words = model.config.words
        if thresholds is None or isinstance(thresholds, Mapping):
            given = model.thresholds if thresholds is None else thresholds
            thresholds = {word: given.get(word, THRESHOLD) for word in words}
        else:
            thresholds = dict.fromkeys(words, thresholds)
        self.seconds_per_step, self.window = model.config.seconds_per_step, model.config.window_steps
        self.choice = Choice(thresholds, round(HOLD_SECONDS / self.seconds_per_step), refractory)
        self._words = [model.config.labels.index(word) for word in words]
        self._recent = torch.full((self.window - 1, len(model.config.labels)), NOTHING, device=model.input.weight.device)
        self._step = 0
        self._follow = follow

    def push(self, logits: Tensor) -> Iterator[Detection]:
        """Words that are sure with these steps (T, C)."""
        first = self._step
        probabilities, start, end = self.windows(logits)
        probabilities = probabilities[:, self._words]
        if self._follow:
            self._follow(probabilities)
        rows = zip(probabilities.tolist(), start.tolist(), end.tolist(), strict=True)
        for step, heard in enumerate(rows, first):
            yield from self.choice.advance(step, (step + 1) * self.seconds_per_step, *heard)

    def windows(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the window that ends with each of these steps (T, C) holds.

        Returns:
            Probabilities (T, C) of the labels, and the start and end (T,), s, of the middle nine tenths of the window's weight.
        """
        logits = torch.cat((self._recent, logits))
        steps = len(logits) - self.window + 1
        self._recent = logits[steps:]
        if not steps:
            return torch.empty(0, logits.shape[1]), torch.empty(0), torch.empty(0)
        probabilities = pool(logits.unsqueeze(0), self.window)[0].softmax(-1)
        passed = logits.mean(-1).unfold(0, self.window, 1).softmax(-1).cumsum(-1)
        before = self._step - self.window + torch.arange(1, steps + 1, device=logits.device)
        start = (before + (passed < 0.05).sum(-1)).clamp(min=0)
        end = before + (passed < 0.95).sum(-1) + 1
        self._step += steps
        return probabilities, start.double() * self.seconds_per_step, end.double() * self.seconds_per_step


class Choice:
    """Which words are heard, step by step: those that stay at their threshold, each once.

    Args:
        thresholds: by word.
        hold: steps for which a word must stay.
        refractory: s after a word in which no other one begins.

    Raises:
        ValueError: if a threshold is no probability, or the refractory time is negative.
    """

    def __init__(self, thresholds: Mapping[str, float], hold: int, refractory: float) -> None:
        for word, threshold in thresholds.items():
            if not 0 < threshold < 1:
                raise ValueError(f"threshold of {word} is {threshold}: expected a probability between 0 and 1")
        if not refractory >= 0:
            raise ValueError(f"refractory time is {refractory}: expected 0 s or more")
        self.words, self.thresholds = list(thresholds), list(thresholds.values())
        self.hold, self.refractory = hold, refractory
        self._stayed = [0] * len(self.words)  # steps
        self._last, self._last_step = -1, -1
        self._free = 0.0  # s; what begins before belongs to the last word

    def advance(self, step: int, now: float, probabilities: list[float], start: float, end: float) -> Iterator[Detection]:
        """The word that is sure with this step, if any; steps that are left out had nothing at a threshold.

        Args:
            step: its number.
            now: s, its end.
            probabilities: of the words, in the window that ends with it.
            start: s, of what the window holds.
            end: s, likewise.
        """
        if step != self._last_step + 1:
            self._stayed = [0] * len(self.words)
        self._last_step = step
        pairs = enumerate(zip(probabilities, self.thresholds, strict=True))
        self._stayed = [self._stayed[word] + 1 if share >= threshold else 0 for word, (share, threshold) in pairs]
        if max(self._stayed) < self.hold:
            return
        best = max(range(len(self.words)), key=lambda word: (self._stayed[word] >= self.hold, probabilities[word]))
        if start < self._free:
            if best == self._last:  # it goes on
                self._free = max(self._free, end + self.refractory)
            return
        self._last, self._free = best, end + self.refractory
        yield Detection(start, end, self.words[best], probabilities[best], now)

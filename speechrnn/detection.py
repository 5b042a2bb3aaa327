"""From logits to words with times: a window of a second slides over the steps, a trigger fires.

In: logits (T, C) of a stream as they come, from any runtime. Out: `Detection`s in seconds. What is
remembered has a fixed size. It does not know audio or networks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from speechrnn.config import UNKNOWN, ModelConfig
from speechrnn.network import answer_shares, step_weights, weigh

# recipes/detector.py compares these three with other values.
HOLD_SECONDS = 0.42  # how long a word must stay probable
# How long the sound may last that decides when a word is reported: a word is short, but in running
# speech or between two words the whole window decides.
WIDEST_SECONDS = 0.75
# What looks like a word behind other speech is most often a part of that. Where the second before
# the window is unknown for sure, the log odds of a threshold above 0.5 rise by this share of them.
BEHIND_SPEECH = 1.0
REFRACTORY_SECONDS = 0.0  # after a word; 0.15 s hides a twelfth of the words 0.3 s after another
NOTHING = -1e4  # logits so low that their step has no weight: what stands before the first step
EDGES = (0.05, 0.95)  # a word lies between these shares of its window's weight


@dataclass(frozen=True)
class Detection:
    """A word that was found.

    Args:
        start: s from the beginning of the recording.
        end: likewise.
        label: the word.
        score: its probability when it was reported.
        reported: how much audio had been processed then, s.
    """

    start: float
    end: float
    label: str
    score: float
    reported: float


@dataclass(frozen=True)
class Posteriors:
    """What a model gives at each step of a stream, before any threshold.

    Args:
        probabilities: (T, A) of the answers, in the window that ends with each step.
        start: (T,) s, where the sound that decided the window begins.
        end: (T,) s, where it ends.
    """

    probabilities: np.ndarray
    start: np.ndarray
    end: np.ndarray


def join_posteriors(parts: Iterable[Posteriors]) -> Posteriors:
    """Those of consecutive steps as one."""
    columns = zip(*((part.probabilities, part.start, part.end) for part in parts), strict=True)
    return Posteriors(*map(np.concatenate, columns))


class SlidingWindow:
    """Pools the last second at each step, as for a clip.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._steps, self._seconds = config.window_steps, config.seconds_per_step
        self._config = config
        self._recent = np.full((self._steps - 1, len(config.labels)), NOTHING, np.float32)
        self._step = 0  # of the first logits to come

    def push(self, logits: np.ndarray) -> Posteriors:
        """The windows that end with these steps (T, C)."""
        steps = len(logits)
        recent = np.concatenate((self._recent, logits))
        self._recent = recent[steps:]
        if not steps:
            none = np.zeros((0, len(self._config.answers)), np.float32)
            return Posteriors(none, np.zeros(0), np.zeros(0))
        weight = step_weights(recent, self._steps)  # (T, window)
        probabilities = answer_shares(weigh(recent, weight), self._config)
        passed = weight.cumsum(-1)
        first = self._step - self._steps + 1 + np.arange(steps)  # step at which each window begins
        start = np.maximum(first + (passed < EDGES[0]).sum(-1), 0)
        end = first + (passed < EDGES[1]).sum(-1) + 1
        self._step += steps
        return Posteriors(probabilities, start * self._seconds, end * self._seconds)


class Trigger:
    """Decides from the posteriors which words were spoken.

    A word is sure when it stayed at its threshold for `HOLD_SECONDS`, and the sound that decided
    lasts no longer than `WIDEST_SECONDS`. Behind other speech its threshold is higher, see
    `BEHIND_SPEECH`. Each is reported once, at the end of the piece of audio that made it sure.

    Args:
        config: of the model.
        thresholds: for each word the probability from which it counts where no other speech was
            before, above 0 and below 1.
        refractory: s after a word in which no other begins.
        piece_steps: steps that are computed at once.

    Raises:
        ValueError: if a threshold is no probability, or the refractory time is negative.
    """

    def __init__(
        self,
        config: ModelConfig,
        thresholds: Mapping[str, float],
        refractory: float = REFRACTORY_SECONDS,
        piece_steps: int = 1,
    ) -> None:
        for word, threshold in thresholds.items():
            if not 0 < threshold < 1:
                raise ValueError(
                    f"threshold of {word} is {threshold}: expected a probability between 0 and 1"
                )
        if not refractory >= 0:
            raise ValueError(f"refractory time is {refractory}: expected 0 s or more")
        self._words = config.words
        self._columns = [config.answers.index(word) for word in self._words]
        levels = np.array([thresholds[word] for word in self._words], np.float64)
        self._log_odds = np.log(levels / (1 - levels))
        self._unknown = [place for place, one in enumerate(config.answers) if one == UNKNOWN]
        self._before = np.zeros(config.window_steps)  # share of unknown, in the last windows
        self._hold = round(HOLD_SECONDS / config.seconds_per_step)
        self._widest = round(WIDEST_SECONDS / config.seconds_per_step)
        self._refractory = refractory
        self._piece, self._seconds = piece_steps, config.seconds_per_step
        self._stayed = np.zeros((self._hold, len(self._words)), bool)  # in the last steps
        self._step = 0
        self._last = -1
        self._free = 0.0  # s; what begins before belongs to the last word

    def push(self, posteriors: Posteriors) -> list[Detection]:
        """The words that are sure with these steps."""
        probabilities = posteriors.probabilities[:, self._columns]
        levels = self._levels(posteriors.probabilities)
        at_threshold = np.concatenate((self._stayed, probabilities >= levels))
        self._stayed = at_threshold[len(probabilities) :]
        first, self._step = self._step, self._step + len(probabilities)
        if not at_threshold.any():
            return []
        passed = at_threshold.cumsum(0)
        ready = passed[self._hold :] - passed[: -self._hold] == self._hold
        width = np.rint((posteriors.end - posteriors.start) / self._seconds)
        ready &= (width <= self._widest)[:, None]
        best = np.where(ready, probabilities, -1).argmax(1)
        found = []
        for step in np.flatnonzero(ready.any(1)).tolist():
            start, end, word = (
                float(posteriors.start[step]),
                float(posteriors.end[step]),
                int(best[step]),
            )
            if start < self._free:
                if word == self._last:  # it goes on
                    self._free = max(self._free, end + self._refractory)
                continue
            self._last, self._free = word, end + self._refractory
            pieces = (first + step) // self._piece + 1
            reported = pieces * self._piece * self._seconds
            found.append(
                Detection(start, end, self._words[word], float(probabilities[step, word]), reported)
            )
        return found

    def _levels(self, probabilities: np.ndarray) -> np.ndarray:
        """Thresholds (T, W) at the steps with these probabilities (T, A) of the answers."""
        unknown = probabilities[:, self._unknown].sum(1)
        before = np.concatenate((self._before, unknown))
        self._before = before[len(unknown) :]
        rise = BEHIND_SPEECH * before[: len(unknown), None] * self._log_odds.clip(min=0)
        levels: np.ndarray = 1 / (1 + np.exp(-self._log_odds - rise))
        return levels

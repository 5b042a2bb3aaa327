"""The answers of a model on the clips of a split, and the figures that follow from them.

In: a recogniser and labelled clips. Out: a `ClipResult`, plain data, and the test of whether two
models differ. It knows no files, and it makes neither texts nor pictures.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from speechrnn.audio import from_int16
from speechrnn.config import SILENCE
from speechrnn.corpus import Clips, progress
from speechrnn.evaluation.statistics import mcnemar, wilson_interval
from speechrnn.folder import ModelFolder
from speechrnn.network import Network, Runtime, answer_shares, pool
from speechrnn.recogniser import BATCH, Recogniser

T = TypeVar("T")
R = TypeVar("R")
WORST = 20  # mistakes that a report names
BINS = 15  # of the calibration, as in Guo et al. 2017


@dataclass(frozen=True)
class Mistake:
    """A clip that was answered wrongly.

    Args:
        name: of the clip.
        label: the right answer.
        answer: the model's.
        score: probability of the model's answer.
    """

    name: str
    label: str
    answer: str
    score: float


@dataclass(frozen=True)
class MeasuredModel:
    """Which model was measured.

    Args:
        name: as it was given.
        parameters: how many it has.
        multiplications: for a second of audio.
        sha256: of its weights.
    """

    name: str
    parameters: int
    multiplications: int
    sha256: str


@dataclass(frozen=True)
class ClipResult:
    """Answers of a model on the clips of a split.

    Args:
        labels: of the C classes.
        names: of the n clips.
        truth: (n,) int, the label of each clip as its place in `labels`.
        answers: (n,) int, the model's answer for each, likewise.
        scores: (n,) float, probability of each answer.
        protocol: which clips have which label.
        split: training, validation or testing.
        streamed: whether all clips were one stream; else each is alone, after silence.
        model: which model answered, where that is known.
    """

    labels: tuple[str, ...]
    names: tuple[str, ...]
    truth: np.ndarray
    answers: np.ndarray
    scores: np.ndarray
    protocol: str
    split: str
    streamed: bool = False
    model: MeasuredModel | None = None

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) int, how many clips of the row's label were answered with the column's."""
        size = len(self.labels)
        pairs = np.bincount(self.truth * size + self.answers, minlength=size * size)
        return pairs.reshape(size, size)

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """Every clip that was answered wrongly, the most probable answer first."""
        wrong = np.flatnonzero(self.truth != self.answers)
        return tuple(
            Mistake(
                self.names[place],
                self.labels[self.truth[place]],
                self.labels[self.answers[place]],
                float(self.scores[place]),
            )
            for place in wrong[np.argsort(-self.scores[wrong], kind="stable")]
        )

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self.names)

    @property
    def correct(self) -> int:
        """Number of clips that were answered rightly."""
        return int((self.truth == self.answers).sum())

    @property
    def accuracy(self) -> float:
        """Share of the clips that were answered rightly."""
        return self.correct / self.clips

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return wilson_interval(self.correct, self.clips)

    @property
    def silence_apart(self) -> tuple[float, float] | None:
        """Accuracy on words and unknown, and on silence; None where there are no clips of one.

        Published systems mean different things by silence, some of them digital zero, so that only
        the first of the two compares with theirs.
        """
        if SILENCE not in self.labels:
            return None
        silent, right = self.truth == self.labels.index(SILENCE), self.truth == self.answers
        if silent.all() or not silent.any():
            return None
        return float(right[~silent].mean()), float(right[silent].mean())

    @property
    def mean_accuracy(self) -> float:
        """Mean of the recall of all labels that have clips: what a balanced set would give."""
        return float(np.mean([row["recall"] for row in self.per_label() if row["clips"]]))

    @property
    def macro_f1(self) -> float:
        """Mean of F1 over all labels that have clips."""
        return float(np.mean([row["f1"] for row in self.per_label() if row["clips"]]))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: how far the probability of answers is from their accuracy.

        Source: Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), equation
        3, with 15 bins.
        """
        gaps = [
            row["count"] * abs(row["accuracy"] - row["confidence"])
            for row in self.calibration()
            if row["count"]
        ]
        return float(sum(gaps)) / self.clips

    @property
    def title(self) -> str:
        """The model, where it is known, and what it was measured on."""
        return f"{f'{self.model.name}, ' if self.model else ''}{self.protocol} {self.split}"

    def calibration(self) -> Iterator[dict[str, Any]]:
        """15 bins of equal width of the answers' probability, each with the clips that fall in it.

        Yields:
            The bin's edges, `above` and `up_to`, the `count` of its clips and, where there are
            any, the mean probability of their answers (`confidence`) and their `accuracy` with its
            95 % interval.
        """
        places = np.ceil(self.scores * BINS).clip(1) - 1
        for place in range(BINS):
            inside = places == place
            count, right = int(inside.sum()), int((self.truth == self.answers)[inside].sum())
            yield {
                "above": place / BINS,
                "up_to": (place + 1) / BINS,
                "count": count,
                "confidence": float(self.scores[inside].mean()) if count else None,
                "accuracy": right / count if count else None,
                "interval_95": list(wilson_interval(right, count)) if count else None,
            }

    def per_label(self) -> Iterator[dict[str, Any]]:
        """For each label its clips, recall, precision, F1, and its most frequent wrong answer."""
        confusion = self.confusion
        for index, label in enumerate(self.labels):
            right, clips = int(confusion[index, index]), int(confusion[index].sum())
            answers = int(confusion[:, index].sum())
            others = confusion[index].copy()
            others[index] = 0
            yield {
                "label": label,
                "clips": clips,
                "recall": right / max(1, clips),
                "precision": right / max(1, answers),
                "f1": 2 * right / max(1, clips + answers),
                "taken_for": self.labels[int(others.argmax())] if others.any() else None,
            }

    def figures(self) -> dict[str, Any]:
        """Everything that was counted, as JSON can hold it."""
        return {
            "protocol": self.protocol,
            "split": self.split,
            "streamed": self.streamed,
            "clips": self.clips,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "interval_95": list(self.interval),
            "silence_apart": self.silence_apart and list(self.silence_apart),
            "mean_accuracy": self.mean_accuracy,
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            "calibration": list(self.calibration()),
            "per_label": list(self.per_label()),
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
        }

    def to_dict(self) -> dict[str, Any]:
        """The figures, the model, the worst mistakes, and each clip's name, label and answer."""
        return {
            **self.figures(),
            "model": asdict(self.model) if self.model else None,
            "mistakes": [asdict(mistake) for mistake in self.mistakes[:WORST]],
            "names": list(self.names),
            "truth": self.truth.tolist(),
            "answers": self.answers.tolist(),
            "scores": self.scores.tolist(),
        }


def evaluate_clips(
    recogniser: Recogniser,
    clips: Clips,
    protocol: str,
    split: str,
    model: MeasuredModel | None = None,
    pool: Callable[[np.ndarray], np.ndarray] = pool,
) -> ClipResult:
    """Let a model answer on every clip, each alone.

    Args:
        recogniser: the model.
        clips: labelled clips, with labels of the model in any order.
        protocol: for the result.
        split: for the result.
        model: for the result.
        pool: how the logits (B, T, C) of clips become one answer (B, C) each.

    Raises:
        ValueError: if the model does not know a label of the clips.
    """
    truth = known_labels(recogniser.labels, clips)[clips.targets]

    def probabilities(part: slice) -> np.ndarray:
        logits, _ = recogniser.runtime.step(from_int16(clips.waves[part]))
        return answer_shares(pool(logits), recogniser.config)

    batches = in_batches(recogniser.runtime, probabilities, len(clips), "evaluating")
    shares = np.concatenate(batches).astype(np.float64)
    return ClipResult(
        recogniser.labels,
        tuple(clips.names),
        truth,
        shares.argmax(1),
        shares.max(1),
        protocol,
        split,
        model=model,
    )


def measured_model(name: str, folder: ModelFolder) -> MeasuredModel:
    """Which model is measured, from its folder."""
    config = folder.config
    return MeasuredModel(
        name, config.parameter_count, config.multiplications, str(folder.about["sha256"])
    )


def known_labels(labels: Sequence[str], clips: Clips) -> np.ndarray:
    """The place of each label of the clips among those of a model.

    Raises:
        ValueError: if the model does not know one.
    """
    unknown = sorted(set(clips.labels) - set(labels))
    if unknown:
        raise ValueError(
            f"the model has no label {', '.join(unknown)}: it knows {', '.join(labels)}; "
            "take the protocol it was trained with"
        )
    return np.array([labels.index(label) for label in clips.labels])


def in_batches(runtime: Runtime, work: Callable[[slice], R], count: int, doing: str) -> list[R]:
    """What `work` gives for each batch of clips, in order; see `in_threads`.

    Args:
        runtime: that `work` uses.
        work: takes the places of the clips of a batch.
        count: of all clips.
        doing: for the progress bar.
    """
    parts = [slice(start, start + BATCH) for start in range(0, count, BATCH)]
    return in_threads(runtime, work, parts, doing)


def in_threads(runtime: Runtime, work: Callable[[T], R], items: Sequence[T], doing: str) -> list[R]:
    """What `work` gives for each item, in order.

    With the NumPy network each core takes items of its own, for its products are too small to be
    shared by cores: their threads would wait for one another. torch uses all cores for one item.
    The results do not depend on the number of cores.

    Args:
        runtime: that `work` uses.
        work: done to each item.
        items: any.
        doing: for the progress bar.
    """
    alone = isinstance(runtime, Network)
    threads = os.cpu_count() if alone else 1
    limits = threadpool_limits(1, "blas") if alone else nullcontext()
    with limits, ThreadPoolExecutor(threads) as workers:
        results = workers.map(work, items)
        return [result for _, result in zip(progress(items, doing), results, strict=True)]


def differences(first: ClipResult, second: ClipResult) -> tuple[int, int, float]:
    """McNemar's test of two models on the same clips.

    Returns:
        How many clips only the first answered rightly, how many only the second, and the p-value.

    Raises:
        ValueError: if the results are not on the same clips.
    """
    _require_same_clips(first, second)
    right, other = first.truth == first.answers, second.truth == second.answers
    only_first, only_second = int((right & ~other).sum()), int((other & ~right).sum())
    return only_first, only_second, mcnemar(only_first, only_second)


def _require_same_clips(first: ClipResult, second: ClipResult) -> None:
    message = "results on different clips do not compare: "
    for what in ("protocol", "split", "streamed", "clips"):
        if (one := getattr(first, what)) != (other := getattr(second, what)):
            raise ValueError(
                f"{message}{what} is {one} in the first, {other} in the second; evaluate both on "
                "the same"
            )
    for place in range(first.clips):
        one, other = (
            f"{result.names[place]} ({result.labels[result.truth[place]]})"
            for result in (first, second)
        )
        if one != other:
            raise ValueError(
                f"{message}number {place + 1} is {one} in the first, {other} in the second; "
                "evaluate both on the same"
            )

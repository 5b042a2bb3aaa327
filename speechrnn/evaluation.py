"""How good a model is: its answers on the clips of a split, counted.

In: a model and labelled clips (data). Out: a `Report` of plain numbers. It does not know how to draw them (plots).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from speechrnn.data import Clips, progress
from speechrnn.model import Model, pool

BATCH = 256


@dataclass(frozen=True)
class Report:
    """Answers of a model on the clips of a split.

    Args:
        labels: of the classes.
        confusion: (C, C) int; how often clips of the row's label were heard as the column's.
        protocol: which clips have which label.
        split: training, validation or testing.
    """

    labels: tuple[str, ...]
    confusion: np.ndarray
    protocol: str
    split: str

    @property
    def clips(self) -> int:
        """Number of clips."""
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        """Number of clips heard as what they are."""
        return int(self.confusion.trace())

    @property
    def accuracy(self) -> float:
        """Share of the clips that were heard as what they are."""
        return self.correct / self.clips

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return wilson_interval(self.correct, self.clips)

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes that have clips of the share heard right: what a balanced set would give."""
        return float(np.mean([row["recall"] for row in self.per_label() if row["clips"]]))

    def per_label(self) -> Iterator[dict[str, Any]]:
        """For each label its clips, recall, precision, F1, and what it was most often taken for."""
        for index, label in enumerate(self.labels):
            right, clips = int(self.confusion[index, index]), int(self.confusion[index].sum())
            answers = int(self.confusion[:, index].sum())
            others = self.confusion[index].copy()
            others[index] = 0
            yield {
                "label": label,
                "clips": clips,
                "recall": right / max(1, clips),
                "precision": right / max(1, answers),
                "f1": 2 * right / max(1, clips + answers),
                "taken_for": self.labels[int(others.argmax())] if others.any() else None,
            }

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        return {
            "protocol": self.protocol,
            "split": self.split,
            "clips": self.clips,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "interval_95": list(self.interval),
            "mean_accuracy": self.mean_accuracy,
            "per_label": list(self.per_label()),
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
        }

    def summary(self) -> str:
        """The accuracy with its interval, in one line."""
        low, high = self.interval
        return (
            f"accuracy {self.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), mean over classes {self.mean_accuracy:.2%}, "
            f"{self.correct:,} of {self.clips:,} clips, {self.protocol} {self.split}"
        )

    def table(self) -> str:
        """A Markdown table, a row a label."""
        rows = ["| label | clips | recall | precision | F1 | most often taken for |", "|---|--:|--:|--:|--:|---|"]
        for row in self.per_label():
            shares = " | ".join(f"{row[name]:.1%}" for name in ("recall", "precision", "f1"))
            rows.append(f"| {row['label']} | {row['clips']} | {shares} | {row['taken_for'] or ''} |")
        return "\n".join(rows)


def wilson_interval(correct: int, clips: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a share that was counted; z is the normal quantile, for 95 % by default.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    share = correct / clips
    middle = share + z * z / (2 * clips)
    spread = z * math.sqrt(share * (1 - share) / clips + z * z / (4 * clips * clips))
    scale = 1 + z * z / clips
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)  # rounding may leave 0 to 1 by 1e-16


@torch.inference_mode()
def evaluate_clips(model: Model, clips: Clips, protocol: str, split: str) -> Report:
    """Let a model answer on every clip, none left out.

    Args:
        model: the recogniser; it is put into evaluation mode.
        clips: labelled clips, with the model's labels in any order.
        protocol: for the report.
        split: for the report.

    Raises:
        ValueError: if the model does not know a label of the clips.
    """
    unknown = sorted(set(clips.labels) - set(model.config.labels))
    if unknown:
        raise ValueError(
            f"the model has no label {', '.join(unknown)}: it knows {', '.join(model.config.labels)}; "
            "take the protocol it was trained with"
        )
    model.eval()
    device = model.input.weight.device
    labels = model.config.labels
    index = torch.tensor([labels.index(label) for label in clips.labels])
    counts = torch.zeros(len(labels) ** 2, dtype=torch.int64)
    starts = range(0, len(clips), BATCH)
    for start in progress(starts, "evaluating"):
        waves = clips.waves[start : start + BATCH].to(device).float() / 32768
        answers = pool(model(waves)[0]).argmax(-1).cpu()
        truth = index[clips.targets[start : start + BATCH]]
        counts += torch.bincount(truth * len(labels) + answers, minlength=len(labels) ** 2)
    return Report(labels, counts.view(len(labels), len(labels)).numpy(), protocol, split)

"""How good a model is: its answers on the clips of a split, counted: each alone, all in one stream, and under hard conditions.

In: a model and labelled clips (data). Out: a `Report` of plain numbers. It does not know how to draw them (plots).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechrnn.audio import SAMPLE_RATE
from speechrnn.data import SILENCE, Clips, progress
from speechrnn.model import CLIP_SAMPLES, Model, pool
from speechrnn.stream import Stream

BATCH = 256
SHORT_SAMPLES = 4_800  # 0.3 s
SILENCES = 200  # cuts of a noise alone
WORST = 20  # mistakes that a report names


@dataclass(frozen=True)
class Mistake:
    """A clip that was heard as what it is not: its name, its label, the answer, and the answer's probability."""

    name: str
    label: str
    answer: str
    score: float


@dataclass(frozen=True)
class Report:
    """Answers of a model on the clips of a split.

    Args:
        labels: of the classes.
        confusion: (C, C) int; how often clips of the row's label were heard as the column's.
        protocol: which clips have which label.
        split: training, validation or testing.
        streamed: whether the clips were heard in one stream; else each alone, from silence.
        mistakes: every clip that was heard as what it is not, the surest answer first.
    """

    labels: tuple[str, ...]
    confusion: np.ndarray
    protocol: str
    split: str
    streamed: bool = False
    mistakes: tuple[Mistake, ...] = ()

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
            "streamed": self.streamed,
            "clips": self.clips,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "interval_95": list(self.interval),
            "mean_accuracy": self.mean_accuracy,
            "per_label": list(self.per_label()),
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "mistakes": [asdict(mistake) for mistake in self.mistakes[:WORST]],
        }

    def summary(self) -> str:
        """The accuracy with its interval, in one line."""
        low, high = self.interval
        return (
            f"accuracy {self.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), mean over classes {self.mean_accuracy:.2%}, "
            f"{self.correct:,} of {self.clips:,} clips{' in one stream' if self.streamed else ''}, {self.protocol} {self.split}"
        )

    def table(self) -> str:
        """A Markdown table, a row a label."""
        rows = ["| label | clips | recall | precision | F1 | most often taken for |", "|---|--:|--:|--:|--:|---|"]
        for row in self.per_label():
            shares = " | ".join(f"{row[name]:.1%}" for name in ("recall", "precision", "f1"))
            rows.append(f"| {row['label']} | {row['clips']} | {shares} | {row['taken_for'] or ''} |")
        return "\n".join(rows)


def conditions_table(rates: dict[str, float]) -> str:
    """A Markdown table of what `evaluate_conditions` gives."""
    return "\n".join(["| condition | right |", "|---|--:|", *(f"| {name} | {rate:.1%} |" for name, rate in rates.items())])


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
def evaluate_clips(model: Model, clips: Clips, protocol: str, split: str, pool: Callable[[Tensor], Tensor] = pool) -> Report:
    """Let a model answer on every clip, none left out.

    Args:
        model: the recogniser; it is put into evaluation mode.
        clips: labelled clips, with the model's labels in any order.
        protocol: for the report.
        split: for the report.
        pool: how the logits (B, T, C) of a clip become one answer (B, C).

    Raises:
        ValueError: if the model does not know a label of the clips.
    """
    index = _label_index(model, clips)
    model.eval()
    device = model.input.weight.device
    answers = [
        pool(model(waves.to(device).float() / 32768)[0]).cpu()
        for waves in progress(torch.split(clips.waves, BATCH), "evaluating")
    ]
    return _count(model, index[clips.targets], clips.names, torch.cat(answers), protocol, split)


@torch.inference_mode()
def evaluate_stream(model: Model, clips: Clips, noise: Tensor, protocol: str, split: str, seed: int = 0) -> Report:
    """Let a model hear all clips as one recording, in a seeded order with background between them; its state is never reset.

    The answer for a clip is that of the pooled window which ends with it, the window that `Detector` slides along.

    Args:
        model: the recogniser; it is put into evaluation mode.
        clips: labelled clips, with the model's labels in any order.
        noise: (n,) int16 background to lie between the clips; digital silence where it is shorter than a second.
        protocol: for the report.
        split: for the report.
        seed: of the order and of the background's places, lengths (0.1 to 1 s) and levels (-40 to 0 dB).
    """
    index = _label_index(model, clips)
    model.eval()
    random = np.random.default_rng(seed)
    if len(noise) < CLIP_SAMPLES:
        noise = torch.zeros(CLIP_SAMPLES, dtype=torch.int16)
    order = random.permutation(len(clips))
    stream, window = Stream(model), model.config.window_steps
    recent = torch.empty(0, len(model.config.labels), device=model.input.weight.device)
    answers = []
    for place in progress(order.tolist(), "streaming"):
        length = int(random.integers(CLIP_SAMPLES // 10, CLIP_SAMPLES))
        start = int(random.integers(0, len(noise) - length + 1))
        between = noise[start : start + length].float() * 10 ** (random.uniform(-40, 0) / 20)
        recent = torch.cat((recent, stream.push(torch.cat((between, clips.waves[place].float())) / 32768)))[-window:]
        answers.append(pool(recent.unsqueeze(0)).cpu())
    names = [clips.names[place] for place in order]
    return _count(model, index[clips.targets[order]], names, torch.cat(answers), protocol, split, streamed=True)


@torch.inference_mode()
def evaluate_conditions(model: Model, clips: Clips, noises: dict[str, Tensor], seed: int = 0) -> dict[str, float]:
    """Accuracy under conditions as they are in use, each on every clip of a word of the model, or on silence.

    Args:
        model: the recogniser; it is put into evaluation mode.
        clips: labelled clips; those that are no words are left out.
        noises: (n,) int16 of each background noise, by name.
        seed: of the places in the noises.

    Returns:
        The share of right answers by condition: words as recorded; in each noise at 20, 10, 5 and 0 dB; quiet, loud, through a
        telephone, at either edge of the second, in short and in long files; and silence: digital zero and each noise alone at its
        level, and 20 and 40 dB below.
    """
    index = _label_index(model, clips)
    model.eval()
    labels = model.config.labels
    generator = torch.Generator().manual_seed(seed)
    spoken = torch.tensor([labels[label] in model.config.words for label in index[clips.targets].tolist()])
    words, truth = clips.waves[spoken].float() / 32768, index[clips.targets[spoken]]

    def right(waves: Sequence[Tensor] | Tensor, truth: Tensor) -> float:
        answers = model.classify_waves([wave.numpy() for wave in waves])
        return float(np.mean([labels.index(a.label) == t for a, t in zip(answers, truth.tolist(), strict=True)]))

    def cuts(noise: Tensor, count: int) -> Tensor:
        starts = torch.randint(len(noise) - CLIP_SAMPLES + 1, (count,), generator=generator)
        return noise.unfold(0, CLIP_SAMPLES, 1)[starts].float() / 32768

    rates = {"as recorded": right(words, truth)}
    long_enough = {name: noise for name, noise in noises.items() if len(noise) >= CLIP_SAMPLES}
    for name, noise in progress(list(long_enough.items()), "noises"):
        background = cuts(noise, len(words))
        background *= _rms(words) / _rms(background).clamp(min=1e-6)
        for snr_db in (20, 10, 5, 0):
            rates[f"{name}, {snr_db} dB"] = right(words + background * 10 ** (-snr_db / 20), truth)
    rates["30 dB quieter"] = right(words * 10 ** (-30 / 20), truth)
    rates["20 dB louder, clipped"] = right((words * 10).clamp(-1, 1), truth)
    rates["telephone, 300 to 3,400 Hz at 8 kHz"] = right(_telephone(words), truth)
    spans = [_span(word) for word in words]
    starting = [torch.nn.functional.pad(word[start:], (0, start)) for word, (start, _) in zip(words, spans, strict=True)]
    ending = [torch.nn.functional.pad(word[:end], (len(word) - end, 0)) for word, (_, end) in zip(words, spans, strict=True)]
    rates["word begins with the file"] = right(starting, truth)
    rates["word ends with the file"] = right(ending, truth)
    loudest = [int(word.square().unfold(0, SHORT_SAMPLES, 160).sum(-1).argmax()) * 160 for word in words]
    rates["the loudest 0.3 s as a file"] = right([w[i : i + SHORT_SAMPLES] for w, i in zip(words, loudest, strict=True)], truth)
    rates["in 3 s of silence"] = right(torch.nn.functional.pad(words, (CLIP_SAMPLES, CLIP_SAMPLES)), truth)
    if SILENCE in labels:
        silence = torch.full((SILENCES,), labels.index(SILENCE))
        rates["digital zero"] = right(torch.zeros(1, CLIP_SAMPLES), silence[:1])
        for name, noise in long_enough.items():
            alone = cuts(noise, SILENCES)
            for level_db in (0, -20, -40):
                rates[f"{name} alone, {level_db} dB"] = right(alone * 10 ** (level_db / 20), silence)
    return rates


def _rms(waves: Tensor) -> Tensor:
    return waves.square().mean(-1, keepdim=True).sqrt()


def _telephone(waves: Tensor) -> Tensor:
    """The band of a telephone, 300 to 3,400 Hz sampled at 8 kHz (ITU-T G.712)."""
    from torchaudio.functional import highpass_biquad, lowpass_biquad, resample

    band = lowpass_biquad(highpass_biquad(waves, SAMPLE_RATE, 300.0), SAMPLE_RATE, 3400.0)
    heard: Tensor = resample(resample(band, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)
    return heard


def _span(wave: Tensor) -> tuple[int, int]:
    """First and last sample of the 10 ms frames within 25 dB of the loudest."""
    energy = wave.unfold(0, 160, 160).square().sum(-1)
    loud = (energy > energy.max() * 10**-2.5).nonzero()[:, 0]
    return (int(loud[0]) * 160, (int(loud[-1]) + 1) * 160) if len(loud) else (0, len(wave))


def _label_index(model: Model, clips: Clips) -> Tensor:
    """Where each label of the clips stands among the model's."""
    unknown = sorted(set(clips.labels) - set(model.config.labels))
    if unknown:
        raise ValueError(
            f"the model has no label {', '.join(unknown)}: it knows {', '.join(model.config.labels)}; "
            "take the protocol it was trained with"
        )
    return torch.tensor([model.config.labels.index(label) for label in clips.labels])


def _count(
    model: Model, truth: Tensor, names: Sequence[str], logits: Tensor, protocol: str, split: str, streamed: bool = False
) -> Report:
    """Compare the pooled logits (n, C) of clips with their true labels (n,)."""
    labels = model.config.labels
    scores, answers = logits.softmax(-1).max(-1)
    counts = torch.bincount(truth * len(labels) + answers, minlength=len(labels) ** 2)
    wrong = (answers != truth).nonzero()[:, 0].tolist()
    mistakes = [Mistake(names[i], labels[int(truth[i])], labels[int(answers[i])], float(scores[i])) for i in wrong]
    mistakes.sort(key=lambda mistake: -mistake.score)
    return Report(labels, counts.view(len(labels), len(labels)).numpy(), protocol, split, streamed, tuple(mistakes))

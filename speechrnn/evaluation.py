"""How good a model is: its answers on the clips of a split, counted: each alone, all in one stream, and under hard conditions.

In: a model and labelled clips (data). Out: a `Report` of plain numbers, and what follows from several: which model is better, and
the rows for a paper. It does not know how to draw them (plots) or to write them (report).
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechrnn import checkpoint
from speechrnn.audio import SAMPLE_RATE
from speechrnn.data import SILENCE, Clips, Split, load_split, progress
from speechrnn.events import span
from speechrnn.model import CLIP_SAMPLES, Model, pool
from speechrnn.stream import Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 256
SHORT_SAMPLES = 4_800  # 0.3 s
SNR_DB = (20, 15, 10, 5, 0, -5)
SILENCES = 200  # cuts of a noise alone
WORST = 20  # mistakes that a report names
BINS = 15  # of the calibration, as in Guo et al. 2017
LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {c: f"\\{c}" for c in "_%&#${}"}
)


@dataclass(frozen=True)
class Mistake:
    """A clip that was heard as what it is not: its name, its label, the answer, and the answer's probability."""

    name: str
    label: str
    answer: str
    score: float


@dataclass(frozen=True)
class About:
    """Which model was measured: its name, size, multiplications a second of audio, and the SHA-256 of its weights."""

    name: str
    parameters: int
    multiplications: int
    sha256: str


@dataclass(frozen=True)
class Report:
    """Answers of a model on the clips of a split.

    Args:
        labels: of the C classes.
        names: of the n clips.
        truth: (n,) int; the label of each clip, as its place in `labels`.
        answers: (n,) int; the label that each was heard as, likewise.
        scores: (n,) float; probability of each answer.
        protocol: which clips have which label.
        split: training, validation or testing.
        streamed: whether the clips were heard in one stream; else each alone, from silence.
        model: which model answered, where it is known.
    """

    labels: tuple[str, ...]
    names: tuple[str, ...]
    truth: np.ndarray
    answers: np.ndarray
    scores: np.ndarray
    protocol: str
    split: str
    streamed: bool = False
    model: About | None = None

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) int; how often clips of the row's label were heard as the column's."""
        size = len(self.labels)
        return np.bincount(self.truth * size + self.answers, minlength=size * size).reshape(size, size)

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """Every clip that was heard as what it is not, the surest answer first."""
        wrong = np.flatnonzero(self.truth != self.answers)
        return tuple(
            Mistake(self.names[i], self.labels[self.truth[i]], self.labels[self.answers[i]], float(self.scores[i]))
            for i in wrong[np.argsort(-self.scores[wrong], kind="stable")]
        )

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self.names)

    @property
    def correct(self) -> int:
        """Number of clips heard as what they are."""
        return int((self.truth == self.answers).sum())

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

    @property
    def macro_f1(self) -> float:
        """Mean of F1 over the classes that have clips."""
        return float(np.mean([row["f1"] for row in self.per_label() if row["clips"]]))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: how far, over all clips, the probability of an answer is from the share that is right.

        Source: Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), equation 3, with 15 bins.
        """
        gaps = [row["count"] * abs(row["accuracy"] - row["confidence"]) for row in self.calibration() if row["count"]]
        return float(sum(gaps)) / self.clips

    def calibration(self) -> Iterator[dict[str, Any]]:
        """For 15 bins of equal width, `above` a probability and `up_to` another, the clips whose answers have such a probability.

        Each has the `count` of the clips and, where there are any, their mean `confidence`, as the probability of the answer is
        called, and their `accuracy` with its 95 % interval.
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
        """For each label its clips, recall, precision, F1, and what it was most often taken for."""
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
            "mean_accuracy": self.mean_accuracy,
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            "calibration": list(self.calibration()),
            "per_label": list(self.per_label()),
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
        }

    def to_dict(self) -> dict[str, Any]:
        """The figures, the model, the worst mistakes, and each clip's name, truth, answer and score, as JSON can hold them."""
        return {
            **self.figures(),
            "model": asdict(self.model) if self.model else None,
            "mistakes": [asdict(mistake) for mistake in self.mistakes[:WORST]],
            "names": list(self.names),
            "truth": self.truth.tolist(),
            "answers": self.answers.tolist(),
            "scores": self.scores.tolist(),
        }

    def summary(self) -> str:
        """The accuracy with its interval, and what else one number can say, in one line."""
        low, high = self.interval
        return (
            f"accuracy {self.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), mean over classes {self.mean_accuracy:.2%}, "
            f"macro F1 {self.macro_f1:.2%}, calibration error {self.calibration_error:.2%}, "
            f"{self.correct:,} of {self.clips:,} clips{' in one stream' if self.streamed else ''}, {self.protocol} {self.split}"
        )

    def rows(self) -> list[list[str]]:
        """The head of a table, and a row a label."""
        head = ["label", "clips", "recall", "precision", "F1", "most often taken for"]
        return [
            head,
            *(
                [
                    row["label"],
                    str(row["clips"]),
                    *(f"{row[name]:.1%}" for name in ("recall", "precision", "f1")),
                    row["taken_for"] or "",
                ]
                for row in self.per_label()
            ),
        ]

    def table(self) -> str:
        """A Markdown table, a row a label."""
        return markdown(self.rows())

    def plot(self) -> "Figure":
        """The confusion matrix, as a figure of matplotlib: `report.plot().savefig("confusion.png")`."""
        from speechrnn import plots

        return plots.confusion(self, f"{self.title}: {self.accuracy:.1%}")

    @property
    def title(self) -> str:
        """The model, where it is known, and what it was measured on."""
        return f"{f'{self.model.name}, ' if self.model else ''}{self.protocol} {self.split}"


def numeric(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Of each column of a table with a head whether it holds numbers, which stand at the right."""
    number = re.compile(r"[-+]?[\d.,%]+( to [\d.,%]+|e-\d+)?")
    return [len(column) > 1 and all(map(number.fullmatch, column[1:])) for column in zip(*rows, strict=True)]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    rule = "".join("|--:" if right else "|---" for right in numeric(rows)) + "|"
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join([head, rule, *body])


def conditions_rows(rates: dict[str, float]) -> list[list[str]]:
    """The head of a table, and a row for each condition of `evaluate_conditions`."""
    return [["condition", "right"], *([name, f"{rate:.1%}"] for name, rate in rates.items())]


def conditions_table(rates: dict[str, float]) -> str:
    """A Markdown table of what `evaluate_conditions` gives."""
    return markdown(conditions_rows(rates))


def paper_rows(reports: Sequence[Report]) -> list[list[str]]:
    """The head of a table, and a row a report with all that a paper should say; the reports are those of `evaluate`."""
    measured = ["clips", "accuracy", "95 % interval", "parameters", "million multiplications / s", "SHA-256"]
    rows = [["model", "protocol", "split", *measured]]
    for report in reports:
        about, (low, high) = _about(report), report.interval
        rows.append([
            about.name, report.protocol, report.split, f"{report.clips:,}", f"{report.accuracy:.2%}", f"{low:.2%} to {high:.2%}",
            f"{about.parameters:,}", f"{about.multiplications / 1e6:.2f}", about.sha256[:12],
        ])  # fmt: skip
    return rows


def latex(rows: Sequence[Sequence[str]]) -> str:
    """The same table as lines for a `tabular` of LaTeX's booktabs: the head, a rule, the rows."""
    head, *body = (" & ".join(cell.translate(LATEX) for cell in row) + r" \\" for row in rows)
    return "\n".join([head, r"\midrule", *body])


def comparison_rows(reports: Sequence[Report]) -> list[list[str]]:
    """The head of a table, and a row a report; the reports are those of `evaluate`."""
    rows = [["model", "parameters", "accuracy", "95 % interval", "mean over classes", "macro F1"]]
    for report in reports:
        about, (low, high) = _about(report), report.interval
        shares = f"{report.accuracy:.2%}", f"{low:.2%} to {high:.2%}", f"{report.mean_accuracy:.2%}", f"{report.macro_f1:.2%}"
        rows.append([about.name, f"{about.parameters:,}", *shares])
    return rows


def mcnemar(a: Report, b: Report) -> tuple[int, int, float]:
    """McNemar's exact test of whether one model is right more often than another, on the same clips.

    Returns:
        How many clips only `a` heard right, how many only `b`, and the two-sided p-value: the chance of such a difference or a
        larger one if each of those clips had gone to either by the toss of a coin.

    Source: McNemar, Note on the sampling error of the difference between correlated proportions or percentages, Psychometrika 12
    (1947), with the binomial distribution in place of its approximation.

    Raises:
        ValueError: if the reports are not on the same clips.
    """
    _require_same_clips(a, b)
    right_a, right_b = a.truth == a.answers, b.truth == b.answers
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    tosses = only_a + only_b
    ways = total = 1  # exact integers: no power of two is too large for them
    for heads in range(min(only_a, only_b)):
        ways = ways * (tosses - heads) // (heads + 1)
        total += ways
    return only_a, only_b, min(1.0, 2 * total / 2**tosses)


def _require_same_clips(a: Report, b: Report) -> None:
    said = "reports on different clips do not compare: "
    for what in ("protocol", "split", "streamed", "clips"):
        if (one := getattr(a, what)) != (other := getattr(b, what)):
            raise ValueError(f"{said}{what} is {one} in the first, {other} in the second; evaluate both on the same")
    for place in range(a.clips):
        one, other = (f"{report.names[place]} ({report.labels[report.truth[place]]})" for report in (a, b))
        if one != other:
            raise ValueError(f"{said}number {place + 1} is {one} in the first, {other} in the second; evaluate both on the same")


def _about(report: Report) -> About:
    if report.model is None:
        raise ValueError(f"this report on {report.title} does not know its model: expected one of `speechrnn.evaluate`")
    return report.model


def wilson_interval(correct: int, clips: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a share that was counted; z is the normal quantile, for 95 % by default.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    share = correct / clips
    middle = share + z * z / (2 * clips)
    spread = z * math.sqrt(share * (1 - share) / clips + z * z / (4 * clips * clips))
    scale = 1 + z * z / clips
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)  # rounding may leave 0 to 1 by 1e-16


def trained_protocol(model: str | Path) -> str:
    """The protocol that a model, by name or folder, was trained with; v2-12 where it does not say."""
    scores = checkpoint.read_config(checkpoint.model_folder(model))["scores"]
    return str(scores.get("validation", {}).get("protocol", "v2-12"))


def evaluate(
    model: str | Path | Model,
    data: str | Path | Clips,
    protocol: str | None = None,
    split: Split = "testing",
    draw_seed: int = 0,
    allow_partial: bool = False,
) -> Report:
    """Let a model answer on every clip of a split, each alone.

    Args:
        model: a shipped model's name, a folder of a trained one (these run on the GPU, if there is one), or a model.
        data: folder of a corpus or test archive, or clips that `load_split` read.
        protocol: v1-12, v2-12, v1-30, v2-35 or own; by default that of the training, of a model in memory v2-12.
        split: training, validation or testing.
        draw_seed: of the draws of unknown and silence clips.
        allow_partial: go on where clips of the official split are missing.

    Raises:
        FileNotFoundError: if there is no such model or folder.
        ValueError: if the clips are not those of the split, or have labels that the model does not know.
    """
    if isinstance(model, Model):
        name, sha256 = "model", checkpoint.checksum(checkpoint.serialise(model))
    else:
        folder = checkpoint.model_folder(model)
        name, sha256 = str(model), checkpoint.read_config(folder)["sha256"]
        protocol = protocol or trained_protocol(folder)
        model = checkpoint.load(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    protocol = protocol or "v2-12"
    clips = data if isinstance(data, Clips) else load_split(data, protocol, split, seed=draw_seed, allow_partial=allow_partial)
    about = About(name, model.parameter_count, model.multiplications, sha256)
    return replace(evaluate_clips(model, clips, protocol, split), model=about)


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
        The share of right answers by condition: words as recorded; in each noise at each of `SNR_DB`; quiet, loud, through a
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
        for snr_db in SNR_DB:
            rates[f"{name}, {snr_db} dB"] = right(words + background * 10 ** (-snr_db / 20), truth)
    rates["30 dB quieter"] = right(words * 10 ** (-30 / 20), truth)
    rates["20 dB louder, clipped"] = right((words * 10).clamp(-1, 1), truth)
    rates["telephone, 300 to 3,400 Hz at 8 kHz"] = right(_telephone(words), truth)
    spans = [span(word) for word in words]
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
    scores, answers = logits.softmax(-1).max(-1)
    return Report(
        model.config.labels, tuple(names), truth.numpy(), answers.numpy(), scores.double().numpy(), protocol, split, streamed
    )

"""Words in a stream: a recording joined from the clips of a split, whose words are known, and what was heard in it scored.

In: labelled clips and background noise, or a truth and detections. Out: hits, misses, wrong words and false alarms, for every
threshold too, from one hearing of the recording; thresholds that give few enough false alarms. It does not know how to draw.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from speechrnn.audio import SAMPLE_RATE
from speechrnn.data import SILENCE, UNKNOWN, Clips, progress
from speechrnn.model import CLIP_SAMPLES, Model
from speechrnn.stream import HOLD_SECONDS, REFRACTORY_SECONDS, THRESHOLD, Choice, Detection, Detector, Stream

HOURS = 2.0  # the least that a joined recording lasts: half a false alarm an hour is one
ALONE_HOURS = 1.0  # of each noise, and of words that the model does not know
GAP_SECONDS = (0.5, 3.0)  # of background before each clip
GAP_DB = (-40.0, 0.0)  # of the background's level
CUTS = 1_400  # of a noise, a second each: with the gaps an hour of it
TOLERANCE = 0.75  # s between the middles of a word and of its detection (kws_streaming's and TensorFlow's `time_tolerance_ms`)
SWEEP = tuple(1 / (1 + math.exp(-odds / 4)) for odds in range(-6, 41))  # thresholds, even in the log odds: 0.18 to 0.99995


@dataclass(frozen=True)
class Word:
    """A word that was spoken: from `start` to `end`, s from the beginning, in the clip `name`."""

    start: float
    end: float
    label: str
    name: str = ""

    @property
    def middle(self) -> float:
        """S from the beginning."""
        return (self.start + self.end) / 2


class JoinedClips:
    """All clips as one recording: in a seeded order, with background before each; again in other orders until it is long enough.

    Args:
        clips: labelled clips.
        noise: (n,) int16 background; digital silence where it is shorter than the longest gap.
        hours: that it lasts at least.
        seed: of the orders and of the background's places, lengths and levels.
    """

    def __init__(self, clips: Clips, noise: Tensor, hours: float, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        shortest, longest = (round(seconds * SAMPLE_RATE) for seconds in GAP_SECONDS)
        self.clips = clips
        self._noise = noise if len(noise) >= longest else torch.zeros(longest, dtype=torch.int16)
        self.order: list[int] = []  # of the clips
        self._gaps: list[tuple[int, int, float]] = []  # first sample of the background, number of samples, factor
        self.words: list[Word] = []  # all that are spoken, those that are none of the model's too
        self.samples = 0
        while self.samples < hours * 3600 * SAMPLE_RATE:
            for place in random.permutation(len(clips)).tolist():
                length = int(random.integers(shortest, longest))
                start = int(random.integers(len(self._noise) - length + 1))
                self._gaps.append((start, length, 10 ** (random.uniform(*GAP_DB) / 20)))
                self.order.append(place)
                label = clips.labels[clips.targets[place]]
                if label != SILENCE:
                    first, last = span(clips.waves[place].float())
                    begin = self.samples + length
                    name = clips.names[place]
                    self.words.append(Word((begin + first) / SAMPLE_RATE, (begin + last) / SAMPLE_RATE, label, name))
                self.samples += length + CLIP_SAMPLES

    @property
    def hours(self) -> float:
        """How long it lasts."""
        return self.samples / SAMPLE_RATE / 3600

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Tensor:
        """A part (n,) float, full scale +-1: background, and the clip after it."""
        start, length, factor = self._gaps[index]
        gap = self._noise[start : start + length].float() * factor
        return torch.cat((gap, self.clips.waves[self.order[index]].float())) / 32768

    def save(self, path: str | Path) -> None:
        """Write the recording as FLAC, and its truth beside it as `.txt`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        try:
            with soundfile.SoundFile(beside, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
                for index in progress(range(len(self)), "writing"):
                    file.write(self[index].numpy())
            path.with_suffix(".txt").write_text(self.labels())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def labels(self) -> str:
        """The truth as a label track of Audacity: start, end and word, a line a word."""
        return "".join(f"{word.start:.6f}\t{word.end:.6f}\t{word.label}\n" for word in self.words)


@dataclass(frozen=True)
class Heard:
    """What a model heard in a recording, before any threshold.

    Args:
        words: of the model.
        probabilities: (T, C) of the labels, in the window that ends with each step.
        start: (T,) s, where what the window holds begins.
        end: (T,) s, where it ends.
        ends: the last step of each clip.
        hours: length of the recording.
        seconds_per_step: of the model.
    """

    labels: tuple[str, ...]
    probabilities: np.ndarray
    start: np.ndarray
    end: np.ndarray
    ends: list[int]
    hours: float
    seconds_per_step: float

    @property
    def words(self) -> list[str]:
        """The labels that are words."""
        return [label for label in self.labels if not label.startswith("_")]

    def detections(self, thresholds: Mapping[str, float], refractory: float = REFRACTORY_SECONDS) -> list[Detection]:
        """The words that `Detector` finds with these thresholds."""
        columns = [self.labels.index(word) for word in self.words]
        levels = np.array([thresholds[word] for word in self.words])
        probabilities = self.probabilities[:, columns]
        choice = Choice(
            dict(zip(self.words, levels.tolist(), strict=True)), round(HOLD_SECONDS / self.seconds_per_step), refractory
        )
        steps = np.flatnonzero((probabilities >= levels).any(1))  # at the others nothing is at its threshold
        rows = zip(
            steps.tolist(), probabilities[steps].tolist(), self.start[steps].tolist(), self.end[steps].tolist(), strict=True
        )
        return [
            word
            for step, shares, start, end in rows
            for word in choice.advance(step, (step + 1) * self.seconds_per_step, shares, start, end)
        ]


@torch.inference_mode()
def hear(model: Model, recording: JoinedClips) -> Heard:
    """Let a model hear a recording as one stream: its state is never reset."""
    model.eval()
    stream, detector = Stream(model), Detector(model)
    device = model.input.weight.device
    parts, ends, steps = [], [], 0
    for index in progress(range(len(recording)), "streaming"):
        windows = detector.windows(stream.push(recording[index].to(device)))
        steps += len(windows[0])
        parts.append([part.cpu().numpy() for part in windows])
        ends.append(steps - 1)
    probabilities, start, end = (np.concatenate(part) for part in zip(*parts, strict=True))
    config = model.config
    return Heard(config.labels, probabilities, start, end, ends, recording.hours, config.seconds_per_step)


def false_alarms_alone(model: Model, clips: Clips, noises: Mapping[str, Tensor], seed: int = 0) -> dict[str, float]:
    """Words an hour that a model hears, at its thresholds, where none of its words is spoken; in an hour or more of each.

    Args:
        model: the recogniser.
        clips: labelled clips; of these, the words that the model does not know.
        noises: (n,) int16 of each background noise, by name; those shorter than a second are left out.
        seed: of places, orders and levels.

    Returns:
        False alarms an hour by name of the noise, and under "other words".
    """
    generator = torch.Generator().manual_seed(seed)
    scenes = {}
    for name, noise in noises.items():
        if len(noise) >= CLIP_SAMPLES:
            starts = torch.randint(len(noise) - CLIP_SAMPLES + 1, (CUTS,), generator=generator)
            level = 10 ** (torch.empty(CUTS, 1).uniform_(*GAP_DB, generator=generator) / 20)
            waves = (noise.unfold(0, CLIP_SAMPLES, 1)[starts] * level).to(torch.int16)
            scenes[name] = Clips(waves, torch.zeros(CUTS, dtype=torch.int64), [name] * CUTS, (SILENCE,)), noise
    others = torch.tensor([clips.labels[target] == UNKNOWN for target in clips.targets])
    if others.any():
        names = [name for name, other in zip(clips.names, others.tolist(), strict=True) if other]
        background = torch.cat([torch.empty(0, dtype=torch.int16), *noises.values()])
        scenes["other words"] = replace(clips, waves=clips.waves[others], targets=clips.targets[others], names=names), background
    thresholds = {word: model.thresholds.get(word, THRESHOLD) for word in model.config.words}
    heard = {name: hear(model, JoinedClips(scene, noise, ALONE_HOURS, seed)) for name, (scene, noise) in scenes.items()}
    return {name: len(found.detections(thresholds)) / found.hours for name, found in heard.items()}


@dataclass(frozen=True)
class Score:
    """Detections against the truth.

    Args:
        words: spoken words that the model knows.
        hits: of those, detected.
        wrong: detections in the place of a missed word, with another's label.
        false_alarms: all other detections.
        hours: length of the recording.
        latencies: s from the end of each word hit to its report.
    """

    words: int
    hits: int
    wrong: int
    false_alarms: int
    hours: float
    latencies: tuple[float, ...]

    @property
    def miss_rate(self) -> float:
        """Share of the words that were not detected as what they are."""
        return 1 - self.hits / max(1, self.words)

    @property
    def false_alarms_per_hour(self) -> float:
        """False alarms in an hour of the recording."""
        return self.false_alarms / self.hours

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it; of the latencies their median and 95th percentile, s, if there are any."""
        found = {name: value for name, value in asdict(self).items() if name != "latencies"}
        median, late = np.percentile(self.latencies, (50, 95)).tolist() if self.latencies else (None, None)
        rates = {"miss_rate": self.miss_rate, "false_alarms_per_hour": self.false_alarms_per_hour}
        return {**found, **rates, "latency_median": median, "latency_95": late}


def score(
    detections: Sequence[Detection], truth: Sequence[Word], words: Sequence[str], hours: float, tolerance: float = TOLERANCE
) -> dict[str, Score]:
    """Score detections: of each word, and of all under "all".

    A detection hits a word of its label if their middles lie at most `tolerance` apart, one detection a word, so that there are
    as many hits as can be. Of the others, those as near to a missed word are wrong words, one a word again; the rest are false
    alarms: at words that the model does not know, in noise, or second reports.

    Args:
        detections: what was heard.
        truth: what was spoken.
        words: that the model knows.
        hours: length of the recording.
        tolerance: s.
    """
    hits: list[tuple[Word, Detection]] = []
    for label in words:
        hits += _pairs([w for w in truth if w.label == label], [d for d in detections if d.label == label], tolerance)
    hit_words, hit_detections = {id(word) for word, _ in hits}, {id(detection) for _, detection in hits}
    missed = [word for word in truth if word.label in words and id(word) not in hit_words]
    others = [detection for detection in detections if id(detection) not in hit_detections]
    wrong = {id(detection) for _, detection in _pairs(missed, others, tolerance)}

    def of(labels: Sequence[str]) -> Score:
        right = [(word, detection) for word, detection in hits if word.label in labels]
        rest = [detection for detection in others if detection.label in labels]
        mistaken = sum(id(detection) in wrong for detection in rest)
        spoken = sum(word.label in labels for word in truth)
        latencies = tuple(detection.reported - word.end for word, detection in right)
        return Score(spoken, len(right), mistaken, len(rest) - mistaken, hours, latencies)

    return {"all": of(words), **{word: of([word]) for word in words}}


def _pairs(truth: Sequence[Word], detections: Sequence[Detection], tolerance: float) -> list[tuple[Word, Detection]]:
    """As many pairs as can be whose middles lie at most `tolerance` apart: always the first that is left with the first."""
    words = sorted(truth, key=lambda word: word.middle)
    found = sorted(detections, key=_middle)
    pairs, word, detection = [], 0, 0
    while word < len(words) and detection < len(found):
        distance = _middle(found[detection]) - words[word].middle
        if abs(distance) <= tolerance:
            pairs.append((words[word], found[detection]))
        if distance <= tolerance:
            detection += 1
        if distance >= -tolerance:
            word += 1
    return pairs


def _middle(detection: Detection) -> float:
    return (detection.start + detection.end) / 2


@dataclass(frozen=True)
class StreamReport:
    """How a model does on a recording as a stream: at its thresholds, and at all others.

    Args:
        thresholds: by word.
        scores: at those, of each word and of "all".
        curve: for each threshold of `SWEEP`, taken for all words, the scores of each word and of "all".
        hours: length of the recording.
    """

    thresholds: dict[str, float]
    scores: dict[str, Score]
    curve: tuple[tuple[float, dict[str, Score]], ...]
    hours: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        return {
            "hours": self.hours,
            "tolerance": TOLERANCE,
            "thresholds": self.thresholds,
            "scores": {name: score.to_dict() for name, score in self.scores.items()},
            "curve": [
                {"threshold": threshold, **{name: [s.miss_rate, s.false_alarms_per_hour] for name, s in scores.items()}}
                for threshold, scores in self.curve
            ],
        }

    def summary(self) -> str:
        """Misses, false alarms and latency, in one line."""
        found = self.scores["all"]
        parts = [
            f"stream of {self.hours:.2f} h: {found.words - found.hits:,} of {found.words:,} words missed ({found.miss_rate:.1%})",
            f"{found.wrong:,} heard as others",
            f"{found.false_alarms_per_hour:.2f} false alarms an hour",
        ]
        if found.hits:
            late = found.to_dict()
            parts.append(f"{late['latency_median']:.2f} s after a word's end (95 %: {late['latency_95']:.2f} s)")
        return ", ".join(parts)

    def rows(self) -> list[list[str]]:
        """A table, its head first, then a row a word."""
        rows = [["word", "threshold", "spoken", "missed", "wrong", "false alarms", "an hour"]]
        for word, found in self.scores.items():
            threshold = f"{self.thresholds[word]:.3f}" if word in self.thresholds else ""
            counts = [f"{found.miss_rate:.1%}", f"{found.wrong:,}", f"{found.false_alarms:,}"]
            rows.append([word, threshold, f"{found.words:,}", *counts, f"{found.false_alarms_per_hour:.2f}"])
        return rows


def alone_rows(rates: Mapping[str, float]) -> list[list[str]]:
    """A table, its head first, of what `false_alarms_alone` gives."""
    return [["an hour of", "false alarms"], *([name, f"{rate:.1f}"] for name, rate in rates.items())]


def report(heard: Heard, truth: Sequence[Word], thresholds: Mapping[str, float]) -> StreamReport:
    """Score what was heard at the thresholds, and at all of `SWEEP`.

    Args:
        heard: in the recording.
        truth: what was spoken in it.
        thresholds: by word; `stream.THRESHOLD` for those that are not there.
    """
    taken = {word: thresholds.get(word, THRESHOLD) for word in heard.words}
    scores = score(heard.detections(taken), truth, heard.words, heard.hours)
    return StreamReport(taken, scores, _curve(heard, truth), heard.hours)


def choose_thresholds(heard: Heard, truth: Sequence[Word], false_alarms_per_hour: float) -> dict[str, float]:
    """The lowest threshold of `SWEEP` that gives no more false alarms than allowed, for every word.

    It is one for all words: each word's own, chosen on one half of the validation split for no false alarm, gave three an hour in
    the other half, one for all 0.7 at most.

    Args:
        heard: in a recording that is not used for the figures that are published.
        truth: what was spoken in it.
        false_alarms_per_hour: of all words together.

    Raises:
        ValueError: if the recording is too short for a single false alarm to be allowed.
    """
    if false_alarms_per_hour * heard.hours < 1:
        raise ValueError(
            f"{false_alarms_per_hour:g} false alarms an hour are none in {heard.hours:.2f} h: "
            f"expected {1 / heard.hours:.2f} or more, or a longer recording"
        )
    curve = _curve(heard, truth)
    few = [level for level, scores in curve if scores["all"].false_alarms_per_hour <= false_alarms_per_hour]
    return dict.fromkeys(heard.words, min(few, default=SWEEP[-1]))


def _curve(heard: Heard, truth: Sequence[Word]) -> tuple[tuple[float, dict[str, Score]], ...]:
    found = []
    for level in progress(SWEEP, "thresholds"):
        detections = heard.detections(dict.fromkeys(heard.words, level))
        found.append((level, score(detections, truth, heard.words, heard.hours)))
    return tuple(found)


def span(wave: Tensor) -> tuple[int, int]:
    """First and last sample of the 10 ms frames of a wave (n,) within 25 dB of the loudest: where the word is."""
    energy = wave.unfold(0, 160, 160).square().sum(-1)
    loud = (energy > energy.max() * 10**-2.5).nonzero()[:, 0]
    return (int(loud[0]) * 160, (int(loud[-1]) + 1) * 160) if len(loud) else (0, len(wave))

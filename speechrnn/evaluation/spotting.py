"""Detections in a recording scored against the words spoken in it, at all thresholds too.

In: posteriors of a recording, and the words spoken in it. Out: hits, misses, wrong words and false
alarms; a threshold with few enough false alarms. It runs no model.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from speechrnn.audio import to_int16
from speechrnn.config import CLIP_SAMPLES, SILENCE, UNKNOWN
from speechrnn.corpus import Clips, join_noises, progress, random_cuts
from speechrnn.detection import Detection
from speechrnn.evaluation.recordings import GAP_DB, JoinedRecording, RecordingPosteriors, Word

ALONE_HOURS = 1.0  # of each noise, and of words that the model does not know
CUTS = 1_400  # of a noise, a second each: with the gaps an hour of it
# S between the middles of a word and of its detection: `time_tolerance_ms` of TensorFlow's speech
# commands example and of kws_streaming.
TOLERANCE = 0.75
# Thresholds, at equal distances in the log odds: 0.18 to 0.99995.
SWEEP = tuple(1 / (1 + math.exp(-odds / 4)) for odds in range(-6, 41))
ALL = "all"  # what the score of all words together is called


@dataclass(frozen=True)
class Score:
    """Detections counted against the words that were spoken.

    Args:
        words: spoken words that the model knows.
        hits: how many of them were detected.
        wrong: detections in the place of a missed word, with another label.
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
        """Share of the words that were not detected with their own label."""
        return 1 - self.hits / max(1, self.words)

    @property
    def false_alarms_per_hour(self) -> float:
        """False alarms in an hour of the recording."""
        return self.false_alarms / self.hours

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it; of the latencies the median and 95th percentile, s."""
        counts = {name: value for name, value in asdict(self).items() if name != "latencies"}
        median = late = None
        if self.latencies:
            median, late = np.percentile(self.latencies, (50, 95)).tolist()
        return {
            **counts,
            "miss_rate": self.miss_rate,
            "false_alarms_per_hour": self.false_alarms_per_hour,
            "latency_median": median,
            "latency_95": late,
        }


@dataclass(frozen=True)
class SpottingResult:
    """How well a model finds the words of a recording: at its thresholds, and at all others.

    Args:
        thresholds: by word.
        scores: at these, of each word and of `ALL`.
        curve: the thresholds of `SWEEP`, each for all words alike, with their scores.
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
                {
                    "threshold": threshold,
                    **{name: [s.miss_rate, s.false_alarms_per_hour] for name, s in scores.items()},
                }
                for threshold, scores in self.curve
            ],
        }


def evaluate_spotting(
    outputs: RecordingPosteriors, truth: Sequence[Word], thresholds: Mapping[str, float]
) -> SpottingResult:
    """Score a model's detections at thresholds, and at all of `SWEEP`.

    Args:
        outputs: of the model at each step of a recording.
        truth: words that are spoken in it.
        thresholds: for each word of the model.
    """
    used = {word: thresholds[word] for word in outputs.config.words}
    scores = score(outputs.detections(used), truth, outputs.config.words, outputs.hours)
    return SpottingResult(used, scores, score_curve(outputs, truth), outputs.hours)


def score_curve(
    outputs: RecordingPosteriors, truth: Sequence[Word]
) -> tuple[tuple[float, dict[str, Score]], ...]:
    """Each threshold of `SWEEP` with its scores; arguments as in `evaluate_spotting`."""
    words = outputs.config.words
    curve = []
    for level in progress(SWEEP, "thresholds"):
        detections = outputs.detections(dict.fromkeys(words, level))
        curve.append((level, score(detections, truth, words, outputs.hours)))
    return tuple(curve)


def choose_threshold(
    curves: Sequence[Sequence[tuple[float, float]]], false_alarms_per_hour: float
) -> float:
    """The lowest threshold of `SWEEP` with no more false alarms than allowed, for all words alike.

    One threshold serves all words: `recipes/detector.py` chooses one for each word on half of the
    recordings, and in the other half these give several times the false alarms of a common one.

    Args:
        curves: of each recording that is not used for figures to be published, the thresholds of
            `SWEEP` with its false alarms an hour.
        false_alarms_per_hour: of all words together, allowed in each recording.
    """
    few = [
        rows[0][0]
        for rows in zip(*curves, strict=True)
        if all(rate <= false_alarms_per_hour for _, rate in rows)
    ]
    return min(few, default=SWEEP[-1])


def recordings_without_words(
    clips: Clips, noises: Mapping[str, np.ndarray]
) -> dict[str, JoinedRecording]:
    """Recordings of an hour or more in which no word of a model is spoken.

    Args:
        clips: labelled clips; of these, the words that the model does not know.
        noises: (n,) int16 of each background noise, by name; those shorter than a second are left
            out.

    Returns:
        One of each noise, by its name, and one of "other words".
    """
    random = np.random.default_rng(0)
    recordings = {}
    for name, noise in noises.items():
        if len(noise) >= CLIP_SAMPLES:
            waves = to_int16(random_cuts(noise, CUTS, CLIP_SAMPLES, random, GAP_DB))
            cuts = Clips(waves, np.zeros(CUTS, np.int64), [name] * CUTS, (SILENCE,))
            recordings[name] = JoinedRecording(cuts, noise, ALONE_HOURS)
    others = [place for place, t in enumerate(clips.targets) if clips.labels[t] == UNKNOWN]
    if others:
        noise = join_noises(noises)
        recordings["other words"] = JoinedRecording(clips.part(others), noise, ALONE_HOURS)
    return recordings


def false_alarms_per_hour(
    outputs: Mapping[str, RecordingPosteriors], thresholds: Mapping[str, float]
) -> dict[str, float]:
    """Detections an hour in each of several recordings without words, by their names."""
    return {name: len(one.detections(thresholds)) / one.hours for name, one in outputs.items()}


def score(
    detections: Sequence[Detection],
    truth: Sequence[Word],
    words: Sequence[str],
    hours: float,
) -> dict[str, Score]:
    """Score detections: of each word, and of all words under `ALL`.

    A detection hits a word of its label if their middles lie at most `TOLERANCE` apart, one
    detection a word, so that there are as many hits as can be. Of the other detections, those as
    near to a missed word are wrong words, again one a word. The rest are false alarms: at words
    that the model does not know, in noise, or second reports.

    Args:
        detections: of the model.
        truth: words that were spoken.
        words: that the model knows.
        hours: length of the recording.
    """
    truth = [word for word in truth if word.label in words]
    spoken, detected = _by_label(truth), _by_label(detections)
    hits = {label: _pairs(spoken.get(label, []), detected.get(label, [])) for label in words}
    hit_words = {id(word) for pairs in hits.values() for word, _ in pairs}
    hit_detections = {id(detection) for pairs in hits.values() for _, detection in pairs}
    missed = [word for word in truth if id(word) not in hit_words]
    others = [detection for detection in detections if id(detection) not in hit_detections]
    wrong = Counter(detection.label for _, detection in _pairs(missed, others))
    rest = Counter(detection.label for detection in others)
    latencies = {
        label: tuple(detection.reported - word.end for word, detection in pairs)
        for label, pairs in hits.items()
    }

    def total(labels: Sequence[str]) -> Score:
        return Score(
            sum(len(spoken.get(label, [])) for label in labels),
            sum(len(hits[label]) for label in labels),
            sum(wrong[label] for label in labels),
            sum(rest[label] - wrong[label] for label in labels),
            hours,
            tuple(latency for label in labels for latency in latencies[label]),
        )

    return {ALL: total(words), **{word: total([word]) for word in words}}


def _by_label(items: Iterable[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return groups


def _pairs(truth: Sequence[Word], detections: Sequence[Detection]) -> list[tuple[Word, Detection]]:
    """As many pairs as can be whose middles lie at most `TOLERANCE` apart.

    It always pairs the first word that is left with the first detection that is left.
    """
    spoken = sorted(((word.start + word.end) / 2, place) for place, word in enumerate(truth))
    reported = sorted(((d.start + d.end) / 2, place) for place, d in enumerate(detections))
    pairs, word, detection = [], 0, 0
    while word < len(spoken) and detection < len(reported):
        distance = reported[detection][0] - spoken[word][0]
        if abs(distance) <= TOLERANCE:
            pairs.append((truth[spoken[word][1]], detections[reported[detection][1]]))
        if distance <= TOLERANCE:
            detection += 1
        if distance >= -TOLERANCE:
            word += 1
    return pairs

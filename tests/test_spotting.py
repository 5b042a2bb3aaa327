"""Words found in streams: what a detection counts as, and thresholds that keep their promise."""

import itertools
import json

import numpy as np
import pytest
from evaluation_examples import hiss
from test_recordings import HOUR, LABELS, four_clips

from speechrnn.config import ModelConfig
from speechrnn.detection import Detection, Posteriors
from speechrnn.evaluation import spotting
from speechrnn.evaluation.recordings import RecordingPosteriors, Word
from speechrnn.evaluation.spotting import (
    ALL,
    TOLERANCE,
    Score,
    choose_threshold,
    evaluate_spotting,
    false_alarms_per_hour,
    recordings_without_words,
    score,
)


def detection(middle: float, label: str, reported: float | None = None) -> Detection:
    reported = middle + 0.2 if reported is None else reported
    return Detection(middle - 0.2, middle + 0.2, label, 0.9, reported)


def word(middle: float, label: str) -> Word:
    return Word(middle - 0.25, middle + 0.25, label)


# Scoring


def test_each_kind_of_detection_is_counted_as_what_it_is():
    """By hand: `yes` hit, `no` detected as `yes`, a second report, one at an unknown word, one in
    nothing; the last `yes` is missed."""
    truth = [word(1, "yes"), word(4, "no"), word(7, "_unknown_"), word(10, "yes")]
    detections = [
        detection(1.3, "yes", 1.65),
        detection(1.6, "yes"),
        detection(4.2, "yes"),
        detection(7, "no"),
        detection(20, "no"),
    ]
    scores = score(detections, truth, ["yes", "no"], hours=2.0)
    assert scores[ALL] == Score(3, 1, 1, 3, 2.0, (pytest.approx(0.4),))
    assert scores["yes"] == Score(2, 1, 1, 1, 2.0, (pytest.approx(0.4),))
    assert scores["no"] == Score(1, 0, 0, 2, 2.0, ())
    assert scores[ALL].miss_rate == pytest.approx(2 / 3)
    assert scores[ALL].false_alarms_per_hour == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("distance", "hits"), [(TOLERANCE - 1e-6, 1), (-TOLERANCE + 1e-6, 1), (0.76, 0), (-0.76, 0)]
)
def test_tolerance_is_between_the_middles(distance: float, hits: int):
    scores = score([detection(5 + distance, "yes")], [word(5, "yes")], ["yes"], 1.0)
    assert scores[ALL].hits == hits


def most_pairs(words: list[float], detections: list[float], tolerance: float) -> int:
    """By trying every assignment."""
    if len(words) > len(detections):
        words, detections = detections, words
    return max(
        sum(abs(a - b) <= tolerance for a, b in zip(words, chosen, strict=True))
        for chosen in itertools.permutations(detections, len(words))
    )


def test_hits_are_as_many_as_any_assignment_gives():
    random = np.random.default_rng(0)
    for _ in range(300):
        middles, others = (random.uniform(0, 4, random.integers(1, 6)).tolist() for _ in range(2))
        detections = [detection(middle, "yes") for middle in others]
        truth = [word(middle, "yes") for middle in middles]
        hits = score(detections, truth, ["yes"], 1.0)[ALL].hits
        assert hits == most_pairs(middles, others, TOLERANCE)


def test_every_word_and_every_detection_is_counted_once():
    random = np.random.default_rng(1)
    for _ in range(100):
        truth = [word(m, random.choice(LABELS[1:])) for m in random.uniform(0, 30, 20)]
        detections = [detection(m, random.choice(LABELS[2:])) for m in random.uniform(0, 30, 20)]
        scores = score(detections, truth, ["yes", "no"], 1.0)
        both = scores[ALL]
        assert both.words == sum(w.label in LABELS[2:] for w in truth)
        assert both.hits + both.wrong + both.false_alarms == len(detections)
        for count in ("words", "hits", "wrong", "false_alarms"):
            each = sum(getattr(scores[label], count) for label in ("yes", "no"))
            assert getattr(both, count) == each


def test_no_detection_and_no_word_have_rates_too():
    assert score([], [], ["yes"], 1.0)[ALL].to_dict()["latency_median"] is None
    assert score([], [word(1, "yes")], ["yes"], 1.0)[ALL].miss_rate == 1


# Thresholds


def posteriors_of(spoken: list[tuple[float, str, float]], hours: float) -> RecordingPosteriors:
    """Each of (s, label, probability) stays at its probability for a second; all else is silent."""
    steps = round(hours * HOUR / 0.03)
    probabilities = np.zeros((steps, len(LABELS)), dtype=np.float32)
    start = (np.arange(steps) - 33) * 0.03
    for middle, label, probability in spoken:
        first, last = round((middle - 0.2) / 0.03), round((middle + 0.8) / 0.03)
        probabilities[first:last, LABELS.index(label)] = probability
        start[first:last] = middle - 0.2
    config = ModelConfig(labels=LABELS)
    return RecordingPosteriors(config, Posteriors(probabilities, start, start + 0.4), hours)


SOME = {"yes": 0.6, "no": 0.6}


@pytest.fixture(scope="module")
def scene() -> tuple[RecordingPosteriors, list[Word]]:
    """Two hours: `yes` is surer than its false alarms, `no` less sure than some of its own."""
    spoken = [(10.0 + 5 * i, "yes", 0.8 + 0.001 * i) for i in range(100)]
    spoken += [(1_000.0 + 5 * i, "no", 0.7 + 0.001 * i) for i in range(100)]
    truth = [word(middle, label) for middle, label, _ in spoken]
    alarms = [(3_000.0 + 5 * i, "yes", 0.5) for i in range(9)]
    alarms += [(4_000.0 + 5 * i, "no", 0.3 + 0.06 * i) for i in range(10)]
    return posteriors_of(spoken + alarms, 2.0), truth


def test_lower_thresholds_miss_fewer_words_and_give_more_false_alarms(scene):
    curve = evaluate_spotting(*scene, SOME).curve
    misses = [scores[ALL].miss_rate for _, scores in curve]
    alarms = [scores[ALL].false_alarms for _, scores in curve]
    assert misses == sorted(misses) and alarms == sorted(alarms, reverse=True)
    assert misses[0] == 0 and misses[-1] == 1 and alarms[0] == 19 and alarms[-1] == 0


def rates(scene: tuple[RecordingPosteriors, list[Word]]) -> list[tuple[float, float]]:
    curve = evaluate_spotting(*scene, SOME).curve
    return [(level, scores[ALL].false_alarms_per_hour) for level, scores in curve]


def test_chosen_threshold_is_the_lowest_that_keeps_the_false_alarms_allowed(scene):
    curve = rates(scene)
    for allowed in (0.5, 1.0, 2.0, 9.5):
        chosen = choose_threshold([curve], allowed)
        assert dict(curve)[chosen] <= allowed
        assert all(rate > allowed for level, rate in curve if level < chosen)
    assert choose_threshold([curve], 9.5) < choose_threshold([curve], 0.5)


def test_chosen_threshold_keeps_the_false_alarms_allowed_in_every_recording(scene):
    curve = rates(scene)
    louder = [(level, 2 * rate) for level, rate in curve]
    assert choose_threshold([curve, louder], 2.0) == choose_threshold([louder], 2.0)
    assert choose_threshold([louder], 2.0) == choose_threshold([curve], 1.0)
    never = [(level, 1.0) for level, _ in curve]
    assert choose_threshold([curve, never], 0.5) == spotting.SWEEP[-1]


def test_result_is_plain_data_with_the_thresholds_that_were_used(scene):
    result = evaluate_spotting(*scene, {"yes": 0.7, "no": 0.6})
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["thresholds"] == {"yes": 0.7, "no": 0.6}
    assert plain["scores"]["all"]["hits"] == result.scores[ALL].hits == 200
    assert (plain["hours"], plain["tolerance"]) == (2.0, TOLERANCE)
    assert len(plain["curve"]) == len(result.curve) == len(spotting.SWEEP)
    assert plain["curve"][0].keys() == {"threshold", "all", "yes", "no"}
    assert (result.scores[ALL].miss_rate, result.scores[ALL].false_alarms) == (0, 5)


# Where no word is


def test_recordings_without_words_hold_an_hour_of_each_noise_and_of_other_words():
    noises = {"hiss": hiss(60_000), "click": hiss(9_000)}
    recordings = recordings_without_words(four_clips(), noises)
    assert list(recordings) == ["hiss", "other words"], "a noise below a second is left out"
    noise, others = recordings.values()
    assert all(1 <= recording.hours < 1.2 for recording in (noise, others))
    assert not noise.words and {spoken.name for spoken in others.words} == {"cat/c"}
    levels = np.square(noise.clips.waves, dtype=np.float64).mean(1) ** 0.5
    assert levels.max() / levels.min() > 50  # levels from -40 to 0 dB
    assert len({wave.tobytes() for wave in noise.clips.waves}) > 1_000


def test_false_alarms_are_counted_in_an_hour_at_the_thresholds_of_the_model():
    found = {
        "hiss": posteriors_of([(10.0, "yes", 0.7), (1_000.0, "no", 0.5)], 2.0),
        "hum": posteriors_of([], 1.0),
    }
    assert false_alarms_per_hour(found, {"yes": 0.65, "no": 0.6}) == {"hiss": 0.5, "hum": 0}
    assert false_alarms_per_hour(found, {"yes": 0.75, "no": 0.45}) == {"hiss": 0.5, "hum": 0}
    assert set(false_alarms_per_hour(found, {"yes": 0.75, "no": 0.6}).values()) == {0}

"""From logits to words: each once, at its time, in constant memory, however the logits arrive."""

import numpy as np
import pytest

from speechrnn import Detection
from speechrnn.config import ModelConfig
from speechrnn.detection import HOLD_SECONDS, WIDEST_SECONDS, Posteriors, SlidingWindow, Trigger
from speechrnn.network import pool, softmax

LABELS = ("_silence_", "_unknown_", "yes", "no")
CONFIG = ModelConfig(labels=LABELS, hidden_size=16, layers=2)


def _logits(steps: int, **words: tuple[int, int]) -> np.ndarray:
    """Silence, with each word's logit high, and its steps' weight too, from first step to last."""
    logits = np.zeros((steps, len(LABELS)), np.float32)
    logits[:, 0] = 8
    for word, (first, last) in words.items():
        logits[first:last] = 20
        logits[first:last, LABELS.index(word)] += 10
    return logits


def _detect(
    logits: np.ndarray, threshold: float = 0.8, chunk: int | None = None, piece_steps: int = 1
) -> list[Detection]:
    window = SlidingWindow(CONFIG)
    trigger = Trigger(CONFIG, dict.fromkeys(CONFIG.words, threshold), piece_steps=piece_steps)
    size = chunk or len(logits)
    parts = np.split(logits, range(size, len(logits), size))
    return [word for part in parts for word in trigger.push(window.push(part))]


REFRACTORY = 0.15  # s, in the search step by step


def _reference(posteriors: Posteriors, thresholds: dict[str, float]) -> list[Detection]:
    """What `Trigger` promises, a step at a time: a word that stayed, and is short, each once."""
    hold, widest = (round(seconds / CONFIG.seconds_per_step) for seconds in (0.42, 0.75))
    stayed, last, free, words = dict.fromkeys(thresholds, 0), "", 0.0, []
    unknown = np.concatenate((np.zeros(33), posteriors.probabilities[:, 1]))  # a second later
    for step, shares in enumerate(posteriors.probabilities):
        share = {word: shares[LABELS.index(word)] for word in thresholds}
        for word, level in thresholds.items():
            odds = level / (1 - level)
            odds = odds ** (1 + unknown[step]) if level > 0.5 else odds
            stayed[word] = stayed[word] + 1 if share[word] >= odds / (1 + odds) else 0
        ready = [word for word in thresholds if stayed[word] >= hold]
        start, end = float(posteriors.start[step]), float(posteriors.end[step])
        if not ready or round((end - start) / CONFIG.seconds_per_step) > widest:
            continue
        best = max(ready, key=share.__getitem__)
        if start < free:
            free = max(free, end + REFRACTORY) if best == last else free
            continue
        last, free = best, end + REFRACTORY
        reported = (step + 1) * CONFIG.seconds_per_step
        words.append(Detection(start, end, best, float(share[best]), reported))
    return words


def test_a_word_is_detected_once_at_its_time():
    (word,) = _detect(_logits(300, yes=(100, 120)))
    assert word.label == "yes"
    assert word.start == pytest.approx(3.0, abs=0.07)
    assert 3.3 - 0.07 <= word.end <= 3.6 + 0.07  # it is reported before it is over
    assert word.reported == pytest.approx(3.0 + HOLD_SECONDS, abs=0.07)
    assert word.score > 0.99


def test_two_words_are_two_detections_in_order():
    words = _detect(_logits(400, yes=(100, 120), no=(200, 215)))
    assert [(word.label, round(word.start)) for word in words] == [("yes", 3), ("no", 6)]


def test_a_word_behind_other_speech_is_reported_when_that_decides_no_more():
    alone = np.zeros((300, len(LABELS)), np.float32)
    alone[:, 0] = 8
    alone[120:140] = (12.5, 12.5, 52.5, 12.5)
    behind = alone.copy()
    behind[105:120] = (20, 30, 20, 20)  # weighs as much, being as large on average
    (early,), (late,) = _detect(alone), _detect(behind)
    assert early.label == late.label == "yes"
    assert late.end - late.start <= WIDEST_SECONDS + 1e-6
    assert late.reported > early.reported + 0.2


def test_a_word_behind_other_speech_must_be_surer():
    """Its share is 0.9; the threshold is 0.8, and 0.94 where the second before was unknown."""
    alone = np.zeros((300, len(LABELS)), np.float32)
    alone[:, 0] = 8
    alone[120:140] = (20, 20, 23.3, 20)  # it decides its window, and no sound beside it does
    behind = alone.copy()
    behind[70:118, :2] = (0, 8)
    (word,) = _detect(alone)
    assert word.score == pytest.approx(0.9, abs=0.02)
    (late,) = _detect(behind)
    assert late.reported > word.reported + 0.6, "not before it lies in the second before itself"
    (soon,) = _detect(behind, threshold=0.7)  # 0.84 behind speech
    assert soon.reported == word.reported
    behind[85:118, :2] = (8, 0)
    assert _detect(behind)[0].reported == word.reported, "after a second of silence"


def test_silence_is_no_word():
    assert _detect(_logits(500)) == []


def test_a_word_below_the_threshold_is_not_detected():
    logits = _logits(200)
    logits[100, 2] += 9.0  # 0.7 of the probability, at most
    assert _detect(logits, 0.95) == []


def test_a_word_at_the_very_end_is_detected():
    assert [word.label for word in _detect(_logits(120, no=(105, 120)))] == ["no"]


@pytest.mark.parametrize("chunk", [1, 3, 50, 137])
def test_detections_do_not_depend_on_how_the_logits_arrive(chunk):
    logits = _logits(400, yes=(60, 75), no=(200, 215))
    expected, words = _detect(logits), _detect(logits, chunk=chunk)
    assert [(w.start, w.end, w.label, w.reported) for w in words] == [
        (w.start, w.end, w.label, w.reported) for w in expected
    ]
    assert len(words) == 2


def test_a_word_is_reported_at_the_end_of_the_piece_that_made_it_sure():
    logits = _logits(300, yes=(100, 120))
    (step,), (piece,) = _detect(logits), _detect(logits, piece_steps=8)
    pieces = piece.reported / (8 * CONFIG.seconds_per_step)
    assert pieces == pytest.approx(round(pieces))
    assert 0 <= piece.reported - step.reported < 8 * CONFIG.seconds_per_step
    assert (piece.start, piece.end, piece.score) == (step.start, step.end, step.score)


@pytest.mark.parametrize("seed", range(20))
def test_trigger_finds_what_a_search_step_by_step_finds(seed):
    """On random posteriors in which words come and go, with thresholds that differ."""
    random = np.random.default_rng(seed)
    walk = random.normal(0, 0.6, (2_000, len(LABELS))).cumsum(0)
    probabilities = softmax((walk - 0.995 * walk.mean(0)).astype(np.float32))
    start = np.sort(random.uniform(0, 60, 2_000))
    posteriors = Posteriors(probabilities, start, start + random.uniform(0.1, 0.9, 2_000))
    thresholds = {"yes": 0.4, "no": 0.6}
    trigger = Trigger(CONFIG, thresholds, REFRACTORY)
    cuts = np.sort(random.integers(0, 2_000, 30))
    words = []
    for rows in np.split(np.arange(2_000), cuts):
        part = Posteriors(probabilities[rows], posteriors.start[rows], posteriors.end[rows])
        words += trigger.push(part)
    expected = _reference(posteriors, thresholds)
    assert words == pytest.approx(expected) if not expected else words == expected
    assert seed or expected


def test_the_window_holds_what_a_clip_of_that_second_would_be_pooled_to():
    logits = np.random.default_rng(0).normal(0, 3, (100, len(LABELS))).astype(np.float32)
    window = SlidingWindow(CONFIG)
    probabilities = np.concatenate(
        [window.push(part).probabilities for part in np.array_split(logits, 7)]
    )
    for step in (CONFIG.window_steps - 1, 50, 99):
        clip = logits[step + 1 - CONFIG.window_steps : step + 1]
        np.testing.assert_allclose(probabilities[step], softmax(pool(clip)), rtol=1e-5)


def test_window_remembers_no_more_than_a_second():
    window = SlidingWindow(CONFIG)
    for _ in range(5):
        window.push(_logits(500))
    assert window._recent.shape == (CONFIG.window_steps - 1, len(LABELS))


def test_no_steps_are_no_words():
    posteriors = SlidingWindow(CONFIG).push(_logits(0))
    assert posteriors.probabilities.shape == (0, len(LABELS))
    assert Trigger(CONFIG, {"yes": 0.5, "no": 0.5}).push(posteriors) == []


@pytest.mark.parametrize("threshold", [0, 1, 1.5, -1, float("nan")])
def test_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Trigger(CONFIG, {"yes": threshold, "no": 0.5})


@pytest.mark.parametrize("refractory", [-0.1, float("nan")])
def test_negative_refractory_time_is_refused(refractory):
    with pytest.raises(ValueError, match="expected 0 s or more"):
        Trigger(CONFIG, {"yes": 0.5, "no": 0.5}, refractory)

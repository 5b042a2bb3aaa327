"""Audio that does not end: the same words however it arrives, at the time they were spoken, in constant memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn import Model, ModelConfig, Stream, load
from speechrnn.audio import read_wave
from speechrnn.stream import Detector

DATA = Path(__file__).parents[1] / "data" / "synthetic_commands"
LABELS = ("_silence_", "_unknown_", "yes", "no")


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(labels=LABELS, hidden_size=16, layers=2)).eval()


def _logits(steps: int, **words: tuple[int, int]) -> torch.Tensor:
    """Silence, with each word's logit high, and its steps' weight too, from its first step to before its last."""
    logits = torch.zeros(steps, len(LABELS))
    logits[:, 0] = 8
    for word, (first, last) in words.items():
        logits[first:last] = 20
        logits[first:last, LABELS.index(word)] += 10
    return logits


def test_a_word_is_detected_once_at_its_time(model):
    detector = Detector(model, 0.8)
    found = [*detector.push(_logits(300, yes=(100, 120)))]
    assert [word.label for word in found] == ["yes"]
    assert found[0].start == pytest.approx(3.0, abs=0.07)
    assert 3.3 - 0.07 <= found[0].end <= 3.6 + 0.07  # it is reported before it is over
    assert found[0].reported == pytest.approx(3.3, abs=0.07)
    assert found[0].score > 0.99


def test_two_words_are_two_detections_in_order(model):
    detector = Detector(model, 0.8)
    found = list(detector.push(_logits(400, yes=(100, 120), no=(200, 215))))
    assert [(word.label, round(word.start)) for word in found] == [("yes", 3), ("no", 6)]


def test_silence_is_no_word(model):
    detector = Detector(model, 0.8)
    assert list(detector.push(_logits(500))) == []


def test_a_word_below_the_threshold_is_not_detected(model):
    logits = _logits(200)
    logits[100, 2] += 9.0  # 0.7 of the probability, at most
    detector = Detector(model, 0.95)
    assert list(detector.push(logits)) == []


def test_a_word_at_the_very_end_is_detected(model):
    detector = Detector(model, 0.8)
    found = list(detector.push(_logits(120, no=(105, 120))))
    assert [word.label for word in found] == ["no"]


@pytest.mark.parametrize("chunk", [1, 3, 50, 137])
def test_detections_do_not_depend_on_how_the_logits_arrive(model, chunk):
    logits = _logits(400, yes=(60, 75), no=(200, 215))
    whole, cut = Detector(model, 0.8), Detector(model, 0.8)
    expected = list(whole.push(logits))
    found = [word for part in logits.split(chunk) for word in cut.push(part)]
    assert [(w.start, w.end, w.label) for w in found] == [(w.start, w.end, w.label) for w in expected]
    assert len(found) == 2


def test_detector_remembers_no_more_than_a_window(model):
    detector = Detector(model, 0.8)
    for _ in range(5):
        list(detector.push(_logits(500)))
    assert detector._recent.shape == (model.config.window_steps - 1, len(LABELS))


@pytest.mark.parametrize("threshold", [0, 1, 1.5, -1])
def test_threshold_that_is_no_probability_is_refused(model, threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Detector(model, threshold)


def test_stream_gives_the_logits_of_the_model(model):
    wave = torch.randn(16_000) * 0.1
    stream = Stream(model)
    parts = torch.cat([stream.push(part) for part in wave.split(1_000)])
    with torch.inference_mode():
        torch.testing.assert_close(parts, model(wave.unsqueeze(0))[0][0], atol=1e-5, rtol=0)


def test_streams_of_one_model_do_not_mix(model):
    one, other = Stream(model), Stream(model)
    other.push(torch.randn(16_000))
    torch.testing.assert_close(one.push(torch.zeros(1_600)), Stream(model).push(torch.zeros(1_600)))


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    return read_wave(DATA / "recording.ogg")


def test_shipped_model_finds_the_words_of_a_recording_where_they_are(recording):
    """The script that renders it says: the ten words in their order, each beginning half a second into its 1.5 s."""
    found = list(Stream(load()).detect([recording]))
    words = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
    in_place = [
        any(word.label == label and begin - 0.2 < word.start < word.end < begin + 1 for word in found)
        for label, begin in zip(words, np.arange(10) * 1.5 + 0.5, strict=True)
    ]
    assert sum(in_place) >= 9, found
    assert len(found) <= 13, found


@pytest.mark.parametrize("block", [137, 1_600, 16_000])
def test_words_do_not_depend_on_the_size_of_the_blocks(recording, block):
    expected = list(Stream(load()).detect([recording]))
    found = list(Stream(load()).detect(np.array_split(recording, range(block, len(recording), block))))
    assert [(w.start, w.end, w.label) for w in found] == [(w.start, w.end, w.label) for w in expected]


@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(
    cuts=st.lists(st.integers(0, 240_000), max_size=30),
    empty=st.integers(0, 240_000),
    single=st.integers(0, 240_000),
)
def test_words_are_the_same_to_the_bit_however_the_audio_is_cut(recording, expected, cuts, empty, single):
    """Blocks of any sizes, among them two that are empty and twenty of one sample."""
    cuts = sorted([*cuts, empty, empty, empty, *range(single, single + 21)])
    assert list(Stream(load("tiny")).detect(np.split(recording, cuts))) == expected


@pytest.fixture(scope="module")
def expected(recording):
    found = list(Stream(load("tiny")).detect([recording]))
    assert len(found) >= 5
    return found


def test_followed_probabilities_are_those_that_words_are_heard_by(recording):
    model, followed = load("tiny"), []
    found = list(Stream(model).detect([recording], follow=followed.append))
    probabilities = torch.cat(followed)
    assert probabilities.shape[1] == len(model.config.words)
    for word in found:
        step = round(word.reported / model.config.seconds_per_step) - 1
        assert probabilities[step, model.config.words.index(word.label)].item() == word.score


def test_no_word_ends_after_the_audio(recording):
    assert all(0 <= w.start < w.end <= len(recording) / 16_000 for w in Stream(load()).detect([recording]))

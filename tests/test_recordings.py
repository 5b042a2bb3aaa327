"""A split as one recording: how it is joined, and what one pass of a model gives."""

import itertools
import os
from collections import Counter

import numpy as np
import pytest
from conftest import WORDS
from evaluation_examples import hiss, sounds, undecided

from speechrnn import Recogniser, load
from speechrnn.audio import read_wave, to_int16
from speechrnn.config import SAMPLE_RATE
from speechrnn.corpus import Clips
from speechrnn.evaluation import recordings
from speechrnn.evaluation.recordings import (
    JoinedRecording,
    clip_answers,
    posteriors,
    word_spans,
)
from speechrnn.network import pool
from speechrnn.transcripts import read_labels

LABELS = ("_silence_", "_unknown_", "yes", "no")
HOUR = 3600.0


def burst(first: int, last: int) -> np.ndarray:
    """A clip that is loud from its first sample to before its last, and nearly silent elsewhere."""
    wave = np.ones(16_000, np.int16)
    wave[first:last] = 8_000
    return wave


def four_clips() -> Clips:
    silence = np.zeros(16_000, np.int16)
    waves = [burst(3_200, 6_400), burst(4_800, 8_000), burst(8_000, 12_800), silence]
    names = ["yes/a", "no/b", "cat/c", "_silence_/0"]
    return Clips(np.stack(waves), np.array([2, 3, 1, 0]), names, LABELS)


def whole(recording: JoinedRecording) -> np.ndarray:
    return np.concatenate([recording[index] for index in range(len(recording))])


def level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wave, dtype=np.float64).mean()))


# The recording


def test_every_clip_is_in_it_once_before_any_comes_again():
    recording = JoinedRecording(four_clips(), hiss(60_000), 60 / HOUR)
    assert len(recording) % 4 == 0 and len(recording) > 4
    for first in range(0, len(recording), 4):
        assert sorted(recording.order[first : first + 4]) == [0, 1, 2, 3]


def test_recording_is_as_long_as_asked_and_no_pass_longer():
    recording = JoinedRecording(four_clips(), hiss(60_000), 100 / HOUR)
    assert 100 <= recording.samples / SAMPLE_RATE < 100 + 4 * 4
    assert recording.samples == len(whole(recording)) == recording.ends[-1]
    assert recording.hours == pytest.approx(recording.samples / SAMPLE_RATE / HOUR)


def test_words_lie_where_they_are_loud_in_the_recording():
    recording = JoinedRecording(four_clips(), np.zeros(0, np.int16), 30 / HOUR)
    wave = whole(recording)
    spoken = np.zeros(len(wave), dtype=bool)
    for word in recording.words:
        spoken[round(word.start * SAMPLE_RATE) : round(word.end * SAMPLE_RATE)] = True
    np.testing.assert_array_equal(np.abs(wave) > 0.1, spoken)
    assert {word.label for word in recording.words} == {"yes", "no", "_unknown_"}


def test_clips_are_in_it_as_they_are_and_end_where_it_tells():
    clips = sounds(LABELS, 9)
    recording = JoinedRecording(clips, hiss(60_000), 60 / HOUR)
    wave = whole(recording)
    for place, end in zip(recording.order, recording.ends, strict=True):
        np.testing.assert_array_equal(wave[end - 16_000 : end] * 32768, clips.waves[place])


def test_between_the_clips_there_is_background_at_changing_levels():
    recording = JoinedRecording(four_clips(), hiss(60_000), 200 / HOUR)
    gaps = [recording[index][:-16_000] for index in range(len(recording))]
    seconds = [len(gap) / SAMPLE_RATE for gap in gaps]
    assert 0.5 <= min(seconds) < 1 and 2.5 < max(seconds) < 3
    levels = [level_db(gap) for gap in gaps]
    full = level_db(hiss(60_000) / 32_768)
    assert full - 40.5 < min(levels) < full - 30 and full - 10 < max(levels) < full + 0.5


def test_gaps_may_be_as_short_as_asked_for():
    recording = JoinedRecording(four_clips(), hiss(60_000), gap_seconds=(0.3, 0.301))
    assert sorted(recording.order) == [0, 1, 2, 3], "each once, where no hours are asked for"
    ends = np.array([0, *recording.ends]) / SAMPLE_RATE
    assert np.all((np.diff(ends) >= 1.3) & (np.diff(ends) < 1.301))


def test_background_is_cut_from_changing_places_of_the_noise():
    """A ramp tells the place of a cut and its level."""
    noise = np.arange(1, 32_001, dtype=np.int16).repeat(2)
    recording = JoinedRecording(sounds(LABELS, 40), noise, 40 / HOUR)
    starts = []
    for index in range(len(recording)):
        gap = recording[index][:-16_000].astype(np.float64) * 32_768
        gain = (gap[-1] - gap[0]) / (len(gap) - 1) * 2
        start = round((gap[-1] / gain) * 2) - len(gap)
        np.testing.assert_allclose(gap, noise[start : start + len(gap)] * gain, rtol=1e-2)
        starts.append(start)
    assert min(starts) < 10_000 and max(starts) > 30_000


@pytest.mark.parametrize("samples", [0, 47_999])
def test_recording_without_enough_noise_has_digital_silence_between_the_clips(samples: int):
    recording = JoinedRecording(sounds(LABELS, 5), hiss(samples), 5 / HOUR)
    gaps = [recording[index][:-16_000] for index in range(len(recording))]
    assert all(len(gap) >= 8_000 and not gap.any() for gap in gaps)


def test_recording_is_the_same_for_a_seed_and_another_for_another():
    np.random.seed(1)
    one, same, other = (
        JoinedRecording(four_clips(), hiss(60_000), 30 / HOUR, seed) for seed in (1, 1, 2)
    )
    assert one.words == same.words != other.words
    np.testing.assert_array_equal(whole(one), whole(same))
    assert not np.array_equal(whole(one)[:8_000], whole(other)[:8_000])


@pytest.mark.parametrize("size", [1_000, 61_440, 10_000_000])
def test_blocks_are_the_recording_in_equal_parts(size: int):
    recording = JoinedRecording(four_clips(), hiss(60_000), 20 / HOUR)
    *blocks, last = recording.blocks(size)
    assert all(len(block) == size for block in blocks) and 0 < len(last) <= size
    np.testing.assert_array_equal(np.concatenate([*blocks, last]), whole(recording))


def test_recording_is_saved_with_its_words_beside_it(tmp_path):
    recording = JoinedRecording(four_clips(), hiss(60_000), 20 / HOUR)
    recording.save(tmp_path / "report" / "stream.flac")
    wave = read_wave(tmp_path / "report" / "stream.flac")
    np.testing.assert_allclose(wave, whole(recording), atol=2**-15)
    assert (tmp_path / "report" / "stream.txt").read_text() == recording.label_track()


def test_recording_that_cannot_be_saved_leaves_nothing(tmp_path, monkeypatch):
    recording = JoinedRecording(four_clips(), hiss(60_000), 20 / HOUR)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("speechrnn.files.os.replace", full)
    with pytest.raises(OSError):
        recording.save(tmp_path / "stream.flac")
    assert list(tmp_path.iterdir()) == []


def test_words_are_a_label_track_that_is_read_back():
    recording = JoinedRecording(four_clips(), hiss(60_000), 30 / HOUR)
    track = read_labels(recording.label_track(), "stream.txt")
    assert [(start, end) for start, end, _ in track] == [
        (pytest.approx(word.start, abs=1e-6), pytest.approx(word.end, abs=1e-6))
        for word in recording.words
    ]
    assert [label for _, _, label in track] == [word.label for word in recording.words]


@pytest.mark.parametrize("start", [0, 4_800, 9_600])
@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_span_is_a_burst_above_the_noise_around_it(start: int, level: float):
    wave = 0.01 * np.random.default_rng(0).standard_normal(16_000)
    wave[start : start + 6_400] += np.sin(np.arange(6_400) / 3)
    assert word_spans(level * wave[None]).tolist() == [[start, start + 6_400]]


def test_span_of_silence_is_all_of_it():
    assert word_spans(np.zeros((1, 16_000), np.int16)).tolist() == [[0, 16_000]]


# A model's pass


@pytest.fixture(scope="module")
def mixed(recogniser: Recogniser) -> Recogniser:
    """A model whose answers are not all the same."""
    return undecided(recogniser)


def test_recordings_run_as_streams_whose_state_is_never_reset(mixed: Recogniser):
    """Three of different lengths, so that some run side by side."""
    joined = [JoinedRecording(four_clips(), hiss(60_000), s / HOUR, s) for s in (20, 60, 25)]
    for recording, found in zip(joined, posteriors(mixed, joined), strict=True):
        logits = mixed.runtime.step(whole(recording)[None])[0][0]
        expected = pool(logits, mixed.config.window_steps)
        shares = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
        probabilities = found.posteriors.probabilities
        assert len(probabilities) == len(logits) == len(found.posteriors.start)
        np.testing.assert_allclose(
            probabilities[mixed.config.window_steps - 1 :], shares, atol=1e-5
        )
        assert found.hours == recording.hours


@pytest.mark.parametrize("lengths", [[9], [1, 9, 8, 7, 6], [5, 5, 5, 5, 5], [8, 4, 2, 1]])
def test_recordings_run_side_by_side_only_with_others_of_their_length(lengths: list[int]):
    groups = recordings._groups(lengths)
    assert sorted(itertools.chain(*groups)) == list(range(len(lengths)))
    for group in groups:
        assert len(group) <= recordings.STREAMS
        assert max(lengths[i] for i in group) < 2 * min(lengths[i] for i in group)


def test_posteriors_do_not_depend_on_the_number_of_cores(mixed: Recogniser, monkeypatch):
    joined = [JoinedRecording(four_clips(), hiss(60_000), 20 / HOUR, s) for s in range(6)]
    results = []
    for cores in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        results.append(posteriors(mixed, joined))
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one.posteriors.probabilities, three.posteriors.probabilities)
        np.testing.assert_array_equal(one.posteriors.start, three.posteriors.start)


def test_detections_are_those_of_a_listener_as_it_reports_them(recording: np.ndarray):
    """The recording's words as clips; the listener gets all blocks, but not the silence after."""
    base = load()
    waves = to_int16(recording).reshape(10, 24_000)[:, 4_000:20_000]
    clips = Clips(waves, np.arange(10), list(WORDS), WORDS)
    joined = JoinedRecording(clips, hiss(60_000), 60 / HOUR)
    (found,) = posteriors(base, [joined])
    counts = []
    for threshold in (0.3, 0.6, 0.9):
        expected = base.listener(threshold).push(whole(joined))
        detections = found.detections(dict.fromkeys(base.words, threshold))
        ended = [word for word in detections if word.reported <= joined.samples / SAMPLE_RATE]
        assert [(d.label, d.start, d.end, d.reported) for d in ended] == [
            (d.label, d.start, d.end, d.reported) for d in expected
        ]
        counts.append(len(expected))
    assert min(counts) >= 5


# The clips of a stream


def test_stream_counts_every_clip_once(mixed: Recogniser):
    clips = sounds(mixed.labels, 23)
    recording = JoinedRecording(clips, hiss(60_000), 100 / HOUR)
    assert len(recording) > 23
    result = clip_answers(posteriors(mixed, [recording])[0], recording, "own", "validation")
    assert result.confusion.sum(1).tolist() == np.bincount(clips.targets).tolist() == [6, 6, 6, 5]
    assert (result.labels, result.protocol, result.split) == (mixed.labels, "own", "validation")
    assert result.streamed and sorted(result.names) == sorted(clips.names)


def test_answer_in_a_stream_is_that_of_the_window_which_ends_with_the_clip(mixed: Recogniser):
    """The window of one second cut out of the logits by hand: 33 steps of 30 ms."""
    clips = sounds(mixed.labels, 23)
    recording = JoinedRecording(clips, hiss(60_000), 60 / HOUR, seed=5)
    logits = mixed.runtime.step(whole(recording)[None])[0]
    answers = [
        int(pool(logits[:, end // 480 - 33 : end // 480])[0].argmax())
        for end in recording.ends[:23]
    ]
    assert len(set(answers)) > 1
    expected = Counter(zip(clips.targets[recording.order[:23]].tolist(), answers, strict=True))
    (found,) = posteriors(mixed, [recording])
    confusion = clip_answers(found, recording, "own", "testing").confusion
    counted = {place: confusion[place] for place in np.ndindex(confusion.shape)}
    assert {place: count for place, count in counted.items() if count} == expected


def test_mistakes_in_a_stream_have_the_names_of_their_clips(mixed: Recogniser):
    clips = sounds(mixed.labels, 23)
    recording = JoinedRecording(clips, hiss(60_000), 60 / HOUR)
    result = clip_answers(posteriors(mixed, [recording])[0], recording, "own", "testing")
    assert len(result.mistakes) == 23 - result.correct > 0
    for mistake in result.mistakes:
        label = mixed.labels[clips.targets[clips.names.index(mistake.name)]]
        assert label == mistake.label != mistake.answer
    pairs = Counter((mistake.label, mistake.answer) for mistake in result.mistakes)
    for (label, answer), count in pairs.items():
        place = result.labels.index(label), result.labels.index(answer)
        assert result.confusion[place] == count


def test_stream_refuses_a_label_that_the_model_lacks(mixed: Recogniser):
    recording = JoinedRecording(sounds(("yes", "up"), 2), hiss(60_000), 2 / HOUR)
    (found,) = posteriors(mixed, [recording])
    with pytest.raises(ValueError, match="the model has no label up"):
        clip_answers(found, recording, "own", "testing")

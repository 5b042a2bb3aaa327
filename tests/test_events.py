"""Streams whose words are known: how they are joined, what a detection counts as, and thresholds that keep their promise."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from speechrnn import Model, ModelConfig, load
from speechrnn.audio import read_wave
from speechrnn.data import Clips
from speechrnn.events import (
    TOLERANCE,
    Heard,
    JoinedClips,
    Score,
    Word,
    choose_thresholds,
    false_alarms_alone,
    hear,
    report,
    score,
    span,
)
from speechrnn.stream import THRESHOLD, Detection, Detector, Stream

DATA = Path(__file__).parents[1] / "data" / "synthetic_commands"
LABELS = ("_silence_", "_unknown_", "yes", "no")
HOUR = 3600.0


def burst(first: int, last: int) -> Tensor:
    """A clip that is loud from its first sample to before its last, and nearly silent elsewhere."""
    wave = torch.ones(16_000, dtype=torch.int16)
    wave[first:last] = 8_000
    return wave


def four_clips() -> Clips:
    waves = torch.stack([burst(3_200, 6_400), burst(4_800, 8_000), burst(8_000, 12_800), torch.zeros(16_000, dtype=torch.int16)])
    return Clips(waves, torch.tensor([2, 3, 1, 0]), ["yes/a", "no/b", "cat/c", "_silence_/0"], LABELS)


def hiss(samples: int = 60_000) -> Tensor:
    return torch.randint(-3_000, 3_000, (samples,), generator=torch.Generator().manual_seed(1)).to(torch.int16)


def detection(middle: float, label: str, reported: float | None = None) -> Detection:
    return Detection(middle - 0.2, middle + 0.2, label, 0.9, middle + 0.2 if reported is None else reported)


def word(middle: float, label: str) -> Word:
    return Word(middle - 0.25, middle + 0.25, label)


# The recording


def test_every_clip_is_heard_once_before_any_is_heard_again():
    recording = JoinedClips(four_clips(), hiss(), 60 / HOUR)
    assert len(recording) % 4 == 0 and len(recording) > 4
    for first in range(0, len(recording), 4):
        assert sorted(recording.order[first : first + 4]) == [0, 1, 2, 3]


def test_recording_is_as_long_as_asked_and_no_pass_longer():
    recording = JoinedClips(four_clips(), hiss(), 100 / HOUR)
    assert 100 <= recording.samples / 16_000 < 100 + 4 * 4
    assert recording.samples == sum(len(recording[index]) for index in range(len(recording)))
    assert recording.hours == pytest.approx(recording.samples / 16_000 / HOUR)


def test_words_lie_where_they_are_loud_in_the_recording():
    recording = JoinedClips(four_clips(), torch.zeros(0, dtype=torch.int16), 30 / HOUR)
    wave = torch.cat([recording[index] for index in range(len(recording))])
    loud = (wave.abs() > 0.1).numpy()
    truth = np.zeros(len(wave), dtype=bool)
    for spoken in recording.words:
        truth[round(spoken.start * 16_000) : round(spoken.end * 16_000)] = True
    np.testing.assert_array_equal(loud, truth)
    assert {spoken.label for spoken in recording.words} == {"yes", "no", "_unknown_"}


def test_between_the_clips_there_is_background_at_changing_levels():
    recording = JoinedClips(four_clips(), hiss(), 200 / HOUR)
    gaps = [recording[index][:-16_000] for index in range(len(recording))]
    seconds = [len(gap) / 16_000 for gap in gaps]
    assert 0.5 <= min(seconds) < 1 and 2.5 < max(seconds) < 3
    levels = [float(20 * gap.square().mean().sqrt().log10()) for gap in gaps]
    full = float(20 * (hiss().float() / 32_768).square().mean().sqrt().log10())
    assert full - 40.5 < min(levels) < full - 30 and full - 10 < max(levels) < full + 0.5


def test_recording_is_the_same_for_a_seed_and_another_for_another():
    one, same, other = (JoinedClips(four_clips(), hiss(), 30 / HOUR, seed) for seed in (1, 1, 2))
    assert one.words == same.words != other.words
    assert all(one[index].equal(same[index]) for index in range(len(one)))


def test_recording_is_saved_with_its_truth_beside_it_or_not_at_all(tmp_path: Path, monkeypatch):
    recording = JoinedClips(four_clips(), hiss(), 20 / HOUR)
    recording.save(tmp_path / "report" / "stream.flac")
    wave = torch.cat([recording[index] for index in range(len(recording))])
    np.testing.assert_allclose(read_wave(tmp_path / "report" / "stream.flac"), wave, atol=2**-15)
    assert (tmp_path / "report" / "stream.txt").read_text() == recording.labels()
    monkeypatch.setattr("speechrnn.events.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        recording.save(tmp_path / "stream.flac")
    assert [path.name for path in tmp_path.glob("*stream.flac*")] == []


def test_truth_is_a_label_track_that_audacity_reads():
    recording = JoinedClips(four_clips(), hiss(), 30 / HOUR)
    lines = [line.split("\t") for line in recording.labels().splitlines()]
    assert [(float(a), float(b), c) for a, b, c in lines] == [
        (pytest.approx(w.start, abs=1e-6), pytest.approx(w.end, abs=1e-6), w.label) for w in recording.words
    ]


@pytest.mark.parametrize("start", [0, 4_800, 9_600])
@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_span_finds_a_burst_above_the_noise_around_it(start: int, level: float) -> None:
    wave = 0.01 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    wave[start : start + 6_400] += torch.sin(torch.arange(6_400) / 3)
    assert span(level * wave) == (start, start + 6_400)


def test_span_of_silence_is_all_of_it() -> None:
    assert span(torch.zeros(16_000)) == (0, 16_000)


# Scoring


def test_each_kind_of_detection_is_counted_as_what_it_is():
    """By hand: yes hit, no heard as yes, a second report, one at an unknown word, one in nothing; the last yes is missed."""
    truth = [word(1, "yes"), word(4, "no"), word(7, "_unknown_"), word(10, "yes")]
    found = [
        detection(1.3, "yes", 1.65), detection(1.6, "yes"), detection(4.2, "yes"), detection(7, "no"), detection(20, "no"),
    ]  # fmt: skip
    scores = score(found, truth, ["yes", "no"], hours=2.0)
    assert scores["all"] == Score(3, 1, 1, 3, 2.0, (pytest.approx(0.4),))
    assert scores["yes"] == Score(2, 1, 1, 1, 2.0, (pytest.approx(0.4),))
    assert scores["no"] == Score(1, 0, 0, 2, 2.0, ())
    assert scores["all"].miss_rate == pytest.approx(2 / 3)
    assert scores["all"].false_alarms_per_hour == pytest.approx(1.5)


@pytest.mark.parametrize(("distance", "hits"), [(TOLERANCE - 1e-6, 1), (-TOLERANCE + 1e-6, 1), (0.76, 0), (-0.76, 0)])
def test_tolerance_is_between_the_middles(distance: float, hits: int):
    assert score([detection(5 + distance, "yes")], [word(5, "yes")], ["yes"], 1.0)["all"].hits == hits


def most_pairs(words: list[float], found: list[float], tolerance: float) -> int:
    """By trying every assignment."""
    if len(words) > len(found):
        words, found = found, words
    return max(
        sum(abs(a - b) <= tolerance for a, b in zip(words, chosen, strict=True))
        for chosen in itertools.permutations(found, len(words))
    )


def test_hits_are_as_many_as_any_assignment_gives():
    random = np.random.default_rng(0)
    for _ in range(300):
        middles, heard = (random.uniform(0, 4, random.integers(1, 6)).tolist() for _ in range(2))
        hits = score([detection(m, "yes") for m in heard], [word(m, "yes") for m in middles], ["yes"], 1.0)["all"].hits
        assert hits == most_pairs(middles, heard, TOLERANCE)


def test_every_word_and_every_detection_is_counted_once():
    random = np.random.default_rng(1)
    for _ in range(100):
        truth = [word(m, random.choice(LABELS[1:])) for m in random.uniform(0, 30, 20)]
        found = [detection(m, random.choice(LABELS[2:])) for m in random.uniform(0, 30, 20)]
        scores = score(found, truth, ["yes", "no"], 1.0)
        both = scores["all"]
        assert both.words == sum(w.label in LABELS[2:] for w in truth)
        assert both.hits + both.wrong + both.false_alarms == len(found)
        for count in ("words", "hits", "wrong", "false_alarms"):
            assert getattr(both, count) == sum(getattr(scores[label], count) for label in ("yes", "no"))


def test_nothing_heard_and_nothing_spoken_have_rates_too():
    assert score([], [], ["yes"], 1.0)["all"].to_dict()["latency_median"] is None
    assert score([], [word(1, "yes")], ["yes"], 1.0)["all"].miss_rate == 1


# Hearing


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(labels=LABELS, hidden_size=16, layers=2)).eval()


def test_recording_is_heard_as_one_stream(model: Model):
    recording = JoinedClips(four_clips(), hiss(), 20 / HOUR)
    heard = hear(model, recording)
    wave = torch.cat([recording[index] for index in range(len(recording))])
    with torch.inference_mode():
        logits = model(wave.unsqueeze(0))[0][0]
        expected = Detector(model).windows(logits)[0]
    np.testing.assert_allclose(heard.probabilities, expected, atol=1e-5)
    steps = np.cumsum([len(recording[index]) for index in range(len(recording))]) / (model.mfcc.hop * model.config.stack)
    assert heard.ends == [int(step) - 1 for step in steps]


def test_detections_are_those_of_the_detector():
    """Also where the steps between words are left out."""
    base, wave = load(), torch.from_numpy(read_wave(DATA / "recording.ogg"))
    stream, detector = Stream(base), Detector(base)
    probabilities, start, end = (part.numpy() for part in detector.windows(stream.push(wave)))
    heard = Heard(base.config.labels, probabilities, start, end, [], len(wave) / 16_000 / HOUR, base.config.seconds_per_step)
    for threshold in (0.3, THRESHOLD, 0.9):
        expected = list(Detector(base, threshold).push(Stream(base).push(wave)))
        assert heard.detections(dict.fromkeys(base.config.words, threshold)) == expected
        assert len(expected) >= 5


def test_an_hour_of_noise_and_of_other_words_is_heard_at_the_thresholds_of_the_model(model: Model, monkeypatch):
    scenes = []

    def hear_instead(model: Model, recording: JoinedClips) -> Heard:
        scenes.append(recording)
        return heard_levels([(10.0 * len(scenes), "yes", 0.7), (1_000.0, "no", 0.5)], 2.0)

    monkeypatch.setattr("speechrnn.events.hear", hear_instead)
    monkeypatch.setattr(model, "thresholds", {"yes": 0.65})
    found = false_alarms_alone(model, four_clips(), {"hiss": hiss(), "click": hiss(9_000)})
    assert found == {"hiss": 0.5, "other words": 0.5}  # "no" lies below the threshold of words that have none of their own
    noise, others = scenes
    assert all(1 <= scene.hours < 1.2 for scene in scenes)
    assert not noise.words and {spoken.name for spoken in others.words} == {"cat/c"}
    cuts = noise.clips.waves.float().square().mean(1).sqrt()
    assert cuts.max() / cuts.min() > 50  # levels from -40 to 0 dB
    monkeypatch.setattr(model, "thresholds", {"yes": 0.75})
    assert set(false_alarms_alone(model, four_clips(), {"hiss": hiss()}).values()) == {0}


# Thresholds


def heard_levels(spoken: list[tuple[float, str, float]], hours: float) -> Heard:
    """A hearing in which each of (s, label, probability) stays at its probability for a second, and all else is silent."""
    steps = round(hours * HOUR / 0.03)
    probabilities = np.zeros((steps, len(LABELS)), dtype=np.float32)
    start = (np.arange(steps) - 33) * 0.03
    for middle, label, probability in spoken:
        first, last = round((middle - 0.2) / 0.03), round((middle + 0.8) / 0.03)
        probabilities[first:last, LABELS.index(label)] = probability
        start[first:last] = middle - 0.2
    return Heard(LABELS, probabilities, start, start + 0.4, [], hours, 0.03)


@pytest.fixture(scope="module")
def scene() -> tuple[Heard, list[Word]]:
    """Two hours: "yes" is sure, its false alarms are not; "no" is less sure than some of its false alarms."""
    spoken = [(10.0 + 5 * i, "yes", 0.8 + 0.001 * i) for i in range(100)]
    spoken += [(1_000.0 + 5 * i, "no", 0.7 + 0.001 * i) for i in range(100)]
    truth = [word(middle, label) for middle, label, _ in spoken]
    alarms = [(3_000.0 + 5 * i, "yes", 0.5) for i in range(9)] + [(4_000.0 + 5 * i, "no", 0.3 + 0.06 * i) for i in range(10)]
    return heard_levels(spoken + alarms, 2.0), truth


def test_lower_thresholds_miss_fewer_words_and_give_more_false_alarms(scene):
    heard, truth = scene
    found = report(heard, truth, {})
    misses = [scores["all"].miss_rate for _, scores in found.curve]
    alarms = [scores["all"].false_alarms for _, scores in found.curve]
    assert misses == sorted(misses) and alarms == sorted(alarms, reverse=True)
    assert misses[0] == 0 and misses[-1] == 1 and alarms[0] == 19 and alarms[-1] == 0


def test_chosen_threshold_is_the_lowest_that_keeps_the_false_alarms_allowed(scene):
    heard, truth = scene
    curve = report(heard, truth, {}).curve
    for allowed in (0.5, 1.0, 2.0, 9.5):
        (chosen,) = set(choose_thresholds(heard, truth, allowed).values())
        rates = {level: scores["all"].false_alarms_per_hour for level, scores in curve}
        assert rates[chosen] <= allowed
        assert all(rate > allowed for level, rate in rates.items() if level < chosen)
    assert choose_thresholds(heard, truth, 9.5)["no"] < choose_thresholds(heard, truth, 0.5)["no"]


def test_recording_too_short_for_one_false_alarm_is_refused(scene):
    heard, truth = scene
    with pytest.raises(ValueError, match=r"0\.2 false alarms an hour are none in 2\.00 h: expected 0\.50 or more"):
        choose_thresholds(heard, truth, 0.2)


def test_report_is_plain_data_a_table_and_a_line(scene):
    heard, truth = scene
    found = report(heard, truth, {"yes": 0.7})
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["thresholds"] == {"yes": 0.7, "no": THRESHOLD}
    assert plain["scores"]["all"]["hits"] == found.scores["all"].hits
    assert len(plain["curve"]) == len(found.curve)
    assert found.rows()[1] == ["all", "", "200", "0.0%", "0", "5", "2.50"]
    assert [row[:2] for row in found.rows()[2:]] == [["yes", "0.700"], ["no", f"{THRESHOLD:.3f}"]]
    assert found.summary().startswith(
        "stream of 2.00 h: 0 of 200 words missed (0.0%), 0 heard as others, 2.50 false alarms an hour"
    )

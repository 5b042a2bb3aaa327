"""Hard conditions: each changes the clips as its name tells, and counts every one of them."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_examples import hiss, sounds, undecided

from speechrnn import Recogniser
from speechrnn.corpus import Clips
from speechrnn.evaluation import conditions as conditions_module
from speechrnn.evaluation.clips import evaluate_clips
from speechrnn.evaluation.conditions import evaluate_conditions, telephone

LABELS = ("_silence_", "_unknown_", "yes", "no")
SNRS, LEVELS = (20, 15, 10, 5, 0, -5), (0, -20, -40)
# A direct sound and an echo after 0.1 s, and rooms that ring on for longer than any clip.
ECHO = np.zeros(1_601, np.float32)
ECHO[[0, 1_600]] = 0.8, 0.6
ROOMS = {"in a hall": [ECHO], "in a cell": [np.ones(1, np.float32), np.ones(40_000, np.float32)]}
SPOKEN = [
    "as recorded",
    *(f"{name}, {snr} dB" for name in ("hiss", "hum") for snr in SNRS),
    "in a hall",
    "in a cell",
    "30 dB quieter",
    "20 dB louder, clipped",
    "telephone, 300 to 3,400 Hz at 8 kHz",
    "word begins with the file",
    "word ends with the file",
    "the loudest 0.3 s as a file",
    "in 3 s of silence",
]
SILENT = [
    "digital zero",
    *(f"{name} alone, {level} dB" for name in ("hiss", "hum") for level in LEVELS),
]


class Ear:
    """Keeps the waves that it is given, and answers `yes` to each."""

    runtime = None

    def __init__(self, labels: tuple[str, ...] = LABELS) -> None:
        self.labels = labels
        self.words = tuple(label for label in labels if not label.startswith("_"))
        self.waves: list[list[np.ndarray]] = []

    def classify_waves(self, waves: Sequence[np.ndarray]) -> list[SimpleNamespace]:
        self.waves.append([np.array(wave) for wave in waves])
        return [SimpleNamespace(label="yes")] * len(waves)


def hum() -> np.ndarray:
    return (1_000 * np.sin(np.arange(17_000) / 40)).astype(np.int16)


def words() -> Clips:
    """Bursts of a tone, one a clip and each in another place, and noises that are no words."""
    clips = sounds(LABELS, 12)
    tone = (8_000 * np.sin(np.arange(6_400) / 3)).astype(np.int16)
    for place in np.flatnonzero(clips.targets >= 2).tolist():
        clips.waves[place] = 0
        clips.waves[place, 480 * (place + 1) :][:6_400] = tone
    return clips


Conditions = tuple[dict[str, float], dict[str, list[np.ndarray]], Clips]


@pytest.fixture
def conditions(monkeypatch: pytest.MonkeyPatch) -> Conditions:
    """The rates, the waves of each condition, and the clips."""
    monkeypatch.setattr(conditions_module, "SILENCES", 30)
    ear, clips = Ear(), words()
    noises = {"hiss": hiss(), "short": hiss(15_999), "hum": hum()}
    rates = evaluate_conditions(ear, clips, noises, ROOMS)
    return rates, dict(zip(rates, ear.waves, strict=True)), clips


def decibels(ratio: np.ndarray | float) -> np.ndarray:
    return 20 * np.log10(ratio)


def rms(waves: Sequence[np.ndarray]) -> np.ndarray:
    return np.sqrt(np.square(np.array(waves, dtype=np.float64)).mean(-1))


def test_conditions_have_names_and_a_noise_below_a_second_is_left_out(conditions: Conditions):
    rates, _, _ = conditions
    assert list(rates) == SPOKEN + SILENT


def test_condition_is_the_share_of_words_or_of_silences_answered_rightly(conditions: Conditions):
    rates, waves, clips = conditions
    spoken = clips.targets[clips.targets >= 2]
    assert 0 < len(spoken) < len(clips), "what is no word is left out"
    assert {len(waves[name]) for name in SPOKEN} == {len(spoken)}
    assert {rates[name] for name in SPOKEN} == {(spoken == 2).mean()}
    assert {rates[name] for name in SILENT} == {0}
    assert [len(waves[name]) for name in SILENT] == [1, *[30] * 6]


def test_noise_is_added_at_the_ratio_named(conditions: Conditions):
    _, waves, clips = conditions
    recorded = np.array(waves["as recorded"])
    np.testing.assert_allclose(recorded, clips.waves[clips.targets >= 2] / 32768)
    for name in ("hiss", "hum"):
        for snr in SNRS:
            added = np.array(waves[f"{name}, {snr} dB"]) - recorded
            np.testing.assert_allclose(decibels(rms(recorded) / rms(added)), snr, atol=0.05)
    hisses = np.array(waves["hiss, 0 dB"]) - recorded
    assert not np.allclose(hisses[0], hisses[1], atol=1e-3), "each from another place"
    louder = np.array(waves["hiss, -5 dB"]) - recorded
    np.testing.assert_allclose(louder, hisses * 10 ** (5 / 20), atol=1e-5)


def test_words_in_a_room_are_convolved_with_its_response_and_cut_off(conditions: Conditions):
    _, waves, _ = conditions
    words = waves["as recorded"]
    for word, heard in zip(words, waves["in a hall"], strict=True):
        echo = np.pad(word, (1_600, 0))[:16_000]
        np.testing.assert_allclose(heard, 0.8 * word + 0.6 * echo, atol=1e-5)
    for number, (word, heard) in enumerate(zip(words, waves["in a cell"], strict=True)):
        expected = np.cumsum(word) if number % 2 else word  # the rooms take turns
        np.testing.assert_allclose(heard, expected, atol=1e-3 if number % 2 else 1e-5)


def test_rooms_take_turns_over_batches_too():
    words = (1_000 * np.random.default_rng(0).standard_normal((5, 16_000))).astype(np.int16)
    responses = [ECHO, np.ones(1, np.float32)]
    heard = conditions_module.in_rooms(words, responses)
    whole = heard(slice(0, 5))
    np.testing.assert_array_equal(np.concatenate([heard(slice(0, 3)), heard(slice(3, 5))]), whole)


def test_rooms_have_names_with_their_reverberation_times_and_are_the_same_each_time(monkeypatch):
    monkeypatch.setattr(conditions_module, "ROOMS", 1)  # for time
    rooms, again = conditions_module.conditions_rooms(), conditions_module.conditions_rooms()
    assert list(rooms) == [f"in a room, RT60 {seconds} s" for seconds in (0.2, 0.5, 1.0)]
    for name, (response,) in rooms.items():
        assert np.array_equal(response, again[name][0])
    lengths = [len(response) for (response,) in rooms.values()]
    assert lengths == sorted(lengths), "they ring on for longer and longer"


def test_quiet_and_loud_words_are_as_named(conditions: Conditions):
    _, waves, _ = conditions
    recorded = waves["as recorded"]
    quieter = decibels(rms(waves["30 dB quieter"]) / rms(recorded))
    np.testing.assert_allclose(quieter, -30, atol=1e-3)
    loud = np.array(waves["20 dB louder, clipped"])
    np.testing.assert_allclose(loud, np.clip(10 * np.array(recorded), -1, 1), atol=1e-6)
    assert np.abs(loud).max() == 1


def test_words_at_the_edges_are_whole_and_begin_or_end_with_the_file(conditions: Conditions):
    _, waves, _ = conditions
    names = "word begins with the file", "word ends with the file", "as recorded"
    for at_start, at_end, wave in zip(*(waves[name] for name in names), strict=True):
        spoken = wave[(first := wave.nonzero()[0][0]) - 1 : first + 6_399]
        np.testing.assert_allclose(at_start[:6_400], spoken)
        np.testing.assert_allclose(at_end[-6_400:], spoken)
        assert len(at_start) == len(at_end) == 16_000
        assert not at_start[6_400:].any() and not at_end[:-6_400].any()


def test_short_and_long_files_hold_the_word(conditions: Conditions):
    _, waves, _ = conditions
    names = "the loudest 0.3 s as a file", "in 3 s of silence", "as recorded"
    for short, long, wave in zip(*(waves[name] for name in names), strict=True):
        assert len(short) == 4_800
        assert (np.abs(short) > 0.1).mean() > 0.5, "of the word, not of the silence around it"
        np.testing.assert_allclose(long, np.pad(wave, 16_000))


def test_silences_are_zero_and_each_noise_at_its_levels(conditions: Conditions):
    _, waves, _ = conditions
    (zero,) = waves["digital zero"]
    assert len(zero) == 16_000 and not zero.any()
    for name, noise in (("hiss", hiss()), ("hum", hum())):
        for level in LEVELS:
            alone = waves[f"{name} alone, {level} dB"]
            ratios = decibels(rms(alone) / rms([noise / 32768]))
            np.testing.assert_allclose(ratios, level, atol=0.3)
            assert len({wave.tobytes() for wave in alone}) > 20, "from many places"


def test_conditions_follow_the_seed():
    first = []
    for seed in (0, 0, 1):
        ear = Ear()
        evaluate_conditions(ear, words(), {"hiss": hiss()}, {}, seed)
        first.append(np.array(ear.waves[1]))
    assert np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])


def test_words_as_recorded_are_the_words_of_the_result(recogniser: Recogniser, monkeypatch):
    monkeypatch.setattr(conditions_module, "SILENCES", 4)
    model = undecided(recogniser)
    labels = model.labels
    clips = sounds(labels, 41)
    rates = evaluate_conditions(model, clips, {"hiss": hiss(17_000)}, {})
    confusion = evaluate_clips(model, clips, "own", "testing").confusion
    spoken = [labels.index(word) for word in model.words]
    expected = confusion[spoken, spoken].sum() / confusion[spoken].sum()
    assert rates["as recorded"] == pytest.approx(expected)
    assert all(0 <= rate <= 1 for rate in rates.values())
    assert len(rates) == 1 + 6 + 7 + 1 + 3


def test_model_without_silence_has_no_condition_of_silence():
    rates = evaluate_conditions(Ear(("yes", "no")), sounds(("no", "yes"), 4), {"hiss": hiss()}, {})
    assert list(rates)[-1] == "in 3 s of silence"


@pytest.mark.parametrize(
    ("frequency", "low_db", "high_db"),
    [(100, -300, -15), (1_000, -1, 1), (2_000, -2, 1), (6_000, -300, -30)],
)
def test_telephone_keeps_its_band_alone(frequency: float, low_db: float, high_db: float):
    tone = np.sin(2 * np.pi * frequency * np.arange(16_000) / 16_000)[None].astype(np.float32)
    through = telephone(tone)
    assert through.shape == tone.shape and through.dtype == np.float32
    inside = slice(1_000, 15_000)
    assert low_db < decibels(rms(through[:, inside])[0] / rms(tone[:, inside])[0]) < high_db


@pytest.mark.parametrize("kind", ["lowpass", "highpass"])
def test_filters_of_the_telephone_are_those_of_torchaudio(kind: str):
    """An impulse through torchaudio's biquad filter has the response that is multiplied here."""
    import torch
    from torchaudio import functional

    impulse = torch.zeros(16_000, dtype=torch.float64)
    impulse[0] = 1
    filtered = getattr(functional, f"{kind}_biquad")(impulse, 16_000, 1_000.0)
    z = np.exp(-2j * np.pi * np.arange(8_001) / 16_000)
    ours = conditions_module._filter(z, 1_000.0, 1 if kind == "lowpass" else -1)
    np.testing.assert_allclose(np.fft.rfft(filtered.numpy()), ours, atol=1e-3)

"""The made sounds repeat, stay within full scale, and are what their names say."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

DATA = Path(__file__).parent.parent / "data"
RATE = 16_000


def load_script():
    spec = importlib.util.spec_from_file_location("make_sounds", DATA / "make_sounds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()
KINDS = list(script.KINDS)
QUICK = ["tones", "chirps", "drums", "whistling", "clicks"]


@pytest.fixture(scope="module")
def sounds():
    """One recording of each kind."""
    return {kind: script.make_sound("training", kind, 0, seed=0) for kind in KINDS}


def power_spectrum(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz and power, over the whole wave."""
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    return np.fft.rfftfreq(len(wave), 1 / RATE), power


def strongest_hz(wave: np.ndarray) -> float:
    frequency, power = power_spectrum(wave)
    return frequency[np.argmax(power)]


@pytest.mark.parametrize("kind", KINDS)
def test_recording_lasts_ten_seconds_is_finite_and_within_full_scale(sounds, kind):
    wave = sounds[kind]
    assert wave.shape == (10 * RATE,)
    assert np.isfinite(wave).all()
    assert 0 < np.abs(wave).max() <= 1


@pytest.mark.parametrize("kind", QUICK)
def test_recording_repeats_whatever_was_made_before(sounds, kind):
    assert np.array_equal(script.make_sound("training", kind, 0, seed=0), sounds[kind])


@pytest.mark.parametrize(
    "other", [("validation", 0, 0), ("training", 1, 0), ("training", 0, 1)], ids=str
)
def test_split_number_and_seed_each_give_another_recording(sounds, other):
    split, number, seed = other
    assert not np.array_equal(script.make_sound(split, "chirps", number, seed), sounds["chirps"])


def test_no_two_kinds_have_the_same_spectrum(sounds):
    """Log power in 40 bands and its change over 20 parts: no two kinds correlate above 0.98."""
    maps = []
    for wave in sounds.values():
        parts = np.abs(np.fft.rfft(wave.reshape(20, -1), axis=1))[:, 1:].reshape(20, 40, -1)
        maps.append(np.log(parts.mean(axis=2) + 1e-9).ravel())
    correlation = np.corrcoef(maps) - np.eye(len(maps))
    assert correlation.max() < 0.98


def test_levels_span_from_digital_zero_to_full_scale():
    noise = [script.make_sound("training", "noise", number, seed=0) for number in range(12)]
    blocks = np.abs(np.concatenate(noise)).reshape(-1, 1600).max(axis=1)
    assert (blocks == 0).any()
    for low, high in ((1e-4, 1e-3), (1e-3, 1e-2), (1e-2, 1e-1), (1e-1, 0.5), (0.5, 1.0)):
        assert ((low < blocks) & (blocks <= high)).any(), (low, high)
    assert blocks.max() <= 1


@pytest.mark.parametrize("exponent", [0, 1, 2])
def test_noise_falls_by_its_exponent(exponent):
    noise = script.coloured_noise(16 * RATE, exponent, np.random.default_rng(0))
    frequency, power = power_spectrum(noise)
    low = power[(frequency > 100) & (frequency < 200)].mean()
    high = power[(frequency > 1600) & (frequency < 3200)].mean()
    assert np.log2(low / high) == pytest.approx(4 * exponent, abs=0.3)


@pytest.mark.parametrize("person", list(script.FORMANTS))
@pytest.mark.parametrize("vowel", ["ee", "ae", "ah", "oo"])
def test_vowel_has_its_first_two_formants_where_the_table_says(person, vowel):
    """At a pitch of 20 Hz the harmonics are close enough to show where the spectrum peaks."""
    formants = script.formants_of(person, vowel)
    track = script.glide([formants], RATE, 1.0)
    wave = script.voice(np.full(RATE, 20.0), track, tilt=0.0)
    frequency, power = power_spectrum(wave)
    for formant in script.FORMANTS[person][vowel][:2]:
        near = (frequency > 0.9 * formant) & (frequency < 1.1 * formant)
        peak = frequency[near][np.argmax(power[near])]
        assert peak == pytest.approx(formant, abs=41), (person, vowel)


def test_voice_has_harmonics_of_its_pitch_and_nothing_between():
    track = script.glide([script.formants_of("woman", "ah")], RATE, 1.0)
    frequency, power = power_spectrum(script.voice(np.full(RATE, 200.0), track))
    off = np.abs((frequency + 100) % 200 - 100)
    assert power[off <= 3].sum() > 1e4 * power[off > 20].sum()


def test_glide_moves_from_the_first_vowel_to_the_last():
    first, last = script.formants_of("man", "ah"), script.formants_of("man", "oo")
    track = script.glide([first, last], RATE, 0.5)
    assert np.allclose(track[0], first) and np.allclose(track[-1], last)
    assert (np.diff(track[:, 0]) <= 0).all()


@pytest.mark.parametrize(("start", "end"), [(200, 3200), (4000, 500)])
def test_sweep_goes_from_its_start_to_its_end(start, end):
    wave = script.sweep(start, end, 2 * RATE)
    quarters = [strongest_hz(part) for part in np.split(wave, 16)]
    assert np.all(np.diff(quarters) * (end - start) > 0)
    middle = strongest_hz(wave[RATE - 400 : RATE + 400])
    assert middle == pytest.approx(np.sqrt(start * end), rel=0.06)


@pytest.mark.parametrize("note", [script.piano_note, script.organ_note, script.plucked_note])
def test_note_is_at_its_pitch(note):
    wave = note(220.0, 1.0, np.random.default_rng(0))
    frequency, power = power_spectrum(wave)
    near = (frequency > 200) & (frequency < 240)
    assert frequency[near][np.argmax(power[near])] == pytest.approx(220, rel=0.02)


@pytest.mark.parametrize("note", [script.piano_note, script.plucked_note, script.bell_note])
def test_struck_and_plucked_notes_decay(note):
    wave = note(220.0, 2.0, np.random.default_rng(0))
    assert np.mean(wave[:RATE] ** 2) > 2 * np.mean(wave[RATE:] ** 2)


def test_plucked_string_is_the_loop_of_karplus_and_strong():
    wave = script.plucked_note(200.0, 0.5, np.random.default_rng(0))
    period = round(RATE / 200.0 - 0.5)
    inner = np.arange(2 * period, 5 * period)
    mean = (wave[inner - period] + wave[inner - period - 1]) / 2
    loss = wave[inner] @ mean / (mean @ mean)
    assert 0.97 < loss < 1
    assert np.allclose(wave[inner], loss * mean)


def test_a_stopped_run_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "KINDS", {kind: script.KINDS[kind] for kind in QUICK})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert script.make_sounds(whole, 1.0, seed=0) == 6 + 2
    make_sound, calls = script.make_sound, []

    def stop_at_the_fourth(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return make_sound(*arguments)

    monkeypatch.setattr(script, "make_sound", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        script.make_sounds(stopped, 1.0, seed=0)
    assert len(list(stopped.rglob("*.flac"))) == 3
    assert script.make_sounds(stopped, 1.0, seed=0) == 5
    paths = sorted(path.relative_to(whole) for path in whole.rglob("*.flac"))
    assert paths == sorted(path.relative_to(stopped) for path in stopped.rglob("*.flac"))
    for path in paths:
        samples, rate = soundfile.read(whole / path)
        assert rate == RATE and np.array_equal(samples, soundfile.read(stopped / path)[0])


def test_another_seed_in_the_same_folder_is_refused(tmp_path):
    script.check_seed(tmp_path, 0)
    script.check_seed(tmp_path, 0)
    with pytest.raises(RuntimeError, match="choose another folder"):
        script.check_seed(tmp_path, 1)

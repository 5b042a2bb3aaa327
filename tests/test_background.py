"""False alarms in talk and sounds: counted by word and place, and not where a word is spoken."""

from collections import Counter

import numpy as np
import pytest
import soundfile
from conftest import DATA, REAL_CLIPS

from speechrnn import Recogniser, load
from speechrnn.audio import read_wave, to_int16
from speechrnn.evaluation.background import (
    GAP_SAMPLES,
    PLACES,
    Background,
    evaluate_background,
    read_background,
    spoken_words,
)
from speechrnn.evaluation.spotting import SWEEP

RECORDING = DATA / "recording.ogg"
WORDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]


@pytest.fixture(scope="module")
def tiny() -> Recogniser:
    return load("tiny")


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    return to_int16(read_wave(RECORDING))


def _background(wave: np.ndarray, **transcripts: str) -> Background:
    return Background(("a", "b"), (wave, wave), transcripts)


def test_every_detection_is_a_false_alarm_where_no_transcript_has_its_word(tiny, wave):
    result = evaluate_background(tiny, _background(wave), talk=True)
    detected = tiny.detect(_background(wave).blocks(16_000))
    assert result.hours == pytest.approx(2 * len(wave) / 16_000 / 3600)
    assert result.false_alarms == Counter(word.label for word in detected)
    assert sum(result.places.values()) == sum(result.false_alarms.values())
    assert result.spoken == 0
    assert result.false_alarms_per_hour * result.hours == sum(result.false_alarms.values())


def test_most_words_spoken_alone_lie_between_two_pauses_and_none_in_mid_flow(tiny, wave):
    places = evaluate_background(tiny, _background(wave), talk=True).places
    assert places["between two pauses"] > sum(places.values()) / 2
    assert places["in mid-flow"] == 0
    assert tuple(places) == PLACES


def test_a_detection_of_a_word_that_the_transcript_has_at_its_place_is_no_false_alarm(tiny, wave):
    plain = evaluate_background(tiny, _background(wave), talk=True)
    spoken = evaluate_background(tiny, _background(wave, a=" ".join(WORDS)), talk=True)
    assert spoken.spoken > 0.8 * sum(plain.false_alarms.values()) / 2
    assert sum(spoken.false_alarms.values()) + spoken.spoken == sum(plain.false_alarms.values())
    # The first word is "yes": not where a transcript has it last.
    late = evaluate_background(tiny, _background(wave, a="is a b c d e f g yes"), talk=True)
    assert late.false_alarms["yes"] == plain.false_alarms["yes"]


def test_words_of_any_script_and_in_capitals_are_found_in_a_transcript():
    background = _background(np.zeros(32_000, np.int16), a="die küche ist hell", b="the lights")
    spoken = spoken_words(background, ("Küche", "Lights", "hell"))
    assert [len(times) for times in spoken.values()] == [1, 1, 1]


def test_a_higher_threshold_never_gives_many_more_false_alarms(tiny, wave):
    curve = evaluate_background(tiny, _background(wave), talk=False).curve
    assert [level for level, _ in curve] == list(SWEEP)
    assert curve[0][1] >= curve[-1][1]
    assert curve[-1][1] == 0


def test_random_seconds_of_silence_are_no_words(tiny):
    zeros = np.zeros(80_000, np.int16)
    assert evaluate_background(tiny, _background(zeros), talk=False).random_seconds == 0


def test_blocks_are_the_recordings_with_gaps_between():
    waves = np.arange(1, 2_001, dtype=np.int16), np.arange(1, 501, dtype=np.int16)
    background = Background(("a", "b"), waves, {})
    blocks = list(background.blocks(700))
    assert {len(block) for block in blocks[:-1]} == {700}
    whole = np.concatenate(blocks)
    gap = np.zeros(GAP_SAMPLES, np.int16)
    expected = np.concatenate((waves[0], gap, waves[1], gap)) / 32768
    np.testing.assert_allclose(whole, expected, atol=1e-7)
    assert len(whole) == background.samples


def test_short_and_long_recordings_are_read_with_their_transcripts(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(1_600), 16_000)
    soundfile.write(tmp_path / "long.flac", np.zeros(22_050 * 3), 22_050)
    (tmp_path / "transcripts.tsv").write_text("file\tseconds\ttext\nlong.flac\t3\tStop it\n")
    background = read_background(tmp_path)
    assert background.names == ("long.flac", "short.wav")
    assert [len(wave) for wave in background.waves] == [48_000, 1_600]
    assert background.transcripts == {"long.flac": "stop it"}


def test_the_folder_one_is_in_is_read_with_the_table_beside_it(tmp_path, monkeypatch):
    folder = tmp_path / "talk"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.zeros(1_600), 16_000)
    (tmp_path / "talk.tsv").write_text("file\ttext\na.wav\tStop it\n")
    monkeypatch.chdir(folder)
    assert read_background(".").transcripts == {"a.wav": "stop it"}


def test_a_recording_shorter_than_a_second_is_run_too(tiny):
    background = Background(("a",), (np.zeros(1_600, np.int16),), {})
    result = evaluate_background(tiny, background, talk=True)
    assert (result.false_alarms, result.random_seconds) == ({}, 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file\ttext\nmissing.wav\tyes\n", "names missing.wav, which is not in"),
        ("name,words\na.wav,yes\n", "expected the names of tab-separated columns"),
        ("", "its first line is missing"),
        (b"file\ttext\na.wav\t\xff\xfe\n", "is not text in UTF-8"),
    ],
    ids=["missing file", "other columns", "empty", "encoding"],
)
def test_a_table_that_is_none_is_named_in_a_line(tmp_path, table, message):
    folder = tmp_path / "talk"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.zeros(1_600), 16_000)
    data = table if isinstance(table, bytes) else table.encode()
    (tmp_path / "talk.tsv").write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_background(folder)
    assert "talk.tsv" in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_missing_or_holds_no_audio_is_named(tmp_path):
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path, "no audio files")):
        with pytest.raises(FileNotFoundError, match=message):
            read_background(folder)


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the real speech is not beside this checkout")
def test_real_talk_with_its_transcripts_is_read_and_measured(tiny):
    background = read_background(REAL_CLIPS.parent / "speech" / "validation")
    assert len(background.names) == 138
    assert len(background.transcripts) == 138
    assert 0.3 < background.hours < 0.36

"""What a user holds: answers for recordings, words in streams, the same however audio arrives."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import WORDS
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn import Recogniser, load
from speechrnn.audio import AudioError, read_wave
from speechrnn.network import pool, softmax
from speechrnn.recogniser import PIECE_STEPS

LABELS = {"_silence_", "_unknown_", "yes", "no"}


def _times(words: list[Any]) -> list[tuple[float, float, str]]:
    return [(word.start, word.end, word.label) for word in words]


# --- recordings


def test_classify_takes_path_array_tensor_and_open_file_alike(recogniser, recordings):
    path = recordings / "a.wav"
    wave = read_wave(path)
    file = io.BytesIO(path.read_bytes())
    sources = (path, str(path), wave, wave.astype(np.float64), torch.from_numpy(wave), file)
    answers = [recogniser.classify(source, top_k=4) for source in sources]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].top[0] == (answers[0].label, answers[0].score)
    assert sum(score for _, score in answers[0].top) == pytest.approx(1)
    assert sorted(label for label, _ in answers[0].top) == sorted(recogniser.labels)


def test_int16_array_is_refused_with_what_to_do(recogniser):
    for use in (recogniser.classify, recogniser.listener().push):
        with pytest.raises(ValueError, match=r"int16.*for 16-bit samples divide by 32768"):
            use(np.zeros(16_000, np.int16))


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros((1, 16_000)),
        torch.zeros(16_000, 2),
        np.full(9, np.nan),
        np.array([np.inf]),
        np.zeros(9, complex),
    ],
    ids=["(1, N)", "(N, 2)", "NaN", "inf", "complex"],
)
def test_array_that_is_no_mono_wave_is_refused(recogniser, wave):
    for use in (recogniser.classify, recogniser.listener().push):
        with pytest.raises(ValueError, match=r"expected \(n,\) finite floats at 16000 Hz"):
            use(wave)


def test_a_recording_without_samples_is_refused(recogniser):
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        recogniser.classify(np.zeros(0))


def test_classify_of_a_missing_file_names_it(recogniser):
    with pytest.raises(AudioError, match=r"nowhere\.wav"):
        recogniser.classify("nowhere.wav")


def test_waves_of_many_lengths_are_answered_in_their_order(recogniser):
    random = np.random.default_rng(0)
    lengths = [1, 5_000, 16_000, 16_001, 40_000, *[16_000] * 40, 16_480, 40_000]
    waves = [random.uniform(-0.5, 0.5, length).astype(np.float32) for length in lengths]
    answers = recogniser.classify_waves(waves, top_k=2)
    for wave, answer in zip(waves, answers, strict=True):
        alone = recogniser.classify(wave, top_k=2)
        assert answer.label == alone.label
        assert answer.score == pytest.approx(alone.score, abs=1e-5)
    assert answers[0].notes == ("padded from 1 to 16000 samples",)
    assert answers[2].notes == ()


def test_the_most_probable_window_of_a_long_recording_decides(recogniser):
    second = np.random.default_rng(3).normal(0, 0.1, 16_000).astype(np.float32)
    wave = np.concatenate((np.zeros(16_000, np.float32), second, np.zeros(320, np.float32)))
    logits, _ = recogniser.runtime.step(wave[None])
    shares = softmax(pool(logits[0], recogniser.config.window_steps))
    best = shares[shares[:, 2:].max(1).argmax()]
    answer = recogniser.classify(wave)
    assert answer.label == recogniser.labels[best.argmax()]
    assert answer.score == pytest.approx(best.max(), abs=1e-6)


def test_a_recording_longer_than_a_part_is_looked_at_across_the_cut(recogniser, monkeypatch):
    wave = np.random.default_rng(3).normal(0, 0.1, 100_000).astype(np.float32)
    whole = recogniser.classify(wave)
    monkeypatch.setattr("speechrnn.recogniser.PART_SAMPLES", 16_960)
    assert recogniser.classify(wave).score == pytest.approx(whole.score, abs=1e-5)


def test_fewer_than_one_label_is_refused(recogniser):
    with pytest.raises(ValueError, match="top_k is 0: expected 1 or more"):
        recogniser.classify(np.zeros(16_000), top_k=0)


# --- streams


def test_shipped_model_finds_the_words_of_a_recording_where_they_are(recording):
    """The script that renders it tells: the ten words in order, each half a second into 1.5 s."""
    # Nobody speaks there but a synthesiser: the threshold is lower than for people.
    words = list(load().detect([recording], 0.5))
    in_place = [
        any(
            word.label == label and begin - 0.2 < word.start < word.end < begin + 1
            for word in words
        )
        for label, begin in zip(WORDS, np.arange(10) * 1.5 + 0.5, strict=True)
    ]
    assert sum(in_place) >= 9, words
    assert len(words) <= 13, words


@pytest.mark.parametrize("block", [137, 1_600, 16_000])
def test_words_do_not_depend_on_the_size_of_the_blocks(recording, block):
    whole = list(load().detect([recording]))
    cut = list(load().detect(np.split(recording, range(block, len(recording), block))))
    assert cut == whole


@pytest.fixture(scope="module")
def tiny() -> Recogniser:
    return load("tiny")


@pytest.fixture(scope="module")
def expected(tiny, recording):
    words = list(tiny.detect([recording]))
    assert len(words) >= 4
    return words


@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(
    cuts=st.lists(st.integers(0, 240_000), max_size=30),
    empty=st.integers(0, 240_000),
    single=st.integers(0, 240_000),
)
def test_words_are_the_same_to_the_bit_however_the_audio_is_cut(
    tiny, recording, expected, cuts, empty, single
):
    """Blocks of any sizes, among them two that are empty and twenty of one sample."""
    cuts = sorted([*cuts, empty, empty, empty, *range(single, single + 21)])
    assert list(tiny.detect(np.split(recording, cuts))) == expected


def test_pushing_and_finishing_gives_what_detect_gives(tiny, recording, expected):
    listener = tiny.listener()
    words = [word for block in np.split(recording, 100) for word in listener.push(block)]
    assert listener.seconds == len(recording) / 16_000
    assert words + listener.finish() == expected


def test_listeners_of_one_recogniser_do_not_mix(tiny, recording, expected):
    one, other = tiny.listener(), tiny.listener()
    words: list[Any] = []
    for block in np.split(recording, 50):
        words += one.push(block)
        other.push(block[::-1].copy())
    assert words + one.finish() == expected


def test_probabilities_of_a_listener_are_those_that_words_are_found_by(tiny, recording):
    listener, rows, words = tiny.listener(), [], []
    for block in np.split(recording, 150):
        words += listener.push(block)
        rows.append(listener.probabilities)
    shares = np.concatenate(rows)
    assert shares.shape == (len(recording) // (480 * PIECE_STEPS) * PIECE_STEPS, len(tiny.words))
    assert len(words) >= 4
    for word in words:
        last = round(word.reported / 0.03)
        assert word.score in shares[last - PIECE_STEPS : last, tiny.words.index(word.label)]


def test_no_word_ends_after_the_audio(tiny, recording):
    end = len(recording) / 16_000
    assert all(0 <= w.start < w.end <= end for w in tiny.detect([recording]))


def test_a_word_at_the_very_end_is_found_when_the_recording_is_finished(tiny, recording, expected):
    first = expected[0]
    cut = recording[: round(first.end * 16_000)]
    listener = tiny.listener()
    early = [word for block in np.array_split(cut, 9) for word in listener.push(block)]
    (word,) = early + listener.finish()
    assert word.label == first.label
    assert word.reported <= len(cut) / 16_000


def test_thresholds_are_the_models_own_or_one_for_all_or_some_by_word(tiny):
    assert tiny.listener().thresholds == tiny.thresholds
    assert set(tiny.listener(0.9).thresholds.values()) == {0.9}
    changed = tiny.listener({"go": 0.9}).thresholds
    assert changed == {**tiny.thresholds, "go": 0.9}


# --- loading


def test_torch_gives_the_words_that_numpy_gives(recording, tiny, expected):
    words = list(load("tiny", backend="torch").detect([recording]))
    assert _times(words) == _times(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "jax"}, "backend is 'jax': expected numpy or torch"),
        ({"device": "cuda"}, "backend numpy runs on the cpu, not on 'cuda'"),
    ],
)
def test_a_backend_that_cannot_do_it_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load("tiny", **arguments)


def test_a_device_that_is_not_there_is_an_error_and_never_another_device():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((RuntimeError, AssertionError)):
        load("tiny", backend="torch", device="cuda")


def test_loading_and_classifying_import_neither_torch_nor_what_stands_on_it(
    model_folder: Path, recordings: Path
):
    code = (
        "import sys, speechrnn; r = speechrnn.load(sys.argv[1]);"
        "print(r.classify(sys.argv[2]).label, list(r.detect([])));"
        "heavy = {'torch', 'torchaudio', 'pytorch_lightning', 'librosa', 'matplotlib', 'scipy',"
        "'jsonargparse', 'rich'}; sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    command = [sys.executable, "-c", code, model_folder, recordings / "a.wav"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] in LABELS

"""The encoder's training: words that nobody said, the teacher's directions, a short run."""

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA
from recipe_scripts import load_recipe, make_open_world

from speechrnn.audio import read_wave, to_int16
from speechrnn.config import SILENCE
from speechrnn.corpus import Clips
from speechrnn.enrolment import Encoder, embed_examples

encoder = load_recipe("encoder")

SECOND = 16_000


def tone(hertz: float, first: int, last: int, level: float = 10_000) -> np.ndarray:
    """A second (16000,) int16 with a tone between two samples."""
    time = np.arange(SECOND)
    wave = level * np.sin(2 * np.pi * hertz * time / SECOND)
    return np.where((time >= first) & (time < last), wave, 0).astype(np.int16)


def pitch(wave: np.ndarray) -> float:
    """The strongest frequency, Hz."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax() * SECOND / len(wave))


# Words that nobody said


@pytest.mark.parametrize("level", [10_000, 3_000])
def test_a_splice_begins_as_one_word_and_ends_as_the_other_as_loud(level: float) -> None:
    low, high = tone(300, 4_000, 12_000), tone(1_000, 4_000, 12_000, level)
    clip = encoder.splice(low, high, np.random.default_rng(0))
    assert clip.shape == (SECOND,) and clip.dtype == np.int16
    begin, end, loudness = encoder.loud_part(clip)
    assert 0.3 * 8_000 < end - begin < 1.4 * 8_000
    assert pitch(clip[begin : begin + 1_600]) == pytest.approx(300, abs=15)
    assert pitch(clip[end - 1_600 : end]) == pytest.approx(1_000, abs=15)
    assert loudness == pytest.approx(encoder.loud_part(low)[2], rel=0.1)


def test_a_splice_of_recorded_words_is_in_the_middle_of_its_second() -> None:
    waves = [to_int16(read_wave(sorted((DATA / word).iterdir())[0])) for word in ("bed", "marvin")]
    first, second = (np.resize(wave, SECOND) for wave in waves)
    random = np.random.default_rng(0)
    for _ in range(20):
        begin, end, _ = encoder.loud_part(encoder.splice(first, second, random))
        assert abs((begin + end) / 2 - SECOND / 2) < SECOND / 4


@pytest.mark.parametrize("wave", [np.zeros(SECOND, np.int16), np.full(SECOND, 32_767, np.int16)])
def test_silence_and_a_full_scale_can_be_spliced(wave: np.ndarray) -> None:
    assert encoder.splice(wave, wave, np.random.default_rng(0)).shape == (SECOND,)


def test_both_words_of_a_splice_are_of_one_speaker_and_differ() -> None:
    hertz = {
        ("ann", 0): 200,
        ("ann", 1): 400,
        ("ben", 0): 800,
        ("ben", 1): 1_600,
        ("eve", 0): 3_200,
    }
    clips = Clips(
        np.stack([tone(pitch, 4_000, 12_000) for pitch in hertz.values()]),
        np.array([word for _, word in hertz]),
        [f"word{word}/{speaker}_nohash_0.wav" for speaker, word in hertz],
        ("word0", "word1"),
    )
    made = encoder.splices(clips, np.arange(len(clips)), 30, np.random.default_rng(0))
    heard = set()
    for clip in made:
        begin, end, _ = encoder.loud_part(clip)
        heard.add(
            tuple(round(pitch(part), -2) for part in (clip[begin:][:1_600], clip[:end][-1_600:]))
        )
    assert heard == {(200, 400), (400, 200), (800, 1_600), (1_600, 800)}


# What the teacher makes of clips


def test_the_directions_are_those_in_which_words_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words differ by 1 in two of 384 numbers, and people by 10 in two others."""
    monkeypatch.setattr(encoder, "DIRECTIONS", 2)
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(20), 30)
    states = random.normal(0, 0.05, (len(targets), 384))
    states[:, :2] += random.normal(0, 1, (20, 2))[targets]
    states[:, 2:4] += random.normal(0, 10, (len(targets), 2))
    found = encoder.word_directions(states, np.arange(len(states)), targets)
    means = np.stack([found[targets == target].mean(0) for target in range(20)])
    nearest = np.square(found[:, None] - means).sum(-1).argmin(1)
    assert found.shape == (600, 2)
    assert (nearest == targets).mean() > 0.9
    nearest = np.square(states[:, None] - np.stack(
        [states[targets == target].mean(0) for target in range(20)]
    )).sum(-1).argmin(1)  # fmt: skip
    assert (nearest == targets).mean() < 0.5


def test_the_teacher_knows_a_word_whoever_says_it(kokoro_folder: Path, tmp_path: Path) -> None:
    words = ("bed", "happy", "marvin", "cat")
    paths = [path for word in words for path in sorted((DATA / word).iterdir())[:6]]
    waves = np.stack([np.resize(to_int16(read_wave(path)), SECOND) for path in paths])
    cache = tmp_path / "teacher.npz"
    states = encoder.teacher_states(kokoro_folder / "whisper", waves, cache)
    assert states.shape == (24, 384)
    apart = np.square(states[:, None] - states).sum(-1)
    np.fill_diagonal(apart, np.inf)
    targets = np.repeat(np.arange(4), 6)
    assert (targets[apart.argmin(1)] == targets).mean() > 0.8
    assert np.array_equal(encoder.teacher_states(tmp_path, waves, cache), states), "it is kept"


# A run


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is typed: a short training on a little corpus, with spectra for a teacher."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning writes it: put back after the test
    monkeypatch.setattr("speechrnn.training.run.ROOMS", 2)
    for name, value in (("TALK_PIECES", 6), ("SOUND_PIECES", 4), ("SPLICES", 20), ("BATCH", 16)):
        monkeypatch.setattr(encoder, name, value)
    monkeypatch.setattr(encoder, "SPREAD_LEAST", 2)
    monkeypatch.setattr(encoder, "TEACHER_LEAST", 2)
    heard = encoder.teacher_states

    def spectra(ear: Path, waves: np.ndarray, cache: Path) -> np.ndarray:
        if not cache.is_file():
            states = np.abs(np.fft.rfft(waves.astype(float)))[:, :7680].reshape(len(waves), 384, 20)
            np.savez(cache, digest=encoder.digest(waves), states=np.log(states.mean(-1) + 1))
        return heard(ear, waves, cache)

    monkeypatch.setattr(encoder, "teacher_states", spectra)
    make_open_world(tmp_path)
    typed = ["encoder.py", tmp_path / "corpus", "--ear", tmp_path / "ear", "--to", tmp_path / "new"]
    typed += ["--talk", tmp_path / "talk" / "told", tmp_path / "talk" / "rendered"]
    typed += ["--sounds", tmp_path / "sounds", "--run", tmp_path / "run"]
    return [*map(str, typed), "--unheard", "yes", "no"]


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", list(words))
    encoder.main()


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")  # Lightning's
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_a_run_leaves_an_encoder_that_can_be_enrolled_with(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(monkeypatch, *words, "--epochs", "6")
    said = capsys.readouterr()
    losses = [float(loss) for loss in re.findall(r"training loss ([\d.]+)", said.err)]
    assert len(losses) == 6
    assert losses[-1] < 0.9 * math.log(16), "no better than a guess among the clips of a batch"
    made = Encoder(tmp_path / "new")
    assert made.folder.config.words == ()
    training = made.folder.about["training"]
    assert training["unheard"] == ["yes", "no"] and training["epochs"] == 6
    assert not {"yes", "no", SILENCE} & set(made.bank.words)
    assert (
        f"{training['clips']} clips: of {training['words']} words"
        in (tmp_path / "new" / "README.md").read_text()
    )
    second = read_wave(sorted((DATA / "yes").iterdir())[0])
    examples = embed_examples(made, {"1.wav": np.resize(second, SECOND)})
    assert examples.embeddings.shape == (1, 96)

    # It goes on where it was, and refuses other clips.
    call(monkeypatch, *words, "--epochs", "7")
    more = capsys.readouterr().err
    assert "epoch 7 of 7" in more and "epoch 6 of 7" not in more
    with pytest.raises(ValueError, match="was begun with other clips: type --run FOLDER"):
        call(monkeypatch, *words[:-1], "--epochs", "7")


def test_a_word_that_the_corpus_does_not_have_cannot_be_unheard(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="--unheard mountain: expected words with a folder in"):
        call(monkeypatch, *words, "mountain")
    assert not (tmp_path / "new").exists() and not (tmp_path / "run").exists()


def test_a_teacher_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model\.bin in this folder; expected Whisper"):
        encoder.teacher_states(tmp_path, np.zeros((1, SECOND), np.int16), tmp_path / "teacher.npz")

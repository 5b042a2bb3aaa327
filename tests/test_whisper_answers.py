"""Whisper's answers to the training clips: by other speakers, and what a training reads."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA
from recipe_scripts import link_corpus, load_recipe

from speechrnn.corpus import load_split, speaker
from speechrnn.training.batches import read_answers

whisper_answers = load_recipe("whisper_answers")


@pytest.fixture(autouse=True)
def ear(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of Whisper one that knows what each clip of the synthetic corpus holds."""
    held = {
        wave.tobytes(): target
        for split in ("training", "validation")
        for clips in [load_split(DATA, "v2-12", split, allow_partial=True)]
        for wave, target in zip(clips.waves, clips.targets.tolist(), strict=True)
    }

    def states(ear: Path, waves: np.ndarray, cache: Path, parts: int) -> np.ndarray:
        targets = [held.get(wave.tobytes(), 0) for wave in waves]
        noise = np.random.default_rng(0).normal(0, 0.1, (len(waves), 12 * parts))
        found: np.ndarray = (noise + np.eye(12, 12 * parts)[targets]).astype(np.float32)
        return found

    monkeypatch.setattr(whisper_answers, "teacher_states", states)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["whisper_answers.py", *map(str, words)])
    assert whisper_answers.main() == 0


def test_a_speaker_is_answered_by_others_alone() -> None:
    names = [f"{word}/{who:08x}_nohash_0.wav" for who in range(500) for word in ("yes", "no")]
    fold = whisper_answers.folds(names).numpy()
    of_speaker = {speaker(name): set() for name in names}
    for name, number in zip(names, fold, strict=True):
        of_speaker[speaker(name)].add(number)
    assert all(len(numbers) == 1 for numbers in of_speaker.values())
    assert np.bincount(fold).min() > 140 and len(np.bincount(fold)) == 5


def test_a_regression_finds_what_tells_classes_apart() -> None:
    random = np.random.default_rng(0)
    targets = np.arange(300) % 3
    states = random.normal(0, 1, (300, 20)) + 3 * np.eye(3, 20)[targets]
    head = whisper_answers.regression(
        torch.from_numpy(states).float(), torch.from_numpy(targets), 3
    )
    right = head(torch.from_numpy(states).float()).argmax(1).numpy() == targets
    assert right.mean() > 0.95


def test_a_wrong_label_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a corpus in which a clip of "yes" lies in the folder of "stop"."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    link_corpus(corpus, 20)
    (misplaced,) = sorted((corpus / "yes").iterdir())[:1]
    misplaced.rename(corpus / "stop" / f"{misplaced.stem.partition('_')[0]}_nohash_99.ogg")
    file = tmp_path / "answers.npz"
    call(monkeypatch, corpus, "--ear", tmp_path, "--to", file, "--run", tmp_path / "run")
    clips = load_split(corpus, "v2-12", "training", allow_partial=True)
    answers = read_answers(file, clips)
    assert torch.allclose(answers.exp().sum(1), torch.ones(len(clips)), atol=1e-4)
    place = next(n for n, name in enumerate(clips.names) if name.endswith("_nohash_99.ogg"))
    assert clips.labels[clips.targets[place]] == "stop"
    yes, stop = (clips.labels.index(word) for word in ("yes", "stop"))
    assert answers[place].argmax() == yes and answers[place, stop] < -1


def test_it_says_how_often_each_teacher_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus").mkdir()
    link_corpus(tmp_path / "corpus", 3)
    words = [tmp_path / "corpus", "--ear", tmp_path, "--to", tmp_path / "a.npz"]
    call(monkeypatch, *words, "--run", tmp_path / "run")
    said = capsys.readouterr().out
    assert re.search(r"a\.npz: \d+ answers, [\d.]+% as the labels say\n", said)
    shares = dict(re.findall(r"(Whisper|base|both): ([\d.]+)% of \d+ validation clips", said))
    assert set(shares) == {"Whisper", "base", "both"} and float(shares["base"]) > 50


def test_the_states_of_a_clip_are_those_of_its_parts_in_order(
    kokoro_folder: Path, tmp_path: Path
) -> None:
    """The mean over the parts is the mean over the clip."""
    from encoder import teacher_states

    waves = np.random.default_rng(0).normal(0, 1_000, (2, 16_000)).astype(np.int16)
    whole, fifths = (
        teacher_states(kokoro_folder / "whisper", waves, tmp_path / f"{parts}.npz", parts)
        for parts in (1, 5)
    )
    assert whole.shape == (2, 384) and fifths.shape == (2, 5 * 384)
    assert np.allclose(fifths.reshape(2, 5, 384).mean(1), whole, atol=1e-4)

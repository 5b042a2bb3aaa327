"""The ablation against talk and sounds: its losses of windows, its draws, its table."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT
from recipe_scripts import load_recipe, make_open_world

from speechrnn.config import SILENCE, UNKNOWN, ModelConfig
from speechrnn.corpus import load_split
from speechrnn.detection import HOLD_SECONDS
from speechrnn.features import Mfcc
from speechrnn.training.augmentation import Augmentation
from speechrnn.training.batches import save_answers

RECIPES = ROOT / "recipes"
LABELS = (SILENCE, UNKNOWN, "yes", "no")


open_world = load_recipe("open_world")


def joined(loss: str):
    shape = {"hidden_size": 8, "layers": 1, "feed_forward": 8}
    return open_world.Joined(loss, labels=LABELS, augmentation=Augmentation(), **shape)


def log(*shares: float) -> torch.Tensor:
    return torch.tensor(shares).log()


def test_a_window_is_judged_by_what_it_holds():
    """Two clips of four steps, so three windows between them.

    The first word lies in step 2 and 3 of its clip, the second in step 1 and 2.
    """
    before = torch.tensor([[[0, 0, 0.5, 1, 1], [0, 0.5, 1, 1, 1]]])
    shares = torch.stack(
        [log(0.1, 0.2, 0.3, 0.4), log(0.2, 0.3, 0.4, 0.1), log(0.4, 0.1, 0.1, 0.4)]
    )
    training, share = joined("windows"), shares[None, None]

    def loss(first: str, second: str) -> float:
        targets = torch.tensor([[LABELS.index(first), LABELS.index(second)]])
        return training.window_loss(share, targets, before).item()

    # From step 1 on, all of "yes" is in the window, and half of "no"; from step 2 on half of "yes"
    # and all of "no"; from step 3 on nothing of "yes" and all of "no".
    assert loss("yes", "no") == pytest.approx(-np.log([0.3, 0.1, 0.4]).mean())
    # A strange word may be in the window or not: no command is to be heard but the other clip's.
    assert loss("yes", UNKNOWN) == pytest.approx(-np.log([0.3, 0.5, 0.5]).mean())
    assert loss(UNKNOWN, SILENCE) == pytest.approx(-np.log([0.3, 0.5, 0.5]).mean())


def test_windows_in_which_two_words_are_whole_are_not_judged():
    before = torch.tensor([[[0, 0, 0, 0, 1], [0, 1, 1, 1, 1]]])
    share = log(0.25, 0.25, 0.25, 0.25).expand(1, 1, 3, 4)
    targets = torch.tensor([[2, 3]])
    assert joined("windows").window_loss(share, targets, before) == 0


def test_a_recording_asks_for_the_words_that_are_held_and_for_no_others():
    training, steps = joined("max-pooling"), 66
    said = torch.tensor([[LABELS.index("yes"), 0, 0, 0]])

    def loss(word: str, windows: int) -> float:
        shares = torch.full((1, steps, 4), 0.01)
        shares[0, 20 : 20 + windows, LABELS.index(word)] = 0.97
        return training.recording_loss(shares.log(), said).item()

    hold = round(HOLD_SECONDS / 0.03)
    assert loss("yes", hold) < loss("yes", hold // 2) < loss("yes", 0), "held as long as is asked"
    assert loss("yes", hold) == pytest.approx(loss("yes", 40))
    assert loss("no", hold) > loss("yes", 0), "a false alarm costs more than a miss alone"


def test_sound_is_counted_above_the_quiet_of_its_clip():
    training = joined("windows")
    power = torch.full((1, 99), 4.0)
    power[0, 30:60] = 104.0
    before = training.heard_before(power)
    assert before.shape == (1, 34)
    assert before[0, 10].item() == 0 and before[0, 20].item() == pytest.approx(1)
    assert before[0, 15].item() == pytest.approx(0.5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little of the synthetic corpus, with talk, recorded and rendered, and sounds."""
    folder = tmp_path_factory.mktemp("open_world")
    make_open_world(folder)
    return folder


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")  # Lightning's
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # the teacher
def test_rows_are_trained_once_and_told_in_a_table(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning writes it: put back after the test
    monkeypatch.setattr(open_world, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(open_world, "EPOCHS", 1)
    monkeypatch.setattr("speechrnn.training.batches.PIECES", 50)
    monkeypatch.setattr(open_world, "PIECES", 50)
    monkeypatch.setattr("speechrnn.training.run.ROOMS", 2)
    words = ["--corpus", corpus / "corpus", "--start", "small", "--seeds", 1]
    for kind in ("talk", "sounds"):
        words += [f"--{kind}", corpus / kind, f"--validation-{kind}", corpus / kind]
    clips = load_split(corpus / "corpus", "v2-12", "training", allow_partial=True)
    answers = np.log(np.full((len(clips), 12), 1 / 12))
    save_answers(tmp_path / "answers.npz", clips, answers)
    words += ["--rows", "no rendered", "Whisper", "max"]
    monkeypatch.setattr(sys, "argv", ["open_world.py", *map(str, words)])
    with pytest.raises(SystemExit):
        open_world.main()
    assert "taught by Whisper: expected --answers" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-3], "scarce"])
    with pytest.raises(SystemExit):
        open_world.main()
    assert "rendered clips: expected --words" in capsys.readouterr().err
    sys.argv[-1] = "more"
    with pytest.raises(SystemExit):
        open_world.main()
    assert "more rendered talk: expected --more-talk" in capsys.readouterr().err
    sys.argv += ["--more-talk", str(corpus / "talk/told")]
    with pytest.raises(SystemExit):
        open_world.main()
    assert "so that every row would hear it" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["open_world.py", *map(str, words)])
    sys.argv += ["--answers", str(tmp_path / "answers.npz")]
    open_world.main()
    trained = open_world.RESULTS.read_text()
    rows = [json.loads(line) for line in trained.splitlines()]
    assert [row["row"][:7] for row in rows] == ["no rend", "taught ", "max-poo"]
    assert all(0 <= row["accuracy"] <= 1 and len(row["talk"]) == len(row["missed"]) for row in rows)
    open_world.main()
    assert open_world.RESULTS.read_text() == trained, "none again"
    assert open_world.table().count("\n| ") == 3, "a line a row"
    capsys.readouterr()


def test_a_row_draws_the_clips_and_pieces_that_it_says(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setattr("speechrnn.training.batches.PIECES", 50)
    monkeypatch.setattr(open_world, "PIECES", 50)
    monkeypatch.setattr("speechrnn.training.run.ROOMS", 2)
    talk, sounds = str(corpus / "talk"), str(corpus / "sounds")
    data = open_world.Data(
        str(corpus / "corpus"), talk=talk, talk_share=0.2, sounds=sounds, sounds_share=0.1,
        allow_partial=True,
    )  # fmt: skip
    data.setup("fit")
    data.words, data.more_talk = tmp_path, corpus / "talk/told"
    for word in ("nine", "go"):
        (tmp_path / word).mkdir()
        wave = data.clips["training"].waves[0]
        soundfile.write(tmp_path / word / "a_nohash_0.wav", wave, 16_000)
    data.compute_frames(Mfcc(ModelConfig(labels=LABELS)))
    rows = {row.name: row for row in open_world.ROWS}
    found = {}
    data.whisper = torch.zeros(len(data.clips["training"]), 12)
    for name in ("the recipe", "no talk", "no sounds", "no rendered talk", "more rendered talk"):
        data.take(rows[name])
        assert data.answers is None
        found[name] = data.recordings, [len(pieces._quiet) for pieces in data.pieces]
    assert found == {
        "the recipe": ({talk: 0.2, sounds: 0.1}, [2, 1]),
        "no talk": ({sounds: 0.1}, [1]),
        "no sounds": ({talk: 0.2}, [2]),
        "no rendered talk": ({talk: 0.2, sounds: 0.1}, [1, 1]),
        "more rendered talk": ({talk: 0.2, sounds: 0.1}, [3, 1]),
    }, "shares, and of how many recordings"
    recorded = data.clips["training"]
    data.take(rows["rendered clips of scarce words"])
    clips = data.clips["training"]
    assert clips.names == [*recorded.names, "go/a_nohash_0.wav", "nine/a_nohash_0.wav"]
    assert [clips.labels[target] for target in clips.targets[-2:]] == ["go", "_unknown_"]
    assert len(data.frames["training"]) == len(clips)
    assert torch.equal(data.frames["training"][-2], data.frames["training"][0]), "the same wave"
    data.take(rows["the recipe"])
    assert data.clips["training"] is recorded and len(data.frames["training"]) == len(recorded)
    data.take(rows["taught by `base` and Whisper"])
    assert data.answers is data.whisper


def test_results_are_of_rows_that_there_are_and_stand_in_the_table():
    results = [json.loads(line) for line in open_world.RESULTS.read_text().splitlines()]
    assert {result["row"] for result in results} <= {row.name for row in open_world.ROWS}
    assert open_world.table() in (RECIPES / "README.md").read_text()

"""The table of detector rules: a row a rule, and what the package uses is among them."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from recipe_scripts import load_recipe, make_open_world

from speechrnn import detection
from speechrnn.corpus import Clips
from speechrnn.detection import Detection
from speechrnn.evaluation.background import Background
from speechrnn.evaluation.recordings import JoinedRecording, Word


def test_each_rule_has_a_row_and_the_shipped_one_is_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_open_world(tmp_path)
    detector = load_recipe("detector")
    names = ("HOLD_SECONDS", "WIDEST_SECONDS", "BEHIND_SPEECH")
    shipped = tuple(getattr(detection, name) for name in names)
    assert shipped in detector.RULES
    rules = [(0.45, detector.WHOLE_WINDOW, 0), shipped, (9.0, 0.75, 1)]
    monkeypatch.setattr(detector, "RULES", rules)
    for name, value in zip(names, shipped, strict=True):
        monkeypatch.setattr(detection, name, value)  # and put back what the script sets
    monkeypatch.setattr("speechrnn.evaluation.results.HOURS", 60 / 3600)
    folders = {"data": "corpus", "talk": "talk", "sounds": "sounds"}
    words = [f"--{name}={tmp_path / folder}" for name, folder in folders.items()]
    monkeypatch.setattr(sys, "argv", ["detector.py", "tiny", "tiny", *words])
    with pytest.raises(SystemExit):
        detector.main()
    assert "sounds: one recording, expected two or more" in capsys.readouterr().err
    shutil.copy(tmp_path / "sounds/a.wav", tmp_path / "sounds/b.wav")
    detector.main()
    out = capsys.readouterr().out
    first, second = (tables.strip() for tables in out.split("\n`tiny`\n")[1:])
    assert first == second, "a model's tables do not depend on the one before it"
    lines = [line.split(" | ") for line in first.splitlines() if re.match(r"\| \d", line)]
    rows, by_word = lines[:3], lines[3:]
    assert [row[0] for row in by_word] == [f"| {allowed}" for allowed in detector.ALLOWED]
    assert [row[:3] for row in rows] == [
        ["| 0.45 s", "any", "0"], ["| 0.42 s", "0.75 s", "1"], ["| 9.00 s", "0.75 s", "1"]
    ]  # fmt: skip
    assert rows[2][3:8] == ["0.0%"] * 5, "no word stays for nine seconds"
    assert rows[0][3:8] != ["0.0%"] * 5 != rows[1][3:8]


def test_each_word_gets_the_threshold_that_wins_most_for_its_false_alarms() -> None:
    one_for_each = load_recipe("detector").one_for_each
    # Three thresholds, two words: the first word costs a false alarm at the lowest.
    hits = np.array([[9, 5], [5, 4], [1, 1]])
    alarms = np.array([[[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    assert one_for_each(hits, alarms, 0).tolist() == [1, 0]
    assert one_for_each(hits, alarms, 1).tolist() == [0, 0]
    many = np.concatenate((alarms, alarms + np.array([[3.0], [0.0], [0.0]])))
    assert one_for_each(hits, many, 1).tolist() == [1, 1], "in each recording"
    hits, alarms = np.array([[9, 6], [1, 1]]), np.array([[[2.0, 1.0], [0.0, 0.0]]])
    assert one_for_each(hits, alarms, 2).tolist() == [1, 0], "5 for a false alarm, not 4"


class Heard:
    """In the place of what a model gave: "yes" with each of these scores, two seconds apart."""

    def __init__(self, *scores: float) -> None:
        self.config, self.hours, self.scores = SimpleNamespace(words=("yes",)), 1.0, scores

    def detections(self, levels: dict[str, float]) -> list[Detection]:
        found = [(2 * place, one) for place, one in enumerate(self.scores) if one >= levels["yes"]]
        return [Detection(at, at + 0.5, "yes", score, at + 1) for at, score in found]


def test_false_alarms_are_those_of_the_half_that_nothing_was_chosen_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = load_recipe("detector")
    monkeypatch.setattr(detector, "ALLOWED", (0,))
    hour = Background(("a",), (np.broadcast_to(np.int16(0), 3600 * 16_000),), {})
    joined = SimpleNamespace(words=[Word(0, 0.5, "yes")])
    halves = [[(Heard(0.6), hour), (Heard(), hour)], [(Heard(), hour), (Heard(), hour)]]
    _, row = detector.word_thresholds(Heard(0.3), joined, halves)
    assert row[2] == row[4] == "0.5, 0.0", "chosen on the quiet half, one alarm in the other"


def hissing(*levels: int) -> Clips:
    """A clip of "yes" at each level."""
    waves = np.random.default_rng(0).normal(0, 1, (len(levels), 16_000)) * np.array([levels]).T
    names = [f"yes/{level}" for level in levels]
    return Clips(waves.astype(np.int16), np.ones(len(levels), int), names, ("_unknown_", "yes"))


def hiss(level: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, level, 160_000).astype(np.int16)


def test_talk_is_as_loud_as_the_clip_behind_it_and_pauses_before_it() -> None:
    detector = load_recipe("detector")
    clips = hissing(3_000, 300, 30)
    recording = detector.BehindTalk(clips, np.zeros(0, np.int16), hiss(5_000), 0.3)
    for index in range(3):
        part = recording[index]
        said, pause, clip = np.split(part, [len(part) - 20_800, len(part) - 16_000])
        assert 1.7 <= len(said) / 16_000 < 1.701 and not pause.any()
        assert np.square(said).mean() == pytest.approx(np.square(clip).mean(), rel=0.05)


def test_noise_goes_on_ten_decibels_below_each_clip() -> None:
    detector = load_recipe("detector")
    clips, noise = hissing(3_000, 300, 100), hiss(2_000)
    quiet, noisy = (kind(clips, noise) for kind in (JoinedRecording, detector.InNoise))
    for index in range(3):
        added = noisy[index] - quiet[index]
        clip = quiet[index][-16_000:]
        ratio = np.square(clip).mean() / np.square(added).mean()
        assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.3)

"""The curve over sizes: its range, its runs, its table and its picture."""

import json
import sys
from pathlib import Path

import pytest
from recipe_scripts import load_recipe, make_open_world

from speechrnn.config import ModelConfig
from speechrnn.corpus import TEN_WORDS

sizes, open_world = load_recipe("sizes"), load_recipe("open_world")


def test_sizes_go_from_10_000_to_250_000_parameters() -> None:
    labels = ("_silence_", "_unknown_", *TEN_WORDS)
    counts = [ModelConfig(labels=labels, **size).parameter_count for size in sizes.SIZES]
    assert counts == sorted(counts)
    assert 9_500 < counts[0] < 10_500 and 240_000 < counts[-1] <= 250_000


def test_words_are_missed_where_neither_talk_nor_sounds_give_too_many_false_alarms() -> None:
    result = {"missed": [0.1, 0.2, 0.4], "talk": [30, 9, 1], "sounds": [5, 11, 10]}
    assert sizes.missed(result) == 0.4
    assert sizes.missed({**result, "sounds": [5, 10, 10]}) == 0.2
    assert sizes.missed({**result, "talk": [30, 20, 11]}) == 1.0


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")  # Lightning's
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_sizes_are_trained_once_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning writes it: put back after the test
    monkeypatch.setattr(sizes, "HERE", tmp_path)
    monkeypatch.setattr(sizes, "RESULTS", tmp_path / "sizes.jsonl")
    monkeypatch.setattr(sizes, "EPOCHS", 1)
    small = {"layers": 1, "hidden_size": 8, "feed_forward": 8}
    monkeypatch.setattr(sizes, "SIZES", (small, {**small, "hidden_size": 12}))
    monkeypatch.setattr("speechrnn.training.batches.PIECES", 50)
    monkeypatch.setattr(open_world, "PIECES", 50)
    monkeypatch.setattr("speechrnn.training.run.ROOMS", 2)
    make_open_world(tmp_path)
    words: list[object] = ["sizes.py", "--corpus", tmp_path / "corpus"]
    for kind in ("talk", "sounds"):
        words += [f"--{kind}", tmp_path / kind, f"--validation-{kind}", tmp_path / kind]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    sizes.main()
    trained = sizes.RESULTS.read_text()
    rows = [json.loads(line) for line in trained.splitlines()]
    assert [row["size"]["hidden_size"] for row in rows] == [8, 12]
    assert rows[0]["multiplications"] < rows[1]["multiplications"]
    assert (tmp_path / "sizes.png").stat().st_size > 10_000
    monkeypatch.setattr(sys, "argv", ["sizes.py"])
    sizes.main()
    assert sizes.RESULTS.read_text() == trained, "none again"
    assert capsys.readouterr().out.count("\n| ") >= 4, "a line a size, twice"


def test_results_stand_in_the_table() -> None:
    results = [json.loads(line) for line in sizes.RESULTS.read_text().splitlines()]
    assert [result["size"] for result in results] == list(sizes.SIZES[: len(results)])
    assert sizes.table(results) in (sizes.HERE / "README.md").read_text()

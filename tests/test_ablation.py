"""The ablation: each row compares with the recipe, can be trained, and is not trained twice."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from recipe_scripts import link_corpus, load_recipe

from speechrnn.config import SILENCE, UNKNOWN, ModelConfig
from speechrnn.corpus import TEN_WORDS
from speechrnn.model import Model
from speechrnn.training.augmentation import Augmentation

RECIPES = ROOT / "recipes"
LABELS = (SILENCE, UNKNOWN, *TEN_WORDS)


ablation = load_recipe("ablation")


def _parameters(row) -> int:
    settings = {
        **yaml.safe_load((RECIPES / "v2_12_small.yaml").read_text())["model"],
        **row.model,
        "augmentation": Augmentation(),
    }
    return ablation.parameter_count(ablation.Variant(row, labels=LABELS, **settings).model)


@pytest.mark.parametrize("row", ablation.ROWS, ids=lambda row: row.name[:40])
def test_row_has_the_parameters_of_the_recipe_to_three_percent(row):
    assert abs(_parameters(row) / _parameters(ablation.ROWS[0]) - 1) < 0.03


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ablation.ROWS}) == len(ablation.ROWS)


def test_results_are_of_rows_that_there_are():
    results = [json.loads(line) for line in (RECIPES / "ablation.jsonl").read_text().splitlines()]
    assert {result["row"] for result in results} <= {row.name for row in ablation.ROWS}
    assert ablation.table(results) in (RECIPES / "README.md").read_text()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A little of the synthetic corpus: few clips of each word, and its noises."""
    folder = tmp_path_factory.mktemp("corpus")
    link_corpus(folder, 4)
    return folder


def run(monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, words)])
    ablation.main()


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")  # Lightning's
def test_rows_are_trained_once_and_told_in_a_table(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning writes it: put back after the test
    file = tmp_path / "results.jsonl"
    words = ["--data", corpus, "--epochs", "1", "--results", file]
    words += ["--rows", "GRU", "W_hh always", "no residual"]
    run(monkeypatch, *words)
    trained = file.read_bytes()
    capsys.readouterr()
    run(monkeypatch, *words)
    assert file.read_bytes() == trained, "none again"
    assert capsys.readouterr().out.count("\n| ") == 3, "a line a row"
    rows = [json.loads(line)["row"].split(",")[0] for line in trained.decode().splitlines()]
    assert rows == ["W_hh always orthogonal (parametrisation", "no residual paths", "GRU"]


def test_rows_without_a_word_are_measured_on_it(corpus, monkeypatch):
    """The synthetic corpus has other words than the folds, so one of its own is left out."""
    names = {path.name for path in corpus.iterdir() if path.is_dir() and path.name[0] != "_"}
    word = min(names - set(TEN_WORDS))
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    data = ablation.Corpus(str(corpus), "v2-12", allow_partial=True)
    data.setup("fit")
    row = ablation.Row(13, "a row", fold=(word,), streamed=True)
    result = ablation.measure(row, Model(ModelConfig(LABELS, hidden_size=8, layers=1)), data)
    assert set(result["words_not_in_training"]) == {word}
    assert 0 <= result["words_not_in_training"][word] <= 1 and 0 <= result["streamed"] <= 1
    names = data.clips["training"].names
    data.left_out = torch.tensor([name.startswith(f"{word}/") for name in names])
    weights = data.weights(data.clips["training"])
    assert data.left_out.any() and not weights[data.left_out].any()
    assert weights.sum().item() == pytest.approx(1)


def test_unknown_row_is_refused_with_the_names_there_are(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "--rows", "nothing")
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert "no row begins with 'nothing'" in error and "the recipe" in error

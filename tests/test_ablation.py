"""The ablation: each row is comparable with the recipe, can be trained, and is not trained twice."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from speechrnn.augment import Augmentation
from speechrnn.data import SILENCE, TEN_WORDS, UNKNOWN

RECIPES = Path(__file__).parents[1] / "recipes"
LABELS = (SILENCE, UNKNOWN, *TEN_WORDS)


def _load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("ablation", RECIPES / "ablation.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


ablation = _load()


def _parameters(row) -> int:
    settings = {
        **yaml.safe_load((RECIPES / "v2_12_small.yaml").read_text())["model"],
        **row.model,
        "augmentation": Augmentation(),
    }
    return ablation.Variant(row, labels=LABELS, **settings).model.parameter_count


@pytest.mark.parametrize("row", ablation.ROWS, ids=lambda row: row.name[:40])
def test_row_has_the_parameters_of_the_recipe_to_three_percent(row):
    assert abs(_parameters(row) / _parameters(ablation.ROWS[0]) - 1) < 0.03


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ablation.ROWS}) == len(ablation.ROWS)


def test_results_are_of_rows_that_there_are():
    results = [json.loads(line) for line in (RECIPES / "ablation.jsonl").read_text().splitlines()]
    assert {result["row"] for result in results} <= {row.name for row in ablation.ROWS}
    assert ablation.table(results) in (RECIPES / "README.md").read_text()


def test_rows_are_trained_once_and_told_in_a_table(tmp_path):
    corpus = RECIPES.parent / "data" / "synthetic_commands"
    command = [
        sys.executable,
        RECIPES / "ablation.py",
        "--data",
        corpus,
        "--epochs",
        "1",
        "--results",
        tmp_path / "results.jsonl",
    ]
    command += ["--rows", "GRU", "W_hh always", "no residual"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [result["row"].split(",")[0] for result in results] == [
        "W_hh always orthogonal (parametrisation",
        "no residual paths",
        "GRU",
    ]
    assert done.stdout.count("\n| ") == 3, "a line a row"


def test_unknown_row_is_refused_with_the_names_there_are():
    done = subprocess.run([sys.executable, RECIPES / "ablation.py", "--rows", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no row begins with 'nothing'" in done.stderr and "the recipe" in done.stderr

"""From a run to a shipped model: the card tells what was measured, and of which model."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import DATA
from recipe_scripts import load_recipe, make_open_world

from speechrnn import Recogniser, folder
from speechrnn.cli import main
from speechrnn.config import ModelConfig
from speechrnn.corpus import load_split
from speechrnn.evaluation.clips import evaluate_clips
from speechrnn.model import Model
from speechrnn.network import Network


@pytest.fixture(scope="module")
def evaluated_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of an untrained model, evaluated on both splits."""
    run, open_world = tmp_path_factory.mktemp("runs") / "run", tmp_path_factory.mktemp("open_world")
    make_open_world(open_world)
    clips = load_split(DATA, "v2-12", "validation", allow_partial=True)
    torch.manual_seed(0)
    config = ModelConfig(labels=clips.labels, hidden_size=8, layers=1)
    weights = Model(config).arrays()
    recipe = "seed_everything: 1\ndata:\n  folder: /home/somebody/speech\n  answers: null\n"
    facts = {"clips": {"training": 1}, "corpus": "speech_commands", "recipe": recipe, "torch": "2"}
    facts |= {"seed": 1, "epochs": 1, "best_epoch": 1, "date": "2026-01-01", "hardware": "none"}
    result = evaluate_clips(Recogniser(Network(config, weights), {}), clips, "v2-12", "validation")
    scores = {"validation": result.figures()}
    folder.save_folder(run / "model", config, weights, training=facts, scores=scores, card="")
    corpus = ["--data", str(DATA), "--allow-partial"]
    with pytest.MonkeyPatch.context() as patch:  # minutes instead of hours
        patch.setattr("speechrnn.evaluation.results.HOURS", 120 / 3600)
        patch.setattr("speechrnn.evaluation.spotting.ALONE_HOURS", 30 / 3600)
        patch.setattr("speechrnn.evaluation.spotting.CUTS", 20)
        patch.setattr("speechrnn.evaluation.conditions.ROOMS", 1)
        assert main(["thresholds", str(run), *corpus, "--false-alarms-per-hour", "60"]) == 0
        for split in ("validation", "testing"):
            words = ["--split", split, "--streamed", "--noise", "--report", str(run / split)]
            if split == "validation":
                words += [f"--{kind}={open_world / kind}" for kind in ("talk", "sounds")]
            assert main(["evaluate", str(run), *corpus, *words]) == 0
    return run


@pytest.fixture
def run_folder(evaluated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, and a package without models to ship it to."""
    monkeypatch.setattr(folder, "SHIPPED", tmp_path / "shipped")
    return Path(shutil.copytree(evaluated_run, tmp_path / "run"))


def change_report(run: Path, split: str, change: Callable[[dict[str, Any]], object]) -> None:
    file = run / split / "report.json"
    report = json.loads(file.read_text())
    change(report)
    file.write_text(json.dumps(report))


def ship(run: Path, monkeypatch: pytest.MonkeyPatch, name: str = "tiny") -> None:
    module = load_recipe("ship")
    monkeypatch.setattr(sys, "argv", ["ship.py", str(run), name])
    module.main()


def test_shipped_model_tells_what_was_measured(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(run_folder, monkeypatch)
    card = (folder.SHIPPED / "tiny" / "README.md").read_text()
    report = json.loads((run_folder / "testing" / "report.json").read_text())
    assert f"accuracy {report['accuracy']:.2%}" in card
    assert f"accuracy {report['stream']['accuracy']:.2%}" in card
    assert "speechrnn classify --model tiny a.wav" in card
    assert "| digital zero |" in card and "CC BY 4.0" in card
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["license"] == folder.read_folder("tiny").license == "apache-2.0"
    assert metadata["datasets"] == ["google/speech_commands", "openslr/librispeech_asr"]
    (model,) = metadata["model-index"]
    assert model["name"] == "tiny" and len(model["results"]) == 4
    test = model["results"][2]
    assert test["dataset"]["split"] == "test"
    assert test["metrics"][0]["value"] == round(report["accuracy"], 4)
    score = report["events"]["scores"]["all"]
    missed = f"{100 * score['miss_rate']:.1f} % of {score['words']:,} words missed"
    assert f"- testing: {missed}" in card
    chosen = json.loads((run_folder / "model" / "thresholds.json").read_text())
    assert json.loads((folder.SHIPPED / "tiny" / "thresholds.json").read_text()) == chosen
    shipped = folder.read_folder("tiny")
    assert shipped.thresholds == chosen["thresholds"]
    assert "folder: data/speech_commands" in card and "somebody" not in card
    assert "answers: null" in card, "what a training had not stays out"
    splits = {"validation", "validation_stream", "testing", "testing_stream"}
    assert set(shipped.about["scores"]) == splits
    trained = folder.read_folder(run_folder)
    assert shipped.about["sha256"] == trained.about["sha256"]


def test_report_without_a_stream_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("stream", "events", "conditions"):
        change_report(run_folder, "testing", lambda report, name=name: report.pop(name))
    with pytest.raises(SystemExit):
        ship(run_folder, monkeypatch)
    message = "no conditions, events, stream: evaluate with --streamed --noise"
    assert message in capsys.readouterr().err
    assert not folder.SHIPPED.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda report: report["model"].update(sha256="0"),
        lambda report: report["events"]["thresholds"].update(yes=0.99),
    ],
    ids=["weights", "thresholds"],
)
def test_report_of_another_model_or_of_other_thresholds_is_refused(
    change: Callable[[dict[str, Any]], object],
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_report(run_folder, "testing", change)
    with pytest.raises(SystemExit):
        ship(run_folder, monkeypatch)
    assert "testing is of another model" in capsys.readouterr().err
    assert not folder.SHIPPED.exists()


def test_results_stand_in_the_tables_of_both_pages(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("base", "small", "tiny"):
        ship(run_folder, monkeypatch, name)
    results = load_recipe("results")
    pages = [Path("README.md"), Path("recipes/README.md")]
    before = {page: (results.PROJECT / page).read_text() for page in pages}
    for page, text in before.items():
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text(text)
    monkeypatch.setattr(results, "PROJECT", tmp_path)
    models = [f"--{name}={run_folder}" for name in ("base", "small", "tiny")]
    monkeypatch.setattr(sys, "argv", ["results.py", *models])
    results.main()
    after = {page: (tmp_path / page).read_text() for page in pages}
    for page in pages:  # prose, heads and the tables of other things stay
        lines = [set(texts[page].splitlines()) for texts in (before, after)]
        assert all(line.startswith("| ") for line in lines[0] ^ lines[1])
    validation, testing = (
        json.loads((run_folder / split / "report.json").read_text())
        for split in ("validation", "testing")
    )
    parts = [validation["accuracy"], validation["stream"]["accuracy"], testing["accuracy"]]
    shares = " | ".join(f"{share:.1%}".replace("%", " %") for share in parts)
    shares = shares.replace(" | ", "** | ", 1)
    assert f"**{shares}" in after[pages[0]]
    assert f"{testing['silence_apart'][1]:.2%} |" in after[pages[1]]
    rate = f"{validation['conditions']['digital zero']:.1%}"
    assert f"| digital zero | {rate} | {rate} | {rate} |" in after[pages[1]]
    # Of the thresholds at which none of the three gives more, the one that misses least.
    found = [
        1 - joined["all"][0]
        for joined, (_, talk), (_, sounds) in zip(
            validation["events"]["curve"], validation["talk"]["curve"],
            validation["sounds"]["curve"], strict=True,
        )
        if max(joined["all"][1], talk, sounds) <= 10
    ]  # fmt: skip
    head = "| false alarms an hour | 1 | 2 | 3 | 5 | 10 |\n|---|--:|--:|--:|--:|--:|\n| `base` |"
    assert head in after[pages[1]]
    assert after[pages[1]].split(head)[1].splitlines()[0].endswith(f"| {max(found):.0%} |")
    results.main()
    assert after == {page: (tmp_path / page).read_text() for page in pages}


def test_results_without_a_table_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no table"):
        load_recipe("results").replace_rows("# Title\n", "| nothing", [])

"""From a run to a shipped model: the card tells what was measured, and of which model."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from speechrnn import checkpoint
from speechrnn.cli import main
from speechrnn.data import load_split
from speechrnn.evaluation import evaluate_clips
from speechrnn.model import Model, ModelConfig

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "data" / "synthetic_commands"


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of an untrained model, and a package without models to ship it to."""
    clips = load_split(CORPUS, "v2-12", "validation", allow_partial=True)
    torch.manual_seed(0)
    model = Model(ModelConfig(labels=clips.labels, hidden_size=8, layers=1)).eval()
    recipe = "seed_everything: 1\ndata:\n  folder: /home/somebody/speech\n"
    facts = {"clips": {"training": 1}, "corpus": "speech_commands", "recipe": recipe, "torch": "2"}
    facts |= {"seed": 1, "epochs": 1, "best_epoch": 1, "date": "2026-01-01", "hardware": "none"}
    scores = {"validation": evaluate_clips(model, clips, "v2-12", "validation").to_dict()}
    checkpoint.save(model, tmp_path / "run" / "model", training=facts, scores=scores, card="")
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "run"


def ship(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specification = importlib.util.spec_from_file_location("ship", ROOT / "recipes" / "ship.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["ship.py", str(run), "tiny"])
    module.main()


def evaluated(run: Path, split: str, *more: str) -> None:
    report = str(run / split)
    words = ["evaluate", str(run), "--data", str(CORPUS), "--split", split, "--allow-partial", "--report", report, *more]
    assert main(words) == 0


@pytest.fixture(autouse=True)
def short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes instead of hours."""
    monkeypatch.setattr("speechrnn.events.HOURS", 120 / 3600)
    monkeypatch.setattr("speechrnn.events.ALONE_HOURS", 30 / 3600)
    monkeypatch.setattr("speechrnn.events.CUTS", 20)


def test_shipped_model_tells_what_was_measured(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(run_folder, "validation", "--false-alarms-per-hour", "60", "--noise")
    evaluated(run_folder, "testing", "--streamed", "--noise")
    ship(run_folder, monkeypatch)
    card = (checkpoint.SHIPPED / "tiny" / "README.md").read_text()
    found = json.loads((run_folder / "testing" / "report.json").read_text())
    assert f"accuracy {found['accuracy']:.2%}" in card and f"accuracy {found['stream']['accuracy']:.2%}" in card
    assert "speechrnn classify --model tiny a.wav" in card and "| digital zero |" in card and "CC BY 4.0" in card
    heard = found["events"]["scores"]["all"]
    assert f"- testing: {100 * heard['miss_rate']:.1f} % of {heard['words']:,} words missed" in card
    chosen = json.loads((run_folder / "model" / "thresholds.json").read_text())["thresholds"]
    assert checkpoint.load("tiny").thresholds == chosen
    assert "folder: data/speech_commands" in card and "somebody" not in card
    scores = checkpoint.read_config(checkpoint.SHIPPED / "tiny")["scores"]
    assert set(scores) == {"validation", "validation_stream", "testing", "testing_stream"}


def test_report_without_a_stream_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("validation", "testing"):
        evaluated(run_folder, split)
    with pytest.raises(SystemExit):
        ship(run_folder, monkeypatch)
    assert "no conditions, events, stream: evaluate with --streamed --noise" in capsys.readouterr().err


def test_report_of_another_model_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("validation", "testing"):
        evaluated(run_folder, split, "--streamed", "--noise")
    found = json.loads((run_folder / "validation" / "report.json").read_text())
    found["confusion"][0][0] += 1
    (run_folder / "validation" / "report.json").write_text(json.dumps(found))
    with pytest.raises(SystemExit):
        ship(run_folder, monkeypatch)
    assert "is of another model" in capsys.readouterr().err

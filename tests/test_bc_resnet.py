"""The peer that is trained on our data: its published sizes, and a short training."""

import sys
from pathlib import Path

import pytest
import torch
from recipe_scripts import load_recipe, make_open_world

peer = load_recipe("bc_resnet")


@pytest.mark.parametrize(
    ("scale", "thousands"), [(1, 9.2), (2, 27.3), (3, 54.2), (6, 188), (8, 321)]
)
def test_it_has_as_many_parameters_as_the_paper_says(scale: int, thousands: float) -> None:
    count = sum(part.numel() for part in peer.BCResNet(scale, 12).parameters())
    assert count / 1000 == pytest.approx(thousands, abs=0.5 if thousands > 100 else 0.05)


def test_it_answers_seconds_of_any_number_by_themselves() -> None:
    network = peer.BCResNet(1, 12).eval()
    seconds = torch.randn(3, 100, 40)
    together = network(seconds)
    assert together.shape == (3, 12)
    torch.testing.assert_close(network(seconds[1:2]), together[1:2], atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")  # Lightning's
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_a_training_is_measured_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning writes it: put back after the test
    monkeypatch.setattr("speechrnn.training.batches.PIECES", 50)
    monkeypatch.setattr("speechrnn.training.run.ROOMS", 2)
    make_open_world(tmp_path)
    words = ["bc_resnet.py", "--data", tmp_path / "corpus", "--to", tmp_path / "run"]
    words += ["--talk", tmp_path / "talk", "--sounds", tmp_path / "sounds"]
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--scale", "1", "--epochs", "2"])
    peer.main()
    out = capsys.readouterr().out
    assert out.startswith("BC-ResNet-1, 9,232 parameters\n")
    assert 0 <= float(out.split()[-1]) <= 1
    before = (tmp_path / "run" / "last.ckpt").stat().st_mtime_ns
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--scale", "1", "--epochs", "3"])
    peer.main()
    more = capsys.readouterr()
    assert "epoch 3 of 3" in more.err and "epoch 2 of 3" not in more.err
    assert (tmp_path / "run" / "last.ckpt").stat().st_mtime_ns > before
    peer.main()  # a finished run is measured again
    assert capsys.readouterr().out == more.out

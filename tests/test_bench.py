"""What `speechrnn bench` measures, and how it shows it."""

import re

import pytest
import torch

from speechrnn import bench, plots
from speechrnn.cli import main


@pytest.fixture
def hurried(monkeypatch) -> None:
    """Three calls of each way; a C++ compiler would take a minute."""
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "_compiled", lambda: bench.loop)


def _case(backward: bool, **seconds: float) -> bench.Case:
    names = {name.replace("_", " ").replace("RNN", "nn.RNN"): value for name, value in seconds.items()}
    return bench.Case("float32", 64, 1024, 50, backward, 0.001, names)


def test_floor_is_the_products_or_the_traffic_whichever_takes_longer():
    """Two clips of three steps and H = 5: layers of 40 and 5 inputs, each product once forward and twice more backward."""
    products = 2 * 2 * 3 * 5 * ((40 + 5) + 3 * (5 + 5))
    numbers = 2 * 3 * 5
    fast = 1e30
    assert bench.floor_seconds(5, 2, 3, False, 4, 10.0, fast) == pytest.approx(products / 10)
    assert bench.floor_seconds(5, 2, 3, True, 4, 10.0, fast) == pytest.approx(3 * products / 10)
    assert bench.floor_seconds(5, 2, 3, False, 2, fast, 10.0) == pytest.approx(4 * 4 * numbers * 2 / 10)
    assert bench.floor_seconds(5, 2, 3, True, 2, fast, 10.0) == pytest.approx(4 * 11 * numbers * 2 / 10)


def test_table_tells_microseconds_clips_share_of_the_floor_and_the_best_rival():
    """0.004 s for 50 steps of 4 layers are 20 µs; the best nn.RNN is the packed one."""
    cases = [_case(True, loop=0.02, RNN=0.01, RNN_packed=0.008, ours=0.004), _case(False, loop=0.02)]
    head, *rows = bench.stack_rows(cases, True)
    assert dict(zip(head, rows[0], strict=True)) == {
        "numbers": "float32",
        "H": "64",
        "B": "1,024",
        "T": "50",
        "loop, µs": "100.0",
        "nn.RNN, µs": "50.0",
        "nn.RNN packed, µs": "40.0",
        "ours, µs": "20.0",
        "clips/s": "256,000",
        "of the floor": "25%",
        "faster than the best nn.RNN": "2.00",
    }
    assert len(rows) == 1


def test_table_leaves_open_what_was_not_measured():
    _, row = bench.stack_rows([_case(True, loop=0.02)], True)
    assert row[-3:] == ["-", "-", "-"]


def test_ways_agree_on_the_states(monkeypatch):
    """What is timed side by side computes the same."""
    torch.manual_seed(0)
    on = bench.device()
    monkeypatch.setattr(bench, "_compiled", lambda: bench.loop)
    rnn = torch.nn.RNN(bench.INPUTS, 8, bench.LAYERS, batch_first=True).to(on)
    bench._call(lambda rnn, x: x, rnn, [], False)
    x = torch.randn(70, 5, bench.INPUTS, device=on)
    ways = bench._ways(on)
    expected = ways.pop("nn.RNN")(rnn, x)
    del ways["compiled loop"]
    assert list(ways) == ["loop", "nn.RNN packed", "nn.RNN by 64", "ours"]
    for way in ways.values():
        torch.testing.assert_close(way(rnn, x), expected)


def test_a_way_that_fails_is_told_and_the_others_are_measured(hurried, monkeypatch):
    def broken(*arguments: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(bench, "_compiled", lambda: broken)
    cases, missing = bench.stacks([8], [2], [3], ["float32"])
    assert missing[0] == "compiled loop, float32, H 8, B 2, T 3: no C++ compiler"
    assert "compiled loop" not in cases[0].seconds
    assert len(cases[0].seconds) == 5


def test_bench_prints_tables_and_draws(hurried, tmp_path, capsys):
    assert main(["bench", "--hidden", "8", "12", "--batch", "2", "4", "--steps", "3", "--plot", str(tmp_path / "bench.png")]) == 0
    printed, told = capsys.readouterr()
    assert len(re.findall(r"^float32, H (?:8|12), T 3, B [24], .*, ours [\d.]+ µs a step and layer$", told, re.MULTILINE)) == 8
    assert "torch 2.11" in printed.splitlines()[0]
    titles = ["Forward, 4 layers", "Forward and backward, 4 layers", "Inference with `base`", "Training `base`"]
    assert re.findall("^### (.*)", printed, re.MULTILINE) == titles
    rows = [line for line in printed.splitlines() if re.match(r"\| float32 \| (8|12) \| [24] \| 3 \|", line)]
    assert len(rows) == 8
    assert re.search(r"\| a stream in blocks of 100 ms \| \d+ \| \d+ \| [\d.]+ \|", printed)
    assert re.search(r"\| whole step, float32 \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d,]+ \| \d+% \| \d+% \|", printed)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_picture_shows_each_way_of_the_longest_and_its_floor():
    cases = [_case(True, loop=0.02, ours=0.004), bench.Case("float32", 64, 64, 50, True, 0.001, {"loop": 0.01, "ours": 0.002})]
    cases.append(bench.Case("float32", 64, 64, 10, True, 0.001, {"loop": 9.0, "ours": 9.0}))
    figure = plots.speed(cases, "a machine")
    (axis,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines == {
        "ours": [[1024, pytest.approx(20)], [64, pytest.approx(10)]],
        "loop": [[1024, pytest.approx(100)], [64, pytest.approx(50)]],
        "floor": [[1024, pytest.approx(5)], [64, pytest.approx(5)]],
    }
    assert axis.get_title() == "H = 64"

"""What `speechrnn bench` measures, and how it shows it."""

import subprocess

import pytest
import torch
from conftest import Run

from speechrnn import bench
from speechrnn.evaluation import plots
from speechrnn.model import best_device


@pytest.fixture
def hurried(monkeypatch) -> None:
    """Three calls of each way; a C++ compiler would take a minute."""
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "_compiled", lambda: bench.loop)


def _case(backward: bool, **seconds: float) -> bench.Case:
    names = {
        name.replace("_", " ").replace("RNN", "nn.RNN"): value for name, value in seconds.items()
    }
    return bench.Case("float32", 64, 1024, 50, backward, 0.001, names)


def test_floor_is_the_products_or_the_traffic_whichever_takes_longer():
    """Two clips of three steps, H = 5: layers of 40 and 5 inputs, twice more products backward."""
    products = 2 * 2 * 3 * 5 * ((40 + 5) + 3 * (5 + 5))
    numbers = 2 * 3 * 5
    fast = 1e30
    assert bench.floor_seconds(5, 2, 3, False, 4, 10.0, fast) == pytest.approx(products / 10)
    assert bench.floor_seconds(5, 2, 3, True, 4, 10.0, fast) == pytest.approx(3 * products / 10)
    assert bench.floor_seconds(5, 2, 3, False, 2, fast, 10.0) == pytest.approx(
        4 * 4 * numbers * 2 / 10
    )
    assert bench.floor_seconds(5, 2, 3, True, 2, fast, 10.0) == pytest.approx(
        4 * 11 * numbers * 2 / 10
    )


def test_table_tells_microseconds_clips_share_of_the_floor_and_the_best_rival():
    """0.004 s for 50 steps of 4 layers are 20 µs; the best nn.RNN is the packed one."""
    cases = [
        _case(True, loop=0.02, RNN=0.01, RNN_packed=0.008, ours=0.004),
        _case(False, loop=0.02),
    ]
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
    on = best_device()
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


def test_sizes_are_timed_forward_and_backward(hurried, capsys):
    cases, missing = bench.stacks([8, 12], [2, 4], [3], ["float32"])
    assert not missing
    sizes = [(case.hidden, case.batch, case.steps, case.backward) for case in cases]
    assert sizes == [(h, b, 3, both) for h in (8, 12) for b in (2, 4) for both in (False, True)]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("float32, H 8, T 3, B 2, forward: loop ")
    assert lines[-1].startswith("float32, H 12, T 3, B 4, forward and backward: loop ")
    assert all(line.endswith(" µs a step and layer") and ", ours " in line for line in lines)


def test_inference_is_timed_in_numpy_beside_torch(hurried):
    head, *rows = bench.inference_rows("tiny")
    assert head == [
        "one core",
        "torch, nn.RNN, times real time",
        "torch, times real time",
        "NumPy, times real time",
        "NumPy faster than torch",
    ]
    assert [row[0] for row in rows] == [
        "one clip",
        "64 clips",
        "a folder of 64 files (`classify FOLDER`)",
        "a stream in blocks of 100 ms, with its words",
    ]
    for row in rows:
        *speeds, faster = map(float, row[1:])
        assert min(speeds) > 1, "faster than real time"
        assert faster == pytest.approx(speeds[2] / speeds[1], rel=0.05, abs=0.02)


def test_start_is_timed_in_whole_processes(monkeypatch):
    monkeypatch.setattr(bench, "PROCESSES", 1)
    head, *rows = bench.start_rows()
    assert head == ["a process", "s", "times the first", "peak of memory, MB"]
    assert rows[0][0].startswith("`import numpy") and rows[0][2] == "1.00"
    assert rows[1][0] == "`speechrnn classify one.wav`"
    assert all(float(cell) > 0 for row in rows for cell in row[1:])


def test_memory_of_a_process_is_its_own_and_not_that_of_the_process_that_starts_it():
    """The tests have torch in memory: a bare Python has not."""
    _, bare = bench._start(["-c", "pass"])
    _, block = bench._start(["-c", "bytearray(64_000_000)"])
    assert bare < 40 and 60 < block - bare < 70


def test_process_that_fails_is_an_error():
    with pytest.raises(subprocess.CalledProcessError):
        bench._start(["-c", "raise SystemExit(3)"])


def test_training_step_has_the_shape_of_the_model(hurried):
    head, *rows = bench.training_rows("tiny")
    ways = ["loop, ms", "nn.RNN, ms", "ours, ms"]
    reached = ["of the speed of the network alone", "of the rate of a large product"]
    assert head == ["a step of 128 clips", *ways, "clips/s", *reached]
    names = ["network, float32", "whole step, float32", "network, bfloat16", "whole step, bfloat16"]
    assert [row[0] for row in rows] == names
    assert rows[0][5] == "100%"
    assert all(float(cell) > 0 for row in rows for cell in row[1:4])


def test_bench_prints_each_table_and_draws(hurried, run: Run, tmp_path, monkeypatch):
    for rows in ("inference_rows", "start_rows", "training_rows"):
        monkeypatch.setattr(bench, rows, lambda: [["what", "how fast"], ["all", "1"]])
    sizes = ("--hidden", 8, "--batch", 2, 4, "--steps", 3)
    status, out, error = run("bench", *sizes, "--plot", tmp_path / "bench.png")
    assert status == 0 and error.count(" µs a step and layer\n") == 4
    assert "torch 2." in out.splitlines()[0] and "NumPy 2." in out.splitlines()[0]
    titles = [line.removeprefix("### ") for line in out.splitlines() if line.startswith("### ")]
    assert titles == [
        "Forward, 4 layers",
        "Forward and backward, 4 layers",
        "Inference with `base`",
        "Start-up",
        "Training with the shape of `base`",
    ]
    assert out.count("| all | 1 |") == 3
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_picture_shows_each_way_of_the_longest_and_its_floor():
    cases = [
        _case(True, loop=0.02, ours=0.004),
        bench.Case("float32", 64, 64, 50, True, 0.001, {"loop": 0.01, "ours": 0.002}),
    ]
    cases.append(bench.Case("float32", 64, 64, 10, True, 0.001, {"loop": 9.0, "ours": 9.0}))
    figure = plots.speed(bench.panels(cases), "a machine")
    (axis,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines == {
        "ours": [[1024, pytest.approx(20)], [64, pytest.approx(10)]],
        "loop": [[1024, pytest.approx(100)], [64, pytest.approx(50)]],
        "floor": [[1024, pytest.approx(5)], [64, pytest.approx(5)]],
    }
    assert axis.get_title() == "H = 64"

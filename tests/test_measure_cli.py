"""The commands that measure: results on stdout, reports and thresholds in their folders."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from conftest import Run, assert_one_line

import speechrnn.corpus
import speechrnn.evaluation.results
from speechrnn.config import ModelConfig
from speechrnn.corpus import load_split
from speechrnn.evaluation.clips import evaluate_clips, measured_model
from speechrnn.evaluation.results import ModelResult
from speechrnn.evaluation.text import as_text, condition_rows
from speechrnn.folder import read_folder, save_folder
from speechrnn.model import Model

LABELS = ("_silence_", "_unknown_", "yes", "no")


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty speakers say each of two words."""
    folder = tmp_path_factory.mktemp("corpus")
    for word in ("no", "yes"):
        (folder / word).mkdir()
        for speaker in range(20):
            file = folder / word / f"{speaker}_nohash_0.wav"
            soundfile.write(file, noise(4_000) * (speaker + 1) / 20, 16_000)
    return folder


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller model of the same labels, of another protocol, trained as little."""
    folder = tmp_path_factory.mktemp("models") / "other"
    torch.manual_seed(1)
    model = Model(ModelConfig(labels=LABELS, hidden_size=8, layers=1))
    scores = {"validation": {"protocol": "v1-12"}}
    save_folder(folder, model.config, model.arrays(), training={}, scores=scores, card="")
    return folder


@pytest.fixture
def noisy_corpus(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with a background noise, of which two seconds are for testing."""
    monkeypatch.setattr("speechrnn.evaluation.conditions.SILENCES", 5)  # cuts of it, for time
    folder = tmp_path / "noisy"
    (folder / "_background_noise_").mkdir(parents=True)
    for word in ("no", "yes"):
        (folder / word).symlink_to(corpus / word)
    soundfile.write(folder / "_background_noise_" / "hiss.wav", 0.1 * noise(320_000), 16_000)
    return folder


@pytest.fixture(autouse=True)
def few_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    """One room of each kind, for time."""
    monkeypatch.setattr("speechrnn.evaluation.conditions.ROOMS", 1)


@pytest.fixture
def short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minutes instead of two hours."""
    monkeypatch.setattr("speechrnn.evaluation.results.HOURS", 120 / 3600)
    monkeypatch.setattr("speechrnn.evaluation.spotting.ALONE_HOURS", 30 / 3600)
    monkeypatch.setattr("speechrnn.evaluation.spotting.CUTS", 20)


# Evaluate


def test_evaluate_prints_the_answers_on_a_split(
    run: Run, model_folder: Path, recogniser, corpus: Path
):
    words = ("evaluate", model_folder, "--data", corpus, "--protocol", "own")
    status, out, error = run(*words)
    assert (status, error) == (0, "")
    model = measured_model(str(model_folder), read_folder(model_folder))
    clips = load_split(corpus, "own", "testing")
    expected = ModelResult(evaluate_clips(recogniser, clips, "own", "testing", model))
    assert out == as_text([expected]) + "\n"
    clips = {row["label"]: row["clips"] for row in expected.clips.per_label()}
    assert clips == {"_silence_": 0, "_unknown_": 0, "yes": 2, "no": 2}
    assert json.loads(run(*words, "--json")[1]) == expected.to_dict()


def test_evaluate_writes_a_report(run: Run, model_folder: Path, corpus: Path, tmp_path: Path):
    words = ("evaluate", model_folder, "--data", corpus, "--protocol", "own")
    folder = tmp_path / "new/report"
    status, out, error = run(*words, "--split", "training", "--json", "--report", folder)
    assert status == 0 and error.startswith("written: ") and error.count("\n") == 1
    found = json.loads(out)
    assert found["clips"] == 32 and found["split"] == "training"
    assert np.sum(found["confusion"]) == 32
    assert found["correct"] == np.trace(found["confusion"]) == round(32 * found["accuracy"])
    assert json.loads((folder / "report.json").read_text()) == found
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")
    names = {"confusion.png", "reliability.png", "report.html", "report.json", "report.md"}
    assert set(os.listdir(folder)) == names and all(name in error for name in names)


def test_evaluate_compares_models_on_the_same_clips(
    run: Run, model_folder: Path, other_folder: Path, corpus: Path, tmp_path: Path
):
    options = ("--data", corpus, "--protocol", "own", "--split", "training")
    words = ("evaluate", model_folder, other_folder, *options)
    status, out, error = run(*words)
    assert (status, error) == (0, "")
    for name in (model_folder, other_folder):
        assert f"{name}\naccuracy " in out
        assert out.count(f"| {name} | own | training | 32 |") == 1
    assert "| model | parameters | accuracy |" in out
    assert f"| {model_folder} | {other_folder} |" in out

    status, out, _ = run(*words, "--json", "--report", tmp_path / "both")
    found = json.loads(out)
    assert status == 0 and found.keys() == {"reports", "mcnemar"}
    first, second = found["reports"]
    alone = json.loads(run("evaluate", model_folder, *options, "--json")[1])
    assert first == alone
    (test,) = found["mcnemar"]
    right = [np.equal(report["truth"], report["answers"]) for report in (first, second)]
    assert test["models"] == [str(model_folder), str(other_folder)]
    only = sum(right[0] & ~right[1]), sum(right[1] & ~right[0])
    assert (test["only_first"], test["only_second"]) == only
    assert 0 < test["p"] <= 1
    names = {f"{name}-{number}.png" for name in ("confusion", "reliability") for number in (1, 2)}
    names |= {"report.html", "report.json", "report.md"}
    assert set(os.listdir(tmp_path / "both")) == names
    assert json.loads((tmp_path / "both/report.json").read_text()) == found


def test_evaluate_refuses_models_of_different_protocols(
    run: Run, model_folder: Path, other_folder: Path, corpus: Path
):
    status, out, error = run("evaluate", model_folder, other_folder, "--data", corpus)
    assert (status, out) == (1, "")
    named = f"{model_folder} with v2-12, {other_folder} with v1-12"
    assert_one_line(error, named, "type --protocol")


def test_evaluate_joins_all_clips_into_one_stream_and_changes_them(
    run: Run, model_folder: Path, noisy_corpus: Path, tmp_path: Path, short_streams: None
):
    words = ("evaluate", model_folder, "--data", noisy_corpus, "--protocol", "own")
    words = (*words, "--streamed", "--noise")
    folder = tmp_path / "report"
    status, out, error = run(*words, "--json", "--report", folder)
    assert status == 0 and "stream.flac" in error
    found = json.loads(out)
    assert (found["streamed"], found["stream"]["streamed"]) == (False, True)
    assert found["stream"]["clips"] == found["clips"] == 5
    events = found["events"]
    assert events["hours"] >= 120 / 3600 and events["tolerance"] == 0.75
    assert set(events["scores"]) == {"all", "yes", "no"}
    assert found["close_words"]["words"] < events["scores"]["all"]["words"], "each clip once"
    assert set(found["false_alarms_alone"]) == {"hiss"}
    named = {f"in a room, RT60 {seconds} s" for seconds in (0.2, 0.5, 1.0)}
    named |= {"as recorded", "hiss, 20 dB", "hiss, -5 dB", "30 dB quieter", "digital zero"}
    assert named | {"hiss alone, -40 dB"} <= found["conditions"].keys()
    assert json.loads((folder / "report.json").read_text()) == found
    files = {"detection_errors.png", "noise.png", "stream.flac", "stream.txt"}
    assert files <= set(os.listdir(folder))
    seconds = soundfile.info(folder / "stream.flac").duration
    assert seconds == pytest.approx(events["hours"] * 3600)
    assert "Words in a stream" in (folder / "report.md").read_text()

    lines = run(*words)[1].splitlines()
    assert lines[0].endswith(" of 5 clips, own testing")
    assert lines[1].endswith(" of 5 clips in one stream, own testing")
    assert lines[2].startswith("stream of 0.03 h: ")
    assert lines[3].startswith("0.3 s after another clip: ")
    rates = {row[0]: row[1] for row in condition_rows(found["conditions"])[1:]}
    assert all(f"| {name} | {rate} |" in lines for name, rate in rates.items())


def test_evaluate_reads_each_noise_once_and_runs_each_recording_once(
    run: Run, model_folder: Path, noisy_corpus: Path, short_streams: None, monkeypatch
):
    calls = []

    def count(module: ModuleType, name: str) -> None:
        kept = getattr(module, name)

        def counted(*given: object) -> object:
            calls.append(name)
            return kept(*given)

        monkeypatch.setattr(module, name, counted)

    count(speechrnn.corpus, "load_noises")
    count(speechrnn.evaluation.results, "posteriors")
    words = ("evaluate", model_folder, "--data", noisy_corpus, "--protocol", "own")
    assert run(*words, "--split", "training", "--streamed", "--noise")[0] == 0
    of_silence = ["load_noises"]  # the silence clips of the split are cut from them
    assert calls == [*of_silence, "load_noises", "posteriors"]


@pytest.mark.parametrize("asked", [set(), {"stream"}, {"conditions"}], ids=str)
def test_evaluate_gives_no_more_than_was_asked(
    run: Run, model_folder: Path, corpus: Path, asked: set[str], short_streams: None
):
    options = {"stream": "--streamed", "conditions": "--noise"}
    words = ("evaluate", model_folder, "--data", corpus, "--protocol", "own")
    words = (*words, *(options[name] for name in asked))
    found = json.loads(run(*words, "--json")[1])
    assert found.keys() & options.keys() == asked
    out = run(*words)[1]
    seen = "in one stream" in out, "| condition |" in out
    assert seen == ("stream" in asked, "conditions" in asked)


def test_evaluate_names_the_extra_that_brings_the_rooms(
    run: Run, model_folder: Path, noisy_corpus: Path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)  # as if it were not installed
    words = ("evaluate", model_folder, "--data", noisy_corpus, "--protocol", "own")
    assert run(*words)[0] == 0, "only hard conditions need it"
    status, out, error = run(*words, "--noise")
    assert (status, out) == (1, "")
    assert_one_line(error, "evaluate needs pyroomacoustics", "pip install 'speechrnn[train]'")


def test_evaluate_writes_nothing_into_the_model_folder(
    run: Run, model_folder: Path, noisy_corpus: Path, tmp_path: Path, short_streams: None
):
    before = {path.name: path.stat().st_mtime_ns for path in model_folder.iterdir()}
    words = ("evaluate", model_folder, "--data", noisy_corpus, "--protocol", "own", "--streamed")
    assert run(*words, "--report", tmp_path / "report")[0] == 0
    assert {path.name: path.stat().st_mtime_ns for path in model_folder.iterdir()} == before


def test_evaluate_prints_its_result_even_if_the_report_cannot_be_written(
    run: Run,
    model_folder: Path,
    corpus: Path,
    tmp_path: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
):
    (tmp_path / "report").touch()
    words = ("evaluate", model_folder, "--data", corpus, "--protocol", "own", "--report")
    status, out, error = run(*words, tmp_path / "report")
    assert status == 1 and out.startswith("accuracy ")
    assert_one_line(error, tmp_path / "report", "File exists")
    with full_disk(1_000):
        status, out, error = run(*words, tmp_path / "other")
    assert status == 1 and out.startswith("accuracy ") and os.listdir(tmp_path / "other") == []
    assert_one_line(error, tmp_path / "other", "File too large")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"--data": "/nowhere"}, ["/nowhere: no such folder", "speechrnn download v2"]),
        ({"--protocol": "v2-12"}, ["expected 4,890", "--allow-partial"]),
        (
            {"--protocol": "v2-12", "--split": "validation"},
            ["expected 4,445", "none at all of _silence_, _unknown_, up, down"],
        ),
    ],
    ids=lambda value: "",
)
def test_evaluate_refuses_what_it_cannot_measure(
    run: Run, model_folder: Path, corpus: Path, change: dict[str, str], parts: list[str]
):
    options = {"--data": str(corpus), "--protocol": "own"} | change
    words = (word for option in options.items() for word in option)
    status, out, error = run("evaluate", model_folder, *words)
    assert (status, out) == (1, "")
    assert_one_line(error, *parts)


def test_evaluate_refuses_a_model_without_the_labels(
    run: Run, model_folder: Path, corpus: Path, tmp_path: Path
):
    for word, other in (("yes", "yes"), ("no", "lights")):
        (tmp_path / other).symlink_to(corpus / word)
    words = ("evaluate", model_folder, "--data", tmp_path, "--protocol", "own")
    status, out, error = run(*words)
    assert (status, out) == (1, "")
    assert_one_line(error, "the model has no label lights", "it knows _silence_, _unknown_, yes")


# Thresholds


@pytest.fixture
def mine(model_folder: Path, tmp_path: Path) -> Path:
    """A model folder that may be written to."""
    return Path(shutil.copytree(model_folder, tmp_path / "mine"))


def test_thresholds_are_chosen_on_a_split_and_written_into_the_model_folder(
    run: Run, mine: Path, noisy_corpus: Path, short_streams: None
):
    words = ("thresholds", mine, "--data", noisy_corpus, "--protocol", "own")
    status, out, error = run(*words, "--split", "training", "--false-alarms-per-hour", 60)
    file = mine / "thresholds.json"
    assert (status, error) == (0, f"written: {file}\n")
    assert out.startswith("stream of 0.0") and out.count("\n") == 1
    found = json.loads(file.read_text())
    chosen = {name: found[name] for name in ("false_alarms_per_hour", "protocol", "split")}
    assert chosen == {"false_alarms_per_hour": 60, "protocol": "own", "split": "training"}
    assert read_folder(mine).thresholds == found["thresholds"]
    assert found["thresholds"].keys() == {"yes", "no"}
    # The rest of the folder is as it was, and the figures are those that `evaluate` gives.
    words = ("evaluate", *words[1:], "--split", "training", "--streamed", "--json")
    events = json.loads(run(*words)[1])["events"]
    assert events["thresholds"] == found["thresholds"]
    assert events["scores"]["all"]["false_alarms_per_hour"] <= 60
    missed = f"{events['scores']['all']['miss_rate']:.1%}"
    assert f"words missed ({missed})" in out


def test_thresholds_are_validated_by_default_and_never_chosen_on_the_testing_split(
    run: Run, mine: Path, noisy_corpus: Path, short_streams: None
):
    words = ("thresholds", mine, "--data", noisy_corpus, "--protocol", "own")
    words = (*words, "--false-alarms-per-hour", 60)
    status, out, error = run(*words, "--split", "testing")
    assert (status, out) == (1, "")
    assert_one_line(error, "thresholds are not chosen on the testing split", "--split validation")
    assert not (mine / "thresholds.json").exists()
    assert run(*words)[0] == 0
    assert json.loads((mine / "thresholds.json").read_text())["split"] == "validation"


def test_thresholds_that_cannot_be_promised_leave_the_folder_as_it_was(
    run: Run, mine: Path, noisy_corpus: Path, short_streams: None
):
    (mine / "thresholds.json").write_text(json.dumps({"thresholds": {"yes": 0.7, "no": 0.8}}))
    words = ("thresholds", mine, "--data", noisy_corpus, "--protocol", "own")
    status, out, error = run(*words, "--split", "training", "--false-alarms-per-hour", 0.1)
    assert (status, out) == (1, "")
    assert_one_line(error, "0.1 false alarms an hour are none in 0.0", "or a longer recording")
    assert read_folder(mine).thresholds == {"yes": 0.7, "no": 0.8}


def test_damaged_thresholds_name_the_command_that_measures_them_again(
    run: Run, mine: Path, noisy_corpus: Path
):
    (mine / "thresholds.json").write_text("{}")
    status, _, error = run("transcribe", "--model", mine, noisy_corpus / "x.wav")
    assert status == 1
    assert_one_line(error, f"{mine / 'thresholds.json'} is damaged", "speechrnn thresholds")


@pytest.mark.parametrize("words", [["evaluate", "base"], ["thresholds", "base", "--data", "."]])
def test_option_that_is_needed_and_missing_is_wrong_usage(run: Run, words: list[str]):
    status, out, error = run(*words)
    missing = "--data" if words[0] == "evaluate" else "--false-alarms-per-hour"
    assert (status, out) == (2, "") and f"required: {missing}" in error

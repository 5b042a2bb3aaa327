"""What the commands promise: results on stdout, one line on stderr for each thing that went wrong, and the status."""

import contextlib
import importlib
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from speechrnn import checkpoint, cli
from speechrnn.model import Model, ModelConfig

ROOT = Path(__file__).parents[1]
COMMANDS = ["download", "train", "evaluate", "classify", "transcribe", "listen", "info"]
LABELS = {"_silence_", "_unknown_", "yes", "no"}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; gives its status, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def command(*words: object) -> list[str]:
    """The same command as a process of its own."""
    return [sys.executable, "-m", "speechrnn", *map(str, words)]


def noise(samples: int = 16_000, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)


def said(error: str, *parts: object) -> None:
    """One line of ours, with these parts in it."""
    assert error.startswith("speechrnn: ") and error.endswith("\n") and error.count("\n") == 1, error
    for part in parts:
        assert str(part) in error


def rows(output: str) -> list[list[str]]:
    return [line.split("\t") for line in output.splitlines()]


# --- classify


def test_classify_prints_path_label_and_score_in_the_order_given(run: Run, model_folder: Path, recordings: Path) -> None:
    files = [recordings / "b.wav", recordings / "deeper/c.wav", recordings / "a.wav", recordings / "b.wav"]
    status, out, error = run("classify", "--model", model_folder, *files)
    assert (status, error) == (0, "")
    assert [row[0] for row in rows(out)] == list(map(str, files))
    for _, label, score in rows(out):
        assert label in LABELS and 0.25 <= float(score) <= 1  # the best of four


def test_classify_prints_the_k_best_labels_best_first(run: Run, model_folder: Path, recordings: Path) -> None:
    for wanted, given in ((2, 2), (4, 4), (99, 4)):
        ((_, *cells),) = rows(run("classify", "--model", model_folder, "--top-k", wanted, recordings / "a.wav")[1])
        scores = [float(score) for score in cells[1::2]]
        assert len(set(cells[::2])) == given and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("wanted", ["0", "-1", "two"])
def test_classify_refuses_fewer_than_one_label(run: Run, wanted: str) -> None:
    status, out, error = run("classify", "--top-k", wanted, "a.wav")
    assert (status, out) == (2, "") and f"argument --top-k: '{wanted}': expected a number from 1 on" in error


def test_classify_json_says_what_the_lines_say(run: Run, model_folder: Path, recordings: Path) -> None:
    words = ("classify", "--model", model_folder, "--top-k", 2, recordings)
    lines, answers = rows(run(*words)[1]), json.loads(run(*words, "--json")[1])
    for (path, label, score, *_), answer in zip(lines, answers, strict=True):
        assert (path, label) == (answer["path"], answer["label"])
        assert float(score) == pytest.approx(answer["score"], abs=0.005)
        assert [answer["top"][0][key] for key in ("label", "score")] == [answer["label"], answer["score"]]
        assert len(answer["top"]) == 2


def test_classify_walks_folders_sorted(run: Run, model_folder: Path, recordings: Path) -> None:
    _, out, _ = run("classify", "--model", model_folder, recordings / "b.wav", recordings)
    assert [row[0] for row in rows(out)] == [str(recordings / name) for name in ("b.wav", "a.wav", "b.wav", "deeper/c.wav")]


def test_classify_reads_standard_input(run: Run, model_folder: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = recordings / "a.wav"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(file.read_bytes())))
    status, out, error = run("classify", "--model", model_folder, "-", file)
    assert (status, error) == (0, "")
    (first, *answer), (_, *same) = rows(out)
    assert first == "-" and answer == same


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "No such file"),
    "folder without audio": (lambda path: path.mkdir(), "no audio files"),
    "empty": (lambda path: path.touch(), "empty"),
    "text": (lambda path: path.write_text("I am no wav\n" * 99), "not readable as audio"),
    "truncated": (lambda path: (soundfile.write(path, noise(), 16_000), os.truncate(path, 9_000)), "cut off"),
    "zero samples": (lambda path: soundfile.write(path, noise(0), 16_000), "too short"),
    "NaN": (lambda path: soundfile.write(path, noise() * np.nan, 16_000, "FLOAT"), "NaN or infinity"),
    "infinity": (lambda path: soundfile.write(path, noise() * np.inf, 16_000, "FLOAT"), "NaN or infinity"),
}


@pytest.mark.parametrize(("make", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file_among_good_ones_is_one_line_and_the_others_go_on(
    run: Run, model_folder: Path, recordings: Path, tmp_path: Path, make: Callable[[Path], Any], reason: str
) -> None:
    bad = tmp_path / "bad.wav"
    make(bad)
    files = [recordings / "b.wav", bad, recordings / "a.wav"]
    status, out, error = run("classify", "--model", model_folder, *files)
    assert status == 1
    assert [row[0] for row in rows(out)] == [str(files[0]), str(files[2])]
    said(error, bad, reason)
    status, out, error = run("classify", "--model", model_folder, "--json", bad)
    assert (status, json.loads(out)) == (1, [])
    if bad.is_dir():
        return
    status, out, error = run("transcribe", "--model", model_folder, bad)
    assert (status, out) == (1, "")
    said(error, bad, reason)


ODD_FILES: dict[str, tuple[np.ndarray, int, str | None, str | None, list[str]]] = {
    "1 sample": (noise(1), 16_000, "WAV", "PCM_16", ["padded from 1 to 16000 samples"]),
    "shorter than a frame": (noise(100), 16_000, "WAV", "PCM_16", ["padded from 100 to 16000 samples"]),
    "silence": (0 * noise(), 16_000, "WAV", "PCM_16", []),
    "8 kHz": (noise(8_000), 8_000, "WAV", "PCM_16", ["resampled from 8000 Hz"]),
    "44.1 kHz": (noise(44_100), 44_100, "WAV", "PCM_16", ["resampled from 44100 Hz"]),
    "192 kHz": (noise(192_000), 192_000, "WAV", "PCM_16", ["resampled from 192000 Hz"]),
    "stereo": (noise(16_000, 2), 16_000, "WAV", "PCM_16", ["mixed down from 2 channels"]),
    "8 channels, 48 kHz, short": (
        noise(24_000, 8),
        48_000,
        "WAV",
        "PCM_16",
        ["mixed down from 8 channels", "resampled from 48000 Hz", "padded from 8000 to 16000 samples"],
    ),
    "8 bit": (noise(), 16_000, "WAV", "PCM_U8", []),
    "24 bit": (noise(), 16_000, "WAV", "PCM_24", []),
    "32 bit": (noise(), 16_000, "WAV", "PCM_32", []),
    "float": (noise(), 16_000, "WAV", "FLOAT", []),
    "mu-law": (noise(), 16_000, "WAV", "ULAW", []),
    "FLAC": (noise(), 16_000, "FLAC", "PCM_16", []),
    "OGG": (noise(), 16_000, "OGG", "VORBIS", []),
    "MP3": (noise(), 16_000, "MP3", "MPEG_LAYER_III", []),
    "3 s": (noise(48_000), 16_000, "WAV", "PCM_16", []),
}


@pytest.mark.parametrize(("samples", "rate", "form", "subtype", "notes"), ODD_FILES.values(), ids=ODD_FILES)
def test_odd_file_gets_an_answer_and_verbose_says_what_was_done_to_it(
    run: Run, model_folder: Path, tmp_path: Path, samples: np.ndarray, rate: int, form: str, subtype: str, notes: list[str]
) -> None:
    file = tmp_path / "odd"  # no suffix: the format is what is in the file
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    status, out, error = run("classify", "--model", model_folder, file)
    assert (status, error) == (0, "")
    ((path, label, score),) = rows(out)
    assert path == str(file) and label in LABELS and 0.25 <= float(score) <= 1
    status, again, error = run("classify", "--model", model_folder, "-v", file)
    assert (status, again) == (0, out)
    assert error.splitlines() == [f"{file}: {note}" for note in notes]


def test_many_files_come_out_in_order_and_each_with_its_own_answer(
    run: Run, model_folder: Path, recordings: Path, tmp_path: Path
) -> None:
    """More files than are in memory at once, of two lengths, a bad one between them."""
    soundfile.write(tmp_path / "0.wav", noise(800), 16_000)
    soundfile.write(tmp_path / "1.wav", noise(16_700)[::-1], 16_000)
    for index in range(2, 600):
        os.link(tmp_path / f"{index % 2}.wav", tmp_path / f"{index}.wav")
    (tmp_path / "300.wav").unlink()
    (tmp_path / "300.wav").touch()
    files = [tmp_path / f"{index}.wav" for index in reversed(range(600))]
    status, out, error = run("classify", "--model", model_folder, *files)
    assert status == 1
    said(error, tmp_path / "300.wav")
    files.remove(tmp_path / "300.wav")
    assert [row[0] for row in rows(out)] == list(map(str, files))
    answers = {parity: {tuple(row[1:]) for row in rows(out) if int(Path(row[0]).stem) % 2 == parity} for parity in (0, 1)}
    assert len(answers[0]) == len(answers[1]) == 1 and answers[0] != answers[1]
    _, out, _ = run("classify", "--model", model_folder, tmp_path)
    assert [row[0] for row in rows(out)] == sorted(map(str, files))


def test_file_name_that_is_no_utf8_comes_out_as_it_is(model_folder: Path, recordings: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.wav"
    Path(os.fsdecode(name)).symlink_to(recordings / "a.wav")
    done = subprocess.run([*command("classify", "--model", model_folder), name], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(name + b"\t")


def test_unknown_model_is_one_line(run: Run, recordings: Path) -> None:
    for words in (("classify", "--model", "nowhere"), ("transcribe", "--model", "nowhere")):
        status, out, error = run(*words, recordings / "a.wav")
        assert (status, out) == (1, "")
        said(error, "no model 'nowhere'", "runs/NAME/model")


# --- transcribe


def test_transcribe_prints_start_end_label_and_score(run: Run, model_folder: Path, tmp_path: Path) -> None:
    """An untrained model is never sure, so the threshold is low; what it hears does not matter."""
    file = tmp_path / "long.wav"
    soundfile.write(file, np.concatenate([gain * noise(24_000) for gain in (1, 0.001, 0.5, 0)]), 22_050)
    words = ("transcribe", "--model", model_folder, "--threshold", 0.1, file)
    status, out, error = run(*words)
    assert (status, error) == (0, "")
    assert rows(out)
    for start, end, label, score in rows(out):
        assert 0 <= float(start) <= float(end) <= 96_000 / 22_050 + 0.01 and label in {"yes", "no"} and float(score) >= 0.1
    status, answer, error = run(*words, "--format", "json", "-v")
    assert status == 0 and error == f"{file}: resampled from 22050 Hz\n"
    as_lines = [[f"{w['start']:.2f}", f"{w['end']:.2f}", w["label"], f"{w['score']:.2f}"] for w in json.loads(answer)]
    assert as_lines == rows(out)


def test_transcribe_of_silence_prints_nothing(run: Run, model_folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", 0 * noise(), 16_000)
    words = ("transcribe", "--model", model_folder, "--threshold", 0.99, tmp_path / "silence.wav")
    assert run(*words) == (0, "", "")
    assert run(*words, "--format", "json") == (0, "[]\n", "")
    assert run(*words, "--format", "vtt") == (0, "WEBVTT\n\n", "")


@pytest.fixture
def heard(model_folder: Path, tmp_path: Path) -> list[object]:
    """A command that hears a word or more in noise, but for its recording."""
    soundfile.write(tmp_path / "a.wav", np.concatenate([gain * noise(24_000) for gain in (1, 0.001, 0.5, 0)]), 22_050)
    soundfile.write(tmp_path / "b.wav", noise(40_000), 16_000)
    return ["transcribe", "--model", model_folder, "--threshold", 0.1]


def test_transcribe_says_of_which_of_several_files_a_word_is(run: Run, heard: list[object], tmp_path: Path) -> None:
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    alone = [[str(path), *row] for path in (b, a) for row in rows(run(*heard, path)[1])]
    assert len({path for path, *_ in alone}) == 2
    status, out, error = run(*heard, b, a)
    assert (status, rows(out), error) == (0, alone, "")
    assert [json.loads(line) for line in run(*heard, "--format", "jsonl", b, a)[1].splitlines()] == json.loads(
        run(*heard, "--format", "json", b, a)[1]
    )
    for line, (path, start, _, label, _) in zip(run(*heard, "--format", "jsonl", b, a)[1].splitlines(), alone, strict=True):
        word = json.loads(line)
        assert (word["path"], f"{word['start']:.2f}", word["label"]) == (path, start, label)
    assert json.loads(run(*heard, "--format", "jsonl", b)[1].splitlines()[0])["path"] == str(b)


@pytest.mark.parametrize("form", ["tsv", "json", "jsonl"])
def test_transcribe_goes_on_after_a_bad_file_and_keeps_what_came_before_its_fault(
    run: Run, heard: list[object], tmp_path: Path, form: str
) -> None:
    words = [*heard, "--format", form]
    wave = np.concatenate((noise(64_000), noise(1) * np.nan))
    soundfile.write(tmp_path / "a.wav", wave, 16_000, "FLOAT")
    status, out, error = run(*words, tmp_path / "a.wav", tmp_path / "b.wav")
    assert status == 1 and str(tmp_path / "a.wav") in out and str(tmp_path / "b.wav") in out
    said(error, tmp_path / "a.wav", "NaN or infinity at 4.000 s")
    if form == "json":
        assert {word["path"] for word in json.loads(out)} == {str(tmp_path / "a.wav"), str(tmp_path / "b.wav")}


@pytest.mark.parametrize(
    ("form", "seen"),
    [("srt", " --> "), ("vtt", " --> "), ("audacity", "\t"), ("textgrid", "xmax = 4.354\n"), ("jsonl", '"score": ')],
)
def test_transcribe_prints_a_format_as_it_is_asked(run: Run, heard: list[object], tmp_path: Path, form: str, seen: str) -> None:
    count = len(rows(run(*heard, tmp_path / "a.wav")[1]))
    status, out, error = run(*heard, "--format", form, tmp_path / "a.wav")
    assert (status, error) == (0, "") and seen in out
    words = sum(any(mark in line for mark in ("yes", "no")) for line in out.splitlines())
    assert words == count


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        *(
            (["--format", form, "a.wav", "b.wav"], [f"--format {form}", "2 files"])
            for form in ("srt", "vtt", "audacity", "textgrid")
        ),
        (["--plot", "out.png", "a.wav", "b.wav"], ["--plot draws one recording", "2 files"]),
        (["--truth", "a.txt", "a.wav"], ["--plot OUT.png"]),
        (["--raw", "16000", "a.wav"], ["type - as FILE"]),
    ],
    ids=" ".join,
)
def test_transcribe_refuses_in_a_line_what_does_not_go_together(run: Run, words: list[str], parts: list[str]) -> None:
    status, out, error = run("transcribe", *words)
    assert (status, out) == (2, "")
    said(error, *parts)


def test_transcribe_hears_by_the_thresholds_of_the_model_folder(
    run: Run, heard: list[object], model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "measured")
    found = run(*heard, tmp_path / "a.wav")[1]
    for thresholds, labels in (((0.1, 0.1), {"yes", "no"}), ((0.1, 0.99), {"yes"}), ((0.99, 0.1), {"no"}), ((0.99, 0.99), set())):
        (folder / "thresholds.json").write_text(json.dumps({"thresholds": dict(zip(("yes", "no"), thresholds, strict=True))}))
        status, out, error = run("transcribe", "--model", folder, tmp_path / "a.wav")
        assert (status, error) == (0, "") and {row[2] for row in rows(out)} == labels
        assert labels != {"yes", "no"} or out == found
    assert run("transcribe", "--model", folder, "--threshold", 0.1, tmp_path / "a.wav")[1] == found, "what is typed holds"


def test_transcribe_hears_no_word_in_the_time_after_one(run: Run, heard: list[object], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "c.wav", np.concatenate([(noise(), 0 * noise(48_000))[part % 2] for part in range(6)]), 16_000)
    assert len(rows(run(*heard, tmp_path / "c.wav")[1])) > 1
    assert len(rows(run(*heard, "--refractory", 100, tmp_path / "c.wav")[1])) == 1
    stream, text = importlib.import_module("speechrnn.stream"), " ".join(run("transcribe", "--help")[1].split())
    assert f"(default: {stream.REFRACTORY_SECONDS})" in text and f"the model's, or {stream.THRESHOLD})" in text
    status, out, error = run(*heard, "--refractory", -1, tmp_path / "c.wav")
    assert (status, out) == (1, "")
    said(error, "refractory time is -1.0: expected 0 s or more")


def as_wav(recording: Path, size: int | None = None) -> bytes:
    """A recording as a wav of 16 bits, with another data size in its header."""
    samples, rate = soundfile.read(recording, dtype="int16")
    body = samples.tobytes()
    size = len(body) if size is None else size
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return b"RIFF" + b"\xff" * 4 + b"WAVEfmt " + form + b"data" + struct.pack("<I", size) + body


RECORDING = ROOT / "data/synthetic_commands/recording.ogg"


@pytest.mark.parametrize("raw", [False, True])
def test_transcribe_reads_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raw: bool) -> None:
    whole = as_wav(RECORDING)
    (tmp_path / "same.wav").write_bytes(whole)
    expected = run("transcribe", "--model", "tiny", tmp_path / "same.wav")
    assert expected[0] == 0 and len(rows(expected[1])) > 5
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(whole[44:] if raw else whole)))
    assert run("transcribe", "--model", "tiny", "-", *(["--raw", 16_000] if raw else [])) == expected


def test_transcribe_prints_a_word_while_the_pipe_is_open() -> None:
    whole = as_wav(RECORDING, 0xFFFFFFFF)
    process = subprocess.Popen(
        command("transcribe", "--model", "tiny", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    late = threading.Timer(60, process.kill)
    late.start()
    try:
        process.stdin.write(whole[:64_001])  # two seconds
        process.stdin.flush()
        assert process.stdout.readline().split(b"\t")[2] == b"yes"
        out, error = process.communicate(whole[64_001:])
    finally:
        late.cancel()
    assert process.returncode == 0 and error == b"" and len(out.splitlines()) > 5


def test_transcribe_says_what_is_wrong_with_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"no sound at all")))
    status, out, error = run("transcribe", "--model", "tiny", "-")
    assert (status, out) == (1, "")
    said(error, "no wav: begins with", "ffmpeg", "--raw RATE")


def test_transcribe_draws_what_it_prints(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plots, drawn = importlib.import_module("speechrnn.plots"), []
    monkeypatch.setattr(plots, "transcript", lambda *values: drawn.append(values) or plots.Figure())
    (tmp_path / "truth.txt").write_text("0.5\t0.9\tyes\n")
    words = ("transcribe", "--model", "tiny", RECORDING, "--threshold", 0.7)
    status, out, error = run(*words, "--plot", tmp_path / "new/out.png", "--truth", tmp_path / "truth.txt")
    assert (status, error) == (0, "") and out == run(*words)[1]
    assert (tmp_path / "new/out.png").read_bytes().startswith(b"\x89PNG") and len(os.listdir(tmp_path / "new")) == 1
    ((model, wave, probabilities, thresholds, heard, truth, title),) = drawn
    assert [[f"{start:.2f}", f"{end:.2f}", label] for start, end, label in heard] == [row[:3] for row in rows(out)]
    np.testing.assert_array_equal(wave, importlib.import_module("speechrnn.audio").read_wave(RECORDING))
    assert len(probabilities) * model.config.seconds_per_step == pytest.approx(15.6, abs=0.1)
    assert thresholds == dict.fromkeys(model.config.words, 0.7)
    assert (truth, title) == ([(0.5, 0.9, "yes")], "recording.ogg")


def test_transcribe_refuses_to_draw_what_is_too_long(
    run: Run, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("transcribe", "--model", model_folder, "--plot", tmp_path / "out.png")
    status, out, error = run(*words, sparse_wav(tmp_path / "long.wav", 601))
    assert (status, out) == (1, "")
    said(error, tmp_path / "long.wav", "longer than 10 minutes", "--plot")
    monkeypatch.setattr(cli, "PLOT_SECONDS", 60)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=(tmp_path / "long.wav").open("rb")))
    status, out, error = run(*words, "-")
    sys.stdin.buffer.close()
    assert (status, out) == (1, "") and not (tmp_path / "out.png").exists()
    said(error, "longer than 1 minutes")


@pytest.mark.parametrize(("name", "text"), [("truth.txt", "yes at 0.5 s\n"), ("missing.txt", None)])
def test_transcribe_names_a_truth_that_is_none(run: Run, tmp_path: Path, name: str, text: str | None) -> None:
    if text:
        (tmp_path / name).write_text(text)
    status, out, error = run("transcribe", RECORDING, "--plot", tmp_path / "out.png", "--truth", tmp_path / name)
    assert (status, out) == (1, "")
    said(error, tmp_path / name, "line 1" if text else "No such file")


@pytest.mark.parametrize("threshold", ["0", "1", "2", "-0.5", "nan"])
def test_transcribe_refuses_a_threshold_that_is_no_probability(
    run: Run, model_folder: Path, recordings: Path, threshold: str
) -> None:
    status, out, error = run("transcribe", "--model", model_folder, f"--threshold={threshold}", recordings / "a.wav")
    assert (status, out) == (1, "")
    said(error, "threshold of yes is", "expected a probability between 0 and 1")


def peak_megabytes(*words: object) -> float:
    """Largest resident memory of a command of its own.

    Not `ru_maxrss`: that counts what the process that started it had, up to `exec`.
    """
    code = (
        "import sys; from speechrnn.cli import main; status = main(sys.argv[1:]);"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr);"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    return int(done.stderr) / 1024


def sparse_wav(path: Path, seconds: int) -> Path:
    """Digital silence that takes no room on the disk."""
    size = seconds * 32_000
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
        + b"data" + struct.pack("<I", size)
    )  # fmt: skip
    os.truncate(path, 44 + size)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("minutes", [10, pytest.param(180, marks=pytest.mark.slow)])
def test_transcribing_takes_constant_memory(model_folder: Path, tmp_path: Path, minutes: int) -> None:
    peaks = {}
    for length in (1, minutes):
        started = time.monotonic()
        wav = sparse_wav(tmp_path / f"{length}.wav", 60 * length)
        peaks[length] = peak_megabytes("transcribe", "--model", model_folder, wav)
        print(f"{length} minutes: {peaks[length]:.0f} MB, {time.monotonic() - started:.1f} s")
    assert peaks[minutes] < peaks[1] + 50


# --- listen


@pytest.fixture
def microphone(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for sounddevice: plays the embedded recording, then Ctrl-C is pressed."""
    wave = soundfile.read(RECORDING, dtype="float32", always_2d=True)[0]
    heard = iter(np.array_split(wave, range(1_600, len(wave), 1_600)))

    def read(count: int) -> tuple[np.ndarray, bool]:
        assert count == 1_600
        for block in heard:
            return block, False
        raise KeyboardInterrupt

    module = SimpleNamespace(
        PortAudioError=type("PortAudioError", (Exception,), {}),
        query_devices=lambda kind: {"default_samplerate": 16_000.0},
        InputStream=lambda **asked: contextlib.nullcontext(SimpleNamespace(read=read)),
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


@pytest.mark.parametrize("form", ["tsv", "json"])
def test_listen_prints_the_words_that_transcribe_prints_until_stopped(run: Run, microphone: Any, form: str) -> None:
    expected = run("transcribe", "--model", "tiny", "--format", form, RECORDING)[1].replace(str(RECORDING), "microphone")
    assert "yes" in expected
    assert run("listen", "--model", "tiny", "--format", form) == (130, expected, "speechrnn: stopped\n")


def test_listen_shows_level_and_best_word_on_a_terminal(run: Run, microphone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run("transcribe", "--model", "tiny", RECORDING)[1]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    status, out, error = run("listen", "--model", "tiny")
    assert (status, out) == (130, expected)
    *meter, last = error.split("\r\033[K")
    assert last == "speechrnn: stopped\n" and "\n" not in "".join(meter)
    shown = [re.fullmatch(r" ?(-\d+) dB \|(#*) *\| (?:(\w+) (\d\.\d\d))?", line) for line in meter if line]
    assert all(shown) and len(shown) == 150
    levels = [int(match[1]) for match in shown]
    assert max(levels) > -25 and min(levels) < max(levels) - 15
    assert {match[3] for match in shown if float(match[4] or 0) > 0.8} >= {row[2] for row in rows(expected)}


def test_listen_without_sounddevice_says_what_to_type(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    status, out, error = run("listen", "--model", "tiny")
    assert (status, out) == (1, "")
    said(error, "sounddevice", "not installed", "pip install 'speechrnn[listen]'")


def test_listen_without_portaudio_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    status, out, error = run("listen", "--model", "tiny")
    assert (status, out) == (1, "")
    said(error, "PortAudio library not found", "apt install libportaudio2")


@pytest.mark.parametrize("place", ["query_devices", "InputStream"])
def test_listen_without_a_microphone_is_one_line(run: Run, microphone: Any, place: str) -> None:
    def fail(**asked: object) -> None:
        raise microphone.PortAudioError("Error querying device -1")

    setattr(microphone, place, fail)
    status, out, error = run("listen", "--model", "tiny")
    assert (status, out) == (1, "")
    said(error, "microphone: Error querying device -1", "connect one")


# --- info


def test_info_says_what_the_model_is(run: Run, model_folder: Path) -> None:
    status, out, error = run("info", model_folder)
    assert (status, error) == (0, "")
    said = dict(rows(out))
    assert said["labels"] == "_silence_ _unknown_ yes no" and said["layers"] == "2 vanilla recurrent, of 16 tanh units"
    assert said["training"] == "corpus none, seed 3, epochs 0, date 2025-01-01, hardware none"
    assert said["testing"] == "25.00% of 1,234 clips, mean over classes 20.00%, own"
    assert {"model", "parameters", "features", "speechrnn"} <= said.keys()
    whole = json.loads(run("info", "--json", model_folder)[1])
    assert f"{whole['parameters']:,}" == said["parameters"] and whole["training"]["seed"] == 3
    assert whole["model"]["hidden_size"] == 16 and whole["scores"]["testing"]["clips"] == 1234


def test_info_describes_a_model_saved_without_facts(run: Run, model: Any, tmp_path: Path) -> None:
    importlib.import_module("speechrnn.checkpoint").save(model, tmp_path / "bare", training={}, scores={}, card="")
    status, out, error = run("info", tmp_path / "bare")
    assert (status, error) == (0, "") and dict(rows(out))["training"] == ""


@pytest.fixture
def shipped(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with three models, of which `base` is neither the largest nor the first by name."""
    checkpoint, classes = importlib.import_module("speechrnn.checkpoint"), importlib.import_module("speechrnn.model")
    for name, size, accuracy in (("tiny", 8, 0.75), ("base", 24, 0.875), ("a_large_one", 40, 0.96875)):
        model = classes.Model(classes.ModelConfig(labels=("_unknown_", "yes", "no"), hidden_size=size, layers=1))
        score = {"accuracy": accuracy, "mean_accuracy": accuracy, "clips": 4_445, "protocol": "v2-12", "streamed": False}
        scores = {"validation": score, "validation_stream": score | {"accuracy": 0.5, "streamed": True}}
        checkpoint.save(model, tmp_path / "shipped" / name, training={"seed": 1}, scores=scores, card="")
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "shipped"


def test_info_without_a_model_lists_the_shipped_ones_the_largest_first(run: Run, shipped: Path) -> None:
    status, out, error = run("info")
    assert (status, error) == (0, "")
    assert [(row[0], *row[2:]) for row in rows(out)] == [
        ("a_large_one", "3 labels", "96.88% of v2-12 validation"),
        ("base", "3 labels", "87.50% of v2-12 validation"),
        ("tiny", "3 labels", "75.00% of v2-12 validation"),
    ]
    sizes = {row[0]: row[1] for row in rows(out)}
    for name in sizes:
        assert sizes[name] == f"{json.loads(run('info', '--json', name)[1])['parameters']:,} parameters"
    whole = json.loads(run("info", "--json")[1])
    assert whole.keys() == sizes.keys()
    assert {name: f"{config['parameters']:,} parameters" for name, config in whole.items()} == sizes
    assert whole["base"]["scores"]["validation"]["accuracy"] == 0.875


def test_info_describes_a_shipped_model_by_name(run: Run, shipped: Path) -> None:
    status, out, error = run("info", "base")
    assert (status, error) == (0, "")
    said = dict(rows(out))
    assert (said["model"], said["labels"], said["training"]) == (str(shipped / "base"), "_unknown_ yes no", "seed 1")
    assert said["validation"] == "87.50% of 4,445 clips, mean over classes 87.50%, v2-12"
    assert said["validation_stream"] == "50.00% of 4,445 clips in one stream, mean over classes 87.50%, v2-12"


def test_info_of_a_package_without_models_is_empty(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("speechrnn.checkpoint"), "SHIPPED", tmp_path / "nothing")
    assert run("info") == (0, "", "")
    assert run("info", "--json") == (0, "{}\n", "")


# --- evaluate


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty speakers say each of two words."""
    folder = tmp_path_factory.mktemp("corpus")
    for word in ("no", "yes"):
        (folder / word).mkdir()
        for speaker in range(20):
            soundfile.write(folder / word / f"{speaker}_nohash_0.wav", noise(4_000) * (speaker + 1) / 20, 16_000)
    return folder


def test_evaluate_prints_accuracy_and_a_table(run: Run, model_folder: Path, corpus: Path, tmp_path: Path) -> None:
    words = ("evaluate", model_folder, "--data", corpus, "--protocol", "own")
    status, out, error = run(*words)
    assert (status, error) == (0, "")
    first, paper, in_latex = out.removesuffix("\n").split("\n\n")[1:]
    summary, head, _, *table = out.split("\n\n")[0], *first.splitlines()
    assert summary.startswith("accuracy ") and summary.endswith("of 4 clips, own testing")
    assert paper.startswith("| model | protocol |") and f"| {model_folder} | own | testing | 4 |" in paper
    assert "\n\\midrule\n" in in_latex and in_latex.endswith(r" \\")
    assert head.startswith("| label | clips |")
    counts = {cells[1].strip(): cells[2].strip() for cells in (row.split("|") for row in table)}
    assert counts == {"_silence_": "0", "_unknown_": "0", "yes": "2", "no": "2"}

    status, out, error = run(*words, "--split", "training", "--json", "--report", tmp_path / "new/report")
    assert status == 0 and error.startswith("written: ")
    report = json.loads(out)
    assert report["clips"] == 32 and report["split"] == "training" and np.sum(report["confusion"]) == 32
    assert report["correct"] == np.trace(report["confusion"]) == round(32 * report["accuracy"])
    assert json.loads((tmp_path / "new/report/report.json").read_text()) == report
    assert (tmp_path / "new/report/confusion.png").read_bytes().startswith(b"\x89PNG")
    names = {"confusion.png", "reliability.png", "report.html", "report.json", "report.md"}
    assert set(os.listdir(tmp_path / "new/report")) == names and all(name in error for name in names)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller model of the same labels, trained as little."""
    folder = tmp_path_factory.mktemp("models") / "other"
    torch.manual_seed(1)
    model = Model(ModelConfig(labels=("_silence_", "_unknown_", "yes", "no"), hidden_size=8, layers=1)).eval()
    scores = {"validation": {"protocol": "v1-12"}}
    checkpoint.save(model, folder, training={}, scores=scores, card="")
    return folder


def test_evaluate_compares_models_on_the_same_clips(
    run: Run, model_folder: Path, other_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    words = ("evaluate", model_folder, other_folder, "--data", corpus, "--protocol", "own", "--split", "training")
    status, out, error = run(*words)
    assert (status, error) == (0, "")
    for name in (model_folder, other_folder):
        assert f"{name}\naccuracy " in out and out.count(f"| {name} | own | training | 32 |") == 1
    assert "| model | parameters | accuracy |" in out and f"| {model_folder} | {other_folder} |" in out

    status, out, _ = run(*words, "--json", "--report", tmp_path / "both")
    found = json.loads(out)
    assert status == 0 and found.keys() == {"reports", "mcnemar"}
    first, second = found["reports"]
    assert first == json.loads(run("evaluate", model_folder, *words[3:], "--json")[1]), "as alone"
    (test,) = found["mcnemar"]
    right = [np.equal(report["truth"], report["answers"]) for report in (first, second)]
    assert test["models"] == [str(model_folder), str(other_folder)]
    assert (test["only_first"], test["only_second"]) == (sum(right[0] & ~right[1]), sum(right[1] & ~right[0]))
    assert 0 < test["p"] <= 1
    pictures = {f"{name}-{number}.png" for name in ("confusion", "reliability") for number in (1, 2)}
    assert set(os.listdir(tmp_path / "both")) == {"report.html", "report.json", "report.md", *pictures}
    assert json.loads((tmp_path / "both/report.json").read_text()) == found


def test_evaluate_refuses_models_of_different_protocols(run: Run, model_folder: Path, other_folder: Path, corpus: Path) -> None:
    status, out, error = run("evaluate", model_folder, other_folder, "--data", corpus)
    assert (status, out) == (1, "")
    said(error, f"{model_folder} with v2-12, {other_folder} with v1-12", "type --protocol")


@pytest.fixture
def noisy_corpus(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with a background noise, of which two seconds are for testing; few cuts of it alone, for time."""
    monkeypatch.setattr(importlib.import_module("speechrnn.evaluation"), "SILENCES", 5)
    for word in ("no", "yes"):
        (tmp_path / "noisy" / word).parent.mkdir(exist_ok=True)
        (tmp_path / "noisy" / word).symlink_to(corpus / word)
    (tmp_path / "noisy" / "_background_noise_").mkdir()
    soundfile.write(tmp_path / "noisy" / "_background_noise_" / "hiss.wav", 0.1 * noise(320_000), 16_000)
    return tmp_path / "noisy"


@pytest.fixture
def short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minutes instead of two hours."""
    monkeypatch.setattr("speechrnn.events.HOURS", 120 / 3600)
    monkeypatch.setattr("speechrnn.events.ALONE_HOURS", 30 / 3600)
    monkeypatch.setattr("speechrnn.events.CUTS", 20)


def test_evaluate_hears_all_clips_in_one_stream_and_under_conditions(
    run: Run, model_folder: Path, noisy_corpus: Path, tmp_path: Path, short_streams: None
) -> None:
    words = ("evaluate", model_folder, "--data", noisy_corpus, "--protocol", "own", "--streamed", "--noise")
    status, out, _ = run(*words)
    assert status == 0
    alone, streamed, spotted, *rest = out.splitlines()
    assert alone.endswith(" of 5 clips, own testing") and streamed.endswith(" of 5 clips in one stream, own testing")
    assert spotted.startswith("stream of 0.03 h: ") and "words missed" in spotted and "false alarms an hour" in spotted

    def table(head: str) -> list[list[str]]:
        start = rest.index(next(line for line in rest if line.startswith(f"| {head} |")))
        return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rest[start + 2 : rest.index("", start)]]

    assert [row[0] for row in table("word")] == ["all", "yes", "no"]
    assert [row[0] for row in table("an hour of")] == ["hiss"]
    assert [row[0] for row in table("label")] == ["_silence_", "_unknown_", "yes", "no"]
    conditions = dict(table("condition"))
    assert {
        "as recorded",
        "hiss, 20 dB",
        "hiss, -5 dB",
        "30 dB quieter",
        "digital zero",
        "hiss alone, -40 dB",
    } <= conditions.keys()

    status, out, _ = run(*words, "--json", "--report", tmp_path / "report")
    assert status == 0
    report = json.loads(out)
    assert (report["streamed"], report["stream"]["streamed"]) == (False, True)
    assert report["stream"]["clips"] == report["clips"] == 5
    assert report["accuracy"] == pytest.approx(float(alone.split()[1].rstrip("%")) / 100, abs=1e-4)
    assert report["stream"]["accuracy"] == pytest.approx(float(streamed.split()[1].rstrip("%")) / 100, abs=1e-4)
    assert {name: f"{rate:.1%}" for name, rate in report["conditions"].items()} == conditions
    assert report["events"]["hours"] >= 120 / 3600 and report["events"]["tolerance"] == 0.75
    assert set(report["events"]["scores"]) == {"all", "yes", "no"}
    assert json.loads((tmp_path / "report/report.json").read_text()) == report
    assert {"detection_errors.png", "noise.png", "stream.flac", "stream.txt"} <= {p.name for p in (tmp_path / "report").iterdir()}
    assert soundfile.info(tmp_path / "report/stream.flac").duration == pytest.approx(report["events"]["hours"] * 3600)
    assert "Words in a stream" in (tmp_path / "report/report.md").read_text()


def test_evaluate_chooses_thresholds_and_transcribe_takes_them(
    run: Run, model_folder: Path, noisy_corpus: Path, tmp_path: Path, short_streams: None
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(model_folder, mine)
    words = ("evaluate", mine, "--data", noisy_corpus, "--protocol", "own", "--false-alarms-per-hour")
    status, out, error = run(*words, 60)
    assert (status, out) == (1, "")
    said(error, "thresholds are not chosen on the testing split", "--split validation")
    status, _, error = run(*words, 60, "--split", "training")
    assert (status, error) == (0, f"written: {mine / 'thresholds.json'}\n")
    found = json.loads((mine / "thresholds.json").read_text())
    assert (found["false_alarms_per_hour"], found["protocol"], found["split"]) == (60, "own", "training")
    assert checkpoint.load(mine).thresholds == found["thresholds"] and found["thresholds"].keys() == {"yes", "no"}
    status, _, error = run(*words, 0.1, "--split", "training")
    assert status == 1
    said(error, "0.1 false alarms an hour are none in 0.0", "or a longer recording")
    assert json.loads((mine / "thresholds.json").read_text()) == found
    (mine / "thresholds.json").write_text("{}")
    status, _, error = run("transcribe", "--model", mine, noisy_corpus / "x.wav")
    assert status == 1
    said(error, f"{mine / 'thresholds.json'} is damaged", "--false-alarms-per-hour")


@pytest.mark.parametrize("asked", [set(), {"stream"}, {"conditions"}], ids=lambda asked: " ".join(asked) or "nothing")
def test_evaluate_gives_no_more_than_was_asked(
    run: Run, model_folder: Path, corpus: Path, asked: set[str], short_streams: None
) -> None:
    options = {"stream": "--streamed", "conditions": "--noise"}
    words = ("evaluate", model_folder, "--data", corpus, "--protocol", "own", *(options[name] for name in asked))
    found = json.loads(run(*words, "--json")[1])
    assert found.keys() & options.keys() == asked
    out = run(*words)[1]
    assert ("in one stream" in out, "| condition |" in out) == ("stream" in asked, "conditions" in asked)


def test_evaluate_prints_its_result_even_if_the_report_cannot_be_written(
    run: Run, model_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "report").touch()
    status, out, error = run("evaluate", model_folder, "--data", corpus, "--protocol", "own", "--report", tmp_path / "report")
    assert status == 1 and out.startswith("accuracy ")
    said(error, tmp_path / "report", "File exists")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # stands for a full disk
    try:
        words = ("evaluate", model_folder, "--data", corpus, "--protocol", "own", "--report", tmp_path / "other")
        status, out, error = run(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1 and out.startswith("accuracy ") and os.listdir(tmp_path / "other") == []
    said(error, tmp_path / "other", "File too large")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"--data": "/nowhere"}, ["/nowhere: no such folder", "speechrnn download v2"]),
        ({"--protocol": "v2-12"}, ["expected 4,890", "--allow-partial"]),
        ({"--protocol": "v2-12", "--split": "validation"}, ["expected 4,445", "none at all of _silence_, _unknown_, up, down"]),
    ],
)
def test_evaluate_refuses_what_it_cannot_measure(
    run: Run, model_folder: Path, corpus: Path, change: dict[str, str], parts: list[str]
) -> None:
    options = {"--data": str(corpus), "--protocol": "own"} | change
    status, out, error = run("evaluate", model_folder, *(word for option in options.items() for word in option))
    assert (status, out) == (1, "")
    said(error, *parts)


def test_evaluate_refuses_a_model_without_the_labels(run: Run, model_folder: Path, corpus: Path, tmp_path: Path) -> None:
    for word, other in (("yes", "yes"), ("no", "lights")):
        (tmp_path / other).symlink_to(corpus / word)
    status, out, error = run("evaluate", model_folder, "--data", tmp_path, "--protocol", "own")
    assert (status, out) == (1, "")
    said(error, "the model has no label lights", "it knows _silence_, _unknown_, yes, no")


# --- train


RECIPE = """
data: {folder: CORPUS, protocol: own, batch_size: 8}
model: {layers: 1, hidden_size: 8, augmentation: {shift_frames: 5}}
trainer: {max_epochs: 1}
"""


@pytest.fixture
def recipe(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning writes it: put back after the test
    (tmp_path / "small.yaml").write_text(RECIPE.replace("CORPUS", str(corpus)))
    return Path("small.yaml")


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("hidden_size", "hiden_size", ["does not accept option 'hiden_size'", "did you mean model.hidden_size?"]),
        ("shift_frames", "shift", ["not accept option 'augmentation.shift'", "did you mean model.augmentation.shift_frames?"]),
        ("model", "modell", ["modell", "--help"]),
        ("layers: 1", "layers: many", ['"model.layers": Expected a int. Got value: many']),
        ("layers: 1", "activation: gelu", ["Expected a Literal['tanh', 'relu']. Got value: gelu"]),
        ("}\nmodel", "\nmodel", ["Problems parsing config"]),
        ("data", "#", ["the following arguments are required: data.folder"]),
    ],
)
def test_mistake_in_a_recipe_is_one_line_and_status_2(run: Run, recipe: Path, old: str, new: str, parts: list[str]) -> None:
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    status, out, error = run("train", recipe)
    assert (status, out) == (2, "")
    said(error, "small.yaml: ", *parts)


@pytest.mark.parametrize("content", [b"", b"- 1\n- 2\n", b"\xff\xfe\x00"], ids=["empty", "list", "binary"])
def test_file_that_is_no_recipe_is_one_line_and_status_2(run: Run, recipe: Path, content: bytes) -> None:
    recipe.write_bytes(content)
    status, out, error = run("train", recipe)
    assert (status, out) == (2, "")
    said(error, "small.yaml: ")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--trainer.max_epoch", "3"], ["--trainer.max_epoch 3", "did you mean trainer.max_epochs?"]),
        (["--model.hiden_size=3"], ["--model.hiden_size=3", "did you mean model.hidden_size?"]),
        (["--model.layers", "many"], ["Expected a int. Got value: many"]),
        (["--model.layers"], ["--model.layers: expected one argument"]),
        (["--nonsense"], ["unrecognized arguments: --nonsense", "speechrnn train --help"]),
        (["other.yaml"], ["unrecognized arguments: other.yaml"]),
    ],
)
def test_mistake_in_an_override_is_one_line_and_status_2(run: Run, recipe: Path, words: list[str], parts: list[str]) -> None:
    status, out, error = run("train", recipe, *words)
    assert (status, out) == (2, "")
    said(error, *parts)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nowhere.yaml"], ["no recipe 'nowhere.yaml'", "recipes/quickstart.yaml"]),
        (["small.yaml", "--data.folder", "/nowhere"], ["/nowhere: no such folder", "speechrnn download v2"]),
        (["small.yaml", "--data.protocol", "v9"], ["no protocol 'v9'", "v2-12"]),
        (["small.yaml", "--model.layers", "0"], ["layers is 0: expected 1 or more"]),
        (["small.yaml", "--trainer.accelerator", "hpu"], ["hpu"]),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_status_1(run: Run, recipe: Path, words: list[str], parts: list[str]) -> None:
    status, out, error = run("train", *words)
    assert (status, out) == (1, "")
    said(error, *parts)


def test_print_config_shows_every_key_with_overrides(run: Run, recipe: Path) -> None:
    status, out, error = run("train", recipe, "--print_config", "--model.hidden_size", "24")
    assert (status, error) == (0, "")
    for line in ("  hidden_size: 24", "  layers: 1", "  learning_rate: 0.004", "    shift_frames: 5", "  max_epochs: 1"):
        assert line in out.splitlines()
    assert not Path("runs").exists()


# --- the command itself


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_comes_fast_and_without_torch(name: str) -> None:
    fastest = 9.0
    for _ in range(5):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "speechrnn", *name.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        fastest = min(fastest, time.monotonic() - started)
        if fastest < 0.3:
            break
    assert done.stdout.startswith(f"usage: speechrnn {name}".rstrip())
    assert not {"torch", "numpy", "yaml", "rich"} & {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert fastest < 0.3


def test_help_of_train_tells_how_to_override(run: Run) -> None:
    _, out, _ = run("train", "--help")
    assert "--model.hidden_size 192 --trainer.max_epochs 5" in out and "--print_config" in out
    assert all(name in run("--help")[1] for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["COMMAND"]),
        (["nonsense"], ["invalid choice: 'nonsense'", *COMMANDS]),
        (["--nonsense"], ["COMMAND"]),
        (["info", "--nonsense"], ["unrecognized arguments: --nonsense"]),
        (["classify", "a.wav", "--mod", "base"], ["unrecognized arguments: --mod"]),
        (["classify"], ["required: FILE"]),
        (["transcribe"], ["required: FILE"]),
        (["transcribe", "a.wav", "--json"], ["unrecognized arguments: --json"]),
        (["transcribe", "a.wav", "--format", "xml"], ["invalid choice: 'xml'", "textgrid"]),
        (["transcribe", "-", "--raw", "0"], ["'0': expected a number from 1 on"]),
        (["listen", "a.wav"], ["unrecognized arguments: a.wav"]),
        (["transcribe", "a.wav", "--threshold", "high"], ["invalid float value: 'high'"]),
        (["evaluate", "base"], ["required: --data"]),
        (["evaluate", "base", "--data", ".", "--split", "test"], ["validation"]),
        (["train"], ["required: RECIPE.yaml"]),
        (["download", "nonsense"], ["invalid choice: 'nonsense'", "v2", "v1", "v2-test", "v1-test"]),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_and_nothing_on_stdout(run: Run, words: list[str], parts: list[str]) -> None:
    status, out, error = run(*words)
    assert (status, out) == (2, "")
    assert error.startswith("usage: speechrnn")
    for part in parts:
        assert part in error.splitlines()[-1]


def test_download_hands_over_the_corpus_and_prints_its_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("speechrnn.download")
    monkeypatch.setattr(module, "download", lambda corpus, to: to / corpus.folder)
    assert run("download", "v1", "--to", "there") == (0, "there/speech_commands_v0.01\n", "")
    assert run("download", "v2-test") == (0, "data/speech_commands_test_set_v0.02\n", "")


def test_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"speechrnn {importlib.import_module('speechrnn').__version__}\n", "")


def test_interrupted_command_ends_with_status_130_and_one_line(model_folder: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.wav"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        command("classify", "--model", model_folder, fifo),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it, and so would this
    )
    with fifo.open("wb"):  # waits until the command opens its end
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, "", "speechrnn: stopped\n")


@pytest.mark.parametrize(
    ("words", "reader", "read"), [("classify MODEL b.wav a.wav deeper b.wav a.wav", "head -1", 1), ("info MODEL", "sleep 0", 0)]
)
def test_reader_that_has_seen_enough_causes_no_traceback(
    model_folder: Path, recordings: Path, words: str, reader: str, read: int
) -> None:
    model = f"--model {model_folder}" if words.startswith("classify") else str(model_folder)
    line = f"{sys.executable} -m speechrnn {words.replace('MODEL', model)} | {reader}"
    environment = os.environ | {"PYTHONUNBUFFERED": ""}  # else nothing is left to be written at the end
    done = subprocess.run(line, shell=True, cwd=recordings, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", read)

"""What the commands promise: results on stdout, one line on stderr for each fault, the status."""

import contextlib
import io
import json
import os
import re
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
from conftest import DATA, Run, assert_one_line

from speechrnn import __version__
from speechrnn import folder as folder_room
from speechrnn.audio import read_wave
from speechrnn.config import DEFAULT_THRESHOLD, ModelConfig
from speechrnn.detection import REFRACTORY_SECONDS
from speechrnn.evaluation import plots
from speechrnn.folder import save_folder
from speechrnn.model import Model

LIGHT = ["classify", "transcribe", "listen", "info", "serve", "demo"]
COMMANDS = [*LIGHT, "download", "train", "evaluate", "thresholds", "bench", "export", "speak"]
RECORDING = DATA / "recording.ogg"
LABELS = {"_silence_", "_unknown_", "yes", "no"}


def command(*words: object) -> list[str]:
    """The same command as a process of its own."""
    return [sys.executable, "-m", "speechrnn", *map(str, words)]


def noise(samples: int = 16_000, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)


def rows(output: str) -> list[list[str]]:
    return [line.split("\t") for line in output.splitlines()]


# --- classify


def test_classify_prints_path_label_and_score_in_the_order_given(
    run: Run, model_folder: Path, recordings: Path
) -> None:
    files = [
        recordings / "b.wav",
        recordings / "deeper/c.wav",
        recordings / "a.wav",
        recordings / "b.wav",
    ]
    status, out, error = run("classify", "--model", model_folder, *files)
    assert (status, error) == (0, "")
    assert [row[0] for row in rows(out)] == list(map(str, files))
    for _, label, score in rows(out):
        assert label in LABELS and 0.25 <= float(score) <= 1  # the best of four


def test_classify_prints_the_k_best_labels_best_first(
    run: Run, model_folder: Path, recordings: Path
) -> None:
    for wanted, given in ((2, 2), (4, 4), (99, 4)):
        ((_, *cells),) = rows(
            run("classify", "--model", model_folder, "--top-k", wanted, recordings / "a.wav")[1]
        )
        scores = [float(score) for score in cells[1::2]]
        assert len(set(cells[::2])) == given and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("wanted", ["0", "-1", "two"])
def test_classify_refuses_fewer_than_one_label(run: Run, wanted: str) -> None:
    status, out, error = run("classify", "--top-k", wanted, "a.wav")
    assert (status, out) == (
        2,
        "",
    ) and f"argument --top-k: '{wanted}': expected a number from 1 on" in error


def test_classify_json_says_what_the_lines_say(
    run: Run, model_folder: Path, recordings: Path
) -> None:
    """Path, label and score of each answer: beside the path, audio classification of the Hub."""
    words = ("classify", "--model", model_folder, "--top-k", 2, recordings)
    lines, answers = rows(run(*words)[1]), json.loads(run(*words, "--json")[1])
    assert len(answers) == 2 * len(lines)
    for number, (path, *cells) in enumerate(lines):
        best, second = answers[2 * number : 2 * number + 2]
        assert [best["path"], second["path"]] == [path, path]
        assert [best["label"], second["label"]] == cells[::2]
        for answer, score in zip((best, second), cells[1::2], strict=True):
            assert set(answer) == {"path", "label", "score"}
            assert float(score) == pytest.approx(answer["score"], abs=0.005)


def test_classify_walks_folders_sorted(run: Run, model_folder: Path, recordings: Path) -> None:
    _, out, _ = run("classify", "--model", model_folder, recordings / "b.wav", recordings)
    assert [row[0] for row in rows(out)] == [
        str(recordings / name) for name in ("b.wav", "a.wav", "b.wav", "deeper/c.wav")
    ]


def test_classify_reads_standard_input(
    run: Run, model_folder: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    "truncated": (
        lambda path: (soundfile.write(path, noise(), 16_000), os.truncate(path, 9_000)),
        "cut off",
    ),
    "zero samples": (lambda path: soundfile.write(path, noise(0), 16_000), "too short"),
    "NaN": (
        lambda path: soundfile.write(path, noise() * np.nan, 16_000, "FLOAT"),
        "NaN or infinity",
    ),
    "infinity": (
        lambda path: soundfile.write(path, noise() * np.inf, 16_000, "FLOAT"),
        "NaN or infinity",
    ),
}


@pytest.mark.parametrize(("make", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file_among_good_ones_is_one_line_and_the_others_go_on(
    run: Run,
    model_folder: Path,
    recordings: Path,
    tmp_path: Path,
    make: Callable[[Path], Any],
    reason: str,
) -> None:
    bad = tmp_path / "bad.wav"
    make(bad)
    files = [recordings / "b.wav", bad, recordings / "a.wav"]
    status, out, error = run("classify", "--model", model_folder, *files)
    assert status == 1
    assert [row[0] for row in rows(out)] == [str(files[0]), str(files[2])]
    assert_one_line(error, bad, reason)
    status, out, error = run("classify", "--model", model_folder, "--json", bad)
    assert (status, json.loads(out)) == (1, [])
    if bad.is_dir():
        return
    status, out, error = run("transcribe", "--model", model_folder, bad)
    assert (status, out) == (1, "")
    assert_one_line(error, bad, reason)


ODD_FILES: dict[str, tuple[np.ndarray, int, str | None, str | None, list[str]]] = {
    "1 sample": (noise(1), 16_000, "WAV", "PCM_16", ["padded from 1 to 16000 samples"]),
    "shorter than a frame": (
        noise(100),
        16_000,
        "WAV",
        "PCM_16",
        ["padded from 100 to 16000 samples"],
    ),
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
        [
            "mixed down from 8 channels",
            "resampled from 48000 Hz",
            "padded from 8000 to 16000 samples",
        ],
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


@pytest.mark.parametrize(
    ("samples", "rate", "form", "subtype", "notes"), ODD_FILES.values(), ids=ODD_FILES
)
def test_odd_file_gets_an_answer_and_verbose_says_what_was_done_to_it(
    run: Run,
    model_folder: Path,
    tmp_path: Path,
    samples: np.ndarray,
    rate: int,
    form: str,
    subtype: str,
    notes: list[str],
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
    assert_one_line(error, tmp_path / "300.wav")
    files.remove(tmp_path / "300.wav")
    assert [row[0] for row in rows(out)] == list(map(str, files))
    answers = {
        parity: {tuple(row[1:]) for row in rows(out) if int(Path(row[0]).stem) % 2 == parity}
        for parity in (0, 1)
    }
    assert len(answers[0]) == len(answers[1]) == 1 and answers[0] != answers[1]
    _, out, _ = run("classify", "--model", model_folder, tmp_path)
    assert [row[0] for row in rows(out)] == sorted(map(str, files))


def test_file_name_that_is_no_utf8_comes_out_as_it_is(
    model_folder: Path, recordings: Path, tmp_path: Path
) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.wav"
    Path(os.fsdecode(name)).symlink_to(recordings / "a.wav")
    done = subprocess.run(
        [*command("classify", "--model", model_folder), name], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(name + b"\t")


def test_unknown_model_is_one_line(run: Run, recordings: Path) -> None:
    for words in (("classify", "--model", "nowhere"), ("transcribe", "--model", "nowhere")):
        status, out, error = run(*words, recordings / "a.wav")
        assert (status, out) == (1, "")
        assert_one_line(error, "no model 'nowhere'", "runs/NAME/model")


# --- transcribe


def test_transcribe_prints_start_end_label_and_score(
    run: Run, model_folder: Path, tmp_path: Path
) -> None:
    """An untrained model is never sure, so the threshold is low; what it hears does not matter."""
    file = tmp_path / "long.wav"
    soundfile.write(
        file, np.concatenate([gain * noise(24_000) for gain in (1, 0.001, 0.5, 0)]), 22_050
    )
    words = ("transcribe", "--model", model_folder, "--threshold", 0.1, file)
    status, out, error = run(*words)
    assert (status, error) == (0, "")
    assert rows(out)
    for start, end, label, score in rows(out):
        assert (
            0 <= float(start) <= float(end) <= 96_000 / 22_050 + 0.01
            and label in {"yes", "no"}
            and float(score) >= 0.1
        )
    status, answer, error = run(*words, "--format", "json", "-v")
    assert status == 0 and error == f"{file}: resampled from 22050 Hz\n"
    as_lines = [
        [f"{w['start']:.2f}", f"{w['end']:.2f}", w["label"], f"{w['score']:.2f}"]
        for w in json.loads(answer)
    ]
    assert as_lines == rows(out)


def test_transcribe_of_silence_prints_nothing(run: Run, model_folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", 0 * noise(), 16_000)
    words = ("transcribe", "--model", model_folder, "--threshold", 0.99, tmp_path / "silence.wav")
    assert run(*words) == (0, "", "")
    assert run(*words, "--format", "json") == (0, "[]\n", "")
    assert run(*words, "--format", "vtt") == (0, "WEBVTT\n\n", "")


@pytest.fixture
def listening(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A command that hears a word or more in noise, but for its recording."""
    # Untrained, it weighs all of its window alike.
    monkeypatch.setattr("speechrnn.detection.WIDEST_SECONDS", 1.0)
    soundfile.write(
        tmp_path / "a.wav",
        np.concatenate([gain * noise(24_000) for gain in (1, 0.001, 0.5, 0)]),
        22_050,
    )
    soundfile.write(tmp_path / "b.wav", noise(40_000), 16_000)
    return ["transcribe", "--model", model_folder, "--threshold", 0.1]


def test_transcribe_says_of_which_of_several_files_a_word_is(
    run: Run, listening: list[object], tmp_path: Path
) -> None:
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    alone = [[str(path), *row] for path in (b, a) for row in rows(run(*listening, path)[1])]
    assert len({path for path, *_ in alone}) == 2
    status, out, error = run(*listening, b, a)
    assert (status, rows(out), error) == (0, alone, "")
    assert [
        json.loads(line) for line in run(*listening, "--format", "jsonl", b, a)[1].splitlines()
    ] == json.loads(run(*listening, "--format", "json", b, a)[1])
    for line, (path, start, _, label, _) in zip(
        run(*listening, "--format", "jsonl", b, a)[1].splitlines(), alone, strict=True
    ):
        word = json.loads(line)
        assert (word["path"], f"{word['start']:.2f}", word["label"]) == (path, start, label)
    assert json.loads(run(*listening, "--format", "jsonl", b)[1].splitlines()[0])["path"] == str(b)


@pytest.mark.parametrize("form", ["tsv", "json", "jsonl"])
def test_transcribe_goes_on_after_a_bad_file_and_keeps_what_came_before_its_fault(
    run: Run, listening: list[object], tmp_path: Path, form: str
) -> None:
    words = [*listening, "--format", form]
    wave = np.concatenate((noise(64_000), noise(1) * np.nan))
    soundfile.write(tmp_path / "a.wav", wave, 16_000, "FLOAT")
    status, out, error = run(*words, tmp_path / "a.wav", tmp_path / "b.wav")
    assert status == 1 and str(tmp_path / "a.wav") in out and str(tmp_path / "b.wav") in out
    assert_one_line(error, tmp_path / "a.wav", "NaN or infinity at 4.000 s")
    if form == "json":
        assert {word["path"] for word in json.loads(out)} == {
            str(tmp_path / "a.wav"),
            str(tmp_path / "b.wav"),
        }


@pytest.mark.parametrize(
    ("form", "seen"),
    [
        ("srt", " --> "),
        ("vtt", " --> "),
        ("audacity", "\t"),
        ("textgrid", "xmax = 4.354\n"),
        ("jsonl", '"score": '),
    ],
)
def test_transcribe_prints_a_format_as_it_is_asked(
    run: Run, listening: list[object], tmp_path: Path, form: str, seen: str
) -> None:
    count = len(rows(run(*listening, tmp_path / "a.wav")[1]))
    status, out, error = run(*listening, "--format", form, tmp_path / "a.wav")
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
def test_transcribe_refuses_in_a_line_what_does_not_go_together(
    run: Run, words: list[str], parts: list[str]
) -> None:
    status, out, error = run("transcribe", *words)
    assert (status, out) == (2, "")
    assert_one_line(error, *parts)


def test_transcribe_hears_by_the_thresholds_of_the_model_folder(
    run: Run, listening: list[object], model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "measured")
    found = run(*listening, tmp_path / "a.wav")[1]
    for thresholds, labels in (
        ((0.1, 0.1), {"yes", "no"}),
        ((0.1, 0.99), {"yes"}),
        ((0.99, 0.1), {"no"}),
        ((0.99, 0.99), set()),
    ):
        (folder / "thresholds.json").write_text(
            json.dumps({"thresholds": dict(zip(("yes", "no"), thresholds, strict=True))})
        )
        status, out, error = run("transcribe", "--model", folder, tmp_path / "a.wav")
        assert (status, error) == (0, "") and {row[2] for row in rows(out)} == labels
        assert labels != {"yes", "no"} or out == found
    assert (
        run("transcribe", "--model", folder, "--threshold", 0.1, tmp_path / "a.wav")[1] == found
    ), "what is typed holds"


def test_transcribe_hears_no_word_in_the_time_after_one(
    run: Run, listening: list[object], tmp_path: Path
) -> None:
    soundfile.write(
        tmp_path / "c.wav",
        np.concatenate([(noise(), 0 * noise(48_000))[part % 2] for part in range(6)]),
        16_000,
    )
    assert len(rows(run(*listening, tmp_path / "c.wav")[1])) > 1
    assert len(rows(run(*listening, "--refractory", 100, tmp_path / "c.wav")[1])) == 1
    text = " ".join(run("transcribe", "--help")[1].split())
    assert f"(default: {REFRACTORY_SECONDS:g})" in text
    assert f"the model's, or {DEFAULT_THRESHOLD})" in text
    status, out, error = run(*listening, "--refractory", -1, tmp_path / "c.wav")
    assert (status, out) == (1, "")
    assert_one_line(error, "refractory time is -1.0: expected 0 s or more")


def as_wav(recording: Path, size: int | None = None) -> bytes:
    """A recording as a wav of 16 bits, with another data size in its header."""
    samples, rate = soundfile.read(recording, dtype="int16")
    body = samples.tobytes()
    size = len(body) if size is None else size
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return b"RIFF" + b"\xff" * 4 + b"WAVEfmt " + form + b"data" + struct.pack("<I", size) + body


@pytest.mark.parametrize("raw", [False, True])
def test_transcribe_reads_standard_input(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raw: bool
) -> None:
    whole = as_wav(RECORDING)
    (tmp_path / "same.wav").write_bytes(whole)
    expected = run("transcribe", "--model", "tiny", tmp_path / "same.wav")
    assert expected[0] == 0 and len(rows(expected[1])) > 3
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(whole[44:] if raw else whole))
    )
    assert (
        run("transcribe", "--model", "tiny", "-", *(["--raw", 16_000] if raw else [])) == expected
    )


def test_transcribe_prints_a_word_while_the_pipe_is_open() -> None:
    whole = as_wav(RECORDING, 0xFFFFFFFF)
    process = subprocess.Popen(
        command("transcribe", "--model", "tiny", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
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
    assert process.returncode == 0 and error == b"" and len(out.splitlines()) >= 3


def test_transcribe_says_what_is_wrong_with_standard_input(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"no sound at all")))
    status, out, error = run("transcribe", "--model", "tiny", "-")
    assert (status, out) == (1, "")
    assert_one_line(error, "no wav: begins with", "ffmpeg", "--raw RATE")


def test_transcribe_draws_what_it_prints(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "transcript", lambda *values: drawn.append(values) or plots.Figure())
    (tmp_path / "truth.txt").write_text("0.5\t0.9\tyes\n")
    words = ("transcribe", "--model", "tiny", RECORDING, "--threshold", 0.7)
    status, out, error = run(
        *words, "--plot", tmp_path / "new/out.png", "--truth", tmp_path / "truth.txt"
    )
    assert (status, error) == (0, "") and out == run(*words)[1]
    assert (tmp_path / "new/out.png").read_bytes().startswith(b"\x89PNG") and len(
        os.listdir(tmp_path / "new")
    ) == 1
    ((wave, features, probabilities, config, thresholds, words, truth, title),) = drawn
    times = [[f"{start:.2f}", f"{end:.2f}", label] for start, end, label in words]
    assert times == [row[:3] for row in rows(out)]
    np.testing.assert_array_equal(wave, read_wave(RECORDING))
    assert features.shape == (1_500, config.coefficients)
    assert len(probabilities) * config.seconds_per_step == pytest.approx(15.6, abs=0.3)
    assert thresholds == dict.fromkeys(config.words, 0.7)
    assert (truth, title) == ([(0.5, 0.9, "yes")], "recording.ogg")


def test_what_is_too_long_to_draw_is_transcribed_all_the_same(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("transcribe", "--model", "tiny")
    expected = run(*words, RECORDING)[1]
    monkeypatch.setattr("speechrnn.cli.recognise.PLOT_SECONDS", 10)
    status, out, error = run(*words, "--plot", tmp_path / "out.png", RECORDING)
    assert (status, out) == (1, expected)
    assert not (tmp_path / "out.png").exists()
    assert_one_line(error, RECORDING, "not drawn, since it is longer than 10 s", "--plot")


@pytest.mark.parametrize(("name", "text"), [("truth.txt", "yes at 0.5 s\n"), ("missing.txt", None)])
def test_transcribe_names_a_truth_that_is_none(
    run: Run, tmp_path: Path, name: str, text: str | None
) -> None:
    if text:
        (tmp_path / name).write_text(text)
    status, out, error = run(
        "transcribe", RECORDING, "--plot", tmp_path / "out.png", "--truth", tmp_path / name
    )
    assert (status, out) == (1, "")
    assert_one_line(error, tmp_path / name, "line 1" if text else "No such file")


@pytest.mark.parametrize("threshold", ["0", "1", "2", "-0.5", "nan"])
def test_transcribe_refuses_a_threshold_that_is_no_probability(
    run: Run, model_folder: Path, recordings: Path, threshold: str
) -> None:
    status, out, error = run(
        "transcribe", "--model", model_folder, f"--threshold={threshold}", recordings / "a.wav"
    )
    assert (status, out) == (1, "")
    assert_one_line(error, "threshold of yes is", "expected a probability between 0 and 1")


def peak_megabytes(*words: object) -> float:
    """Largest resident memory of a command of its own.

    Not `ru_maxrss`: that counts what the process that started it had, up to `exec`.
    """
    code = (
        "import sys; from speechrnn.cli import main; status = main(sys.argv[1:]);"
        "lines = [line.split() for line in open('/proc/self/status')];"
        "print(*(line[1] for line in lines if line[0] == 'VmHWM:'), file=sys.stderr);"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True
    )
    return int(done.stderr) / 1024


def sparse_wav(path: Path, seconds: int) -> Path:
    """Digital silence that takes no room on the disk."""
    size = seconds * 32_000
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16) + b"data"
        + struct.pack("<I", size)
    )  # fmt: skip
    os.truncate(path, 44 + size)
    return path


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc"
)
@pytest.mark.parametrize("minutes", [10, pytest.param(180, marks=pytest.mark.slow)])
def test_transcribing_takes_constant_memory(
    model_folder: Path, tmp_path: Path, minutes: int
) -> None:
    peaks = {}
    for length in (1, minutes):
        started = time.monotonic()
        wav = sparse_wav(tmp_path / f"{length}.wav", 60 * length)
        peaks[length] = peak_megabytes("transcribe", "--model", model_folder, wav)
        print(f"{length} minutes: {peaks[length]:.0f} MB, {time.monotonic() - started:.1f} s")
    assert peaks[minutes] < peaks[1] + 10
    assert peaks[minutes] < 100


# --- listen


@pytest.fixture
def microphone(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for sounddevice: plays the embedded recording, then Ctrl-C is pressed."""
    wave = soundfile.read(RECORDING, dtype="float32", always_2d=True)[0]
    listening = iter(np.array_split(wave, range(1_600, len(wave), 1_600)))

    def read(count: int) -> tuple[np.ndarray, bool]:
        assert count == 1_600
        for block in listening:
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
def test_listen_prints_the_words_that_transcribe_prints_until_stopped(
    run: Run, microphone: Any, form: str
) -> None:
    expected = run("transcribe", "--model", "tiny", "--format", form, RECORDING)[1].replace(
        str(RECORDING), "microphone"
    )
    assert "yes" in expected
    assert run("listen", "--model", "tiny", "--format", form) == (
        130,
        expected,
        "speechrnn: stopped\n",
    )


def test_listen_shows_level_and_best_word_on_a_terminal(
    run: Run, microphone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run("transcribe", "--model", "tiny", RECORDING)[1]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    status, out, error = run("listen", "--model", "tiny")
    assert (status, out) == (130, expected)
    *meter, last = error.split("\r\033[K")
    assert last == "speechrnn: stopped\n" and "\n" not in "".join(meter)
    shown = [
        re.fullmatch(r" ?(-\d+) dB \|(#*) *\| (?:(\w+) (\d\.\d\d))?", line)
        for line in meter
        if line
    ]
    assert all(shown) and len(shown) == 150
    levels = [int(match[1]) for match in shown]
    assert max(levels) > -25 and min(levels) < max(levels) - 15
    assert {match[3] for match in shown if float(match[4] or 0) > 0.8} >= {
        row[2] for row in rows(expected)
    }


def test_listen_without_sounddevice_says_what_to_type(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    status, out, error = run("listen", "--model", "tiny")
    assert (status, out) == (1, "")
    assert_one_line(error, "sounddevice", "not installed", "pip install 'speechrnn[listen]'")


def test_listen_without_portaudio_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    status, out, error = run("listen", "--model", "tiny")
    assert (status, out) == (1, "")
    assert_one_line(error, "PortAudio library not found", "apt install libportaudio2")


@pytest.mark.parametrize("place", ["query_devices", "InputStream"])
def test_listen_without_a_microphone_is_one_line(run: Run, microphone: Any, place: str) -> None:
    def fail(**asked: object) -> None:
        raise microphone.PortAudioError("Error querying device -1")

    setattr(microphone, place, fail)
    status, out, error = run("listen", "--model", "tiny")
    assert (status, out) == (1, "")
    assert_one_line(error, "microphone: Error querying device -1", "connect one")


# --- info


def test_info_says_what_the_model_is(run: Run, model_folder: Path) -> None:
    status, out, error = run("info", model_folder)
    assert (status, error) == (0, "")
    told = dict(rows(out))
    assert (
        told["labels"] == "_silence_ _unknown_ yes no"
        and told["layers"] == "2 vanilla recurrent, of 16 tanh units"
    )
    assert told["training"] == "corpus none, seed 3, epochs 0, date 2025-01-01, hardware none"
    assert told["testing"] == "25.00% of 1,234 clips, mean over classes 20.00%, own"
    assert {"model", "parameters", "features", "speechrnn"} <= told.keys()
    whole = json.loads(run("info", "--json", model_folder)[1])
    assert f"{whole['parameters']:,}" == told["parameters"] and whole["training"]["seed"] == 3
    assert whole["model"]["hidden_size"] == 16 and whole["scores"]["testing"]["clips"] == 1234


def test_info_describes_a_model_saved_without_facts(run: Run, model: Any, tmp_path: Path) -> None:
    save_folder(tmp_path / "bare", model.config, model.arrays(), training={}, scores={}, card="")
    status, out, error = run("info", tmp_path / "bare")
    assert (status, error) == (0, "") and dict(rows(out))["training"] == ""


@pytest.fixture
def shipped(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with three models, of which `base` is neither the largest nor the first by name."""
    for name, size, accuracy in (
        ("tiny", 8, 0.75),
        ("base", 24, 0.875),
        ("a_large_one", 40, 0.96875),
    ):
        labels = ("_unknown_", "yes", "no")
        model = Model(ModelConfig(labels=labels, hidden_size=size, layers=1))
        score = {
            "accuracy": accuracy,
            "mean_accuracy": accuracy,
            "clips": 4_445,
            "protocol": "v2-12",
            "streamed": False,
        }
        scores = {
            "validation": score,
            "validation_stream": score | {"accuracy": 0.5, "streamed": True},
        }
        folder = tmp_path / "shipped" / name
        training = {"seed": 1}
        save_folder(folder, model.config, model.arrays(), training=training, scores=scores, card="")
    monkeypatch.setattr(folder_room, "SHIPPED", tmp_path / "shipped")
    return tmp_path / "shipped"


def test_info_without_a_model_lists_the_shipped_ones_the_largest_first(
    run: Run, shipped: Path
) -> None:
    status, out, error = run("info")
    assert (status, error) == (0, "")
    assert [(row[0], *row[2:]) for row in rows(out)] == [
        ("a_large_one", "3 labels", "96.88% of v2-12 validation"),
        ("base", "3 labels", "87.50% of v2-12 validation"),
        ("tiny", "3 labels", "75.00% of v2-12 validation"),
    ]
    sizes = {row[0]: row[1] for row in rows(out)}
    for name in sizes:
        assert (
            sizes[name]
            == f"{json.loads(run('info', '--json', name)[1])['parameters']:,} parameters"
        )
    whole = json.loads(run("info", "--json")[1])
    assert whole.keys() == sizes.keys()
    assert {name: f"{config['parameters']:,} parameters" for name, config in whole.items()} == sizes
    assert whole["base"]["scores"]["validation"]["accuracy"] == 0.875


def test_info_describes_a_shipped_model_by_name(run: Run, shipped: Path) -> None:
    status, out, error = run("info", "base")
    assert (status, error) == (0, "")
    told = dict(rows(out))
    assert (told["model"], told["labels"], told["training"]) == (
        str(shipped / "base"),
        "_unknown_ yes no",
        "seed 1",
    )
    assert told["validation"] == "87.50% of 4,445 clips, mean over classes 87.50%, v2-12"
    assert (
        told["validation_stream"]
        == "50.00% of 4,445 clips in one stream, mean over classes 87.50%, v2-12"
    )


def test_info_of_a_package_without_models_is_empty(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_room, "SHIPPED", tmp_path / "nothing")
    assert run("info") == (0, "", "")
    assert run("info", "--json") == (0, "{}\n", "")


# --- the command itself


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_loads_no_library(name: str) -> None:
    """Not the clock but the list of imports is what keeps help fast, on any machine."""
    command = [sys.executable, "-X", "importtime", "-m", "speechrnn", *name.split(), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: speechrnn {name}".rstrip())
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "numpy", "soundfile", "yaml", "rich"} & loaded


def test_help_lists_every_command(run: Run) -> None:
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
        (["listen", "a.wav"], ["'a.wav': expected -", "speechrnn transcribe a.wav"]),
        (["transcribe", "a.wav", "--threshold", "high"], ["invalid float value: 'high'"]),
        (["evaluate", "base"], ["required: --data"]),
        (["evaluate", "base", "--data", ".", "--split", "test"], ["validation"]),
        (["train"], ["required: RECIPE.yaml"]),
        (
            ["download", "nonsense"],
            ["invalid choice: 'nonsense'", "v2", "v1", "v2-test", "v1-test"],
        ),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_and_nothing_on_stdout(
    run: Run, words: list[str], parts: list[str]
) -> None:
    status, out, error = run(*words)
    assert (status, out) == (2, "")
    assert error.startswith("usage: speechrnn")
    for part in parts:
        assert part in error.splitlines()[-1]


def test_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"speechrnn {__version__}\n", "")


def test_interrupted_command_ends_with_status_130_and_one_line(
    model_folder: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "pipe.wav"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        command("classify", "--model", model_folder, fifo),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background job ignores it, and so would this
    )
    with fifo.open("wb"):  # waits until the command opens its end
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, "", "speechrnn: stopped\n")


@pytest.mark.parametrize(
    ("words", "reader", "read"),
    [("classify MODEL b.wav a.wav deeper b.wav a.wav", "head -1", 1), ("info MODEL", "sleep 0", 0)],
)
def test_reader_that_has_seen_enough_causes_no_traceback(
    model_folder: Path, recordings: Path, words: str, reader: str, read: int
) -> None:
    model = f"--model {model_folder}" if words.startswith("classify") else str(model_folder)
    line = f"{sys.executable} -m speechrnn {words.replace('MODEL', model)} | {reader}"
    environment = os.environ | {
        "PYTHONUNBUFFERED": ""
    }  # else nothing is left to be written at the end
    done = subprocess.run(
        line,
        shell=True,
        cwd=recordings,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", read)

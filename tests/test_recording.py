"""What `listen --record` keeps: whole words, alone, however the sound comes; what it refuses."""

import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import REAL_CLIPS, WORDS, Run, assert_one_line

from speechrnn.audio import read_wave, to_int16
from speechrnn.recording import CLEAR_DB, ENDLESS_SECONDS, LONGEST_SECONDS, Take, WordFinder

RATE = 16_000


def background(seconds: float, level_db: float = -60, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=round(seconds * RATE)).astype(np.float32)
    return noise * np.float32(10 ** (level_db / 20))


def spoken(seconds: float = 0.5, peak: float = 0.5) -> np.ndarray:
    """A vowel that is there from its first sample to its last: harmonics of 150 Hz."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * 150 * number * time) / number for number in range(1, 20))
    return (peak * wave / np.abs(wave).max()).astype(np.float32)


def among(*words: np.ndarray, gap: float = 1.5, level_db: float = -60) -> np.ndarray:
    """The words, each with background before it, and behind the last."""
    parts = []
    for seed, word in enumerate(words, 1):
        parts += [background(gap, level_db, seed), word]
    return np.concatenate([*parts, background(gap, level_db)])


def found(wave: np.ndarray, block: int = 1_600) -> list[Take]:
    finder = WordFinder()
    blocks = (wave[at : at + block] for at in range(0, len(wave), block))
    return [*itertools.chain.from_iterable(map(finder.push, blocks)), *finder.finish()]


def place(take: Take, wave: np.ndarray) -> tuple[int, int]:
    """Where a take was cut from, in samples."""
    middle = round((take.start + take.end) / 2 * RATE)
    first = max(0, middle - 2 * RATE)
    for at in first + np.flatnonzero(wave[first : middle + 1] == take.wave[0]):
        if np.array_equal(wave[at : at + len(take.wave)], take.wave):
            return at, at + len(take.wave)
    raise AssertionError(f"the take at {take.start} s is not a piece of the recording")


# --- finding


def test_each_word_comes_out_whole_in_the_middle_of_a_second():
    lengths = (0.2, 0.5, 0.8)
    wave = among(*map(spoken, lengths))
    takes = found(wave)
    assert [take.fault for take in takes] == [""] * 3
    start = 1.5
    for take, seconds in zip(takes, lengths, strict=True):
        assert take.start == pytest.approx(start, abs=0.02)
        assert take.end == pytest.approx(start + seconds, abs=0.02)
        begin, end = place(take, wave)
        assert end - begin == RATE
        assert (begin + end) / 2 / RATE == pytest.approx(start + seconds / 2, abs=0.02)
        start += seconds + 1.5


def test_a_word_that_fills_the_second_is_kept_with_quiet_on_both_sides():
    (take,) = found(wave := among(spoken(0.98)))
    begin, end = place(take, wave)
    assert take.fault == ""
    assert begin <= 1.45 * RATE + 160 and end >= 2.53 * RATE - 160
    assert end - begin <= 1.12 * RATE


def test_the_embedded_recording_comes_out_as_its_ten_words(recording: np.ndarray):
    takes = found(recording)
    assert len(takes) == 10
    for number, take in enumerate(takes):
        assert 1.5 * number + 0.4 < take.start < take.end < 1.5 * (number + 1)


@pytest.mark.parametrize("block", [1, 160, 777, 16_000, 10**9])
def test_what_is_found_does_not_depend_on_how_the_blocks_are_cut(recording: np.ndarray, block: int):
    part = recording[: 5 * RATE + 77]
    expected, takes = found(part), found(part, block)
    assert len(expected) >= 3
    assert len(takes) == len(expected)
    for one, other in zip(takes, expected, strict=True):
        np.testing.assert_array_equal(one.wave, other.wave)
        assert (one.start, one.end, one.level, one.above, one.fault) == (
            other.start, other.end, other.level, other.above, other.fault,
        )  # fmt: skip


def test_no_clip_holds_a_part_of_its_neighbour():
    wave = among(*[spoken(0.3)] * 4, gap=0.6)
    takes = found(wave)
    assert len(takes) == 4
    for number, take in enumerate(takes):
        begin, end = place(take, wave)
        start = 0.6 + 0.9 * number
        assert begin / RATE >= start - 0.6 and end / RATE <= start + 0.9


def test_hum_an_offset_and_clicks_are_no_words():
    time = np.arange(6 * RATE) / RATE
    wave = background(6) + 0.1 * np.sin(2 * np.pi * 50 * time).astype(np.float32) + 0.05
    wave[3 * RATE : 3 * RATE + 200] += 0.5
    assert found(wave.astype(np.float32)) == []


def test_a_click_before_the_word_is_not_part_of_it():
    wave = among(spoken())
    wave[round(1.2 * RATE) : round(1.2 * RATE) + 100] += 0.5
    (take,) = found(wave)
    assert take.start == pytest.approx(1.5, abs=0.02)


def test_what_is_remembered_does_not_grow():
    finder = WordFinder()
    wave = np.concatenate((background(5), background(20, -20), background(5)))
    kept = []
    for second in wave.reshape(-1, RATE):
        finder.push(second)
        kept.append(len(finder._frames))
    assert max(kept) <= (ENDLESS_SECONDS + 2 + 1) * 100


def _real(count: int) -> list[np.ndarray]:
    """So many clips of people, the same number of each of the ten words."""
    clips = []
    for word in WORDS:
        with zipfile.ZipFile(REAL_CLIPS / f"{word}.zip") as archive:
            names = sorted(name for name in archive.namelist() if not name.endswith("/"))
            for name in names[:: len(names) // (count // len(WORDS))][: count // len(WORDS)]:
                clips.append(read_wave(io.BytesIO(archive.read(name))))
    return clips


def _said(clip: np.ndarray) -> tuple[int, int]:
    """Samples between which 94 % of the energy lie that is above the clip's own background."""
    changes = np.diff(clip, prepend=clip[0])[: len(clip) // 160 * 160].reshape(-1, 160)
    energy = np.square(changes, dtype=np.float64).mean(1)
    share = np.maximum(0, energy - 2 * np.quantile(energy, 0.2)).cumsum()
    start, end = np.searchsorted(share / share[-1], (0.03, 0.97))
    return 160 * int(start), 160 * int(end) + 160


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the real clips are not beside this checkout")
def test_words_of_people_come_out_one_by_one_and_whole():
    """Nine of ten clips give a take (others are buried in the background, clipped, ...)."""
    parts, said, samples = [background(1.0)], [], RATE
    for seed, clip in enumerate(_real(60)):
        start, end = _said(clip)
        said.append((samples + start, samples + end))
        parts += [clip + background(len(clip) / RATE, seed=seed), background(1.0, seed=seed)]
        samples += len(clip) + RATE
    wave = np.concatenate(parts)
    kept = [take for take in found(wave) if not take.fault]
    whole = 0
    for take in kept:
        begin, stop = place(take, wave)
        inside = [(start, end) for start, end in said if start < stop and end > begin]
        assert len(inside) == 1, "a clip holds one word"
        whole += begin <= inside[0][0] and inside[0][1] <= stop
    print(f"{len(said)} words, {len(kept)} kept, {whole} whole")
    assert len(kept) >= 0.8 * len(said)
    assert whole >= 0.98 * len(kept)


# --- refusing


@pytest.mark.parametrize(
    ("wave", "parts"),
    [
        (among(spoken(peak=0.5).clip(-0.1, 0.1) * 10), ["clipped", "full scale", "turn it down"]),
        (among(spoken(peak=0.006), level_db=-85), ["too quiet", "dB of full scale", "nearer"]),
        (among(spoken(peak=0.5), level_db=-39), ["too quiet", "above the background", "quieter"]),
        (among(spoken(1.3)), ["too long", "1.3", "1 s", "faster"]),
        (among(spoken(5.0)), ["no pause in 2 s"]),
        (np.concatenate((spoken(), background(2))), ["cut off at its beginning", "wait"]),
        (np.concatenate((background(2), spoken())), ["cut off at its end", "go on"]),
    ],
    ids=["clipped", "quiet", "noisy", "long", "endless", "no beginning", "no end"],
)
def test_a_bad_example_is_refused_with_the_reason_and_what_to_do(
    wave: np.ndarray, parts: list[str]
):
    (take,) = found(wave)
    for part in parts:
        assert part in take.fault
    assert "\n" not in take.fault


def test_a_word_at_the_limits_is_kept():
    loud, quiet = (20 * np.log10(np.sqrt((spoken(peak=p) ** 2).mean())) for p in (0.98, 0.02))
    for peak, level in ((0.98, loud), (0.02, quiet)):
        (take,) = found(among(spoken(0.9 * LONGEST_SECONDS, peak), level_db=-75))
        assert take.fault == "" and take.level == pytest.approx(level, abs=1)
        assert take.above > CLEAR_DB


def test_noise_that_stays_becomes_background():
    wave = np.concatenate((background(3), background(8, -45), spoken(), background(2, -45)))
    first, last = found(wave)
    assert "no pause" in first.fault
    assert last.fault == "" and last.start == pytest.approx(11, abs=0.02)


# --- the command


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Standard input of the commands: bare samples of a wave; works in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def fill(wave: np.ndarray, rate: int | None = None) -> None:
        file = io.BytesIO()
        if rate is None:
            file.write(to_int16(wave).tobytes())
        else:
            soundfile.write(file, wave, rate, format="WAV")
        file.seek(0)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file))

    return fill


RECORD = ["listen", "--record", "lights", "--raw", RATE, "-"]


def test_examples_are_kept_asked_for_and_printed(run: Run, pipe: Any) -> None:
    pipe(wave := among(spoken(0.4), spoken(0.5)))
    status, out, error = run(*RECORD, "--examples", 2)
    assert status == 0
    assert error.splitlines() == ['say "lights" (1 of 2)', 'say "lights" (2 of 2)']
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == ["own_words/lights/1.wav", "own_words/lights/2.wav"]
    for (path, seconds, level), take in zip(rows, found(wave), strict=True):
        assert (float(seconds), float(level)) == (
            pytest.approx(take.end - take.start, abs=0.006),
            pytest.approx(take.level, abs=0.06),
        )
        assert soundfile.info(path).subtype == "PCM_16"
        np.testing.assert_allclose(read_wave(path), take.wave, atol=2**-15)


def test_numbers_go_on_and_nothing_is_overwritten(run: Run, pipe: Any) -> None:
    folder = Path("mine/lights")
    folder.mkdir(parents=True)
    for name in ("1.wav", "7.mp3", "anna_nohash_9.wav"):
        (folder / name).write_text(name)
    pipe(among(spoken(), spoken()))
    status, out, _ = run(*RECORD, "--examples", 2, "--to", "mine")
    assert status == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        str(folder / "8.wav"),
        str(folder / "9.wav"),
    ]
    assert sorted(path.name for path in folder.iterdir()) == [
        "1.wav", "7.mp3", "8.wav", "9.wav", "anna_nohash_9.wav",
    ]  # fmt: skip
    assert (folder / "1.wav").read_text() == "1.wav"


def test_a_refused_example_is_asked_for_again_and_not_written(run: Run, pipe: Any) -> None:
    pipe(among(spoken(peak=0.5).clip(-0.1, 0.1) * 10, spoken()))
    status, out, error = run(*RECORD, "--examples", 1)
    assert (status, out.count("\n")) == (0, 1)
    first, refused = error.splitlines()
    assert first == 'say "lights" (1 of 1)'
    assert refused.startswith("not kept: clipped: ")
    assert refused.endswith('; say "lights" again (1 of 1)')
    assert [path.name for path in Path("own_words/lights").iterdir()] == ["1.wav"]


def test_a_wav_of_another_rate_gives_examples_at_16_khz(run: Run, pipe: Any) -> None:
    pipe(np.repeat(among(spoken()), 3), 48_000)
    status, out, error = run("listen", "--record", "lights", "--examples", 1, "-v", "-")
    assert status == 0 and "standard input: resampled from 48000 Hz" in error
    assert soundfile.info(out.split("\t")[0]).samplerate == RATE


def test_a_pipe_that_ends_early_leaves_what_was_kept(run: Run, pipe: Any) -> None:
    pipe(among(spoken(), spoken()))
    status, out, error = run(*RECORD)
    assert (status, out.count("\n")) == (1, 2)
    assert_one_line(error.splitlines(keepends=True)[-1], "ended after 5.5 s", "kept 2 of 5")
    assert len(list(Path("own_words/lights").iterdir())) == 2


@pytest.mark.parametrize(
    ("wave", "level"),
    [(np.zeros(5 * RATE, np.float32), "-100 dB"), (background(5, -20), "-20 dB")],
    ids=["silence", "constant noise"],
)
def test_nothing_but_background_is_said_with_its_level(
    run: Run, pipe: Any, wave: np.ndarray, level: str
) -> None:
    pipe(wave)
    status, out, error = run(*RECORD)
    assert (status, out) == (1, "")
    assert_one_line(error.splitlines(keepends=True)[-1], "kept 0 of 5", "no word stood out", level)
    assert list(Path().iterdir()) == []


def test_a_wav_that_is_cut_off_leaves_what_was_kept(run: Run, pipe: Any) -> None:
    pipe(among(spoken(), spoken()), RATE)
    whole = sys.stdin.buffer.getvalue()
    sys.stdin.buffer = io.BytesIO(whole[: len(whole) * 2 // 3])
    status, out, error = run("listen", "--record", "lights", "-")
    assert (status, out.count("\n")) == (1, 1)
    assert_one_line(error.splitlines(keepends=True)[-1], "cut off", "kept 1 of 5")


def test_a_full_disk_is_one_line_and_leaves_no_part(run: Run, pipe: Any, full_disk: Any) -> None:
    pipe(among(spoken()))
    with full_disk(1_000):
        status, out, error = run(*RECORD)
    assert (status, out) == (1, "")
    assert_one_line(error.splitlines(keepends=True)[-1], "own_words/lights/1.wav")
    assert list(Path("own_words/lights").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--record", "_unknown_"], ["'_unknown_' begins with _"]),
        (["--record", "_silence_"], ["'_silence_' begins with _"]),
        (["--record", ""], ["'' is empty"]),
        (["--record", ".."], ["begins with a dot"]),
        (["--record", "a/b"], ["'a/b' has a character"]),
        (["--record", "a\tb"], ["cannot be printed"]),
        (["--record", "lights "], ["ends with a space"]),
        (["--record", "é" * 128], ["longer than 255 bytes"]),
        (["--record", "lights", "--threshold", "0.5"], ["leave out --threshold"]),
        (["--record", "lights", "--raw", "16000"], ["type - too"]),
        (["--to", "mine"], ["--to", "add --record WORD"]),
        (["-"], ["speechrnn transcribe -"]),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_wrong_usage_of_recording_is_a_line_and_status_2(
    run: Run, words: list[str], parts: list[str]
) -> None:
    status, out, error = run("listen", *words)
    assert (status, out) == (2, "")
    assert_one_line(error, *parts)


def test_a_folder_that_cannot_be_written_is_said_before_anybody_speaks(
    run: Run, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(among(spoken()))
    Path("file").write_text("")
    status, out, error = run(*RECORD, "--to", "file")
    assert (status, out) == (1, "")
    assert_one_line(error, "file", "not a folder", "--to")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # who runs as root may write all
    status, out, error = run(*RECORD, "--to", "other")
    assert (status, out) == (1, "")
    assert_one_line(error, "no permission", "--to")
    assert sys.stdin.buffer.tell() == 0 and not Path("other").exists()


def _microphone(monkeypatch: pytest.MonkeyPatch, wave: np.ndarray) -> None:
    """Stands for sounddevice: plays a wave, then Ctrl-C is pressed."""
    blocks = iter(np.array_split(wave[:, None], range(1_600, len(wave), 1_600)))

    def read(count: int) -> tuple[np.ndarray, bool]:
        for block in blocks:
            return block, False
        raise KeyboardInterrupt

    module = SimpleNamespace(
        PortAudioError=type("PortAudioError", (Exception,), {}),
        query_devices=lambda kind: {"default_samplerate": float(RATE)},
        InputStream=lambda **asked: contextlib.nullcontext(SimpleNamespace(read=read)),
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)


def test_ctrl_c_at_the_microphone_leaves_what_was_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    switched_on = np.concatenate((np.zeros(RATE // 4), among(spoken()))).astype(np.float32)
    _microphone(monkeypatch, switched_on)
    status, out, error = run("listen", "--record", "lights", "--to", tmp_path)
    assert (status, out.count("\n")) == (130, 1)
    assert error.splitlines() == [
        'say "lights" (1 of 5)',
        'say "lights" (2 of 5)',
        f'speechrnn: stopped; kept 1 of 5 of "lights" in {tmp_path / "lights"}',
    ]
    assert [path.name for path in (tmp_path / "lights").iterdir()] == ["1.wav"]


def test_a_muted_microphone_is_said_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _microphone(monkeypatch, np.zeros(30 * RATE, np.float32))
    status, _, error = run("listen", "--record", "lights", "--to", tmp_path)
    assert status == 130
    assert error.count("nothing above the background") == 1 and "-100 dB" in error
    assert not (tmp_path / "lights").exists()


def test_a_process_that_is_stopped_while_it_waits_says_what_it_kept(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "speechrnn", *map(str, RECORD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdin and process.stdout
    process.stdin.write(to_int16(among(spoken())).tobytes())
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"own_words/lights/1.wav\t")
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert error.decode().splitlines()[-1].startswith("speechrnn: stopped; kept 1 of 5")
    assert [path.name for path in (tmp_path / "own_words" / "lights").iterdir()] == ["1.wav"]


def test_recording_loads_no_model_and_nothing_of_the_workshop(tmp_path: Path) -> None:
    code = (
        "import sys; from speechrnn.cli import main; main(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, RECORD)],
        input=to_int16(among(spoken())).tobytes(),
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    loaded = set(done.stderr.decode().split())
    assert done.stdout and "speechrnn.recording" in loaded
    assert not {"torch", "scipy", "librosa", "speechrnn.network", "speechrnn.corpus"} & loaded

"""What `audio` promises: the samples of every kind of file, and one line for each broken one."""

import contextlib
import io
import os
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.audio import (
    AudioError,
    find_audio,
    read_blocks,
    read_microphone,
    read_pipe,
    read_wave,
)
from speechrnn.config import SAMPLE_RATE

CLIPS = Path(__file__).parents[1] / "../shared/data/clips/yes.zip"

# Largest error of a sample in -1 to 1: at most one step of each format; the companded formats
# (ITU-T G.711) have steps of 1/32 near full scale.
QUANTISATION = {
    "PCM_U8": 2**-7,
    "PCM_16": 2**-15,
    "PCM_24": 2**-23,
    "PCM_32": 2**-24,
    "FLOAT": 0.0,
    "DOUBLE": 0.0,
    "ULAW": 2**-5,
    "ALAW": 2**-5,
}
LOSSLESS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
}
LOSSY = {"vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}


def tone(
    seconds: float = 1.0, rate: int = SAMPLE_RATE, frequency: float = 440.0, level: float = 0.5
) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def noise(shape: int | tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def written(
    path: Path,
    samples: np.ndarray,
    rate: int = SAMPLE_RATE,
    kind: tuple[str, str] = ("WAV", "PCM_16"),
) -> Path:
    soundfile.write(path, samples, rate, format=kind[0], subtype=kind[1])
    return path


def error_of(source: object) -> str:
    with pytest.raises(AudioError) as info:
        read_wave(source)
    message = str(info.value)
    assert "\n" not in message
    return message


def component(samples: np.ndarray, frequency: float) -> float:
    """The amplitude of one frequency, away from the ends of the signal."""
    inner = samples[len(samples) // 4 : -len(samples) // 4]
    phase = 2j * np.pi * frequency * np.arange(len(inner)) / SAMPLE_RATE
    return float(2 * abs(np.mean(np.hanning(len(inner)) * 2 * inner * np.exp(-phase))))


# What is not readable


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing.wav"
    assert error_of(path).startswith(f"{path}: cannot be opened: No such file")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert "directory" in error_of(tmp_path)


def test_an_operating_system_error_stays_visible_as_the_cause(tmp_path: Path) -> None:
    with pytest.raises(AudioError) as info:
        read_wave(tmp_path / "missing.wav")
    assert isinstance(info.value.__cause__, FileNotFoundError)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file"
)
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "secret.wav", tone())
    path.chmod(stat.S_IWUSR)
    assert "Permission denied" in error_of(path)


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.touch()
    assert "0 bytes" in error_of(path)


def test_text_named_wav_is_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "text.wav"
    path.write_text("These are words, and not the sound of them.\n" * 100)
    assert "not readable as audio" in error_of(path)


def test_a_path_with_a_line_break_stays_in_one_line(tmp_path: Path) -> None:
    assert "two\\nlines" in error_of(tmp_path / "two\nlines.wav")


def test_a_path_with_a_null_character_is_an_audio_error() -> None:
    assert "null" in error_of("a\0.wav")


@pytest.mark.parametrize("kind", [*LOSSLESS.values(), *LOSSY.values()], ids=[*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("kept", [4, 20, 40])
def test_a_file_cut_off_in_its_header_is_an_audio_error(
    tmp_path: Path, kind: tuple[str, str], kept: int
) -> None:
    path = written(tmp_path / "a", tone(), kind=kind)
    path.write_bytes(path.read_bytes()[:kept])
    error_of(path)


# What is not all there


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_that_is_cut_off_says_how_many_samples_are_missing(
    tmp_path: Path, subtype: str, channels: int
) -> None:
    samples = noise((16000, channels))
    path = written(tmp_path / "a.wav", samples, kind=("WAV", subtype))
    whole = path.read_bytes()
    with soundfile.SoundFile(path) as sound:
        bytes_of_a_frame = len(whole) // sound.frames
    path.write_bytes(whole[: -bytes_of_a_frame * 4000])
    assert (
        error_of(path) == f"{path}: cut off: the header promises 16000 samples, 12000 are there; "
        "copy the file again"
    )


def test_a_wav_that_lacks_its_last_byte_is_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", tone())
    path.write_bytes(path.read_bytes()[:-1])
    assert "promises 16000 samples, 15999 are there" in error_of(path)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT", "DOUBLE"])
def test_a_wav_that_ends_with_its_header_is_cut_off(tmp_path: Path, subtype: str) -> None:
    path = written(tmp_path / "a.wav", tone(), kind=("WAV", subtype))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - len(whole) // 16000 * 16000])
    assert "promises 16000 samples, 0 are there" in error_of(path)


@pytest.mark.parametrize("kind", ["WAVEX", "RF64", "W64", "AIFF", "AU"])
def test_other_containers_that_are_cut_off_say_so(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "a", tone(), kind=(kind, "PCM_16"))
    path.write_bytes(path.read_bytes()[: -2 * 4000])
    assert "promises 16000 samples, 12000 are there" in error_of(path)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_a_flac_that_is_cut_off_says_so(tmp_path: Path, part: float) -> None:
    path = written(tmp_path / "a.flac", noise(160000), kind=LOSSLESS["flac"])
    data = path.read_bytes()
    path.write_bytes(data[: round(part * len(data))])
    message = error_of(path)
    assert "cut off: the header promises 160000 samples" in message
    # libsndfile counts whole FLAC frames, of 4096 samples
    assert int(message.split("samples, ")[1].split()[0]) == pytest.approx(part * 160000, abs=4096)


def test_a_flac_that_is_cut_off_between_two_frames_is_cut_off(tmp_path: Path) -> None:
    # libsndfile ends such a file without an error
    path = written(tmp_path / "a.flac", noise(40960), kind=LOSSLESS["flac"])
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\xff\xf8", data.index(b"\xff\xf8") + 7000)])
    assert "promises 40960 samples, 4096 are there" in error_of(path)


def test_a_cut_off_file_in_memory_is_cut_off(tmp_path: Path) -> None:
    data = written(tmp_path / "a.wav", tone()).read_bytes()
    assert error_of(io.BytesIO(data[:-2000])).startswith("audio in memory: cut off")


def test_an_mp3_shorter_than_its_header_says_leaves_a_note(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "a.mp3", noise(160000), kind=LOSSY["mp3"])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    notes: list[str] = []
    samples = read_wave(path, notes)
    assert capfd.readouterr().err == ""
    assert notes == [f"ends at {len(samples) / 16000:.2f} s, not at 10.00 s"]


# Lengths that encoders could not fill in


def wav_bytes(samples: np.ndarray, riff_size: int, data_size: int, trailer: bytes = b"") -> bytes:
    header = struct.pack(
        "<4sI8sIHHIIHH4sI",
        b"RIFF",
        riff_size,
        b"WAVEfmt ",
        16,
        1,
        1,
        16000,
        32000,
        2,
        16,
        b"data",
        data_size,
    )
    return header + np.round(samples * 32768).astype("<i2").tobytes() + trailer


@pytest.mark.parametrize(
    ("riff_size", "data_size"),
    [
        pytest.param(0xFFFFFFFF, 0xFFFFFFFF, id="ffmpeg"),
        pytest.param(0x7FFFF024, 0x7FFFF000, id="sox"),
        pytest.param(0x80000024, 0x80000000, id="arecord"),
        pytest.param(36, 0, id="data size zero"),
        pytest.param(0, 0, id="all zero"),
        pytest.param(36 + 32000, 0, id="only the data size zero"),
    ],
)
@pytest.mark.parametrize("memory", [False, True])
def test_a_wav_written_to_a_pipe_is_not_cut_off(
    tmp_path: Path, riff_size: int, data_size: int, memory: bool
) -> None:
    data = wav_bytes(tone(), riff_size, data_size)
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    samples = read_wave(io.BytesIO(data) if memory else path)
    np.testing.assert_allclose(samples, tone(), atol=QUANTISATION["PCM_16"])


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    path = written(tmp_path / "a.flac", tone(3.21), kind=LOSSLESS["flac"])
    expected = read_wave(path)
    data = bytearray(path.read_bytes())
    data[21] &= (
        0xF0  # the 36 bits of STREAMINFO that hold the number of samples (RFC 9639, section 8.2)
    )
    data[22:26] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_wave(path), expected)
    path.write_bytes(data[: len(data) // 2])
    assert "cut off" in error_of(path)
    assert str(2**63 - 1) not in error_of(path)


# What has no samples, or none that are numbers


@pytest.mark.parametrize(
    "kind", [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "PCM_16"), ("AU", "PCM_16")]
)
def test_a_file_without_samples_is_too_short(tmp_path: Path, kind: tuple[str, str]) -> None:
    assert "too short: 0 samples" in error_of(written(tmp_path / "a", tone(0), kind=kind))


def test_a_wav_without_samples_but_with_another_chunk_is_too_short() -> None:
    trailer = (
        b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.76.100\0"
    )
    assert "too short: 0 samples" in error_of(
        io.BytesIO(wav_bytes(tone(0), 36 + len(trailer), 0, trailer))
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_value_that_is_not_finite_is_an_error_that_says_where(
    tmp_path: Path, value: float, channels: int, rate: int
) -> None:
    samples = noise((3 * rate, channels))
    samples[round(2.25 * rate), -1] = value
    path = written(tmp_path / "a.wav", samples, rate, ("WAV", "FLOAT"))
    assert "NaN or infinity at 2.250 s" in error_of(path)
    with pytest.raises(AudioError, match=r"at 2\.250 s"):
        list(read_blocks(path, 0.1))


def test_a_double_beyond_the_range_of_float32_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.array([0.0, 1e300]), kind=("WAV", "DOUBLE"))
    assert "infinity at 0.000 s" in error_of(path)


# The samples


@pytest.mark.parametrize("subtype", QUANTISATION)
def test_every_wav_encoding_gives_the_same_signal(tmp_path: Path, subtype: str) -> None:
    samples = noise(16000)
    read = read_wave(written(tmp_path / "a.wav", samples, kind=("WAV", subtype)))
    assert read.dtype == np.float32
    assert read.shape == (16000,)
    np.testing.assert_allclose(read, samples, rtol=0, atol=QUANTISATION[subtype])


@pytest.mark.parametrize("kind", LOSSLESS.values(), ids=LOSSLESS)
def test_lossless_formats_give_the_same_signal(tmp_path: Path, kind: tuple[str, str]) -> None:
    samples = noise(16000)
    read = read_wave(written(tmp_path / "a", samples, kind=kind))
    np.testing.assert_allclose(read, samples, rtol=0, atol=QUANTISATION["PCM_16"])


@pytest.mark.parametrize("kind", LOSSY.values(), ids=LOSSY)
def test_lossy_formats_keep_length_and_tone(
    tmp_path: Path, kind: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    read = read_wave(written(tmp_path / "a", tone(2.0), kind=kind))
    assert capfd.readouterr().err == ""
    assert read.shape == (32000,)
    np.testing.assert_allclose(read[1600:-1600], tone(2.0)[1600:-1600], atol=0.05)


def test_full_scale_16_bit_spans_minus_one_to_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.array([-32768, 0, 32767], dtype=np.int16))
    np.testing.assert_array_equal(read_wave(path), np.array([-1, 0, 1 - 2**-15], dtype=np.float32))


def test_float_values_beyond_one_are_kept(tmp_path: Path) -> None:
    samples = 4 * noise(1000)
    assert np.abs(samples).max() > 1.9
    np.testing.assert_array_equal(
        read_wave(written(tmp_path / "a.wav", samples, kind=("WAV", "FLOAT"))), samples
    )


def test_one_sample_is_returned_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.array([0.25], dtype=np.float32))
    np.testing.assert_array_equal(read_wave(path), np.array([0.25], dtype=np.float32))


def test_a_sample_too_short_for_one_at_16_khz_is_an_error(tmp_path: Path) -> None:
    assert "too short: 1 samples at 48000 Hz" in error_of(
        written(tmp_path / "a.wav", tone()[:1], 48000)
    )


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = noise((16000, channels))
    notes: list[str] = []
    read = read_wave(written(tmp_path / "a.wav", samples, kind=("WAV", "FLOAT")), notes)
    np.testing.assert_allclose(read, samples.mean(axis=1), rtol=0, atol=1e-7)
    assert notes == [f"mixed down from {channels} channels"]


@pytest.mark.parametrize(
    "rate", [4000, 8000, 11025, 15999, 16001, 22050, 44100, 48000, 96000, 192000]
)
def test_other_rates_keep_the_tone_and_the_length(tmp_path: Path, rate: int) -> None:
    notes: list[str] = []
    read = read_wave(written(tmp_path / "a.wav", tone(1.5, rate), rate, ("WAV", "FLOAT")), notes)
    assert read.dtype == np.float32
    assert abs(len(read) - 24000) <= 1
    inner = slice(1000, 23000)
    np.testing.assert_allclose(read[inner], tone(1.5)[inner], atol=1e-3)
    assert component(read, 440) == pytest.approx(0.5, rel=1e-3)
    assert notes == [f"resampled from {rate} Hz"]


@pytest.mark.parametrize("rate", [22050, 44100, 192000])
def test_energy_above_the_new_nyquist_frequency_is_gone(tmp_path: Path, rate: int) -> None:
    samples = tone(1.0, rate, 1000) + tone(1.0, rate, 9000)
    read = read_wave(written(tmp_path / "a.wav", samples, rate, ("WAV", "FLOAT")))
    assert component(read, 1000) == pytest.approx(0.5, rel=1e-3)
    assert component(read, 7000) < 1e-4  # where 9 kHz would be folded to
    np.testing.assert_allclose(read[1000:15000], tone(1.0, frequency=1000)[1000:15000], atol=1e-3)


def test_a_file_at_16_khz_in_mono_leaves_no_notes(tmp_path: Path) -> None:
    notes: list[str] = []
    read_wave(written(tmp_path / "a.wav", tone()), notes)
    assert notes == []


def test_stereo_at_another_rate_leaves_both_notes_before_the_first_block(tmp_path: Path) -> None:
    notes: list[str] = []
    next(read_blocks(written(tmp_path / "a.wav", noise((44100, 2)), 44100), notes=notes))
    assert sorted(notes) == ["mixed down from 2 channels", "resampled from 44100 Hz"]


# Blocks


@pytest.mark.parametrize(
    ("rate", "channels", "kind"),
    [
        (16000, 1, ("WAV", "PCM_16")),
        (44100, 1, ("WAV", "FLOAT")),
        (44100, 2, ("WAV", "PCM_24")),
        (8000, 8, ("WAV", "ULAW")),
        (12345, 3, ("WAV", "FLOAT")),
        (22050, 2, ("FLAC", "PCM_16")),
        (44100, 1, ("OGG", "VORBIS")),
        (48000, 2, ("OGG", "OPUS")),
        (44100, 2, ("MP3", "MPEG_LAYER_III")),
    ],
)
def test_the_block_size_does_not_change_the_samples(
    tmp_path: Path,
    rate: int,
    channels: int,
    kind: tuple[str, str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = written(tmp_path / "a", noise((round(2.345 * rate), channels)), rate, kind)
    whole = read_wave(path)
    assert abs(len(whole) - 2.345 * 16000) <= 1
    for block_seconds in (0.0007, 0.0313, 0.1, 1 / 3, 1.0, 100.0):
        np.testing.assert_array_equal(np.concatenate(list(read_blocks(path, block_seconds))), whole)
    assert capfd.readouterr().err == ""


def test_blocks_are_as_long_as_asked(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise(40000))
    assert [len(block) for block in read_blocks(path)] == [16000, 16000, 8000]
    assert [len(block) for block in read_blocks(path, 0.9)] == [14400, 14400, 11200]


@pytest.mark.parametrize("block_seconds", [0, -1, float("nan"), float("inf")])
def test_a_block_of_no_length_is_refused(tmp_path: Path, block_seconds: float) -> None:
    path = written(tmp_path / "a.wav", tone())
    with pytest.raises(ValueError, match="expected a number above 0"):
        next(read_blocks(path, block_seconds))


def test_blocks_do_not_share_memory(tmp_path: Path) -> None:
    first, second, *_ = read_blocks(written(tmp_path / "a.wav", noise(40000)))
    assert not np.shares_memory(first, second)
    assert first.flags.writeable
    assert first.flags.c_contiguous


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_long_file_is_read_in_constant_memory(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "long.wav"
    seconds = 1200
    size = 2 * seconds * rate
    with path.open("wb") as file:
        header = wav_bytes(tone(0), 36 + size, size)
        file.write(header[:24] + struct.pack("<II", rate, 2 * rate) + header[32:])
        file.truncate(44 + size)  # sparse: takes no room on the disk
    total = 0
    tracemalloc.start()
    for block in read_blocks(path):
        total += len(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert abs(total - seconds * SAMPLE_RATE) <= 1
    assert peak < 4_000_000  # the whole of it is 77 MB


# File objects


def test_a_file_object_is_read_from_its_start_and_left_open(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", tone())
    with path.open("rb") as file:
        file.read(100)
        np.testing.assert_array_equal(read_wave(file), read_wave(path))
        assert not file.closed


@pytest.mark.parametrize("kind", [*LOSSLESS.values(), *LOSSY.values()], ids=[*LOSSLESS, *LOSSY])
def test_bytes_in_memory_give_the_samples_of_the_file(
    tmp_path: Path, kind: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "a", tone(), kind=kind)
    np.testing.assert_array_equal(read_wave(io.BytesIO(path.read_bytes())), read_wave(path))
    assert capfd.readouterr().err == ""


def test_a_closed_file_object_is_an_audio_error(tmp_path: Path) -> None:
    with written(tmp_path / "a.wav", tone()).open("rb") as file:
        pass
    assert "closed file" in error_of(file)


PRINT_LENGTH = "import sys; from speechrnn.audio import read_wave; print(len(read_wave({source})))"


@pytest.mark.parametrize("source", ["sys.stdin.buffer", "'/dev/stdin'"])
def test_a_pipe_is_read(tmp_path: Path, source: str) -> None:
    if source != "sys.stdin.buffer" and not Path("/dev/stdin").exists():
        pytest.skip("this system has no /dev/stdin")
    data = written(tmp_path / "a.flac", tone(1.25), kind=LOSSLESS["flac"]).read_bytes()
    command = [sys.executable, "-W", "error", "-c", PRINT_LENGTH.format(source=source)]
    done = subprocess.run(
        command, input=data, capture_output=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.split() == [b"20000"]
    assert done.stderr == b""


@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="needs /proc to count the open files"
)
def test_no_file_stays_open(tmp_path: Path) -> None:
    good, bad = written(tmp_path / "a.wav", noise(40000)), tmp_path / "bad.wav"
    bad.write_bytes(good.read_bytes()[:-100])
    before = len(os.listdir("/proc/self/fd"))
    read_wave(good)
    error_of(bad)
    abandoned = read_blocks(good)
    next(abandoned)
    assert len(os.listdir("/proc/self/fd")) > before
    del abandoned
    assert len(os.listdir("/proc/self/fd")) == before


def test_importing_the_module_imports_neither_torch_nor_soxr() -> None:
    command = "import sys, speechrnn.audio; print({'torch', 'soxr'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.split() == [b"set()"]


# Folders


def test_folders_are_walked_in_order_and_files_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    names = ["b/2.wav", "b/1.FLAC", "a.ogg", "b/c/x.mp3", "notes.txt", "b/._1.wav", ".hidden.wav"]
    names.append(".b.unfinished/1.wav")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "folder.wav").mkdir()
    given: list[str | Path] = [tmp_path / "z.raw", folder, str(tmp_path / "missing.wav")]
    expected = [
        "z.raw",
        "clips/a.ogg",
        "clips/b/1.FLAC",
        "clips/b/2.wav",
        "clips/b/c/x.mp3",
        "missing.wav",
    ]
    assert find_audio(given) == [tmp_path / name for name in expected]


def test_a_file_named_twice_is_listed_twice(tmp_path: Path) -> None:
    assert find_audio(["b.wav", "a.wav", "b.wav"]) == [Path("b.wav"), Path("a.wav"), Path("b.wav")]


def test_an_empty_folder_holds_no_audio(tmp_path: Path) -> None:
    assert find_audio([tmp_path]) == []


@pytest.mark.skipif(
    not CLIPS.exists(), reason="needs the Speech Commands clips beside the checkout"
)
def test_a_real_clip_is_about_a_second_of_sound() -> None:
    with zipfile.ZipFile(CLIPS) as archive:
        name = min(name for name in archive.namelist() if name.endswith(".ogg"))
        data = archive.read(name)
    samples = read_wave(io.BytesIO(data))
    assert 8000 <= len(samples) <= 16000
    assert 0.01 < np.abs(samples).max() < 1.5


# Pipes


class Drip:
    """A pipe that gives a few bytes at each read, as often within a sample as not."""

    name = "<stdin>"

    def __init__(self, data: bytes, most: int = 5_000) -> None:
        self.data, self.most, self.random = data, most, np.random.default_rng(0)

    def read(self, size: int = -1) -> bytes:
        raise AssertionError("waits for all that was asked for")

    def read1(self, size: int) -> bytes:
        size = min(size, int(self.random.integers(1, self.most)))
        head, self.data = self.data[:size], self.data[size:]
        return head


def wav(
    body: bytes,
    size: int | None = None,
    shape: tuple[int, int, int, int] = (1, 1, 16_000, 16),
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A wav of a body; `shape` is its format tag, channels, rate and bits."""
    tag, channels, rate, bits = shape
    form = struct.pack(
        "<IHHIIHH", 16, tag, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits
    )
    size = len(body) if size is None else size
    return (
        b"RIFF"
        + b"\xff" * 4
        + b"WAVE"
        + before
        + b"fmt "
        + form
        + b"data"
        + struct.pack("<I", size)
        + body
        + after
    )


def piped(data: bytes, rate: int | None = None) -> np.ndarray:
    return np.concatenate(list(read_pipe(Drip(data), rate)))


@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 3)])
def test_wav_from_a_pipe_has_the_samples_of_the_file(
    tmp_path: Path, form: str, subtype: str, rate: int, channels: int
) -> None:
    path = written(tmp_path / "a.wav", noise((rate, channels)), rate, (form, subtype))
    expected, notes = [], []
    whole = read_wave(path, expected)
    np.testing.assert_array_equal(
        np.concatenate(list(read_pipe(Drip(path.read_bytes()), notes=notes))), whole
    )
    assert notes == expected


BODY = (noise(16_000) * 32_768).astype("<i2").tobytes()
WAVE = np.frombuffer(BODY, "<i2") / np.float32(32_768)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFEFDC, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB])
def test_wav_whose_header_does_not_know_its_length_is_read_to_its_end(size: int) -> None:
    np.testing.assert_array_equal(piped(wav(BODY, size)), WAVE)


def test_what_stands_beside_the_samples_is_no_sound() -> None:
    title, odd = (
        b"LIST" + struct.pack("<I", 4) + b"INFO",
        b"junk" + struct.pack("<I", 70_001) + bytes(70_002),
    )
    np.testing.assert_array_equal(piped(wav(BODY, before=title + odd, after=title)), WAVE)


def test_bare_samples_are_read_at_their_rate() -> None:
    np.testing.assert_array_equal(piped(BODY, 16_000), WAVE)
    np.testing.assert_array_equal(piped(BODY + b"x", 16_000), WAVE)
    assert len(piped(BODY, 8_000)) == 32_000


def test_one_byte_at_a_time_is_read() -> None:
    np.testing.assert_array_equal(
        np.concatenate(list(read_pipe(Drip(wav(BODY[:2_000]), most=2)))), WAVE[:1_000]
    )


@pytest.mark.parametrize("raw", [None, 16_000])
def test_samples_are_given_while_the_pipe_is_open(raw: int | None) -> None:
    out, into = os.pipe()
    with open(out, "rb") as source, open(into, "wb", buffering=0) as writer:
        writer.write((BODY if raw else wav(BODY, 0xFFFFFFFF))[:6_001])
        blocks = read_pipe(source, raw)
        first = next(blocks)  # would wait for ever if more than what is there were asked for
        while len(first) < 2_900:
            first = np.concatenate((first, next(blocks)))
        np.testing.assert_array_equal(first, WAVE[: len(first)])


def pipe_error(data: bytes) -> str:
    with pytest.raises(AudioError) as info:
        piped(data)
    message = str(info.value)
    assert "\n" not in message and message.startswith("<stdin>: ")
    return message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty: 0 bytes came"),
        (b"OggS" + bytes(99), "no wav: begins with b'OggS"),
        (b"RIFX" + bytes(4) + b"WAVE", "no wav: begins with b'RIFX"),
        (b"RIFF", "cut off: ends in the header"),
        (wav(BODY)[:30], "cut off: ends in the header"),
        (
            wav(BODY)[:12] + wav(BODY)[36:],
            "wav of format 0, 0 bits, 0 channels at 0 Hz; expected format 1",
        ),
        (wav(BODY, shape=(1, 1, 16_000, 8)), "wav of format 1, 8 bits, 1 channels at 16000 Hz"),
        (wav(BODY, shape=(7, 1, 16_000, 8)), "wav of format 7"),
        (wav(BODY, shape=(1, 0, 16_000, 16)), "0 channels"),
        (wav(BODY, shape=(1, 1, 0, 16)), "at 0 Hz"),
        (wav(b""), "too short: 0 samples"),
        (wav(struct.pack("<f", np.nan), shape=(3, 1, 16_000, 32)), "NaN or infinity at 0.000 s"),
    ],
)
def test_pipe_that_holds_no_sound_is_said_in_a_line(data: bytes, said: str) -> None:
    assert said in pipe_error(data)


def test_what_came_before_a_pipe_broke_off_is_read() -> None:
    blocks, found = read_pipe(Drip(wav(BODY)[:-10_000])), []
    with pytest.raises(
        AudioError, match="cut off: the header promises 16000 samples, 11000 are there"
    ):
        found.extend(blocks)
    np.testing.assert_array_equal(np.concatenate(found), WAVE[:11_000])


# The microphone


class Microphone:
    """Stands for sounddevice: plays a wave at a rate, as a device that lost samples twice."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, wave: np.ndarray, rate: int) -> None:
        self.wave, self.rate, self.asked = wave, rate, {}

    def query_devices(self, kind: str) -> dict[str, float]:
        assert kind == "input"
        return {"default_samplerate": float(self.rate)}

    def InputStream(self, **asked: object) -> "Microphone":  # noqa: N802
        self.asked = asked
        return self

    def __enter__(self) -> "Microphone":
        return self

    def __exit__(self, *error: object) -> None:
        self.asked = {}

    def read(self, count: int) -> tuple[np.ndarray, bool]:
        if not len(self.wave):
            raise self.PortAudioError("Device unavailable [PaErrorCode -9985]")
        block, self.wave = self.wave[:count, None], self.wave[count:]
        return block, len(self.wave) < 10_000


def test_microphone_is_heard_at_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Microphone(tone(1, 48_000), 48_000)
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    notes: list[str] = []
    blocks, found = read_microphone(notes), []
    found.append(next(blocks))
    assert device.asked == {"samplerate": 48_000, "channels": 1, "dtype": "float32"}
    with pytest.raises(AudioError, match="microphone: Device unavailable"):
        found.extend(blocks)
    assert component(np.concatenate(found), 440) == pytest.approx(0.5, abs=0.01)
    assert notes == [
        "resampled from 48000 Hz",
        "samples were lost: this computer is too slow, or too busy",
    ]
    assert device.asked == {}, "closed"


# What a small file may cost


@pytest.mark.parametrize("rate", [1, 8, 999, 768_001, 2_000_000_000])
def test_a_rate_that_no_microphone_has_is_refused(tmp_path: Path, rate: int) -> None:
    """An AIFF of 16 KB with a rate of a few hertz took 2.8 s and 1.5 GB: it lasted for hours."""
    path = written(tmp_path / "a.wav", noise(16_000))
    data = bytearray(path.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(data)
    assert "expected a sample rate from 1,000 to 768,000 Hz" in error_of(path)


@pytest.mark.parametrize("rate", [1_000, 768_000])
def test_the_lowest_and_the_highest_rate_are_read(tmp_path: Path, rate: int) -> None:
    path = written(tmp_path / "a.wav", noise(rate // 10), rate)
    assert len(read_wave(path)) == pytest.approx(1_600, abs=1)


def test_a_pipe_of_an_impossible_rate_is_refused() -> None:
    with pytest.raises(AudioError, match="expected a sample rate"):
        list(read_pipe(Drip(b"\0" * 3_200), 8))


def test_a_header_with_many_channels_does_not_make_a_block_large(tmp_path: Path) -> None:
    """A header can claim 1,024 channels at 768 kHz; 60 s of that would be 190 GB."""
    path = tmp_path / "a.w64"
    soundfile.write(path, np.zeros((8_000, 1_024), np.int16), 768_000, "PCM_16", format="W64")
    tracemalloc.start()
    assert len(read_wave(path)) == pytest.approx(167, abs=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


def test_a_file_too_long_to_be_read_whole_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FLAC of silence of a few kilobytes can last for hours."""
    monkeypatch.setattr("speechrnn.audio.LONGEST_SECONDS", 120)
    path = written(tmp_path / "a.flac", np.zeros(121 * 16_000), kind=LOSSLESS["flac"])
    message = error_of(path)
    assert "longer than 2 minutes" in message and "speechrnn transcribe" in message
    assert sum(map(len, read_blocks(path))) == 121 * 16_000


@pytest.mark.parametrize("memory", [False, True])
def test_the_notes_of_the_mp3_decoder_stay_off_stderr(
    tmp_path: Path, memory: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """libmpg123 writes several lines for each fault that it meets; ours is one error, or none."""
    data = bytearray(written(tmp_path / "a.mp3", noise(48_000), kind=LOSSY["mp3"]).read_bytes())
    random = np.random.default_rng(0)
    for number in range(40):
        mutant = bytearray(data)
        for place in random.integers(0, len(data), 30):
            mutant[place] = random.integers(256)
        path = tmp_path / f"{number}.mp3"
        path.write_bytes(mutant)
        with contextlib.suppress(AudioError):
            read_wave(io.BytesIO(mutant) if memory else path)
    assert capfd.readouterr().err == ""


LOSSY_SPEECH = CLIPS.parent / "speech" / "validation" / "27-123349-0018.opus"


@pytest.mark.skipif(not LOSSY_SPEECH.exists(), reason="needs the real speech beside the checkout")
def test_an_opus_file_of_which_libsndfile_promises_too_much_leaves_a_note() -> None:
    notes: list[str] = []
    assert len(read_wave(LOSSY_SPEECH, notes)) == 223_840
    assert notes == ["ends at 13.99 s, not at 14.99 s"]


def test_stderr_works_again_after_an_mp3(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read_wave(written(tmp_path / "a.mp3", noise(16_000), kind=LOSSY["mp3"]))
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"

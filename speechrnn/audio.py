"""Audio as float32 mono at 16 kHz: files whole or in blocks, pipes and the microphone as they come.

In: a path or a binary file object, of any format that libsndfile reads (wav, FLAC, Ogg Vorbis and
Opus, MP3, ...), or a pipe with a wav or bare samples; rates from 1 to 768 kHz, any number of
channels. Out: numpy arrays (n,); a whole file is the concatenation of its blocks, so both give the
very same samples. What cannot be read, or is not all there, is an `AudioError`. It knows nothing of
models or features.
"""

import io
import math
import os
import re
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from speechrnn.config import CLIP_SAMPLES, SAMPLE_RATE

INT16_SCALE = 32_768  # a 16-bit sample of full scale

RATES_HZ = (1_000, 768_000)  # a lower one, in a damaged header, would make a small file endless
LONGEST_SECONDS = 3_600  # of a file that is read whole: 230 MB

_SUFFIXES = (
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64",
    ".w64", ".wav",
)  # fmt: skip
# Where it is not 1, or a fraction.
_SAMPLE_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_BLOCK_NUMBERS = 4_000_000  # at most in a block, all channels together: 16 MB
# libsndfile shortens a wav, AIFF, AU, W64 or RF64 file that is cut off to what is there, and says
# so in its log alone.
_SHORTENED = re.compile(
    r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE
)
_STDERR_LOCK = threading.Lock()
_UNKNOWN_FRAMES = 2**63 - 1  # what libsndfile reports for a FLAC that was written to a pipe
_PIPE_BYTES = 65_536  # taken from a pipe at once: what one of Linux holds
_PIPE_KINDS = {
    (1, 16): "<i2",
    (1, 24): "<i3",
    (1, 32): "<i4",
    (3, 32): "<f4",
}  # by the wav's format tag and bits of a sample
_MICROPHONE_SECONDS = 0.1  # heard at once: so often a meter moves


class AudioError(ValueError):
    """Audio that cannot be used, said in one line: the file, what is wrong with it, what to do."""


def as_wave(array: np.ndarray, least: int = 0) -> np.ndarray:
    """An array checked to be mono audio: float32 (n,), finite, full scale +-1 at 16 kHz.

    Args:
        array: (n,) of any float type.
        least: samples that it must hold.

    Raises:
        ValueError: if it is something else.
    """
    wave = np.asarray(array)
    if (
        wave.ndim != 1
        or len(wave) < least
        or not np.issubdtype(wave.dtype, np.floating)
        or not np.isfinite(wave).all()
    ):
        raise ValueError(
            f"audio is an array of shape {wave.shape} and type {wave.dtype}: expected (n,) finite "
            f"floats at {SAMPLE_RATE} Hz, full scale +-1; for 16-bit samples divide by 32768"
        )
    return wave.astype(np.float32, copy=False)


def to_int16(wave: np.ndarray) -> np.ndarray:
    """Floats of full scale +-1 as 16-bit samples; what is louder is clipped."""
    return (wave * INT16_SCALE).round().clip(-INT16_SCALE, INT16_SCALE - 1).astype(np.int16)


def from_int16(samples: np.ndarray) -> np.ndarray:
    """16-bit samples as float32 of full scale +-1."""
    return samples.astype(np.float32) / np.float32(INT16_SCALE)


def loudest_second(wave: np.ndarray) -> np.ndarray:
    """A clip (16000,) of a wave (N,): the loudest second of a longer one, silence after a shorter.

    Silence is filled in at the end, as in Speech Commands.
    """
    if len(wave) > CLIP_SAMPLES:
        energy = np.cumsum(np.concatenate(([0], wave.astype(np.float64) ** 2)))
        start = int((energy[CLIP_SAMPLES:] - energy[:-CLIP_SAMPLES]).argmax())
        return wave[start : start + CLIP_SAMPLES]
    return np.pad(wave, (0, CLIP_SAMPLES - len(wave)))


def from_pcm(data: bytes, kind: str, channels: int) -> np.ndarray:
    """Samples as bytes, those of all channels in turn, as float32 (n, channels) of full scale +-1.

    Args:
        data: whole samples of all channels.
        kind: numpy's name of the type: |u1 (as in a wav, silence is 128), <i2, <i3, <i4 or <f4.
        channels: how many.
    """
    if kind == "<i3":  # numpy has none: below it a byte of zeros
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = padded.view("<i4")
    else:
        samples = np.frombuffer(data, kind)
    full_scale = 1 if kind == "<f4" else 2 ** (8 * samples.itemsize - 1)
    wave = samples.astype(np.float32).reshape(-1, channels)
    if kind == "|u1":
        wave -= full_scale
    wave /= np.float32(full_scale)
    return wave


def read_blocks(
    source: str | os.PathLike[str] | BinaryIO,
    block_seconds: float = 1.0,
    notes: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """Reads audio in blocks, in constant memory whatever its length.

    Args:
        source: path, or binary file object, which is read from its start and left open. A pipe, and
            a wav whose writer left its size at 0, are first read into memory.
        block_seconds: length of a block, in seconds. It changes how many samples come at a time,
            never their values.
        notes: what was changed is appended here: "resampled from 44100 Hz", "mixed down from 2
            channels".

    Yields:
        float32 (n,), n >= 1, mono at 16 kHz; integer formats span -1 to 1.

    Raises:
        AudioError: missing, unreadable, not audio, cut off, no samples, or a value that is not
            finite. An Ogg file is as long as what is there, since nothing in it says how long it
            should be.
        ValueError: `block_seconds` is not above 0.
    """
    if not 0 < block_seconds < math.inf:
        raise ValueError(f"block_seconds is {block_seconds}; expected a number above 0")
    name = _name(source)
    notes = [] if notes is None else notes
    with _open(source, name) as sound:
        yield from _convert(
            _read_open(sound, name, block_seconds, notes),
            name,
            sound.samplerate,
            sound.channels,
            notes,
        )


def read_pipe(
    source: BinaryIO, raw_rate: int | None = None, notes: list[str] | None = None
) -> Iterator[np.ndarray]:
    """Reads a wav, or bare samples, as they come: what is there is given on before more is awaited.

    Args:
        source: binary file object that need not be seekable. Its wav holds integers of 16, 24 or 32
            bits or floats of 32, and may leave open how long it is, as ffmpeg, sox and arecord do
            in a pipe.
        raw_rate: for samples without a header, 16 bit little-endian mono, their rate in Hz.
        notes: as in `read_blocks`.

    Yields:
        float32 (n,), n >= 1, mono at 16 kHz.

    Raises:
        AudioError: no wav, a wav of another kind, cut off, no samples, or a value that is not
            finite.
    """
    name = _name(source)
    # One read of the system gives what is there; `read` of a buffered file would wait for all that
    # was asked for.
    read: Callable[[int], bytes] = getattr(source, "read1", source.read)
    rate, channels, kind, size = (
        _read_header(read, name) if raw_rate is None else (raw_rate, 1, "<i2", math.inf)
    )
    yield from _convert(
        _read_samples(read, name, kind, channels, size),
        name,
        rate,
        channels,
        [] if notes is None else notes,
    )


def read_microphone(notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """Hears the default input device, without end.

    Args:
        notes: as in `read_blocks`; also said once is that samples were lost, where the reader was
            too slow.

    Yields:
        float32 (n,), n >= 1, mono at 16 kHz.

    Raises:
        AudioError: sounddevice, PortAudio or an input device is missing, or the device fails.
    """
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise AudioError(
            "the microphone needs sounddevice, which is not installed: type "
            "pip install 'speechrnn[listen]'"
        ) from error
    except OSError as error:
        raise AudioError(
            f"the microphone needs PortAudio ({error}): install it, on Debian "
            "`apt install libportaudio2`"
        ) from error
    notes = [] if notes is None else notes
    try:
        rate = round(sounddevice.query_devices(kind="input")["default_samplerate"])
        with sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32") as device:
            yield from _convert(_read_device(device, rate, notes), "microphone", rate, 1, notes)
    except sounddevice.PortAudioError as error:
        raise AudioError(
            f"microphone: {error}; connect one, and see whether `python -m sounddevice` lists it "
            "with >"
        ) from error


def read_wave(
    source: str | os.PathLike[str] | BinaryIO, notes: list[str] | None = None
) -> np.ndarray:
    """Reads a whole file: the concatenation of `read_blocks`, with its arguments and errors.

    Returns:
        float32 (n,), n >= 1, mono at 16 kHz.
    """
    blocks, samples = [], 0
    for block in read_blocks(source, 60.0, notes):
        blocks.append(block)
        samples += len(block)
        if samples > LONGEST_SECONDS * SAMPLE_RATE:
            raise AudioError(
                f"{_name(source)}: longer than {LONGEST_SECONDS // 60} minutes, the most that is "
                "read whole: find its words with `speechrnn transcribe`"
            )
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def find_audio(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Lists audio files: in the order given, each folder replaced by the audio files below it.

    A path that is not a folder is kept whatever its suffix, and also if it is missing: reading it
    gives the error. Hidden files and folders in folders are left out: macOS puts a `._yes.wav`, no
    audio, beside `yes.wav` on foreign disks, and what is unfinished lies in hidden folders.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(file for file in _shown(path) if file.suffix.lower() in _SUFFIXES)
        else:
            found.append(path)
    return found


def _shown(folder: Path) -> Iterator[Path]:
    """The files below a folder without the hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        yield from (Path(place, name) for name in names if name[0] != ".")


def _name(source: str | os.PathLike[str] | BinaryIO) -> str:
    name = str(
        source
        if isinstance(source, str | os.PathLike)
        else getattr(source, "name", "audio in memory")
    )
    return name if name.isprintable() else repr(name)


def _convert(
    blocks: Iterable[np.ndarray], name: str, rate: int, channels: int, notes: list[str]
) -> Iterator[np.ndarray]:
    """Float32 blocks (n, channels) at `rate` Hz as blocks (n,), n >= 1, at 16 kHz.

    What was changed is appended to `notes`.
    """
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise AudioError(
            f"{name}: {rate} Hz: expected a sample rate from {RATES_HZ[0]:,} to {RATES_HZ[1]:,} "
            "Hz; resample it, or correct its header"
        )
    if channels > 1:
        notes.append(f"mixed down from {channels} channels")
    if rate != SAMPLE_RATE:
        import soxr

        notes.append(f"resampled from {rate} Hz")
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, num_channels=1, dtype="float32")
    read = written = 0
    end = np.empty((0, channels), np.float32)
    for block in chain(blocks, (end,)):
        # Values beyond 1 (float files, the overshoot of lossy decoders) are kept: clipping adds
        # distortion that no microphone heard, while a louder signal is only an offset in a log
        # spectrum.
        wave = block[:, 0] if channels == 1 else block.mean(axis=1)
        if not (finite := np.isfinite(wave)).all():
            seconds = (read + int(finite.argmin())) / rate
            raise AudioError(
                f"{name}: NaN or infinity at {seconds:.3f} s, not a number; export the file again"
            )
        read += len(wave)
        if rate != SAMPLE_RATE:
            wave = resampler.resample_chunk(wave, last=block is end)
        written += len(wave)
        if len(wave):
            yield wave
    if not written:
        raise AudioError(
            f"{name}: too short: {read} samples at {rate} Hz, expected 1 or more at "
            f"{SAMPLE_RATE} Hz"
        )


def _read_open(
    sound: Any, name: str, block_seconds: float, notes: list[str]
) -> Iterator[np.ndarray]:
    """Blocks (n, channels) of an open file; an error after the last if its header promised more."""
    rate, frames = sound.samplerate, sound.frames
    most = _BLOCK_NUMBERS // sound.channels
    block_frames = max(1, round(min(block_seconds * rate, frames, most)))
    read = 0
    try:
        while len(block := _read_block(sound, block_frames)):
            read += len(block)
            yield block
    except soundfile.LibsndfileError as error:
        raise _cut_off(name, frames, sound.tell()) from error
    if read < frames < _UNKNOWN_FRAMES:
        # Without a Xing header the length of an MP3 is a guess of libsndfile's; and of some Opus
        # files with lost packets it promises more than it decodes. Neither need be an error.
        if sound.format not in ("MP3", "OGG"):
            raise _cut_off(name, frames, read)
        notes.append(f"ends at {read / rate:.2f} s, not at {frames / rate:.2f} s")


def _read_block(sound: Any, frames: int) -> np.ndarray:
    with _quiet_decoder(sound.format == "MP3"):
        block: np.ndarray = sound.read(frames, dtype="float32", always_2d=True)
        return block


@contextmanager
def _quiet_decoder(is_mp3: bool) -> Iterator[None]:
    """Keep libmpg123 from writing notes to stderr, many lines for a damaged file.

    It writes to the process's file descriptor 2, which is therefore another one meanwhile; a lock
    keeps threads that read several files from restoring the wrong one.
    """
    if not is_mp3:
        yield
        return
    with _STDERR_LOCK, open(os.devnull, "wb") as nothing:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _read_header(read: Callable[[int], bytes], name: str) -> tuple[int, int, str, float]:
    """The header of a wav, up to its samples.

    Returns:
        Rate (Hz), channels, numpy type of a sample, and size of all samples (bytes).
    """
    head = read(1)
    if not head:
        raise AudioError(f"{name}: empty: 0 bytes came; see what the command before the pipe says")
    head += _exactly(read, 11, name)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise AudioError(
            f"{name}: no wav: begins with {head!r}, expected b'RIFF....WAVE'; put "
            "`ffmpeg -i FILE -f wav -` before the pipe, or type --raw RATE for samples without a "
            "header"
        )
    kind, rate, channels, bits, tag = None, 0, 0, 0, 0
    while True:
        chunk, size = struct.unpack("<4sI", _exactly(read, 8, name))
        if chunk == b"data":
            break
        while size > _PIPE_BYTES:
            size -= len(_exactly(read, _PIPE_BYTES, name))
        body = _exactly(read, size + size % 2, name)  # chunks begin at even bytes
        if chunk == b"fmt " and size >= 16:
            tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if tag == 0xFFFE and size >= 26:  # extensible: the tag begins the format's long name
                tag = int.from_bytes(body[24:26], "little")
            kind = _PIPE_KINDS.get((tag, bits))
    if kind is None or not rate or not channels:
        raise AudioError(
            f"{name}: wav of format {tag}, {bits} bits, {channels} channels at {rate} Hz; expected "
            "format 1 (integers) of 16, 24 or 32 bits or 3 (floats) of 32, 1 channel or more: "
            "convert it with `ffmpeg -i - -c:a pcm_s16le -f wav -`"
        )
    return rate, channels, kind, size if size and _is_meant(size) else math.inf


def _exactly(read: Callable[[int], bytes], count: int, name: str) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := read(count - len(data))):
            raise AudioError(
                f"{name}: cut off: ends in the header of its wav; see what the command before the "
                "pipe says"
            )
        data += more
    return data


def _read_samples(
    read: Callable[[int], bytes], name: str, kind: str, channels: int, size: float
) -> Iterator[np.ndarray]:
    """Blocks (n, channels) of float32 as they come, of `size` bytes (may be infinite)."""
    width = int(kind[-1])
    frame_bytes = width * channels
    read_bytes, rest = 0, b""
    while read_bytes < size and (data := read(int(min(_PIPE_BYTES, size - read_bytes)))):
        read_bytes += len(data)
        data = rest + data
        whole = len(data) - len(data) % frame_bytes
        data, rest = data[:whole], data[whole:]  # a read may end within a sample
        yield from_pcm(data, kind, channels)
    if read_bytes < size < math.inf:
        raise _cut_off(name, int(size) // frame_bytes, read_bytes // frame_bytes)


def _read_device(device: Any, rate: int, notes: list[str]) -> Iterator[np.ndarray]:
    lost = "samples were lost: this computer is too slow, or too busy"
    while True:
        block, overflowed = device.read(round(_MICROPHONE_SECONDS * rate))
        if overflowed and lost not in notes:
            notes.append(lost)
        yield block


def _is_meant(size: int) -> bool:
    """Whether a wav's data size can be true.

    Into a pipe sox writes 0x7FFFF000, arecord 0x80000000 and ffmpeg 0xFFFFFFFF.
    """
    return all(abs(size - limit) > 8192 for limit in (2**31, 2**32))


@contextmanager
def _open(source: str | os.PathLike[str] | BinaryIO, name: str) -> Iterator[Any]:
    """Opens a source as a `SoundFile`, checked for its length; closes what was opened here."""
    with ExitStack() as stack:
        try:
            path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
            file: Any = source if path is None else stack.enter_context(open(path, "rb"))
            if not file.seekable():
                path, file = None, io.BytesIO(file.read())
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            reason = getattr(error, "strerror", None) or error
            raise AudioError(
                f"{name}: cannot be opened: {reason}; check the path and its permissions"
            ) from error
        if size == 0:
            raise AudioError(f"{name}: empty: 0 bytes; copy or record it again")
        head = file.read(3)
        file.seek(0)
        # MP3 begins with an ID3 tag or with eleven bits that are set.
        is_mp3 = head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
        try:
            # Given the path, libsndfile is faster, and silent where the callbacks for file objects
            # print tracebacks.
            with _quiet_decoder(is_mp3 or name.lower().endswith(".mp3")):
                opened = soundfile.SoundFile(os.fsencode(path) if path else file)
            sound = stack.enter_context(opened)
            if (
                sound.frames == 0
                and sound.format in ("WAV", "WAVEX")
                and (filled := _fill_in_size(file, size))
            ):
                sound = stack.enter_context(soundfile.SoundFile(filled))
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip(" .")
            raise AudioError(
                f"{name}: not readable as audio: {reason}; copy it again or convert it to wav"
            ) from error
        # `SoundFile.read` seeks after every read of a seekable file (soundfile 0.14, `_cdata_io`),
        # which restarts the decoder: MP3 and Opus then depend on the block size, and a FLAC of
        # unknown length fails at its end.
        sound.seekable = lambda: False
        if match := _SHORTENED.search(sound.extra_info):
            promised, there = map(int, match.groups())
            if promised > there and _is_meant(promised):
                frame_bytes = (
                    _SAMPLE_BYTES.get(sound.subtype, 0) * sound.channels
                    or there / max(sound.frames, 1)
                    or 1
                )
                raise _cut_off(
                    name, sound.frames + math.ceil((promised - there) / frame_bytes), sound.frames
                )
        yield sound


def _fill_in_size(file: BinaryIO, size: int) -> io.BytesIO | None:
    """Repairs a wav of `size` bytes whose writer left the data size at 0 (a pipe, a crash)."""
    file.seek(0)
    head = file.read(4096)
    start = head.find(b"data\0\0\0\0") + 8
    after, after_size = (
        head[start : start + 4].strip(),
        int.from_bytes(head[start + 4 : start + 8], "little"),
    )
    if start < 8 or start == size or (after.isalnum() and start + 8 + after_size <= size):
        return None  # truly without samples: nothing follows, or another chunk does
    return io.BytesIO(head[: start - 4] + b"\xff" * 4 + head[start:] + file.read())


def _cut_off(name: str, promised: int, there: int) -> AudioError:
    promise = "" if promised == _UNKNOWN_FRAMES else f"the header promises {promised} samples, "
    return AudioError(f"{name}: cut off: {promise}{there} are there; copy the file again")

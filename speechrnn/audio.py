"""Audio files as float32 mono at 16 kHz, whole or in blocks.

In: a path or a binary file object, of any format that libsndfile reads (wav, FLAC, Ogg Vorbis and Opus, MP3, ...), any
sample rate, any number of channels. Out: numpy arrays (n,); a whole file is the concatenation of its blocks, so both
give the very same samples. What cannot be read, or is not all there, is an `AudioError`.

It knows nothing of torch, models or features.
"""

import io
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

SAMPLE_RATE = 16_000

_SUFFIXES = {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav"}
_SAMPLE_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}  # where it is not 1, or a fraction
# libsndfile shortens a wav, AIFF, AU, W64 or RF64 file that is cut off to what is there, and says so in its log alone.
_SHORTENED = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_UNKNOWN_FRAMES = 2**63 - 1  # what libsndfile reports for a FLAC that was written to a pipe


class AudioError(ValueError):
    """Audio that cannot be used, said in one line: the file, what is wrong with it, what to do."""


def read_blocks(
    source: str | os.PathLike[str] | BinaryIO, block_seconds: float = 1.0, notes: list[str] | None = None
) -> Iterator[np.ndarray]:
    """Reads audio in blocks, in constant memory whatever its length.

    Args:
        source: path, or binary file object, which is read from its start and left open. A pipe, and a wav whose writer
            left its size at 0, are first read into memory.
        block_seconds: length of a block, in seconds. It changes how many samples come at a time, never their values.
        notes: what was changed is appended here: "resampled from 44100 Hz", "mixed down from 2 channels".

    Yields:
        float32 (n,), n >= 1, mono at 16 kHz; integer formats span -1 to 1.

    Raises:
        AudioError: missing, unreadable, not audio, cut off, no samples, or a value that is not finite. An Ogg file is
            as long as what is there, since nothing in it says how long it should be.
        ValueError: `block_seconds` is not above 0.
    """
    if not 0 < block_seconds < math.inf:
        raise ValueError(f"block_seconds is {block_seconds}; expected a number above 0")
    name = str(source if isinstance(source, str | os.PathLike) else getattr(source, "name", "audio in memory"))
    name = name if name.isprintable() else repr(name)
    notes = [] if notes is None else notes
    with _open(source, name) as sound:
        rate, channels, frames = sound.samplerate, sound.channels, sound.frames
        if channels > 1:
            notes.append(f"mixed down from {channels} channels")
        if rate != SAMPLE_RATE:
            import soxr

            notes.append(f"resampled from {rate} Hz")
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE, num_channels=1, dtype="float32")
        block_frames = max(1, round(min(block_seconds * rate, frames)))
        read = written = 0
        last = False
        while not last:
            try:
                block = sound.read(block_frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise _cut_off(name, frames, sound.tell()) from error
            # Values beyond 1 (float files, the overshoot of lossy decoders) are kept: clipping adds distortion that no
            # microphone heard, while a louder signal is only an offset in a log spectrum.
            wave = block[:, 0] if channels == 1 else block.mean(axis=1)
            if not (finite := np.isfinite(wave)).all():
                seconds = (read + int(finite.argmin())) / rate
                raise AudioError(f"{name}: NaN or infinity at {seconds:.3f} s, not a number; export the file again")
            read += len(wave)
            last = len(wave) == 0
            if rate != SAMPLE_RATE:
                wave = resampler.resample_chunk(wave, last=last)
            written += len(wave)
            if len(wave):
                yield wave
        if read < frames < _UNKNOWN_FRAMES:
            # Without a Xing header the length of an MP3 is a guess of libsndfile's, so this need not be an error.
            if sound.format != "MP3":
                raise _cut_off(name, frames, read)
            notes.append(f"ends at {read / rate:.2f} s, not at {frames / rate:.2f} s")
        if not written:
            raise AudioError(f"{name}: too short: {read} samples at {rate} Hz, expected 1 or more at {SAMPLE_RATE} Hz")


def read_wave(source: str | os.PathLike[str] | BinaryIO, notes: list[str] | None = None) -> np.ndarray:
    """Reads a whole file: the concatenation of `read_blocks`, with its arguments and errors.

    Returns:
        float32 (n,), n >= 1, mono at 16 kHz.
    """
    blocks = list(read_blocks(source, 60.0, notes))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def find_audio(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Lists audio files: files in the order given, each folder replaced by the audio files below it, sorted.

    A path that is not a folder is kept whatever its suffix, and also if it is missing: reading it gives the error.
    Hidden files in folders are left out (macOS puts a `._yes.wav`, no audio, beside `yes.wav` on foreign disks).
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
            found += sorted(file for file in files if file.suffix.lower() in _SUFFIXES and file.name[0] != ".")
        else:
            found.append(path)
    return found


@contextmanager
def _open(source: str | os.PathLike[str] | BinaryIO, name: str) -> Iterator[Any]:
    """Opens a source as a `SoundFile` at its start, checked for its length; closes all that was opened here."""
    with ExitStack() as stack:
        try:
            path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
            file: Any = source if path is None else stack.enter_context(open(path, "rb"))
            if not file.seekable():
                path, file = None, io.BytesIO(file.read())
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
        except (OSError, ValueError) as error:  # ValueError: a null character in the path, or a closed file object
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{name}: cannot be opened: {reason}; check the path and its permissions") from error
        if size == 0:
            raise AudioError(f"{name}: empty: 0 bytes; copy or record it again")
        try:
            # Given the path, libsndfile is faster, and silent where the callbacks for file objects print tracebacks.
            sound = stack.enter_context(soundfile.SoundFile(os.fsencode(path) if path else file))
            if sound.frames == 0 and sound.format in ("WAV", "WAVEX") and (filled := _fill_in_size(file, size)):
                sound = stack.enter_context(soundfile.SoundFile(filled))
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip(" .")
            raise AudioError(f"{name}: not readable as audio: {reason}; copy it again or convert it to wav") from error
        # `SoundFile.read` seeks after every read of a seekable file (soundfile 0.14, `_cdata_io`), which restarts the
        # decoder: MP3 and Opus then depend on the block size, and a FLAC of unknown length fails at its end.
        sound.seekable = lambda: False
        if match := _SHORTENED.search(sound.extra_info):
            promised, there = map(int, match.groups())
            # Writers to a pipe promise about 2 or 4 GiB: sox 0x7FFFF000, arecord 0x80000000, ffmpeg 0xFFFFFFFF.
            if promised > there and all(abs(promised - limit) > 8192 for limit in (2**31, 2**32)):
                frame_bytes = _SAMPLE_BYTES.get(sound.subtype, 0) * sound.channels or there / max(sound.frames, 1) or 1
                raise _cut_off(name, sound.frames + math.ceil((promised - there) / frame_bytes), sound.frames)
        yield sound


def _fill_in_size(file: BinaryIO, size: int) -> io.BytesIO | None:
    """Repairs a wav of `size` bytes whose writer could not come back to set the data size (a pipe, a crash) from 0."""
    file.seek(0)
    head = file.read(4096)
    start = head.find(b"data\0\0\0\0") + 8
    after, after_size = head[start : start + 4].strip(), int.from_bytes(head[start + 4 : start + 8], "little")
    if start < 8 or start == size or (after.isalnum() and start + 8 + after_size <= size):
        return None  # truly without samples: nothing follows, or another chunk does
    return io.BytesIO(head[: start - 4] + b"\xff" * 4 + head[start:] + file.read())


def _cut_off(name: str, promised: int, there: int) -> AudioError:
    promise = "" if promised == _UNKNOWN_FRAMES else f"the header promises {promised} samples, "
    return AudioError(f"{name}: cut off: {promise}{there} are there; copy the file again")

"""Speech from text: Kokoro-82M speaks phonemes in 54 voices, and lists of words are cut into words.

In: phonemes, a voice and a speed. Out: float32 (N,) at 24 kHz with the number of frames that each
phoneme takes, or one wave (N,) at 16 kHz for each word of a list. A word that is spoken alone has
stretched first and last sounds, so words are cut out of spoken lists, at the pauses between them.
The module needs kokoro-onnx and onnx, which the extra `speak` installs. It does not know corpora,
files of clips, or whether a word can be understood.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from speechrnn.config import SAMPLE_RATE

KOKORO_RATE = 24_000  # samples a second
FRAMES_A_SECOND = 40  # Kokoro counts the length of a phoneme in frames of 25 ms
MOST_PHONEMES = 510  # Source: the size of Kokoro-82M's voices, (510, 1, 256)
LIST_WORDS = 7  # in one spoken list, after LEAD
LEAD = "okay"  # The first word of a list is stretched, so it is one that nobody asked for.
PAUSE = "."
GET_MODEL = "recipes/get_kokoro.sh writes both files of the model"

# Without limits the last sound before a pause is stretched, and pauses are too short to cut at.
# Source: words of lists in English voices that Whisper tiny.en understood. Of 70 spoken and cut in
# the middle of pauses: 39 with these frames; 28 without SPACE_FRAMES (and none of "no", "on",
# "marvin"); 26 with 6 and 10 frames; 37 with 20 and 1, which take longer.
PAUSE_FRAMES = 12  # 0.3 s at least, for the mark behind a word
SPACE_FRAMES = 8  # at least, for the space behind the mark: vowels run on into the mark
STOP_FRAMES, OTHER_FRAMES = 4, 8  # at most, for the last two consonants before a pause
# Source: of 252 words of lists, half of them easily confused. Cut from a pause to the middle of the
# next, at -38 dB, 146 were understood; at -28 dB 168; with an end shortly behind the last sound,
# where Kokoro often adds a vowel ("kept" becomes "captain"), 199.
QUIET_DB = -28.0  # below the loudest 5 ms of a list, where a pause is
QUIET_SECONDS = 0.02  # at least, in a row
TAIL_SECONDS, FADE_SECONDS = 0.04, 0.03  # behind the last sound of a word, and faded out

_STOPS, _OTHERS = set("ptkbdɡ"), set("fvszʃnmlɹθ")  # noqa: RUF001 (phonemes)
_INPUTS = ["tokens", "style", "speed"]
_DURATION = "/encoder/Clip_output_0"  # frames of each token, inside the graph
_NO_LIMIT = 1e4  # frames


class Synthesiser(Protocol):
    """What the rendering needs of a synthesiser; `Kokoro` is the one for real work."""

    voices: tuple[str, ...]
    checksum: str

    def phonemes(self, text: str, voice: str) -> str:
        """The phonemes of a text, one letter each."""
        ...

    def speak(
        self, phonemes: str, voice: str, speed: float, least: np.ndarray, most: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The wave (N,) at 24 kHz, and the frames of each phoneme."""
        ...


class Kokoro:
    """Kokoro-82M (Apache-2.0) as an ONNX graph that tells and obeys the lengths of phonemes.

    Args:
        folder: holds `model.onnx`, the int8 export of version 1.0, and `voices.npz`.

    Attributes:
        voices: names, sorted. The first letter tells the language (a American, b British English),
            the second f or m.
        checksum: SHA-256 of `model.onnx`, in hexadecimal.

    Raises:
        RuntimeError: kokoro-onnx or onnx is not installed.
        OSError: a file is missing or cannot be read.
        ValueError: a file is cut off or is not what is expected.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            import onnx  # noqa: F401  # refused now where it is missing
            import onnxruntime
            from kokoro_onnx.tokenizer import Tokenizer
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"speech from text needs {error.name}, which is not installed: "
                "type pip install 'speechrnn[speak]'"
            ) from error
        path = Path(folder) / "model.onnx"
        graph = _read(path)
        self._styles = _read_voices(Path(folder) / "voices.npz")
        self.voices = tuple(sorted(self._styles))
        self.checksum = hashlib.sha256(graph).hexdigest()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; it warns of shapes that the export left open
        # One thread: the same samples whatever the number of cores, and room for other processes.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            _with_limits(graph, path), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer()

    def phonemes(self, text: str, voice: str) -> str:
        """The phonemes of a text as letters of the International Phonetic Alphabet, one each.

        Source: espeak-ng, by way of kokoro-onnx.
        """
        language = "en-gb" if voice.startswith("b") else "en-us"
        known = self._tokenizer.known(self._tokenizer.phonemize(text, language))
        return " ".join(known.split())

    def speak(
        self, phonemes: str, voice: str, speed: float, least: np.ndarray, most: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Speak.

        Args:
            phonemes: 1 to 510 of them.
            voice: one of `voices`.
            speed: 1 is normal, 0.5 to 2.
            least: (phonemes,) frames of 25 ms that each takes at least.
            most: (phonemes,) frames of 25 ms that each takes at most.

        Returns:
            float32 (N,) at 24 kHz, and (phonemes + 2,) frames of the silence before, of each
            phoneme, and of the silence behind.
        """
        tokens = self._tokenizer.tokenize(phonemes)
        wave, frames = self._session.run(
            None,
            {
                "tokens": np.array([[0, *tokens, 0]], np.int64),
                "style": self._styles[voice][len(tokens) - 1],
                "speed": np.array([speed], np.float32),
                "least": np.pad(least, 1, constant_values=1)[None].astype(np.float32),
                "most": np.pad(most, 1, constant_values=_NO_LIMIT)[None].astype(np.float32),
            },
        )
        return np.asarray(wave, np.float32).ravel(), np.asarray(frames).ravel()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: there is no such file; {GET_MODEL}") from error


def _read_voices(path: Path) -> dict[str, np.ndarray]:
    """The styles of each voice, float32 (510, 1, 256): one for each number of phonemes."""
    import io
    import zipfile

    data = io.BytesIO(_read(path))
    try:
        zipfile.ZipFile(data).close()  # `np.load` would read other kinds of files too
        with np.load(data) as archive:
            styles = {name: np.asarray(archive[name], np.float32) for name in archive.files}
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{path}: not a whole archive of arrays ({error}); {GET_MODEL}") from error
    for name, style in styles.items():
        if style.shape != (MOST_PHONEMES, 1, 256):
            raise ValueError(
                f"{path}: voice {name} has the shape {style.shape}, expected (510, 1, 256) as in "
                f"Kokoro-82M 1.0; {GET_MODEL}"
            )
    return styles


def _with_limits(graph: bytes, path: Path) -> bytes:
    """The graph with two more inputs, `least` and `most` (1, tokens), and the output `duration`.

    The frames that it computes for each token are held between the two, before anything uses them.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(graph)
    except DecodeError as error:
        raise ValueError(
            f"{path}: {len(graph)} bytes that are not a whole ONNX model; {GET_MODEL}"
        ) from error
    nodes = model.graph.node
    inputs = [value.name for value in model.graph.input]
    made = next((i for i, node in enumerate(nodes) if _DURATION in node.output), None)
    if inputs != _INPUTS or made is None:
        raise ValueError(
            f"{path}: the inputs are {', '.join(inputs) or 'none'}; expected {', '.join(_INPUTS)} "
            f"and a tensor {_DURATION}, as in the int8 export of Kokoro-82M 1.0; {GET_MODEL}"
        )
    for node in nodes:
        for i, name in enumerate(node.input):
            if name == _DURATION:
                node.input[i] = "duration"
    nodes.insert(made + 1, onnx.helper.make_node("Max", [_DURATION, "least"], ["duration_least"]))
    nodes.insert(made + 2, onnx.helper.make_node("Min", ["duration_least", "most"], ["duration"]))
    kind = onnx.TensorProto.FLOAT
    shape: list[int | str] = [1, "sequence_length"]
    for name in ("least", "most"):
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    model.graph.output.append(onnx.helper.make_tensor_value_info("duration", kind, shape))
    return bytes(model.SerializeToString())


def speak_words(
    synthesiser: Synthesiser, words: Sequence[str], voice: str, speed: float
) -> list[np.ndarray | None]:
    """Speak a list of words and cut it.

    Args:
        synthesiser: speaks.
        words: as many as fit into a list; seven do.
        voice: one of the synthesiser's.
        speed: 1 is normal.

    Returns:
        For each word float32 (N,) at 16 kHz without the silence around it, or None where no pause
        was found before it.

    Raises:
        ValueError: a word has no phonemes.
    """
    spoken = [pronounce(synthesiser, word, voice) for word in (LEAD, *words)]
    phonemes = f"{PAUSE} ".join(spoken) + PAUSE
    wave, frames = synthesiser.speak(phonemes, voice, speed, *_limits(phonemes))
    pieces: list[np.ndarray | None] = []
    for first, last in _find_words(wave, phonemes, frames):
        piece = None if first is None or first >= last else _fade_out(wave[first:last])
        pieces.append(None if piece is None else _to_16_khz(trim(piece, KOKORO_RATE)))
    return pieces


def speak_text(synthesiser: Synthesiser, text: str, voice: str, speed: float) -> np.ndarray:
    """Speak a sentence or a few.

    Returns:
        float32 (N,) at 16 kHz, with a fifth of a second of near silence at both ends.

    Raises:
        ValueError: the text has no phonemes, or more than 510.
    """
    phonemes = pronounce(synthesiser, text, voice)
    least, most = np.ones(len(phonemes)), np.full(len(phonemes), _NO_LIMIT)
    wave, _ = synthesiser.speak(phonemes, voice, speed, least, most)
    return _to_16_khz(trim(wave, KOKORO_RATE, pad_seconds=0.2))


def pronounce(synthesiser: Synthesiser, text: str, voice: str) -> str:
    """The phonemes of a text, checked.

    Raises:
        ValueError: there are none, or more than 510.
    """
    phonemes = synthesiser.phonemes(text, voice)
    if not any(phoneme.isalpha() for phoneme in phonemes):
        raise ValueError(f"{text!r} cannot be pronounced: it has no phonemes; write it in letters")
    if len(phonemes) > MOST_PHONEMES:
        raise ValueError(
            f"{text[:40]!r}... has {len(phonemes)} phonemes, expected at most {MOST_PHONEMES}: "
            "write it on several lines"
        )
    return phonemes


def trim(wave: np.ndarray, rate: int, pad_seconds: float = 0.02) -> np.ndarray:
    """A wave (N,) from its first to its last 5 ms within 40 dB of the loudest, and the pad."""
    hop = rate // 200
    levels = _levels(wave, hop)
    if not len(levels):
        return wave
    loud = np.flatnonzero(levels > levels.max() - 40)
    pad = round(pad_seconds * rate)
    return wave[max(0, loud[0] * hop - pad) : (loud[-1] + 1) * hop + pad]


def _limits(phonemes: str) -> tuple[np.ndarray, np.ndarray]:
    """Frames that each phoneme of a list takes at least and at most."""
    least, most = np.ones(len(phonemes)), np.full(len(phonemes), _NO_LIMIT)
    for end in _ends(phonemes):
        least[end] = PAUSE_FRAMES
        least[end + 1 : end + 2] = SPACE_FRAMES  # the last mark has no space behind it
        for i in (end - 1, end - 2):
            if phonemes[i] in _STOPS:
                most[i] = STOP_FRAMES
            elif phonemes[i] in _OTHERS:
                most[i] = OTHER_FRAMES
    return least, most


def _find_words(
    wave: np.ndarray, phonemes: str, frames: np.ndarray
) -> list[tuple[int | None, int]]:
    """The samples from which, and up to which, each word of a list but the first is heard.

    A word begins in the middle of the pause before it, or at None where there is no pause. It ends
    shortly behind its last phoneme, or in the middle of the pause behind it, if that comes earlier.
    """
    edges = np.concatenate([[0], np.cumsum(frames)]) * (len(wave) / frames.sum())
    ends = _ends(phonemes)
    pauses = _find_pauses(wave, edges, ends)
    found: list[tuple[int | None, int]] = []
    for end, before, after in zip(ends[1:], pauses, pauses[1:], strict=False):
        last = round(edges[end + 1] + TAIL_SECONDS * KOKORO_RATE)
        found.append((before, last if after is None else min(last, after)))
    return found


def _find_pauses(wave: np.ndarray, edges: np.ndarray, ends: Sequence[int]) -> list[int | None]:
    """The sample in the middle of the pause at each mark of a list; None where there is none.

    A pause is looked for from 50 ms before the mark to 30 ms behind the space that follows it: what
    the durations tell is not exact.
    """
    hop = KOKORO_RATE // 200
    levels = _levels(wave, hop)
    quiet = levels < levels.max() + QUIET_DB
    pauses: list[int | None] = []
    for end in ends:  # the phoneme `end` lies between the edges end + 1 and end + 2
        first = max(0, int(edges[end + 1] - 0.05 * KOKORO_RATE) // hop)
        last = int(edges[min(end + 3, len(edges) - 1)] + 0.03 * KOKORO_RATE) // hop
        start, length = _longest_run(quiet[first:last])
        found = length * hop >= QUIET_SECONDS * KOKORO_RATE
        pauses.append((first + start) * hop + length * hop // 2 if found else None)
    return pauses


def _ends(phonemes: str) -> list[int]:
    return [i for i, phoneme in enumerate(phonemes) if phoneme == PAUSE]


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Start and length of the longest run of True."""
    steps = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    starts, lengths = steps[::2], steps[1::2] - steps[::2]
    if not len(starts):
        return 0, 0
    best = int(lengths.argmax())
    return int(starts[best]), int(lengths[best])


def _levels(wave: np.ndarray, hop: int) -> np.ndarray:
    """The level of each `hop` samples in dB of full scale."""
    blocks = wave[: len(wave) // hop * hop].reshape(-1, hop)
    return np.asarray(10 * np.log10((blocks**2).mean(1) + 1e-10))


def _fade_out(wave: np.ndarray) -> np.ndarray:
    samples = min(len(wave), round(FADE_SECONDS * KOKORO_RATE))
    faded = wave.copy()
    faded[len(wave) - samples :] *= np.linspace(1, 0, samples, dtype=np.float32)
    return faded


def _to_16_khz(wave: np.ndarray) -> np.ndarray:
    import soxr

    resampled: Any = soxr.resample(wave, KOKORO_RATE, SAMPLE_RATE)
    return np.asarray(resampled, np.float32)

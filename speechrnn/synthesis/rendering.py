"""Folders of synthetic speech: clips of words for training, and recordings of sentences.

In: words or sentences, voices, a seed, a synthesiser and a check. Out: a corpus folder in the
layout of Speech Commands (`<word>/<voice>_nohash_<n>.wav`, 1 s, 16 kHz, 16 bit), or a talk folder
(`<voice>_<n>.wav` and `transcripts.tsv`). Beside them lie `provenance.tsv` (file, text, voice,
speed, seed), `rendering.json` (what was asked for) and `README.md`. Every file is a function of
what was asked for, so a rendering that was stopped goes on and ends with the files of one that was
not. It does not know how speech is made, and reads no model file.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from speechrnn.config import SAMPLE_RATE
from speechrnn.files import whole_file
from speechrnn.synthesis.kokoro import LIST_WORDS, Synthesiser, pronounce, speak_text, speak_words

Check = Callable[[np.ndarray, str], bool]  # whether a wave (N,) at 16 kHz is understood as a word

SHORTEST_SAMPLES = 1_600  # of a word: 0.1 s; what is shorter is a scrap
LEVELS_DB = (-30.0, -12.0)  # root mean square of a word or sentence, of full scale
PEAK = 0.99  # at most
FADE_SAMPLES = 80  # 5 ms at both ends of a word, where it meets digital silence
SPEEDS = (0.8, 1.3)  # Source: of 14 clips that were not understood, 8 were faster.
LISTS_A_CLIP = 8  # A word that was said so often for each clip asked for is given up.

PROVENANCE = ("file", "text", "voice", "speed", "seed")
TRANSCRIPTS = ("file", "text")
WORD = re.compile(r"[a-z]+(['-][a-z]+)*")


@dataclass
class Tally:
    """How a rendering of words goes, word by word.

    Attributes:
        said: times that a word was spoken.
        kept: clips written: behind a pause, 0.1 to 1 s long, and understood.
    """

    said: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)


def english_voices(voices: Sequence[str]) -> list[str]:
    """The American and British voices of Kokoro, by the first letter of the name; all if none."""
    return [voice for voice in voices if voice[0] in "ab"] or list(voices)


def render_words(
    words: Sequence[str],
    folder: Path,
    synthesiser: Synthesiser,
    understood: Check,
    voices: Sequence[str],
    clips: int,
    seed: int,
) -> Tally:
    """Render clips of words, and go on where an earlier call was stopped.

    Words that lack most clips are said next, seven in a list, each list in another voice. A word is
    given up when it was said `LISTS_A_CLIP` times for each clip that was asked for.

    Args:
        words: small letters; each one is the name of a folder.
        folder: to put the clips into; made if missing.
        synthesiser: speaks.
        understood: clips for which it says no are thrown away.
        voices: to choose from, evenly.
        clips: wanted of each word.
        seed: of the order of words, and of voice, speed, level and place in the clip.

    Raises:
        ValueError: a word is no word or cannot be pronounced, a voice is missing, or the folder
            holds a rendering of something else. Nothing is written then.
        OSError: a file cannot be written; what is there is whole.
    """
    words = list(dict.fromkeys(words))
    _check_words(words, synthesiser, voices)
    asked = {"words": words, "clips": clips, "voices": list(voices), "seed": seed}
    table = _Table(folder / "provenance.tsv", PROVENANCE)
    _begin(folder, asked, synthesiser, "clips of single words")
    done = _rows_by_list(table)
    tally = Tally()
    number = 0
    while said := _next_words(words, clips, tally, [seed, number]):
        tally.said.update(said)
        if number in done:
            rows = done[number]
        else:
            lacking = Counter({word: clips - tally.kept[word] for word in said})
            rows = _render_list(
                number, said, lacking, folder, synthesiser, understood, voices, seed
            )
            table.add(rows)
        tally.kept.update(text for _, text, *_ in rows)
        number += 1
    return tally


def render_sentences(
    sentences: Sequence[str],
    folder: Path,
    synthesiser: Synthesiser,
    voices: Sequence[str],
    seed: int,
) -> int:
    """Render a recording of each sentence, and go on where an earlier call was stopped.

    Returns:
        How many recordings the folder holds.

    Raises:
        ValueError: as in `render_words`.
        OSError: a file cannot be written; what is there is whole.
    """
    _check_voices(voices, synthesiser)
    for number, sentence in enumerate(sentences, 1):
        try:
            pronounce(synthesiser, sentence, voices[0])
        except ValueError as error:
            raise ValueError(f"sentence {number}: {error}") from error
    asked = {"sentences": list(sentences), "voices": list(voices), "seed": seed}
    transcripts = _Table(folder / "transcripts.tsv", TRANSCRIPTS)
    provenance = _Table(folder / "provenance.tsv", PROVENANCE)
    _begin(folder, asked, synthesiser, "recordings of sentences")
    transcripts.keep(provenance.keep(len(transcripts.rows)))
    for number in range(len(transcripts.rows), len(sentences)):
        random = np.random.default_rng([seed, number])
        voice, speed = str(random.choice(voices)), round(float(random.uniform(*SPEEDS)), 2)
        text = " ".join(sentences[number].split())
        wave = _at_some_level(speak_text(synthesiser, text, voice, speed), random)
        name = f"{voice}_{number:06d}.wav"
        _write_wave(folder / name, wave)
        provenance.add([(name, text, voice, str(speed), str(seed))])
        transcripts.add([(name, text)])
    return len(sentences)


def place_in_second(wave: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A word of at most 1 s at a random place and level in a second of silence, with faded ends.

    Args:
        wave: float32 (n,) at 16 kHz, n <= 16000.
        random: what decides.

    Returns:
        float32 (16000,).
    """
    fade = min(FADE_SAMPLES, len(wave) // 4)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    wave = wave.copy()
    wave[:fade] *= ramp
    wave[len(wave) - fade :] *= ramp[::-1]
    clip = np.zeros(SAMPLE_RATE, np.float32)
    start = int(random.integers(0, SAMPLE_RATE - len(wave) + 1))
    clip[start : start + len(wave)] = _at_some_level(wave, random)
    return clip


def _at_some_level(wave: np.ndarray, random: np.random.Generator) -> np.ndarray:
    level = 10 ** (random.uniform(*LEVELS_DB) / 20)
    loudness = float(np.sqrt((wave**2).mean())) + 1e-9
    peak = float(np.abs(wave).max()) + 1e-9
    return wave * np.float32(min(level / loudness, PEAK / peak))


def _next_words(words: Sequence[str], clips: int, tally: Tally, seed: Sequence[int]) -> list[str]:
    """The next list: words that still lack clips, those with the fewest first, in random order.

    Where fewer than seven lack clips, they are repeated. Empty when nothing is left to say.
    """
    most = LISTS_A_CLIP * clips
    left = [word for word in words if tally.kept[word] < clips and tally.said[word] < most]
    if not left:
        return []
    random = np.random.default_rng([*seed, 0])
    places = random.permutation(len(left))
    order = sorted(zip(left, places, strict=True), key=lambda each: (tally.kept[each[0]], each[1]))
    chosen = [word for word, _ in order[:LIST_WORDS]]
    repeated = (chosen * LIST_WORDS)[:LIST_WORDS]
    return [repeated[i] for i in random.permutation(LIST_WORDS)]


def _render_list(
    number: int,
    words: Sequence[str],
    lacking: Counter[str],
    folder: Path,
    synthesiser: Synthesiser,
    understood: Check,
    voices: Sequence[str],
    seed: int,
) -> list[tuple[str, ...]]:
    """Speak, cut, check and write one list; gives its lines of the provenance."""
    random = np.random.default_rng([seed, number, 1])
    voice, speed = str(random.choice(voices)), round(float(random.uniform(*SPEEDS)), 2)
    rows: list[tuple[str, ...]] = []
    for place, wave in enumerate(speak_words(synthesiser, words, voice, speed)):
        if wave is None or not SHORTEST_SAMPLES <= len(wave) <= SAMPLE_RATE:
            continue
        word = words[place]
        if lacking[word] and understood(wave, word):
            lacking[word] -= 1
            name = f"{word}/{voice}_nohash_{number * LIST_WORDS + place}.wav"
            _write_wave(folder / name, place_in_second(wave, random))
            rows.append((name, word, voice, str(speed), str(seed)))
    return rows


def _rows_by_list(table: "_Table") -> dict[int, list[tuple[str, ...]]]:
    """What the provenance says of each list but the last, which may have been stopped within."""
    lists: dict[int, list[tuple[str, ...]]] = {}
    for row in table.rows:
        number = int(row[0].removesuffix(".wav").rpartition("_")[2]) // LIST_WORDS
        lists.setdefault(number, []).append(row)
    last = max(lists, default=0)
    table.keep(sum(len(rows) for number, rows in lists.items() if number < last))
    return {number: lists.get(number, []) for number in range(last)}


class _Table:
    """Lines of cells in a file with a head line, which is whole or grows by whole lines."""

    def __init__(self, path: Path, head: tuple[str, ...]) -> None:
        self._path = path
        self._head = head
        self.rows: list[tuple[str, ...]] = []
        if path.exists():
            whole = path.read_text(encoding="utf-8").split("\n")[1:-1]  # what a kill cut is no line
            self.rows = [tuple(line.split("\t")) for line in whole]

    def keep(self, count: int) -> int:
        """Keep the first lines; gives how many there are then."""
        self.rows = self.rows[:count]
        with whole_file(self._path) as beside:
            beside.write_bytes(_encode([self._head, *self.rows]))
        return len(self.rows)

    def add(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Append lines: all of them, or none where the disk is full."""
        rows = list(rows)
        with open(self._path, "ab", buffering=0) as file:
            end = file.tell()
            try:
                data = _encode(rows)
                if file.write(data) != len(data):
                    raise OSError(28, "No space left on device", str(self._path))
            except OSError:
                file.truncate(end)
                raise
        self.rows += rows


def _encode(rows: Iterable[tuple[str, ...]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def _check_words(words: Sequence[str], synthesiser: Synthesiser, voices: Sequence[str]) -> None:
    if not words:
        raise ValueError("no words: type one or more, or name a file of words with --file")
    _check_voices(voices, synthesiser)
    for word in words:
        if not WORD.fullmatch(word):
            raise ValueError(
                f"{word!r} is no word: expected the letters a to z, with ' or - between them; "
                "write numbers and abbreviations as they are spoken"
            )
        pronounce(synthesiser, word, voices[0])


def _check_voices(voices: Sequence[str], synthesiser: Synthesiser) -> None:
    if unknown := sorted(set(voices) - set(synthesiser.voices)):
        raise ValueError(
            f"no such voice: {', '.join(unknown)}; expected some of {', '.join(synthesiser.voices)}"
        )


def _begin(folder: Path, asked: dict[str, object], synthesiser: Synthesiser, what: str) -> None:
    """Write what was asked for, or check that the folder holds the same, begun earlier."""
    asked = {**asked, "model": synthesiser.checksum}
    path = folder / "rendering.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if changed := [key for key in {**found, **asked} if found.get(key) != asked.get(key)]:
            raise ValueError(
                f"{folder}: holds a rendering with other {', '.join(changed)} ({path.name} has "
                "them); type the same command to go on, or another folder behind --to"
            )
    elif folder.exists() and any(entry.name[0] != "." for entry in folder.iterdir()):
        raise ValueError(
            f"{folder}: is not empty and holds no {path.name}; type another folder behind --to"
        )
    else:
        with whole_file(path) as beside:
            beside.write_text(json.dumps(asked, indent=1) + "\n", "utf-8")
    with whole_file(folder / "README.md") as beside:
        beside.write_text(_README.format(what=what, checksum=synthesiser.checksum), "utf-8")


_README = """# Synthetic speech: {what}

Nobody said this: a synthesiser did. Written by `speechrnn speak`.

* Synthesiser: Kokoro-82M by hexgrad, Apache-2.0, as the int8 ONNX export by kokoro-onnx (MIT).
* SHA-256 of its model file: {checksum}
* `provenance.tsv`: file, text, voice, speed (1 is normal) and seed of each file.
* `rendering.json`: what was asked for. The same command goes on where it was stopped.

The voice stands where a corpus has the speaker, so a split by speaker is a split by voice.
"""


def _write_wave(path: Path, wave: np.ndarray) -> None:
    with whole_file(path) as beside:
        soundfile.write(beside, wave, SAMPLE_RATE, "PCM_16", format="WAV")

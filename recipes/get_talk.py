"""Fetch running speech that is meant for nobody, from Debian's packages of games and telephony.

Usage:
    python recipes/get_talk.py FOLDER --ear kokoro/whisper      # 0.7 GB to download
    python recipes/get_talk.py FOLDER --packages klettres-data fillets-ng-data-nl

It writes `FOLDER/training/<package>/` and `FOLDER/validation/<package>/`: FLAC, mono, 16 kHz, with
the package's own `copyright` file; `FOLDER/talk.tsv`: split, file, package, version, language,
licence, seconds, where the text is from, text; and in each split `transcripts.tsv`, as
`speechrnn evaluate --talk` reads it. It needs `apt-get`, `dpkg-deb` and the packages `numpy`,
`soundfile`, `soxr`, and `av` for the packages of Asterisk. Nothing is installed.

Lines of one voice are joined, with 0.3 to 1.5 s of quiet between, into recordings of about 20 s.
`--ear` is a folder with Whisper tiny.en (`recipes/get_kokoro.sh` writes one; it needs
`faster-whisper`): it writes down English lines that come without text. Without it their text stays
unknown, and training holds the commands among them.

Training holds no command that is known of, nor what sounds like one. Where Whisper heard it, it is
cut out of the line with 0.25 s on both sides, and stretches of 2 s or more stay. Where the package
tells the text, and so no time, the whole line is left out.

Of six packages that hold little or no English, half an hour of lines is taken. A package belongs
to one split, and so does a voice; but the conversations of the adventure are in both, and its hero
with them. A stopped run goes on with the first package that has no folder.
"""

import argparse
import hashlib
import io
import math
import re
import struct
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from debian import (
    copy_licence,
    fetch_all,
    flat_name,
    join_tables,
    unpacked,
    whole_package,
    without_tools,
    write_table,
)

from speechrnn.synthesis.intelligibility import FILES, GET_MODEL

SAMPLE_RATE = 16_000
# of each large package with little or no English: whole, English would be a quarter of the talk
FOREIGN_HOURS = 0.5
LINE_SECONDS = (0.15, 60.0)  # shorter is no speech, longer is cut
RECORDING_SECONDS = 20.0  # a recording ends with the line that makes it as long
PAUSE_SECONDS = (0.3, 1.5)
# The quiet between lines is noise as loud as the quietest tenth of them, at most -60 dB.
LOUDEST_PAUSE = 1e-3
SILENT_PEAK = 1e-3
EAR_SECONDS = 28.0  # Whisper hears 30 s at once
CUT_SECONDS = 0.25  # beside a command that is cut out: Whisper's times are that inexact
STRETCH_SECONDS = 2.0  # between two cuts; from shorter ones no seconds of training can be cut
COLUMNS = (
    "split", "file", "package", "version", "language", "licence", "seconds", "text from", "text",
)  # fmt: skip
# The ten commands of the shipped models and what sounds like them.
COMMANDS = frozenset({
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go",
    "know", "knows", "write", "rite", "wright", "yeah", "yep", "nope", "nah", "gogh", "goes",
    "going", "gone",
})  # fmt: skip
# What sounds like one in other languages. English "of" and "an" do not, and must stay: they are
# among its most frequent words.
FOREIGN_COMMANDS = COMMANDS | {
    "op", "of", "oft", "aan", "an", "non", "né", "không", "ono", "noe", "stopp", "nou",
    "nee",
}  # fmt: skip


class Line(NamedTuple):
    """What one voice says without a long pause.

    Args:
        name: where it lies in its package.
        language: code of ISO 639.
        voice: lines with the same are joined.
        audio: reads it: float32 (N,) and its rate, Hz.
        text: what is said, None where the package does not tell.
    """

    name: str
    language: str
    voice: str
    audio: Callable[[], tuple[np.ndarray, int]]
    text: str | None


class Source(NamedTuple):
    """One package.

    Args:
        package: its name.
        split: `training` or `validation`.
        licence: of the voices, as the package's copyright file says.
        lines: finds the lines in the unpacked package.
        hours: lines are taken until they are full.
        beside: other packages that it needs, for the text.
    """

    package: str
    split: str
    licence: str
    lines: Callable[[Path], Iterator[Line]]
    hours: float = math.inf
    beside: tuple[str, ...] = ()


def read_audio(source: Path | io.BytesIO) -> tuple[np.ndarray, int]:
    """Samples of a file, mixed to mono, and their rate."""
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def read_g722(path: Path) -> tuple[np.ndarray, int]:
    """Samples of a file in G.722 without a head, which libsndfile cannot read, if it has any."""
    try:
        import av
    except ModuleNotFoundError:
        raise RuntimeError("G.722 needs PyAV: type pip install av") from None
    with av.open(str(path), format="g722") as file:
        frames = [frame.to_ndarray().ravel() for frame in file.decode(audio=0)]
    samples = np.concatenate([np.zeros(0, np.int16), *frames])
    return samples.astype(np.float32) / 32768, 16_000


def files(folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """Name inside the package and path of each file with a suffix, in the order of their names."""
    for path in sorted(folder.rglob(f"*{suffix}")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def asterisk(folder: Path) -> Iterator[Line]:
    """Prompts of a telephone exchange, by one voice: `en_US_f_Allison/vm-goodbye.g722`."""
    for name, path in files(folder, ".g722"):
        voice = name.split("/sounds/")[-1].split("/")[0]
        if "silence/" not in name and "beep" not in path.stem:
            yield Line(name, voice[:2], voice, lambda path=path: read_g722(path), None)


def stamps(folder: Path) -> Iterator[Line]:
    """Spoken descriptions of pictures: `wombat_desc_fr.ogg`, with its text in `wombat.txt`."""
    for name, path in files(folder, ".ogg"):
        if match := re.fullmatch(r"(.+)_desc(?:_([a-z]{2}))?", path.stem):
            language = match[2] or "en"
            table = path.with_name(f"{match[1]}.txt")
            lines = table.read_text("utf-8").splitlines() if table.is_file() else []
            texts = dict(line.split(".utf8=", 1) for line in lines[1:] if ".utf8=" in line)
            text = (lines[0] if lines else None) if language == "en" else texts.get(language)
            yield Line(name, language, language, lambda path=path: read_audio(path), text)


def fillets(folder: Path) -> Iterator[Line]:
    """Dialogues of two fish: `sound/city/nl/vit-v-proc.ogg`, with their text in `dialogs_nl.lua`.

    In a name the second part is who speaks: `m` the small fish, `v` the big one, or others.
    """
    texts = {
        (path.parent.name, path.stem.removeprefix("dialogs_")): fillets_texts(path)
        for path in folder.rglob("dialogs_*.lua")
    }
    for name, path in files(folder, ".ogg"):
        level, language = path.parts[-3:-1]
        if "/sound/" in name and (said := texts.get((level, language), {}).get(path.stem)):
            speaker = path.stem.split("-")[1] if path.stem.count("-") else ""
            voice = speaker if speaker in ("m", "v") else f"{level} {speaker}"
            yield Line(name, language, voice, lambda path=path: read_audio(path), said)


def fillets_texts(script: Path) -> dict[str, str]:
    """What is said under each name, from a script of the game."""
    pattern = r'dialogId\("([^"]+)".*?dialogStr\("((?:[^"\\]|\\.)*)"\)'
    return dict(re.findall(pattern, script.read_text("utf-8"), re.DOTALL))


def letters(folder: Path) -> Iterator[Line]:
    """Letters and syllables, spoken for children: `klettres/nds/syllab/dat.ogg`."""
    for name, path in files(folder, ".ogg"):
        language = path.parts[-3]
        yield Line(name, language[:2], language, lambda path=path: read_audio(path), path.stem)


def toys(folder: Path) -> Iterator[Line]:
    """Names of things, spoken for children: `ktuberling/sounds/fr/hat.wav`."""
    for suffix in (".wav", ".ogg"):
        for name, path in files(folder, suffix):
            language = path.parts[-2]
            text = re.sub(r"[\d_-]+", " ", path.stem).strip() if language == "en" else None
            yield Line(name, language[:2], language, lambda path=path: read_audio(path), text)


def hedgehogs(folder: Path) -> Iterator[Line]:
    """Shouts of players, a folder a voice; the robot and the singer are left out."""
    languages = {"Default_es": "es", "Default_pl": "pl", "Russian_pl": "pl", "Default_ru": "ru"}
    languages["Default_uk"] = "uk"
    for name, path in files(folder, ".ogg"):
        voice = path.parent.name
        if fnmatchcase(name, "*/Sounds/voices/*") and voice not in ("Robot", "Singer"):
            language = languages.get(voice, "en")
            yield Line(name, language, voice, lambda path=path: read_audio(path), None)


def amazon_queen(folder: Path, conversations: range) -> Iterator[Line]:
    """Dialogues of an adventure, MP3 in the game's archive: those with these numbers.

    Source: looked at in a hex editor. A head `QTBL`, version, 2 bytes, compression; the number of
    entries; for each a name (12 bytes), a bundle, and offset and size, big-endian. `020006J1.SB` is
    conversation 02, line 0006, the hero (J) or another person (P), part 1.
    """
    (path,) = folder.rglob("queen.1c")
    data = path.read_bytes()
    if data[:4] != b"QTBL" or data[12] != 1:
        raise RuntimeError(f"{path.name} is not the archive that is expected: {data[:13]!r}")
    (count,) = struct.unpack_from(">H", data, 13)
    for entry in range(count):
        packed, _, offset, size = struct.unpack_from(">12sBII", data, 15 + 21 * entry)
        name = packed.rstrip(b"\0").decode("latin-1")
        match = re.fullmatch(r"(\d\d)[0-9A-F]{4}([JP])\d\.SB", name)
        if match and int(match[1]) in conversations:
            voice = f"{match[1]} {match[2]}"
            mp3 = data[offset : offset + size]
            yield Line(name, "en", voice, lambda mp3=mp3: read_audio(io.BytesIO(mp3)), None)


ASTERISK = "CC-BY-SA-3.0"
QUEEN = "flight-of-the-amazon-queen"
FREEWARE = "freely distributable and modifiable; the game itself may not be sold: see copyright"
# es is spoken by the voice of en.
SOURCES = [
    Source("asterisk-core-sounds-en-g722", "validation", ASTERISK, asterisk),
    Source(QUEEN, "validation", FREEWARE, partial(amazon_queen, conversations=range(43, 100))),
    Source(QUEEN, "training", FREEWARE, partial(amazon_queen, conversations=range(43))),
    Source("klettres-data", "training", "GPL-2+; some CC0-1.0: see copyright", letters),
    Source("ktuberling-data", "training", "GPL-2+; some CC0, CC-BY: see copyright", toys),
    Source("tuxpaint-stamps-default", "training", "GPL-2", stamps, FOREIGN_HOURS),
    Source("hedgewars-data", "training", "GFDL-1.3", hedgehogs),
    Source("fillets-ng-data-nl", "training", "GPL-2", fillets, FOREIGN_HOURS, ("fillets-ng-data",)),
    Source("fillets-ng-data-cs", "training", "GPL-2", fillets, FOREIGN_HOURS, ("fillets-ng-data",)),
    Source("asterisk-core-sounds-fr-g722", "training", ASTERISK, asterisk, FOREIGN_HOURS),
    Source("asterisk-core-sounds-it-g722", "training", ASTERISK, asterisk, FOREIGN_HOURS),
    Source("asterisk-core-sounds-ru-g722", "training", "CC-BY-3.0", asterisk, FOREIGN_HOURS),
]


class Word(NamedTuple):
    """A word and when it is said, s from the beginning of its line."""

    text: str
    begin: float
    end: float


class Heard(NamedTuple):
    """A line with its samples at 16 kHz.

    Args:
        line: where it is from.
        wave: float32 (N,).
        text: what is said, empty where it is unknown.
        origin: where the text is from.
        words: of the text with their times, where Whisper heard the line and it is whole.
    """

    line: Line
    wave: np.ndarray
    text: str
    origin: str
    words: tuple[Word, ...] = ()


def words_of(text: str) -> str:
    """A text as small words with single spaces between."""
    # Texts have both apostrophes.
    return " ".join(re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+", text.lower()))  # noqa: RUF001


def digest(text: str) -> bytes:
    """Random bytes that depend on a text alone."""
    return hashlib.sha256(text.encode()).digest()


def read_lines(lines: Iterator[Line], hours: float) -> list[Heard]:
    """Read lines until so many hours are full: which, and their order, is a function of names."""

    def by_voice(one: Heard) -> tuple[bytes, str]:
        return digest(one.line.voice), one.line.name

    heard: list[Heard] = []
    seen: set[bytes] = set()
    total = 0.0
    for line in sorted(lines, key=lambda line: digest(line.name)):
        if total > hours * 3600:
            break
        try:
            samples, rate = line.audio()
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip()
            print(f"  {line.name}: left out, it cannot be read: {reason}", file=sys.stderr)
            continue
        wave = samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)
        wave = wave[: int(LINE_SECONDS[1] * SAMPLE_RATE)]
        same = digest(line.voice + hashlib.sha256(wave.tobytes()).hexdigest())
        short = len(wave) < LINE_SECONDS[0] * SAMPLE_RATE
        if short or np.abs(wave).max() < SILENT_PEAK or same in seen:
            continue
        seen.add(same)
        total += len(wave) / SAMPLE_RATE
        text = words_of(line.text or "")
        heard.append(Heard(line, wave, text, "package" if text else "unknown"))
    return sorted(heard, key=by_voice)


class Ear:
    """Whisper tiny.en, which writes down what is said in English lines.

    Args:
        folder: holds the model as CTranslate2 reads it.
    """

    def __init__(self, folder: Path) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def write_down(self, heard: list[Heard]) -> list[Heard]:
        """The same lines, with a text for each that is English and has none."""
        wanted = [i for i, one in enumerate(heard) if one.line.language == "en" and not one.text]
        result = list(heard)
        batch: list[int] = []
        seconds = 0.0
        for place, i in enumerate(wanted):
            length = len(heard[i].wave) / SAMPLE_RATE + PAUSE_SECONDS[0]
            if batch and seconds + length > EAR_SECONDS:
                self._write(batch, result)
                batch, seconds = [], 0.0
                print(f"\r  written down: {place} of {len(wanted)}", end="", file=sys.stderr)
            batch.append(i)
            seconds += length
        if batch:
            self._write(batch, result)
            print(f"\r  written down: {len(wanted)} of {len(wanted)}", file=sys.stderr)
        return result

    def _write(self, batch: list[int], heard: list[Heard]) -> None:
        """Hear lines as one recording, and give each word to the line in which its middle lies."""
        gap = np.zeros(round(PAUSE_SECONDS[0] * SAMPLE_RATE), np.float32)
        waves = [heard[i].wave / np.abs(heard[i].wave).max() / 2 for i in batch]
        parts = [part for wave in waves for part in (wave.astype(np.float32), gap)]
        ends = np.cumsum([len(wave) + len(gap) for wave in waves]) / SAMPLE_RATE
        begins = [0.0, *ends[:-1].tolist()]
        segments: Any
        segments, _ = self._model.transcribe(
            np.concatenate(parts), language="en", beam_size=1, word_timestamps=True,
            condition_on_previous_text=False, temperature=0.0,
        )  # fmt: skip
        said: dict[int, list[Word]] = {}
        for segment in segments:
            for word in segment.words:
                place = int(np.searchsorted(ends, (word.start + word.end) / 2))
                place = min(place, len(batch) - 1)
                text = words_of(word.word)
                if text:
                    begin, end = word.start - begins[place], word.end - begins[place]
                    said.setdefault(place, []).append(Word(text, begin, end))
        for place, words in said.items():
            heard[batch[place]] = heard[batch[place]]._replace(
                text=" ".join(word.text for word in words), origin="Whisper", words=tuple(words)
            )


def has_command(text: str, language: str) -> bool:
    """Whether a text has a command, or what sounds like one in its language."""
    commands = COMMANDS if language == "en" else FOREIGN_COMMANDS
    # Both apostrophes, as `words_of` leaves them.
    return any(word in commands for word in re.split(r"[ '’-]", text))  # noqa: RUF001


def without_commands(one: Heard) -> list[Heard]:
    """What training keeps of a line: all, nothing, or the stretches between commands."""
    language = one.line.language
    if not has_command(one.text, language):
        return [one]
    if not one.words:
        return []
    keep = np.ones(len(one.wave), bool)
    for word in one.words:
        if has_command(word.text, language):
            begin, end = word.begin - CUT_SECONDS, word.end + CUT_SECONDS
            keep[max(0, round(begin * SAMPLE_RATE)) : max(0, round(end * SAMPLE_RATE))] = False
    changes = np.diff(keep.astype(np.int8), prepend=0, append=0)
    stretches = zip(np.flatnonzero(changes == 1), np.flatnonzero(changes == -1), strict=True)
    return [
        stretch(one, begin, end)
        for begin, end in stretches
        if end - begin >= STRETCH_SECONDS * SAMPLE_RATE
    ]


def stretch(one: Heard, begin: int, end: int) -> Heard:
    """The samples of a line from one place to another, with the words that lie in them whole."""
    name = Path(one.line.name)
    line = one.line._replace(name=str(name.with_stem(f"{name.stem}-from-{begin}")))
    first, last = begin / SAMPLE_RATE, end / SAMPLE_RATE
    words = [word.text for word in one.words if first <= word.begin and word.end <= last]
    return one._replace(line=line, wave=one.wave[begin:end], text=" ".join(words), words=())


def quiet(wave: np.ndarray, name: str) -> np.ndarray:
    """A pause after a line: noise as loud as its quietest tenth; length and samples by its name."""
    random = np.random.default_rng(int.from_bytes(digest(name)[:8], "little"))
    frames = wave[: len(wave) // 160 * 160].reshape(-1, 160)
    level = min(float(np.quantile(np.sqrt((frames**2).mean(axis=1)), 0.1)), LOUDEST_PAUSE)
    length = round(random.uniform(*PAUSE_SECONDS) * SAMPLE_RATE)
    return (level * random.standard_normal(length)).astype(np.float32)


def join(heard: list[Heard]) -> Iterator[tuple[str, list[Heard], np.ndarray]]:
    """Recordings of 20 s or more of one voice and language: name, lines and samples of each.

    What a voice has left is appended to its last recording; a voice with less gives a shorter one.
    """

    def key(one: Heard) -> tuple[str, str]:
        return one.line.language, one.line.voice

    for _, group in groupby(sorted(heard, key=key), key):
        recordings: list[list[Heard]] = []
        seconds = RECORDING_SECONDS
        for one in group:
            if seconds >= RECORDING_SECONDS:
                recordings.append([])
                seconds = 0.0
            recordings[-1].append(one)
            seconds += len(one.wave) / SAMPLE_RATE + sum(PAUSE_SECONDS) / 2
        if len(recordings) > 1 and seconds < RECORDING_SECONDS / 2:
            recordings[-2:] = [recordings[-2] + recordings[-1]]
        for lines in recordings:
            first = lines[0].line
            parts = [part for one in lines for part in (one.wave, quiet(one.wave, one.line.name))]
            name = f"{first.language}-{flat_name(first.name)}.flac"
            yield name, lines, np.concatenate(parts[:-1])


def get_package(source: Source, folder: Path, ear: Ear | None) -> str:
    """Download, unpack and convert one package into its folder; says what it gave.

    Raises:
        RuntimeError: apt has no such package, the network is down, or nothing in it is wanted.
    """
    packages = (source.package, *source.beside)
    with (
        whole_package(folder, source.split, source.package) as target,
        unpacked(packages) as (contents, version),
    ):
        heard = read_lines(source.lines(contents), source.hours)
        if ear is not None:
            heard = ear.write_down(heard)
        parts = [[one] if source.split == "validation" else without_commands(one) for one in heard]
        kept = [part for whole in parts for part in whole]
        if not kept:
            raise RuntimeError(f"version {version} holds no speech that is wanted")
        rows = []
        for name, lines, wave in join(kept):
            soundfile.write(target / name, np.clip(wave, -1, 1), SAMPLE_RATE, subtype="PCM_16")
            rows.append((
                source.split, f"{source.split}/{source.package}/{name}", source.package, version,
                lines[0].line.language, source.licence, f"{len(wave) / SAMPLE_RATE:.2f}",
                "+".join(sorted({one.origin for one in lines})),
                " ".join(one.text for one in lines if one.text),
            ))  # fmt: skip
        copy_licence(contents, source.package, target)
        write_table(target / "talk.tsv", COLUMNS, rows)
    left_out = sum(not whole for whole in parts)
    cut = sum(
        len(part.wave) < len(one.wave)
        for one, whole in zip(heard, parts, strict=True)
        for part in whole[:1]
    )
    told = f", {left_out} with commands left out" if left_out else ""
    told += f", commands cut out of {cut}" if cut else ""
    return f"{len(kept)} lines in {len(rows)} recordings{told}"


def write_transcripts(folder: Path, rows: list[tuple[str, ...]]) -> None:
    """Write `transcripts.tsv` of each split: the recordings of which the text is known."""
    for split in ("training", "validation"):
        known = [(row[1].split("/", 1)[1], row[8]) for row in rows if row[0] == split and row[8]]
        if known:
            write_table(folder / split / "transcripts.tsv", ("file", "text"), known)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch running speech from Debian's packages.")
    parser.add_argument("folder", type=Path, help="where the recordings are written")
    parser.add_argument("--packages", nargs="+", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--ear", type=Path, metavar="FOLDER", help="Whisper tiny.en, for the text")
    arguments = parser.parse_args()
    known = list(dict.fromkeys(source.package for source in SOURCES))
    names = arguments.packages or known
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no such package in this list: {' '.join(unknown)}; it has {' '.join(known)}")
    if without_tools(parser.prog):
        return 1
    for name in () if arguments.ear is None else FILES:
        path = arguments.ear / name
        if not path.is_file():
            print(f"{parser.prog}: {path}: there is no such file; {GET_MODEL}", file=sys.stderr)
            return 1
    try:
        ear = None if arguments.ear is None else Ear(arguments.ear)
    except ModuleNotFoundError:
        print(f"{parser.prog}: --ear: type pip install faster-whisper", file=sys.stderr)
        return 1
    status = 0
    for split in ("validation", "training"):
        chosen = {s.package: s for s in SOURCES if s.split == split and s.package in names}
        if chosen:
            status |= fetch_all(
                parser.prog,
                dict.fromkeys(chosen, split),
                arguments.folder,
                lambda name, chosen=chosen: get_package(chosen[name], arguments.folder, ear),
            )
    rows = join_tables(arguments.folder, "talk.tsv", COLUMNS)
    write_transcripts(arguments.folder, rows)
    for split in ("training", "validation"):
        hours = sum(float(row[6]) for row in rows if row[0] == split) / 3600
        text = sum(float(row[6]) for row in rows if row[0] == split and row[8]) / 3600
        print(f"{split}: {hours:.2f} h, {text:.2f} h with text", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

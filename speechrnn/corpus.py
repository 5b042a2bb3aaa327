"""Corpora of short spoken words: which clips there are, in which split, and under which label.

In: a folder in the layout of Google Speech Commands (`<word>/<speaker>_nohash_<n>.wav`), one of its
official test archives, or any folder of folders of audio files. Out: int16 clips (n, 16000) with
their labels, and background noise. Splits, draws of unknown words and cuts of silence are functions
of the folder and a seed, never of a global random state. It does not know networks or training.
"""

import hashlib
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from rich.console import Console
from rich.progress import track

from speechrnn.audio import AudioError, find_audio, from_int16, loudest_second, read_wave, to_int16
from speechrnn.config import CLIP_SAMPLES, SILENCE, UNKNOWN, words_among

T = TypeVar("T")
Split = Literal["training", "validation", "testing"]
NOISE = "_background_noise_"  # name of the folder that holds it
TEN_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
# fmt: off
V1_WORDS = (
    "bed", "bird", "cat", "dog", "down", "eight", "five", "four", "go", "happy", "house", "left",
    "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop", "three",
    "tree", "two", "up", "wow", "yes", "zero",
)
# fmt: on
V2_WORDS = tuple(sorted((*V1_WORDS, "backward", "follow", "forward", "learn", "visual")))


@dataclass(frozen=True)
class Protocol:
    """Which label a clip has, and how many clips the official splits hold.

    Args:
        words: the words that are labels; empty for every word the folder has.
        rest: whether all other words are `_unknown_`, and there is `_silence_`.
        clips: official number of clips of a split, to be checked.
    """

    words: tuple[str, ...] = ()
    rest: bool = False
    clips: dict[str, int] = field(default_factory=dict)


# Source: the lists in the two archives, and the official test archives. Validation of the -12
# protocols: the ten words' lines in the list, and a tenth of their number, rounded up, of each
# unknown words and silence, as in the test archives (arXiv 1804.03209, 7.1). Training: what the
# lists leave of all 64,721 and 105,829 clips; for -12 all of it, and a tenth of the ten words'
# 18,538 and 30,769 clips of silence.
PROTOCOLS = {
    "v1-12": Protocol(TEN_WORDS, True, {"training": 52_942, "validation": 3_093, "testing": 3_081}),
    "v2-12": Protocol(TEN_WORDS, True, {"training": 87_920, "validation": 4_445, "testing": 4_890}),
    "v1-30": Protocol(V1_WORDS, False, {"training": 51_088, "validation": 6_798, "testing": 6_835}),
    "v2-35": Protocol(
        V2_WORDS, False, {"training": 84_843, "validation": 9_981, "testing": 11_005}
    ),
    "own": Protocol(),
}
REST_SHARE = 0.1  # unknown clips, and silence clips, for each word clip (same source)
# Of each noise's length, so that splits share no silence.
NOISE_PARTS = {"training": (0.0, 0.8), "validation": (0.8, 0.9), "testing": (0.9, 1.0)}
SILENCE_LEVEL_DB = (-40.0, 0.0)  # of a cut of noise, relative to the recording
ZERO_SHARE = 0.1  # of the silence clips that are digital zero


@dataclass(frozen=True, eq=False)
class Clips:
    """Labelled clips in memory.

    Args:
        waves: (n, 16000) int16.
        targets: (n,) int64, index into `labels`.
        names: of each clip: `word/file`, or `_silence_/<n>` where it was cut from noise.
        labels: of the classes.
    """

    waves: np.ndarray
    targets: np.ndarray
    names: list[str]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def part(self, places: Sequence[int] | np.ndarray) -> "Clips":
        """The clips at these places, with the same labels."""
        names = [self.names[place] for place in places]
        return Clips(self.waves[places], self.targets[places], names, self.labels)


def hash_split(name: str) -> Split:
    """The split of a file by the corpus's own rule: a hash of the speaker decides.

    Source: `which_set` in the README of speech_commands_v0.02 (arXiv 1804.03209, 5.9).
    """
    digest = int(hashlib.sha1(speaker(name).encode()).hexdigest(), 16)
    percent = digest % 2**27 * (100.0 / (2**27 - 1))
    return "validation" if percent < 10 else "testing" if percent < 20 else "training"


def speaker(name: str) -> str:
    """Who speaks in `word/<speaker>_nohash_<n>.wav`; the whole name where it does not say."""
    file = name.rpartition("/")[2]
    return file.partition("_nohash_")[0] if "_nohash_" in file else name


def folder_labels(folder: str | Path, protocol: str) -> tuple[str, ...]:
    """The labels of a protocol, in the order of the logits.

    For `own` they are the names of the folders in `folder`.

    Raises:
        ValueError: if the protocol is not known, or an own folder holds fewer than two words.
        FileNotFoundError: if the folder is not there.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    known = PROTOCOLS[protocol]
    if known.words:
        return ((SILENCE, UNKNOWN) if known.rest else ()) + known.words
    present = {path.name for path in _folders(Path(folder))}
    words = tuple(sorted(words_among(present)))
    if len(words) < 2:
        raise ValueError(
            f"{folder}: {len(words)} folders of words, expected two or more, each with its "
            "recordings"
        )
    silence = {SILENCE} if present & {SILENCE, NOISE} else set()
    return tuple(sorted(silence | present & {UNKNOWN})) + words


def load_split(
    folder: str | Path,
    protocol: str,
    split: Split,
    *,
    seed: int = 0,
    allow_partial: bool = False,
) -> Clips:
    """Read the clips of a split into memory.

    The testing split of a `-12` protocol is best read from the official test archive (`speechrnn
    download v2-test`), whose unknown words and silence are the same for everybody (its silence is
    cut from the same noises as that of training). From any other folder they are drawn with the
    seed: in validation and testing a tenth of the number of word clips of each; in training every
    clip of another word is there.

    Args:
        folder: a corpus, a test archive, or a folder of folders of recordings.
        protocol: a name in `PROTOCOLS`.
        split: training, validation or testing.
        seed: of the draws.
        allow_partial: go on where clips are missing or cannot be read.

    Raises:
        FileNotFoundError: if the folder is not there.
        ValueError: if the split has not the clips it should have.
    """
    if split not in get_args(Split):
        raise ValueError(f"no split {split!r}: expected one of {', '.join(get_args(Split))}")
    folder = Path(folder)
    labels = folder_labels(folder, protocol)
    names = _split_names(folder, labels, PROTOCOLS[protocol], split, seed)
    counts = Counter(_label(name, labels) for name in names)
    silence = np.zeros((0, CLIP_SAMPLES), np.int16)
    if SILENCE in labels and SILENCE not in counts:
        silence = _silence(folder, split, _clips_to_add(counts), seed)
        counts[SILENCE] = len(silence)
    _check_counts(folder, protocol, split, counts, labels, allow_partial)

    waves, unreadable = _read(folder, names)
    if unreadable and (not allow_partial or len(unreadable) == len(names)):
        raise ValueError(
            f"{len(unreadable)} of {len(names)} clips cannot be read, the first is "
            f"{next(iter(unreadable.values()))}; mend them, or type --allow-partial to go on "
            "without them"
        )
    for error in unreadable.values():
        print(f"left out: {error}", file=sys.stderr)
    names = [name for name in names if name not in unreadable]
    names += [f"{SILENCE}/{number}" for number in range(len(silence))]
    targets = np.array([labels.index(_label(name, labels)) for name in names], np.int64)
    return Clips(np.concatenate((waves, silence)), targets, names, labels)


def load_noises(folder: str | Path, split: Split) -> dict[str, np.ndarray]:
    """The part (n,) int16 of each background noise that belongs to a split, by the noise's name.

    The first 80 % of each noise are for training, 10 % for validation and 10 % for testing. A
    folder without noises gives none.
    """
    place = Path(folder) / NOISE
    start, end = NOISE_PARTS[split]
    parts = {}
    for path in find_audio([place]) if place.is_dir() else []:
        wave = to_int16(read_wave(path))
        parts[path.stem] = wave[round(start * len(wave)) : round(end * len(wave))]
    return parts


def join_noises(noises: Mapping[str, np.ndarray]) -> np.ndarray:
    """All noises as one (n,) int16, one behind the other."""
    return np.concatenate([np.zeros(0, np.int16), *noises.values()])


def random_cuts(
    noise: np.ndarray,
    count: int,
    samples: int,
    random: np.random.Generator,
    level_db: tuple[float, float] = SILENCE_LEVEL_DB,
) -> np.ndarray:
    """Cut pieces out of a noise, each from a random place and at a random level.

    Args:
        noise: (n,) int16, n >= `samples`.
        count: how many pieces.
        samples: length of each.
        random: draws all places first, then all levels.
        level_db: smallest and largest level, dB relative to the noise as it is.

    Returns:
        (count, samples) float32, full scale +-1.

    Raises:
        ValueError: if the noise is shorter than a piece.
    """
    if len(noise) < samples:
        raise ValueError(f"noise is {len(noise)} samples long: expected {samples} or more")
    starts = random.integers(0, len(noise) - samples + 1, count)
    gains = 10 ** (random.uniform(*level_db, count) / 20)
    cuts = from_int16(sliding_window_view(noise, samples)[starts])
    cuts *= gains.astype(np.float32)[:, None]
    return cuts


def progress(items: Sequence[T], doing: str) -> Iterable[T]:
    """The items; a bar on stderr shows how many were taken, where stderr is a terminal."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(items, doing, console=console, transient=True, disable=hidden)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; Speech Commands is fetched by `speechrnn download v2`"
        )
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _label(name: str, labels: tuple[str, ...]) -> str:
    word = name.partition("/")[0]
    return word if word in labels else UNKNOWN


def _clips_to_add(counts: Counter[str]) -> int:
    """Unknown clips, or silence clips, to add: a tenth of the word clips, rounded up."""
    return math.ceil(REST_SHARE * sum(counts[word] for word in words_among(counts)))


def _split_names(
    folder: Path, labels: tuple[str, ...], protocol: Protocol, split: Split, seed: int
) -> list[str]:
    """`word/file` of every recorded clip of a split, sorted."""
    names = [
        f"{word.name}/{path.relative_to(word).as_posix()}"
        for word in _folders(folder)
        if word.name != NOISE and (word.name in labels or protocol.rest)
        for path in find_audio([word])
    ]
    if protocol.rest and (folder / SILENCE).is_dir():  # an official test archive
        if split != "testing":
            raise ValueError(
                f"{folder} is a test archive: it has no {split} split; take the corpus's own "
                "folder for that"
            )
        return names
    split_of = _splits(folder, names, protocol)
    names = [name for name in names if split_of[name] == split]
    if protocol.rest and split != "training":
        names = _draw_unknown(names, labels, seed)
    return names


def _splits(folder: Path, names: list[str], protocol: Protocol) -> dict[str, Split]:
    """The split of each file: by the folder's lists, else by the corpus's rule, else by rank."""
    lists: dict[Split, Path] = {
        "validation": folder / "validation_list.txt",
        "testing": folder / "testing_list.txt",
    }
    missing = [path.name for path in lists.values() if not path.is_file()]
    if len(missing) == 1:  # the split without a list would go into training
        raise ValueError(
            f"{folder}: one list of a split is there, {missing[0]} is not: expected both, or none"
        )
    if not missing:
        listed = {s: set(p.read_text(encoding="utf-8").splitlines()) for s, p in lists.items()}
        return {name: next((s for s in listed if name in listed[s]), "training") for name in names}
    if protocol.words:
        return {name: hash_split(name) for name in names}
    return _rank_splits(names)


def _draw_unknown(names: list[str], labels: tuple[str, ...], seed: int) -> list[str]:
    """All word clips, and of the other clips as many as the protocol has, drawn with the seed."""
    counts = Counter(_label(name, labels) for name in names)
    others = [name for name in names if _label(name, labels) == UNKNOWN]
    others.sort(key=lambda name: hashlib.sha1(f"{seed} {name}".encode()).digest())
    drawn = set(others[: _clips_to_add(counts)])
    return [name for name in names if _label(name, labels) != UNKNOWN or name in drawn]


def _rank_splits(names: list[str]) -> dict[str, Split]:
    """A tenth of the speakers for validation and a tenth for testing, in the order of a hash.

    Each is at least one speaker: the corpus's rule would leave a split empty where there are few.
    File names that tell fewer than three speakers apart leave no such choice. Then a tenth of each
    word's files is taken, and the same voice is in all splits.
    """
    if len({speaker(name) for name in names if "_nohash_" in name}) >= 3:
        groups = [sorted({speaker(name) for name in names})]
    else:
        print(
            "file names tell fewer than three speakers apart: the same voice is in all splits",
            file=sys.stderr,
        )
        words = sorted({name.partition("/")[0] for name in names})
        groups = [[name for name in names if name.startswith(f"{word}/")] for word in words]
    split_of: dict[str, Split] = {}
    for group in groups:
        group.sort(key=lambda member: hashlib.sha1(member.encode()).digest())
        tenth = max(1, round(len(group) / 10))
        for rank, member in enumerate(group):
            split_of[member] = (
                "validation" if rank < tenth else "testing" if rank < 2 * tenth else "training"
            )
    return {name: split_of.get(name) or split_of[speaker(name)] for name in names}


def _check_counts(
    folder: Path,
    protocol: str,
    split: str,
    counts: Counter[str],
    labels: tuple[str, ...],
    allow_partial: bool,
) -> None:
    total, expected = sum(counts.values()), PROTOCOLS[protocol].clips.get(split)
    missing = [label for label in labels if not counts[label]]
    if not missing and expected in (None, total):
        return
    message = f"{folder}: {total:,} clips for {protocol} {split}"
    if expected:
        verb = "are missing" if total < expected else "too many"
        present = ", ".join(f"{label} {counts[label]:,}" for label in labels if counts[label])
        message += f", expected {expected:,}: {abs(expected - total):,} {verb}"
        message += f" (there are {present})"
    message += f"; none at all of {', '.join(missing)}" if missing else ""
    if not total:
        raise ValueError(f"{message}; check the folder and its lists")
    if not allow_partial:
        raise ValueError(
            f"{message}; complete the folder, or type --allow-partial to go on with what is there"
        )
    print(f"partial corpus: {message}", file=sys.stderr)


def _silence(folder: Path, split: Split, count: int, seed: int) -> np.ndarray:
    """Cuts (count, 16000) int16 of the split's part of the noises; a tenth is digital zero."""
    noise = join_noises(load_noises(folder, split))
    if len(noise) < CLIP_SAMPLES or not count:
        return np.zeros((0, CLIP_SAMPLES), np.int16)
    random = np.random.default_rng([seed, get_args(Split).index(split)])
    cuts = to_int16(random_cuts(noise, count, CLIP_SAMPLES, random))
    cuts[random.random(count) < ZERO_SHARE] = 0
    return cuts


def _read(folder: Path, names: list[str]) -> tuple[np.ndarray, dict[str, AudioError]]:
    """The clips (n, 16000) int16 that can be read, in order, and the errors of the others."""

    def read(name: str) -> np.ndarray | AudioError:
        try:
            return loudest_second(to_int16(read_wave(folder / name)))
        except AudioError as error:
            return error

    waves = np.zeros((len(names), CLIP_SAMPLES), dtype=np.int16)
    unreadable, readable = {}, 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read_all = pool.map(read, names)
        for name, wave in zip(progress(names, f"reading {folder.name}"), read_all, strict=True):
            if isinstance(wave, AudioError):
                unreadable[name] = wave
            else:
                waves[readable] = wave
                readable += 1
    return waves[:readable], unreadable

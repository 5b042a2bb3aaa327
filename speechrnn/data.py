"""Corpora of short spoken words: which clips there are, in which split, under which label, and batches of them.

In: a folder in the layout of Google Speech Commands (`<word>/<speaker>_nohash_<n>.wav`), one of its official test archives, or
any folder of folders of audio files. Out: int16 clips (n, 16000) with their labels. Splits, draws of unknown words and cuts of
silence are functions of the folder and a seed, never of a global random state. It does not know what a model makes of a clip.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from speechrnn.audio import AudioError, find_audio, read_wave
from speechrnn.model import CLIP_SAMPLES

T = TypeVar("T")
Split = Literal["training", "validation", "testing"]
SILENCE, UNKNOWN, NOISE = "_silence_", "_unknown_", "_background_noise_"
TEN_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
# fmt: off
V1_WORDS = (
    "bed", "bird", "cat", "dog", "down", "eight", "five", "four", "go", "happy", "house", "left", "marvin", "nine", "no", "off",
    "on", "one", "right", "seven", "sheila", "six", "stop", "three", "tree", "two", "up", "wow", "yes", "zero",
)
# fmt: on
V2_WORDS = tuple(sorted((*V1_WORDS, "backward", "follow", "forward", "learn", "visual")))


@dataclass(frozen=True)
class Protocol:
    """Which label a clip has, and how many clips the official splits hold.

    Args:
        words: the words that are labels; empty for every word the folder has.
        rest: whether all other words are `_unknown_` and there is `_silence_`.
        clips: official number of clips of a split, to be checked.
    """

    words: tuple[str, ...] = ()
    rest: bool = False
    clips: dict[str, int] = field(default_factory=dict)


# Source: the lists in the two archives, and the official test archives. Validation of the -12 protocols: the ten words' lines in
# the list and a tenth of them, rounded up, of each unknown words and silence, as in the test archives (arXiv 1804.03209, 7.1).
# Training: what the lists leave of all 64,721 and 105,829 clips; for -12 all of it, and a tenth of the ten words' 18,538 and
# 30,769 clips of silence.
PROTOCOLS = {
    "v1-12": Protocol(TEN_WORDS, True, {"training": 52_942, "validation": 3_093, "testing": 3_081}),
    "v2-12": Protocol(TEN_WORDS, True, {"training": 87_920, "validation": 4_445, "testing": 4_890}),
    "v1-30": Protocol(V1_WORDS, False, {"training": 51_088, "validation": 6_798, "testing": 6_835}),
    "v2-35": Protocol(V2_WORDS, False, {"training": 84_843, "validation": 9_981, "testing": 11_005}),
    "own": Protocol(),
}
REST_SHARE = 0.1  # unknown words, and silence, for each clip of the ten words (same source)
NOISE_PARTS = {"training": (0.0, 0.8), "validation": (0.8, 0.9), "testing": (0.9, 1.0)}  # of each noise's length


@dataclass(frozen=True)
class Clips(Dataset[tuple[Tensor, Tensor]]):
    """Labelled clips in memory; indexed by a list, it gives a batch.

    Args:
        waves: (n, 16000) int16.
        targets: (n,) int64, index into `labels`.
        names: of each clip: `word/file`, or `_silence_/<n>` where it was cut from noise.
        labels: of the classes.
    """

    waves: Tensor
    targets: Tensor
    names: list[str]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.waves[indices], self.targets[indices]


def hash_split(name: str) -> Split:
    """The split of a file by the corpus's own rule: a hash of the speaker, so that a speaker is in one split only.

    Source: `which_set` in the README of speech_commands_v0.02 (arXiv 1804.03209, 5.9).
    """
    percent = int(hashlib.sha1(speaker(name).encode()).hexdigest(), 16) % 2**27 * (100.0 / (2**27 - 1))
    return "validation" if percent < 10 else "testing" if percent < 20 else "training"


def speaker(name: str) -> str:
    """Who speaks in `word/<speaker>_nohash_<n>.wav`; the whole path where the name does not say."""
    file = name.rpartition("/")[2]
    return file.partition("_nohash_")[0] if "_nohash_" in file else name


def folder_labels(folder: str | Path, protocol: str) -> tuple[str, ...]:
    """The labels of a protocol, in the order of the logits; for `own` they are the names of the folder's folders.

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
    words = tuple(sorted(name for name in present if not name.startswith("_")))
    if len(words) < 2:
        raise ValueError(f"{folder}: {len(words)} folders of words, expected two or more, each with its recordings")
    silence = {SILENCE} if present & {SILENCE, NOISE} else set()
    return tuple(sorted(silence | present & {UNKNOWN})) + words


def load_split(folder: str | Path, protocol: str, split: Split, *, seed: int = 0, allow_partial: bool = False) -> Clips:
    """Read the clips of a split into memory.

    The testing split of a `-12` protocol is best read from the official test archive (`speechrnn download v2-test`): there the
    unknown words and the silence are everybody's (its silence is cut from the same noises as training's). From any other folder
    they are drawn with the seed: in validation and testing a tenth of the number of the ten words' clips of each; in training
    every other word's clip is there.

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
    silence = torch.empty(0, CLIP_SAMPLES, dtype=torch.int16)
    if SILENCE in labels and SILENCE not in counts:
        silence = _silence(folder, split, _rest(counts), seed)
        counts[SILENCE] = len(silence)
    _check_counts(folder, protocol, split, counts, labels, allow_partial)

    waves, unreadable = _read(folder, names)
    if unreadable and (not allow_partial or len(unreadable) == len(names)):
        raise ValueError(
            f"{len(unreadable)} of {len(names)} clips cannot be read, the first is {next(iter(unreadable.values()))}; "
            "mend them, or type --allow-partial to go on without them"
        )
    for error in unreadable.values():
        Console(stderr=True).print(f"left out: {error}", markup=False, highlight=False, soft_wrap=True)
    names = [name for name in names if name not in unreadable] + [f"{SILENCE}/{i}" for i in range(len(silence))]
    targets = torch.tensor([labels.index(_label(name, labels)) for name in names])
    return Clips(torch.cat((waves, silence)) if len(silence) else waves, targets, names, labels)


def load_noises(folder: str | Path, split: Split) -> dict[str, Tensor]:
    """Of each background noise the part (n,) int16 that belongs to a split; none where the folder has none.

    Each noise is cut into 80, 10 and 10 % of its length, so splits share no silence.
    """
    start, end = NOISE_PARTS[split]
    parts = {}
    for path in find_audio([Path(folder) / NOISE]) if (Path(folder) / NOISE).is_dir() else []:
        wave = _to_int16(read_wave(path))
        parts[path.stem] = torch.from_numpy(wave[round(start * len(wave)) : round(end * len(wave))])
    return parts


def load_noise(folder: str | Path, split: Split) -> Tensor:
    """The background noises' parts of a split, one behind the other (n,) int16."""
    return torch.cat([torch.empty(0, dtype=torch.int16), *load_noises(folder, split).values()])


def progress(items: Sequence[T], doing: str) -> Iterable[T]:
    """The items, with a bar on stderr while they are gone through, where stderr is a terminal."""
    console = Console(stderr=True)
    return track(items, doing, console=console, transient=True, disable=not console.is_terminal)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; Speech Commands is fetched by `speechrnn download v2`")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _label(name: str, labels: tuple[str, ...]) -> str:
    word = name.partition("/")[0]
    return word if word in labels else UNKNOWN


def _rest(counts: Counter[str]) -> int:
    """How many unknown words, or silences, belong to so many clips of the labels."""
    return math.ceil(REST_SHARE * sum(count for label, count in counts.items() if label not in (UNKNOWN, SILENCE)))


def _split_names(folder: Path, labels: tuple[str, ...], protocol: Protocol, split: Split, seed: int) -> list[str]:
    """`word/file` of every recorded clip of a split, sorted."""
    names = [
        f"{word.name}/{path.relative_to(word).as_posix()}"
        for word in _folders(folder)
        if word.name != NOISE and (word.name in labels or protocol.rest)
        for path in find_audio([word])
    ]
    if protocol.rest and (folder / SILENCE).is_dir():  # an official test archive
        if split != "testing":
            raise ValueError(f"{folder} is a test archive: it has no {split} split; take the corpus's own folder for that")
        return names
    lists = {name: folder / f"{name}_list.txt" for name in ("validation", "testing")}
    missing = [path.name for path in lists.values() if not path.is_file()]
    if len(missing) == 1:  # to take the other as it is would put the split that it names into training
        raise ValueError(f"{folder}: one list of a split is there, {missing[0]} is not: expected both, or none")
    if not missing:
        listed = {name: set(path.read_text(encoding="utf-8").splitlines()) for name, path in lists.items()}
        splits = {name: next((s for s in listed if name in listed[s]), "training") for name in names}
    elif protocol.words:
        splits = {name: hash_split(name) for name in names}
    else:
        splits = _rank_splits(names)
    names = [name for name in names if splits[name] == split]
    if protocol.rest and split != "training":
        counts = Counter(_label(name, labels) for name in names)
        others = [name for name in names if _label(name, labels) == UNKNOWN]
        drawn = set(sorted(others, key=lambda name: hashlib.sha1(f"{seed} {name}".encode()).digest())[: _rest(counts)])
        names = [name for name in names if _label(name, labels) != UNKNOWN or name in drawn]
    return names


def _rank_splits(names: list[str]) -> dict[str, str]:
    """A tenth of the speakers each for validation and testing, at least one, in the order of a hash.

    The corpus's rule would leave a split empty where there are few speakers. Where fewer than three are named there is no such
    choice: then a tenth of each word's files is taken, and the same voice is in all splits.
    """
    if len({speaker(name) for name in names if "_nohash_" in name}) >= 3:
        groups = [sorted({speaker(name) for name in names})]
    else:
        Console(stderr=True).print("file names tell of fewer than three speakers: splits share voices", soft_wrap=True)
        words = sorted({name.partition("/")[0] for name in names})
        groups = [[name for name in names if name.startswith(f"{word}/")] for word in words]
    split_of: dict[str, str] = {}
    for group in groups:
        group.sort(key=lambda who: hashlib.sha1(who.encode()).digest())
        tenth = max(1, round(len(group) / 10))
        for rank, who in enumerate(group):
            split_of[who] = "validation" if rank < tenth else "testing" if rank < 2 * tenth else "training"
    return {name: split_of.get(name) or split_of[speaker(name)] for name in names}


def _check_counts(
    folder: Path, protocol: str, split: str, counts: Counter[str], labels: tuple[str, ...], allow_partial: bool
) -> None:
    found, expected = sum(counts.values()), PROTOCOLS[protocol].clips.get(split)
    missing = [label for label in labels if not counts[label]]
    if not missing and expected in (None, found):
        return
    said = f"{folder}: {found:,} clips for {protocol} {split}"
    if expected:
        said += f", expected {expected:,}: {abs(expected - found):,} {'are missing' if found < expected else 'too many'}"
        said += f" (there are {', '.join(f'{label} {counts[label]:,}' for label in labels if counts[label])})"
    said += f"; none at all of {', '.join(missing)}" if missing else ""
    if not found:
        raise ValueError(f"{said}; check the folder and its lists")
    if not allow_partial:
        raise ValueError(f"{said}; complete the folder, or type --allow-partial to go on with what is there")
    Console(stderr=True).print(f"partial corpus: {said}", markup=False, highlight=False, soft_wrap=True)


def _silence(folder: Path, split: Split, count: int, seed: int) -> Tensor:
    """Cuts (count, 16000) from the split's part of the noises, from full level down to -40 dB; one in ten is digital zero."""
    noise = load_noise(folder, split)
    if len(noise) < CLIP_SAMPLES or not count:
        return torch.empty(0, CLIP_SAMPLES, dtype=torch.int16)
    random = np.random.default_rng([seed, get_args(Split).index(split)])
    starts = random.integers(0, len(noise) - CLIP_SAMPLES + 1, count)
    gains = 10 ** (random.uniform(-40, 0, count) / 20) * (random.random(count) >= 0.1)
    cuts = [(noise[start : start + CLIP_SAMPLES] * gain).round().short() for start, gain in zip(starts, gains, strict=True)]
    return torch.stack(cuts)


def _read(folder: Path, names: list[str]) -> tuple[Tensor, dict[str, AudioError]]:
    """The clips (n, 16000) int16 that can be read, in order, and what is wrong with the others."""

    def read(name: str) -> np.ndarray | AudioError:
        try:
            return _one_second(_to_int16(read_wave(folder / name)))
        except AudioError as error:
            return error

    waves = np.zeros((len(names), CLIP_SAMPLES), dtype=np.int16)
    unreadable, good = {}, 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read_all = pool.map(read, names)
        for name, wave in zip(progress(names, f"reading {folder.name}"), read_all, strict=True):
            if isinstance(wave, AudioError):
                unreadable[name] = wave
            else:
                waves[good] = wave
                good += 1
    return torch.from_numpy(waves[:good]), unreadable


def _to_int16(wave: np.ndarray) -> np.ndarray:
    return (wave * 32768).round().clip(-32768, 32767).astype(np.int16)


def _one_second(wave: np.ndarray) -> np.ndarray:
    """Silence after a shorter clip, as in the corpus; of a longer one, the second with the most energy."""
    if len(wave) > CLIP_SAMPLES:
        energy = np.cumsum(np.concatenate(([0], wave.astype(np.float64) ** 2)))
        start = int((energy[CLIP_SAMPLES:] - energy[:-CLIP_SAMPLES]).argmax())
        return wave[start : start + CLIP_SAMPLES]
    return np.pad(wave, (0, CLIP_SAMPLES - len(wave)))


def global_seed() -> int:
    """The seed of this run, where Lightning's `seed_everything` recorded it."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


class Batches(Sampler[list[int]]):
    """Indices of each batch, one rank's share: a function of seed and epoch alone.

    The batch is global: ranks share it, so several devices take the same steps as one.

    Args:
        weights: (n,) chance of each clip to be drawn, with replacement; None for all of them once, in order.
        draws: indices in an epoch.
        batch_size: of all ranks together.
        seed: of the draws.
        rank: this process.
        ranks: how many processes there are.
    """

    def __init__(self, weights: Tensor | None, draws: int, batch_size: int, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        self.weights, self.draws, self.batch_size, self.seed = weights, draws, batch_size, seed
        self.rank, self.ranks = rank, ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw anew; Lightning calls it before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.draws, self.batch_size)
        return full + (rest >= self.ranks or not full)  # a rest too small for every rank to get a clip joins the batch before

    def __iter__(self) -> Iterator[list[int]]:
        if self.weights is None:
            indices = list(range(self.draws))
        else:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            indices = torch.multinomial(self.weights, self.draws, replacement=True, generator=generator).tolist()
        for number in range(1, len(self) + 1):
            end = number * self.batch_size if number < len(self) else self.draws
            yield indices[(number - 1) * self.batch_size : end][self.rank :: self.ranks]


class SpeechCommands(LightningDataModule):
    """Training batches: indices (B,) of clips and targets (B,). Validation batches: int16 waves (B, 16000) and targets (B,).

    Words are drawn by their number of clips to the power 1 - `balance`: 0 as they come, 1 all alike.

    Args:
        folder: the corpus.
        protocol: v1-12, v2-12, v1-30, v2-35 or own.
        batch_size: clips in a step, of all devices together.
        balance: how far rare words are drawn more often.
        unknown_share: share of `_unknown_` in training, where the protocol has it.
        silence_share: share of `_silence_` in training, where the protocol has it.
        draw_seed: of the draws of unknown and silence clips; apart from the training seed, so that all seeds see one validation
            set.
        allow_partial: go on where the folder lacks clips of the official splits.
    """

    def __init__(
        self,
        folder: str,
        protocol: str = "v2-12",
        batch_size: int = 128,
        balance: float = 0.75,
        unknown_share: float = 0.15,
        silence_share: float = 0.08,
        draw_seed: int = 0,
        allow_partial: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or not 0 <= balance <= 1 or not 0 <= unknown_share + silence_share < 1:
            raise ValueError(
                f"batch_size {batch_size}, balance {balance}, unknown_share {unknown_share}, silence_share {silence_share}: "
                "expected a batch of 1 or more, a balance from 0 to 1, and shares that leave some for the words"
            )
        self.folder, self.protocol, self.batch_size = Path(folder), protocol, batch_size
        self.balance, self.draw_seed, self.allow_partial = balance, draw_seed, allow_partial
        self.shares = {UNKNOWN: unknown_share, SILENCE: silence_share}
        self.labels = folder_labels(folder, protocol)
        self.clips: dict[Split, Clips] = {}

    def setup(self, stage: str) -> None:
        """Read both splits into memory, once."""
        if not self.clips:
            for split in ("training", "validation"):
                self.clips[split] = load_split(
                    self.folder, self.protocol, split, seed=self.draw_seed, allow_partial=self.allow_partial
                )
            self.noise = load_noise(self.folder, "training")

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Indices and targets of clips drawn by `weights`, with replacement.

        An epoch has as many clips as the words have, and a tenth of that for each of unknown and silence.
        """
        clips = self.clips["training"]
        words = sum(clips.labels[target] not in self.shares for target in clips.targets.tolist())
        rest = sum(label in self.shares for label in clips.labels)
        indices = TensorDataset(torch.arange(len(clips)), clips.targets)
        return self._loader(indices, self.weights(clips), words + rest * math.ceil(REST_SHARE * words))

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Every clip of the validation split once."""
        return self._loader(self.clips["validation"], None, len(self.clips["validation"]))

    def weights(self, clips: Clips) -> Tensor:
        """Chance (n,) of each clip to be drawn, in sum 1."""
        words = [name.partition("/")[0] for name in clips.names]
        counts = Counter(words)
        weights = torch.tensor([counts[word] ** -self.balance for word in words], dtype=torch.float64)
        groups = [clips.labels[target] if clips.labels[target] in self.shares else "" for target in clips.targets.tolist()]
        shares = {label: share for label, share in self.shares.items() if label in groups}
        shares[""] = 1 - sum(shares.values())
        for group, share in shares.items():
            members = torch.tensor([other == group for other in groups])
            weights[members] *= share / weights[members].sum()
        return weights

    def _loader(self, clips: Dataset[Any], weights: Tensor | None, draws: int) -> DataLoader[tuple[Tensor, Tensor]]:
        trainer = self.trainer
        rank, ranks = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        batches = Batches(weights, draws, self.batch_size, global_seed(), rank, ranks)
        return DataLoader(clips, sampler=batches, batch_size=None)

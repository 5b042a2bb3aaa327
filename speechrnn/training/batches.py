"""Batches of log mel frames with their targets: which clips are drawn, and in which order.

In: the clips of a corpus, and a model's front end for their frames. Out: training batches, log mel
frames (B, T, M) float16, targets (B,), and where there are any, another model's answers (B, C),
drawn at random; validation batches, frames in float32 and targets, in order. The draws are
functions of the run's seed and the epoch. It does not know models, augmentation or losses.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from speechrnn.audio import find_audio, read_blocks, to_int16
from speechrnn.config import CLIP_SAMPLES, SILENCE, UNKNOWN
from speechrnn.corpus import (
    REST_SHARE,
    Clips,
    Split,
    folder_labels,
    join_noises,
    load_noises,
    load_split,
    progress,
)
from speechrnn.features import Mfcc
from speechrnn.files import whole_file
from speechrnn.training.frames import log_mel_frames
from speechrnn.training.pieces import Pieces

PIECES = 200_000  # different ones of each kind of recording
NO_WORD = -1  # target of what holds no word and may be called unknown or silence: pieces of sounds
Loader = DataLoader[tuple[Tensor, ...]]


def global_seed() -> int:
    """The seed of this run, where Lightning's `seed_everything` recorded it."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


class Batches(Sampler[list[int]]):
    """Indices of each batch, one process's share: a function of seed and epoch alone.

    A batch is shared by all processes, so several devices take the same steps as one.

    Args:
        weights: (n,) chance of each clip to be drawn, with replacement; None for all of them once,
            in order.
        draws: indices in an epoch.
        batch_size: of all processes together.
        seed: of the draws.
        rank: number of this process.
        ranks: how many processes there are.
    """

    def __init__(
        self,
        weights: Tensor | None,
        draws: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.weights, self.draws, self.batch_size, self.seed = weights, draws, batch_size, seed
        self.rank, self.ranks = rank, ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw anew; Lightning calls it before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.draws, self.batch_size)
        # A rest too small to give every process a clip joins the batch before it.
        return full + (rest >= self.ranks or not full)

    def __iter__(self) -> Iterator[list[int]]:
        if self.weights is None:
            indices = list(range(self.draws))
        else:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            drawn = torch.multinomial(
                self.weights, self.draws, replacement=True, generator=generator
            )
            indices = drawn.tolist()
        for number in range(1, len(self) + 1):
            end = number * self.batch_size if number < len(self) else self.draws
            yield indices[(number - 1) * self.batch_size : end][self.rank :: self.ranks]


class SpeechCommands(LightningDataModule):
    """The clips of a corpus as batches of log mel frames with targets.

    Words are drawn by their number of clips to the power 1 - `balance`: with 0 as they come, with 1
    all words alike.

    Args:
        folder: the corpus.
        protocol: v1-12, v2-12, v1-30, v2-35 or own.
        batch_size: clips in a step, of all devices together.
        balance: how far rare words are drawn more often.
        unknown_share: share of `_unknown_` in training, where the protocol has it.
        silence_share: share of `_silence_` in training, where the protocol has it.
        talk: folder of recordings of running speech without a command; pieces of them are unknown
            words, drawn anew in each epoch.
        talk_share: share of such pieces in training.
        sounds: folder of recordings of music, animals, machines and the like; pieces of them hold
            no word: whether they are unknown or silence is left to the model.
        sounds_share: share of such pieces in training.
        answers: file of another model's answers to the training clips, as `save_answers` writes
            it; a training learns them beside those of its teacher.
        least_draws: clips in an epoch at the least, pieces aside. Where a folder has fewer, an
            epoch draws each several times, and so takes enough steps to learn from.
        draw_seed: of the draws of unknown and silence clips, and of the pieces; apart from the
            training's seed, so that the same validation clips measure runs of all seeds.
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
        talk: str | None = None,
        talk_share: float = 0.0,
        sounds: str | None = None,
        sounds_share: float = 0.0,
        answers: str | None = None,
        least_draws: int = 0,
        draw_seed: int = 0,
        allow_partial: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or not 0 <= balance <= 1 or not 0 <= unknown_share + silence_share < 1:
            raise ValueError(
                f"batch_size {batch_size}, balance {balance}, unknown_share {unknown_share}, "
                f"silence_share {silence_share}: expected a batch of 1 or more, a balance from 0 "
                "to 1, and shares that leave some for the words"
            )
        self.folder, self.protocol, self.batch_size = Path(folder), protocol, batch_size
        self.balance, self.draw_seed, self.allow_partial = balance, draw_seed, allow_partial
        self.least_draws = least_draws
        self.shares = {UNKNOWN: unknown_share, SILENCE: silence_share}
        self.labels = folder_labels(folder, protocol)
        self.recordings = _asked_for(talk, talk_share) | _asked_for(sounds, sounds_share)
        if sum(self.recordings.values()) >= 1:
            raise ValueError(
                f"talk_share {talk_share}, sounds_share {sounds_share}: expected less than 1 "
                "together"
            )
        if self.recordings and UNKNOWN not in self.labels:
            raise ValueError(
                f"pieces of talk and sounds are {UNKNOWN}, which {protocol} does not have in "
                f"{folder}: leave out talk and sounds"
            )
        self.talk = talk
        self.pieces: list[Pieces] = []
        self.answers_file = answers
        self.answers: Tensor | None = None  # log probabilities (n, C), NaN where there is none
        self.clips: dict[Split, Clips] = {}
        self.frames: dict[Split, Tensor] = {}

    def setup(self, stage: str) -> None:
        """Read the clips of both splits into memory, once."""
        if self.clips:
            return
        clips: dict[Split, Clips] = {}
        for split in ("training", "validation"):
            clips[split] = load_split(
                self.folder,
                self.protocol,
                split,
                seed=self.draw_seed,
                allow_partial=self.allow_partial,
            )
        self.noise = join_noises(load_noises(self.folder, "training"))
        if self.answers_file is not None:
            self.answers = read_answers(self.answers_file, clips["training"])
        self.clips = clips

    def compute_frames(self, mfcc: Mfcc) -> None:
        """Compute the log mel frames of all clips and recordings, on the device of `mfcc`.

        They stay there.
        """
        self.frames = {
            "training": log_mel_frames(mfcc, self.clips["training"].waves),
            "validation": log_mel_frames(mfcc, self.clips["validation"].waves, torch.float32),
        }
        length = self.frames["training"].shape[1]
        self.pieces = [
            Pieces(
                read_recordings(mfcc, folder), length, PIECES, folder == self.talk, self.draw_seed
            )
            for folder in self.recordings
        ]

    def train_dataloader(self) -> Loader:
        """Batches of clips drawn by `weights`, with replacement, and of pieces of recordings.

        An epoch has as many clips as the words have, and a tenth of that for each of unknown and
        silence, or `least_draws` if that is more; pieces come on top.
        """
        pieces = sum(self.recordings.values())
        draws = round(self.draws() / (1 - pieces))
        return self._loader("training", self._all_weights(), draws)

    def draws(self) -> int:
        """Clips in an epoch of training, pieces aside."""
        clips = self.clips["training"]
        words = sum(clips.labels[target] not in self.shares for target in clips.targets.tolist())
        others = sum(label in self.shares for label in clips.labels)
        return max(self.least_draws, words + others * math.ceil(REST_SHARE * words))

    def val_dataloader(self) -> Loader:
        """Batches of every clip of the validation split, once."""
        return self._loader("validation", None, len(self.clips["validation"]))

    def log_prior(self) -> Tensor:
        """Logarithm (C,) of how much more often a label is drawn than it is met.

        It is met as often as in the validation split; all words have one value. Added to the
        logits in training, it keeps the model from expecting what is drawn more often (logit
        adjustment: Menon et al., arXiv 2007.07314).
        """
        training, validation = self.clips["training"], self.clips["validation"]
        weights = self._all_weights()
        drawn = torch.zeros(len(self.labels), dtype=torch.float64)
        drawn.index_add_(0, torch.from_numpy(training.targets), weights[: len(training)])
        unknown, silence = (
            [self.labels.index(label)] if label in self.labels else []
            for label in (UNKNOWN, SILENCE)
        )
        for folder, share in self.recordings.items():
            places = unknown if folder == self.talk else unknown + silence
            drawn[places] += share / len(places)
        met = torch.bincount(torch.from_numpy(validation.targets), minlength=len(self.labels))
        words = torch.tensor([label not in self.shares for label in self.labels])
        for labels in (drawn, met):
            labels[words] = labels[words].sum()
        ratio = drawn / (met / len(validation))
        return torch.where((met > 0) & (drawn > 0), ratio, 1).log().float()

    def _all_weights(self) -> Tensor:
        """Chance of each clip, then of each piece, to be drawn, in sum 1."""
        shares = list(self.recordings.values())
        clips = self.weights(self.clips["training"]) * (1 - sum(shares))
        pieces = [torch.full((PIECES,), share / PIECES, dtype=torch.float64) for share in shares]
        return torch.cat([clips, *pieces])

    def weights(self, clips: Clips) -> Tensor:
        """Chance (n,) of each clip to be drawn, in sum 1."""
        words = [name.partition("/")[0] for name in clips.names]
        counts = Counter(words)
        weights = torch.tensor(
            [counts[word] ** -self.balance for word in words], dtype=torch.float64
        )
        labels = [clips.labels[target] for target in clips.targets.tolist()]
        groups = [label if label in self.shares else "" for label in labels]
        shares = {label: share for label, share in self.shares.items() if label in groups}
        shares[""] = 1 - sum(shares.values())  # of all words together
        for group, share in shares.items():
            members = torch.tensor([other == group for other in groups])
            weights[members] *= share / weights[members].sum()
        return weights

    def _loader(self, split: Split, weights: Tensor | None, draws: int) -> Loader:
        frames = self.frames[split]
        targets = torch.from_numpy(self.clips[split].targets).to(frames.device)
        trainer = self.trainer
        rank, ranks = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        batches = Batches(weights, draws, self.batch_size, global_seed(), rank, ranks)
        # Each item is a whole batch: one indexing of a tensor, on the device where it lies.
        clips = [frames, targets]
        if split == "training" and self.answers is not None:
            clips.append(self.answers.to(frames.device))
        items: Dataset[tuple[Tensor, ...]] = TensorDataset(*clips)
        if split == "training" and self.pieces:
            unknown = self.labels.index(UNKNOWN)
            marks = [unknown if folder == self.talk else NO_WORD for folder in self.recordings]
            items = ClipsAndPieces(*clips, pieces=self.pieces, marks=marks)
        return DataLoader(items, sampler=batches, batch_size=None)


class ClipsAndPieces(Dataset[tuple[Tensor, ...]]):
    """Clips by number, and behind them pieces of recordings; a list of numbers gives a batch.

    Args:
        frames: log mel frames (n, T, M) of the clips.
        targets: (n,) of the clips.
        answers: (n, C) of another model to the clips; pieces have none, NaN.
        pieces: `PIECES` of each kind of recording.
        marks: target of the pieces of each kind.
    """

    def __init__(
        self,
        frames: Tensor,
        targets: Tensor,
        answers: Tensor | None = None,
        *,
        pieces: Sequence[Pieces],
        marks: Sequence[int],
    ) -> None:
        self.frames, self.targets, self.answers = frames, targets, answers
        self.pieces, self.marks = pieces, marks

    def __len__(self) -> int:
        return len(self.frames) + sum(map(len, self.pieces))

    def __getitem__(self, numbers: list[int]) -> tuple[Tensor, ...]:
        chosen = torch.tensor(numbers, device=self.frames.device)
        is_clip = chosen < len(self.frames)
        frames = self.frames.new_empty(len(chosen), *self.frames.shape[1:])
        targets = torch.empty_like(chosen)
        frames[is_clip] = self.frames[chosen[is_clip]]
        targets[is_clip] = self.targets[chosen[is_clip]]
        first = len(self.frames)
        for pieces, mark in zip(self.pieces, self.marks, strict=True):
            mine = (chosen >= first) & (chosen < first + len(pieces))
            frames[mine] = pieces.take(chosen[mine] - first)
            targets[mine] = mark
            first += len(pieces)
        if self.answers is None:
            return frames, targets
        answers = self.answers.new_full((len(chosen), self.answers.shape[1]), math.nan)
        answers[is_clip] = self.answers[chosen[is_clip]]
        return frames, targets, answers


def save_answers(path: str | Path, clips: Clips, answers: np.ndarray) -> None:
    """Write a model's answers to clips: log probabilities (n, C), NaN where it has none."""
    with whole_file(path) as beside, beside.open("wb") as file:
        np.savez(file, names=clips.names, labels=clips.labels, answers=answers.astype(np.float32))


def read_answers(path: str | Path, clips: Clips) -> Tensor:
    """A model's answers to these clips: log probabilities (n, C).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or its answers are to other clips.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no answers {path}: write them with recipes/whisper_answers.py, or type "
            "--data.answers null to train without"
        )
    try:
        with Path(path).open("rb") as file, np.load(file) as kept:
            names, labels, answers = kept["names"], kept["labels"], kept["answers"]
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}): write it anew") from error
    if names.tolist() != clips.names or labels.tolist() != list(clips.labels):
        raise ValueError(
            f"{path}: {len(names):,} answers with {len(labels)} labels, of other clips than these "
            f"{len(clips):,} with {len(clips.labels)}: write it anew from this corpus"
        )
    return torch.from_numpy(answers)


def _asked_for(folder: str | None, share: float) -> dict[str, float]:
    if share and folder is None:
        raise ValueError(f"a share of {share} of pieces: expected a folder of recordings with it")
    return {folder: share} if folder is not None and share else {}


def read_recordings(mfcc: Mfcc, *folders: str | Path) -> list[Tensor]:
    """Log mel frames (N, M) of the recordings in these folders that last two seconds or more."""
    if not (paths := find_audio(folders)):
        raise FileNotFoundError(f"{folders[0]}: no audio files in this folder")
    recordings = []
    for path in progress(paths, f"reading {Path(folders[0]).name}"):
        wave = np.concatenate([to_int16(block) for block in read_blocks(path, 60.0)])
        if len(wave) >= 2 * CLIP_SAMPLES:
            recordings.append(log_mel_frames(mfcc, wave[None])[0])
    return recordings

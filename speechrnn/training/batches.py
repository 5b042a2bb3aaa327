"""Batches of log mel frames with their targets: which clips are drawn, and in which order.

In: the clips of a corpus, and a model's front end for their frames. Out: training batches, log mel
frames (B, T, M) float16 and targets (B,), drawn at random; validation batches, the same in float32
and in order. The draws are functions of the run's seed and the epoch. It does not know models,
augmentation or losses.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from speechrnn.config import SILENCE, UNKNOWN
from speechrnn.corpus import (
    REST_SHARE,
    Clips,
    Split,
    folder_labels,
    join_noises,
    load_noises,
    load_split,
)
from speechrnn.features import Mfcc
from speechrnn.training.frames import log_mel_frames

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
        draw_seed: of the draws of unknown and silence clips; apart from the training's seed, so
            that the same validation clips measure runs of all seeds.
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
                f"batch_size {batch_size}, balance {balance}, unknown_share {unknown_share}, "
                f"silence_share {silence_share}: expected a batch of 1 or more, a balance from 0 "
                "to 1, and shares that leave some for the words"
            )
        self.folder, self.protocol, self.batch_size = Path(folder), protocol, batch_size
        self.balance, self.draw_seed, self.allow_partial = balance, draw_seed, allow_partial
        self.shares = {UNKNOWN: unknown_share, SILENCE: silence_share}
        self.labels = folder_labels(folder, protocol)
        self.clips: dict[Split, Clips] = {}
        self.frames: dict[Split, Tensor] = {}

    def setup(self, stage: str) -> None:
        """Read the clips of both splits into memory, once."""
        if not self.clips:
            for split in ("training", "validation"):
                self.clips[split] = load_split(
                    self.folder,
                    self.protocol,
                    split,
                    seed=self.draw_seed,
                    allow_partial=self.allow_partial,
                )
            self.noise = join_noises(load_noises(self.folder, "training"))

    def compute_frames(self, mfcc: Mfcc) -> None:
        """Compute the log mel frames of all clips, on the device of `mfcc`, where they stay."""
        self.frames = {
            "training": log_mel_frames(mfcc, self.clips["training"].waves),
            "validation": log_mel_frames(mfcc, self.clips["validation"].waves, torch.float32),
        }

    def train_dataloader(self) -> Loader:
        """Batches of clips drawn by `weights`, with replacement.

        An epoch has as many clips as the words have, and a tenth of that for each of unknown and
        silence.
        """
        clips = self.clips["training"]
        words = sum(clips.labels[target] not in self.shares for target in clips.targets.tolist())
        others = sum(label in self.shares for label in clips.labels)
        draws = words + others * math.ceil(REST_SHARE * words)
        return self._loader("training", self.weights(clips), draws)

    def val_dataloader(self) -> Loader:
        """Batches of every clip of the validation split, once."""
        return self._loader("validation", None, len(self.clips["validation"]))

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
        return DataLoader(TensorDataset(frames, targets), sampler=batches, batch_size=None)

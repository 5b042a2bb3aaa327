"""Train a peer, BC-ResNet, on the data of the shipped models: are the clips the limit, or are we?

    python recipes/bc_resnet.py --data CORPUS --talk TALK --sounds SOUNDS [--scale 3] [--epochs 40]

Network and optimizer are those of Kim et al. 2021, "Broadcasted Residual Learning for Efficient
Keyword Spotting" (arXiv 2106.04140): convolutions over a whole second, which is neither recurrent
nor causal, and no stream. Clips, talk, sounds and the changes that they undergo are those of
`shipped_base.yaml`. The paper trains 200 epochs. A stopped run goes on where it was. Prints the
accuracy on validation clips.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from speechrnn.training.augmentation import Augmentation
from speechrnn.training.batches import SpeechCommands
from speechrnn.training.module import Training
from speechrnn.training.run import prepare

RECIPE = Path(__file__).with_name("shipped_base.yaml")
SUB_BANDS, DROPOUT = 5, 0.1
# Channels (times the scale), blocks, stride over frequency and dilation over time of each stage
STAGES = ((8, 2, 1, 1), (12, 2, 2, 2), (16, 4, 2, 4), (20, 4, 1, 8))
STEM, LAST = 16, 32  # channels, times the scale
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, WARM_UP = 0.1, 0.9, 1e-3, 5 / 200
SEED = 1


class SubSpectralNorm(nn.Module):
    """Batch normalisation of each of `SUB_BANDS` groups of rows of (B, C, F, T) apart.

    Source: Chang et al. 2021 (arXiv 2103.13620).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels * SUB_BANDS)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, rows, steps = x.shape
        bands = x.reshape(batch, channels * SUB_BANDS, rows // SUB_BANDS, steps)
        normed: Tensor = self.norm(bands)
        return normed.reshape(x.shape)


class Block(nn.Module):
    """A broadcasted residual block, (B, C, F, T) to (B, C', F / stride, T).

    Its first part goes over frequency, its second over time, on the mean of all rows, and is added
    to every row. The block that changes the channels has no path around it.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.changes = channels_in != channels
        widen: list[nn.Module] = []
        if self.changes:
            widen = [
                nn.Conv2d(channels_in, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        self.over_frequency = nn.Sequential(
            *widen,
            nn.Conv2d(channels, channels, (3, 1), (stride, 1), (1, 0), groups=channels, bias=False),
            SubSpectralNorm(channels),
        )
        self.over_time = nn.Sequential(
            nn.Conv2d(
                channels, channels, (1, 3), 1, (0, dilation), (1, dilation), channels, bias=False
            ),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Dropout2d(DROPOUT),
        )

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.over_frequency(x)
        out: Tensor = rows + self.over_time(rows.mean(2, keepdim=True))
        return torch.relu(out if self.changes else out + x)


class BCResNet(nn.Module):
    """Log mel frames (B, T, 40) to logits (B, C)."""

    def __init__(self, scale: int, classes: int) -> None:
        super().__init__()
        width = STEM * scale
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 5, (2, 1), 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks = []
        for size, count, stride, dilation in STAGES:
            for number in range(count):
                blocks.append(Block(width, size * scale, 1 if number else stride, dilation))
                width = size * scale
        self.blocks = nn.Sequential(*blocks)
        last = LAST * scale
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 5, 1, (0, 2), groups=width, bias=False),
            nn.Conv2d(width, last, 1, bias=False),
            nn.BatchNorm2d(last),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(last, classes, 1),
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        image = log_mel.mT[:, None]
        logits: Tensor = self.head(self.blocks(self.stem(image)))
        return logits.flatten(1)


class PeerTraining(Training):
    """`Training` with another network; of its own there is the front end alone."""

    def __init__(self, scale: int, **settings: Any) -> None:
        super().__init__(**settings, warm_up=WARM_UP, carry_state=0.0, hidden_size=1, layers=1)
        self.peer = BCResNet(scale, len(self.model.config.labels))

    def answer(self, log_mel: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return self.peer(log_mel).float(), hidden

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            self.peer.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("data", "talk", "sounds"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--scale", type=int, default=3, help="of the channels (default: 3)")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--to", type=Path, help="of checkpoints (default: runs/bc_resnet_SCALE)")
    options = parser.parse_args()
    folder = options.to or Path(f"runs/bc_resnet_{options.scale}")
    recipe = yaml.safe_load(RECIPE.read_text())
    settings = {**recipe["data"], "folder": str(options.data), "allow_partial": True}
    settings |= {"talk": str(options.talk), "sounds": str(options.sounds), "answers": None}
    seed_everything(SEED)
    data = SpeechCommands(**settings)
    training = PeerTraining(
        options.scale, labels=data.labels,
        augmentation=Augmentation(**recipe["model"]["augmentation"]),
    )  # fmt: skip
    parameters = sum(part.numel() for part in training.peer.parameters())
    print(f"BC-ResNet-{options.scale}, {parameters:,} parameters", flush=True)
    each_epoch = ModelCheckpoint(
        folder, "last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    trainer = Trainer(
        accelerator="cpu", max_epochs=options.epochs, precision="bf16-mixed", logger=False,
        callbacks=[each_epoch],
        enable_progress_bar=False, enable_model_summary=False, check_val_every_n_epoch=5,
        use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip
    prepare(training, data, trainer.strategy.root_device)
    last = folder / "last.ckpt"
    trainer.fit(training, datamodule=data, ckpt_path=last if last.is_file() else None)
    (found,) = trainer.validate(training, data, verbose=False)
    print(f"validation accuracy {found['validation_accuracy']:.4f}")


if __name__ == "__main__":
    main()

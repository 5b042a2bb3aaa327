"""What several test files use: a small model that was never trained, and a few recordings."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its kernels then run on the CPU

from speechrnn import checkpoint
from speechrnn.model import Model, ModelConfig

FACTS = {"corpus": "none", "seed": 3, "epochs": 0, "date": "2025-01-01", "hardware": "none", "recipe": "none"}
SCORES = {
    "testing": {
        "accuracy": 0.25,
        "mean_accuracy": 0.2,
        "clips": 1234,
        "protocol": "own",
        "split": "testing",
        "correct": 308,
        "streamed": False,
    },
}


@pytest.fixture(scope="session")
def model() -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(labels=("_silence_", "_unknown_", "yes", "no"), hidden_size=16, layers=2)).eval()


@pytest.fixture(scope="session")
def model_folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    checkpoint.save(model, folder, training=FACTS, scores=SCORES, card="# A small model\n")
    return folder


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with b.wav, a.wav and deeper/c.wav: noises of one second, each another one."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "deeper").mkdir()
    for seed, name in enumerate(("b.wav", "a.wav", "deeper/c.wav")):
        soundfile.write(folder / name, np.random.default_rng(seed).uniform(-0.5, 0.5, 16_000) * 10**-seed, 16_000)
    return folder

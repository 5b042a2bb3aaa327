"""What several test files use: a small model that was never trained, recordings, commands."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: kernels then run on the CPU

from speechrnn import Recogniser, cli, load
from speechrnn.audio import read_wave
from speechrnn.config import ModelConfig
from speechrnn.folder import save_folder
from speechrnn.model import Model

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data" / "synthetic_commands"
REAL_CLIPS = ROOT.parent / "shared" / "data" / "clips"  # of people, where they are at hand
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
FACTS = {
    "corpus": "none",
    "seed": 3,
    "epochs": 0,
    "date": "2025-01-01",
    "hardware": "none",
    "recipe": "none",
}
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
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def kokoro_folder() -> Path:
    if not (folder := os.environ.get("SPEECHRNN_KOKORO")):
        pytest.skip("SPEECHRNN_KOKORO names no folder written by recipes/get_kokoro.sh")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small networks are fastest on one thread, by far where cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model() -> Model:
    torch.manual_seed(0)
    labels = ("_silence_", "_unknown_", "yes", "no")
    return Model(ModelConfig(labels=labels, hidden_size=16, layers=2)).eval()


@pytest.fixture(scope="session")
def model_folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    card = "# A small model\n"
    save_folder(folder, model.config, model.arrays(), training=FACTS, scores=SCORES, card=card)
    return folder


@pytest.fixture(scope="session")
def recogniser(model_folder: Path) -> Recogniser:
    """The small model that was never trained."""
    return load(model_folder)


@pytest.fixture(scope="session")
def recording() -> np.ndarray:
    """The ten words (N,), one every 1.5 s, each half a second into its part, from the corpus."""
    return read_wave(DATA / "recording.ogg")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with b.wav, a.wav and deeper/c.wav: noises of one second, each another one."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "deeper").mkdir()
    for seed, name in enumerate(("b.wav", "a.wav", "deeper/c.wav")):
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, 16_000) * 10**-seed
        soundfile.write(folder / name, noise, 16_000)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; gives its status, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """No file may grow beyond so many bytes: then writing is an OSError, as on a full disk."""

    @contextmanager
    def full(free: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))  # Python ignores SIGXFSZ
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return full


def assert_one_line(error: str, *parts: object) -> None:
    """One line of ours on stderr, with these parts in it."""
    assert error.startswith("speechrnn: ") and error.endswith("\n") and error.count("\n") == 1, (
        error
    )
    for part in parts:
        assert str(part) in error

"""Scripts of `recipes/` as modules for tests, and a little corpus for them."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from conftest import DATA

from speechrnn.corpus import NOISE

FOLDER = Path(__file__).parent.parent / "recipes"


def load_recipe(name: str) -> ModuleType:
    """A script as a module. Scripts find the modules beside them, as when they are started."""
    pytest.importorskip("soxr", reason="the scripts resample with soxr")
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)


def link_corpus(folder: Path, clips: int) -> None:
    """Put a little of the synthetic corpus into a folder.

    Args:
        folder: that there is, and that is empty.
        clips: for training, of each word; two more for validation. The noises are there too.
    """
    (folder / NOISE).symlink_to(DATA / NOISE)
    lists = {split: (DATA / f"{split}_list.txt").read_text() for split in ("validation", "testing")}
    for split, names in lists.items():
        (folder / f"{split}_list.txt").write_text(names)
    for word in (path for path in DATA.iterdir() if path.is_dir() and path.name != NOISE):
        (folder / word.name).mkdir()
        names = sorted(f"{word.name}/{path.name}" for path in word.iterdir())
        of_validation = [name for name in names if name in lists["validation"]]
        others = [name for name in names if name not in "".join(lists.values())]
        for name in others[:clips] + of_validation[:2]:
            (folder / name).symlink_to(DATA / name)


def make_open_world(folder: Path) -> None:
    """Put a little corpus, talk, recorded and rendered, and sounds into a folder."""
    (folder / "corpus").mkdir()
    link_corpus(folder / "corpus", 3)
    random = np.random.default_rng(0)
    for place in ("talk/told", "talk/rendered", "sounds"):
        (folder / place).mkdir(parents=True)
        wave = random.normal(0, 0.1, 80_000) * np.repeat(random.uniform(0, 1, 10), 8_000)
        soundfile.write(folder / place / "a.wav", wave, 16_000)

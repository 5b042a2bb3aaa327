"""Scripts of `recipes/` as modules for tests; the folder is no package."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "recipes"


def load_recipe(name: str) -> ModuleType:
    """A script as a module. Scripts find the modules beside them, as when they are started."""
    pytest.importorskip("soxr", reason="the scripts resample with soxr")
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)

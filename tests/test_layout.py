"""The drawing of who imports whom, held against the code: a new arrow, or a heavy import at the start, fails here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "speechrnn"

# What each module may import of the package, at its top or inside a function.
ARROWS = {
    "__init__": {"checkpoint", "evaluation", "model", "stream"},
    "__main__": {"cli"},
    "audio": set(),
    "features": {"audio"},
    "recurrence": {"recurrence_triton"},
    "recurrence_triton": set(),
    "model": {"audio", "features", "recurrence"},
    "stream": {"audio", "model"},
    "checkpoint": {"__init__", "model"},
    "data": {"audio", "model"},
    "download": set(),
    "augment": set(),
    "gradients": {"recurrence"},
    "events": {"audio", "data", "model", "stream"},
    "evaluation": {"audio", "checkpoint", "data", "events", "model", "plots", "stream"},
    "transcripts": {"stream"},
    "plots": {"audio", "bench", "evaluation", "events", "model"},
    "report": {"evaluation", "plots"},
    "training": {
        "__init__",
        "augment",
        "checkpoint",
        "data",
        "evaluation",
        "features",
        "gradients",
        "model",
        "plots",
        "recurrence",
    },
    "bench": {"__init__", "audio", "augment", "checkpoint", "model", "recurrence", "stream", "training"},
    "cli": {
        "__init__",
        "audio",
        "bench",
        "checkpoint",
        "data",
        "download",
        "evaluation",
        "events",
        "plots",
        "report",
        "stream",
        "training",
        "transcripts",
    },
}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "speechrnn":
            found |= {name.name if (PACKAGE / f"{name.name}.py").exists() else "__init__" for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("speechrnn."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {[*name.name.split("."), "__init__"][1] for name in node.names if name.name.split(".")[0] == "speechrnn"}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_modules_import_only_what_the_drawing_allows(path):
    assert _imports(path) <= ARROWS[path.stem]


def test_using_a_model_needs_no_training_library():
    code = "import speechrnn, sys; speechrnn.Stream, speechrnn.load; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pytorch_lightning", "torchaudio", "librosa", "matplotlib", "torchmetrics"} & set(loaded)


def test_classify_loads_torch_and_what_reads_audio_and_no_more():
    """So that the answer comes 0.2 s after torch is there; Lightning takes 5 s, librosa 3, the compiler 2."""
    clip = PACKAGE.parent / "data" / "synthetic_commands" / "yes" / "91eb264d_nohash_0.ogg"
    code = "import sys; from speechrnn.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    words = [sys.executable, "-c", code, "classify", str(clip)]
    loaded = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    heavy = {"pytorch_lightning", "torchaudio", "librosa", "matplotlib", "torchmetrics", "scipy", "triton", "torch._dynamo"}
    assert not heavy & set(loaded)


def test_import_of_the_package_is_light():
    code = "import speechrnn, sys; print(speechrnn.__version__, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said[1] == "False"

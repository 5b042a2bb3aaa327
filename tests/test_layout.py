"""The house: the order of its rooms, and that the light floor imports nothing of the workshop."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DATA

from speechrnn.folder import ModelFolder

PACKAGE = Path(__file__).parents[1] / "speechrnn"

# From the ground up: a room imports only from rooms above it in this list, also inside functions.
LIGHT = [
    "config", "audio", "files", "folder", "network", "onnx_runtime", "detection", "recogniser",
    "transcripts", "recording", "enrolment", "service", "export.check", "export.rounding",
    "export.page",
]  # fmt: skip
WORKSHOP = [
    "features", "recurrence_triton", "recurrence", "model", "corpus", "rooms", "download",
    "evaluation.statistics", "evaluation.tables", "evaluation.clips", "evaluation.recordings",
    "evaluation.spotting", "evaluation.background", "evaluation.conditions", "evaluation.results",
    "evaluation.few_shot", "evaluation.text",
    "evaluation.plots", "evaluation.report",
    "training.frames", "training.augmentation", "training.pieces",
    "training.batches", "training.gradients",
    "training.module", "training.card", "training.run",
    "synthesis.kokoro", "synthesis.intelligibility", "synthesis.rendering",
    "export.onnx",
    "bench",
]  # fmt: skip
COMMANDS = [
    "cli.common", "cli.record", "cli.recognise", "cli.enrol", "cli.demo", "cli.serve",
    "cli.train", "cli.measure", "cli.export", "cli.speak", "cli", "__main__",
]  # fmt: skip
ROOMS = [*LIGHT, *WORKSHOP, "__init__", *COMMANDS]
# They hold rooms, and nothing themselves.
PACKAGES = {"evaluation", "export", "training", "synthesis"}
# Whoever loads a model by name does so through `speechrnn.load`, and so may ask for any runtime.
LOADERS = {"cli.recognise", "cli.serve", "cli.measure"}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """The rooms that a file imports; names of the package itself count as `__init__`."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "speechrnn":
            base = (node.module or "").removeprefix("speechrnn").removeprefix(".")
            for name in node.names:
                inner = f"{base}.{name.name}".removeprefix(".")
                if inner in FILES:
                    rooms.add(inner)
                elif name.name != "__version__":
                    rooms.add(base or "__init__")
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names if name.name.split(".")[0] == "speechrnn"]
            rooms |= {name.partition(".")[2] or "__init__" for name in names}
    return rooms


def _type_checking_only(path: Path) -> set[str]:
    """Rooms that are imported for type checkers alone."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
            for line in node.body:
                if isinstance(line, ast.ImportFrom) and line.module == "speechrnn":
                    rooms.add("__init__")
    return rooms


@pytest.mark.parametrize("room", FILES)
def test_a_room_imports_only_from_rooms_above_it(room):
    empty = [name for name in FILES if name in PACKAGES]
    if room in empty:
        assert not _imports(FILES[room])
        return
    above = set(ROOMS[: ROOMS.index(room)])
    if room in LOADERS:
        above.add("__init__")
    assert _imports(FILES[room]) - _type_checking_only(FILES[room]) <= above


def test_every_room_stands_in_the_list_and_every_name_in_the_list_is_a_room():
    assert set(ROOMS) == set(FILES) - PACKAGES


@pytest.mark.parametrize("room", LIGHT)
def test_a_room_of_the_light_floor_imports_no_more_than_the_base_installs(room):
    allowed = {"numpy", "soundfile", "soxr", "safetensors", "speechrnn"}
    allowed |= {"sounddevice", "onnxruntime", "wyoming"}  # of extras
    imported: set[str] = set()
    for node in ast.walk(ast.parse(FILES[room].read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - set(sys.stdlib_module_names) <= allowed


def _loaded_by(code: str, *words: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}; print(*sys.modules)", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "torchaudio", "pytorch_lightning", "librosa", "matplotlib", "scipy", "rich"}


def test_import_of_the_package_loads_not_even_numpy():
    assert not (HEAVY | {"numpy"}) & _loaded_by("import speechrnn, sys")


@pytest.mark.parametrize(
    "words",
    [
        ["classify", str(DATA / "yes" / "91eb264d_nohash_0.ogg")],
        ["transcribe", str(DATA / "recording.ogg"), "--format", "json"],
        ["info"],
        ["info", "base"],
    ],
    ids=" ".join,
)
def test_a_command_of_the_light_floor_loads_nothing_of_the_workshop(words):
    code = "import sys; from speechrnn.cli import main; assert main(sys.argv[1:]) == 0"
    loaded = _loaded_by(code, *words)
    assert not HEAVY & loaded
    workshop = {f"speechrnn.{room}" for room in WORKSHOP}
    assert not workshop & loaded


def test_info_reads_no_weights(run, monkeypatch):
    def refuse(folder: ModelFolder) -> None:
        raise AssertionError(f"the weights of {folder.path} were read")

    monkeypatch.setattr(ModelFolder, "weights", refuse)
    for words in (["info"], ["info", "base"]):
        status, out, error = run(*words)
        assert (status, error) == (0, "")
        assert "237,484" in out


@pytest.mark.parametrize("room", ["corpus", "evaluation.spotting", "evaluation.report"])
def test_evaluation_needs_no_training_library(room):
    loaded = _loaded_by(f"import sys, speechrnn.{room}")
    assert not {"torch", "pytorch_lightning", "librosa"} & loaded

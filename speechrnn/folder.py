"""Model folders: everything that is needed to use a model again, and nothing that can run code.

`config.json` holds the architecture, features, labels, version, recipe, seed, scores and the
checksum of the weights; `model.safetensors` the weights; `README.md` the model card;
`thresholds.json`, where it was measured, the probability from which a word in a stream counts. It
does not know how a model computes or how it was trained.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from speechrnn.config import DEFAULT_THRESHOLD, ModelConfig
from speechrnn.files import whole_file, whole_folder

FORMAT = 2  # raised when a folder written before can no longer be read
CONFIG, WEIGHTS = "config.json", "model.safetensors"
CARD, THRESHOLDS_FILE = "README.md", "thresholds.json"
EXPORTED = ".onnx"  # of a file that `onnx_runtime` computes
SHIPPED = Path(__file__).with_name("weights")
DEFAULT = "base"


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose `config.json` and `thresholds.json` were read and checked.

    Args:
        path: of the folder.
        config: shape, features and labels of the model.
        thresholds: for each word the probability from which it counts in a stream.
        about: all of `config.json`: version, checksum, training, scores.
    """

    path: Path
    config: ModelConfig
    thresholds: dict[str, float]
    about: dict[str, Any]

    @property
    def license(self) -> str:
        """What the metadata of the model card name as its licence; `unknown` if there are none."""
        card = self.path / CARD
        text = card.read_text("utf-8", "replace") if card.is_file() else ""
        metadata = text.split("---\n")[1] if text.startswith("---\n") else ""
        found = re.search(r"^license: *(\S+)", metadata, re.MULTILINE)
        return found[1] if found else "unknown"

    def weights(self) -> dict[str, np.ndarray]:
        """Read the weights by name, float32, as `ModelConfig.shapes` says.

        Raises:
            FileNotFoundError: if the file is missing.
            ValueError: if it is not the one that was saved, or not of this model.
        """
        file = self.path / WEIGHTS
        if not file.is_file():
            pickles = {".bin", ".ckpt", ".pkl", ".pt", ".pth"}
            others = sorted(p.name for p in self.path.iterdir() if p.suffix in pickles)
            hint = f"; {', '.join(others)} is not read: a pickle can run code" if others else ""
            raise FileNotFoundError(
                f"{self.path}: {WEIGHTS} is missing{hint}; copy the whole model folder"
            )
        data = file.read_bytes()
        if (found := checksum(data)) != self.about["sha256"]:
            raise ValueError(
                f"{file}: not the weights that were saved (SHA-256 {found[:12]}, expected "
                f"{str(self.about['sha256'])[:12]}): copy them again"
            )
        try:
            arrays = load_arrays(data)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise _mismatch(self.path, error) from error
        shapes = self.config.shapes
        if {name: array.shape for name, array in arrays.items()} != shapes:
            differing = sorted(
                name
                for name in shapes.keys() | arrays.keys()
                if name not in arrays or arrays[name].shape != shapes.get(name)
            )
            raise _mismatch(self.path, f"{differing[0]} is not what the configuration says")
        # Copied: in the file arrays begin anywhere, and products are faster from aligned addresses.
        return {name: np.array(array, np.float32) for name, array in arrays.items()}


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    if not SHIPPED.is_dir():
        return []
    return sorted(path.name for path in SHIPPED.iterdir() if (path / CONFIG).is_file())


def find_folder(name_or_folder: str | Path | None = None) -> Path:
    """The folder of a model.

    Args:
        name_or_folder: a shipped model's name, a model folder, or a run folder with `model/` in
            it; None for the shipped default.

    Raises:
        FileNotFoundError: if there is none; the message names those there are.
        ValueError: if it is an exported file.
    """
    name = str(DEFAULT if name_or_folder is None else name_or_folder)
    if name in shipped_models():
        return SHIPPED / name
    for folder in (Path(name), Path(name) / "model"):
        if (folder / CONFIG).is_file():
            return folder
    if Path(name).suffix == EXPORTED:
        raise ValueError(
            f"{name}: an exported file, where a model folder is needed: give the folder that it "
            "was written from"
        )
    if Path(name).is_dir():
        raise FileNotFoundError(
            f"{name}: no {CONFIG} in this folder, so it is no model; expected what "
            "`speechrnn train` wrote to runs/NAME/model"
        )
    raise FileNotFoundError(
        f"no model {name!r}: expected a shipped one ({', '.join(shipped_models()) or 'none'}) or a "
        "folder such as runs/NAME/model"
    )


def read_folder(name_or_folder: str | Path | None = None) -> ModelFolder:
    """Read and check a model folder; its weights are not read yet.

    Args:
        name_or_folder: as in `find_folder`.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if a file is damaged, or of another format.
    """
    path = find_folder(name_or_folder)
    about = _read_about(path)
    try:
        # Folders written by 0.1 name a dropout, which has no part in a trained model.
        shape = {name: value for name, value in about["model"].items() if name != "dropout"}
        config = ModelConfig(**{**shape, "labels": tuple(shape["labels"])})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path / CONFIG} is damaged ({error}): copy the model folder again"
        ) from error
    return ModelFolder(path, config, _read_thresholds(path, config.words), about)


def model_name(folder: Path) -> str:
    """What people call the model in a folder: the name of the folder, or of its run."""
    path = folder.resolve()  # of a run it is runs/NAME/model
    return path.parent.name if path.name == "model" else path.name


def save_folder(
    folder: str | Path,
    config: ModelConfig,
    weights: Mapping[str, np.ndarray],
    *,
    training: dict[str, Any],
    scores: dict[str, Any],
    card: str,
    thresholds: dict[str, Any] | None = None,
    others: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model folder, whole or not at all; what was there is replaced.

    Args:
        folder: where.
        config: of the model.
        weights: by the names of `ModelConfig.shapes`.
        training: how it came to be: recipe, seed and the like, as JSON can hold it.
        scores: what it reached, likewise.
        card: text of the model card.
        thresholds: what `thresholds.json` shall hold, see `save_thresholds`.
        others: contents of further files, by name.

    Raises:
        OSError: if it cannot be written.
    """
    from speechrnn import __version__

    data = serialise(weights)
    about = {
        "format": FORMAT,
        "version": __version__,
        "sha256": checksum(data),
        "model": asdict(config),
        "training": training,
        "scores": scores,
    }
    with whole_folder(folder) as beside:
        (beside / WEIGHTS).write_bytes(data)
        (beside / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
        (beside / CARD).write_text(card, "utf-8")
        if thresholds is not None:
            (beside / THRESHOLDS_FILE).write_text(json.dumps(thresholds, indent=2) + "\n")
        for name, contents in (others or {}).items():
            (beside / name).write_bytes(contents)


def save_thresholds(folder: str | Path, thresholds: dict[str, float], **chosen: Any) -> Path:
    """Write `thresholds.json` into a model folder.

    Args:
        folder: as in `find_folder`.
        thresholds: by word.
        **chosen: how they were chosen, as JSON can hold it.

    Returns:
        The file.
    """
    path = find_folder(folder) / THRESHOLDS_FILE
    with whole_file(path) as beside:
        beside.write_text(json.dumps({"thresholds": thresholds, **chosen}, indent=2) + "\n")
    return path


def serialise(weights: Mapping[str, np.ndarray]) -> bytes:
    """The weights as `model.safetensors` holds them."""
    return bytes(
        save_arrays({name: np.ascontiguousarray(array) for name, array in weights.items()})
    )


def checksum(data: bytes) -> str:
    """SHA-256 of a file's contents, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _mismatch(path: Path, error: object) -> ValueError:
    first = str(error).splitlines()[0]
    return ValueError(
        f"{path}: {CONFIG} and {WEIGHTS} do not belong together ({first}): copy the whole model "
        "folder"
    )


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads((path / CONFIG).read_text())
        found = about["format"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path / CONFIG} is damaged ({error!r}): copy the model folder again"
        ) from error
    if found != FORMAT:
        raise ValueError(
            f"{path}: model format {found!r}, written by speechrnn {about.get('version', '?')}; "
            f"this speechrnn reads format {FORMAT}: install that version, or train again"
        )
    if missing := sorted({"version", "sha256", "model", "training", "scores"} - about.keys()):
        raise ValueError(
            f"{path / CONFIG} is damaged ({', '.join(missing)} missing): "
            "copy the model folder again"
        )
    return dict(about)


def _read_thresholds(path: Path, words: tuple[str, ...]) -> dict[str, float]:
    file = path / THRESHOLDS_FILE
    if not file.is_file():
        return dict.fromkeys(words, DEFAULT_THRESHOLD)
    try:
        measured = json.loads(file.read_text())["thresholds"]
        return {word: float(measured[word]) for word in words}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged ({error!r}): delete it, and choose thresholds again with "
            "`speechrnn thresholds`"
        ) from error

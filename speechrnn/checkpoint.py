"""Model folders: everything that is needed to use a model again, and nothing that can run code.

`config.json` holds the architecture, features, labels, version, recipe, seed, scores and the checksum of the weights;
`model.safetensors` the weights and buffers; `README.md` the model card; `thresholds.json`, where it was measured, from which
probability on a word in a stream counts as heard. It does not know how a model was trained.
"""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from speechrnn.model import Model, ModelConfig

FORMAT = 2  # raised when a folder written before can no longer be read
CONFIG, WEIGHTS, CARD, THRESHOLDS = "config.json", "model.safetensors", "README.md", "thresholds.json"
SHIPPED = Path(__file__).with_name("weights")
DEFAULT = "base"


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.name for path in SHIPPED.iterdir() if (path / CONFIG).is_file()) if SHIPPED.is_dir() else []


def model_folder(name_or_folder: str | Path | None = None) -> Path:
    """The folder of a model.

    Args:
        name_or_folder: a shipped model's name, a model folder, or a run folder with `model/` in it; None for the shipped default.

    Raises:
        FileNotFoundError: if there is none; the message names those there are.
    """
    name = str(DEFAULT if name_or_folder is None else name_or_folder)
    if name in shipped_models():
        return SHIPPED / name
    for folder in (Path(name), Path(name) / "model"):
        if (folder / CONFIG).is_file():
            return folder
    if Path(name).is_dir():
        raise FileNotFoundError(
            f"{name}: no {CONFIG} in this folder, so it is no model; expected what `speechrnn train` wrote to runs/NAME/model"
        )
    raise FileNotFoundError(
        f"no model {name!r}: expected a shipped one ({', '.join(shipped_models()) or 'none'}) or a folder such as runs/NAME/model"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder, checked for its format.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is damaged or of another format.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
        found = config["format"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged ({error!r}): copy the model folder again") from error
    if found != FORMAT:
        raise ValueError(
            f"{folder}: model format {found!r}, written by speechrnn {config.get('version', '?')}; "
            f"this speechrnn reads format {FORMAT}: install that version, or train again"
        )
    if missing := sorted({"version", "sha256", "model", "training", "scores"} - config.keys()):
        raise ValueError(f"{folder / CONFIG} is damaged ({', '.join(missing)} missing): copy the model folder again")
    return dict(config)


def load(name_or_folder: str | Path | None = None) -> Model:
    """A model, ready to use: in evaluation mode, on the CPU.

    Args:
        name_or_folder: as in `model_folder`.

    Raises:
        FileNotFoundError: if there is no such model, or a file of it is missing.
        ValueError: if a file is damaged, of another version, or not what it should be.
    """
    folder = model_folder(name_or_folder)
    config = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        others = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".ckpt", ".pkl", ".pt", ".pth"})
        hint = f"; {', '.join(others)} is not read, because a pickle can run code" if others else ""
        raise FileNotFoundError(f"{folder}: {WEIGHTS} is missing{hint}; copy the whole model folder")
    data = (folder / WEIGHTS).read_bytes()
    if (found := checksum(data)) != config["sha256"]:
        raise ValueError(
            f"{folder / WEIGHTS}: not the weights that were saved (SHA-256 {found[:12]}, "
            f"expected {str(config['sha256'])[:12]}): copy them again"
        )
    try:
        shape = ModelConfig(**{**config["model"], "labels": tuple(config["model"]["labels"])})
        with torch.device("meta"):
            model = Model(shape)
        # Copied, so that each begins at an address that fits the processor's registers; in the file they begin anywhere.
        model.load_state_dict({name: tensor.clone() for name, tensor in load_tensors(data).items()}, assign=True)
    except (SafetensorError, KeyError, RuntimeError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"{folder}: {CONFIG} and {WEIGHTS} do not belong together ({first}): copy the whole model folder"
        ) from error
    if (folder / THRESHOLDS).is_file():
        try:
            measured = json.loads((folder / THRESHOLDS).read_text())["thresholds"]
            model.thresholds = {word: float(measured[word]) for word in shape.words}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder / THRESHOLDS} is damaged ({error!r}): delete it, and measure again with "
                "`speechrnn evaluate --false-alarms-per-hour`"
            ) from error
    return model.eval()


def serialise(model: Model) -> bytes:
    """The weights and buffers of a model, as `model.safetensors` holds them."""
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def checksum(data: bytes) -> str:
    """SHA-256 of a file's contents, in hexadecimal figures."""
    return hashlib.sha256(data).hexdigest()


def save(model: Model, folder: str | Path, *, training: dict[str, Any], scores: dict[str, Any], card: str) -> None:
    """Write a model folder: beside its place first, then renamed, so that a full disk leaves the old one as it was.

    Args:
        model: what to save.
        folder: where; what is there is replaced.
        training: how it came to be: recipe, seed and the like, as JSON can hold it.
        scores: what it reached, likewise.
        card: text of the model card.

    Raises:
        OSError: if it cannot be written.
    """
    from speechrnn import __version__

    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    data = serialise(model)
    config = {
        "format": FORMAT,
        "version": __version__,
        "sha256": checksum(data),
        "model": asdict(model.config),
        "training": training,
        "scores": scores,
    }
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (beside / WEIGHTS).write_bytes(data)
        (beside / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        (beside / CARD).write_text(card)
        beside.chmod(0o755)  # mkdtemp's folder is for its owner alone
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            os.replace(folder, old)
            os.replace(beside, folder)
            shutil.rmtree(old)
        else:
            os.replace(beside, folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error  # a full disk's names no file
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def save_thresholds(
    name_or_folder: str | Path, thresholds: dict[str, float], false_alarms_per_hour: float, protocol: str, split: str
) -> Path:
    """Write `thresholds.json` into a model folder, and how it came about.

    Args:
        name_or_folder: as in `model_folder`.
        thresholds: by word.
        false_alarms_per_hour: that were allowed.
        protocol: of the clips on which they were chosen.
        split: likewise.

    Returns:
        The file.
    """
    path = model_folder(name_or_folder) / THRESHOLDS
    found = {"thresholds": thresholds, "false_alarms_per_hour": false_alarms_per_hour, "protocol": protocol, "split": split}
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(json.dumps(found, indent=2) + "\n")
        os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)
    return path

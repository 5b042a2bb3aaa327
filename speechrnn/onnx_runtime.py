"""A model that `speechrnn export` wrote as an ONNX file, computed by onnxruntime.

In: the file, from whose metadata shape, labels and thresholds are read. Out: the logits of any wave
and the state to go on with, as from `network.Network`. It needs the extra `onnx`, and does not know
how the file was made.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.config import ModelConfig
from speechrnn.folder import EXPORTED, ModelFolder, read_folder
from speechrnn.network import State

MODEL_TYPE = "speechrnn"
FORMAT = "1"  # raised when a file written before can no longer be read


@dataclass(frozen=True)
class ModelFile(ModelFolder):
    """What the metadata of an exported file say of its model; `path` is that of the file."""

    def weights(self) -> dict[str, np.ndarray]:
        """Not read back.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{self.path}: the weights of an exported file are not read back: give the model "
            "folder that it was written from"
        )


class OnnxNetwork:
    """An exported model, on one thread of the CPU: its products are too small to be shared out.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: if there is none.
        RuntimeError: if onnxruntime is not installed.
        ValueError: if the file is damaged, or `speechrnn export` did not write it.
    """

    def __init__(self, path: str | Path) -> None:
        self._session = _open(Path(path))
        self.file = _read_metadata(Path(path), self._session)
        self.config = self.file.config

    def step(self, wave: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """Logits of every step, and the state to go on with.

        Args:
            wave: (B, N) float, 16 kHz, full scale +-1; N may be anything, also 0.
            state: what the call before returned; None at the start of a stream.

        Returns:
            Logits (B, T, C), one step for every `stack * hop` samples that are complete, and the
            new state.
        """
        config, batch = self.config, len(wave)
        overlap = config.window_size - config.hop
        if state is None:
            hidden = np.zeros((config.layers, batch, config.hidden_size), np.float32)
            state = State(np.zeros((batch, overlap), np.float32), hidden)
        audio = np.concatenate((state.audio, wave), 1, dtype=np.float32)
        used = (audio.shape[1] - overlap) // config.step_samples * config.step_samples
        if used <= 0:
            return np.zeros((batch, 0, len(config.labels)), np.float32), State(audio, state.hidden)
        # `past_out` is not asked for: more samples are left over than it holds, if the wave does
        # not end with a step.
        logits, hidden = self._session.run(
            ["logits", "state_out"],
            {
                "audio": audio[:, overlap : overlap + used],
                "past": audio[:, :overlap],
                "state": state.hidden,
            },
        )
        return logits, State(audio[:, used:], hidden)


def is_exported(name: str | Path | None) -> bool:
    """Whether a model's name is that of an ONNX file."""
    return name is not None and Path(name).suffix == EXPORTED and not Path(name).is_dir()


def read_model(name: str | Path | None = None) -> ModelFolder:
    """What is known of a model, be it a folder or an exported file.

    Args:
        name: as in `find_folder`, or the path of an ONNX file.

    Raises:
        FileNotFoundError, RuntimeError, ValueError: as `read_folder` and `OnnxNetwork` do.
    """
    if name is None or not is_exported(name):
        return read_folder(name)
    return OnnxNetwork(name).file


def _open(path: Path) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{path} needs onnxruntime, which is not installed: type pip install 'speechrnn[onnx]'"
        ) from error
    with open(path, "rb"):  # onnxruntime's own error does not say why it cannot be read
        pass
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised
    try:
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no other class in common
        raise ValueError(
            f"{path}: not readable as an ONNX model ({str(error).strip().splitlines()[0]}): export "
            "it again"
        ) from error


def _read_metadata(path: Path, session: Any) -> ModelFile:
    entries = session.get_modelmeta().custom_metadata_map
    if (kind := entries.get("model_type")) != MODEL_TYPE:
        found = "no model_type" if kind is None else f"model_type {kind}"
        raise ValueError(
            f"{path}: `speechrnn export` did not write this ONNX file: its metadata have {found}, "
            f"expected {MODEL_TYPE}"
        )
    if (found := entries.get("format")) != FORMAT:
        raise ValueError(
            f"{path}: export format {found}, written by speechrnn {entries.get('version', '?')}; "
            f"this speechrnn reads format {FORMAT}: install that version, or export again"
        )
    try:
        labels = tuple(json.loads(entries["labels"]))
        config = ModelConfig(**{**json.loads(entries["config"]), "labels": labels})
        measured = json.loads(entries["thresholds"])
        thresholds = {word: float(measured[word]) for word in config.words}
        about = {
            "version": entries["version"],
            "sha256": entries["sha256"],
            "license": entries["license"],
            "weights": entries["weights"],
            "model": asdict(config),
            "training": dict(json.loads(entries["training"])),
            "scores": dict(json.loads(entries["scores"])),
        }
        ports = {port.name: port.shape for port in (*session.get_inputs(), *session.get_outputs())}
        if ports != expected_shapes(config):
            raise ValueError("the graph is not that of the configuration")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: its metadata are damaged ({error!r}): export it again") from (
            error
        )
    return ModelFile(path, config, thresholds, about)


def expected_shapes(config: ModelConfig) -> dict[str, list[int | str]]:
    """Inputs and outputs of an exported model by name, with the letters of what is free."""
    past: list[int | str] = ["B", config.window_size - config.hop]
    state: list[int | str] = [config.layers, "B", config.hidden_size]
    return {
        "audio": ["B", "N"],
        "past": past,
        "state": state,
        "logits": ["B", "T", len(config.labels)],
        "past_out": past,
        "state_out": state,
    }

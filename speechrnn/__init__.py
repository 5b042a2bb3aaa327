"""Spoken command recognition with vanilla recurrent networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechrnn.detection import Detection
    from speechrnn.recogniser import Listener, Prediction, Recogniser

__version__ = "0.3.0"
__all__ = ["Detection", "Listener", "Prediction", "Recogniser", "__version__", "load"]


def load(
    name_or_folder: str | Path | None = None, backend: str = "numpy", device: str = "cpu"
) -> "Recogniser":
    """A model, ready to recognise words.

    Args:
        name_or_folder: a shipped model's name, a model folder, a run folder with `model/` in it, or
            an ONNX file that `speechrnn export` wrote (needs the extra `onnx`); None for the
            shipped default, `base`.
        backend: what computes a folder: `numpy`, or `torch` (needs the extra `train`); an ONNX file
            is always computed by onnxruntime.
        device: for `torch`: `cpu`, `cuda`, ...

    Raises:
        FileNotFoundError: if there is no such model, or a file of it is missing.
        ModuleNotFoundError: if `torch` was asked for and is not installed.
        RuntimeError: if an ONNX file was given and onnxruntime is not installed.
        ValueError: if a file is damaged or of another version, or the backend is not known, or does
            not run on the device.
    """
    from speechrnn.folder import read_folder
    from speechrnn.network import Network
    from speechrnn.onnx_runtime import OnnxNetwork, is_exported
    from speechrnn.recogniser import Recogniser

    if backend == "torch":
        from speechrnn.model import Model, TorchRuntime

        folder = read_folder(name_or_folder)
        return Recogniser(TorchRuntime(Model.load(folder.path).to(device)), folder.thresholds)
    if backend != "numpy":
        raise ValueError(f"backend is {backend!r}: expected numpy or torch")
    if device != "cpu":
        raise ValueError(f"backend numpy runs on the cpu, not on {device!r}: type backend='torch'")
    if is_exported(name_or_folder):
        network = OnnxNetwork(str(name_or_folder))
        return Recogniser(network, network.file.thresholds)
    folder = read_folder(name_or_folder)
    return Recogniser(Network(folder.config, folder.weights()), folder.thresholds)


def __getattr__(name: str) -> Any:
    """Import a public class when it is first used: `speechrnn --help` must not wait for NumPy."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "detection" if name == "Detection" else "recogniser"
    return getattr(importlib.import_module(f"speechrnn.{home}"), name)

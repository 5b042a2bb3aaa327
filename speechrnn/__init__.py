"""Spoken command recognition with vanilla recurrent networks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechrnn.checkpoint import load
    from speechrnn.evaluation import Report, evaluate
    from speechrnn.model import Model, ModelConfig, Prediction
    from speechrnn.stream import Detection, Stream

__version__ = "0.1.0"
__all__ = ["Detection", "Model", "ModelConfig", "Prediction", "Report", "Stream", "__version__", "evaluate", "load"]

_HOME = {"load": "checkpoint", "Stream": "stream", "Detection": "stream", "Report": "evaluation", "evaluate": "evaluation"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `speechrnn --help` must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"speechrnn.{_HOME.get(name, 'model')}"), name)

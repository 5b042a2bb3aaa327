"""The golden vectors of `golden/vectors.safetensors`, and how a runtime is held to them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from speechrnn.audio import from_int16
from speechrnn.folder import read_folder
from speechrnn.network import Runtime
from speechrnn.recogniser import Recogniser

FILE = Path(__file__).parent / "golden" / "vectors.safetensors"
with safe_open(FILE, "numpy") as file:
    ARRAYS = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    WORDS: dict[str, list[list[Any]]] = json.loads(file.metadata()["words"])
WAVES = {
    name.removeprefix("wave/"): from_int16(array)
    for name, array in ARRAYS.items()
    if name.startswith("wave/")
}
CHUNKS = (1, 7, 160, 161, 480, 16_000)  # samples


def largest_difference(runtime: Runtime, model: str, wave: str, chunk: int | None = None) -> float:
    """Of the logits and of the last state from the vectors, as a share of the largest logit.

    Args:
        runtime: computes the model.
        model: a shipped one's name.
        wave: a name in `WAVES`.
        chunk: samples in a chunk; None for the whole at once.
    """
    samples = WAVES[wave]
    size = chunk or len(samples)
    state, parts = None, []
    for start in range(0, len(samples), size):
        logits, state = runtime.step(samples[None, start : start + size], state)
        parts.append(logits[0])
    assert state is not None
    expected, hidden = ARRAYS[f"logits/{model}/{wave}"], ARRAYS[f"hidden/{model}/{wave}"]
    logits = np.concatenate(parts)
    assert logits.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    apart = float(np.abs(logits - expected).max(initial=0)) / scale
    return max(apart, float(np.abs(np.asarray(state.hidden)[:, 0] - hidden).max()))


def assert_words(runtime: Runtime, model: str, tolerance: float) -> None:
    """The words in the wave `speech` are those of the vectors, to the step, by any cut."""
    recogniser = Recogniser(runtime, read_folder(model).thresholds)
    for chunk in (480, 1_600, 80_000):
        blocks = np.split(WAVES["speech"], range(chunk, len(WAVES["speech"]), chunk))
        found = list(recogniser.detect(blocks))
        assert len(found) == len(WORDS[model])
        for word, (start, end, label, score, reported) in zip(found, WORDS[model], strict=True):
            assert (word.start, word.end, word.label) == (start, end, label)
            assert word.reported == reported
            assert abs(word.score - score) < tolerance

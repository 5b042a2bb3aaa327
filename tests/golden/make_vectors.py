"""Write vectors.safetensors: waves, and what the shipped models make of them by the equation.

    python tests/golden/make_vectors.py

Every runtime is held to this one file. `wave/NAME` (N,) int16; `logits/MODEL/NAME` (T, C) and
`hidden/MODEL/NAME` (L, H) after the last step, float32, computed from the reference loop in
float64 with silence in the past; in the metadata, as JSON, `words`: of each model the words in the
wave `speech` (start, end, label, probability, when reported) at its thresholds. A safetensors file
is a JSON header and plain numbers, so that any language reads it.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from speechrnn.audio import from_int16, read_wave, to_int16
from speechrnn.config import SAMPLE_RATE
from speechrnn.files import write_files
from speechrnn.folder import read_folder, shipped_models
from speechrnn.model import Model, TorchRuntime
from speechrnn.recogniser import Recogniser

FILE = Path(__file__).with_name("vectors.safetensors")
RECORDING = Path(__file__).parents[2] / "data" / "synthetic_commands" / "recording.ogg"


def waves() -> dict[str, np.ndarray]:
    """The waves (N,) int16: speech, noise, tones, full scale, nothing, and odd lengths."""
    random = np.random.default_rng(0)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    sweep = 0.5 * np.sin(2 * np.pi * (100 + 3_950 * time) * time)
    return {
        "speech": to_int16(read_wave(RECORDING)[: 5 * SAMPLE_RATE]),
        "noise": to_int16(random.uniform(-0.3, 0.3, 8_000)),
        "sweep": to_int16(sweep),
        "loud": np.sign(np.sin(np.arange(10_007) * 0.2)).astype(np.int16) * 32_767,
        "zero": np.zeros(8_000, np.int16),
        "odd": to_int16(random.uniform(-0.01, 0.01, 4_801)),
        "short": to_int16(random.uniform(-1, 1, 161)),
    }


def reference(name: str) -> Recogniser:
    """A shipped model by the reference loop, in float64."""
    model = Model.load(name).double()
    model.set_backend("loop")
    return Recogniser(TorchRuntime(model), read_folder(name).thresholds)


def main() -> None:
    """Write the file."""
    arrays = {f"wave/{name}": wave for name, wave in waves().items()}
    words = {}
    torch.manual_seed(0)
    for model in shipped_models():
        recogniser = reference(model)
        for name, wave in waves().items():
            logits, state = recogniser.runtime.step(from_int16(wave)[None])
            arrays[f"logits/{model}/{name}"] = logits[0].astype(np.float32)
            arrays[f"hidden/{model}/{name}"] = np.asarray(state.hidden[:, 0], np.float32)
        words[model] = [
            [word.start, word.end, word.label, word.score, word.reported]
            for word in recogniser.detect([from_int16(waves()["speech"])])
        ]
    data = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_files({FILE: save(data, {"words": json.dumps(words)})})


if __name__ == "__main__":
    main()

"""A model as one web page that hears: a file that needs nothing beside it, and no network.

In: a model folder. Out: HTML in which the weights, the network in JavaScript and what is shown
stand in one. Matrices are kept as int8 with a scale for each row; the page is checked against the
network before it is given away. How it computes and looks is in `web/`; who serves it is not known.
"""

import base64
import errno
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.config import SAMPLE_RATE, ModelConfig
from speechrnn.files import whole_file
from speechrnn.folder import ModelFolder
from speechrnn.network import Network

WEB = Path(__file__).with_name("web")
INT8 = 127  # the largest whole number, also below zero, so that a row needs no offset
# Root mean square by which logits may differ, as a share of their own. The shipped models reach
# 0.7 to 2.2 % on the waves below and on speech; a wrong scale or a swapped row gives 50 % and more.
TOLERANCE = 0.05
_PLACE = re.compile(r"<!-- (\w+) -->")  # in the template, to be filled


def write_page(folder: ModelFolder, to: Path) -> int:
    """Write the page of a model, whole or not at all.

    Args:
        folder: of the model.
        to: the file, which must not be there yet.

    Returns:
        Its size, bytes.

    Raises:
        FileExistsError: if the file is there.
        OSError: if it cannot be written.
        ValueError: if the folder is damaged, or the page does not compute what the model does.
    """
    if to.exists():
        wrong = "is there already: delete it, or choose another name"
        raise FileExistsError(errno.EEXIST, wrong, str(to))
    data = page(folder)
    with whole_file(to) as beside:
        beside.write_bytes(data)
    return len(data)


def page(folder: ModelFolder) -> bytes:
    """The page of a model, checked: UTF-8.

    Raises:
        ValueError: if the folder is damaged, or the page does not compute what the model does.
    """
    weights = folder.weights()
    path = folder.path.resolve()  # of a run it is runs/NAME/model
    model = {
        "name": path.parent.name if path.name == "model" else path.name,
        "parameters": folder.config.parameter_count,
        "version": folder.about["version"],
        "sha256": folder.about["sha256"],
        "config": asdict(folder.config),
        "thresholds": folder.thresholds,
        "arrays": pack(weights),
    }
    data = _fill(model).encode()
    _check(folder, Network(folder.config, weights), data)
    return data


def pack(weights: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Arrays as JSON can hold them; `unpack` in `web/speechrnn.js` says how.

    The matrices of the network (R, C) become int8 with a scale for each row. Of the mel matrix,
    nearly all zeros, each column keeps what lies between its first and its last other number. All
    else stays float32.
    """
    packed = {}
    for name, array in sorted(weights.items()):  # so that a model has one page, to the byte
        entry: dict[str, Any] = {"shape": list(array.shape)}
        if name == "mfcc.mel":
            first = (array != 0).argmax(0)
            last = len(array) - (array[::-1] != 0).argmax(0)
            count = np.where((array != 0).any(0), last - first, 0)
            parts = [
                array[start : start + size, column]
                for column, (start, size) in enumerate(zip(first, count, strict=True))
            ]
            entry |= {
                "first": first.tolist(),
                "count": count.tolist(),
                "float32": _base64(np.concatenate(parts), "<f4"),
            }
        elif array.ndim == 2 and not name.startswith("mfcc."):
            scale = (np.abs(array).max(1) / INT8).astype(np.float32)
            scale[scale == 0] = 1
            entry |= {
                "int8": _base64(np.rint(array / scale[:, None]).clip(-INT8, INT8), "i1"),
                "scale": _base64(scale, "<f4"),
            }
        else:
            entry["float32"] = _base64(array, "<f4")
        packed[name] = entry
    return packed


def unpack(packed: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays as the page computes with them, float32, from `pack`."""
    arrays = {}
    for name, entry in packed.items():
        array = np.zeros(entry["shape"], np.float32)
        if "int8" in entry:
            rows = _numbers(entry["int8"], "i1").reshape(array.shape)
            array[:] = rows * _numbers(entry["scale"], "<f4")[:, None]
        elif "first" in entry:
            values = _numbers(entry["float32"], "<f4")
            ends = np.cumsum(entry["count"])
            for column, part in enumerate(np.split(values, ends[:-1])):
                start = entry["first"][column]
                array[start : start + len(part), column] = part
        else:
            array[:] = _numbers(entry["float32"], "<f4").reshape(array.shape)
        arrays[name] = array
    return arrays


def model_of(data: bytes) -> dict[str, Any]:
    """What a page holds of its model: name, config, thresholds, packed arrays, version, SHA-256."""
    found = re.search(rb'<script id="model" type="application/json">(.*?)</script>', data, re.S)
    assert found, "the template has no place for the model"
    return dict(json.loads(found[1]))


def _base64(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array).astype(kind).tobytes()).decode()


def _numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def _fill(model: Mapping[str, Any]) -> str:
    """The template with the model, the style and the scripts in their places.

    The policy of the page names each script and the style by its hash, and allows no connection.
    Scripts are read as text, so that `blob:` is needed for the one that takes the microphone's
    samples off the main thread.
    """
    style, network, view, microphone = (
        (WEB / name).read_text(encoding="utf-8")
        for name in ("page.css", "speechrnn.js", "page.js", "microphone.js")
    )
    scripts = " ".join(_hash(script) for script in (network, view))
    policy = (
        f"default-src 'none'; script-src {scripts} blob:; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "style": f"<style>{style}</style>",
        # Labels may hold anything; `<` could end the element.
        "model": _block("model", json.dumps(model).replace("<", "\\u003c"), "application/json"),
        "microphone": _block("microphone-script", microphone, "text/plain"),
        "scripts": f"<script>{network}</script>\n<script>{view}</script>",
    }
    template = (WEB / "page.html").read_text(encoding="utf-8")
    return _PLACE.sub(lambda place: parts[place[1]], template)


def _block(name: str, text: str, kind: str) -> str:
    return f'<script id="{name}" type="{kind}">{text}</script>'


def _hash(text: str) -> str:
    """As a Content-Security-Policy names a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _check(folder: ModelFolder, network: Network, data: bytes) -> None:
    """Hold what the page computes with to the network, on waves made by formulas.

    Raises:
        ValueError: if the logits are further apart than `TOLERANCE`.
    """
    model = model_of(data)
    config = ModelConfig(**{**model["config"], "labels": tuple(model["config"]["labels"])})
    restored = Network(config, unpack(model["arrays"]))
    for name, wave in _waves().items():
        expected = network.step(wave[None])[0]
        difference = restored.step(wave[None])[0] - expected
        share = float(np.sqrt((difference**2).mean() / (expected**2).mean()))
        if not share <= TOLERANCE:  # also where it is not a number
            raise ValueError(
                f"{folder.path}: no page was made, since its int8 weights do not give the model's "
                f"answers: logits of {name} differ by {share:.1%}, expected {TOLERANCE:.0%} or less"
            )


def _waves() -> dict[str, np.ndarray]:
    """Waves (N,) float32 of a second: a sweep, a voice that comes and goes, noise, near silence."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    harmonics = np.arange(1, 30)
    voice = (np.sin(2 * np.pi * 120 * time[:, None] * harmonics) / harmonics).sum(1)
    random = np.random.default_rng(0)
    waves = {
        "a sweep": 0.5 * np.sin(2 * np.pi * (100 + 1_900 * time) * time),
        "a voice": 0.1 * voice * np.sin(3 * np.pi * time) ** 2,
        "noise": random.uniform(-0.3, 0.3, SAMPLE_RATE),
        "near silence": random.uniform(-0.001, 0.001, SAMPLE_RATE),
    }
    return {name: wave.astype(np.float32) for name, wave in waves.items()}

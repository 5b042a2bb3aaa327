"""A model as one web page that hears: a file that needs nothing beside it, and no network.

In: a model folder. Out: HTML in which the weights, the network in JavaScript and what is shown
stand in one. Matrices are kept as int8 with a scale for each row; the page is checked against the
network before it is given away. How it computes and looks is in `web/`; who serves it is not known.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.config import ModelConfig
from speechrnn.export.check import largest_difference
from speechrnn.export.rounding import ROUNDED, round_weights
from speechrnn.files import whole_file
from speechrnn.folder import ModelFolder, model_name
from speechrnn.network import Network

WEB = Path(__file__).with_name("web")
_PLACE = re.compile(r"<!-- (\w+) -->")  # in the template, to be filled


def write_page(folder: ModelFolder, to: Path) -> float:
    """Write the page of a model, whole or not at all.

    Args:
        folder: of the model.
        to: path of the file.

    Returns:
        How far its logits, or states, are from the model's at most, as a share of the largest.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the folder is damaged, or the page does not compute what the model does.
    """
    data, apart = page(folder)
    with whole_file(to) as beside:
        beside.write_bytes(data)
    return apart


def page(folder: ModelFolder) -> tuple[bytes, float]:
    """The page of a model, UTF-8, and how far it is from the model, as `write_page` tells.

    Raises:
        ValueError: if the folder is damaged, or the page does not compute what the model does.
    """
    weights = folder.weights()
    model = {
        "name": model_name(folder.path),
        "parameters": folder.config.parameter_count,
        "version": folder.about["version"],
        "sha256": folder.about["sha256"],
        "config": asdict(folder.config),
        "thresholds": folder.thresholds,
        "arrays": pack(weights),
    }
    data = _fill(model).encode()
    return data, _check(folder, Network(folder.config, weights), data)


def pack(weights: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Arrays as JSON can hold them; `unpack` in `web/speechrnn.js` says how.

    The matrices of the network (R, C) become int8 with a scale for each row. Of the mel matrix,
    nearly all zeros, each column keeps what lies between its first and its last other number. All
    else stays float32.
    """
    packed, rounded = {}, round_weights(weights)
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
        elif name in rounded:
            integers, scale = rounded[name]
            entry |= {"int8": _base64(integers, "i1"), "scale": _base64(scale, "<f4")}
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


def _check(folder: ModelFolder, network: Network, data: bytes) -> float:
    """Hold what the page computes with to the network.

    Raises:
        ValueError: if logits or states are further apart than int8 weights let them be.
    """
    model = model_of(data)
    config = ModelConfig(**{**model["config"], "labels": tuple(model["config"]["labels"])})
    apart = largest_difference(network, Network(config, unpack(model["arrays"])))
    if not apart <= ROUNDED:  # NaN is not
        raise ValueError(
            f"{folder.path}: no page was made, since its int8 weights do not give the model's "
            f"answers: they are {apart:.1e} of the largest logit or state away, expected "
            f"{ROUNDED:.0e} or less"
        )
    return apart

"""Build `textbook.html`: what a recurrent network is, with a real one running in the page.

    python recipes/textbook.py                                             # build the page
    python recipes/textbook.py --measure trained shipped --data CORPUS     # measure, then build
    python recipes/textbook.py --measure speed

In: the shipped weights, recordings of `data/`, files of measurements, and `textbook/` (template,
style, scripts). Out: one file that needs nothing beside it. Every number in it is read: from
`textbook.json` (made by `--measure`, see textbook_measures.py), `ablation.jsonl`, `systems.csv`,
README.md of this folder, and the model folders; and so is every line of code that it shows.
"""

import argparse
import base64
import csv
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from speechrnn import Recogniser
from speechrnn.audio import read_wave, to_int16
from speechrnn.config import ModelConfig
from speechrnn.export.page import WEB, model_of, page, unpack
from speechrnn.files import whole_file
from speechrnn.folder import read_folder, shipped_models
from speechrnn.network import Network

HERE = Path(__file__).parent
ROOT = HERE.parent
PARTS_OF_PAGE = HERE / "textbook"
MEASURES = HERE / "textbook.json"
PAGE = HERE / "textbook.html"
PARTS = ("trained", "shipped", "speed")
MODEL = "base"  # that hears in the page
RECORDINGS = ROOT / "data" / "synthetic_commands"
SPEAKER = "91eb264d_nohash_0.ogg"
# Lines of ours: the file, how the first of them begins, and how many they are.
CODE = {
    "remember": ("speechrnn/network.py", "for state in states:", 3),
    "equation": ("speechrnn/recurrence.py", "for step in x.unbind(1):", 3),
    "training": ("speechrnn/recurrence.py", "for step, slope in zip(reversed(dz.unbind(1))", 4),
    "gradients": ("speechrnn/training/gradients.py", "for state, above in reversed(", 5),
    "long": ("speechrnn/model.py", "weight = logits.mean(-1, keepdim=True)", 3),
    "slow": ("speechrnn/recurrence.py", "hidden, transposed = first, weight.T", 5),
    "worth": ("recipes/ablation.py", "def gated(kind", 6),
}
# Rows of the ablation that leave something out: a name for each, and what it is.
LEFT_OUT = {
    "no residual paths": (
        "residual paths",
        "A residual path leads around a layer: what goes in is added to what comes out. Gradients "
        "come back on it without being multiplied.",
    ),
    "no normalisation in the blocks": (
        "normalisation",
        "Normalisation gives the input of each layer the same mean and the same spread.",
    ),
    "pooling: last step": (
        "pooling (only the last step answers)",
        "Pooling makes one answer from all steps. Without it the last step alone must answer.",
    ),
    "pooling: mean": (
        "weights in the pooling (all steps count alike)",
        "The network learns which steps are worth listening to. Here each counts as much as every "
        "other one.",
    ),
    "frames not stacked": (
        "stacking of frames",
        "Stacking joins three short pieces of sound into one step, so that there are fewer steps.",
    ),
}


def build() -> bytes:
    """The page, UTF-8, from what the repository holds."""
    model = model_of(page(read_folder(MODEL))[0])
    measured = measurements()
    blocks = {
        "measurements": measured,
        "model": {"config": model["config"], "arrays": model["arrays"]},
        "recordings": recordings(model),
    }
    texts = [
        script("application/json", json.dumps(block).replace("<", "\\u003c"), name)
        for name, block in blocks.items()
    ]
    microphone = (WEB / "microphone.js").read_text(encoding="utf-8")
    texts.append(script("text/plain", microphone, "microphone-script"))
    scripts = [
        path.read_text(encoding="utf-8")
        for path in (
            WEB / "speechrnn.js",
            PARTS_OF_PAGE / "mathematics.js",
            PARTS_OF_PAGE / "textbook.js",
        )
    ]
    texts += [script("text/javascript", text) for text in scripts]
    style = palette() + (PARTS_OF_PAGE / "textbook.css").read_text(encoding="utf-8")
    systems = measured["systems"]
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.globals["percent"] = lambda share: f"{share:.1%}".replace("%", " %")
    template = (PARTS_OF_PAGE / "textbook.html").read_text(encoding="utf-8")
    return (
        environment.from_string(template)
        .render(
            policy=Markup(policy(scripts, style)),
            style=Markup(style),
            blocks=Markup("\n".join(texts)),
            model=model["config"],
            model_name=model["name"],
            parameters=model["parameters"],
            version=model["version"],
            measured=measured,
            ablation=measured["ablation"],
            ablation_origin=line_with(HERE / "README.md", "python recipes/ablation.py --data"),
            systems=systems,
            ours=[one for one in systems if one["kind"] == OURS],
            code={name: code(*place) for name, place in CODE.items()},
        )
        .encode()
    )


OURS = "vanilla recurrence, ours"


def measurements() -> dict[str, Any]:
    """Every number that the figures and the text show."""
    own = json.loads(MEASURES.read_text())
    return {**own, "ablation": ablation(), "systems": systems()}


def ablation() -> dict[str, Any]:
    """The rows of the ablation that the page shows."""
    lines = (HERE / "ablation.jsonl").read_text().splitlines()
    rows: dict[str, Any] = {}
    for line in lines:
        row = json.loads(line)
        kept = {name: row[name] for name in ("row", "seed", "epochs", "parameters", "accuracy")}
        rows.setdefault(row["row"], kept)  # the first seed

    def beginning(start: str) -> dict[str, Any]:
        return next(kept for name, kept in rows.items() if name.startswith(start))

    return {
        "recipe": rows["the recipe"],
        "textbook": beginning("textbook: one tanh layer"),
        "gru": beginning("GRU"),
        "lstm": beginning("LSTM"),
        "parts": [
            {**rows[row], "name": name, "told": told} for row, (name, told) in LEFT_OUT.items()
        ],
    }


def systems() -> list[dict[str, Any]]:
    """Published networks and ours, smallest first; `talk` is None where nobody told it."""
    with (HERE / "systems.csv").open(newline="") as file:
        found = [
            {
                "system": row["system"],
                "kind": row["kind"],
                "parameters": int(row["parameters"]),
                "accuracy": round(float(row["accuracy"]), 1),  # as both table and figure tell it
                "test": row["test"] + (", zeros as silence" if row["silence"] == "zeros" else ""),
                "talk": None,
                "source": row["source"],
            }
            for row in csv.DictReader(file)
        ]
    talk = false_alarms_in_talk()
    for name in shipped_models():
        folder = read_folder(name)
        score = folder.about["scores"]["validation"]
        found.append(
            {
                "system": name,
                "kind": OURS,
                "parameters": folder.config.parameter_count,
                "accuracy": 100 * score["accuracy"],
                "test": f"our validation part of V2-12, {score['clips']:,} clips",
                "talk": talk.get(name),
                "source": f"speechrnn/weights/{name}",
            }
        )
    return sorted(found, key=lambda one: one["parameters"])


def false_alarms_in_talk() -> dict[str, float]:
    """Of each shipped model, on the validation talk, from the table in README.md beside this."""
    text = (HERE / "README.md").read_text(encoding="utf-8").splitlines()
    tables = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text]
    heads = [i for i, cells in enumerate(tables) if "talk, an hour" in cells and "split" in cells]
    head = tables[heads[0]]
    found = {}
    for cells in tables[heads[0] + 2 :]:
        if not cells:
            break
        row = dict(zip(head, cells, strict=True))
        if row["split"] == "validation" and row["talk, an hour"]:
            found[row["model"]] = float(row["talk, an hour"])
    return found


def recordings(model: dict[str, Any]) -> list[dict[str, str]]:
    """The shipped words that the model of the page recognises, as 16-bit samples in base64."""
    config = ModelConfig(**{**model["config"], "labels": tuple(model["config"]["labels"])})
    recogniser = Recogniser(Network(config, unpack(model["arrays"])), {})
    found = []
    for word in recogniser.words:
        samples = to_int16(read_wave(RECORDINGS / word / SPEAKER))
        if recogniser.classify(samples / 32768).label == word:
            text = base64.b64encode(samples.astype("<i2").tobytes()).decode()
            found.append({"word": word, "int16": text})
    if not found:
        raise ValueError(f"{model['name']} recognises none of {RECORDINGS}/WORD/{SPEAKER}")
    return found


def code(path: str, start: str, count: int) -> dict[str, Any]:
    """Lines of a file, from the one line that begins so.

    Raises:
        ValueError: if there is not just one.
    """
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    places = [i for i, line in enumerate(lines) if line.strip().startswith(start)]
    if len(places) != 1:
        raise ValueError(f"{path}: {len(places)} lines begin with {start!r}, expected one")
    chosen = lines[places[0] : places[0] + count]
    indent = len(chosen[0]) - len(chosen[0].lstrip())
    return {
        "path": path,
        "line": places[0] + 1,
        "text": "\n".join(line[indent:] for line in chosen),
    }


def line_with(path: Path, text: str) -> str:
    """The first line of a file with this text in it, its spaces made single."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(next(line for line in lines if text in line).split())


def palette() -> str:
    """The colours of the demo page, light and dark: what stands first in its style."""
    return (WEB / "page.css").read_text(encoding="utf-8").partition("* {")[0]


def script(kind: str, text: str, name: str = "") -> str:
    mark = f' id="{name}"' if name else ""
    return f'<script{mark} type="{kind}">{text}</script>'


def policy(scripts: list[str], style: str) -> str:
    """The Content-Security-Policy: these scripts, this style, and no connection.

    The microphone's script is text that becomes a `data:` address.
    """

    def named(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {' '.join(map(named, scripts))} data:; "
        f"style-src {named(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    )


def measure(parts: list[str], corpus: Path | None) -> None:
    """Measure parts anew, and put each into `textbook.json` as soon as it is there."""
    import textbook_measures as measures  # beside this file; torch is not needed to build the page

    for part in parts:
        command = (
            f"python recipes/textbook.py --measure {part}{' --data CORPUS' * (part != 'speed')}"
        )
        found = {**measures.origin(command), **measures.PARTS[part](corpus)}
        kept = json.loads(MEASURES.read_text()) if MEASURES.is_file() else {}
        if part == "speed":
            device = measures.best_device().type
            kept.setdefault("speed", {"cpu": None, "cuda": None})[device] = found
        else:
            kept[part] = found
        MEASURES.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> None:
    """Measure what is asked for, and build the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", nargs="+", choices=PARTS, default=[], metavar="PART")
    parser.add_argument("--data", type=Path, metavar="CORPUS")
    options = parser.parse_args()
    if options.data is None and set(options.measure) - {"speed"}:
        parser.error("--measure trained and shipped need --data CORPUS")
    measure(options.measure, options.data)
    data = build()
    with whole_file(PAGE) as beside:
        beside.write_bytes(data)
    print(f"{PAGE}: {len(data):,} bytes")


if __name__ == "__main__":
    main()

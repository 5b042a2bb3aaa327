"""What a multiplication is worth: one short training for networks of 10,000 to 250,000 numbers.

    python recipes/sizes.py --corpus CORPUS --talk TALK --sounds SOUNDS \\
        --validation-talk FOLDER --validation-sounds FOLDER
    python recipes/sizes.py                        # table, and draw sizes.png

Every size is trained from random weights by `shipped_small.yaml`, but for its shape and the number
of epochs. Each finished run is a line of sizes.jsonl, and is not run again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from open_world import RECIPE, ROWS, Data, Validation, fit, read_data
from pytorch_lightning import seed_everything

from speechrnn.config import ModelConfig
from speechrnn.evaluation import plots
from speechrnn.evaluation.tables import markdown
from speechrnn.training.augmentation import Augmentation
from speechrnn.training.module import Training

HERE = Path(__file__).parent
RESULTS = HERE / "sizes.jsonl"
EPOCHS, SEED = 8, 1
FALSE_ALARMS = 10.0  # an hour of talk and of sounds, where the missed words are compared
SIZES: tuple[dict[str, int], ...] = (
    {"layers": 3, "hidden_size": 22, "feed_forward": 24, "coefficients": 24},
    {"layers": 4, "hidden_size": 28, "feed_forward": 32},
    {"layers": 4, "hidden_size": 36, "feed_forward": 44},
    {"layers": 4, "hidden_size": 48, "feed_forward": 58},
    {"layers": 4, "hidden_size": 72, "feed_forward": 96},
    {"layers": 4, "hidden_size": 98, "feed_forward": 132},
)


def run(size: dict[str, int], data: Data, validation: Validation) -> dict[str, Any]:
    """Train and measure one size; the result as JSON can hold it."""
    seed_everything(SEED, verbose=False)
    settings: dict[str, Any] = (
        yaml.safe_load(RECIPE.read_text())["model"] | size | {"teacher": None}
    )
    augmentation = Augmentation(**settings.pop("augmentation"))
    training = Training(**settings, labels=data.labels, augmentation=augmentation)
    config: ModelConfig = training.model.config
    found = validation.measure(fit(training, data, EPOCHS))
    return {"size": size, "seed": SEED, "epochs": EPOCHS, "parameters": config.parameter_count,
            "multiplications": config.multiplications, **found}  # fmt: skip


def missed(result: dict[str, Any]) -> float:
    """Share of the words missed where talk and sounds each give `FALSE_ALARMS` an hour or fewer."""
    quiet = np.maximum(result["talk"], result["sounds"]) <= FALSE_ALARMS
    return float(np.array(result["missed"])[quiet].min()) if quiet.any() else 1.0


def table(results: list[dict[str, Any]]) -> str:
    """A line a size."""
    rows = [["parameters", "million multiplications a second", "accuracy", "words missed"]]
    for result in results:
        rows.append([
            f"{result['parameters']:,}", f"{result['multiplications'] / 1e6:.1f}",
            f"{result['accuracy']:.2%}", f"{missed(result):.1%}",
        ])  # fmt: skip
    return markdown(rows)


def draw(results: list[dict[str, Any]]) -> Figure:
    """Wrong answers and missed words against the multiplications of a second."""
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        work = [result["multiplications"] for result in results]
        wrong = [1 - result["accuracy"] for result in results]
        axes.plot(work, wrong, "o-", color=plots.BLUE, label="clips answered wrongly")
        label = f"words missed in a stream, at {FALSE_ALARMS:g} false alarms an hour"
        missing = [missed(result) for result in results]
        axes.plot(work, missing, "s--", color=plots.ORANGE, label=label)
        for result, rate in zip(results, wrong, strict=True):
            text, place = f"{result['parameters'] / 1000:.0f}k", (result["multiplications"], rate)
            axes.annotate(text, place, (4, 5), textcoords="offset points")
        axes.set(xscale="log", yscale="log", xlabel="million multiplications for a second of audio")
        axes.set(ylabel="share", title=f"{EPOCHS} epochs each, validation, one seed")
        for axis, form in ((axes.xaxis, lambda x, _: f"{x / 1e6:g}"), (axes.yaxis, None)):
            axis.set_major_formatter(form or PercentFormatter(1, decimals=0))
            axis.set_minor_formatter(form or PercentFormatter(1, decimals=0))
        axes.margins(x=0.1)
        axes.legend()
    return figure


def main() -> None:
    """Run what is missing, print the table and draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("corpus", "talk", "sounds", "validation-talk", "validation-sounds"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    given = [place is not None for place in vars(options).values()]
    if any(given) and not all(given):
        parser.error(
            "expected --corpus, --talk, --sounds, --validation-talk and --validation-sounds, or "
            "none of them to draw what is there"
        )
    lines = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    results = [json.loads(line) for line in lines]
    if options.corpus is not None:
        data = read_data(options.corpus, options.talk, options.sounds)
        data.take(ROWS[0])
        validation = Validation(data, options.validation_talk, options.validation_sounds)
        there = [result["size"] for result in results]
        for size in (size for size in SIZES if size not in there):
            results.append(run(size, data, validation))
            with RESULTS.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
            print(f"{results[-1]['parameters']:,}: {results[-1]['accuracy']:.4f}", flush=True)
    print(table(results))
    plots.save(draw(results), HERE / "sizes.png")


if __name__ == "__main__":
    main()

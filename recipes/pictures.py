"""The pictures that only the README and the recipes show.

python recipes/pictures.py FILE.wav OUT.png     # what the shipped model makes of a recording
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from speechrnn.audio import read_wave
from speechrnn.config import SAMPLE_RATE, ModelConfig
from speechrnn.evaluation.plots import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    draw_features,
    draw_wave,
    save,
)
from speechrnn.folder import read_folder
from speechrnn.network import Network, mfcc, pool, softmax, step_weights

KINDS = {
    "vanilla recurrence": (ORANGE, "o"),
    "gated recurrence": ("#009e73", "s"),
    "convolution": (BLUE, "^"),
    "attention": ("#cc79a7", "D"),
}
# Of a name: points to the right of its mark, points above it, and how it is aligned.
SIDES = {"left": (-5, -2, "right"), "right": (5, -2, "left"), "below": (0, -10, "center")}


class WatchedNetwork(Network):
    """A network that keeps the states of its last recurrence."""

    states: np.ndarray  # (T, B, H)

    def recurrence(self, layer: int, x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        self.states = super().recurrence(layer, x, hidden)
        return self.states


def way_of_one_wav(name_or_folder: str | Path | None, path: str | Path) -> Figure:
    """What a model makes of a file, from top to bottom: wave, MFCC, states, and each step's answer.

    Args:
        name_or_folder: of the model; None for the shipped default.
        path: of a recording of one second or less.
    """
    folder = read_folder(name_or_folder)
    network = WatchedNetwork(folder.config, folder.weights())
    wave = read_wave(path)
    config = network.config
    logits = network.step(wave[None])[0][0]
    shares = softmax(pool(logits))
    best = int(shares.argmax())
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(7, 7), layout="constrained")
        panes = figure.subplots(4, 1, sharex=True, height_ratios=(1, 1.5, 1.5, 1.5))
        draw_wave(panes[0], wave)
        panes[0].set_title(f"{Path(path).name}: {config.labels[best]} {shares[best]:.0%}")
        draw_features(panes[1], mfcc(network, wave), config)
        _draw_states(panes[2], network.states[:, 0], config)
        _draw_answers(panes[3], logits, best, config)
        panes[3].set(xlabel="time, s", xlim=(0, len(wave) / SAMPLE_RATE))
        figure.align_ylabels(panes)
    return figure


def _draw_states(axes: Axes, states: np.ndarray, config: ModelConfig) -> None:
    """h[t] (T, H) of the last layer."""
    extent = (0, config.seconds_per_step * len(states), 0, states.shape[1])
    style: Any = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
    axes.imshow(states.T, extent=extent, cmap="RdBu", vmin=-1, vmax=1, **style)
    axes.set_ylabel(f"{states.shape[1]} units h of\nlayer {config.layers}")


def _draw_answers(axes: Axes, logits: np.ndarray, best: int, config: ModelConfig) -> None:
    """The best label's probability at each step, and the step's weight in the pooled answer."""
    edges = config.seconds_per_step * np.arange(len(logits) + 1)
    weight = step_weights(logits, len(logits))[0]
    relative: Any = {"baseline": None, "color": GREY, "label": "weight of the step, relative"}
    axes.stairs(weight / weight.max(), edges, **relative)
    label = f"probability of “{config.labels[best]}”"
    axes.stairs(softmax(logits)[:, best], edges, baseline=None, color=ORANGE, label=label)
    axes.set(ylabel="each step's answer", ylim=(0, 1.05))
    # Above: the steps go anywhere.
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2)


def systems(
    published: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]], title: str
) -> Figure:
    """Accuracy against size: published systems, and ours with their intervals, joined by a line.

    Args:
        published: of each `system`, `kind`, `parameters`, `accuracy` (%), the `test` it was
            measured on, what its `silence` was (zeros, archive, or empty where it is not known),
            and on which `side` of its mark the name stands: left, right or below.
        ours: of each `system`, `parameters`, `accuracy` (%) and `interval` (its two ends, %).
        title: tells what ours was measured on.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        _draw_published(axes, published)
        sizes, rates = (
            [row["parameters"] for row in ours],
            [row["accuracy"] / 100 for row in ours],
        )
        spread = [
            [abs(row["accuracy"] - row["interval"][end]) / 100 for row in ours] for end in (0, 1)
        ]
        line: Any = {"fmt": "o-", "color": ORANGE, "capsize": 3, "linewidth": 2, "markersize": 7}
        axes.errorbar(sizes, rates, spread, label="vanilla recurrence, ours", **line)
        bold: Any = {"fontweight": "bold", "color": ORANGE}
        for row, rate in zip(ours, rates, strict=True):
            place, below = (row["parameters"], rate), (6, -12)
            axes.annotate(row["system"], place, below, textcoords="offset points", **bold)
        # Each step up halves the errors or so, so that systems of high accuracy lie apart.
        axes.set(xscale="log", yscale="logit", ylim=(0.65, 0.99), title=title)
        axes.set(xlabel="parameters", ylabel="accuracy")
        axes.set_yticks([0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.minorticks_off()
        axes.legend(loc="lower right", fontsize=7)
    return figure


def _draw_published(axes: Axes, published: Sequence[dict[str, Any]]) -> None:
    for kind, (colour, marker) in KINDS.items():
        for test, fill in (("V2-12", colour), ("V1-12", "white")):
            chosen = [row for row in published if (row["kind"], row["test"]) == (kind, test)]
            if chosen:
                sizes = [float(row["parameters"]) for row in chosen]
                rates = [float(row["accuracy"]) / 100 for row in chosen]
                label = f"{kind}, published on {test}"
                axes.plot(sizes, rates, marker, color=colour, mfc=fill, label=label)
    small: Any = {"textcoords": "offset points", "fontsize": 6, "color": "#444444"}
    for row in published:
        across, up, align = SIDES[row["side"]]
        place = float(row["parameters"]), float(row["accuracy"]) / 100
        name = f"{row['system']}†" if row["silence"] == "zeros" else row["system"]
        axes.annotate(name, place, (across, up), ha=align, **small)
    note = (
        "† counts digital zero as silence,\nwhich is easier than the noise of the official archive"
    )
    axes.text(0.02, 0.02, note, transform=axes.transAxes, fontsize=7, color="#444444")


def main() -> None:
    """Draw the way of one wav."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE.wav")
    parser.add_argument("picture", type=Path, metavar="OUT.png")
    options = parser.parse_args()
    save(way_of_one_wav(None, options.file), options.picture)


if __name__ == "__main__":
    main()

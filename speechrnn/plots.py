"""Every picture. In: plain numbers, or a run folder's logs. Out: a PNG file, written beside and then renamed."""

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")  # pictures are files; a window system is not needed
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

if TYPE_CHECKING:
    from speechrnn.evaluation import Report

STYLE: Any = {  # matplotlib types the keys one by one
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
BLUE, ORANGE = "#0072b2", "#d55e00"  # apart for colour-blind eyes too (Okabe and Ito 2008)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG and close it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(beside, format="png", bbox_inches="tight")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
        plt.close(figure)


def confusion(report: "Report", title: str) -> Figure:
    """Confusion matrix: colours are shares of each row, figures are clips; the right answers are on the diagonal."""
    counts = report.confusion
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    size = max(4.5, 0.42 * len(report.labels) + 1.5)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(figsize=(size + 0.6, size))
        # The square root makes single mistakes visible beside a diagonal of hundreds.
        image = axes.imshow(share, cmap="Blues", norm=matplotlib.colors.PowerNorm(0.5, 0, 1))
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.4 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(range(len(report.labels)), report.labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(report.labels)), report.labels)
        axes.set(xlabel="heard as", ylabel="spoken", title=title)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1), fraction=0.045, pad=0.03, ticks=[0, 0.05, 0.25, 0.5, 1])
        bar.set_label("share of the clips of a word")
        bar.outline.set_visible(False)
    return figure


def read_metrics(run_folder: str | Path) -> dict[str, dict[int, float]]:
    """Metrics of a run by name and epoch, from its CSV logs; where a run was resumed, the later log holds."""
    metrics: dict[str, dict[int, float]] = {}
    logs = sorted(Path(run_folder).glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    for log in logs:
        with log.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and row["epoch"] and name not in {"epoch", "step"}:
                        metrics.setdefault(name, {})[int(row["epoch"])] = float(value)
    return metrics


def curves(run_folder: str | Path, title: str) -> Figure:
    """Loss and accuracy of a run over its epochs; the best epoch on validation is marked."""
    metrics = read_metrics(run_folder)
    with plt.rc_context(STYLE):
        figure, panes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
        for axes, name in zip(panes, ("loss", "accuracy"), strict=True):
            for split, colour, label in (
                ("training", ORANGE, "training, augmented"),
                ("validation", BLUE, "validation"),
            ):
                values = metrics.get(f"{split}_{name}", {})
                epochs = sorted(values)
                axes.plot([e + 1 for e in epochs], [values[e] for e in epochs], ".-", color=colour, label=label)
            axes.set(xlabel="epoch", ylabel=name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        accuracy = metrics.get("validation_accuracy", {})
        if accuracy:
            best = max(accuracy, key=lambda epoch: (accuracy[epoch], -epoch))
            panes[1].plot(best + 1, accuracy[best], "o", color=BLUE, markersize=8, fillstyle="none")
            panes[1].set_title(f"best on validation: {accuracy[best]:.1%}, epoch {best + 1}", fontsize=9)
        panes[1].yaxis.set_major_formatter(PercentFormatter(1))
        panes[0].legend()
        figure.suptitle(title)
    return figure

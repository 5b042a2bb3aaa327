"""Every picture of the package. In: plain numbers, or results. Out: a figure of matplotlib, or PNG.

It runs no model and reads no files.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    ScalarFormatter,
    StrMethodFormatter,
)

from speechrnn.config import SAMPLE_RATE, ModelConfig
from speechrnn.evaluation.clips import ClipResult
from speechrnn.evaluation.conditions import RECORDED
from speechrnn.evaluation.few_shot import FALSE_ACCEPTS, PUBLISHED, FewShotResult
from speechrnn.evaluation.spotting import ALL, SpottingResult
from speechrnn.files import write_files

Word = tuple[float, float, str]  # start and end, s, and label

STYLE: Any = {  # matplotlib types the keys one by one
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"
# Colours that colour-blind eyes can tell apart, all but yellow and black (Okabe and Ito 2008).
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LINES = ("-", "--", "-.", ":")
COLUMNS = 4_000  # of a picture, which has no more pixels across


def png(figure: Figure) -> bytes:
    """A figure as a PNG file holds it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return file.getvalue()


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG."""
    write_files({Path(path): png(figure)})


def confusion(result: ClipResult, title: str) -> Figure:
    """Confusion matrix: colours are shares of each row, figures count clips."""
    counts = result.confusion
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    places = np.arange(len(result.labels))
    # Of the matrix, inches: numbers of four figures fit.
    size = max(4, (0.42 if len(places) <= 20 else 0.3) * len(places))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(size, size))
        axes = figure.add_axes((0, 0, 1, 1))  # `save` widens the picture to the labels outside
        # The square root makes single mistakes visible beside a diagonal of hundreds.
        image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            text = axes.text(column, row, counts[row, column], ha="center", va="center")
            text.set(color=colour, fontsize=7)
        axes.set_xticks(places, result.labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, result.labels)
        axes.set_xticks(places[1:] - 0.5, minor=True)
        axes.set_yticks(places[1:] - 0.5, minor=True)
        axes.grid(which="minor", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.set(xlabel="answered", ylabel="spoken", title=title)
        axes.spines[:].set_visible(False)
        beside = axes.inset_axes((1 + 0.15 / size, 0, 0.15 / size, 1))
        ticks = [0, 0.05, 0.25, 0.5, 1]
        bar = figure.colorbar(image, cax=beside, format=PercentFormatter(1), ticks=ticks)
        bar.set_label("share of the clips of a word")
        bar.outline.set_visible(False)
    return figure


def reliability(result: ClipResult, title: str) -> Figure:
    """Reliability diagram: how often answers of a probability are right, and how many there are.

    Where the dots lie under the diagonal the model is too sure of itself. Source: Guo et al.
    (arXiv 1706.04599), figure 1.
    """
    bins = list(result.calibration())
    shown = [row for row in bins if row["count"]]
    confidence, accuracy = ([row[name] for row in shown] for name in ("confidence", "accuracy"))
    spread = [[abs(row["accuracy"] - row["interval_95"][end]) for row in shown] for end in (0, 1)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], "--", color="#666666", label="as sure as right")
        dots: Any = {"fmt": "o-", "color": BLUE, "capsize": 3}
        label = "answers, with 95 % interval"
        upper.errorbar(confidence, accuracy, spread, label=label, **dots)
        upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(-0.02, 1.02))
        upper.set_title(f"{title}\nexpected calibration error {result.calibration_error:.1%}")
        upper.legend(loc="upper left")
        edges = [0, *(row["up_to"] for row in bins)]
        lower.stairs([row["count"] for row in bins], edges, fill=True, color=BLUE)
        for row in shown:
            place, above = ((row["above"] + row["up_to"]) / 2, row["count"]), (0, 2)
            text = f"{row['count']:,}"
            lower.annotate(text, place, above, textcoords="offset points", ha="center", fontsize=6)
        # From 1 to thousands: on a linear axis only the last bin would be seen.
        most = max(row["count"] for row in bins)
        lower.set(yscale="log", ylim=(0.5, 4 * most), ylabel="clips")
        lower.set(xlabel="probability of the answer")
        for axes in (upper, lower):
            axes.set_axisbelow(True)
            axes.xaxis.set_major_formatter(PercentFormatter(1))
        upper.yaxis.set_major_formatter(PercentFormatter(1))
        lower.yaxis.set_major_formatter("{x:,.0f}")
    return figure


def curves(metrics: Mapping[str, Mapping[int, float]], title: str) -> Figure:
    """Loss and accuracy of a run over its epochs; the best epoch on validation is marked.

    Args:
        metrics: by name, such as `validation_loss`, and by epoch, from 0 on.
        title: of the picture.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        panes = figure.subplots(1, 2)
        for axes, name in zip(panes, ("loss", "accuracy"), strict=True):
            for split, colour, label in (
                ("training", ORANGE, "training, augmented"),
                ("validation", BLUE, "validation"),
            ):
                values = metrics.get(f"{split}_{name}", {})
                epochs = sorted(values)
                numbers, heights = [e + 1 for e in epochs], [values[e] for e in epochs]
                axes.plot(numbers, heights, ".-", color=colour, label=label)
            axes.set(xlabel="epoch", ylabel=name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        accuracy = metrics.get("validation_accuracy", {})
        if accuracy:
            best = max(accuracy, key=lambda epoch: (accuracy[epoch], -epoch))
            mark: Any = {"color": BLUE, "markersize": 8, "fillstyle": "none"}
            panes[1].plot(best + 1, accuracy[best], "o", **mark)
            subtitle = f"best on validation: {accuracy[best]:.1%}, epoch {best + 1}"
            panes[1].set_title(subtitle, fontsize=9)
        panes[1].yaxis.set_major_formatter(PercentFormatter(1))
        panes[0].legend()
        figure.suptitle(title)
    return figure


def gradients(runs: Sequence[tuple[str, list[dict[str, Any]], float]]) -> Figure:
    """Whether gradients vanish or explode, a column for each run.

    Above dLoss/dh[t] over t, below the singular values of W_hh.

    Args:
        runs: of each its title, its history (see `GradientFlow`), and the time between two h[t], s.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4 * len(runs), 5.6), layout="constrained")
        panes = figure.subplots(2, len(runs), sharey="row", squeeze=False)
        for (title, history, seconds_per_step), (upper, lower) in zip(runs, panes.T, strict=True):
            first, last = history[0], history[-1]
            layers = len(last["gradient"])
            colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, layers))
            for layer, colour in enumerate(colours):
                for moment, line in ((first, ":"), (last, "-")):
                    norms = np.array(moment["gradient"][layer])
                    times = (np.arange(len(norms)) + 1) * seconds_per_step
                    label = f"layer {layer + 1}" if line == "-" else None
                    upper.plot(times, norms, line, color=colour, label=label)
                    values = moment["singular_values"][layer]
                    lower.plot(np.arange(len(values)) + 1, values, line, color=colour)
            upper.set(yscale="log", xlabel="t in the clip, s", title=title)
            lower.set(yscale="log", xlabel="singular values of W_hh, largest first")
            lower.axhline(1, color="black", linewidth=0.8)
            upper.plot([], [], ":", color="black", label=f"step {first['step']:,}")
            upper.plot([], [], "-", color="black", label=f"step {last['step']:,}")
            upper.legend(fontsize=7)
        panes[0, 0].set_ylabel("norm of dLoss / dh[t]")
        panes[1, 0].set_ylabel("singular value")
    return figure


def detection_errors(result: SpottingResult, title: str) -> Figure:
    """Misses against false alarms an hour for every threshold, of all words and of each.

    Each line gives the fewest misses of all thresholds with no more false alarms. The cross is at
    the thresholds that were used. Source: Martin et al., The DET curve in assessment of detection
    task performance, Eurospeech 1997.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 4.4), layout="constrained")
        axes = figure.add_subplot()
        names = [ALL, *result.thresholds]
        least = 0.5 / result.hours  # where none at all is drawn, for a logarithm has no 0
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(names) - 1))
        for name, colour in zip(names, ["black", *colours], strict=True):
            points = sorted(
                (scores[name].false_alarms_per_hour, scores[name].miss_rate)
                for _, scores in result.curve
            )
            fewest = np.minimum.accumulate([missed for _, missed in points]).tolist()
            rates = [max(rate, least) for rate, _ in points]
            line: Any = {"linewidth": 2.5, "zorder": 3} if name == ALL else {"linewidth": 1.2}
            axes.step(rates, fewest, where="post", color=colour, label=name, **line)
        used = result.scores[ALL]
        place = max(used.false_alarms_per_hour, least), used.miss_rate
        cross: Any = {"color": ORANGE, "markersize": 9, "markeredgewidth": 2.5, "zorder": 4}
        axes.plot(*place, "x", label="thresholds used", **cross)
        axes.set(xscale="log", xlabel="false alarms an hour", ylabel="words missed", title=title)
        axes.set(ylim=(0, 0.3), xlim=(0.9 * least, None))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        _plain_rates(axes)
        axes.legend(fontsize=7, ncols=2)
    return figure


def false_alarms(
    result: SpottingResult, curves: Mapping[str, Sequence[tuple[float, float]]], title: str
) -> Figure:
    """Misses against false alarms an hour in talk and in sounds, a line for each, by threshold.

    Args:
        result: of the joined clips, for the misses at each threshold.
        curves: by kind of recording, each threshold with its false alarms an hour.
        title: of the picture.
    """
    missed = {threshold: scores[ALL].miss_rate for threshold, scores in result.curve}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        least = 0.1  # where none at all is drawn, for a logarithm has no 0
        for (kind, curve), colour in zip(curves.items(), (BLUE, ORANGE), strict=False):
            rates = [max(rate, least) for _, rate in curve]
            misses = [missed[threshold] for threshold, _ in curve]
            axes.plot(rates, misses, ".-", color=colour, label=kind)
        axes.axvline(1, color="black", linewidth=0.8, linestyle=":", label="one an hour")
        axes.set(xscale="log", xlabel="false alarms an hour (0.1: none)", title=title)
        axes.set(ylabel="words missed", ylim=(0, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _plain_rates(axes)
        axes.legend()
    return figure


def few_shot(results: Sequence[FewShotResult], title: str) -> Figure:
    """Accuracy against shots with 95 % intervals, a pane for each share of false accepts.

    Beside our lines stand the published figures that were measured at about that share.
    """
    lines: dict[str, list[FewShotResult]] = {}
    for result in results:
        who = "the same speaker" if result.same_speaker else "other speakers"
        lines.setdefault(f"{who}; unknown: {result.unknown}", []).append(result)
    # A file's name may hold a dollar, which is no mathematics.
    with matplotlib.rc_context({**STYLE, "text.parse_math": False}):
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        figure.suptitle(title)
        panes = figure.subplots(1, len(FALSE_ACCEPTS), sharey=True)
        for axes, share in zip(panes, FALSE_ACCEPTS, strict=True):
            drawn = []
            for place, points in enumerate(lines.values()):
                mean, low, high = np.array([one.accuracy[share] for one in points]).T
                colour, line = _look(place)
                style: Any = {"color": colour, "linestyle": line, "marker": "o", "capsize": 3}
                shots = [one.shots for one in points]
                drawn.append(axes.errorbar(shots, mean, (mean - low, high - mean), **style))
            published = [
                one
                for one in PUBLISHED
                if one.shots and one.false_accepts and abs(one.false_accepts - share) < 0.01
            ]
            for one, marker in zip(published, "Dsv", strict=False):
                label = f"{one.work.partition(' (')[0]}, {one.false_accepts:.1%}: {one.protocol}"
                dot: Any = {"linestyle": "", "color": "black", "markersize": 5, "zorder": 3}
                axes.plot(one.shots, one.accuracy, marker, label=label, **dot)
            axes.legend(loc="lower right", fontsize=6.5)
            axes.set(xlabel="recordings of each word", title=f"{share:.0%} false accepts")
            axes.set(xlim=(0, None), ylim=(0, 1.02))
            axes.set_xticks(sorted({one.shots for one in results}))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panes[0].set_ylabel("words answered rightly")
        figure.legend(drawn, list(lines), loc="outside lower center", ncols=2, fontsize=7)
    return figure


def noise(rates: Mapping[str, float], title: str) -> Figure:
    """Accuracy on words against the ratio of word to noise, a line for each noise.

    Args:
        rates: what `evaluate_conditions` gives.
        title: of the picture.
    """
    lines: dict[str, list[tuple[int, float]]] = {}
    for name, rate in rates.items():
        match = re.fullmatch(r"(.*), (-?\d+) dB", name)
        if match and not match[1].endswith(" alone"):
            lines.setdefault(match[1], []).append((int(match[2]), rate))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(lines.items()):
            colour, line = _look(index)
            style: Any = {"marker": ".", "color": colour, "linestyle": line}
            axes.plot(*zip(*sorted(points), strict=True), label=name.replace("_", " "), **style)
        clean = rates[RECORDED]
        axes.axhline(clean, color="black", linewidth=0.8, label=f"{RECORDED}: {clean:.1%}")
        axes.set(xlabel="ratio of word to noise, dB", title=title)
        axes.set(ylabel="words answered rightly", ylim=(None, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(fontsize=7)
    return figure


def transcript(
    wave: np.ndarray,
    features: np.ndarray,
    probabilities: np.ndarray,
    config: ModelConfig,
    thresholds: Mapping[str, float],
    words: Sequence[Word],
    truth: Sequence[Word] | None,
    title: str,
) -> Figure:
    """A recording from top to bottom: wave, MFCC, probability of each word, and the words.

    Args:
        wave: (n,) at 16 kHz.
        features: (T, F) MFCC of the wave.
        probabilities: (T, W) of the model's words, in the second that ends with each step.
        config: of the model.
        thresholds: probability from which each word counts.
        words: that were detected.
        truth: that were spoken, if they are known.
        title: of the picture.
    """
    seconds = len(wave) / SAMPLE_RATE
    labels = {label for _, _, label in (*words, *(truth or ()))}
    rows = [word for word in config.words if word in labels]
    rows += sorted(labels - set(config.words))
    heights = (0.9, 1.4, 1.8, 0.4 + 0.2 * len(rows))  # inches
    # A file's name may hold a dollar, which is no mathematics.
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "text.parse_math": False}):
        size = np.clip(seconds / 3, 7, 30), sum(heights) + 1.5
        figure = Figure(figsize=size, layout="constrained")
        panes = figure.subplots(4, 1, sharex=True, height_ratios=heights)
        figure.align_ylabels(panes)
        draw_wave(panes[0], wave)
        panes[0].set_title(title)
        draw_features(panes[1], features, config)
        _draw_probabilities(panes[2], probabilities, config, thresholds)
        _draw_words(panes[3], rows, words, truth)
        panes[3].set(xlabel="time, s", xlim=(0, seconds))
    return figure


def draw_wave(axes: Axes, wave: np.ndarray) -> None:
    """A wave (n,) over time; of a long one the least and the greatest sample of each column."""
    if len(wave) <= COLUMNS:
        axes.plot(np.arange(len(wave)) / SAMPLE_RATE, wave, color=BLUE, linewidth=0.8)
    else:
        size = -(-len(wave) // COLUMNS)
        columns = wave[: len(wave) // size * size].reshape(-1, size)
        times = (np.arange(len(columns)) + 0.5) * size / SAMPLE_RATE
        axes.fill_between(times, columns.min(1), columns.max(1), color=BLUE, linewidth=0.4)
    axes.set_ylabel("wave")


def draw_features(axes: Axes, features: np.ndarray, config: ModelConfig) -> None:
    """MFCC (T, F) over time; of a long recording the mean of the frames in each column."""
    together = max(1, -(-len(features) // COLUMNS))
    whole = features[: len(features) // together * together]
    if len(whole):
        columns = whole.reshape(-1, together, features.shape[1]).mean(1)
        extent = 0, len(whole) * config.hop_ms / 1000, 0, features.shape[1]
        style: Any = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
        axes.imshow(columns.T, cmap="magma", vmin=-2.5, vmax=2.5, extent=extent, **style)
    axes.set_ylabel(f"{features.shape[1]} MFCC every\n{config.hop_ms:g} ms")
    axes.set_yticks([])


def speed(
    panels: Mapping[tuple[str, int], Mapping[str, Sequence[tuple[int, float]]]], title: str
) -> Figure:
    """How long a step of a layer takes, forward and backward, against the batch.

    Args:
        panels: by data type and H, and by the way it was computed: clips in a batch, and
            microseconds. Every panel has the ways `ours` and `floor`.
        title: of the picture.
    """
    dtypes = list(dict.fromkeys(dtype for dtype, _ in panels))
    hidden = list(dict.fromkeys(units for _, units in panels))
    with matplotlib.rc_context(STYLE):
        size = 2.4 * len(hidden) + 1.4, 2.3 * len(dtypes) + 0.8
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title)
        axes = figure.subplots(len(dtypes), len(hidden), squeeze=False, sharex=True, sharey="row")
        for row, dtype in zip(axes, dtypes, strict=True):
            row[0].set_ylabel(f"{dtype}, µs a step and layer")
            for axis, units in zip(row, hidden, strict=True):
                _draw_speed(axis, panels[dtype, units])
                axis.set_title(f"H = {units}")
        for axis in axes[-1]:
            axis.set_xlabel("clips in a batch")
        entries = axes[0, 0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside lower center", ncols=len(entries[1]))
    return figure


def _draw_speed(axes: Axes, ways: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    order = sorted(ways, key=lambda way: (way == "floor", way != "ours"))
    for way, colour in zip(order, (*COLOURS[: len(order) - 1], GREY), strict=False):
        style: Any = {"linewidth": 1.2, "marker": "."}
        if way == "ours":
            style |= {"linewidth": 2.2, "zorder": 3}
        if way == "floor":
            style |= {"linestyle": ":", "marker": "", "color": GREY}
        axes.plot(*zip(*ways[way], strict=True), label=way, **{"color": colour, **style})
    axes.set(xscale="log", yscale="log", xticks=[batch for batch, _ in ways["floor"]])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()


def _draw_probabilities(
    axes: Axes, probabilities: np.ndarray, config: ModelConfig, thresholds: Mapping[str, float]
) -> None:
    """Of each word over time, in colour if it was ever probable; and the thresholds."""
    words, peaks = config.words, probabilities.max(0, initial=0)
    probable = [
        word for word, peak in zip(words, peaks, strict=True) if peak >= min(0.5, thresholds[word])
    ]
    shared = len(set(thresholds.values())) == 1
    names = {word: word if shared else f"{word} {thresholds[word]:.2f}" for word in probable}
    looks = {word: _look(index) for index, word in enumerate(probable)}
    times = config.seconds_per_step * (np.arange(len(probabilities)) + 1)
    for word, shares in zip(words, probabilities.T, strict=True):
        if word not in looks:
            axes.plot(times, shares, color="#bbbbbb", linewidth=0.7)
            continue
        colour, line = looks[word]
        axes.plot(times, shares, line, color=colour, label=names[word])
        if not shared:
            axes.axhline(thresholds[word], color=colour, linestyle=line, linewidth=0.5)
    if shared:
        level = thresholds[words[0]]
        axes.axhline(level, color="black", linewidth=0.8, label=f"threshold {level:.2f}")
    axes.set(ylabel="probability in\nthe last second", ylim=(0, 1.05))
    longest = max(map(len, names.values()), default=0)
    if names or shared:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0,
            ncols=max(1, 80 // (6 + longest)),  # 7 inches hold no more
            fontsize=7,
            title=None if shared else "each word, and its threshold",
            title_fontsize=7,
            alignment="left",
        )


def _draw_words(
    axes: Axes, rows: Sequence[str], words: Sequence[Word], truth: Sequence[Word] | None
) -> None:
    """Bars over time, a row for each label: words that were detected, above those spoken."""
    for kind, shown, place, colour in (
        ("detected", words, -0.4, ORANGE),
        ("spoken", truth or (), 0.05, GREY),
    ):
        for row, word in enumerate(rows if shown else ()):
            spans = [(start, end - start) for start, end, label in shown if label == word]
            label = kind if row == 0 else None
            axes.broken_barh(spans, (row + place, 0.35), color=colour, label=label)
    axes.set(ylabel="words", ylim=(max(1, len(rows)) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if rows:
        above: Any = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
        axes.legend(ncols=2, fontsize=7, **above)


def _look(index: int) -> tuple[str, str]:
    """Colour and line of one of many curves."""
    return COLOURS[index % len(COLOURS)], LINES[index // len(COLOURS) % len(LINES)]


def _plain_rates(axes: Axes) -> None:
    """Label a logarithmic axis of rates 0.5, 1, 2, however few decades it has."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())

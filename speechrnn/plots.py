"""Every picture. In: plain numbers, or a run folder's logs. Out: a PNG file, written beside and then renamed."""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, MaxNLocator, PercentFormatter, ScalarFormatter

from speechrnn.audio import SAMPLE_RATE, read_wave

if TYPE_CHECKING:
    from speechrnn.bench import Case
    from speechrnn.evaluation import Report
    from speechrnn.events import StreamReport
    from speechrnn.model import Model

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
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # all of theirs but yellow and black
LINES = ("-", "--", "-.", ":")


def png(figure: Figure) -> bytes:
    """A figure as a PNG file holds it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return file.getvalue()


def write(files: Mapping[Path, bytes]) -> None:
    """Write files beside their places, then rename them: where one cannot be written, none is, and the old ones stay."""
    beside = {path: path.with_name(f".{path.name}.part") for path in files}
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for path, data in files.items():
            beside[path].write_bytes(data)
        for path in files:
            os.replace(beside[path], path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(path)) from error  # a full disk's names no file
    finally:
        for part in beside.values():
            part.unlink(missing_ok=True)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG."""
    write({Path(path): png(figure)})


def confusion(report: "Report", title: str) -> Figure:
    """Confusion matrix: colours are shares of each row, figures are clips; the right answers are on the diagonal."""
    counts = report.confusion
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    places = np.arange(len(report.labels))
    size = max(4, (0.42 if len(places) <= 20 else 0.3) * len(places))  # of the matrix, inches: numbers of four figures fit
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(size, size))
        axes = figure.add_axes((0, 0, 1, 1))  # labels lie outside: `save` widens the picture to what is drawn
        # The square root makes single mistakes visible beside a diagonal of hundreds.
        image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(places, report.labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, report.labels)
        axes.set_xticks(places[1:] - 0.5, minor=True)
        axes.set_yticks(places[1:] - 0.5, minor=True)
        axes.grid(which="minor", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.set(xlabel="heard as", ylabel="spoken", title=title)
        axes.spines[:].set_visible(False)
        beside = axes.inset_axes((1 + 0.15 / size, 0, 0.15 / size, 1))
        bar = figure.colorbar(image, cax=beside, format=PercentFormatter(1), ticks=[0, 0.05, 0.25, 0.5, 1])
        bar.set_label("share of the clips of a word")
        bar.outline.set_visible(False)
    return figure


def reliability(report: "Report", title: str) -> Figure:
    """Reliability diagram: how often answers of a probability are right, above; how many answers have it, below.

    Where the dots lie under the diagonal the model is too sure of itself. Source: Guo et al. (arXiv 1706.04599), figure 1.
    """
    bins = list(report.calibration())
    shown = [row for row in bins if row["count"]]
    confidence, accuracy = ([row[name] for row in shown] for name in ("confidence", "accuracy"))
    spread = [[abs(row["accuracy"] - row["interval_95"][end]) for row in shown] for end in (0, 1)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 6), layout="constrained")
        over, under = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        over.plot([0, 1], [0, 1], "--", color="#666666", label="as sure as right")
        over.errorbar(confidence, accuracy, spread, fmt="o-", color=BLUE, capsize=3, label="answers, with 95 % interval")
        over.set(ylabel="share that is right", xlim=(0, 1), ylim=(-0.02, 1.02))
        over.set_title(f"{title}\nexpected calibration error {report.calibration_error:.1%}")
        over.legend(loc="upper left")
        edges = [0, *(row["up_to"] for row in bins)]
        under.stairs([row["count"] for row in bins], edges, fill=True, color=BLUE)
        for row in shown:
            place = (row["above"] + row["up_to"]) / 2, row["count"]
            under.annotate(f"{row['count']:,}", place, (0, 2), textcoords="offset points", ha="center", fontsize=6)
        # From 1 to thousands: on a linear axis only the last bin would be seen.
        under.set(
            yscale="log", ylim=(0.5, 4 * max(row["count"] for row in bins)), xlabel="probability of the answer", ylabel="clips"
        )
        for axes in (over, under):
            axes.set_axisbelow(True)
            axes.xaxis.set_major_formatter(PercentFormatter(1))
        over.yaxis.set_major_formatter(PercentFormatter(1))
        under.yaxis.set_major_formatter("{x:,.0f}")
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


def gradients(runs: Sequence[tuple[str, list[dict[str, Any]], float]]) -> Figure:
    """Whether gradients vanish or explode: dLoss/dh[t] over t, and the singular values of W_hh, a column a run.

    Args:
        runs: of each its title, its history (see `GradientFlow`), and the time between two h[t], s.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4 * len(runs), 5.6), layout="constrained")
        panes = figure.subplots(2, len(runs), sharey="row", squeeze=False)
        for (title, history, seconds_per_step), (over_time, spectrum) in zip(runs, panes.T, strict=True):
            first, last = history[0], history[-1]
            layers = len(last["gradient"])
            colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, layers))
            for layer, colour in enumerate(colours):
                for moment, line in ((first, ":"), (last, "-")):
                    norms = np.array(moment["gradient"][layer])
                    times = (np.arange(len(norms)) + 1) * seconds_per_step
                    over_time.plot(times, norms, line, color=colour, label=f"layer {layer + 1}" if line == "-" else None)
                    values = moment["singular_values"][layer]
                    spectrum.plot(np.arange(len(values)) + 1, values, line, color=colour)
            over_time.set(yscale="log", xlabel="t in the clip, s", title=title)
            spectrum.set(yscale="log", xlabel="singular values of W_hh, largest first")
            spectrum.axhline(1, color="black", linewidth=0.8)
            over_time.plot([], [], ":", color="black", label=f"step {first['step']:,}")
            over_time.plot([], [], "-", color="black", label=f"step {last['step']:,}")
            over_time.legend(fontsize=7)
        panes[0, 0].set_ylabel("norm of dLoss / dh[t]")
        panes[1, 0].set_ylabel("singular value")
    return figure


def systems(published: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]], title: str) -> Figure:
    """Accuracy against size: published systems, and ours with the interval of each, joined by a line.

    Args:
        published: of each `system`, `kind`, `parameters`, `accuracy` (%), the `test` it was measured on, and on which `side` of
            its mark the name stands: left, right or below.
        ours: of each `system`, `parameters`, `accuracy` (%) and `interval` (lower and upper end, %).
        title: says what ours was measured on.
    """
    kinds = {
        "vanilla recurrence": (ORANGE, "o"),
        "gated recurrence": ("#009e73", "s"),
        "convolution": (BLUE, "^"),
        "attention": ("#cc79a7", "D"),
    }
    sides = {"left": (-5, -2, "right"), "right": (5, -2, "left"), "below": (0, -10, "center")}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        for kind, (colour, marker) in kinds.items():
            for test, fill in (("V2-12", colour), ("V1-12", "white")):
                chosen = [row for row in published if row["kind"] == kind and row["test"] == test]
                if chosen:
                    sizes, rates = [float(row["parameters"]) for row in chosen], [float(row["accuracy"]) / 100 for row in chosen]
                    axes.plot(sizes, rates, marker, color=colour, mfc=fill, label=f"{kind}, published on {test}")
        for row in published:
            across, up, align = sides[row["side"]]
            place = float(row["parameters"]), float(row["accuracy"]) / 100
            axes.annotate(row["system"], place, (across, up), textcoords="offset points", ha=align, fontsize=6, color="#444444")
        sizes, rates = [row["parameters"] for row in ours], [row["accuracy"] / 100 for row in ours]
        spread = [[abs(row["accuracy"] - row["interval"][end]) / 100 for row in ours] for end in (0, 1)]
        label = "vanilla recurrence, ours"
        axes.errorbar(sizes, rates, spread, fmt="o-", color=ORANGE, capsize=3, linewidth=2, markersize=7, label=label)
        for row, rate in zip(ours, rates, strict=True):
            place = row["parameters"], rate
            axes.annotate(row["system"], place, (6, -12), textcoords="offset points", fontweight="bold", color=ORANGE)
        # Each step up halves the errors or so: where the systems are is where the room is.
        axes.set(xscale="log", yscale="logit", xlabel="parameters", ylabel="accuracy", title=title, ylim=(0.65, 0.99))
        axes.set_yticks([0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99])
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.minorticks_off()
        axes.legend(loc="lower right", fontsize=7)
    return figure


def way_of_one_wav(model: "Model", path: str | Path) -> Figure:
    """What the model makes of a file, from top to bottom: wave, MFCC, states of the last recurrence, logits pooled to a word."""
    import librosa.display
    import torch

    wave = torch.from_numpy(read_wave(path)).unsqueeze(0)
    states: list[torch.Tensor] = []
    last: Any = model.blocks[-1].recurrence
    hook = last.register_forward_hook(lambda module, inputs, output: states.append(output[0]))
    with torch.inference_mode():
        features = model.mfcc(wave)[0][0]
        logits = model(wave)[0][0]
    hook.remove()
    hop, step = model.config.hop_ms / 1000, model.config.seconds_per_step
    edges = step * np.arange(len(logits) + 1)
    weight = logits.mean(-1).softmax(0)
    answer = model.classify(path)
    best = model.config.labels.index(answer.label)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(7, 7), layout="constrained")
        panes = figure.subplots(4, 1, sharex=True, height_ratios=(1, 1.5, 1.5, 1.5))
        librosa.display.waveshow(wave[0].numpy(), sr=SAMPLE_RATE, ax=panes[0], color=BLUE, axis=None)
        panes[0].set(ylabel="wave", title=f"{Path(path).name}: {answer.label} {answer.score:.0%}")
        centres = hop * (np.arange(len(features)) + 0.5)
        librosa.display.specshow(features.T.numpy(), x_coords=centres, ax=panes[1], cmap="magma", vmin=-2.5, vmax=2.5)
        panes[1].set(ylabel=f"{features.shape[1]} MFCC every\n{model.config.hop_ms:g} ms")
        hidden = states[0][0].T.numpy()
        extent = (0, step * len(logits), 0, len(hidden))
        panes[2].imshow(hidden, aspect="auto", origin="lower", extent=extent, cmap="RdBu", vmin=-1, vmax=1)
        panes[2].set(ylabel=f"{len(hidden)} units h of\nlayer {model.config.layers}")
        panes[3].stairs(weight / weight.max(), edges, baseline=None, color="#999999", label="its weight, relative")
        share = logits.softmax(-1)[:, best]
        panes[3].stairs(share, edges, baseline=None, color=ORANGE, label=f"“{answer.label}”")
        panes[3].set(ylabel="each step's answer", xlabel="time, s", ylim=(0, 1.05), xlim=(0, wave.shape[1] / SAMPLE_RATE))
        panes[3].xaxis.set_major_locator(AutoLocator())  # librosa takes them away
        panes[3].xaxis.set_major_formatter(ScalarFormatter())
        panes[3].legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2)  # above: the steps go anywhere
    return figure


def detection_errors(found: "StreamReport", title: str) -> Figure:
    """Misses against false alarms an hour for every threshold (DET, Martin et al. 1997), of all words and of each.

    Each line gives the fewest misses of all thresholds with no more false alarms. The cross is at the thresholds that were used.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 4.4), layout="constrained")
        axes = figure.add_subplot()
        names = ["all", *found.thresholds]
        least = 0.5 / found.hours  # where none at all is drawn, for a logarithm has no 0
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(names) - 1))
        for name, colour in zip(names, ["black", *colours], strict=True):
            points = sorted((scores[name].false_alarms_per_hour, scores[name].miss_rate) for _, scores in found.curve)
            best = np.minimum.accumulate([missed for _, missed in points])  # of the thresholds with no more false alarms
            points = [(max(alarms, least), missed) for (alarms, _), missed in zip(points, best.tolist(), strict=True)]
            line: Any = {"linewidth": 2.5, "zorder": 3} if name == "all" else {"linewidth": 1.2}
            axes.step(*zip(*points, strict=True), where="post", color=colour, label=name, **line)
        used = found.scores["all"]
        place = max(used.false_alarms_per_hour, least), used.miss_rate
        axes.plot(*place, "x", color=ORANGE, markersize=9, markeredgewidth=2.5, label="thresholds used", zorder=4)
        axes.set(xscale="log", xlabel="false alarms an hour", ylabel="words missed", title=title)
        axes.set(ylim=(0, 0.3), xlim=(0.9 * least, None))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.legend(fontsize=7, ncols=2)
    return figure


def transcript(
    model: "Model",
    wave: np.ndarray,
    probabilities: np.ndarray,
    thresholds: Mapping[str, float],
    heard: Sequence[tuple[float, float, str]],
    truth: Sequence[tuple[float, float, str]] | None,
    title: str,
) -> Figure:
    """What is heard in a recording, from top to bottom: wave, MFCC, the words' probabilities, and which were heard and said.

    Args:
        model: that heard it.
        wave: (n,) at 16 kHz.
        probabilities: (T, W) of the model's words, in the second that ends with each step.
        thresholds: probability from which each word counts as heard.
        heard: start and end (s) and label of each word.
        truth: likewise of each word that was said, if that is known.
        title: of the picture.
    """
    import librosa.display
    import torch

    words, seconds, step = model.config.words, len(wave) / SAMPLE_RATE, model.config.seconds_per_step
    with torch.inference_mode():
        past, parts = None, []
        for start in range(0, len(wave), 60 * SAMPLE_RATE):
            frames, past = model.mfcc(torch.from_numpy(wave[None, start : start + 60 * SAMPLE_RATE]), past)
            parts.append(frames[0].numpy())
    features = np.concatenate(parts)
    together = 1 + len(features) // 4000  # frames in a column of the picture, which has no more pixels
    columns = features[: len(features) // together * together].reshape(-1, together, features.shape[1]).mean(1)
    centres = model.config.hop_ms / 1000 * together * (np.arange(len(columns)) + 0.5)
    peaks = probabilities.max(0, initial=0)
    probable = [word for word, peak in zip(words, peaks, strict=True) if peak >= min(0.5, thresholds[word])]
    shared = len(set(thresholds.values())) == 1
    names = {word: word if shared else f"{word} {thresholds[word]:.2f}" for word in probable}
    looks = {word: (COLOURS[i % 6], LINES[i // 6 % 4]) for i, word in enumerate(probable)}
    labels = {label for _, _, label in (*heard, *(truth or ()))}
    rows = [word for word in words if word in labels] + sorted(labels - set(words))
    heights = (0.9, 1.4, 1.8, 0.4 + 0.2 * len(rows))  # inches
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "text.parse_math": False}):  # names may hold a dollar
        figure = Figure(figsize=(np.clip(seconds / 3, 7, 30), sum(heights) + 1.5), layout="constrained")
        panes = figure.subplots(4, 1, sharex=True, height_ratios=heights)
        figure.align_ylabels(panes)
        librosa.display.waveshow(wave, sr=SAMPLE_RATE, ax=panes[0], color=BLUE, axis=None)
        panes[0].set(ylabel="wave", title=title)
        if len(columns):
            librosa.display.specshow(columns.T, x_coords=centres, ax=panes[1], cmap="magma", vmin=-2.5, vmax=2.5)
        panes[1].set(ylabel=f"{features.shape[1]} MFCC every\n{model.config.hop_ms:g} ms")
        times = step * (np.arange(len(probabilities)) + 1)
        for word, shares in zip(words, probabilities.T, strict=True):
            if word not in looks:
                panes[2].plot(times, shares, color="#bbbbbb", linewidth=0.7)
                continue
            colour, line = looks[word]
            panes[2].plot(times, shares, line, color=colour, label=names[word])
            if not shared:
                panes[2].axhline(thresholds[word], color=colour, linestyle=line, linewidth=0.5)
        if shared:
            threshold = thresholds[words[0]]
            panes[2].axhline(threshold, color="black", linewidth=0.8, label=f"threshold {threshold:.2f}")
        panes[2].set(ylabel="probability in\nthe last second", ylim=(0, 1.05))
        across = max(1, 80 // (6 + max(map(len, names.values()), default=0)))  # 7 inches hold no more
        if names or shared:
            panes[2].legend(
                loc="lower left",
                bbox_to_anchor=(0, 1),
                borderaxespad=0,
                ncols=across,
                fontsize=7,
                title=None if shared else "each word, and its threshold",
                title_fontsize=7,
                alignment="left",
            )
        for kind, spoken, place, colour in (("heard", heard, -0.4, ORANGE), ("said", truth or (), 0.05, "#999999")):
            for row, word in enumerate(rows if spoken else ()):
                spans = [(start, end - start) for start, end, label in spoken if label == word]
                panes[3].broken_barh(spans, (row + place, 0.35), color=colour, label=kind if row == 0 else None)
        panes[3].set(ylabel="words", xlabel="time, s", xlim=(0, seconds), ylim=(max(1, len(rows)) - 0.5, -0.5))
        panes[3].set_yticks(range(len(rows)), rows)
        panes[3].grid(axis="y")
        panes[3].set_axisbelow(True)
        if rows:
            panes[3].legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2, fontsize=7)
        panes[3].xaxis.set_major_locator(AutoLocator())  # librosa takes them away
        panes[3].xaxis.set_major_formatter(ScalarFormatter())
    return figure


def noise(rates: Mapping[str, float], title: str) -> Figure:
    """Accuracy on words against the ratio of word to noise, a line a noise, from what `evaluate_conditions` gives."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for name, rate in rates.items():
        found = re.fullmatch(r"(.*), (-?\d+) dB", name)
        if found and not found[1].endswith(" alone"):
            lines.setdefault(found[1], []).append((int(found[2]), rate))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(lines.items()):
            look: Any = {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index // len(COLOURS) % len(LINES)]}
            axes.plot(*zip(*sorted(points), strict=True), marker=".", label=name.replace("_", " "), **look)
        clean = rates["as recorded"]
        axes.axhline(clean, color="black", linewidth=0.8, label=f"as recorded: {clean:.1%}")
        axes.set(xlabel="ratio of word to noise, dB", ylabel="words heard right", title=title, ylim=(None, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(fontsize=7)
    return figure


def speed(cases: "Sequence[Case]", title: str) -> Figure:
    """Microseconds of a step of a layer, forward and backward, against the batch, for the longest T; panels by H and dtype."""
    longest = max(case.steps for case in cases)
    shown = [case for case in cases if case.backward and case.steps == longest]
    dtypes, hidden = (list(dict.fromkeys(getattr(case, name) for case in shown)) for name in ("dtype", "hidden"))
    ways = sorted(dict.fromkeys(way for case in shown for way in case.seconds), key=lambda way: way != "ours")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * len(hidden) + 1.4, 2.3 * len(dtypes) + 0.8), layout="constrained")
        figure.suptitle(title)
        axes = figure.subplots(len(dtypes), len(hidden), squeeze=False, sharex=True, sharey="row")
        for row, dtype in zip(axes, dtypes, strict=True):
            row[0].set_ylabel(f"{dtype}, µs a step and layer")
            for axis, units in zip(row, hidden, strict=True):
                here = [case for case in shown if (case.dtype, case.hidden) == (dtype, units)]
                for way, colour in zip(ways, COLOURS, strict=False):
                    points = [(case.batch, case.microseconds(way)) for case in here if way in case.seconds]
                    style = {"linewidth": 2.2, "zorder": 3} if way == "ours" else {"linewidth": 1.2}
                    axis.plot(*zip(*points, strict=True), marker=".", color=colour, label=way, **style)
                floor = [case.microseconds("floor") for case in here]
                axis.plot([case.batch for case in here], floor, color="#999999", linestyle=":", label="floor")
                axis.set(xscale="log", yscale="log", title=f"H = {units}", xticks=[case.batch for case in here])
                axis.xaxis.set_major_formatter(ScalarFormatter())
                axis.minorticks_off()
        for axis in axes[-1]:
            axis.set_xlabel("clips in a batch")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ways) + 1)
    return figure

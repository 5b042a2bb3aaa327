"""Write the figures of the shipped models into the tables of `README.md` and `recipes/README.md`.

    python recipes/results.py --base RUN --small RUN --tiny RUN

Each RUN is the one that `recipes/ship.py` has shipped, with the reports of both splits in it. A
table is known by its head; the rows below it are written anew. The prose around the tables
stays: read it after.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ship import SPLITS, read_reports

from speechrnn import folder
from speechrnn.evaluation.conditions import LEVELS_DB, SNR_DB
from speechrnn.evaluation.spotting import choose_threshold
from speechrnn.files import write_files

PROJECT = Path(__file__).parent.parent
ALLOWED = (1, 2, 3, 5, 10)  # false alarms an hour in each recording
LOUDEST = f" alone, {LEVELS_DB[0]} dB"  # each noise has one such condition

Reports = dict[str, dict[str, Any]]  # by model and split


def interval(figures: dict[str, Any]) -> str:
    """An accuracy with its interval."""
    low, high = (100 * limit for limit in figures["interval_95"])
    return f"{figures['accuracy']:.2%} ({low:.2f} to {high:.2f})"


def accuracy_rows(reports: Reports) -> list[list[str]]:
    """Both splits of each model, each clip alone and in one stream."""
    rows = []
    for name, of_model in reports.items():
        for split in SPLITS:
            whole = of_model[split]
            stream = whole["stream"]
            model = f"`{name}`, {whole['model']['parameters']:,} parameters"
            rows.append([
                model if split == SPLITS[0] else "", split, f"{whole['clips']:,}", interval(whole),
                *(f"{share:.2%}" for share in whole["silence_apart"]),
                f"{whole['mean_accuracy']:.2%}", interval(stream), f"{stream['mean_accuracy']:.2%}",
            ])  # fmt: skip
    return rows


def event_rows(reports: Reports) -> list[list[str]]:
    """Words found in the joined clips of both splits, and what is heard where none is meant."""
    rows = []
    for name, of_model in reports.items():
        for split in SPLITS:
            report = of_model[split]
            score = report["events"]["scores"]["all"]
            latency = ""
            if score["hits"]:
                latency = f"{score['latency_median']:.2f} / {score['latency_95']:.2f} s"
            in_use = ["", "", ""]
            if split == "validation":
                rates = [f"{report[k]['false_alarms_per_hour']:.1f}" for k in ("talk", "sounds")]
                in_use = [*rates, f"{report['talk']['random_seconds']:.1%}"]
            thresholds = report["events"]["thresholds"].values()
            rows.append([
                f"`{name}`", split, f"{max(thresholds):.3f}", f"{score['hours']:.2f}",
                f"{score['miss_rate']:.1%} of {score['words']:,}", str(score["wrong"]),
                f"{score['false_alarms_per_hour']:.2f}",
                f"{report['close_words']['miss_rate']:.1%}",
                latency, *in_use,
                f"{report['false_alarms_alone']['other words']:.1f}",
            ])  # fmt: skip
    return rows


def found_rows(reports: Reports) -> list[list[str]]:
    """Words found where joined clips, talk and sounds each give so many false alarms or fewer."""
    rows = []
    for name, of_model in reports.items():
        validation = of_model["validation"]
        joined = validation["events"]["curve"]
        missed = {row["threshold"]: row["all"][0] for row in joined}
        curves = [[(row["threshold"], row["all"][1]) for row in joined]]
        curves += [validation[kind]["curve"] for kind in ("talk", "sounds")]
        levels = [choose_threshold(curves, allowed) for allowed in ALLOWED]
        rows.append([f"`{name}`", *(f"{1 - missed[level]:.0%}" for level in levels)])
    return rows


def first_screen_rows(reports: Reports) -> list[list[str]]:
    """What the project's README says of each model."""
    rows = []
    for name, of_model in reports.items():
        validation, testing = (of_model[split] for split in SPLITS)
        found = 1 - validation["events"]["scores"]["all"]["miss_rate"]
        streamed = validation["stream"]["accuracy"]
        others = streamed, testing["accuracy"], testing["stream"]["accuracy"]
        rows.append([
            f"`{name}`", f"{validation['model']['parameters']:,}",
            f"**{100 * validation['accuracy']:.1f} %**",
            *(f"{100 * share:.1f} %" for share in others),
            f"{100 * found:.0f} %",
            *(f"{validation[kind]['false_alarms_per_hour']:.1f}" for kind in ("talk", "sounds")),
        ])  # fmt: skip
    return rows


def label_rows(reports: Reports) -> list[list[str]]:
    """The recall of each label on validation."""
    recalls = [
        {row["label"]: row["recall"] for row in of_model["validation"]["per_label"]}
        for of_model in reports.values()
    ]
    return [[label, *(f"{recall[label]:.1%}" for recall in recalls)] for label in recalls[0]]


def mistake_rows(report: dict[str, Any]) -> list[list[str]]:
    """The surest of a model's wrong answers."""
    return [
        [wrong["name"], wrong["label"], wrong["answer"], f"{wrong['score']:.2f}"]
        for wrong in report["mistakes"]
    ]


def condition_rows(reports: Reports) -> list[list[str]]:
    """The share of right answers under each condition that is no noise at some level."""
    rates = [of_model["validation"]["conditions"] for of_model in reports.values()]
    return [
        [name, *(f"{rate[name]:.1%}" for rate in rates)]
        for name in rates[0]
        if not name.endswith(" dB")
    ]


def noise_rows(reports: Reports, levels_db: Iterable[int], ending: str = "") -> list[list[str]]:
    """The shares for each noise, all levels in one cell.

    Args:
        reports: of each model.
        levels_db: of the noises, as the conditions are named.
        ending: of the noise's name: nothing under words, or ` alone`.
    """
    rates = [of_model["validation"]["conditions"] for of_model in reports.values()]
    endings = [f", {level} dB" for level in levels_db]
    rows = []
    for name in (name.removesuffix(LOUDEST) for name in rates[0] if name.endswith(LOUDEST)):
        shares = [[100 * rate[name + ending + level] for level in endings] for rate in rates]
        cells = [" / ".join(f"{share:.0f}" for share in of_model) for of_model in shares]
        rows.append([name.replace("_", " "), *cells])
    return rows


def replace_rows(text: str, head: str, rows: list[list[str]]) -> str:
    """A text whose table below a line that begins with `head` has these rows.

    Raises:
        ValueError: there is no such table.
    """
    lines = text.splitlines()
    places = [place for place, line in enumerate(lines) if line.startswith(head)]
    if not places:
        raise ValueError(f"there is no table that begins with {head!r}")
    first = places[0] + 2
    last = first
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    lines[first:last] = [
        "|" + "".join(f" {cell} |" if cell else "  |" for cell in row) for row in rows
    ]
    return "\n".join(lines) + "\n"


def tables(reports: Reports) -> dict[Path, list[tuple[str, list[list[str]]]]]:
    """Head and rows of each table, by the file in which it stands."""
    return {
        PROJECT / "README.md": [("| model | parameters | validation,", first_screen_rows(reports))],
        PROJECT / "recipes/README.md": [
            ("| model | split | clips |", accuracy_rows(reports)),
            ("| model | split | threshold |", event_rows(reports)),
            ("| false alarms an hour |", found_rows(reports)),
            ("| word | `base` |", label_rows(reports)),
            ("| clip | spoken |", mistake_rows(reports["base"]["validation"])),
            ("| condition | `base` |", condition_rows(reports)),
            ("| in noise, at ", noise_rows(reports, SNR_DB)),
            ("| noise alone, at ", noise_rows(reports, LEVELS_DB, " alone")),
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("base", "small", "tiny"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="RUN")
    runs = vars(parser.parse_args())
    try:
        reports = {name: read_reports(run, folder.read_folder(name)) for name, run in runs.items()}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    pages = {}
    for page, of_page in tables(reports).items():
        text = page.read_text("utf-8")
        for head, rows in of_page:
            text = replace_rows(text, head, rows)
        pages[page] = text.encode()
    write_files(pages)


if __name__ == "__main__":
    main()

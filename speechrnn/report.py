"""A report as files: one page of HTML that needs nothing else, the same as Markdown, its pictures, and the numbers as JSON.

In: sections of text, tables and figures, made here from a `Report` (evaluation) and its pictures (plots), or by a caller.
Out: a folder whose files are all written or, if one cannot be, are left as they were. The look of the page is `report.html`.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from speechrnn import plots
from speechrnn.evaluation import WORST, Report, comparison_rows, latex, markdown, mcnemar, numeric, paper_rows

TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Section:
    """A part of a report; what it has is shown in this order.

    Args:
        title: its heading.
        text: a paragraph.
        rows: a table, its head first.
        pictures: by the names of their files, without `.png`.
        code: what is to be copied as it is.
    """

    title: str
    text: str = ""
    rows: Sequence[Sequence[str]] = ()
    pictures: Mapping[str, Figure] = field(default_factory=dict)
    code: Sequence[str] = ()


def write(
    folder: Path, title: str, headline: Sequence[tuple[str, str]], sections: Sequence[Section], found: Mapping[str, Any]
) -> list[Path]:
    """Write `report.html`, `report.md`, `report.json` and each picture as PNG.

    Args:
        folder: where; it is made.
        title: of the whole.
        headline: names and values of the figures that stand first.
        sections: of the page, in order.
        found: all numbers, for `report.json`.

    Returns:
        The files.

    Raises:
        OSError: if one cannot be written; then none is.
    """
    pictures = {name: plots.png(figure) for section in sections for name, figure in section.pictures.items()}
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    data = {name: f"data:image/png;base64,{base64.b64encode(picture).decode()}" for name, picture in pictures.items()}
    page = template.render(title=title, headline=headline, sections=sections, pictures=data, numeric=numeric)
    texts = {"report.html": page, "report.md": _markdown(title, headline, sections), "report.json": json.dumps(found, indent=2)}
    files = {folder / f"{name}.png": picture for name, picture in pictures.items()}
    files |= {folder / name: f"{text}\n".encode(errors="surrogateescape") for name, text in texts.items()}
    plots.write(files)
    return list(files)


def heading(reports: Sequence[Report]) -> tuple[str, list[tuple[str, str]]]:
    """Title and headline for the reports of one model or of several."""
    first, low, high = reports[0], *reports[0].interval
    if len(reports) > 1:
        return f"{len(reports)} models, {first.protocol} {first.split}, {first.clips:,} clips", []  # a table of them comes first
    return first.title, [
        (f"accuracy, 95 % interval {low:.2%} to {high:.2%}", f"{first.accuracy:.2%}"),
        ("mean over classes", f"{first.mean_accuracy:.2%}"),
        ("macro F1", f"{first.macro_f1:.2%}"),
        ("calibration error", f"{first.calibration_error:.2%}"),
        ("clips", f"{first.clips:,}"),
    ]


def of_clips(report: Report, number: str = "") -> list[Section]:
    """What a report says of each word, of its calibration and of its worst mistakes.

    Args:
        report: one of several models, or the only one.
        number: stands behind the names of the pictures, where there are several models.
    """
    of = f": {report.model.name}" if number and report.model else ""
    worst = [[mistake.label, mistake.answer, f"{mistake.score:.2f}", mistake.name] for mistake in report.mistakes[:WORST]]
    return [
        Section(f"Words{of}", rows=report.rows(), pictures={f"confusion{number}": report.plot()}),
        Section(
            f"Calibration{of}",
            "Is an answer as often right as its probability says? Dots under the diagonal: it is too sure of itself.",
            pictures={f"reliability{number}": plots.reliability(report, report.title)},
        ),
        Section(
            f"Worst mistakes{of}",
            f"The surest of {len(report.mistakes):,} wrong answers." if worst else "No clip was heard as what it is not.",
            rows=[["spoken", "heard as", "probability", "clip"], *worst] if worst else [],
        ),
    ]


def of_paper(reports: Sequence[Report]) -> Section:
    """The rows that go into a paper, as Markdown and as LaTeX."""
    rows = paper_rows(reports)
    return Section("For a paper", code=[markdown(rows), latex(rows)])


def comparison(reports: Sequence[Report]) -> list[Section]:
    """Several models on the same clips: a row for each, and McNemar's test of each pair."""
    pairs = [["first", "second", "only the first right", "only the second right", "p"]]
    for test in differences(reports):
        first, second = test["models"]
        pairs.append([first, second, f"{test['only_first']:,}", f"{test['only_second']:,}", f"{test['p']:.2g}"])
    said = "McNemar's exact test: p is the chance of such a difference or a larger one between models that are equally good."
    return [Section("Models", rows=comparison_rows(reports)), Section("Differences", said, rows=pairs)]


def differences(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """McNemar's test of each pair, as JSON can hold it; the reports are those of `evaluate`."""
    names = [row[0] for row in comparison_rows(reports)[1:]]
    found = []
    for first in range(len(reports)):
        for second in range(first + 1, len(reports)):
            only_first, only_second, p = mcnemar(reports[first], reports[second])
            models = [names[first], names[second]]
            found.append({"models": models, "only_first": only_first, "only_second": only_second, "p": p})
    return found


def _markdown(title: str, headline: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    parts = [f"# {title}", "\n".join(f"- {name}: {value}" for name, value in headline)]
    for section in sections:
        parts += [f"## {section.title}", section.text, markdown(section.rows) if section.rows else ""]
        parts += [f"![{section.title}]({name}.png)" for name in section.pictures]
        parts += [f"```\n{code}\n```" for code in section.code]
    return "\n\n".join(filter(None, parts))

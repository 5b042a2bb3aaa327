"""A report as files: one HTML page that needs nothing else, the same as Markdown, and as JSON.

In: sections of text, tables and figures; `sections` makes them from results. Out: a folder whose
files are all written or, if one cannot be, are left as they were. How the page looks is in
`report.html`.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from speechrnn.evaluation import plots, text
from speechrnn.evaluation.clips import WORST, ClipResult
from speechrnn.evaluation.few_shot import FewShotReport
from speechrnn.evaluation.results import ModelResult, StreamResult
from speechrnn.evaluation.tables import latex, markdown, numeric
from speechrnn.files import write_files

TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Section:
    """A part of a report; what it has is shown in this order.

    Args:
        title: its heading.
        text: a paragraph.
        rows: a table, its head first.
        pictures: by the names of their files, without `.png`.
        code: to be copied as it is.
    """

    title: str
    text: str = ""
    rows: Sequence[Sequence[str]] = ()
    pictures: Mapping[str, Figure] = field(default_factory=dict)
    code: Sequence[str] = ()


def write_report(folder: Path, results: Sequence[ModelResult]) -> list[Path]:
    """Write the report of one model or of several on the same clips; see `write_sections`."""
    title, headline = heading([result.clips for result in results])
    return write_sections(folder, title, headline, sections(results), text.as_json(results))


def write_few_shot(folder: Path, report: FewShotReport) -> list[Path]:
    """Write the report of an encoder as `few_shot.html` and so on; see `write_sections`."""
    name, stream = report.encoder.name, report.stream
    best = {}
    for result in report.results:  # those with the most recordings
        who = "the same speaker" if result.same_speaker else "other speakers"
        for share, (accuracy, *_) in result.accuracy.items():
            best[f"{share:.0%} false accepts, {result.unknown}, {who}"] = accuracy, result.shots
    headline = [(f"{what}, {shots} shots", f"{value:.1%}") for what, (value, shots) in best.items()]
    parts = [
        Section(
            "Words from a few recordings",
            f"{text.few_shot_summary(report)}.",
            text.few_shot_rows(report.results),
            {"few_shot": plots.few_shot(report.results, name)},
        ),
        Section(
            "Published",
            "Other encoders, other data, and protocols that differ.",
            text.published_rows(),
        ),
    ]
    if stream:
        summary = f"{text.few_shot_stream_summary(stream)}."
        parts.append(Section("In a stream", summary, text.few_shot_stream_rows(stream)))
    title = f"{name}: words from a few recordings"
    return write_sections(folder, title, headline, parts, report.to_dict(), "few_shot")


def write_sections(
    folder: Path,
    title: str,
    headline: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    numbers: Mapping[str, Any],
    name: str = "report",
) -> list[Path]:
    """Write `report.html`, `report.md`, `report.json` and each picture as PNG.

    Args:
        folder: where; it is made.
        title: of the whole.
        headline: names and values of the figures that stand first.
        sections: of the page, in order.
        numbers: for `report.json`.
        name: of the files, in place of `report`.

    Returns:
        The files.

    Raises:
        OSError: if one cannot be written; then none is.
    """
    pictures = {
        picture: plots.png(figure)
        for section in sections
        for picture, figure in section.pictures.items()
    }
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        headline=headline,
        sections=sections,
        pictures={
            picture: f"data:image/png;base64,{base64.b64encode(content).decode()}"
            for picture, content in pictures.items()
        },
        numeric=numeric,
    )
    texts = {
        "html": page,
        "md": _markdown(title, headline, sections),
        "json": json.dumps(numbers, indent=2),
    }
    files = {folder / f"{picture}.png": content for picture, content in pictures.items()}
    for ending, written in texts.items():
        # A file's name need not be UTF-8.
        files[folder / f"{name}.{ending}"] = f"{written}\n".encode(errors="surrogateescape")
    write_files(files)
    return list(files)


def heading(results: Sequence[ClipResult]) -> tuple[str, list[tuple[str, str]]]:
    """Title and headline for the results of one model or of several."""
    first, (low, high) = results[0], results[0].interval
    if len(results) > 1:  # a table of them comes first
        models = f"{len(results)} models, {first.protocol} {first.split}, {first.clips:,} clips"
        return models, []
    names = "on words and unknown", "on silence"
    return first.title, [
        (f"accuracy, 95 % interval {low:.2%} to {high:.2%}", f"{first.accuracy:.2%}"),
        *(
            (name, f"{share:.2%}")
            for name, share in zip(names, first.silence_apart or (), strict=False)
        ),
        ("mean over classes", f"{first.mean_accuracy:.2%}"),
        ("macro F1", f"{first.macro_f1:.2%}"),
        ("calibration error", f"{first.calibration_error:.2%}"),
        ("clips", f"{first.clips:,}"),
    ]


def sections(results: Sequence[ModelResult]) -> list[Section]:
    """All that a report shows below its headline."""
    clips = [result.clips for result in results]
    several = len(results) > 1
    parts = _comparison(clips) if several else []
    for number, result in enumerate(results, 1):
        name = result.clips.model.name if result.clips.model else ""
        # Behind the names of pictures, and behind titles, where there are several models.
        suffix, of = (f"-{number}", f": {name}") if several else ("", "")
        parts += _of_clips(result.clips, suffix, of)
        if result.stream:
            parts += _of_stream(result.stream, name, suffix, of)
        parts += _of_backgrounds(result, name, suffix, of)
        if result.conditions is not None:
            noise = {f"noise{suffix}": plots.noise(result.conditions, name)}
            rows = text.condition_rows(result.conditions)
            parts.append(Section(f"Under hard conditions{of}", "", rows, noise))
    paper = text.paper_rows(clips)
    return [*parts, Section("For a paper", code=[markdown(paper), latex(paper)])]


def _comparison(results: Sequence[ClipResult]) -> list[Section]:
    """Several models on the same clips."""
    meaning = (
        "McNemar's exact test: p is the chance of such a difference or a larger one between models "
        "that are equally good."
    )
    differences = text.difference_rows(text.mcnemar_tests(results))
    return [
        Section("Models", rows=text.comparison_rows(results)),
        Section("Differences", meaning, rows=differences),
    ]


def _of_clips(result: ClipResult, suffix: str, of: str) -> list[Section]:
    """Each word, the calibration and the worst mistakes."""
    mistakes = result.mistakes
    rows = [
        [mistake.label, mistake.answer, f"{mistake.score:.2f}", mistake.name]
        for mistake in mistakes[:WORST]
    ]
    head = ["spoken", "answered", "probability", "clip"]
    confusion = plots.confusion(result, f"{result.title}: {result.accuracy:.1%}")
    return [
        Section(
            f"Words{of}", rows=text.label_rows(result), pictures={f"confusion{suffix}": confusion}
        ),
        Section(
            f"Calibration{of}",
            "Is an answer right as often as its probability tells? Where the dots lie under the "
            "diagonal, the model is too sure of itself.",
            pictures={f"reliability{suffix}": plots.reliability(result, result.title)},
        ),
        Section(
            f"Worst mistakes{of}",
            f"The most probable of {len(mistakes):,} wrong answers."
            if mistakes
            else "No clip was answered wrongly.",
            rows=[head, *rows] if rows else [],
        ),
    ]


def _of_stream(result: StreamResult, name: str, suffix: str, of: str) -> list[Section]:
    """The clips in one stream, the words found there, and false alarms where no word is."""
    picture = {f"detection_errors{suffix}": plots.detection_errors(result.spotting, name)}
    words = f"{text.spotting_summary(result.spotting)}; {text.close_summary(result.close)}."
    return [
        Section(
            f"All clips in one stream{of}",
            f"{text.summary(result.clips)}.",
            text.label_rows(result.clips),
        ),
        Section(f"Words in a stream{of}", words, text.spotting_rows(result.spotting), picture),
        Section(f"Where no word is{of}", rows=text.alone_rows(result.false_alarms_alone)),
    ]


def _of_backgrounds(result: ModelResult, name: str, suffix: str, of: str) -> list[Section]:
    """False alarms in talk and in sounds; beside the misses, where those were measured."""
    backgrounds = {
        kind: background
        for kind, background in (("talk", result.talk), ("sounds", result.sounds))
        if background
    }
    parts = [
        Section(
            f"{kind.capitalize()}{of}",
            f"{text.background_summary(background, kind)}.",
            text.background_rows(background),
        )
        for kind, background in backgrounds.items()
    ]
    if result.stream and backgrounds:
        curves = {kind: background.curve for kind, background in backgrounds.items()}
        picture = plots.false_alarms(result.stream.spotting, curves, name)
        meaning = (
            "Each dot is a threshold: the words of the joined clips that it misses, and its false "
            "alarms in recordings that are not meant for the model."
        )
        title = f"Misses against false alarms in use{of}"
        parts.append(Section(title, meaning, pictures={f"false_alarms{suffix}": picture}))
    return parts


def _markdown(title: str, headline: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    parts = [f"# {title}", "\n".join(f"- {name}: {value}" for name, value in headline)]
    for section in sections:
        table = markdown(section.rows) if section.rows else ""
        parts += [f"## {section.title}", section.text, table]
        parts += [f"![{section.title}]({name}.png)" for name in section.pictures]
        parts += [f"```\n{code}\n```" for code in section.code]
    return "\n\n".join(filter(None, parts))

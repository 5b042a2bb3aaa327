"""Words with times as text: subtitles, label tracks, Praat; and a label track read back.

In: detections, in the order of their times. Out: text, a piece a word where a format allows it, so
that each can be printed as soon as it is sure. In formats whose players or editors need it, times
never overlap. It knows nothing of audio, models or files.
"""

import html
import json
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechrnn.detection import Detection

FORMATS = ("tsv", "json", "jsonl", "srt", "vtt", "audacity", "textgrid")
AT_THE_END = ("json", "textgrid")  # they hold all recordings, or say first how long one is
OF_ONE_RECORDING = ("srt", "vtt", "audacity", "textgrid")  # they have no place for its name


def lines(form: str, words: "Iterable[Detection]", path: str, named: bool = False) -> Iterator[str]:
    """Text of each word as soon as it comes, without the line feed that ends it.

    Args:
        form: one of `FORMATS`; those of `AT_THE_END` have no lines.
        words: of one recording.
        path: of the recording, for jsonl.
        named: put the path before each line of tsv too.
    """
    if form == "vtt":
        yield "WEBVTT\n"
    for number, (start, end, word) in enumerate(_in_turn(words), 1):
        match form:
            case "tsv":
                cells = (f"{word.start:.2f}", f"{word.end:.2f}", word.label, f"{word.score:.2f}")
                yield "\t".join((path, *cells) if named else cells)
            case "jsonl":
                yield json.dumps(entry(word, path))
            case "srt":
                yield f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{word.label}\n"
            case "vtt":
                label = html.escape(word.label, quote=False)
                yield f"{_clock(start, '.')} --> {_clock(end, '.')}\n{label}\n"
            case "audacity":
                yield f"{word.start:.6f}\t{word.end:.6f}\t{word.label}"


def entry(word: "Detection", path: str) -> dict[str, Any]:
    """A word as JSON holds it."""
    return {
        "path": path,
        "start": word.start,
        "end": word.end,
        "label": word.label,
        "score": word.score,
    }


def textgrid(words: "Iterable[Detection]", seconds: float) -> str:
    """Text of a TextGrid of Praat, in its long form: a tier of words, empty intervals between.

    Args:
        words: of one recording.
        seconds: its length; a word that ends later makes it longer.
    """
    intervals: list[tuple[int, int, str]] = []
    free = 0  # ms
    for start, end, word in _in_turn(words):
        if start > free:
            intervals.append((free, start, ""))
        intervals.append((start, end, word.label))
        free = end
    if (whole := max(free, round(1000 * seconds), 1)) > free or not intervals:
        intervals.append((free, whole, ""))
    rows = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {whole / 1000}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "words"',
        "        xmin = 0",
        f"        xmax = {whole / 1000}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start, end, label) in enumerate(intervals, 1):
        quoted = label.replace('"', '""')
        rows += [
            f"        intervals [{number}]:",
            f"            xmin = {start / 1000}",
            f"            xmax = {end / 1000}",
            f'            text = "{quoted}"',
        ]
    return "\n".join(rows)


def read_labels(text: str, name: str) -> list[tuple[float, float, str]]:
    """Start and end (s) and label of each line of a label track of Audacity.

    Args:
        text: of the file.
        name: of the file, for errors.

    Raises:
        ValueError: if a line is none of such a file.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("\\"):  # below a label may stand its frequencies
            continue
        start, end, label = (*line.split("\t", 2), "", "")[:3]
        try:
            times = float(start), float(end)
        except ValueError:
            times = math.nan, math.nan
        if not 0 <= times[0] <= times[1] < math.inf:
            raise ValueError(
                f"{name}, line {number}: {line!r}; expected start TAB end TAB label, in seconds, "
                "as Audacity exports labels"
            )
        found.append((*times, label.strip()))
    return found


def _in_turn(words: "Iterable[Detection]") -> "Iterator[tuple[int, int, Detection]]":
    """Start and end (ms) of each word, none empty or before the last one's end; and the word."""
    free = 0
    for word in words:
        start = max(free, round(1000 * word.start))
        free = max(start + 1, round(1000 * word.end))
        yield start, free, word


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"

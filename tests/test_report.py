"""The report page: it needs nothing else, and every file of the folder holds the same numbers."""

import base64
import errno
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_spotting import posteriors_of, word

from speechrnn.evaluation.clips import ClipResult, MeasuredModel
from speechrnn.evaluation.report import Section, write_report, write_sections
from speechrnn.evaluation.results import ModelResult, StreamResult
from speechrnn.evaluation.spotting import ALL, evaluate_spotting
from speechrnn.evaluation.text import as_json

HEADLINE = [("accuracy", "97.36%"), ("clips", "3,676")]
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


def result_of(name: str = "runs/my_words", seed: int = 0) -> ModelResult:
    """300 clips with labels, names and a model's name that are long or need escaping."""
    random = np.random.default_rng(seed)
    labels = ("<b>", "yes", "a_word_that_is_so_long_that_no_column_was_made_for_it")
    truth = np.arange(300) % 3
    answers = np.where(random.random(300) < 0.8, truth, random.integers(0, 3, 300))
    names = tuple(
        f"{labels[place]}/a speaker & a file with a rather long name {number}.wav"
        for number, place in enumerate(truth)
    )
    scores = random.uniform(0.3, 1, 300)
    about = MeasuredModel(name, 11_760, 2_456_789, 64 * "a")
    return ModelResult(
        ClipResult(labels, names, truth, answers, scores, "own", "testing", model=about)
    )


def complete(result: ModelResult) -> ModelResult:
    """The same with a stream and with conditions."""
    truth = [word(10, "yes"), word(20, "no")]
    found = posteriors_of([(10, "yes", 0.9), (15, "no", 0.9)], 2.0)
    spotting = evaluate_spotting(found, truth, {"yes": 0.6, "no": 0.6})
    streamed, close = replace(result.clips, streamed=True), spotting.scores[ALL]
    stream = StreamResult(streamed, spotting, close, {"hiss": 0.5})
    rates = {"as recorded": 0.9, "hiss, 20 dB": 0.8, "hiss, -5 dB": 0.4, "digital zero": 1.0}
    return replace(result, stream=stream, conditions=rates)


def picture(title: str) -> Figure:
    figure = Figure(figsize=(9, 3))
    figure.add_subplot().set_title(title)
    return figure


def written(folder: Path, results: list[ModelResult]) -> str:
    write_report(folder, results)
    return (folder / "report.html").read_text()


class Page(HTMLParser):
    """The tags that are open, and every attribute; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in {"meta", "link", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "results", [[result_of()], [result_of(), result_of("runs/other", 1)]], ids=["one", "two"]
)
def test_page_is_well_formed_and_needs_nothing_else(results: list[ModelResult], tmp_path: Path):
    text = written(tmp_path, results)
    page = Page(text)
    assert not re.search(
        r"https?:|//[a-z]|@import|<script|url\(", re.sub(r'"data:[^"]*"', '""', text)
    )
    for tag, attributes in page.seen:
        for name in {"src", "href", "srcset", "action"} & attributes.keys():
            assert str(attributes[name]).startswith("data:"), (tag, attributes)
    shown = [
        str(attributes["src"]).partition("base64,")[2]
        for tag, attributes in page.seen
        if tag == "img"
    ]
    assert {base64.b64decode(data) for data in shown} == {
        path.read_bytes() for path in tmp_path.glob("*.png")
    }
    assert len(shown) == 2 * len(results)
    assert all(attributes["alt"] for tag, attributes in page.seen if tag == "img")


def test_page_shows_what_was_measured_and_escapes_it(tmp_path: Path):
    result = result_of()
    text, one = written(tmp_path, [result]), result.clips
    assert (
        f"<dd>{one.accuracy:.2%}</dd>" in text
        and "<b>" not in text
        and "<td>&lt;b&gt;</td>" in text
    )
    worst = one.mistakes[0]
    assert f"<td>{worst.name}</td>".replace("&", "&amp;").replace("<b>", "&lt;b&gt;") in text
    assert r"runs/my\_words &amp; own" in text and "| runs/my_words | own |" in text
    assert text.count("<tr>") == 1 + 3 + 1 + min(20, len(one.mistakes))


def test_sections_of_a_caller_are_in_every_file(tmp_path: Path):
    rows = [["word", "misses"], ["yes", "1"], ["no", "12"]]
    sections = [
        Section(
            "Streams", "All of it.", rows, {"misses": picture("one"), "alarms": picture("two")}
        ),
        Section("To copy", code=["a < b"]),
    ]
    files = write_sections(tmp_path / "new" / "folder", "a title", HEADLINE, sections, {"hours": 2})
    assert {path.name for path in files} == set(os.listdir(tmp_path / "new" / "folder"))
    assert {path.name for path in files} == {
        "misses.png",
        "alarms.png",
        "report.html",
        "report.md",
        "report.json",
    }
    assert json.loads((tmp_path / "new/folder/report.json").read_text()) == {"hours": 2}
    assert (tmp_path / "new/folder/report.md").read_text() == (
        "# a title\n\n- accuracy: 97.36%\n- clips: 3,676\n\n## Streams\n\nAll of it.\n\n"
        "| word | misses |\n|---|--:|\n| yes | 1 |\n| no | 12 |\n\n"
        "![Streams](misses.png)\n\n![Streams](alarms.png)\n\n## To copy\n\n```\na < b\n```\n"
    )
    page = (tmp_path / "new/folder/report.html").read_text()
    assert (
        '<td class="number">12</td>' in page and "<td>yes</td>" in page and "a &lt; b</pre>" in page
    )
    assert page.count("data:image/png;base64,") == 2


def test_report_that_cannot_be_written_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sections = [Section("Streams", pictures={"misses": picture("one")})]
    write_sections(tmp_path, "old", HEADLINE, sections, {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def breaks(path: Path, data: bytes) -> int:
        if "json" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", breaks)
    with pytest.raises(OSError, match="No space left") as caught:
        write_sections(tmp_path, "new", HEADLINE, sections, {})
    assert caught.value.filename == str(tmp_path / "report.json")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_model_without_a_mistake_gets_a_page_that_tells_so(tmp_path: Path):
    clips = result_of().clips
    perfect = ModelResult(replace(clips, answers=clips.truth))
    assert "No clip was answered wrongly." in written(tmp_path, [perfect])


def test_page_shows_the_stream_and_the_conditions_where_they_were_measured(tmp_path: Path):
    results = [complete(result_of())]
    text = written(tmp_path, results)
    Page(text)
    titles = re.findall("<h2>(.*)</h2>", text)
    assert titles == [
        "Words",
        "Calibration",
        "Worst mistakes",
        "All clips in one stream",
        "Words in a stream",
        "Where no word is",
        "Under hard conditions",
        "For a paper",
    ]
    names = {"confusion.png", "reliability.png", "detection_errors.png", "noise.png"}
    assert {path.name for path in tmp_path.glob("*.png")} == names
    assert json.loads((tmp_path / "report.json").read_text()) == as_json(results)
    assert (
        "## Words in a stream\n\nstream of 2.00 h: 1 of 2 words"
        in (tmp_path / "report.md").read_text()
    )


def test_page_of_several_models_compares_them_first_and_numbers_their_pictures(tmp_path: Path):
    results = [complete(result_of()), result_of("runs/other", 1)]
    text = written(tmp_path, results)
    titles = re.findall("<h2>(.*)</h2>", text)
    assert titles[:3] == ["Models", "Differences", "Words: runs/my_words"]
    assert titles[-2:] == ["Worst mistakes: runs/other", "For a paper"]
    names = {f"{name}-{i}.png" for name in ("confusion", "reliability") for i in (1, 2)}
    names |= {"detection_errors-1.png", "noise-1.png"}
    assert {path.name for path in tmp_path.glob("*.png")} == names
    assert json.loads((tmp_path / "report.json").read_text()) == as_json(results)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_never_wider_than_the_window(width: int, tmp_path: Path):
    """Measured in a frame of that width, for Chromium's own window has a least width."""
    page = written(
        tmp_path, [complete(result_of(60 * "runs_of_a_long_name/")), result_of("runs/other", 1)]
    )
    root = "document.documentElement"
    sizes = f"`${{innerWidth}} ${{{root}.scrollWidth - {root}.clientWidth}}`"
    measure = f'<script>onload = () => parent.postMessage({sizes}, "*")</script></body>'
    (tmp_path / "copy.html").write_text(page.replace("</body>", measure))
    (tmp_path / "frame.html").write_text(
        "<script>onmessage = message => document.title = `measured ${message.data}`</script>"
        f'<iframe src="copy.html" style="border: 0; width: {width}px; height: 800px"></iframe>'
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [str(CHROMIUM), *options, f"file://{tmp_path / 'frame.html'}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    measured = re.search(r"<title>measured (\d+) (\d+)</title>", done.stdout)
    assert measured, done.stderr
    assert (int(measured[1]), int(measured[2])) == (width, 0)

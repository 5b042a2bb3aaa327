"""What `speechrnn.report` promises: one page that needs nothing else, and the same numbers in every file of the folder."""

import base64
import errno
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from speechrnn import report
from speechrnn.evaluation import About, Report
from speechrnn.report import Section

HEADLINE = [("accuracy", "97.36%"), ("clips", "3,676")]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def clips_report(name: str = "runs/my_words", seed: int = 0) -> Report:
    """A report on 300 clips with labels, names and a model's name that are long or need escaping."""
    random = np.random.default_rng(seed)
    labels = ("<b>", "yes", "a_word_that_is_so_long_that_no_column_was_made_for_it")
    truth = np.arange(300) % 3
    answers = np.where(random.random(300) < 0.8, truth, random.integers(0, 3, 300))
    names = tuple(
        f"{labels[place]}/a speaker & a file with a rather long name {number}.wav" for number, place in enumerate(truth)
    )
    about = About(name, 11_760, 2_456_789, 64 * "a")
    return Report(labels, names, truth, answers, random.uniform(0.3, 1, 300), "own", "testing", model=about)


def picture(title: str) -> Figure:
    figure = Figure(figsize=(9, 3))
    figure.add_subplot().set_title(title)
    return figure


def written(folder: Path, reports: list[Report]) -> str:
    several = len(reports) > 1
    sections = report.comparison(reports) if several else []
    for number, one in enumerate(reports, 1):
        sections += report.of_clips(one, f"-{number}" if several else "")
    report.write(folder, *report.heading(reports), [*sections, report.of_paper(reports)], {})
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


@pytest.mark.parametrize("reports", [[clips_report()], [clips_report(), clips_report("runs/other", 1)]], ids=["one", "two"])
def test_page_is_well_formed_and_needs_nothing_else(reports: list[Report], tmp_path: Path) -> None:
    text = written(tmp_path, reports)
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]|@import|<script|url\(", re.sub(r'"data:[^"]*"', '""', text))
    for tag, attributes in page.seen:
        for name in {"src", "href", "srcset", "action"} & attributes.keys():
            assert str(attributes[name]).startswith("data:"), (tag, attributes)
    shown = [str(attributes["src"]).partition("base64,")[2] for tag, attributes in page.seen if tag == "img"]
    assert {base64.b64decode(data) for data in shown} == {path.read_bytes() for path in tmp_path.glob("*.png")}
    assert len(shown) == 2 * len(reports)
    assert all(attributes["alt"] for tag, attributes in page.seen if tag == "img")


def test_page_shows_what_was_measured_and_escapes_it(tmp_path: Path) -> None:
    one = clips_report()
    text = written(tmp_path, [one])
    assert f"<dd>{one.accuracy:.2%}</dd>" in text and "<b>" not in text and "<td>&lt;b&gt;</td>" in text
    worst = one.mistakes[0]
    assert f"<td>{worst.name}</td>".replace("&", "&amp;").replace("<b>", "&lt;b&gt;") in text
    assert r"runs/my\_words &amp; own" in text and "| runs/my_words | own |" in text
    assert text.count("<tr>") == 1 + 3 + 1 + min(20, len(one.mistakes))


def test_sections_of_a_caller_are_in_every_file(tmp_path: Path) -> None:
    rows = [["word", "misses"], ["yes", "1"], ["no", "12"]]
    sections = [
        Section("Streams", "Heard whole.", rows, {"misses": picture("one"), "alarms": picture("two")}),
        Section("To copy", code=["a < b"]),
    ]
    files = report.write(tmp_path / "new" / "folder", "a title", HEADLINE, sections, {"hours": 2})
    assert {path.name for path in files} == set(os.listdir(tmp_path / "new" / "folder"))
    assert {path.name for path in files} == {"misses.png", "alarms.png", "report.html", "report.md", "report.json"}
    assert json.loads((tmp_path / "new/folder/report.json").read_text()) == {"hours": 2}
    assert (tmp_path / "new/folder/report.md").read_text() == (
        "# a title\n\n- accuracy: 97.36%\n- clips: 3,676\n\n## Streams\n\nHeard whole.\n\n"
        "| word | misses |\n|---|--:|\n| yes | 1 |\n| no | 12 |\n\n"
        "![Streams](misses.png)\n\n![Streams](alarms.png)\n\n## To copy\n\n```\na < b\n```\n"
    )
    page = (tmp_path / "new/folder/report.html").read_text()
    assert '<td class="number">12</td>' in page and "<td>yes</td>" in page and "a &lt; b</pre>" in page
    assert page.count("data:image/png;base64,") == 2


def test_report_that_cannot_be_written_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = [Section("Streams", pictures={"misses": picture("one")})]
    report.write(tmp_path, "old", HEADLINE, sections, {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def breaks(path: Path, data: bytes) -> int:
        if "json" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", breaks)
    with pytest.raises(OSError, match="No space left") as caught:
        report.write(tmp_path, "new", HEADLINE, sections, {})
    assert caught.value.filename == str(tmp_path / "report.json")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_model_without_a_mistake_gets_a_page_that_says_so(tmp_path: Path) -> None:
    one = clips_report()
    perfect = Report(one.labels, one.names, one.truth, one.truth, one.scores, "own", "testing", model=one.model)
    assert "No clip was heard as what it is not." in written(tmp_path, [perfect])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_never_wider_than_the_window(width: int, tmp_path: Path) -> None:
    """Measured in a frame of that width, for Chromium's own window has a least width."""
    page = written(tmp_path, [clips_report(60 * "runs_of_a_long_name/"), clips_report("runs/other", 1)])
    sizes = "`${innerWidth} ${document.documentElement.scrollWidth - document.documentElement.clientWidth}`"
    measure = f'<script>onload = () => parent.postMessage({sizes}, "*")</script></body>'
    (tmp_path / "copy.html").write_text(page.replace("</body>", measure))
    (tmp_path / "frame.html").write_text(
        "<script>onmessage = message => document.title = `measured ${message.data}`</script>"
        f'<iframe src="copy.html" style="border: 0; width: {width}px; height: 800px"></iframe>'
    )
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=5000", "--dump-dom", f"file://{tmp_path / 'frame.html'}"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    measured = re.search(r"<title>measured (\d+) (\d+)</title>", done.stdout)
    assert measured, done.stderr
    assert (int(measured[1]), int(measured[2])) == (width, 0)

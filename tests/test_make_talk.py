"""`recipes/make_talk.py`: what it lets a synthesiser say, and what it joins; nothing is fetched."""

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from recipe_scripts import FOLDER, load_recipe
from test_synthesis import Humming, understand_all

from speechrnn.synthesis.rendering import WORD

script = load_recipe("make_talk")
debian = load_recipe("debian")
# As in WordNet 3.0, but for the pointers.
DATA = """\
  1 This software and database is being provided to you
00001740 29 v 01 breathe 0 000 | draw air; "I can breathe better there"; "the patient is respiring"
00002325 29 v 01 rest 0 000 | be still; "sit down and rest awhile", "a rest"; "Won't they rest now?"
00002326 29 v 01 ask 0 000 | put a question; "they asked N. N. about it -- twice"
"""
LISTS = ("words_alone", "words", "words_more")
SENTENCES = ["I can breathe better there.", "The patient is respiring.", "Won't they rest now?"]


@pytest.fixture
def wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Debian that has no package but WordNet."""
    monkeypatch.setattr(debian.shutil, "which", lambda tool: tool)

    def run(command, cwd=None, **_):
        if "download" in command:
            assert command[-1] == "wordnet-base"
            (cwd / "a.deb").touch()
        elif "--extract" in command:
            licence = Path(command[-1], "usr/share/doc/wordnet-base/copyright")
            licence.parent.mkdir(parents=True)
            licence.write_text("WordNet 3.0 Copyright 2006 by Princeton University.\n")
            (licence.parent / "data.verb").write_text(DATA)
        return subprocess.CompletedProcess(command, 0, "1.0\n", "")

    monkeypatch.setattr(debian.subprocess, "run", run)


class Agreeable:
    """In the place of the judge: takes everything for what it should be."""

    def __init__(self, *_: object) -> None: ...

    understands = staticmethod(understand_all)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wordnet: None):
    """Types the command; the synthesiser hums, and stops where it is told to."""
    lists = {
        "words_alone": ["a", "b", "x-ray"],
        "words": ["town", "found", "of"],
        "words_more": ["hat"],
    }
    for name, words in lists.items():
        (tmp_path / f"{name}.txt").write_text(" ".join(words) + "\n")
    monkeypatch.setattr(script, "__file__", str(tmp_path / "make_talk.py"))
    monkeypatch.setattr(script, "Judge", Agreeable)
    monkeypatch.setattr(script, "CLIPS_A_RECORDING", 4)
    monkeypatch.setattr(
        sys, "argv", ["make_talk.py", str(tmp_path / "talk"), "--model", str(tmp_path)]
    )

    def run(stop_at: int = -1) -> int:
        monkeypatch.setattr(script, "Kokoro", lambda folder: Humming(stop_at))
        return script.main()

    return run


def test_sentences_are_examples_without_a_command(tmp_path: Path) -> None:
    (tmp_path / "data.verb").write_text(DATA)
    assert sorted(script.examples(tmp_path)) == SENTENCES


@pytest.mark.parametrize("name", LISTS)
def test_a_list_holds_words_once_and_no_command(name: str) -> None:
    words = (FOLDER / f"{name}.txt").read_text("utf-8").split()
    assert len(words) == len(set(words))
    assert [word for word in words if not WORD.fullmatch(word)] == []
    assert [word for word in words if script.has_command(word, "en")] == []


def test_no_word_is_in_two_lists() -> None:
    lists = [(FOLDER / f"{name}.txt").read_text("utf-8").split() for name in LISTS]
    assert len(set().union(*lists)) == sum(map(len, lists))


def test_what_the_model_took_for_commands_is_said_alone() -> None:
    words = (FOLDER / "words_alone.txt").read_text("utf-8").split()
    assert set("abcdefghijklmnopqrstuvwxyz") < set(words)
    assert {"pound", "dot", "dial", "star", "hash", "key", "tone"} < set(words)


def test_clips_are_joined_and_the_table_says_what_is_said_in_them(
    tmp_path: Path, make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make() == 0
    rendered = tmp_path / "talk/training/rendered"
    seconds = {path.stem: soundfile.info(path).duration for path in rendered.glob("*.flac")}
    alone = [name for name in sorted(seconds) if name.startswith("words_alone")]
    # Six clips of three words are four recordings of four or five; one clip of three words is one.
    assert [seconds[name] for name in alone] == [5, 5, 4, 4]
    assert seconds["words-000"] == 3
    assert seconds["sentences-000"] > 3
    assert len(seconds) == 6
    rows = [row.split("\t") for row in (tmp_path / "talk/talk.tsv").read_text().splitlines()[1:]]
    texts = {row[1]: row[8] for row in rows}
    assert len(texts) == len(seconds)
    assert sorted(texts["training/rendered/words-000.flac"].split()) == ["found", "of", "town"]
    said = " ".join(text for file, text in texts.items() if "alone" in file).split()
    assert (said.count("a"), said.count("x-ray")) == (6, 6)
    assert "Princeton" in (rendered / "copyright").read_text()
    assert "rendered: 6 recordings" in capsys.readouterr().err
    assert make() == 0
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize("stop_at", [1, 4, 5])
def test_a_stopped_run_trains_nobody_and_goes_on_to_the_same_recordings(
    tmp_path: Path, make, stop_at: int
) -> None:
    talk, whole = tmp_path / "talk", tmp_path / "whole"
    assert make() == 0
    talk.rename(whole)
    with pytest.raises(KeyboardInterrupt):
        make(stop_at)
    assert not (talk / "training").exists()
    assert make() == 0
    for path in sorted((whole / "training/rendered").iterdir()):
        assert (talk / "training/rendered" / path.name).read_bytes() == path.read_bytes()


def test_more_is_other_words_and_other_sentences(
    tmp_path: Path, make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SHIPPED", script.SHIPPED._replace(sentences=slice(1)))
    monkeypatch.setattr(script, "MORE", script.MORE._replace(sentences=slice(1, 3)))
    assert make() == 0
    other = [sys.argv[0], str(tmp_path / "more"), *sys.argv[2:], "--more"]
    monkeypatch.setattr(sys, "argv", other)
    assert make() == 0
    shipped, more = (
        (tmp_path / folder / "wordnet/sentences.txt").read_text().splitlines()
        for folder in ("talk/rendered", "more/rendered_more")
    )
    assert (len(shipped), len(more)) == (1, 2)
    assert sorted([*shipped, *more]) == SENTENCES
    joined = (tmp_path / "more/training/rendered_more").glob("*.flac")
    assert sorted(path.stem for path in joined) == ["sentences-000", "words_more-000"]


def test_words_that_are_not_understood_are_named_and_the_others_are_joined(
    tmp_path: Path, make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Agreeable, "understands", staticmethod(lambda wave, word: word != "found"))
    assert make() == 0
    assert "words: not understood often enough: found\n" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "talk/training/rendered/words-000.flac").duration == 2


def test_a_synthesiser_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda tool: tool)
    command = ["make_talk.py", str(tmp_path / "talk"), "--model", str(tmp_path / "kokoro")]
    monkeypatch.setattr(sys, "argv", command)
    assert script.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("make_talk.py: ") and error.count("\n") == 1
    assert not (tmp_path / "talk").exists()

"""How `recipes/get_talk.py` finds, filters and joins spoken lines; nothing is downloaded."""

import struct
import subprocess
import sys
import zlib
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
from recipe_scripts import load_recipe

from speechrnn.evaluation.background import read_background

script = load_recipe("get_talk")
debian = load_recipe("debian")
RATE = script.SAMPLE_RATE


def tone(seconds, frequency_hz=440.0, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def line(name, seconds=3.0, text=None, voice="a", language="en", frequency_hz=None):
    pitch = frequency_hz or 200 + zlib.crc32((name + voice).encode()) % 3000
    return script.Line(name, language, voice, lambda: (tone(seconds, pitch), RATE), text)


def heard(*lines, hours=1.0):
    return script.read_lines(iter(lines), hours)


def test_only_the_adventure_is_in_both_splits_and_nothing_is_of_the_unseen_game():
    names = [source.package for source in script.SOURCES]
    assert {name for name in names if names.count(name) > 1} == {script.QUEEN}
    parts = [
        source.lines.keywords["conversations"]
        for source in script.SOURCES
        if source.package == script.QUEEN
    ]
    assert not set(parts[0]) & set(parts[1])
    assert not any("wesnoth" in name for name in names)
    assert {source.split for source in script.SOURCES} == {"training", "validation"}


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("turn left here", True),
        ("non-stop", True),
        ("i know that", True),
        ("a golden noise upon the offer", False),
        ("", False),
    ],
)
def test_a_command_is_a_whole_word_or_what_sounds_like_one(text, held):
    assert script.has_command(text, "en") is held


def test_what_sounds_like_a_command_depends_on_the_language():
    assert script.has_command("de een of de ander", "nl")  # said as "off"
    assert not script.has_command("one of an other", "en")


def test_texts_become_small_words():
    assert script.words_of("¡Hola! It's  a NON-STOP show, č. 5") == "hola it's a non-stop show č 5"


def test_lines_are_joined_to_twenty_seconds_with_quiet_between_and_voices_stay_apart():
    lines = [line(f"{i:02}", text=f"word{i}") for i in range(16)]
    lines += [line(f"{i:02}", voice="b", text="other") for i in range(2)]
    recordings = list(script.join(heard(*lines)))
    assert [len(said) for _, said, _ in recordings] == [6, 6, 4, 2]
    for _, said, wave in recordings:
        assert len({one.line.voice for one in said}) == 1
        quiet = len(wave) / RATE - 3.0 * len(said)
        assert 0.3 * (len(said) - 1) <= quiet <= 1.5 * (len(said) - 1)
        between = wave[3 * RATE : 3 * RATE + round(0.3 * RATE)]
        assert 0 < np.abs(between).max() < 0.01


def test_the_same_lines_give_the_same_recordings():
    lines = [line(f"{i:02}") for i in range(9)]
    first, second = (list(script.join(heard(*order))) for order in (lines, lines[::-1]))
    assert [name for name, _, _ in first] == [name for name, _, _ in second]
    assert all(np.array_equal(a[2], b[2]) for a, b in zip(first, second, strict=True))


def test_copies_silence_and_what_is_no_longer_than_a_click_are_left_out():
    silent = script.Line("s", "en", "a", lambda: (np.zeros(RATE, np.float32), RATE), None)
    lines = [line("x", frequency_hz=300), line("y", frequency_hz=300), line("z", 0.1), silent]
    assert [one.line.name for one in heard(*lines)] == ["x"]


def test_a_prompt_without_a_sample_is_left_out(monkeypatch):
    """As one of the Russian package; PyAV gives no frame of it."""
    empty = SimpleNamespace(decode=lambda audio: iter(()))
    av = SimpleNamespace(open=lambda path, format: nullcontext(empty))
    monkeypatch.setitem(sys.modules, "av", av)
    prompt = script.Line("p", "ru", "a", lambda: script.read_g722(Path("p.g722")), None)
    assert [one.line.name for one in heard(prompt, line("x"))] == ["x"]


def test_a_package_gives_no_more_than_its_hours():
    kept = heard(*(line(f"{i:02}") for i in range(20)), hours=30 / 3600)
    assert 30 < sum(len(one.wave) for one in kept) / RATE <= 36


def test_of_a_package_with_more_hours_lines_of_all_its_voices_are_taken():
    kept = heard(*(line(f"{i:02}", voice="abcd"[i // 20]) for i in range(80)), hours=60 / 3600)
    assert {one.line.voice for one in kept} == set("abcd")


def test_descriptions_of_pictures_have_their_language_and_text(tmp_path):
    for name in ("wombat_desc.wav", "wombat_desc_fr.wav", "wombat.wav"):
        soundfile.write(tmp_path / name, tone(1.0), RATE)
        (tmp_path / name).rename((tmp_path / name).with_suffix(".ogg"))
    (tmp_path / "wombat.txt").write_text("A wombat.\nfr.utf8=Un wombat.\n", "utf-8")
    found = {(one.language, one.text) for one in script.stamps(tmp_path)}
    assert found == {("en", "A wombat."), ("fr", "Un wombat.")}


def test_dialogues_have_the_text_that_the_script_gives_them(tmp_path):
    (tmp_path / "usr/script/city").mkdir(parents=True)
    (tmp_path / "usr/script/city/dialogs_nl.lua").write_text(
        'dialogId("vit-m-a", "font", "Hello.")\ndialogStr("Hallo \\"jij\\".")\n', "utf-8"
    )
    (tmp_path / "usr/sound/city/nl").mkdir(parents=True)
    (tmp_path / "usr/sound/city/nl/vit-m-a.ogg").touch()
    (found,) = script.fillets(tmp_path)
    assert (found.language, found.voice, found.text) == ("nl", "m", 'Hallo \\"jij\\".')


def test_dialogues_in_the_archive_of_the_adventure_have_their_speaker(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(1.0, rate=11_025), 11_025)
    mp3 = (tmp_path / "a.mp3").read_bytes()
    names = (b"020006J1.SB", b"ROCKPAKS.SB")
    begin = 15 + 21 * len(names)
    table = b"".join(struct.pack(">12sBII", name, 1, begin, len(mp3)) for name in names)
    (tmp_path / "queen.1c").write_bytes(b"QTBLCEM10\0\0\0\x01" + struct.pack(">H", 2) + table + mp3)
    (found,) = script.amazon_queen(tmp_path, range(43))
    assert not list(script.amazon_queen(tmp_path, range(43, 100))), "of conversation 2"
    assert (found.voice, found.audio()[1]) == ("02 J", 11_025)
    (tmp_path / "queen.1c").write_bytes(b"QTBLCEM10\0\0\0\x02" + bytes(40))
    with pytest.raises(RuntimeError, match="is not the archive that is expected"):
        list(script.amazon_queen(tmp_path, range(43)))


class FakeWhisper:
    """Hears the same words in whatever it is given: text, begin and end, s."""

    words: tuple = ()

    def __init__(self, *_, **__):
        pass

    def transcribe(self, wave, **_):
        names = ("word", "start", "end")
        words = [SimpleNamespace(**dict(zip(names, word, strict=True))) for word in self.words]
        return iter([SimpleNamespace(words=words)]), None


@pytest.fixture
def ear(monkeypatch):
    """An ear that hears what a test gives it."""
    module = ModuleType("faster_whisper")
    module.WhisperModel = FakeWhisper
    monkeypatch.setitem(sys.modules, "faster_whisper", module)

    def hears(*words):
        monkeypatch.setattr(FakeWhisper, "words", words)
        return script.Ear(Path())

    return hears


def test_a_word_that_whisper_heard_belongs_to_the_line_in_which_it_is_said(ear):
    # The second line begins after the first and 0.3 s of quiet, at 3.3 s.
    lines = heard(line("1"), line("2"))
    first, second = ear((" Well,", 2.5, 2.9), (" stop!", 3.8, 4.3)).write_down(lines)
    assert first.words == (script.Word("well", 2.5, 2.9),)
    assert (second.text, second.origin) == ("stop", "Whisper")
    assert second.words[0].begin == pytest.approx(0.5)
    assert second.words[0].end == pytest.approx(1.0)


def test_a_command_is_cut_out_with_a_quarter_of_a_second_on_both_sides(ear):
    words = (" Come", 0.5, 1.0), (" in", 2.8, 3.2), (" no,", 3.4, 3.7), (" never", 4.0, 5.0)
    (one,) = ear(*words).write_down(heard(line("a/b.ogg", 8.0)))
    before, after = script.without_commands(one)
    assert np.array_equal(before.wave, one.wave[: round(3.15 * RATE)])
    assert np.array_equal(after.wave, one.wave[round(3.95 * RATE) :])
    assert (before.text, after.text) == ("come", "never"), "words that are whole in a stretch"
    assert before.line.name != after.line.name, "each may begin a recording, which has its name"


def test_stretches_between_two_cuts_stay_from_two_seconds_on(ear):
    words = (" No", 0.0, 0.5), (" no", 2.9, 3.2), (" no", 5.0, 5.3)
    (one,) = ear(*words).write_down(heard(line("1", 7.5)))
    kept = script.without_commands(one)
    # Between the cuts lie 1.9 and 1.3 s, and behind the last 1.95 s.
    assert kept == []
    (one,) = ear(*words).write_down(heard(line("1", 7.55)))
    (kept,) = script.without_commands(one)
    assert len(kept.wave) == 2 * RATE


def test_lines_without_a_command_stay_whole_however_short(ear):
    (one,) = ear((" Melon", 0.1, 0.6)).write_down(heard(line("1", 1.0)))
    assert script.without_commands(one) == [one]


def test_a_line_with_a_command_and_no_times_is_left_out_whole(ear):
    (one,) = ear((" Stop", 0.0, 0.5)).write_down(heard(line("1", text="Stop it", seconds=9.0)))
    assert one.words == (), "the package's text was there, so nobody listened"
    assert script.without_commands(one) == []


def lines_of_a_package(folder):
    yield line("1", text="Nothing else.")
    yield line("2", text="Stop it.")
    yield line("3")


@pytest.fixture
def one_package(monkeypatch):
    """A list of one package in each split, and a machine that downloads nothing."""
    sources = [
        script.Source(f"{split}-voices", split, "CC0", lines_of_a_package)
        for split in ("training", "validation")
    ]
    monkeypatch.setattr(script, "SOURCES", sources)
    monkeypatch.setattr(debian.shutil, "which", lambda tool: tool)

    def run(command, cwd=None, **_):
        if "download" in command:
            (cwd / "a.deb").touch()
        elif "--extract" in command:
            Path(command[-1]).mkdir()
        return subprocess.CompletedProcess(command, 0, "1.0\n", "")

    monkeypatch.setattr(debian.subprocess, "run", run)


def test_training_leaves_out_lines_with_commands_and_evaluation_reads_the_texts(
    tmp_path, one_package, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["get_talk.py", str(tmp_path)])
    assert script.main() == 0
    assert "2 lines in 1 recordings, 1 with commands left out" in capsys.readouterr().err
    texts = {}
    for split in ("training", "validation"):
        talk = read_background(tmp_path / split)
        (texts[split],) = talk.transcripts.values()
    assert texts == {"training": "nothing else", "validation": "nothing else stop it"}
    rows = (tmp_path / "talk.tsv").read_text().splitlines()
    assert rows[1].split("\t")[7] == "package+unknown"
    assert script.main() == 0
    assert capsys.readouterr().err.count("there already") == 2


def test_commands_are_cut_out_of_training_and_stay_in_validation(
    tmp_path, one_package, ear, monkeypatch, capsys
):
    """The third line of the package comes without text: it is all that the ear is given."""
    listener = ear((" Hey", 0.0, 0.4), (" stop", 0.5, 0.7))
    monkeypatch.setattr(script, "Ear", lambda folder: listener)
    for name in script.FILES:
        (tmp_path / name).touch()
    monkeypatch.setattr(
        sys, "argv", ["get_talk.py", str(tmp_path / "talk"), "--ear", str(tmp_path)]
    )
    assert script.main() == 0
    assert "2 lines in 1 recordings, 1 with commands left out, commands cut out of 1\n" in (
        capsys.readouterr().err
    )
    rows = [row.split("\t") for row in (tmp_path / "talk/talk.tsv").read_text().splitlines()[1:]]
    texts = {row[0]: row[8] for row in rows}
    assert texts == {"training": "nothing else", "validation": "nothing else stop it hey stop"}
    seconds = {row[0]: float(row[6]) for row in rows}
    # Three seconds, a pause and what follows the cut, at 0.95 s; or three times three and pauses.
    assert 3 + 0.3 + 2.05 <= seconds["training"] <= 3 + 1.5 + 2.05
    assert seconds["validation"] >= 9.6


def test_a_package_that_is_not_there_leaves_nothing_behind(
    tmp_path, one_package, monkeypatch, capsys
):
    def refuse(command, **_):
        return subprocess.CompletedProcess(command, 100, "", "E: No packages found\n")

    monkeypatch.setattr(debian.subprocess, "run", refuse)
    monkeypatch.setattr(sys, "argv", ["get_talk.py", str(tmp_path)])
    assert script.main() == 1
    assert "training-voices: skipped: apt-get failed: E: No packages" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*-voices*"))


def test_an_ear_that_is_not_there_is_one_line(tmp_path, one_package, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["get_talk.py", str(tmp_path), "--ear", str(tmp_path)])
    assert script.main() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "model.bin: there is no such file" in error

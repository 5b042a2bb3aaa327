"""The rules, names and limits with which `recipes/get_sounds.py` chooses; nothing is downloaded."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recipe_scripts import load_recipe

script = load_recipe("get_sounds")
debian = load_recipe("debian")
RULES = "no: *_desc* stamps/symbols/*\nanimal: animals/* *bark*\nmusic: *"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("usr/share/stamps/animals/dog.ogg", "animal"),
        ("usr/share/stamps/animals/dog_desc.ogg", None),
        ("usr/share/stamps/symbols/7.ogg", None),
        ("usr/share/barks/tune.ogg", "music"),
        ("usr/share/x/bark1.ogg", "animal"),
    ],
)
def test_first_rule_that_matches_decides(name, kind):
    assert script.kind_of(name, RULES) == kind


def test_no_match_leaves_a_file_out():
    assert script.kind_of("usr/share/x.ogg", "animal: dog*") is None


def test_no_package_is_in_two_splits_and_none_is_of_the_unseen_game():
    names = [source.package for source in script.SOURCES]
    assert len(names) == len(set(names))
    assert not any("wesnoth" in name for name in names)


def test_both_splits_have_music_animals_instruments_machines_household_and_effects():
    for split in ("training", "validation"):
        rules = " ".join(source.rules for source in script.SOURCES if source.split == split)
        for kind in ("music:", "animal:", "instrument:", "machine:", "household:", "effect:"):
            assert kind in rules, (split, kind)


def write_tone(path: Path, seconds: float, frequency_hz: float = 440.0, rate: int = 44_100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * frequency_hz * time)
    soundfile.write(path, np.stack([wave, wave], axis=1), rate)


def test_sounds_become_mono_at_16_khz_and_at_most_a_minute(tmp_path):
    write_tone(tmp_path / "in/long.wav", 61.0)
    found = script.find_sounds(tmp_path / "in", "music: *")
    assert script.convert(found, tmp_path) == [("long.flac", "music", 60.0)]
    samples, rate = soundfile.read(tmp_path / "long.flac")
    assert (samples.shape, rate) == ((960_000,), 16_000)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.01)


def test_a_package_gives_no_copies_nothing_silent_and_no_more_than_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "MUSIC_SECONDS", 3.0)
    write_tone(tmp_path / "in/a.wav", 2.0)
    write_tone(tmp_path / "in/copy.wav", 2.0)
    write_tone(tmp_path / "in/other.wav", 2.0, 300.0)
    write_tone(tmp_path / "in/silent.wav", 0.5, 0.0)
    found = script.find_sounds(tmp_path / "in", "music: *")
    assert sum(seconds for _, _, seconds in script.convert(found, tmp_path)) == 2.0


def test_a_file_that_cannot_be_read_is_left_out_with_a_line(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/broken.ogg").write_bytes(b"nothing")
    assert script.convert(script.find_sounds(tmp_path / "in", "music: *"), tmp_path) == []
    assert capsys.readouterr().err.startswith("  broken.ogg: left out, it cannot be read: ")


def test_qt_resource_file_gives_its_names_and_bytes(tmp_path):
    content = b"OggS and so on"
    names = b"".join(
        struct.pack(">HI", len(name), 0) + name.encode("utf-16-be") for name in ("barn", "cow.ogg")
    )
    root = struct.pack(">IHIIQ", 0, 2, 1, 1, 0)
    folder = struct.pack(">IHIIQ", 0, 2, 1, 2, 0)
    cow = struct.pack(">IHIIQ", 2 + 4 + 8, 0, 0, 0, 0)
    tree = 20
    data = tree + len(root + folder + cow)
    offsets = (2, tree, data, data + 4 + len(content))
    parts = (struct.pack(">4sIIII", b"qres", *offsets), root, folder, cow)
    blob = b"".join(parts) + struct.pack(">I", len(content)) + content + names
    (tmp_path / "a.rcc").write_bytes(blob)
    assert list(script.resource_files(tmp_path / "a.rcc")) == [("/barn/cow.ogg", content)]
    script.unpack_resources(tmp_path)
    assert (tmp_path / "a/barn/cow.ogg").read_bytes() == content


def test_a_package_that_is_not_there_is_skipped_with_a_line(tmp_path, monkeypatch, capsys):
    def refuse(command, **_):
        return subprocess.CompletedProcess(command, 100, "", "E: No packages found\n")

    monkeypatch.setattr(debian.subprocess, "run", refuse)
    monkeypatch.setattr(debian.shutil, "which", lambda tool: tool)
    arguments = ["get_sounds.py", str(tmp_path), "--packages", "glob2-data"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert script.main() == 1
    error = capsys.readouterr().err
    assert "glob2-data: skipped: apt-get failed: E: No packages found" in error
    assert not list(tmp_path.rglob("*glob2*"))


def test_without_apt_it_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(debian.shutil, "which", lambda tool: None)
    monkeypatch.setattr(sys, "argv", ["get_sounds.py", str(tmp_path / "new")])
    assert script.main() == 1
    assert capsys.readouterr().err.count("\n") == 1

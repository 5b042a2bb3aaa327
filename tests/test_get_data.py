"""`recipes/get_data.sh`: which scripts it starts, in which order, and that it goes on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

# In the place of Python: writes down what it is asked for, and makes the folders of made sounds.
PYTHON = """#!/bin/sh
echo "$(basename "$1") $2 $3 $4" >> calls
case $1 in */make_sounds.py) mkdir -p "$2/training" "$2/validation" ;; esac
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, text in {
        "bin/python": PYTHON,
        "recipes/get_kokoro.sh": '#!/bin/sh\necho "get_kokoro.sh $1" >> calls\n',
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    shutil.copy(ROOT / "recipes/get_data.sh", tmp_path / "recipes")
    for split in ("training", "validation"):  # as get_sounds.py leaves them
        (tmp_path / "here/sounds" / split).mkdir(parents=True)
    return tmp_path


def get_data(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    command = [place / "recipes/get_data.sh", *words]
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)


def test_all_scripts_write_into_one_folder_and_made_sounds_are_made_once(place: Path) -> None:
    done = get_data(place, "here")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "written: here/talk, here/sounds\n"
    calls = [line.split() for line in (place / "calls").read_text().splitlines()]
    assert calls[:6] == [
        ["get_kokoro.sh", "here/kokoro"],
        ["get_talk.py", "here/talk", "--ear", "here/kokoro/whisper"],
        ["get_librispeech.py", "here/talk"],
        ["make_talk.py", "here/talk", "--model", "here/kokoro"],
        ["get_sounds.py", "here/sounds"],
        ["make_music.py", "here/sounds"],
    ]
    assert [call[0] for call in calls[6:]] == ["make_sounds.py"]
    for split in ("training", "validation"):
        assert (place / "here/sounds" / split / "made").is_dir()
    assert sorted(path.name for path in (place / "here/sounds").iterdir()) == [
        "training", "validation",
    ]  # fmt: skip
    assert get_data(place, "here").returncode == 0
    assert (place / "calls").read_text().count("make_sounds.py") == 1


def test_a_script_that_fails_ends_it(place: Path) -> None:
    (place / "bin/python").write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    done = get_data(place, "here")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "no network\n")


def test_an_option_is_refused_and_help_says_what_it_needs(place: Path) -> None:
    done = get_data(place, "--all")
    assert (done.returncode, done.stderr) == (
        2,
        "get_data.sh: no option --all: expected a folder\n",
    )
    assert "fluidsynth" in get_data(place, "--help").stdout
    assert not (place / "calls").exists()


def test_what_it_leaves_is_where_the_recipes_of_the_shipped_models_look(place: Path) -> None:
    recipes = [path.read_text() for path in (ROOT / "recipes").glob("shipped_*.yaml")]
    (place / "here").rename(place / "data")
    assert get_data(place).stdout == "written: data/talk, data/sounds\n"
    for recipe in recipes:
        assert "  talk: data/talk/training " in recipe
        assert "  sounds: data/sounds/training\n" in recipe
    assert len(recipes) == 3

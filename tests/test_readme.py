"""Everything the README shows: its commands, their output, its Python, its files."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.cli import main, parser
from speechrnn.corpus import PROTOCOLS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
CONSOLE = [
    tuple(text.removeprefix("$ ").split("\n", 1)) for kind, text in BLOCKS if kind == "console"
]
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
INSTALLED = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}  # as in an activated environment
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the project's data and recipes, to run in."""
    for name in ("data", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_shows_commands_output_and_python():
    assert len(CONSOLE) == 2
    assert len(COMMANDS) >= 10
    assert len(PYTHON) == 5


@pytest.mark.parametrize(
    "page", ["README.md", "recipes/README.md", "recipes/bench.md", "data/README.md"]
)
def test_no_place_is_left_to_be_filled(page):
    assert not re.findall(r"@[A-Z]+@|[A-Z]+_TEXT", (ROOT / page).read_text())


@pytest.mark.parametrize(("command", "output"), CONSOLE, ids=lambda text: text[:24])
def test_commands_print_what_the_readme_shows(command, output, project, capsys):
    """Labels to the letter; times and probabilities to 0.05, since processors round differently."""
    assert main(shlex.split(command)[1:]) == 0
    found = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    shown = [re.split(r"\t| {2,}", line) for line in output.splitlines()]
    assert len(found) == len(shown)
    for cells, expected in zip(found, shown, strict=True):
        for cell, other in zip(cells, expected, strict=True):
            if re.fullmatch(r"[\d.]+", other):
                assert float(cell) == pytest.approx(float(other), abs=0.05)
            else:
                assert cell == other


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_readme_runs(code, project):
    printed = io.StringIO()
    if "base.onnx" in code:
        pytest.importorskip("onnx", reason="the extra `export` is not installed")
        (export,) = (line for line in COMMANDS if line.endswith("--to base.onnx"))
        assert main(shlex.split(export)[1:]) == 0
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue()
    assert "base.onnx" not in code or printed.getvalue() == "yes\n"


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("speechrnn ")])
def test_commands_of_the_readme_are_spelt_right(command):
    """Those that take hours or the network are parsed only; their own tests run them."""
    options, rest = parser().parse_known_args(shlex.split(command)[1:])
    assert not rest or options.command.__name__ == "train"
    if options.command.__name__ == "train":
        assert (ROOT / options.recipe).is_file()


@pytest.mark.parametrize(
    "command", [line for line in COMMANDS if line.startswith("speechrnn train recipes/quickstart")]
)
def test_training_commands_of_the_readme_run(command, project):
    assert main([*shlex.split(command)[1:], "--trainer.fast_dev_run", "1"]) == 0


def test_own_words_are_trained_and_classified_as_the_readme_shows(project, capsys):
    random = np.random.default_rng(0)
    for number, word in enumerate(("lights", "music")):
        (project / "my_words" / word).mkdir(parents=True)
        for speaker in ("anna", "ben", "carl", "dora"):
            tone = np.sin(
                np.arange(30_000) / 44_100 * 2 * np.pi * (300 + 900 * number)
            ) * random.uniform(0.1, 0.5)
            soundfile.write(
                project / "my_words" / word / f"{speaker}_nohash_0.wav",
                np.stack((tone, tone), 1),
                44_100,
            )
    (train,) = (line for line in COMMANDS if line.startswith("speechrnn train recipes/own_words"))
    (classify,) = (line for line in COMMANDS if line.endswith("--model runs/own_words a.wav"))
    short = ["--data.least_draws", "0", "--trainer.max_epochs", "2"]
    assert main([*shlex.split(train)[1:], *short]) == 0
    shutil.copy(project / "my_words" / "music" / "anna_nohash_0.wav", project / "a.wav")
    capsys.readouterr()
    assert main(shlex.split(classify)[1:]) == 0
    path, label, _ = capsys.readouterr().out.split("\t")
    assert path == "a.wav"
    assert label in ("lights", "music")


def test_protocols_of_the_readme_are_those_of_the_code():
    rows = re.findall(r"^\| `(v\d-\d+)` .* `(\w+\.yaml)` .* ([\d,]+) \|$", README, re.MULTILINE)
    assert {name: int(clips.replace(",", "")) for name, _, clips in rows} == {
        name: protocol.clips["testing"] for name, protocol in PROTOCOLS.items() if name != "own"
    }
    for name, recipe, _ in rows:
        assert f"protocol: {name}" in (ROOT / "recipes" / recipe).read_text()


def test_links_of_the_readme_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_table_of_modules_is_the_package():
    table = README.split("| module |")[1].split("\n\n")[0]
    first_cells = " ".join(line.split("|")[1] for line in table.splitlines()[2:])
    package = ROOT / "speechrnn"
    files = {path.stem for path in package.glob("[a-z]*.py")}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"`([\w/]+)`", first_cells)) == files | folders


def test_the_three_installations_are_there_for_ci():
    assert any(line.startswith("python3 ") and "pip install ." in line for line in COMMANDS)
    assert any(
        line.startswith("python3 ") and line.endswith("recipes/run.sh quickstart")
        for line in COMMANDS
    )
    assert any(line.startswith("python3 ") and line.endswith("pytest") for line in COMMANDS)


def test_run_sh_says_what_is_wrong_in_a_line():
    for words, said in (
        (["nothing"], "no recipe 'nothing': expected one of own_words quickstart"),
        (["quickstart", "--stage", "7"], "--stage takes a stage from 0 to 4, got '7'"),
        (["quickstart", "--stop"], "no option --stop"),
    ):
        done = subprocess.run(
            [ROOT / "recipes" / "run.sh", *words],
            capture_output=True,
            text=True,
            check=False,
            env=INSTALLED,
        )
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert said in done.stderr


@pytest.mark.slow
def test_main_job_trains_evaluates_classifies_and_transcribes(tmp_path):
    """More than four fifths of the embedded clips are answered rightly."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "data").symlink_to(ROOT / "data")
    done = subprocess.run(
        [tmp_path / "recipes" / "run.sh", "quickstart"],
        capture_output=True,
        text=True,
        check=False,
        env=INSTALLED,
    )
    assert done.returncode == 0, done.stderr
    accuracies = [
        float(share) for share in re.findall(r"^accuracy ([\d.]+)%", done.stdout, re.MULTILINE)
    ]
    assert len(accuracies) == 2
    assert min(accuracies) > 80
    classified, transcribed = done.stdout.split("== stage 4")[1].split("the same clips joined")
    assert len(re.findall(r"\t(yes|no|up|down|left|right|on|off|stop|go)\t", classified)) >= 8
    assert len(re.findall(r"\t(yes|no|up|down|left|right|on|off|stop|go)\t", transcribed)) >= 5
    for name in (
        "curves.png",
        "validation/confusion.png",
        "testing/confusion.png",
        "testing/report.json",
        "model/README.md",
    ):
        assert (tmp_path / "runs" / "quickstart" / name).is_file()

"""The light floor in an environment that has nothing but the base installation."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import soundfile
from conftest import DATA, ROOT

CLIP = DATA / "yes" / "91eb264d_nohash_0.ogg"
RECORDING = DATA / "recording.ogg"
MEGABYTES = 120  # of all that is installed, pip left out


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the base installation, from this checkout."""
    place = tmp_path_factory.mktemp("light")
    folder, project = place / "venv", place / "project"
    project.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    shutil.copytree(ROOT / "speechrnn", project / "speechrnn")  # a build leaves files beside it
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", project]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _run(environment: Path, *words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """A command there, in a folder that holds nothing, with no trace of this process's Python."""
    names = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if name not in names}
    variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{variables['PATH']}"
    done = subprocess.run(
        list(map(str, words)), input=stdin, capture_output=True, check=False, env=variables,
        cwd=environment.parent,
    )  # fmt: skip
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_no_torch_is_installed_and_nothing_else_that_was_not_asked_for(environment):
    listed = _run(environment, "python", "-m", "pip", "list", "--format", "freeze").stdout
    names = {line.partition("==")[0].lower() for line in listed.splitlines()}
    asked_for = {"speechrnn", "numpy", "soundfile", "soxr", "safetensors"}
    theirs = {"cffi", "pycparser", "typing_extensions"}  # soundfile's
    assert names - {"pip", "setuptools"} - theirs == asked_for
    done = _run(environment, "python", "-c", "import torch")
    assert "No module named 'torch'" in done.stderr


def test_base_installation_is_small(environment):
    site = next((environment / "lib").glob("python*")) / "site-packages"
    installed = [
        file
        for file in site.rglob("*")
        if file.is_file()
        and not re.match(r"(pip|setuptools|_distutils_hack)\b", str(file.relative_to(site)))
    ]
    size = sum(file.stat().st_size for file in installed) / 1e6
    print(f"{size:.0f} MB")
    assert size < MEGABYTES


def test_classify_transcribe_and_info_work_there(environment):
    done = _run(environment, "speechrnn", "classify", CLIP)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\t")[1] == "yes"
    done = _run(environment, "speechrnn", "transcribe", RECORDING)
    assert (done.returncode, done.stderr) == (0, "")
    words = [line.split("\t")[2] for line in done.stdout.splitlines()]
    assert words[0] == "yes" and len(words) >= 5
    done = _run(environment, "speechrnn", "info")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["base", "small", "tiny"]


def test_a_pipe_is_transcribed_there(environment, tmp_path):
    samples, rate = soundfile.read(RECORDING, dtype="int16")
    soundfile.write(tmp_path / "recording.wav", samples, rate)
    stdin = (tmp_path / "recording.wav").read_bytes()
    done = _run(environment, "speechrnn", "transcribe", "-", stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split("\t")[2] == "yes"


def test_web_page_of_a_model_is_made_there(environment):
    code = (
        "from speechrnn.export.page import page; from speechrnn.folder import read_folder;"
        "print(page(read_folder('tiny'))[0][-8:])"
    )
    done = _run(environment, "python", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "</html>" in done.stdout


def test_python_of_the_readme_that_needs_no_extra_runs_there(environment):
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    extras = ("evaluation", "speechrnn.model", "onnxruntime")
    light = [code for code in blocks if not any(name in code for name in extras)]
    assert len(light) >= 2
    for code in light:
        absolute = code.replace('"data/', f'"{ROOT / "data"}/')
        done = _run(environment, "python", "-c", absolute)
        assert (done.returncode, done.stderr) == (0, ""), code
        assert done.stdout


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["evaluate", "base", "--data", DATA], "train"),
        (["train", ROOT / "recipes" / "quickstart.yaml"], "train"),
        (["download", "v2"], "train"),
        (["bench"], "train"),
        (["transcribe", RECORDING, "--plot", "out.png"], "train"),
        (["listen"], "listen"),
        (["serve"], "serve"),
        (["export", "base", "--format", "onnx", "--to", "base.onnx"], "export"),
        (["classify", "--model", "base.onnx", CLIP], "onnx"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_whose_extra_is_missing_says_in_a_line_what_to_type(environment, words, extra):
    done = _run(environment, "speechrnn", *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"pip install 'speechrnn[{extra}]'" in done.stderr
    assert not (environment.parent / "out.png").exists()


def test_torch_asked_for_by_name_is_refused_there(environment):
    code = "import speechrnn; speechrnn.load('tiny', backend='torch')"
    done = _run(environment, "python", "-c", code)
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stderr
    assert sys.executable not in done.stderr

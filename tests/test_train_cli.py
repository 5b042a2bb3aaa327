"""What `download` and `train` promise on the command line: one line a mistake, and the status."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Run, assert_one_line


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty speakers say each of two words."""
    folder = tmp_path_factory.mktemp("corpus")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4_000)
    for word in ("no", "yes"):
        (folder / word).mkdir()
        for speaker in range(20):
            path = folder / word / f"{speaker}_nohash_0.wav"
            soundfile.write(path, noise * (speaker + 1) / 20, 16_000)
    return folder


RECIPE = """
data: {folder: CORPUS, protocol: own, batch_size: 8}
model: {layers: 1, hidden_size: 8, augmentation: {shift_frames: 5}}
trainer: {max_epochs: 1}
"""


@pytest.fixture
def recipe(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning writes it: put back after the test
    (tmp_path / "small.yaml").write_text(RECIPE.replace("CORPUS", str(corpus)))
    return Path("small.yaml")


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        (
            "hidden_size",
            "hiden_size",
            ["does not accept option 'hiden_size'", "did you mean model.hidden_size?"],
        ),
        (
            "shift_frames",
            "shift",
            [
                "not accept option 'augmentation.shift'",
                "did you mean model.augmentation.shift_frames?",
            ],
        ),
        ("model", "modell", ["modell", "--help"]),
        ("layers: 1", "layers: many", ['"model.layers": Expected a int. Got value: many']),
        ("layers: 1", "activation: gelu", ["Expected a Literal['tanh', 'relu']. Got value: gelu"]),
        ("}\nmodel", "\nmodel", ["Problems parsing config"]),
        ("data", "#", ["the following arguments are required: data.folder"]),
    ],
)
def test_mistake_in_a_recipe_is_one_line_and_status_2(
    run: Run, recipe: Path, old: str, new: str, parts: list[str]
) -> None:
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    status, out, error = run("train", recipe)
    assert (status, out) == (2, "")
    assert_one_line(error, "small.yaml: ", *parts)


@pytest.mark.parametrize(
    "content", [b"", b"- 1\n- 2\n", b"\xff\xfe\x00"], ids=["empty", "list", "binary"]
)
def test_file_that_is_no_recipe_is_one_line_and_status_2(
    run: Run, recipe: Path, content: bytes
) -> None:
    recipe.write_bytes(content)
    status, out, error = run("train", recipe)
    assert (status, out) == (2, "")
    assert_one_line(error, "small.yaml: ")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["--trainer.max_epoch", "3"],
            ["--trainer.max_epoch 3", "did you mean trainer.max_epochs?"],
        ),
        (["--model.hiden_size=3"], ["--model.hiden_size=3", "did you mean model.hidden_size?"]),
        (["--model.layers", "many"], ["Expected a int. Got value: many"]),
        (["--model.layers"], ["--model.layers: expected one argument"]),
        (["--nonsense"], ["unrecognized arguments: --nonsense", "speechrnn train --help"]),
        (["other.yaml"], ["unrecognized arguments: other.yaml"]),
    ],
)
def test_mistake_in_an_override_is_one_line_and_status_2(
    run: Run, recipe: Path, words: list[str], parts: list[str]
) -> None:
    status, out, error = run("train", recipe, *words)
    assert (status, out) == (2, "")
    assert_one_line(error, *parts)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nowhere.yaml"], ["no recipe 'nowhere.yaml'", "recipes/quickstart.yaml"]),
        (
            ["small.yaml", "--data.folder", "/nowhere"],
            ["/nowhere: no such folder", "speechrnn download v2"],
        ),
        (["small.yaml", "--data.protocol", "v9"], ["no protocol 'v9'", "v2-12"]),
        (["small.yaml", "--model.layers", "0"], ["layers is 0: expected 1 or more"]),
        (["small.yaml", "--trainer.accelerator", "hpu"], ["hpu"]),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_status_1(
    run: Run, recipe: Path, words: list[str], parts: list[str]
) -> None:
    status, out, error = run("train", *words)
    assert (status, out) == (1, "")
    assert_one_line(error, *parts)


def test_print_config_shows_every_key_with_overrides(run: Run, recipe: Path) -> None:
    status, out, error = run("train", recipe, "--print_config", "--model.hidden_size", "24")
    assert (status, error) == (0, "")
    for line in (
        "  hidden_size: 24",
        "  layers: 1",
        "  learning_rate: 0.004",
        "    shift_frames: 5",
        "  max_epochs: 1",
    ):
        assert line in out.splitlines()
    assert not Path("runs").exists()


def test_help_of_train_tells_how_to_override(run: Run) -> None:
    _, out, _ = run("train", "--help")
    assert "--model.hidden_size 192 --trainer.max_epochs 5" in out and "--print_config" in out


def test_download_hands_over_the_corpus_and_prints_its_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("speechrnn.download")
    monkeypatch.setattr(module, "download", lambda corpus, to: to / corpus.folder)
    assert run("download", "v1", "--to", "there") == (0, "there/speech_commands_v0.01\n", "")
    assert run("download", "v2-test") == (0, "data/speech_commands_test_set_v0.02\n", "")

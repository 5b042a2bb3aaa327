"""What `speechrnn.checkpoint` promises: a folder that is enough, errors in one line, and no pickle that runs."""

import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import speechrnn
from speechrnn import Model, checkpoint
from speechrnn.audio import AudioError


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def change_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def put_weights(folder: Path, data: bytes) -> None:
    """Other weights, with the checksum that belongs to them."""
    (folder / "model.safetensors").write_bytes(data)
    change_config(folder, lambda config: config.update(sha256=hashlib.sha256(data).hexdigest()))


def error_of(folder: Path | str, kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as info:
        checkpoint.load(folder)
    message = str(info.value)
    assert "\n" not in message
    return message


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """No file may grow beyond `free` bytes: writing on is an OSError, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))  # Python ignores SIGXFSZ
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- saved and loaded


def test_loaded_model_equals_the_saved_one_in_every_logit(model: Model, model_folder: Path) -> None:
    wave = torch.randn(2, 9000)
    loaded = checkpoint.load(model_folder)
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(wave)[0], model(wave)[0])
    assert not loaded.training


def test_loaded_model_can_be_trained_on(model: Model, model_folder: Path) -> None:
    loaded = checkpoint.load(model_folder)
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    loaded(torch.randn(1, 4000))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters() if parameter.requires_grad)


def test_folder_holds_config_weights_and_card(model_folder: Path) -> None:
    assert sorted(path.name for path in model_folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((model_folder / "config.json").read_text())
    assert config["format"] == checkpoint.FORMAT and config["version"] == speechrnn.__version__
    assert config["model"]["labels"] == ["_silence_", "_unknown_", "yes", "no"] and config["training"]["seed"] == 3
    assert config["sha256"] == hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    assert model_folder.stat().st_mode & 0o777 == 0o755


def test_run_folder_stands_for_the_model_in_it(folder: Path) -> None:
    assert checkpoint.model_folder(folder.parent) == folder


def test_saving_replaces_the_whole_folder(model: Model, folder: Path) -> None:
    (folder / "old").touch()
    checkpoint.save(model, folder, training={}, scores={}, card="another")
    assert (folder / "README.md").read_text() == "another" and not (folder / "old").exists()
    assert os.listdir(folder.parent) == ["model"]


@pytest.mark.parametrize("free", [0, 1000, 20_000])
@pytest.mark.parametrize("before", [True, False], ids=["over an old model", "new"])
def test_full_disk_leaves_the_old_folder_and_nothing_half_written(
    model: Model, model_folder: Path, tmp_path: Path, free: int, before: bool
) -> None:
    folder = tmp_path / "model"
    if before:
        shutil.copytree(model_folder, folder)
    with full_disk(free), pytest.raises(OSError) as info:
        checkpoint.save(model, folder, training={}, scores={}, card="new")
    assert info.value.filename == str(folder)
    assert os.listdir(tmp_path) == ["model"] * before
    if before:
        assert all((folder / path.name).read_bytes() == path.read_bytes() for path in model_folder.iterdir())
        checkpoint.load(folder)


# --- what is refused


def test_unknown_model_name_lists_the_known_ones(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("large", "base"):
        shutil.copytree(model_folder, tmp_path / name)
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    assert "no model 'bas'" in error_of("bas", FileNotFoundError)
    assert "(base, large)" in error_of("bas", FileNotFoundError)
    assert checkpoint.load().config == checkpoint.load("large").config


def test_folder_without_config_is_no_model(tmp_path: Path) -> None:
    assert "no config.json" in error_of(tmp_path, FileNotFoundError)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in error_of(folder, FileNotFoundError)


def test_changed_byte_in_the_weights_is_noticed(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert "not the weights that were saved" in error_of(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"format"', "{}", '{"format": 2}', "\xff"])
def test_damaged_config_is_said_to_be_damaged(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert f"{folder / 'config.json'} is damaged" in error_of(folder)


def test_other_format_names_the_version_that_wrote_it(folder: Path) -> None:
    change_config(folder, lambda config: config.update(format=99, version="7.8.9"))
    message = error_of(folder)
    assert "format 99" in message and "speechrnn 7.8.9" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", 17), ("layers", 3), ("nonsense", 1), ("hidden_size", "16"), ("labels", None), ("labels", ["yes", "no"])],
)
def test_config_and_weights_that_disagree_are_refused(folder: Path, key: str, value: Any) -> None:
    change_config(folder, lambda config: config["model"].update({key: value}))
    assert "do not belong together" in error_of(folder)


def test_weights_with_one_tensor_less_or_more_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    for other in ({key: value for key, value in weights.items() if key != name}, weights | {"more": torch.ones(1)}):
        save_file(other, folder / "other")
        put_weights(folder, (folder / "other").read_bytes())
        assert "do not belong together" in error_of(folder)


class Touch:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("dump", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_pickle_is_never_loaded(folder: Path, form: str, dump: Callable[[Any, Any], None]) -> None:
    buffer, proof = io.BytesIO(), folder / "it ran"
    dump(Touch(proof), buffer)
    (folder / "model.safetensors").unlink()
    if form == "model.pt":
        (folder / form).write_bytes(buffer.getvalue())
        assert "model.pt is not read, because a pickle can run code" in error_of(folder, FileNotFoundError)
    else:
        put_weights(folder, buffer.getvalue())
        assert "do not belong together" in error_of(folder)
    assert not proof.exists()
    buffer.seek(0)
    torch.load(buffer, weights_only=False) if dump is torch.save else pickle.load(buffer)
    assert proof.exists()  # so it would have run


# --- the interface of the package


def test_classify_takes_path_array_tensor_and_open_file_alike(model: Model, recordings: Path) -> None:
    path = recordings / "a.wav"
    wave = speechrnn.audio.read_wave(path)
    sources = (path, str(path), wave, wave.astype(np.float64), torch.from_numpy(wave), io.BytesIO(path.read_bytes()))
    answers = [model.classify(source, top_k=4) for source in sources]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].top[0] == (answers[0].label, answers[0].score)
    assert sum(score for _, score in answers[0].top) == pytest.approx(1)
    assert sorted(label for label, _ in answers[0].top) == sorted(model.config.labels)


def test_int16_array_is_refused_with_what_to_do(model: Model) -> None:
    with pytest.raises(ValueError, match=r"int16.*for 16-bit samples divide by 32768"):
        model.classify(np.zeros(16_000, np.int16))


@pytest.mark.parametrize(
    "wave",
    [np.zeros((1, 16_000)), torch.zeros(16_000, 2), np.zeros(0), np.full(9, np.nan), np.array([np.inf]), np.zeros(9, complex)],
    ids=["(1, N)", "(N, 2)", "empty", "NaN", "inf", "complex"],
)
def test_array_that_is_no_mono_wave_is_refused(model: Model, wave: Any) -> None:
    with pytest.raises(ValueError, match=r"expected \(N,\) finite floats at 16000 Hz"):
        model.classify(wave)


def test_classify_of_a_missing_file_names_it(model: Model) -> None:
    with pytest.raises(AudioError, match=r"nowhere\.wav"):
        model.classify("nowhere.wav")


def test_loading_and_classifying_import_no_training_library(model_folder: Path, recordings: Path) -> None:
    code = (
        "import sys, speechrnn; print(speechrnn.load(sys.argv[1]).classify(sys.argv[2]).label);"
        "heavy = {'torchaudio', 'pytorch_lightning', 'lightning', 'librosa', 'matplotlib', 'jsonargparse', 'rich'};"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model_folder, recordings / "a.wav"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in {"_silence_", "_unknown_", "yes", "no"}


def test_loaded_weights_begin_where_the_processor_reads_fastest(model_folder):
    """In the file they begin anywhere: a matrix times a vector took a fifth longer."""
    assert all(tensor.data_ptr() % 64 == 0 for tensor in checkpoint.load(model_folder).state_dict().values())

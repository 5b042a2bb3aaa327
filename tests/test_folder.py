"""What a model folder promises: it is enough, errors are one line, and no pickle ever runs."""

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import speechrnn
from speechrnn import folder as folder_room
from speechrnn import load
from speechrnn.folder import FORMAT, find_folder, read_folder, save_folder, save_thresholds
from speechrnn.model import Model

FullDisk = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def save(model: Model, folder: Path, card: str) -> None:
    save_folder(folder, model.config, model.arrays(), training={}, scores={}, card=card)


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
        load(folder)
    message = str(info.value)
    assert "\n" not in message
    return message


# --- saved and loaded


def test_weights_come_back_to_the_bit(model: Model, model_folder: Path) -> None:
    folder = read_folder(model_folder)
    assert folder.config == model.config
    arrays = folder.weights()
    assert arrays.keys() == model.arrays().keys()
    assert all(np.array_equal(arrays[name], array) for name, array in model.arrays().items())


def test_loaded_weights_are_aligned_as_numpy_aligns_its_own(model_folder: Path) -> None:
    """In the file they begin anywhere: a matrix times a vector took a fifth longer."""
    arrays = read_folder(model_folder).weights().values()
    assert all(array.ctypes.data % 16 == 0 and array.flags.owndata for array in arrays)


def test_thresholds_of_a_folder_are_its_own_or_the_default_for_every_word(folder: Path) -> None:
    assert read_folder(folder).thresholds == {"yes": 0.6, "no": 0.6}
    save_thresholds(folder, {"yes": 0.7, "no": 0.8}, split="validation")
    assert read_folder(folder).thresholds == {"yes": 0.7, "no": 0.8}
    assert json.loads((folder / "thresholds.json").read_text())["split"] == "validation"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"thresholds": {"yes": 0.5}}', "\xff"])
def test_damaged_thresholds_are_named_with_what_to_do(folder: Path, text: str) -> None:
    (folder / "thresholds.json").write_text(text, encoding="latin-1")
    assert "thresholds.json is damaged" in error_of(folder)
    assert "delete it" in error_of(folder)


def test_folder_of_the_version_before_is_read_although_it_names_a_dropout(folder: Path) -> None:
    before = read_folder(folder).config
    change_config(folder, lambda config: config["model"].update(dropout=0.0))
    assert "dropout" in (folder / "config.json").read_text()
    assert read_folder(folder).config == before


def test_loaded_model_is_on_the_cpu_in_evaluation_mode_and_can_be_trained_on(
    model: Model, model_folder: Path
) -> None:
    loaded = Model.load(model_folder)
    assert not loaded.training
    expected = [parameter.requires_grad for parameter in Model(loaded.config).parameters()]
    assert [parameter.requires_grad for parameter in loaded.parameters()] == expected
    loaded(torch.randn(1, 4_000))[0].sum().backward()
    trained = [parameter for parameter in loaded.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)


def test_folder_holds_config_weights_and_card(model_folder: Path) -> None:
    assert sorted(path.name for path in model_folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((model_folder / "config.json").read_text())
    assert config["format"] == FORMAT and config["version"] == speechrnn.__version__
    assert (
        config["model"]["labels"] == ["_silence_", "_unknown_", "yes", "no"]
        and config["training"]["seed"] == 3
    )
    assert (
        config["sha256"]
        == hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    )
    assert model_folder.stat().st_mode & 0o777 == 0o755


def test_run_folder_stands_for_the_model_in_it(folder: Path) -> None:
    assert find_folder(folder.parent) == folder


def test_saving_replaces_the_whole_folder(model: Model, folder: Path) -> None:
    (folder / "old").touch()
    save(model, folder, "another")
    assert (folder / "README.md").read_text() == "another" and not (folder / "old").exists()
    assert os.listdir(folder.parent) == ["model"]


@pytest.mark.parametrize("free", [0, 1000, 20_000])
@pytest.mark.parametrize("before", [True, False], ids=["over an old model", "new"])
def test_full_disk_leaves_the_old_folder_and_nothing_half_written(
    model: Model,
    model_folder: Path,
    tmp_path: Path,
    full_disk: FullDisk,
    free: int,
    before: bool,
) -> None:
    folder = tmp_path / "model"
    if before:
        shutil.copytree(model_folder, folder)
    with full_disk(free), pytest.raises(OSError) as info:
        save(model, folder, "new")
    assert info.value.filename == str(folder)
    assert os.listdir(tmp_path) == ["model"] * before
    if before:
        assert all(
            (folder / path.name).read_bytes() == path.read_bytes()
            for path in model_folder.iterdir()
        )
        load(folder)


def test_old_folder_comes_back_where_the_new_one_cannot_take_its_place(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, before = os.replace, (folder / "README.md").read_text()

    def second_fails(source: Path, target: Path) -> None:
        if Path(target) == folder and "-old-" not in str(source):
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OSError, match="busy"):
        save(model, folder, "new")
    assert os.listdir(folder.parent) == ["model"]
    assert (folder / "README.md").read_text() == before


def test_link_to_a_folder_is_refused_and_nothing_is_left_beside_it(
    model: Model, folder: Path
) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    with pytest.raises(OSError):
        save(model, link, "new")
    assert sorted(os.listdir(folder.parent)) == ["link", "model"]
    load(folder)


# --- what is refused


def test_unknown_model_name_lists_the_known_ones(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("large", "base"):
        shutil.copytree(model_folder, tmp_path / name)
    monkeypatch.setattr(folder_room, "SHIPPED", tmp_path)
    assert "no model 'bas'" in error_of("bas", FileNotFoundError)
    assert "(base, large)" in error_of("bas", FileNotFoundError)
    assert load().config == load("large").config


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
    ("key", "value", "message"),
    [
        ("hidden_size", 17, "do not belong together"),
        ("layers", 3, "do not belong together"),
        ("labels", ["yes", "no"], "do not belong together"),
        ("nonsense", 1, "config.json is damaged"),
        ("hidden_size", "16", "config.json is damaged"),
        ("labels", None, "config.json is damaged"),
    ],
)
def test_config_that_is_none_or_does_not_fit_the_weights_is_refused(
    folder: Path, key: str, value: Any, message: str
) -> None:
    change_config(folder, lambda config: config["model"].update({key: value}))
    assert message in error_of(folder)


def test_weights_with_one_tensor_less_or_more_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    for other in (
        {key: value for key, value in weights.items() if key != name},
        weights | {"more": torch.ones(1)},
    ):
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
        assert "model.pt is not read: a pickle can run code" in error_of(folder, FileNotFoundError)
    else:
        put_weights(folder, buffer.getvalue())
        assert "do not belong together" in error_of(folder)
    assert not proof.exists()
    buffer.seek(0)
    torch.load(buffer, weights_only=False) if dump is torch.save else pickle.load(buffer)
    assert proof.exists()  # so it would have run

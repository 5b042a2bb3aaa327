"""ONNX files: what NumPy computes, in any chunks; what they say of themselves; what is refused."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden_vectors
import numpy as np
import pytest
import torch
from conftest import DATA, Run, assert_one_line
from tolerances import CHUNKS, PROBABILITY, RUNTIMES

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

from speechrnn import __version__, load  # noqa: E402
from speechrnn.config import ModelConfig  # noqa: E402
from speechrnn.export import onnx as room  # noqa: E402
from speechrnn.export.check import largest_difference, waves  # noqa: E402
from speechrnn.export.onnx import write_onnx  # noqa: E402
from speechrnn.export.rounding import ROUNDED  # noqa: E402
from speechrnn.folder import ModelFolder, read_folder, save_folder, shipped_models  # noqa: E402
from speechrnn.model import Model  # noqa: E402
from speechrnn.network import Network  # noqa: E402
from speechrnn.onnx_runtime import OnnxNetwork, read_model  # noqa: E402

CLIP = DATA / "yes" / "91eb264d_nohash_0.ogg"
RECORDING = DATA / "recording.ogg"
KINDS = {"float32": False, "int8": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(params=shipped_models())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def export(place: Path, name: str, kind: str) -> Path:
    """A shipped model as a file, written once."""
    path = place / f"{name}-{kind}.onnx"
    if not path.exists():
        write_onnx(read_folder(name), path, KINDS[kind])
    return path


@pytest.fixture
def file(place: Path, name: str, kind: str) -> Path:
    return export(place, name, kind)


@pytest.fixture
def small(model_folder: Path, tmp_path: Path) -> Path:
    """The small model that was never trained, as a file that a test may damage."""
    write_onnx(read_folder(model_folder), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


# --- what it computes


@pytest.mark.parametrize("wave", golden_vectors.WAVES)
def test_exported_model_gives_the_golden_vectors(file: Path, name: str, kind: str, wave: str):
    """As a whole, and in chunks; in those of a few samples only where the wave is short."""
    runtime = OnnxNetwork(file)
    short = len(golden_vectors.WAVES[wave]) < 5_000
    for chunk in (None, *golden_vectors.CHUNKS[0 if short else 2 :]):
        apart = golden_vectors.largest_difference(runtime, name, wave, chunk)
        assert apart < RUNTIMES["onnx" if kind == "float32" else "onnx int8"]


def test_words_are_those_of_the_golden_vectors(place: Path, name: str):
    file = export(place, name, "float32")
    golden_vectors.assert_words(load(file).runtime, name, PROBABILITY)


@pytest.mark.parametrize("options", ["onnxruntime's", "ours"])
@pytest.mark.parametrize("chunk", [1, 7, 160, 161, 480, 3_840])
def test_chunks_give_what_the_whole_gives(
    file: Path, chunk: int, options: str, monkeypatch: pytest.MonkeyPatch
):
    """int8 too: onnxruntime's own ways to round would take a scale for each chunk."""
    runtime = OnnxNetwork(file)
    if options == "onnxruntime's":
        monkeypatch.setattr(runtime, "_session", onnxruntime.InferenceSession(str(file)))
    wave = golden_vectors.WAVES["speech"][None, 8_000 : 8_000 + (24_000 if chunk > 7 else 2_000)]
    whole, last = runtime.step(wave)
    state, parts = None, []
    for start in range(0, wave.shape[1], chunk):
        logits, state = runtime.step(wave[:, start : start + chunk], state)
        parts.append(logits)
    assert np.abs(np.concatenate(parts, 1) - whole).max() < CHUNKS * np.abs(whole).max()
    assert state is not None
    assert np.array_equal(state.audio, last.audio)
    np.testing.assert_allclose(state.hidden, last.hidden, atol=CHUNKS)


def test_streams_of_a_batch_do_not_change_each_other(small: Path):
    runtime, batch = OnnxNetwork(small), waves()
    together, after = runtime.step(batch)
    alone, last = runtime.step(batch[2:3])
    np.testing.assert_allclose(together[2:3], alone, atol=CHUNKS)
    np.testing.assert_allclose(after.hidden[:, 2:3], last.hidden, atol=CHUNKS)


def test_no_audio_gives_no_logits_and_the_same_state(small: Path):
    runtime = OnnxNetwork(small)
    _, state = runtime.step(waves()[:1, :1_000])
    logits, after = runtime.step(waves()[:1, :0], state)
    assert logits.shape == (1, 0, 4)
    assert np.array_equal(after.hidden, state.hidden)
    assert np.array_equal(after.audio, state.audio)


SHAPES: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu"},
    "one layer, one frame": {"stack": 1, "layers": 1, "hidden_size": 7},
    "fewer coefficients": {"stack": 4, "coefficients": 13, "mel_bands": 20, "feed_forward": 5},
    "frames side by side": {"window_ms": 30.0, "hop_ms": 30.0, "stack": 1},
    "window as long as the transform": {"window_ms": 32.0},
    "long transform": {"fft_size": 1024, "mel_bands": 80},
    "transform of no power of two": {"fft_size": 400},
    "transform of a prime number of points": {"fft_size": 401},
}


@pytest.mark.parametrize("changed", SHAPES.values(), ids=SHAPES)
def test_any_shape_is_exported(changed: dict[str, Any], kind: str, tmp_path: Path):
    """The export compares itself with NumPy, of whose shapes another test takes care."""
    torch.manual_seed(0)
    config = replace(ModelConfig(("_unknown_", "yes", "no"), hidden_size=24, layers=2), **changed)
    model = Model(config)
    save_folder(tmp_path, config, model.arrays(), training={}, scores={}, card="")
    apart = write_onnx(read_folder(tmp_path), tmp_path / "model.onnx", KINDS[kind])
    limit = ROUNDED if KINDS[kind] else room.SAME
    assert 0 < apart <= limit
    runtime = OnnxNetwork(tmp_path / "model.onnx")
    assert largest_difference(Network(config, model.arrays()), runtime) == pytest.approx(apart)


def test_a_part_of_a_step_is_refused_by_the_graph_itself(small: Path):
    """It would be lost without a word."""
    session = onnxruntime.InferenceSession(str(small))
    given = {
        port.name: np.zeros([size if isinstance(size, int) else 1 for size in port.shape], "f4")
        for port in session.get_inputs()
    }
    for samples, right in ((960, True), (1_000, False), (479, False)):
        given["audio"] = np.zeros((1, samples), np.float32)
        if right:
            logits, past, _ = session.run(None, given)
            assert logits.shape == (1, 2, 4) and past.shape == (1, 240)
        else:
            with pytest.raises(Exception, match="whole_steps"):
                session.run(None, given)


# --- what it says of itself


def test_metadata_say_what_a_program_must_know(file: Path, name: str, kind: str):
    folder = read_folder(name)
    told = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    assert json.loads(told["labels"]) == list(folder.config.labels)
    assert json.loads(told["thresholds"]) == folder.thresholds
    numbers = {"sample_rate": 16_000, "step_samples": 480, "window_steps": 33}
    assert {key: int(told[key]) for key in numbers} == numbers
    assert (told["model_type"], told["version"]) == ("speechrnn", __version__)
    assert (told["weights"], told["sha256"]) == (kind, folder.about["sha256"])
    assert told["license"] == folder.license
    assert "recipe" not in json.loads(told["training"])


def test_file_is_loaded_as_its_folder_is(file: Path, name: str):
    folder, found = read_folder(name), read_model(file)
    assert (found.config, found.thresholds) == (folder.config, folder.thresholds)
    assert load(file).thresholds == folder.thresholds
    for split, score in found.about["scores"].items():
        assert score.items() <= folder.about["scores"][split].items()
        assert "accuracy" in score


def test_small_weights_are_in_small_files(place: Path):
    """int8: below 330 KB and 75 KB; the mel matrix alone would be 41."""
    for name, most in (("base", 330_000), ("tiny", 75_000)):
        folder, size = read_folder(name), export(place, name, "int8").stat().st_size
        assert folder.config.parameter_count < size < most
        spared = export(place, name, "float32").stat().st_size - size
        assert spared > 2 * folder.config.parameter_count  # of three bytes each


def test_file_needs_no_newer_runtime_than_its_operators_do(place: Path):
    model = onnx.load(export(place, "tiny", "int8"))
    assert (model.ir_version, [opset.version for opset in model.opset_import]) == (8, [17])
    assert {opset.domain for opset in model.opset_import} == {""}
    assert [node.op_type for node in model.graph.node].count("RNN") == 3


# --- in the commands


def test_export_prints_path_size_and_difference(run: Run, tmp_path: Path, kind: str):
    to = tmp_path / "new" / "tiny.onnx"
    words = ("export", "tiny", "--format", "onnx", *["--int8"] * KINDS[kind], "--to", to)
    status, out, error = run(*words)
    assert (status, error) == (0, "")
    path, size, difference = out.rstrip("\n").split("\t")
    assert (path, size) == (str(to), f"{to.stat().st_size:,} bytes")
    apart = float(difference.split()[2])
    assert (1e-4 < apart <= 0.1) if KINDS[kind] else (0 < apart <= 1e-4)
    assert os.listdir(to.parent) == ["tiny.onnx"]


@pytest.mark.parametrize("words", [["classify", CLIP], ["transcribe", RECORDING]], ids=str)
def test_commands_answer_with_a_file_what_they_answer_with_its_folder(
    run: Run, place: Path, words: list[object]
):
    command, audio = words
    file = export(place, "tiny", "float32")
    status, out, error = run(command, "--model", file, audio)
    assert (status, error) == (0, "")
    assert out and out == run(command, "--model", "tiny", audio)[1]


def test_evaluate_measures_a_file_beside_its_folder(run: Run, place: Path, tmp_path: Path):
    files = [export(place, "tiny", kind) for kind in KINDS]
    for word in ("yes", "no"):
        (tmp_path / word).symlink_to(DATA / word)
    corpus = ("--data", tmp_path, "--protocol", "own", "--split", "validation")
    status, out, _ = run("evaluate", "tiny", *files, *corpus, "--json")
    reports = json.loads(out)["reports"]
    assert status == 0 and len(reports) == 3
    assert reports[0]["answers"] == reports[1]["answers"]
    np.testing.assert_allclose(reports[0]["scores"], reports[1]["scores"], atol=PROBABILITY)
    assert [report["model"]["name"] for report in reports] == ["tiny", *map(str, files)]
    assert len({report["model"]["sha256"] for report in reports}) == 1


def test_info_describes_a_file(run: Run, place: Path):
    file = export(place, "base", "int8")
    status, out, error = run("info", file)
    assert (status, error) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"model\t{file}"
    assert lines[1:] == run("info", "base")[1].splitlines()[1:]
    told, whole = (json.loads(run("info", "--json", name)[1]) for name in (file, "base"))
    for key in ("model", "parameters", "sha256"):
        assert told[key] == whole[key]
    assert told["weights"] == "int8"


def test_a_file_is_run_without_torch_and_without_the_package_that_wrote_it(place: Path):
    code = "import sys; from speechrnn.cli import main; assert main(sys.argv[1:]) == 0"
    words = ["classify", "--model", str(export(place, "tiny", "int8")), str(CLIP)]
    command = [sys.executable, "-c", f"{code}; print(*sys.modules)", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "onnxruntime" in loaded and not {"torch", "onnx"} & loaded


# --- what is refused


def test_a_file_that_is_there_is_kept(run: Run, tmp_path: Path):
    to = tmp_path / "mine.onnx"
    to.write_bytes(b"mine")
    status, out, error = run("export", "tiny", "--format", "onnx", "--to", to)
    assert (status, out) == (1, "")
    assert_one_line(error, to, "is there already", f"rm {to}")
    assert to.read_bytes() == b"mine"


def test_a_name_that_is_not_that_of_the_format_is_refused(run: Run, tmp_path: Path):
    for to in (tmp_path, tmp_path / "model.bin", tmp_path / "model"):
        status, out, error = run("export", "tiny", "--format", "onnx", "--to", to)
        assert (status, out) == (1, "")
        assert_one_line(error, to, "ends with .onnx", f"--to {to}.onnx")
    assert os.listdir(tmp_path) == []


def test_a_damaged_folder_is_not_exported(run: Run, model_folder: Path, tmp_path: Path):
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    status, out, error = run("export", folder, "--format", "onnx", "--to", tmp_path / "a.onnx")
    assert (status, out) == (1, "")
    assert_one_line(error, "not the weights that were saved")
    assert os.listdir(tmp_path) == ["model"]


def test_a_place_that_cannot_be_written_is_named(run: Run, tmp_path: Path, full_disk: Any):
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "a.onnx"
    with full_disk(10_000):
        status, out, error = run("export", "tiny", "--format", "onnx", "--to", tmp_path / "a.onnx")
    assert (status, out) == (1, "")
    assert_one_line(error, tmp_path / "a.onnx")
    status, out, error = run("export", "tiny", "--format", "onnx", "--to", below)
    assert (status, out) == (1, "")
    assert_one_line(error, tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_computes_something_else_is_not_kept(
    run: Run, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(room, "NORM_EPSILON", 0.1)
    status, out, error = run(
        "export", model_folder, "--format", "onnx", "--to", tmp_path / "a.onnx"
    )
    assert (status, out) == (1, "")
    assert_one_line(error, "not written: what it computes is", "expected 1e-04 or less")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def uneven(model: Model, tmp_path: Path) -> Path:
    """A model with a row whose other weights vanish beside one, for an input that is always 0."""
    arrays = {name: array.copy() for name, array in model.arrays().items()}
    for layer in range(model.config.layers):
        norm = f"blocks.{layer}.recurrence_norm"
        arrays[f"{norm}.weight"][0] = arrays[f"{norm}.bias"][0] = 0
        arrays[f"blocks.{layer}.recurrence.weight_ih_l0"][:, 0] = 1e4
    folder = tmp_path / "uneven"
    save_folder(folder, model.config, arrays, training={}, scores={}, card="")
    return folder


def test_weights_that_8_bits_do_not_hold_are_not_rounded(run: Run, uneven: Path, tmp_path: Path):
    words = ("export", uneven, "--format", "onnx", "--to", tmp_path / "a.onnx")
    status, out, error = run(*words, "--int8")
    assert (status, out) == (1, "")
    assert_one_line(error, "not written: with int8 weights it is", "leave out --int8")
    assert os.listdir(tmp_path) == ["uneven"]
    assert run(*words)[0] == 0


def test_weights_that_are_no_numbers_are_not_exported(run: Run, model: Model, tmp_path: Path):
    arrays = {name: array.copy() for name, array in model.arrays().items()}
    arrays["head.1.bias"][0] = np.nan
    save_folder(tmp_path / "m", model.config, arrays, training={}, scores={}, card="")
    status, out, error = run(
        "export", tmp_path / "m", "--format", "onnx", "--to", tmp_path / "a.onnx"
    )
    assert (status, out) == (1, "")
    assert_one_line(error, "not written")
    assert os.listdir(tmp_path) == ["m"]


def change_metadata(file: Path, **changed: str | None) -> None:
    """Other metadata in place of those of the file; None takes an entry away."""
    model = onnx.load(file)
    told = {entry.key: entry.value for entry in model.metadata_props} | changed
    del model.metadata_props[:]
    kept = {key: value for key, value in told.items() if value is not None}
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, file)


@pytest.mark.parametrize("command", ["classify", "evaluate", "info"])
@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"model_type": None}, ["`speechrnn export` did not write", "have no model_type"]),
        ({"model_type": "silero"}, ["`speechrnn export` did not write", "model_type silero"]),
        ({"format": "99", "version": "7.8.9"}, ["export format 99", "speechrnn 7.8.9"]),
        ({"labels": None}, ["metadata are damaged"]),
        ({"labels": '["yes"'}, ["metadata are damaged"]),
        ({"labels": '["yes", "no"]'}, ["metadata are damaged", "not that of the configuration"]),
        ({"config": "[]"}, ["metadata are damaged"]),
        ({"thresholds": "{}"}, ["metadata are damaged"]),
    ],
    ids=str,
)
def test_a_file_of_somebody_else_or_with_other_metadata_is_one_line(
    run: Run, small: Path, command: str, changed: dict[str, str | None], parts: list[str]
):
    change_metadata(small, **changed)
    words = {
        "classify": ("classify", "--model", small, CLIP),
        "evaluate": ("evaluate", small, "--data", DATA, "--allow-partial"),
        "info": ("info", small),
    }
    status, out, error = run(*words[command])
    assert (status, out) == (1, "")
    assert_one_line(error, small, *parts)


def test_a_file_that_is_none_or_not_there_is_one_line(run: Run, small: Path, tmp_path: Path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(small.read_bytes()[:5_000])
    (tmp_path / "text.onnx").write_text("I am no model\n" * 99)
    (tmp_path / "empty.onnx").touch()
    for name in ("cut", "text", "empty"):
        status, out, error = run("classify", "--model", tmp_path / f"{name}.onnx", CLIP)
        assert (status, out) == (1, "")
        assert_one_line(error, f"{name}.onnx", "export")
    status, out, error = run("classify", "--model", tmp_path / "nowhere.onnx", CLIP)
    assert (status, out) == (1, "")
    assert_one_line(error, "nowhere.onnx: No such file")


@pytest.mark.parametrize(
    "words",
    [
        ["export", "FILE", "--format", "onnx", "--to", "again.onnx"],
        ["thresholds", "FILE", "--data", DATA, "--false-alarms-per-hour", "1"],
        ["transcribe", "--model", "FILE", RECORDING, "--plot", "out.png"],
    ],
    ids=lambda words: words[0],
)
def test_what_needs_a_model_folder_says_so(run: Run, small: Path, words: list[object]):
    """Before anything is computed, and without a word on stdout."""
    status, out, error = run(*(small if word == "FILE" else word for word in words))
    assert (status, out) == (1, "")
    assert_one_line(error, small, "give the folder that it was written from")


def test_torch_does_not_compute_a_file_and_its_weights_are_not_read_back(small: Path):
    with pytest.raises(ValueError, match="an exported file"):
        load(small, backend="torch")
    with pytest.raises(ValueError, match="not on 'cuda'"):
        load(small, device="cuda")
    found = read_model(small)
    assert isinstance(found, ModelFolder)
    with pytest.raises(ValueError, match="not read back"):
        found.weights()

"""The chain in NumPy: the equation, the golden vectors, the same answer however audio is cut."""

import io
import zipfile
from dataclasses import replace

import golden_vectors
import numpy as np
import pytest
import torch
from conftest import REAL_CLIPS, WORDS
from tolerances import CHUNKS, PROBABILITY, RUNTIMES

from speechrnn import load
from speechrnn.audio import read_wave
from speechrnn.config import ModelConfig
from speechrnn.corpus import hash_split
from speechrnn.folder import shipped_models
from speechrnn.model import Model, TorchRuntime
from speechrnn.network import Network, pool, softmax, step_weights

LABELS = ("_silence_", "_unknown_", "yes", "no", "up")
CONFIG = ModelConfig(labels=LABELS, hidden_size=48, layers=3)


def _network(config: ModelConfig = CONFIG, kind: type = np.float32) -> Network:
    torch.manual_seed(0)
    arrays = Model(config).arrays()
    return Network(config, {name: array.astype(kind) for name, array in arrays.items()})


@pytest.fixture(scope="module")
def network() -> Network:
    return _network()


@pytest.fixture(scope="module")
def waves() -> np.ndarray:
    random = np.random.default_rng(1)
    loudness = random.uniform(0, 1, (2, 20_000)) ** 2
    return (random.normal(0, 0.3, (2, 20_000)) * loudness).astype(np.float32)


def _chunked(network: Network, waves: np.ndarray, cuts: list[int]) -> np.ndarray:
    state, parts = None, []
    for part in np.split(waves, cuts, 1):
        logits, state = network.step(part, state)
        parts.append(logits)
    return np.concatenate(parts, 1)


@pytest.mark.parametrize("model", shipped_models())
@pytest.mark.parametrize("wave", golden_vectors.WAVES)
def test_shipped_model_gives_the_golden_vectors_in_numpy(model, wave):
    """As a whole, and in chunks; in those of a few samples only where the wave is short."""
    runtime = load(model).runtime
    short = len(golden_vectors.WAVES[wave]) < 5_000
    for chunk in (None, *golden_vectors.CHUNKS[0 if short else 2 :]):
        apart = golden_vectors.largest_difference(runtime, model, wave, chunk)
        assert apart < RUNTIMES["numpy"]


@pytest.mark.parametrize("model", shipped_models())
@pytest.mark.parametrize("wave", golden_vectors.WAVES)
@pytest.mark.parametrize("backend", ["auto", "torch", "loop"])
def test_shipped_model_gives_the_golden_vectors_in_torch(model, wave, backend):
    network = Model.load(model)
    network.set_backend(backend)
    for chunk in (None, 480):
        runtime = TorchRuntime(network)
        apart = golden_vectors.largest_difference(runtime, model, wave, chunk)
        assert apart < RUNTIMES["torch"]


@pytest.mark.parametrize("model", shipped_models())
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_words_are_those_of_the_golden_vectors(model, backend):
    golden_vectors.assert_words(load(model, backend=backend).runtime, model, PROBABILITY)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"activation": "relu"},
        {"stack": 1, "layers": 1, "hidden_size": 7},
        {"stack": 4, "coefficients": 13, "mel_bands": 20, "feed_forward": 5},
        {"window_ms": 30.0, "hop_ms": 30.0, "stack": 1},
    ],
)
def test_any_shape_is_computed_as_the_reference_loop_computes_it_in_float64(changed, waves):
    config = replace(CONFIG, **changed)
    torch.manual_seed(0)
    model = Model(config).double().eval()
    model.set_backend("loop")
    network = Network(config, model.arrays())
    with torch.inference_mode():
        expected, state = model(torch.from_numpy(waves).double())
    logits, after = network.step(waves.astype(np.float64))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(after.hidden, state.hidden.numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(after.audio, state.audio.numpy())


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the real clips are not beside this checkout")
def test_real_clips_get_the_logits_of_the_reference_loop():
    network, model = load().runtime, Model.load().double()
    model.set_backend("loop")
    for word in WORDS:
        with zipfile.ZipFile(REAL_CLIPS / f"{word}.zip") as archive:
            names = archive.namelist()
            chosen = [name for name in names if hash_split(f"{word}/{name}") == "validation"][:3]
            for name in chosen:
                wave = read_wave(io.BytesIO(archive.read(name)))[None]
                with torch.inference_mode():
                    expected = model(torch.from_numpy(wave).double())[0].numpy()
                apart = np.abs(network.step(wave)[0] - expected).max() / np.abs(expected).max()
                assert apart < RUNTIMES["numpy"]


@pytest.mark.parametrize("chunk", [1, 7, 160, 161, 480, 16_000])
def test_stream_equals_whole_clip(network, waves, chunk):
    waves = waves[:, : 4_000 if chunk < 7 else None]
    whole, _ = network.step(waves)
    chunked = _chunked(network, waves, list(range(chunk, waves.shape[1], chunk)))
    assert np.abs(chunked - whole).max() < CHUNKS * max(1, np.abs(whole).max())


def test_stream_equals_whole_clip_in_random_chunks_with_empty_ones(network, waves):
    cuts = np.sort(np.random.default_rng(0).integers(0, waves.shape[1] + 1, 40)).tolist()
    whole, _ = network.step(waves)
    assert np.abs(_chunked(network, waves, [*cuts, cuts[-1]]) - whole).max() < CHUNKS


def test_future_audio_does_not_change_past_logits(network, waves):
    changed = waves.copy()
    changed[:, 9_600:] = 0  # what twenty steps of 30 ms are computed from is left
    before, after = network.step(waves)[0], network.step(changed)[0]
    assert np.array_equal(before[:, :20], after[:, :20])
    assert not np.array_equal(before[:, 20:], after[:, 20:])


def test_state_does_not_grow_with_the_audio(network, waves):
    sizes = [part.shape for part in network.step(waves[:, :960])[1]]
    assert [part.shape for part in network.step(waves[:, :19_200])[1]] == sizes


def test_no_audio_gives_no_logits_and_the_same_state(network, waves):
    _, state = network.step(waves[:, :1_000])
    logits, after = network.step(waves[:, :0], state)
    assert logits.shape == (2, 0, len(LABELS))
    assert np.array_equal(after.hidden, state.hidden)
    assert np.array_equal(after.audio, state.audio)


def test_a_step_leaves_the_wave_and_the_state_that_it_was_given_as_they_were(network, waves):
    _, state = network.step(waves[:, :960])
    kept, before = waves.copy(), [part.copy() for part in state]
    network.step(waves[:, 960:], state)
    assert np.array_equal(waves, kept)
    assert all(np.array_equal(part, old) for part, old in zip(state, before, strict=True))


def test_clips_of_a_batch_do_not_change_each_other(network, waves):
    alone = network.step(waves[1:])[0]
    assert np.abs(network.step(waves)[0][1:] - alone).max() < CHUNKS


def test_full_scale_and_silence_give_finite_logits_without_a_warning(network):
    for level in (0.0, 1.0, 1e4):
        wave = np.full((1, 16_000), level, np.float32)
        wave[:, ::2] *= -1
        assert np.isfinite(network.step(wave)[0]).all()


def test_pool_weighs_steps_by_their_mean_logit():
    logits = np.array([[[1.0, 3.0], [4.0, 0.0], [-5.0, -5.0]]])
    weight = np.exp([2, 2, -5]) / np.exp([2, 2, -5]).sum()
    np.testing.assert_allclose(pool(logits)[0], weight @ logits[0], rtol=1e-12)


def test_pool_over_a_sliding_window_is_the_pool_of_each_window():
    logits = np.random.default_rng(0).normal(size=(2, 9, 4))
    windows = np.stack([pool(logits[:, start : start + 5]) for start in range(5)], 1)
    np.testing.assert_allclose(pool(logits, 5), windows, rtol=1e-12)
    np.testing.assert_allclose(step_weights(logits, 5).sum(-1), 1, rtol=1e-12)


def test_softmax_of_large_logits_is_finite_and_sums_to_one():
    shares = softmax(np.array([[1e4, -1e4, 1e4]], np.float32))
    np.testing.assert_allclose(shares, [[0.5, 0, 0.5]])

"""The torch model: one answer however audio is cut; only the equation and frame-wise parts."""

import numpy as np
import pytest
import torch
from tolerances import CHUNKS

from speechrnn import network
from speechrnn.config import ModelConfig
from speechrnn.model import Model, TorchRuntime, pool
from speechrnn.recurrence import Recurrence

LABELS = ("_silence_", "_unknown_", "yes", "no", "up")


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(labels=LABELS, hidden_size=48, layers=3)).eval()


@pytest.fixture(scope="module")
def wave() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 20_000) * torch.rand(2, 20_000).square() * 0.3


@torch.inference_mode()
def _chunked(model: Model, wave: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    state, parts = None, []
    for part in wave.split(sizes, 1):
        logits, state = model(part, state)
        parts.append(logits)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("chunk", [1, 7, 160, 161, 480, 16_000])
def test_stream_equals_whole_clip(model, wave, chunk):
    wave = wave[:, : 4_000 if chunk < 7 else None]
    sizes = [chunk] * (wave.shape[1] // chunk) + [wave.shape[1] % chunk]
    with torch.inference_mode():
        whole, _ = model(wave)
    difference = (_chunked(model, wave, sizes) - whole).abs().max().item()
    print(f"chunks of {chunk}: largest difference {difference:.1e}")
    assert difference < CHUNKS


def test_stream_equals_whole_clip_in_random_chunks_with_empty_ones(model, wave):
    random = np.random.default_rng(0)
    cuts = np.sort(random.integers(0, wave.shape[1] + 1, 40))
    sizes = np.diff(np.concatenate(([0], cuts, cuts[-1:], [wave.shape[1]]))).tolist()
    assert 0 in sizes
    with torch.inference_mode():
        assert (_chunked(model, wave, sizes) - model(wave)[0]).abs().max() < CHUNKS


def test_future_audio_does_not_change_past_logits(model, wave):
    changed = wave.clone()
    changed[:, 9_600:] = 0  # what twenty steps of 30 ms hear is left
    with torch.inference_mode():
        before, after = model(wave)[0], model(changed)[0]
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


def test_state_does_not_grow_with_the_audio(model, wave):
    sizes = [tuple(part.shape) for part in model(wave[:, :960])[1]]
    assert [tuple(part.shape) for part in model(wave[:, :19_200])[1]] == sizes


@pytest.mark.parametrize(("stack", "steps"), [(1, 100), (2, 50), (3, 33), (4, 25)])
def test_one_second_gives_as_many_steps_as_its_frames_fill(stack, steps, wave):
    model = Model(ModelConfig(labels=LABELS, hidden_size=8, layers=1, stack=stack))
    assert model(wave[:, :16_000])[0].shape == (2, steps, len(LABELS))
    assert model.config.window_steps == steps
    assert model.config.seconds_per_step == pytest.approx(0.01 * stack)


def test_no_audio_gives_no_logits(model, wave):
    logits, state = model(wave[:, :0])
    assert logits.shape == (2, 0, len(LABELS))
    assert torch.equal(state.hidden, torch.zeros_like(state.hidden))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_model_is_the_vanilla_equation_and_frame_wise_parts(activation, wave):
    """The whole stack written out from the stored weights.

    A gate, a look-ahead or a second memory would show.
    """
    torch.manual_seed(0)
    config = ModelConfig(
        labels=LABELS, hidden_size=12, layers=2, feed_forward=7, activation=activation
    )
    model = Model(config).double().eval()
    w = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    x = model.mfcc(wave[:1, :16_000].double())[0][0].detach().numpy()[:99].reshape(33, 120)

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"]
            + w[f"{name}.bias"]
        )

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def silu(x):
        return x / (1 + np.exp(-x))

    squash = np.tanh if activation == "tanh" else lambda z: np.maximum(z, 0)
    x = linear(x, "input")
    for block in ("blocks.0", "blocks.1"):
        h, states = np.zeros(12), []
        for step in norm(x, f"{block}.recurrence_norm"):
            rnn = f"{block}.recurrence"
            h = squash(
                w[f"{rnn}.weight_ih_l0"] @ step
                + w[f"{rnn}.bias_ih_l0"]
                + w[f"{rnn}.weight_hh_l0"] @ h
            )
            states.append(h)
        x = x + np.array(states)
        ff = f"{block}.feed_forward"
        normed = norm(x, f"{ff}.norm")
        x = x + linear(
            silu(linear(normed, f"{ff}.gate")) * linear(normed, f"{ff}.value"), f"{ff}.outward"
        )
    expected = linear(norm(x, "head.0"), "head.1")
    with torch.inference_mode():
        np.testing.assert_allclose(
            model(wave[:1, :16_000].double())[0][0].numpy(), expected, rtol=1e-5, atol=1e-6
        )


def test_every_layer_with_memory_is_a_vanilla_recurrence(model):
    with_memory = [m for m in model.modules() if isinstance(m, torch.nn.RNNBase)]
    assert len(with_memory) == 3
    assert all(type(m) is Recurrence and m.mode == "RNN_TANH" for m in with_memory)
    assert not any(
        isinstance(m, torch.nn.Conv1d | torch.nn.MultiheadAttention) for m in model.modules()
    )


def test_backends_give_the_same_logits(model, wave):
    with torch.inference_mode():
        fast = model(wave)[0]
        model.set_backend("loop")
        try:
            torch.testing.assert_close(model(wave)[0], fast, atol=CHUNKS, rtol=0)
        finally:
            model.set_backend("auto")


def test_unknown_backend_lists_the_known_ones(model):
    with pytest.raises(
        ValueError, match="backend is 'cudnn': expected one of auto, loop, torch, in_place, triton"
    ):
        model.set_backend("cudnn")


def test_clips_of_a_batch_do_not_see_each_other(model, wave):
    with torch.inference_mode():
        torch.testing.assert_close(model(wave)[0][1:], model(wave[1:])[0], atol=CHUNKS, rtol=0)


def test_pool_weighs_steps_by_their_mean_logit():
    logits = torch.tensor([[[1.0, 3.0], [4.0, 0.0], [-5.0, -5.0]]])
    weight = np.exp([2, 2, -5]) / np.exp([2, 2, -5]).sum()
    np.testing.assert_allclose(pool(logits)[0], weight @ logits[0].numpy(), rtol=1e-6)


def test_a_step_with_a_high_mean_decides():
    logits = torch.zeros(1, 50, 3)
    logits[0, 20] = torch.tensor([30.0, 40.0, 30.0])
    assert pool(logits).softmax(-1)[0, 1] > 0.99


def test_pool_over_a_sliding_window_is_the_pool_of_each_window():
    torch.manual_seed(0)
    logits = torch.randn(2, 9, 4)
    windows = torch.stack([pool(logits[:, start : start + 5]) for start in range(5)], 1)
    torch.testing.assert_close(pool(logits, 5), windows)


def test_pool_of_tensors_is_that_of_arrays():
    torch.manual_seed(0)
    logits = torch.randn(2, 9, 4)
    for window in (None, 5):
        expected = network.pool(logits.numpy(), window)
        np.testing.assert_allclose(pool(logits, window).numpy(), expected, atol=1e-6)


def test_answer_is_the_pool_of_the_logits(model, wave):
    log_mel = model.mfcc.log_mel(model.mfcc.frames(wave, model.initial_state(len(wave)).audio)[0])
    hidden = model.initial_state(len(wave)).hidden
    with torch.inference_mode():
        logits, expected_hidden = model.from_log_mel(log_mel, hidden)
        answer, last = model.answer(log_mel, hidden)
    torch.testing.assert_close(answer, pool(logits), atol=CHUNKS, rtol=0)
    assert torch.equal(last, expected_hidden)


def test_runtime_around_a_model_takes_and_gives_arrays(model, wave):
    runtime = TorchRuntime(model)
    first, state = runtime.step(wave[:, :5_000].numpy())
    second, _ = runtime.step(wave[:, 5_000:].numpy(), state)
    with torch.inference_mode():
        expected = model(wave)[0].numpy()
    np.testing.assert_allclose(np.concatenate((first, second), 1), expected, atol=CHUNKS)


def test_shapes_of_the_configuration_are_those_of_the_model(model):
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == model.config.shapes
    trained = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    assert model.config.parameter_count == sum(trained)
    matrices = [parameter.numel() for parameter in model.parameters() if parameter.ndim == 2]
    assert model.config.step_multiplications == sum(matrices)


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": ("a",)},
        {"labels": ("a", "a")},
        {"layers": 0},
        {"stack": 0},
        {"feed_forward": 0},
        {"activation": "gelu"},
    ],
)
def test_impossible_shapes_are_refused(changed):
    with pytest.raises(ValueError, match="expected"):
        ModelConfig(**{"labels": LABELS, **changed})


def test_multiplications_agree_with_a_count_by_hand() -> None:
    shape = {
        "hidden_size": 5,
        "layers": 2,
        "feed_forward": 7,
        "stack": 2,
        "mel_bands": 10,
        "coefficients": 6,
    }
    labels = ("yes", "no", "up")
    config = ModelConfig(labels=labels, window_ms=20, hop_ms=10, fft_size=512, **shape)
    frame = 320 + 2 * 512 * 9 + 257 * 10 + 10 * 6  # window, FFT, mel, DCT
    step = (
        12 * 5 + 2 * (5 * 5 + 5 * 5 + 3 * 5 * 7) + 5 * 3
    )  # input, of each layer W_ih, W_hh and feed-forward, head
    assert config.frame_multiplications == frame
    assert config.multiplications == 100 * frame + 50 * step

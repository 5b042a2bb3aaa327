"""The front end: causal, and the same numbers as librosa, as torchaudio, and as ever before."""

from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.fft
import torch
import torchaudio
from tolerances import GOLDEN, HALF, LIBRARIES

from speechrnn.config import ModelConfig
from speechrnn.features import Mfcc

CONFIG = ModelConfig(labels=("yes", "no"), stack=1)
WINDOW, HOP = 400, 160


@pytest.fixture(scope="module")
def wave() -> torch.Tensor:
    """A sweep from 100 Hz to 8 kHz that grows out of silence: no file, no random numbers."""
    time = torch.arange(16_000, dtype=torch.float64) / 16_000
    return (time * torch.sin(2 * torch.pi * (100 + 3_950 * time) * time)).float().unsqueeze(0)


def test_one_second_gives_exactly_100_frames(wave):
    features, past = Mfcc(CONFIG)(wave)
    assert features.shape == (1, 100, 40)
    assert past.shape == (1, WINDOW - HOP)


@pytest.mark.parametrize("frame", [0, 1, 37, 98])
def test_a_frame_sees_no_sample_after_its_end(wave, frame):
    mfcc = Mfcc(CONFIG)
    changed = wave.clone()
    changed[:, (frame + 1) * HOP :] = torch.randn(1, wave.shape[1] - (frame + 1) * HOP)
    before, after = mfcc(wave)[0], mfcc(changed)[0]
    assert torch.equal(before[:, : frame + 1], after[:, : frame + 1])
    assert not torch.allclose(before[:, frame + 1], after[:, frame + 1])


def test_a_frame_sees_its_own_last_samples(wave):
    mfcc = Mfcc(CONFIG)
    changed = wave.clone()
    changed[:, 50 * HOP - 20 : 50 * HOP] += 0.5  # the window is small at its edge, not zero
    assert not torch.allclose(mfcc(wave)[0][:, 49], mfcc(changed)[0][:, 49], atol=1e-2)


def test_a_loud_end_of_the_clip_does_not_change_its_start(wave):
    """torchaudio's `top_db` and whisper's maximum would: they are relative to the whole clip."""
    loud = torch.cat((wave[:, :8_000], wave[:, 8_000:] * 100), 1)
    mfcc = Mfcc(CONFIG)
    assert torch.equal(mfcc(wave)[0][:, :50], mfcc(loud)[0][:, :50])


def _aligned(wave: torch.Tensor) -> np.ndarray:
    """Librosa and torchaudio centre a short window in the FFT's frame; ours starts with it."""
    margin = (CONFIG.fft_size - WINDOW) // 2
    return np.pad(wave[0].numpy(), (WINDOW - HOP + margin, margin))


def test_features_equal_librosa(wave):
    mel = librosa.feature.melspectrogram(
        y=_aligned(wave),
        sr=16_000,
        n_fft=512,
        win_length=WINDOW,
        hop_length=HOP,
        center=False,
        n_mels=40,
        fmin=20,
        fmax=7600,
        htk=True,
        norm=None,
    )
    expected = scipy.fft.dct(np.log(mel.T + CONFIG.log_floor), norm="ortho")
    difference = np.abs(Mfcc(CONFIG)(wave)[0][0].numpy() - expected).max()
    print(f"largest difference from librosa: {difference:.1e}")
    assert difference < LIBRARIES


def test_features_equal_torchaudio(wave):
    to_mel = torchaudio.transforms.MelSpectrogram(
        16_000,
        n_fft=512,
        win_length=WINDOW,
        hop_length=HOP,
        center=False,
        f_min=20,
        f_max=7600,
        n_mels=40,
    )
    mel = to_mel(torch.from_numpy(_aligned(wave))).T
    expected = torch.log(mel + CONFIG.log_floor) @ torchaudio.functional.create_dct(40, 40, "ortho")
    difference = (Mfcc(CONFIG)(wave)[0][0] - expected).abs().max().item()
    print(f"largest difference from torchaudio: {difference:.1e}")
    assert difference < LIBRARIES


def test_features_equal_the_golden_file(wave):
    """`tests/golden/mfcc.npy` was written when they first agreed with librosa's."""
    golden = np.load(Path(__file__).parent / "golden" / "mfcc.npy")
    np.testing.assert_allclose(Mfcc(CONFIG)(wave)[0][0].numpy(), golden, rtol=0, atol=GOLDEN)


@pytest.mark.parametrize("chunk", [1, 7, 160, 161, 480])
@pytest.mark.parametrize("group", [1, 2, 3])
def test_chunked_features_equal_whole_ones(wave, chunk, group):
    mfcc, past, parts = Mfcc(replace(CONFIG, stack=group)), None, []
    for part in wave[:, :4_000].split(chunk, 1):
        features, past = mfcc(part, past)
        assert features.shape[1] % group == 0
        parts.append(features)
    whole, rest = mfcc(wave[:, :4_000])
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-4)
    assert torch.equal(past, rest)


def test_digital_silence_is_finite():
    assert Mfcc(CONFIG)(torch.zeros(1, 16_000))[0].isfinite().all()


def test_features_stay_float32_under_autocast(wave):
    mfcc = Mfcc(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mfcc(wave)[0], Mfcc(CONFIG)(wave)[0])


def test_statistics_of_the_training_set_give_mean_0_and_deviation_1():
    from speechrnn.training.frames import log_mel_frames, set_feature_statistics

    torch.manual_seed(0)
    mfcc = Mfcc(CONFIG)
    waves = (torch.randn(300, 16_000) * torch.rand(300, 1) * 3_000).short()
    log_mel = log_mel_frames(mfcc, waves.numpy())
    for _ in range(2):  # what stood there before does not count
        set_feature_statistics(mfcc, log_mel)
    features = mfcc(waves.float() / 32_768)[0].flatten(0, 1)
    torch.testing.assert_close(features.mean(0), torch.zeros(40), atol=1e-3, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(40), atol=1e-3, rtol=0)


@pytest.mark.parametrize("group", [1, 3])
def test_stored_frames_are_those_of_each_clip_but_for_half_precision(group):
    from speechrnn.training.frames import log_mel_frames

    mfcc = Mfcc(replace(CONFIG, stack=group))
    waves = (
        torch.randn(300, 3_200, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-1, 4, 300)[:, None]
    ).short()
    stored = log_mel_frames(mfcc, waves.numpy())
    assert stored.shape == (300, 20 // group * group, 40) and stored.dtype == torch.float16
    for clip in (0, 255, 256, 299):  # the first and last of a part
        expected = mfcc.log_mel(mfcc.frames(waves[clip : clip + 1].float() / 32_768)[0])[0]
        torch.testing.assert_close(stored[clip].float(), expected, rtol=0, atol=HALF)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hop_ms": 30.0}, "must grow"),
        ({"fft_size": 256}, "must grow"),
        ({"mel_high_hz": 9_000.0}, "8000 Hz"),
        ({"coefficients": 41}, "1 to mel_bands"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        replace(CONFIG, **changed)

"""Simulated rooms: they decay as asked, and frames put into them are those of waves in them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import DATA
from test_augmentation import NO_NOISE, NOTHING

from speechrnn import rooms
from speechrnn.audio import read_wave
from speechrnn.config import ModelConfig
from speechrnn.features import Mfcc
from speechrnn.rooms import energy_decays, simulate_rooms


@pytest.fixture(scope="module")
def responses() -> list[np.ndarray]:
    """Of eight rooms with 0.2 to 1 s."""
    return simulate_rooms(8, (0.2, 1.0), 0)


def reverberation_time(response: np.ndarray) -> float:
    """RT60, s, from the fall of the energy that is still to come (Schroeder 1965), -5 to -35 dB."""
    to_come = np.cumsum(np.square(response.astype(np.float64))[::-1])[::-1]
    level_db = 10 * np.log10(to_come / to_come[0])
    from_db, to_db = (int(np.argmax(level_db < db)) for db in (-5, -35))
    return 2 * (to_db - from_db) / 16_000


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0])
def test_rooms_reverberate_as_long_as_asked(seconds: float):
    times = [reverberation_time(h) for h in simulate_rooms(6, (seconds, seconds), 1)]
    assert np.mean(times) == pytest.approx(seconds, rel=0.3)


def test_response_has_energy_1_and_begins_with_the_direct_sound(responses: list[np.ndarray]):
    for response in responses:
        assert response.dtype == np.float32 and response.ndim == 1
        assert np.square(response).sum() == pytest.approx(1, rel=1e-4)
        assert response[0] > 0.8 * np.abs(response[:8]).max()
    firsts = [response[0] for response in responses]
    assert min(firsts) < 0.5 * max(firsts), "some microphones are near, some are far"


def test_rooms_are_a_function_of_the_seed(responses: list[np.ndarray]):
    again, other = (simulate_rooms(2, (0.2, 1.0), seed) for seed in (0, 1))
    assert all(map(np.array_equal, again, responses))
    assert not any(map(np.array_equal, other, responses))


def test_mouth_and_microphone_are_inside_and_as_far_apart_as_said():
    random = np.random.default_rng(0)
    apart = []
    for _ in range(500):
        size, *places = rooms._places(random)
        assert ((size >= (3, 3, 2.3)) & (size <= (10, 8, 4))).all()
        assert all(((place >= 0.5) & (place <= size - 0.5)).all() for place in places)
        apart.append(np.linalg.norm(np.subtract(*places)))
    assert 0.5 <= min(apart) < 1 and 4.5 < max(apart) <= 5


def test_decay_is_the_energy_in_each_frame():
    responses = [np.arange(1, 6, dtype=np.float32), np.ones(20, np.float32)]
    expected = [[1 + 4, 9 + 16, 25, 0], [2, 2, 2, 2]]
    np.testing.assert_array_equal(energy_decays(responses, 2, 4), expected)


def test_frames_put_into_a_room_are_near_those_of_the_wave_in_it(responses: list[np.ndarray]):
    """The powers of reflections add in the mean; in each frame and band they are off by a bit."""
    paths = [path for word in ("yes", "stop", "three") for path in sorted((DATA / word).iterdir())]
    clips = np.zeros((15, 16_000))
    for clip, path in zip(clips, paths[::4], strict=False):
        wave = read_wave(path)[:16_000]
        clip[: len(wave)] = wave
    assert clips.any(1).all()
    mfcc = Mfcc(ModelConfig(labels=("yes", "no")))
    in_rooms = replace(NOTHING, reverberation=1)

    def log_mel(waves: np.ndarray) -> torch.Tensor:
        return mfcc.log_mel(mfcc.frames(torch.from_numpy(waves.astype(np.float32)))[0])

    dry = log_mel(clips)
    without, within = [], []
    for response in responses:
        size = clips.shape[1] + len(response)
        spectrum = np.fft.rfft(clips, size) * np.fft.rfft(response, size)
        truth = log_mel(np.fft.irfft(spectrum, size)[:, : clips.shape[1]])
        decay = torch.from_numpy(energy_decays([response], 160, dry.shape[1]))
        heard = in_rooms(dry, NO_NOISE, mfcc.config.log_floor, decay)
        spoken = truth > truth.amax((1, 2), keepdim=True) - np.log(1e4)  # 40 dB
        for errors, frames in ((without, dry), (within, heard)):
            errors.append(10 / np.log(10) * (frames - truth)[spoken])
    before, after = torch.cat(without), torch.cat(within)
    assert after.abs().mean() < 3 < before.abs().mean() / 2, "dB"
    assert after.mean().abs() < 1.5, "dB"

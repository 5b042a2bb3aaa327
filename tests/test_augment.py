"""What `speechrnn.augment` promises: nothing beyond what was asked, noise at the ratio drawn, masks no larger than said."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from speechrnn.augment import Augmentation

NOTHING = Augmentation(
    shift_ms=0, gain_db=0, noise_probability=0, snr_low_db=0, snr_high_db=0,
    time_masks=0, time_mask_frames=0, mel_masks=0, mel_mask_bands=0,
)  # fmt: skip
NO_NOISE = torch.empty(0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stretches(masked: Tensor) -> list[int]:
    """Lengths of the runs of True."""
    return [len(run) for run in "".join("x" if m else " " for m in masked.tolist()).split()]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_zeros_change_nothing() -> None:
    wave, log_mel = random(5, 800), random(5, 98, 40)
    assert NOTHING.wave(wave, random(4_000)).equal(wave)
    torch.testing.assert_close(NOTHING.log_mel(log_mel), log_mel)


@pytest.mark.parametrize("sizes", [{"time_mask_frames": 0, "mel_mask_bands": 0}, {"time_masks": 0, "mel_masks": 0}])
def test_masks_of_no_size_or_number_change_nothing(sizes: dict[str, int]) -> None:
    log_mel = random(5, 98, 40)
    torch.testing.assert_close(replace(Augmentation(), **sizes).log_mel(log_mel), log_mel)


def test_input_is_left_as_it_was() -> None:
    wave, noise, log_mel = random(5, 800), random(4_000), random(5, 98, 40)
    copies = wave.clone(), noise.clone(), log_mel.clone()
    Augmentation().wave(wave, noise)
    Augmentation().log_mel(log_mel)
    assert wave.equal(copies[0]) and noise.equal(copies[1]) and log_mel.equal(copies[2])


def test_shift_goes_up_to_its_bound_to_both_sides_and_fills_with_silence() -> None:
    samples, reach = 100, 8  # 0.5 ms
    wave = torch.arange(1.0, samples + 1).repeat(2_000, 1)
    shifted = replace(NOTHING, shift_ms=0.5).wave(wave, NO_NOISE)
    assert shifted.shape == wave.shape
    shifts = set()
    for row in shifted:
        place = int(row.argmax())
        shift = place + 1 - int(row[place])
        expected = torch.zeros(samples)
        expected[max(0, shift) : samples + min(0, shift)] = wave[0, max(0, -shift) : samples - max(0, shift)]
        assert row.equal(expected)
        shifts.add(shift)
    assert shifts == set(range(-reach, reach + 1))


def test_gain_lies_within_its_bounds_and_is_one_number_a_clip() -> None:
    wave = random(1_000, 50)
    ratio = replace(NOTHING, gain_db=6).wave(wave, NO_NOISE) / wave
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    decibels = 20 * ratio[:, 0].log10()
    assert -6.001 <= decibels.min() < -5.9 and 5.9 < decibels.max() <= 6.001
    assert abs(decibels.mean()) < 0.5


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.0, 30.0])
@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_noise_has_the_ratio_drawn(snr_db: float, level: float) -> None:
    wave, noise = level * random(20, 4_000), 0.3 * random(50_000, seed=1)
    noise[25_000:] *= 1e-2  # quiet parts of a noise are raised too
    added = replace(NOTHING, noise_probability=1, snr_low_db=snr_db, snr_high_db=snr_db).wave(wave, noise) - wave
    measured = 10 * (wave.square().sum(1) / added.square().sum(1)).log10()
    torch.testing.assert_close(measured, torch.full((20,), snr_db), atol=0.02, rtol=0)


def test_ratios_fill_their_range() -> None:
    wave = random(2_000, 100)
    added = replace(NOTHING, noise_probability=1, snr_low_db=5, snr_high_db=30).wave(wave, random(9_000, seed=1)) - wave
    measured = 10 * (wave.square().sum(1) / added.square().sum(1)).log10()
    assert 4.99 < measured.min() < 5.2 and 29.8 < measured.max() < 30.01
    assert measured.mean().item() == pytest.approx(17.5, abs=0.7)


def test_noise_comes_from_every_place_of_the_noise() -> None:
    ramp = torch.arange(1.0, 31.0)
    added = replace(NOTHING, noise_probability=1).wave(torch.ones(1_000, 10), ramp) - 1
    starts = {round((row[0] / (row[1] - row[0])).item()) for row in added}  # a scaled ramp still tells where it starts
    assert starts == set(range(1, 22))


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.8, 1.0])
def test_share_of_noisy_clips_is_the_probability(probability: float) -> None:
    wave = random(4_000, 20)
    added = replace(NOTHING, noise_probability=probability).wave(wave, random(1_000, seed=1)) - wave
    noisy = (added != 0).any(1)
    assert noisy.float().mean().item() == pytest.approx(probability, abs=0.03 if 0 < probability < 1 else 0)


@pytest.mark.parametrize("length", [0, 799])
def test_noise_shorter_than_a_clip_is_not_used(length: int) -> None:
    wave = random(4, 800)
    assert replace(NOTHING, noise_probability=1).wave(wave, random(length)).equal(wave)


@pytest.mark.parametrize("quiet", ["clip", "noise", "both"])
def test_digital_silence_stays_finite(quiet: str) -> None:
    wave, noise = random(30, 800), random(4_000, seed=1)
    if quiet != "noise":
        wave.zero_()
    if quiet != "clip":
        noise.zero_()
    noisy = Augmentation(snr_low_db=-20, snr_high_db=-20, noise_probability=1).wave(wave, noise)
    assert noisy.isfinite().all()
    assert quiet == "noise" or not noisy.any(), "a silent clip stays silent: its level times any ratio is zero"


@pytest.mark.parametrize(("axis", "masks", "size"), [(1, 1, 10), (1, 3, 10), (2, 1, 5), (2, 2, 5)])
def test_masks_are_no_more_and_no_larger_than_said(axis: int, masks: int, size: int) -> None:
    names = ("time_masks", "time_mask_frames") if axis == 1 else ("mel_masks", "mel_mask_bands")
    log_mel = random(400, 98, 40) + 7
    masked = replace(NOTHING, **{names[0]: masks, names[1]: size}).log_mel(log_mel)
    assert masked.shape == log_mel.shape
    changed = ~torch.isclose(masked, log_mel, atol=1e-4).all(3 - axis)
    runs = [stretches(row) for row in changed]
    assert max(map(len, runs)) == masks
    assert max(map(sum, runs)) <= masks * size
    if masks == 1:
        assert {sum(run) for run in runs} == set(range(size + 1)), "every size from none to the largest"
    assert changed.any(0)[:-1].all(), "every place is masked in some clip"  # but the last: SpecAugment starts in [0, T - t)


def test_masked_value_is_the_mean_of_the_clip_and_the_rest_is_kept() -> None:
    log_mel = random(50, 98, 40) + torch.arange(50.0)[:, None, None]
    masked = replace(Augmentation(), time_masks=2, mel_masks=2).log_mel(log_mel)
    changed = ~torch.isclose(masked, log_mel, atol=1e-4)
    assert 0.02 < changed.float().mean() < 0.4
    mean = log_mel.mean((1, 2), keepdim=True).expand_as(masked)
    torch.testing.assert_close(masked[changed], mean[changed])


def test_clips_of_a_batch_differ_from_each_other() -> None:
    waves = Augmentation().wave(random(1, 8_000).expand(20, -1), random(20_000, seed=1))
    assert len({str(row.tolist()) for row in waves}) == 20
    frames = Augmentation().log_mel(random(1, 98, 40).expand(20, -1, -1))
    assert len({str(clip.tolist()) for clip in frames}) == 20


def test_same_torch_seed_gives_the_same_and_another_seed_another() -> None:
    def augmented(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        return Augmentation().wave(random(4, 2_000), random(9_000, seed=1)), Augmentation().log_mel(random(4, 98, 40))

    one, again, other = augmented(1), augmented(1), augmented(2)
    assert one[0].equal(again[0]) and one[1].equal(again[1])
    assert not one[0].equal(other[0]) and not one[1].equal(other[1])


def test_defaults_reach_as_far_as_the_recipes_they_come_from() -> None:
    assert (Augmentation().shift_ms, Augmentation().noise_probability) == (100, 0.8)
    wave = torch.zeros(500, 16_000)
    wave[:, 8_000] = 1
    places = replace(NOTHING, shift_ms=100).wave(wave, NO_NOISE).argmax(1) - 8_000
    assert -1_600 <= places.min() < -1_500 and 1_500 < places.max() <= 1_600
    assert math.isclose(places.float().mean().item(), 0, abs_tol=150)

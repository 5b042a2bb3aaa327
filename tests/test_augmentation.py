"""What `speechrnn.training.augmentation` promises: the changes asked for, within their bounds."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tolerances import LOG_POWER
from torch import Tensor

from speechrnn.training.augmentation import Augmentation

FLOOR = 1e-6
SILENCE = math.log(FLOOR)
NOTHING = Augmentation(
    shift_frames=0, gain_db=0, noise_probability=0, snr_low_db=0, snr_high_db=0,
    time_masks=0, time_mask_frames=0, mel_masks=0, mel_mask_bands=0, pseudo_words=0,
)  # fmt: skip
NO_NOISE = torch.empty(0, 40)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def frames(power: Tensor) -> Tensor:
    """Log mel frames of this power, as the features give them."""
    return torch.log(power + FLOOR)


def power(log_mel: Tensor) -> Tensor:
    """In float64: in single precision the floor would not come off exactly."""
    return log_mel.double().exp() - FLOOR


def decibels(ratio: Tensor) -> Tensor:
    return 10 * ratio.log10()


def stretches(masked: Tensor) -> list[int]:
    """Lengths of the runs of True."""
    return [len(run) for run in "".join("x" if m else " " for m in masked.tolist()).split()]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("level", [1e4, 1.0, 1e-5, 0.0])
def test_zeros_change_nothing_but_the_last_digit(level: float) -> None:
    log_mel = frames(level * random(5, 99, 40).square())
    torch.testing.assert_close(
        NOTHING(log_mel, random(200, 40), FLOOR), log_mel, rtol=0, atol=LOG_POWER
    )
    unknown = torch.ones(5, dtype=torch.bool)
    assert NOTHING.make_pseudo_words(log_mel, unknown).equal(log_mel)


@pytest.mark.parametrize(
    "sizes", [{"time_mask_frames": 0, "mel_mask_bands": 0}, {"time_masks": 0, "mel_masks": 0}]
)
def test_masks_of_no_size_or_number_change_nothing(sizes: dict[str, int]) -> None:
    log_mel = random(5, 99, 40)
    masked = replace(
        NOTHING,
        **{"time_masks": 2, "mel_masks": 2, "time_mask_frames": 9, "mel_mask_bands": 9} | sizes,
    )
    torch.testing.assert_close(masked(log_mel, NO_NOISE, FLOOR), log_mel, rtol=0, atol=LOG_POWER)


def test_input_is_left_as_it_was() -> None:
    log_mel, noise, unknown = (
        random(5, 99, 40),
        random(400, 40),
        torch.tensor([True, False, True, True, False]),
    )
    copies = log_mel.clone(), noise.clone(), unknown.clone()
    everything = Augmentation(time_masks=2, mel_masks=2, pseudo_words=1)
    everything(log_mel, noise, FLOOR)
    everything.make_pseudo_words(log_mel, unknown)
    assert log_mel.equal(copies[0]) and noise.equal(copies[1]) and unknown.equal(copies[2])


def test_shift_goes_up_to_its_bound_to_both_sides_and_fills_with_silence() -> None:
    length, reach = 50, 8
    ramp = torch.arange(1.0, length + 1)  # the power is the frame's number
    clips = frames(ramp[:, None].expand(2_000, length, 4))
    shifted = replace(NOTHING, shift_frames=reach)(clips, NO_NOISE, FLOOR)
    assert shifted.shape == clips.shape
    shifts = set()
    for row in shifted:
        place = int(row[:, 0].argmax())
        shift = place + 1 - round(power(row[place, 0]).item())
        expected = torch.full((length, 4), SILENCE)
        expected[max(0, shift) : length + min(0, shift)] = clips[
            0, max(0, -shift) : length - max(0, shift)
        ]
        torch.testing.assert_close(row, expected, rtol=0, atol=LOG_POWER)
        shifts.add(shift)
    assert shifts == set(range(-reach, reach + 1))


def test_gain_lies_within_its_bounds_and_is_one_number_a_clip() -> None:
    clips = frames(random(1_000, 10, 4).square() + 0.1)
    change = decibels(power(replace(NOTHING, gain_db=6)(clips, NO_NOISE, FLOOR)) / power(clips))
    torch.testing.assert_close(change, change[:, :1, :1].expand_as(change), rtol=0, atol=1e-4)
    change = change[:, 0, 0]
    assert -6.001 <= change.min() < -5.9 and 5.9 < change.max() <= 6.001
    assert abs(change.mean()) < 0.5


def test_gain_does_not_raise_silence() -> None:
    silent = torch.full((50, 10, 4), SILENCE)
    torch.testing.assert_close(
        replace(NOTHING, gain_db=20)(silent, NO_NOISE, FLOOR), silent, rtol=0, atol=LOG_POWER
    )


def added_noise(augmentation: Augmentation, clips: Tensor, noise: Tensor) -> Tensor:
    """What an augmentation adds to the power of each frame and band."""
    return power(augmentation(clips, noise, FLOOR)) - power(clips)


def measured_snr(clips: Tensor, added: Tensor) -> Tensor:
    return decibels(power(clips).sum((1, 2)) / added.sum((1, 2)))


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.0, 30.0])
@pytest.mark.parametrize("level", [1e3, 1e-3])
def test_noise_has_the_ratio_drawn(snr_db: float, level: float) -> None:
    clips = frames(level * random(20, 50, 40).square())
    quiet_half = torch.ones(1_000, 1)
    quiet_half[500:] = 1e-4  # quiet parts of a noise are raised too
    noise = frames(0.1 * quiet_half * random(1_000, 40, seed=1).square())
    added = added_noise(
        replace(NOTHING, noise_probability=1, snr_low_db=snr_db, snr_high_db=snr_db), clips, noise
    )
    torch.testing.assert_close(
        measured_snr(clips, added), torch.full((20,), snr_db).double(), atol=0.02, rtol=0
    )


def test_ratios_fill_their_range() -> None:
    clips, noise = frames(random(2_000, 10, 8).square()), frames(random(500, 8, seed=1).square())
    added = added_noise(
        replace(NOTHING, noise_probability=1, snr_low_db=5, snr_high_db=30), clips, noise
    )
    measured = measured_snr(clips, added)
    assert 4.99 < measured.min() < 5.2 and 29.8 < measured.max() < 30.01
    assert measured.mean().item() == pytest.approx(17.5, abs=0.7)


def test_noise_comes_from_every_place_of_the_noise() -> None:
    ramp = frames(torch.arange(1.0, 31.0)[:, None].expand(30, 4))
    added = added_noise(
        replace(NOTHING, noise_probability=1), frames(torch.ones(1_000, 10, 4)), ramp
    )[:, :, 0]
    starts = {
        round((row[0] / (row[1] - row[0])).item()) for row in added
    }  # a scaled ramp still tells where it starts
    assert starts == set(range(1, 22))


def test_noise_keeps_the_shape_of_its_frames_and_bands() -> None:
    clips, noise = (
        frames(torch.ones(5, 30, 40)),
        frames(random(30, 40, seed=1).square()),
    )  # one place to take it from
    added = added_noise(replace(NOTHING, noise_probability=1), clips, noise)
    for clip in added:
        torch.testing.assert_close(
            clip / clip.mean(), power(noise) / power(noise).mean(), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.8, 1.0])
def test_share_of_noisy_clips_is_the_probability(probability: float) -> None:
    clips, noise = frames(random(4_000, 10, 4).square()), frames(random(100, 4, seed=1).square())
    added = added_noise(replace(NOTHING, noise_probability=probability), clips, noise)
    noisy = added.sum((1, 2)) > 0.5 * power(clips).sum((1, 2))
    assert noisy.float().mean().item() == pytest.approx(
        probability, abs=0.03 if 0 < probability < 1 else 0
    )


@pytest.mark.parametrize("length", [0, 49])
def test_noise_shorter_than_a_clip_is_left_out(length: int) -> None:
    clips = frames(random(4, 50, 40).square())
    noisy = replace(NOTHING, noise_probability=1)(
        clips, frames(random(length, 40, seed=1).square()), FLOOR
    )
    torch.testing.assert_close(noisy, clips, rtol=0, atol=LOG_POWER)


def test_narrow_band_takes_the_lowest_and_the_highest_bands_of_some_clips() -> None:
    clips = frames(torch.full((400, 3, 40), 100.0))
    heard = power(replace(NOTHING, band_limit=0.5)(clips, NO_NOISE, FLOOR))
    narrow = (heard[:, 0] < 99).any(-1)
    assert 0.4 < narrow.float().mean() < 0.6
    assert torch.allclose(heard[:, :, 7:26], torch.tensor(100.0).double())  # 500 Hz to 3 kHz
    lost = heard[narrow][:, 0]
    assert (lost[:, 30:] < 4).any(-1).float().mean() > 0.4  # 15 dB or more, above 4 kHz
    assert (lost[:, 0] < 4).float().mean() > 0.8
    assert torch.equal(heard[:, 0], heard[:, 2])  # all the time


def test_clip_in_a_room_is_its_power_convolved_with_the_decay_of_that_room() -> None:
    decays = torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.25, 0.125]])
    clips = frames(random(40, 20, 4).square())
    heard = power(replace(NOTHING, reverberation=1)(clips, NO_NOISE, FLOOR, decays))
    dry = torch.nn.functional.pad(power(clips), (0, 0, 2, 0))  # silence before it
    rooms = [decay[0] * dry[:, 2:] + decay[1] * dry[:, 1:-1] + decay[2] * dry[:, :-2]
             for decay in decays.double()]  # fmt: skip
    drawn = [torch.isclose(heard, room, rtol=1e-4).all((1, 2)) for room in rooms]
    assert (drawn[0] ^ drawn[1]).all() and 5 < drawn[0].sum() < 35


def test_decay_may_be_longer_than_the_clip() -> None:
    clips = frames(torch.ones(1, 3, 2))
    heard = power(
        replace(NOTHING, reverberation=1)(clips, NO_NOISE, FLOOR, torch.full((1, 9), 0.5))
    )
    torch.testing.assert_close(
        heard[0, :, 0], torch.tensor([0.5, 1.0, 1.5]).double(), rtol=0, atol=1e-5
    )


def test_share_of_clips_in_a_room_is_what_was_asked() -> None:
    clips = frames(random(4_000, 9, 2).square())
    room = torch.tensor([[0.5, 0.5]])
    heard = replace(NOTHING, reverberation=0.3)(clips, NO_NOISE, FLOOR, room)
    changed = ~torch.isclose(heard, clips, atol=1e-4).all((1, 2))
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("rooms", [None, torch.zeros(0, 9)], ids=["not given", "none"])
def test_without_rooms_no_clip_is_put_into_one(rooms: Tensor | None) -> None:
    clips = frames(random(5, 9, 2).square())
    heard = replace(NOTHING, reverberation=1)(clips, NO_NOISE, FLOOR, rooms)
    torch.testing.assert_close(heard, clips, rtol=0, atol=LOG_POWER)


def test_rooms_reverberate_what_was_shifted_and_not_the_noise() -> None:
    clips, noise = torch.full((200, 30, 2), SILENCE), frames(torch.ones(60, 2))
    clips[:, 29] = 0  # its room is heard where it is moved to an earlier place
    room = torch.tensor([[0.5, 0.25]])
    shifted = replace(NOTHING, reverberation=1, shift_frames=5)(clips, NO_NOISE, FLOOR, room)
    moved = power(shifted)[:, :29, 0]
    early = moved[moved[:, :28].amax(1) > 0.4]
    assert len(early) > 50
    torch.testing.assert_close(
        early.sort(1).values[:, -2:], torch.tensor([[0.25, 0.5]]).double().expand(len(early), 2),
        rtol=0, atol=1e-5,
    )  # fmt: skip
    noisy = replace(
        NOTHING, reverberation=1, noise_probability=1, snr_low_db=0, snr_high_db=0
    )(clips, noise, FLOOR, room)  # fmt: skip
    added = power(noisy)[:, :29]
    torch.testing.assert_close(added, torch.full_like(added, 0.5 / 30), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rooms_are_exact_in_mixed_precision(dtype: torch.dtype) -> None:
    clips, room = frames(1e6 * random(5, 20, 4).square()), torch.tensor([[0.5, 0.3, 0.2]])
    in_rooms = replace(NOTHING, reverberation=1)
    exact = in_rooms(clips, NO_NOISE, FLOOR, room)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(
            in_rooms(clips, NO_NOISE, FLOOR, room), exact, rtol=0, atol=LOG_POWER
        )


@pytest.mark.parametrize("quiet", ["clip", "noise", "both"])
def test_digital_silence_stays_finite(quiet: str) -> None:
    clips, noise = frames(random(30, 50, 40).square()), frames(random(400, 40, seed=1).square())
    if quiet != "noise":
        clips.fill_(SILENCE)
    if quiet != "clip":
        noise.fill_(SILENCE)
    noisy = Augmentation(snr_low_db=-20, snr_high_db=-20, noise_probability=1)(clips, noise, FLOOR)
    assert noisy.isfinite().all()
    if quiet != "noise":  # its level times any ratio is zero
        torch.testing.assert_close(noisy, clips, rtol=0, atol=LOG_POWER)


@pytest.mark.parametrize(("axis", "masks", "size"), [(1, 1, 10), (1, 3, 10), (2, 1, 5), (2, 2, 5)])
def test_masks_are_no_more_and_no_larger_than_asked(axis: int, masks: int, size: int) -> None:
    names = ("time_masks", "time_mask_frames") if axis == 1 else ("mel_masks", "mel_mask_bands")
    log_mel = random(400, 99, 40) + 7
    masked = replace(NOTHING, **{names[0]: masks, names[1]: size})(log_mel, NO_NOISE, FLOOR)
    assert masked.shape == log_mel.shape
    changed = ~torch.isclose(masked, log_mel, atol=1e-4).all(3 - axis)
    runs = [stretches(row) for row in changed]
    assert max(map(len, runs)) == masks
    assert max(map(sum, runs)) <= masks * size
    if masks == 1:
        assert {sum(run) for run in runs} == set(range(size + 1)), (
            "every size from none to the largest"
        )
    assert changed.any(0)[:-1].all(), (
        "every place is masked in some clip"
    )  # but the last: SpecAugment starts in [0, T - t)


def test_masked_value_is_the_mean_of_the_clip_and_the_rest_is_kept() -> None:
    log_mel = random(50, 99, 40) + torch.arange(50.0)[:, None, None] / 5
    masked = replace(NOTHING, time_masks=2, time_mask_frames=10, mel_masks=2, mel_mask_bands=5)(
        log_mel, NO_NOISE, FLOOR
    )
    changed = ~torch.isclose(masked, log_mel, atol=1e-4)
    assert 0.02 < changed.float().mean() < 0.4
    mean = log_mel.mean((1, 2), keepdim=True).expand_as(masked)
    torch.testing.assert_close(masked[changed], mean[changed], rtol=0, atol=1e-4)


def test_clips_of_a_batch_differ_from_each_other() -> None:
    clips = Augmentation()(
        frames(random(1, 99, 40).square()).expand(20, -1, -1),
        frames(random(500, 40).square()),
        FLOOR,
    )
    assert len({str(clip.tolist()) for clip in clips}) == 20


def test_same_torch_seed_gives_the_same_and_another_seed_another() -> None:
    everything = Augmentation(time_masks=1, mel_masks=1, pseudo_words=0.5)
    clips, noise, unknown = (
        frames(random(12, 99, 40).square()),
        frames(random(500, 40, seed=1).square()),
        torch.arange(12) % 2 > 0,
    )

    def augmented(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        return everything(clips, noise, FLOOR), everything.make_pseudo_words(clips, unknown)

    one, again, other = augmented(1), augmented(1), augmented(2)
    assert one[0].equal(again[0]) and one[1].equal(again[1])
    assert not one[0].equal(other[0]) and not one[1].equal(other[1])


def test_defaults_reach_as_far_as_the_recipes_they_come_from() -> None:
    assert (
        Augmentation().shift_frames,
        Augmentation().noise_probability,
        Augmentation().pseudo_words,
    ) == (10, 0.8, 0)
    clips = torch.full((500, 99, 2), SILENCE)
    clips[:, 50] = 0
    places = (
        replace(NOTHING, shift_frames=Augmentation().shift_frames)(clips, NO_NOISE, FLOOR)[
            :, :, 0
        ].argmax(1)
        - 50
    )
    assert (places.min(), places.max()) == (-10, 10)
    assert math.isclose(places.float().mean().item(), 0, abs_tol=1)


# Words that nobody said


def kind_of(made: Tensor, word: Tensor, clips: Tensor, unknown: Tensor) -> str:
    """What was made of a word, from which clips (B, T, M) of its batch."""
    if made.equal(word.flip(0)):
        return "reversed"
    words = clips[unknown]
    for cut in range(len(word) // 3, 2 * (len(word) // 3)):
        if (made[cut:] == words[:, cut:]).all((1, 2)).any():
            if made[:cut].equal(word[:cut]):
                return "goes on as another"
            if (made[:cut] == clips[:, :cut]).all((1, 2)).any():
                return "begins as any clip"
    both = (words.exp() + word.exp()).log()
    assert torch.isclose(made, both, rtol=0, atol=LOG_POWER).all((1, 2)).any(), (
        "made of something else"
    )
    return "two at once"


def test_pseudo_words_are_a_quarter_each_of_four_kinds() -> None:
    clips, unknown = random(600, 30, 4), torch.arange(600) % 2 == 0
    made = replace(NOTHING, pseudo_words=1).make_pseudo_words(clips, unknown)
    kinds = Counter(
        kind_of(one, word, clips, unknown)
        for one, word in zip(made[unknown], clips[unknown], strict=True)
    )
    assert set(kinds) == {"reversed", "two at once", "goes on as another", "begins as any clip"}
    assert all(count / 300 == pytest.approx(1 / 4, abs=0.1) for count in kinds.values()), kinds


def test_only_unknown_words_become_pseudo_words() -> None:
    log_mel, unknown = random(200, 30, 4), torch.arange(200) % 2 == 0
    made = replace(NOTHING, pseudo_words=1).make_pseudo_words(log_mel, unknown)
    assert made[~unknown].equal(log_mel[~unknown])
    changed = (made != log_mel).any((1, 2))
    assert changed[unknown].float().mean() > 0.95, "a word may go on as itself"


def test_commands_only_begin_pseudo_words_and_end_within_their_middle_third() -> None:
    """A whole command in a pseudo-word would teach that commands are unknown."""
    clips, unknown = random(600, 30, 4), torch.arange(600) % 2 == 0
    clips[~unknown] = math.nan  # and shows wherever a piece of it went
    made = replace(NOTHING, pseudo_words=1).make_pseudo_words(clips, unknown)[unknown]
    taken = made.isnan().any(2)
    lengths = set(taken.sum(1).tolist())
    assert lengths == {0, *range(10, 20)}
    assert all(row[: row.sum()].all() for row in taken), "from the first frame on"
    assert taken.any(1).float().mean().item() == pytest.approx(1 / 8, abs=0.05), "half of a quarter"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_pseudo_words_is_what_was_asked(share: float) -> None:
    log_mel, unknown = random(4_000, 9, 2), torch.arange(4_000) % 2 == 0
    made = replace(NOTHING, pseudo_words=share).make_pseudo_words(log_mel, unknown)
    changed = (made != log_mel).any((1, 2))
    assert changed[unknown].float().mean().item() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("count", [0, 1])
def test_batch_with_no_or_one_unknown_word_is_no_trouble(count: int) -> None:
    log_mel, unknown = random(4, 30, 4), torch.arange(4) < count
    for _ in range(20):
        made = replace(NOTHING, pseudo_words=1).make_pseudo_words(log_mel, unknown)
        assert made.isfinite().all() and made[count:].equal(log_mel[count:])

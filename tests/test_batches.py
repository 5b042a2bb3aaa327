"""What `speechrnn.training.batches` promises: draws by the seed, and frames with their targets."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import DATA
from tolerances import HALF

from speechrnn.audio import from_int16
from speechrnn.config import SILENCE, UNKNOWN, ModelConfig
from speechrnn.corpus import TEN_WORDS, Clips
from speechrnn.features import Mfcc
from speechrnn.training.batches import (
    NO_WORD,
    PIECES,
    Batches,
    SpeechCommands,
    read_answers,
    save_answers,
)

LABELS = (SILENCE, UNKNOWN, *TEN_WORDS)
COUNTS = {"yes": 160, "no": 10, "bed": 81, "cat": 1, SILENCE: 20}


@pytest.fixture(scope="module")
def synthetic() -> SpeechCommands:
    module = SpeechCommands(str(DATA), "v2-12", batch_size=50, allow_partial=True)
    module.setup("fit")
    module.compute_frames(Mfcc(ModelConfig(LABELS)))
    return module


# The sampler


@pytest.mark.parametrize("draws", [48, 50, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("weighted", [True, False])
def test_shares_of_all_ranks_together_are_the_batches_of_one_process(
    draws: int, ranks: int, weighted: bool
) -> None:
    weights = torch.rand(50, generator=torch.Generator().manual_seed(0)) if weighted else None
    whole = list(Batches(weights, draws, 16, seed=4))
    assert [len(batch) for batch in whole] == [16] * (draws // 16) + [draws % 16] * (draws % 16 > 0)
    if len(whole) > 1 and 0 < len(whole[-1]) < ranks:  # too few for every rank to get one
        whole[-2:] = [whole[-2] + whole[-1]]
    shares = [Batches(weights, draws, 16, 4, rank, ranks) for rank in range(ranks)]
    assert (
        [len(share) for share in shares]
        == [len(list(share)) for share in shares]
        == [len(whole)] * ranks
    )
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(index for part in parts for index in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("draws", range(20, 45))
def test_no_rank_gets_an_empty_batch(draws: int) -> None:
    shares = [list(Batches(None, draws, 12, rank=rank, ranks=5)) for rank in range(5)]
    assert all(batch for share in shares for batch in share)
    assert sorted(index for share in shares for batch in share for index in batch) == list(
        range(draws)
    )


def test_batches_are_a_function_of_seed_and_epoch_alone() -> None:
    def drawn(seed: int, epoch: int) -> list[list[int]]:
        batches = Batches(torch.ones(40), 100, 7, seed)
        batches.set_epoch(epoch)
        return list(batches)

    draws = {(seed, epoch): drawn(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert all(drawn(*key) == batches for key, batches in draws.items())
    assert len({str(batches) for batches in draws.values()}) == 6
    going_on = Batches(torch.ones(40), 100, 7, 1)
    for epoch in (0, 1, 2):
        going_on.set_epoch(epoch)
        assert list(going_on) == draws[1, epoch]


def test_clips_are_drawn_by_their_weights() -> None:
    drawn = Counter(
        index for batch in Batches(torch.tensor([0.0, 1.0, 3.0]), 4_000, 100) for index in batch
    )
    assert set(drawn) == {1, 2} and drawn[2] / drawn[1] == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize(("clips", "batch_size"), [(10, 4), (8, 4), (3, 4)])
def test_batches_without_weights_have_each_clip_once_in_order(clips: int, batch_size: int) -> None:
    batches = Batches(None, clips, batch_size)
    assert [index for batch in batches for index in batch] == list(range(clips))
    batches.set_epoch(3)
    assert [index for batch in batches for index in batch] == list(range(clips))


def test_batches_neither_depend_on_the_global_random_states_nor_change_them() -> None:
    def states() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    def seeded(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = states()
        batches = list(Batches(torch.ones(9), 9, 4, seed=1))
        assert states() == before
        return batches

    assert seeded(1) == seeded(2)


# The data module


def module_with(clips: Clips, **settings: float) -> SpeechCommands:
    """A data module with these clips, whose frames (n, 1, 1) are their places."""
    module = SpeechCommands("nowhere", "v2-12", **settings)
    module.clips = {"training": clips, "validation": clips}
    places = torch.arange(len(clips), dtype=torch.float16).view(-1, 1, 1)
    module.frames = {"training": places, "validation": places.float()}
    return module


def clips_with(counts: dict[str, int]) -> Clips:
    names = [f"{word}/{i}" for word, count in counts.items() for i in range(count)]
    words = [name.partition("/")[0] for name in names]
    targets = [LABELS.index(word if word in LABELS else UNKNOWN) for word in words]
    return Clips(np.zeros((len(names), 1), np.int16), np.array(targets), names, LABELS)


@pytest.mark.parametrize("balance", [0.0, 0.5, 0.75, 1.0])
def test_weights_are_shares_of_groups_and_powers_of_counts_within(balance: float) -> None:
    clips = clips_with(COUNTS)
    module = module_with(clips, balance=balance, unknown_share=0.2, silence_share=0.1)
    weights = module.weights(clips)
    assert weights.sum().item() == pytest.approx(1) and (weights > 0).all()
    of_word: Counter[str] = Counter()
    for name, weight in zip(clips.names, weights.tolist(), strict=True):
        of_word[name.partition("/")[0]] += weight
    assert of_word[SILENCE] == pytest.approx(0.1)
    assert of_word["bed"] + of_word["cat"] == pytest.approx(0.2)
    assert of_word["yes"] / of_word["no"] == pytest.approx(16 ** (1 - balance))
    assert of_word["bed"] / of_word["cat"] == pytest.approx(81 ** (1 - balance))


def test_share_of_a_group_without_clips_goes_to_the_words() -> None:
    clips = clips_with({"yes": 3, "no": 1})
    module = module_with(clips, balance=0.0, unknown_share=0.2, silence_share=0.1)
    assert module.weights(clips).tolist() == pytest.approx([0.25] * 4)


def test_training_epoch_has_as_many_draws_as_the_protocols_split() -> None:
    loader = module_with(clips_with(COUNTS), batch_size=64).train_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    assert sum(len(targets) for _, targets in batches) == 170 + 2 * 17
    assert [len(log_mel) for log_mel, _ in batches] == [64, 64, 64, 12]


def test_training_batches_are_frames_of_clips_with_their_targets() -> None:
    clips = clips_with(COUNTS)
    batches = module_with(clips, batch_size=64).train_dataloader()
    log_mel, targets = (torch.cat(part) for part in zip(*batches, strict=True))
    assert log_mel.dtype == torch.float16 and log_mel.shape[1:] == (1, 1)
    places = log_mel[:, 0, 0].int().numpy()
    assert np.array_equal(targets.numpy(), clips.targets[places])
    assert set(targets.tolist()) == set(clips.targets.tolist())


def test_validation_batches_are_the_frames_of_the_split_once(synthetic: SpeechCommands) -> None:
    batches = list(synthetic.val_dataloader())
    clips = synthetic.clips["validation"]
    assert [len(targets) for _, targets in batches] == [50, 50, 50, 50, 16]
    mfcc = Mfcc(ModelConfig(LABELS))
    frames, _ = mfcc.frames(torch.from_numpy(from_int16(clips.waves)))
    log_mel = torch.cat([log_mel for log_mel, _ in batches])
    assert log_mel.dtype == torch.float32
    torch.testing.assert_close(log_mel, mfcc.log_mel(frames))
    assert torch.cat([targets for _, targets in batches]).tolist() == clips.targets.tolist()


def test_training_frames_are_those_of_the_clips_in_half_precision(
    synthetic: SpeechCommands,
) -> None:
    clips = synthetic.clips["training"]
    mfcc = Mfcc(ModelConfig(LABELS))
    places = [0, 255, 256, len(clips) - 1]  # at the edges of what is computed at once
    frames, _ = mfcc.frames(torch.from_numpy(from_int16(clips.waves[places])))
    computed = synthetic.frames["training"]
    assert computed.dtype == torch.float16 and len(computed) == len(clips)
    torch.testing.assert_close(computed[places].float(), mfcc.log_mel(frames), rtol=0, atol=HALF)


def test_training_batches_follow_the_run_seed_and_the_epoch(
    synthetic: SpeechCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def targets(seed: int, epoch: int) -> list[int]:
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        loader = synthetic.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return next(iter(loader))[1].tolist()

    assert targets(1, 0) == targets(1, 0)
    assert len({str(targets(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_noise_of_training_is_its_part_of_all_noises(synthetic: SpeechCommands) -> None:
    assert synthetic.noise.dtype == np.int16
    assert len(synthetic.noise) == 5 * 0.8 * 480_000


# Pieces of recordings


@pytest.fixture(scope="module")
def with_pieces(tmp_path_factory: pytest.TempPathFactory) -> SpeechCommands:
    """The synthetic corpus, with a recording of noise as talk and one of a tone as sounds."""
    folder = tmp_path_factory.mktemp("recordings")
    time = np.arange(80_000) / 16_000
    waves = {"talk": np.random.default_rng(0).normal(0, 0.1, 80_000), "sounds": np.sin(6e3 * time)}
    for kind, wave in waves.items():
        (folder / kind).mkdir()
        soundfile.write(folder / kind / "a.wav", 0.3 * wave, 16_000)
        soundfile.write(folder / kind / "short.wav", 0.3 * wave[:1_600], 16_000)
    module = SpeechCommands(
        str(DATA), "v2-12", 50, allow_partial=True,
        talk=str(folder / "talk"), talk_share=0.2, sounds=str(folder / "sounds"), sounds_share=0.1,
    )  # fmt: skip
    module.setup("fit")
    module.compute_frames(Mfcc(ModelConfig(LABELS, stack=3)))
    return module


def test_pieces_of_recordings_are_unknown_words_in_the_share_that_was_asked_for(
    with_pieces: SpeechCommands, synthetic: SpeechCommands
) -> None:
    loader = with_pieces.train_dataloader()
    numbers = torch.tensor([number for batch in loader.sampler for number in batch])
    clips = len(with_pieces.clips["training"])
    talk = (numbers >= clips) & (numbers < clips + PIECES)
    assert talk.float().mean() == pytest.approx(0.2, abs=0.03)
    assert (numbers >= clips + PIECES).float().mean() == pytest.approx(0.1, abs=0.03)
    assert len(numbers) == pytest.approx(synthetic.train_dataloader().sampler.draws / 0.7, abs=1)
    frames, targets = loader.dataset[[0, clips, clips + PIECES + 3, 1]]
    assert targets.tolist()[1:3] == [LABELS.index(UNKNOWN), NO_WORD]
    assert torch.equal(frames[[0, 3]], with_pieces.frames["training"][[0, 1]])
    assert torch.equal(frames[2], with_pieces.pieces[1].take(torch.tensor([3]))[0])


def test_answers_of_another_model_come_with_their_clips(
    with_pieces: SpeechCommands,
    synthetic: SpeechCommands,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pieces have none."""
    clips = with_pieces.clips["training"]
    answers = np.random.default_rng(0).normal(size=(len(clips), len(LABELS)))
    save_answers(tmp_path / "answers.npz", clips, answers)
    for module in (with_pieces, synthetic):
        monkeypatch.setattr(module, "answers", read_answers(tmp_path / "answers.npz", clips))
        items = module.train_dataloader().dataset
        numbers = [4, 2, *([len(clips)] * bool(module.pieces))]
        _, targets, others = items[numbers]
        assert targets[:2].tolist() == clips.targets[[4, 2]].tolist()
        assert torch.equal(others[:2], torch.from_numpy(answers[[4, 2]]).float())
        assert others[2:].isnan().all()
    assert len(with_pieces.val_dataloader().dataset[0]) == 2


def test_answers_to_other_clips_and_damaged_ones_are_refused(
    synthetic: SpeechCommands, tmp_path: Path
) -> None:
    clips, file = synthetic.clips["training"], tmp_path / "answers.npz"
    fewer = Clips(clips.waves[1:], clips.targets[1:], clips.names[1:], clips.labels)
    save_answers(file, fewer, np.zeros((len(fewer), len(LABELS))))
    for broken, message in (
        (file.read_bytes(), "of other clips than these"),
        (file.read_bytes()[:-500], "is damaged"),
        (b"", "is damaged"),
    ):
        file.write_bytes(broken)
        module = SpeechCommands(str(DATA), allow_partial=True, answers=str(file))
        with pytest.raises(ValueError, match=message):
            module.setup("fit")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"--data\.answers null to train without"):
        module.setup("fit")  # that failed before


def test_an_epoch_of_few_clips_draws_each_several_times(
    with_pieces: SpeechCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_they_come = with_pieces.draws()
    for least, expected in ((as_they_come - 1, as_they_come), (5_000, 5_000)):
        monkeypatch.setattr(with_pieces, "least_draws", least)
        drawn = sum(map(len, with_pieces.train_dataloader().sampler))
        assert drawn == pytest.approx(expected / 0.7, abs=1), "pieces come on top"


def test_prior_is_how_much_more_often_a_label_is_drawn_than_it_is_met(
    with_pieces: SpeechCommands,
) -> None:
    prior = with_pieces.log_prior().exp()
    met = Counter(with_pieces.clips["validation"].targets.tolist())
    clips = len(with_pieces.clips["validation"])
    unknown, silence = LABELS.index(UNKNOWN), LABELS.index(SILENCE)
    # A piece of sounds is drawn half as unknown, half as silence.
    expected = {unknown: 0.7 * 0.15 + 0.2 + 0.05, silence: 0.7 * 0.08 + 0.05}
    for label, drawn in expected.items():
        assert prior[label] == pytest.approx(drawn / (met[label] / clips), rel=1e-4)
    words = prior[2:]
    assert torch.allclose(words, words[:1])
    assert words[0] == pytest.approx(
        0.7 * 0.77 / (1 - (met[unknown] + met[silence]) / clips), rel=1e-4
    )


def test_prior_of_a_label_that_is_met_but_never_drawn_is_a_number(
    with_pieces: SpeechCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_pieces, "shares", {UNKNOWN: 0.15, SILENCE: 0.0})
    monkeypatch.setattr(with_pieces, "recordings", {with_pieces.talk: 0.3})
    assert torch.isfinite(with_pieces.log_prior()).all()


def test_validation_holds_no_pieces(with_pieces: SpeechCommands) -> None:
    loader = with_pieces.val_dataloader()
    assert sum(len(targets) for _, targets in loader) == len(with_pieces.clips["validation"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"talk_share": 0.1}, "expected a folder of recordings"),
        ({"talk": "a", "talk_share": 0.6, "sounds": "b", "sounds_share": 0.4}, "less than 1"),
        ({"protocol": "v2-35", "talk": "a", "talk_share": 0.1}, "which v2-35 does not have"),
    ],
)
def test_impossible_pieces_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeechCommands(str(DATA), **settings)


def test_a_folder_without_recordings_is_named(tmp_path: Path) -> None:
    module = SpeechCommands(str(DATA), allow_partial=True, talk=str(tmp_path), talk_share=0.1)
    module.setup("fit")
    with pytest.raises(FileNotFoundError, match="no audio files in this folder"):
        module.compute_frames(Mfcc(ModelConfig(LABELS)))

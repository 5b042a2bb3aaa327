"""What `speechrnn.corpus` promises: official splits, seeded draws, the samples of the files."""

import hashlib
import itertools
import math
import random
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import DATA, REAL_CLIPS, ROOT

from speechrnn import corpus as module
from speechrnn.config import SILENCE, UNKNOWN
from speechrnn.corpus import (
    NOISE,
    PROTOCOLS,
    TEN_WORDS,
    V1_WORDS,
    V2_WORDS,
    Clips,
    folder_labels,
    hash_split,
    join_noises,
    load_noises,
    load_split,
    random_cuts,
)

LISTS = ROOT.parent / "shared" / "data" / "lists"  # of the official splits, where they are at hand
SPLITS = ("training", "validation", "testing")
REST_LABELS = (SILENCE, UNKNOWN, *TEN_WORDS)

needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists are not at hand")
needs_clips = pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the real clips are not at hand")


def official_list(version: str, split: str) -> list[str]:
    return (LISTS / f"v0.0{version}_{split}_list.txt").read_text().split()


def write(path: Path, samples: np.ndarray | Iterable[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        path, np.asarray(samples, dtype=np.int16), 16_000, format="WAV", subtype="PCM_16"
    )
    return path


def clip_of(name: str) -> np.ndarray:
    """Samples that tell each file from every other."""
    return np.random.default_rng(list(name.encode())).integers(-32768, 32768, 20)


def write_clips(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        write(folder / name, clip_of(name))
    return folder


def assert_waves_are_of_their_names(clips: Clips) -> None:
    for wave, target, name in zip(clips.waves, clips.targets.tolist(), clips.names, strict=True):
        word = name.split("/")[0]
        assert clips.labels[target] == (word if word in clips.labels else UNKNOWN)
        if word != SILENCE:
            assert wave[:20].tolist() == clip_of(name).tolist(), name


def named(split: str, count: int) -> list[str]:
    """Names of files that the corpus's rule puts into a split."""
    names = (f"{i:08x}_nohash_0.wav" for i in itertools.count())
    return list(itertools.islice((name for name in names if hash_split(name) == split), count))


def small_corpus() -> list[str]:
    """Files of a corpus: in each split eight clips of each of ten words, four of five others."""
    return [
        f"{word}/{name}"
        for split in SPLITS
        for words, count in ((TEN_WORDS, 8), (("bed", "bird", "cat", "dog", "wow"), 4))
        for word in words
        for name in named(split, count)
    ]


def noise_of_sign_by_split() -> np.ndarray:
    """Above zero in training's part, alternating in validation's, below zero in testing's."""
    noise = np.full(400_000, 10_000)
    noise[320_000:360_000:2] *= -1
    noise[360_000:] *= -1
    return noise


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_clips(tmp_path_factory.mktemp("corpus"), small_corpus())
    write(folder / NOISE / "signs.wav", noise_of_sign_by_split())
    return folder


def noise_of(folder: Path, split: str) -> np.ndarray:
    return join_noises(load_noises(folder, split))


def partial(folder: Path, protocol: str, split: str, seed: int = 0) -> Clips:
    return load_split(folder, protocol, split, seed=seed, allow_partial=True)


# The corpus's own splits


@needs_lists
@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("split", ["validation", "testing"])
def test_hash_rule_agrees_with_every_line_of_the_official_list(version: str, split: str) -> None:
    names = official_list(version, split)
    assert len(names) > 6_000
    assert [name for name in names if hash_split(name) != split] == []


@pytest.fixture
def listed_corpus(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus that seems to have each file of the protocol's official lists, and a noise.

    The files are made up, since to touch so many takes seconds on a busy disk; clips are one sample
    long.
    """
    files: dict[Path, list[Path]] = {}
    for name in sorted(
        official_list(protocol[1], "validation") + official_list(protocol[1], "testing")
    ):
        word, _, file = name.partition("/")
        files.setdefault(tmp_path / word, []).append(tmp_path / word / file)
    for word_folder in files:
        word_folder.mkdir()
    write(tmp_path / NOISE / "noise.wav", np.full(1_000, 100))
    find_audio = module.find_audio
    monkeypatch.setattr(
        module,
        "find_audio",
        lambda paths: files[paths[0]] if paths[0] in files else find_audio(paths),
    )
    monkeypatch.setattr(module, "CLIP_SAMPLES", 1)
    monkeypatch.setattr(
        module, "_read", lambda folder, names: (np.zeros((len(names), 1), np.int16), {})
    )
    return tmp_path


@needs_lists
@pytest.mark.parametrize(
    ("protocol", "split", "clips"),
    [
        ("v1-12", "validation", 3_093),
        ("v1-12", "testing", 3_081),
        ("v2-12", "validation", 4_445),
        ("v2-12", "testing", 4_890),
        ("v1-30", "validation", 6_798),
        ("v1-30", "testing", 6_835),
        ("v2-35", "validation", 9_981),
        ("v2-35", "testing", 11_005),
    ],
)
def test_split_has_the_official_number_of_clips(
    protocol: str, split: str, clips: int, listed_corpus: Path
) -> None:
    loaded = load_split(listed_corpus, protocol, split)
    assert len(loaded) == len(loaded.waves) == len(loaded.targets) == clips
    counts = Counter(loaded.labels[target] for target in loaded.targets.tolist())
    if protocol == "v2-12" and split == "testing":  # as in the official archive
        assert (counts[UNKNOWN], counts[SILENCE], counts["down"], counts["go"], counts["up"]) == (
            408,
            408,
            406,
            402,
            425,
        )
    if SILENCE in loaded.labels:
        assert (
            counts[UNKNOWN]
            == counts[SILENCE]
            == math.ceil(sum(counts[word] for word in TEN_WORDS) / 10)
        )
    else:
        assert sorted(loaded.names) == sorted(official_list(protocol[1], split))


def test_protocols_have_the_labels_of_their_names() -> None:
    assert {name: len(folder_labels("", name)) for name in PROTOCOLS if name != "own"} == {
        "v1-12": 12,
        "v2-12": 12,
        "v1-30": 30,
        "v2-35": 35,
    }
    assert folder_labels("", "v2-12") == REST_LABELS
    assert set(V1_WORDS) < set(V2_WORDS)


def test_lists_in_the_folder_win_over_the_hash_rule(tmp_path: Path) -> None:
    names = [
        f"{word}/{name}"
        for word in V2_WORDS[:2]
        for name in named("training", 2) + named("testing", 1)
    ]
    write_clips(tmp_path, names)
    (tmp_path / "validation_list.txt").write_text(names[0] + "\n")
    with pytest.raises(ValueError, match=r"testing_list\.txt is not: expected both, or none"):
        partial(tmp_path, "v2-35", "testing")
    (tmp_path / "testing_list.txt").write_text(names[1] + "\n")
    assert partial(tmp_path, "v2-35", "validation").names == [names[0]]
    assert partial(tmp_path, "v2-35", "testing").names == [names[1]]
    assert sorted(partial(tmp_path, "v2-35", "training").names) == sorted(names[2:])


@pytest.mark.parametrize("protocol", ["v2-12", "v2-35"])
def test_splits_are_disjoint_and_leave_out_only_unknown_words(protocol: str, corpus: Path) -> None:
    splits = {split: partial(corpus, protocol, split) for split in SPLITS}
    names = [
        name for clips in splits.values() for name in clips.names if not name.startswith(SILENCE)
    ]
    assert len(names) == len(set(names))
    left_out = set(small_corpus()) - set(names)
    drawn = {
        split: Counter(clips.labels[t] for t in clips.targets.tolist())
        for split, clips in splits.items()
    }
    if protocol == "v2-35":
        assert left_out == set()
    else:
        assert all(name.split("/")[0] not in TEN_WORDS for name in left_out)
        assert {split: (count[UNKNOWN], count[SILENCE]) for split, count in drawn.items()} == {
            "training": (20, 8),
            "validation": (8, 8),
            "testing": (8, 8),
        }
    for clips in splits.values():
        assert_waves_are_of_their_names(clips)


def test_incomplete_split_is_refused_with_what_is_missing(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError) as error:
        load_split(corpus, "v2-35", "validation")
    message = str(error.value)
    start = "100 clips for v2-35 validation, expected 9,981: 9,881 are missing (there are "
    present, _, absent = message.partition("; none at all of ")
    assert start in present and "yes" in present
    assert absent.startswith("backward, eight, five") and "yes" not in absent
    assert "--allow-partial" in message and str(corpus) in message and "\n" not in message
    assert len(partial(corpus, "v2-35", "validation")) == 100
    assert "9,881 are missing" in capsys.readouterr().err


def test_training_without_a_word_is_refused(tmp_path: Path) -> None:
    write_clips(
        tmp_path, [f"{word}/{named('training', 1)[0]}" for word in V2_WORDS if word != "tree"]
    )
    with pytest.raises(
        ValueError,
        match=r"34 clips for v2-35 training, expected 84,843: .*; none at all of tree; complete",
    ):
        load_split(tmp_path, "v2-35", "training")
    assert len(partial(tmp_path, "v2-35", "training")) == 34


@pytest.mark.parametrize("protocol", ["v2-12", "v2-35"])
def test_folder_without_a_clip_is_refused_even_if_partial(protocol: str, tmp_path: Path) -> None:
    write(tmp_path / NOISE / "noise.wav", np.ones(200_000))
    with pytest.raises(ValueError, match=r"0 clips for .*; check the folder and its lists"):
        partial(tmp_path, protocol, "training")


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="no protocol 'v3': expected one of v1-12, v2-12, v1-30, v2-35, own"
    ):
        load_split(tmp_path, "v3", "training")
    with pytest.raises(
        ValueError, match="no split 'test': expected one of training, validation, testing"
    ):
        load_split(tmp_path, "v2-12", "test")
    with pytest.raises(FileNotFoundError, match="speechrnn download"):
        load_split(tmp_path / "none", "v2-12", "training")


# The official test archives


@pytest.fixture
def test_archive(tmp_path: Path) -> Path:
    names = [
        f"{label}/{i}_nohash_{j}.wav.wav"
        for label in REST_LABELS
        for i in range(3)
        for j in range(2)
    ]
    return write_clips(tmp_path, names)


def test_test_archive_is_read_as_it_is(test_archive: Path) -> None:
    clips = partial(test_archive, "v2-12", "testing", seed=5)
    assert Counter(clips.labels[target] for target in clips.targets.tolist()) == dict.fromkeys(
        REST_LABELS, 6
    )
    for wave, name in zip(clips.waves, clips.names, strict=True):
        assert wave[:20].tolist() == clip_of(name).tolist()
    with pytest.raises(
        ValueError,
        match=r"expected 4,890: 4,818 are missing \(there are _silence_ 6, .*\); complete",
    ):
        load_split(test_archive, "v2-12", "testing")


@pytest.mark.parametrize("split", ["training", "validation"])
def test_test_archive_is_refused_for_other_splits(split: str, test_archive: Path) -> None:
    with pytest.raises(ValueError, match=f"is a test archive: it has no {split} split"):
        partial(test_archive, "v2-12", split)


def test_surplus_is_reported_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clips(tmp_path, [f"{word}/{name}" for word in V2_WORDS for name in named("training", 2)])
    protocol = module.Protocol(V2_WORDS, False, {"training": 60})
    monkeypatch.setitem(module.PROTOCOLS, "v2-35", protocol)
    with pytest.raises(ValueError, match="70 clips for v2-35 training, expected 60: 10 too many"):
        load_split(tmp_path, "v2-35", "training")


# Own words


@pytest.mark.parametrize("file", ["anna_nohash_{}", "{}", "take {}"])
def test_one_speaker_or_unnamed_ones_still_fill_every_split_of_every_word(
    file: str, tmp_path: Path
) -> None:
    write_clips(
        tmp_path,
        [
            f"{word}/{file.format(number)}.wav"
            for word in ("lights", "music", "heat")
            for number in range(10)
        ],
    )
    for split, each in (("training", 8), ("validation", 1), ("testing", 1)):
        counts = Counter(name.split("/")[0] for name in load_split(tmp_path, "own", split).names)
        assert counts == {"lights": each, "music": each, "heat": each}


def own_names(speakers: int = 12) -> list[str]:
    return [
        f"{word}/{chr(97 + i)}_nohash_{j}.wav"
        for word in ("lights on", "music")
        for i in range(speakers)
        for j in range(2)
    ]


def test_own_labels_are_the_folders(tmp_path: Path) -> None:
    write_clips(tmp_path, own_names())
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").touch()
    assert folder_labels(tmp_path, "own") == ("lights on", "music")
    clips = load_split(tmp_path, "own", "training")
    assert clips.labels == ("lights on", "music")
    assert_waves_are_of_their_names(clips)


def test_own_other_words_and_noises_become_unknown_and_silence(tmp_path: Path) -> None:
    write_clips(
        tmp_path,
        [
            *own_names(),
            *(name.replace("music", UNKNOWN) for name in own_names() if "music" in name),
        ],
    )
    write(tmp_path / NOISE / "fan.wav", noise_of_sign_by_split())
    for split in SPLITS:
        clips = load_split(tmp_path, "own", split)
        assert clips.labels == (SILENCE, UNKNOWN, "lights on", "music")
        counts = Counter(clips.labels[target] for target in clips.targets.tolist())
        assert counts["lights on"] == counts["music"] == counts[UNKNOWN] > 0
        assert counts[SILENCE] == math.ceil(0.1 * (counts["lights on"] + counts["music"]))
        assert NOISE not in {name.split("/")[0] for name in clips.names}


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_own_words_are_refused(count: int, tmp_path: Path) -> None:
    write_clips(tmp_path, own_names()[:count])
    with pytest.raises(ValueError, match=f"{count} folders of words, expected two or more"):
        load_split(tmp_path, "own", "training")


@pytest.mark.parametrize("speakers", [3, 4, 12, 20])
def test_own_splits_share_no_speaker_and_none_is_empty(speakers: int, tmp_path: Path) -> None:
    write_clips(tmp_path, own_names(speakers))
    loaded = [load_split(tmp_path, "own", split) for split in SPLITS]
    who = [{module.speaker(name) for name in clips.names} for clips in loaded]
    assert sum(map(len, who)) == len(set.union(*who)) == speakers
    assert [len(who[1]), len(who[2])] == [max(1, round(speakers / 10))] * 2
    assert sorted(name for clips in loaded for name in clips.names) == sorted(own_names(speakers))


def test_no_number_of_speakers_from_three_up_leaves_a_split_empty() -> None:
    for speakers in range(3, 100):
        split_of = module._rank_splits([f"word/{i}_nohash_0.wav" for i in range(speakers)])
        assert set(split_of.values()) == set(SPLITS), speakers


def test_own_lists_may_name_folders_and_files_with_spaces_and_accents(tmp_path: Path) -> None:
    names = [
        f"{word}/{who}_nohash_0.wav"
        for word in ("lights on", "música")
        for who in ("Ana María", "Ben", "Jo")
    ]
    write_clips(tmp_path, names)
    for split, line_ending, first in (("validation", "\n", 0), ("testing", "\r\n", 1)):
        (tmp_path / f"{split}_list.txt").write_bytes(
            "".join(n + line_ending for n in names[first::3]).encode()
        )
    assert [sorted(load_split(tmp_path, "own", split).names) for split in SPLITS] == [
        names[2::3],
        names[::3],
        names[1::3],
    ]


# Draws


def test_draws_are_the_same_again_and_in_another_order_of_writing(
    corpus: Path, tmp_path: Path
) -> None:
    names = small_corpus()
    random.Random(0).shuffle(names)
    write(tmp_path / NOISE / "signs.wav", noise_of_sign_by_split())
    write_clips(tmp_path, names)
    for split in SPLITS:
        first, again, other = (
            partial(folder, "v2-12", split, seed=3) for folder in (corpus, corpus, tmp_path)
        )
        assert first.names == again.names == other.names
        assert np.array_equal(first.waves, again.waves)
        assert np.array_equal(first.waves, other.waves)
        assert np.array_equal(first.targets, again.targets)
        assert np.array_equal(first.targets, other.targets)


def test_drawn_unknown_words_do_not_depend_on_the_order_of_files(
    monkeypatch: pytest.MonkeyPatch, corpus: Path
) -> None:
    names = partial(corpus, "v2-12", "validation").names
    find_audio, folders = module.find_audio, module._folders
    monkeypatch.setattr(module, "find_audio", lambda paths: find_audio(paths)[::-1])
    monkeypatch.setattr(module, "_folders", lambda folder: folders(folder)[::-1])
    assert sorted(partial(corpus, "v2-12", "validation").names) == sorted(names)


def test_draws_differ_with_the_seed(corpus: Path) -> None:
    one, two = (partial(corpus, "v2-12", "validation", seed=seed) for seed in (1, 2))
    assert one.names != two.names
    assert [n for n in one.names if n.split("/")[0] in TEN_WORDS] == [
        n for n in two.names if n.split("/")[0] in TEN_WORDS
    ]
    silences = [clips.waves[clips.targets == clips.labels.index(SILENCE)] for clips in (one, two)]
    assert not np.array_equal(*silences)


def test_global_random_states_neither_decide_the_draws_nor_are_changed(corpus: Path) -> None:
    def states() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    def seeded(seed: int) -> Clips:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = states()
        clips = partial(corpus, "v2-12", "validation")
        assert states() == before
        return clips

    one, two = seeded(1), seeded(2)
    assert one.names == two.names and np.array_equal(one.waves, two.waves)


# Silence


def test_splits_share_no_sample_of_the_noises(tmp_path: Path) -> None:
    ramp = np.arange(-32768, 32768)  # the sample is its place
    write(tmp_path / NOISE / "ramp.wav", ramp)
    parts = [noise_of(tmp_path, split) for split in SPLITS]
    assert [len(part) for part in parts] == pytest.approx(
        [0.8 * 65_536, 0.1 * 65_536, 0.1 * 65_536], abs=1
    )
    assert np.concatenate(parts).tolist() == ramp.tolist()


def test_every_noise_gives_each_split_its_part(tmp_path: Path) -> None:
    write(tmp_path / NOISE / "a.wav", [1] * 80 + [2] * 10 + [3] * 10)
    write(tmp_path / NOISE / "b.wav", [4] * 800 + [5] * 100 + [6] * 100)
    counts = [Counter(noise_of(tmp_path, split).tolist()) for split in SPLITS]
    assert counts == [{1: 80, 4: 800}, {2: 10, 5: 100}, {3: 10, 6: 100}]


def test_noises_are_told_apart_by_their_names(tmp_path: Path) -> None:
    write(tmp_path / NOISE / "fan.wav", [1] * 80 + [2] * 10 + [3] * 10)
    write(tmp_path / NOISE / "deeper" / "tap.wav", [4] * 800 + [5] * 100 + [6] * 100)
    (tmp_path / NOISE / "README.md").write_text("no noise\n")
    for split, fan, tap in (
        ("training", [1] * 80, [4] * 800),
        ("validation", [2] * 10, [5] * 100),
        ("testing", [3] * 10, [6] * 100),
    ):
        noises = load_noises(tmp_path, split)
        assert {name: part.tolist() for name, part in noises.items()} == {"fan": fan, "tap": tap}
        assert all(part.dtype == np.int16 for part in noises.values())
        assert join_noises(noises).tolist() == tap + fan, "in the order of their paths"


def test_folder_without_noises_has_no_noise(tmp_path: Path) -> None:
    assert load_noises(tmp_path, "training") == {}
    joined = noise_of(tmp_path, "training")
    assert joined.shape == (0,) and joined.dtype == np.int16


def test_silence_is_cut_from_the_part_of_its_split(corpus: Path) -> None:
    for split in SPLITS:
        clips = partial(corpus, "v2-12", split)
        cuts = clips.waves[clips.targets == clips.labels.index(SILENCE)]
        cuts = np.sign(cuts[cuts.any(1)])
        signs = {"training": (1, 1), "testing": (-1, -1)}.get(split)
        alternate = [(1, -1), (-1, 1)]
        assert len(cuts) > 3
        assert {tuple(cut[:2].tolist()) for cut in cuts} <= ({signs} if signs else set(alternate))
        assert all(np.array_equal(cut, np.tile(cut[:2], 8_000)) for cut in cuts)


def test_silence_lies_within_40_db_and_a_tenth_of_it_is_digital_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLIP_SAMPLES", 4)
    write(tmp_path / NOISE / "noise.wav", np.full(100, 10_000))
    levels = module._silence(tmp_path, "training", 2_000, seed=0)[:, 0]
    zero = levels == 0
    assert zero.mean() == pytest.approx(0.1, abs=0.03)
    decibels = 20 * np.log10(levels[~zero] / 10_000)
    assert -40.1 < decibels.min() < -39 and -1 < decibels.max() <= 0
    assert np.median(decibels) == pytest.approx(-20, abs=2)


# Samples


def test_clips_hold_every_int16_value_exactly(tmp_path: Path) -> None:
    values = np.pad(np.arange(-32768, 32768), (0, 5 * 16_000 - 65_536)).reshape(5, 16_000)
    for i, samples in enumerate(values):
        write(tmp_path / "ramp" / f"{i}.wav", samples)
    write_clips(tmp_path, ["word/0.wav"])
    for split in ("validation", "testing"):
        (tmp_path / f"{split}_list.txt").touch()
    clips = load_split(tmp_path, "own", "training")
    assert clips.waves.dtype == np.int16
    assert clips.names[:5] == [f"ramp/{i}.wav" for i in range(5)]
    assert np.array_equal(clips.waves[:5], values)


def test_shorter_clip_is_padded_at_its_end(tmp_path: Path) -> None:
    waves, unreadable = module._read(write(tmp_path / "a.wav", [7, -7, 32767]).parent, ["a.wav"])
    assert waves.shape == (1, 16_000) and not unreadable
    assert waves[0, :3].tolist() == [7, -7, 32767] and not waves[0, 3:].any()


@pytest.mark.parametrize("start", [0, 1, 20_001, 32_000])
def test_longer_clip_is_cut_to_its_loudest_second(start: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    samples = generator.integers(-50, 50, 48_000)
    samples[start : start + 16_000] = generator.choice(
        [-32768, 20_000], 16_000
    )  # squares beyond 16 and sums beyond 32 bits
    write(tmp_path / "a.wav", samples)
    assert (
        module._read(tmp_path, ["a.wav"])[0][0].tolist() == samples[start : start + 16_000].tolist()
    )


def test_unreadable_clip_is_named_and_refused_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.PROTOCOLS, "v2-35", module.Protocol(V2_WORDS))
    names = [f"{word}/{name}" for word in V2_WORDS for name in named("training", 2)]
    write_clips(tmp_path, names)
    (tmp_path / names[7]).write_bytes(b"RIFF of nothing")
    (tmp_path / names[20]).write_bytes(b"")
    with pytest.raises(
        ValueError,
        match=rf"2 of 70 clips cannot be read, the first is .*{names[7]}: .*--allow-partial",
    ):
        load_split(tmp_path, "v2-35", "training")
    capsys.readouterr()
    clips = partial(tmp_path, "v2-35", "training")
    assert clips.names == [name for name in names if name not in (names[7], names[20])]
    assert len(clips.waves) == len(clips.targets) == 68
    assert_waves_are_of_their_names(clips)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 2
    assert names[7] in lines[0] and names[20] in lines[1]


def test_split_whose_every_clip_is_unreadable_is_refused_even_if_partial(tmp_path: Path) -> None:
    for word in V2_WORDS:
        (tmp_path / word).mkdir()
        (tmp_path / word / named("training", 1)[0]).touch()
    with pytest.raises(ValueError, match="35 of 35 clips cannot be read"):
        partial(tmp_path, "v2-35", "training")


@needs_clips
@pytest.mark.parametrize("word", ["bird", "tree"])
def test_real_clips_are_read_into_their_splits(word: str, tmp_path: Path) -> None:
    """Each clip in the split that the hash of its speaker says, in no other, and none lost."""
    with zipfile.ZipFile(REAL_CLIPS / f"{word}.zip") as archive:
        archive.extractall(tmp_path / word)
    loaded = {split: partial(tmp_path, "v2-35", split) for split in SPLITS}
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*_nohash_*"))
    assert names
    assert sorted(name for clips in loaded.values() for name in clips.names) == names
    for split, clips in loaded.items():
        assert {hash_split(name) for name in clips.names} == {split}
        assert {clips.labels[target] for target in clips.targets.tolist()} == {word}
        assert (abs(clips.waves.astype(int)).max(1) > 500).all(), "a word is louder than -36 dB"
        for name, wave in zip(clips.names, clips.waves, strict=True):
            assert not wave[soundfile.info(tmp_path / name).frames :].any()


# Random cuts of noise


def test_cuts_come_from_every_place_at_every_level_of_their_range() -> None:
    noise = np.arange(1_000, 21_000, 1_000, dtype=np.int16)
    cuts = random_cuts(noise, 4_000, 16, np.random.default_rng(0), (-20.0, -10.0))
    assert cuts.shape == (4_000, 16) and cuts.dtype == np.float32
    starts = set(np.round(cuts[:, 0] / (cuts[:, 1] - cuts[:, 0])).tolist())
    assert starts == set(range(1, 6)), "a scaled ramp still tells where it was cut"
    decibels = 20 * np.log10((cuts[:, 1] - cuts[:, 0]) * 32_768 / 1_000)
    assert -20.01 < decibels.min() < -19.9 and -10.1 < decibels.max() < -9.99


def test_a_cut_as_long_as_the_noise_is_the_noise() -> None:
    noise = np.arange(-8, 8, dtype=np.int16)
    (cut,) = random_cuts(noise, 1, 16, np.random.default_rng(0), (0.0, 0.0))
    assert (cut * 32_768).tolist() == noise.tolist()


def test_noise_shorter_than_a_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="noise is 15 samples long: expected 16 or more"):
        random_cuts(np.zeros(15, np.int16), 1, 16, np.random.default_rng(0))


def test_silence_is_what_it_was_when_the_shipped_models_were_trained() -> None:
    """Another order of draws, or another rounding, would give other clips."""
    clips = partial(DATA, "v2-12", "validation")
    silence = clips.waves[clips.targets == clips.labels.index(SILENCE)]
    assert hashlib.sha256(silence.tobytes()).hexdigest()[:16] == "24a5f6767177cad1"


# The embedded corpus


@pytest.mark.parametrize(("split", "each"), [("training", 84), ("validation", 18), ("testing", 18)])
def test_embedded_corpus_has_all_twelve_labels(split: str, each: int) -> None:
    clips = partial(DATA, "v2-12", split)
    assert clips.labels == REST_LABELS
    counts = Counter(clips.labels[target] for target in clips.targets.tolist())
    unknown = 10 * each if split == "training" else each
    assert counts == {**dict.fromkeys(REST_LABELS, each), UNKNOWN: unknown}
    assert clips.waves.dtype == np.int16 and clips.waves.shape == (len(clips), 16_000)


def test_corpus_needs_neither_torch_nor_lightning_nor_sklearn() -> None:
    heavy = "{'torch', 'pytorch_lightning', 'sklearn', 'scipy', 'librosa', 'matplotlib'}"
    code = f"import sys, speechrnn.corpus; sys.exit(len({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The embedded corpus is what `data/README.md` says, and its script renders it again."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

DATA = Path(__file__).parent.parent / "data"
CORPUS = DATA / "synthetic_commands"
COMMANDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
OTHER_WORDS = ["zero", "one", "two", "three", "cat", "dog", "bed", "happy", "marvin", "house"]
WORDS = {*COMMANDS, *OTHER_WORDS}


def names_by_split() -> dict[str, list[str]]:
    names = {
        split: (CORPUS / f"{split}_list.txt").read_text().split()
        for split in ("validation", "testing")
    }
    every_name = {path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("[a-z]*/*.ogg")}
    names["training"] = sorted(every_name.difference(*names.values()))
    return names


def espeak_version() -> str:
    if shutil.which("espeak-ng") is None:
        return "none"
    return subprocess.run(
        ["espeak-ng", "--version"], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("soxr", reason="the rendering script resamples with soxr")
    spec = importlib.util.spec_from_file_location(
        "make_synthetic_commands", DATA / "make_synthetic_commands.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_speaker_is_in_two_splits():
    speakers = [
        {name.split("/")[1].split("_")[0] for name in names} for names in names_by_split().values()
    ]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 60


@pytest.mark.parametrize("split", ["training", "validation", "testing"])
def test_split_has_all_twenty_words_equally_often(split):
    words = [name.split("/")[0] for name in names_by_split()[split]]
    assert set(words) == WORDS
    assert len({words.count(word) for word in WORDS}) == 1


@pytest.mark.parametrize("split", ["validation", "testing"])
def test_list_is_sorted_and_every_listed_file_exists(split):
    names = names_by_split()[split]
    assert names == sorted(set(names))
    assert [name for name in names if not (CORPUS / name).is_file()] == []


def test_clips_have_16000_samples_at_16_khz_and_are_audible():
    for path in sorted(CORPUS.glob("[a-z]*/*.ogg"))[::24]:
        samples, rate = soundfile.read(path)
        assert (samples.shape, rate) == ((16_000,), 16_000), path
        assert 10 ** (-32 / 20) < np.abs(samples).max() <= 1, path


def test_background_noises_last_half_a_minute():
    noises = {path.stem: soundfile.info(path) for path in (CORPUS / "_background_noise_").iterdir()}
    assert set(noises) == {"white_noise", "pink_noise", "fan", "mains_hum", "babble"}
    assert {(info.samplerate, info.frames) for info in noises.values()} == {(16_000, 480_000)}


def test_corpus_is_below_15_megabytes():
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 15e6


def test_babble_says_none_of_the_words(script):
    spoken = {
        word.strip(".,").lower()
        for sentence in script.BABBLE_SENTENCES
        for word in sentence.split()
    }
    assert spoken.isdisjoint(WORDS)


@pytest.mark.skipif(
    "1.51" not in espeak_version(),
    reason="the corpus is of espeak-ng 1.51 (apt-get install espeak-ng)",
)
@pytest.mark.parametrize("split", ["training", "validation", "testing"])
def test_rendering_again_gives_the_stored_clip_and_no_other(script, split):
    clips = script.clips_of(split)
    for name in list(clips)[::83]:
        rendered = script.clip_file(*clips[name])
        assert script.relative_difference(rendered, CORPUS / name) < script.CHECK_TOLERANCE
        word, variant, utterance = clips[name]
        another = CORPUS / script.clip_name(word, variant, 1 - utterance)
        assert script.relative_difference(rendered, another) > script.CHECK_TOLERANCE

"""Models for new words from a few recordings: what is made, what is said, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import DATA, Run

from speechrnn import load
from speechrnn.audio import read_wave
from speechrnn.config import SILENCE, UNKNOWN, ModelConfig, row_labels
from speechrnn.corpus import speaker
from speechrnn.enrolment import (
    BANK,
    ENCODER,
    EXAMPLES,
    THRESHOLD,
    Encoder,
    Examples,
    check,
    embed,
    embed_examples,
    enrolled,
    network_of,
    quiet_threshold,
)
from speechrnn.folder import read_folder, save_thresholds
from speechrnn.network import Network, answer_shares, pool, softmax

WORDS = ("bed", "happy", "marvin", "cat")
Take = Callable[..., list[Path]]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture(scope="module")
def take() -> Take:
    """Clips of a word, each of another voice: `count` of them behind the first `skip` voices."""

    def clips(word: str, count: int, skip: int = 0) -> list[Path]:
        voices = {speaker(path.name): path for path in sorted((DATA / word).iterdir())}
        return list(voices.values())[skip : skip + count]

    return clips


@pytest.fixture
def recorded(tmp_path: Path, take: Take) -> Path:
    """Four words, four recordings of each."""
    folder = tmp_path / "own_words"
    for word in WORDS:
        (folder / word).mkdir(parents=True)
        for number, path in enumerate(take(word, 4), 1):
            soundfile.write(folder / word / f"{number}.wav", read_wave(path), 16_000)
    return folder


def words_of(encoder: Encoder, take: Take, count: int = 4) -> dict[str, Examples]:
    return {
        word: embed_examples(encoder, {p.name: one_second(p) for p in take(word, count)})
        for word in WORDS
    }


def one_second(path: Path) -> np.ndarray:
    wave = read_wave(path)[:16_000]
    return np.pad(wave, (0, 16_000 - len(wave)))


def test_embedding_is_what_the_head_makes_its_answer_of(encoder: Encoder, take: Take) -> None:
    clips = np.stack([one_second(path) for path in take("yes", 3)])
    base = read_folder("base")
    network = Network(base.config, base.weights())
    answer = pool(network.step(clips)[0])
    weights = network.weights
    expected = network.embed(clips) @ weights["head.1.weight"].T + weights["head.1.bias"]
    np.testing.assert_allclose(answer, expected, atol=1e-3)


def test_new_head_answers_by_distance_and_weighs_steps_as_the_encoder_does(
    encoder: Encoder, take: Take
) -> None:
    unheard = ("Wort", "palabra", "mot", "parola")  # none of them has a row in the bank
    words = dict(zip(unheard, words_of(encoder, take).values(), strict=True))
    network = network_of(encoder, words)
    clips = np.stack([one_second(path) for path in take("happy", 3, skip=6)])
    np.testing.assert_allclose(embed(network, clips), embed(encoder.network, clips), atol=1e-3)
    shares = softmax(pool(network.step(clips)[0]))
    rows = np.concatenate(
        (encoder.bank.silence, encoder.bank.unknown, [one.mean for one in words.values()])
    )
    apart = embed(encoder.network, clips)[:, None] - rows
    distance = np.einsum("nri,ij,nrj->nr", apart, encoder.bank.metric, apart)
    bank = slice(0, -len(WORDS))
    expected = softmax(-distance[:, bank] / 2)
    np.testing.assert_allclose(
        shares[:, bank] / shares[:, bank].sum(1, keepdims=True), expected, atol=1e-3
    )
    expected = softmax(-distance[:, -len(WORDS) :] / 2)
    found = shares[:, -len(WORDS) :] / shares[:, -len(WORDS) :].sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_rows_of_unknown_and_silence_are_answered_together() -> None:
    labels = (*row_labels(SILENCE, 2), *row_labels(UNKNOWN, 3), "lights")
    assert labels == (
        "_silence_", "_silence_2", "_unknown_", "_unknown_2", "_unknown_3", "lights",
    )  # fmt: skip
    config = ModelConfig(labels=labels)
    assert config.answers == (SILENCE, UNKNOWN, "lights")
    assert config.words == ("lights",)
    shares = answer_shares(np.log([[0.1, 0.2, 0.1, 0.1, 0.1, 0.4]]), config)
    np.testing.assert_allclose(shares, [[0.3, 0.3, 0.4]])


def test_words_of_other_voices_are_recognised(run: Run, recorded: Path, take: Take) -> None:
    model = recorded.with_name("lamp")
    status, out, err = run("enrol", recorded, "--to", model)
    assert status == 0, err
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == sorted(WORDS)
    assert {row[1] for row in rows} == {"4 recordings"}
    recogniser = load(model)
    assert recogniser.labels == (SILENCE, UNKNOWN, *sorted(WORDS))
    right = [
        recogniser.classify(path).label == word for word in WORDS for path in take(word, 10, skip=4)
    ]
    others = [
        recogniser.classify(path).label in WORDS
        for word in ("two", "stop", "left")
        for path in take(word, 8)
    ]
    assert np.mean(right) > 0.7
    assert np.mean(others) < 0.3
    assert recogniser.classify(np.zeros(16_000, np.float32)).label == SILENCE


def test_words_are_added_replaced_and_taken_away(run: Run, recorded: Path) -> None:
    model = recorded.with_name("lamp")
    alone, more = recorded.with_name("alone"), recorded.with_name("more")
    alone.mkdir()
    shutil.move(recorded / "bed", alone / "bed")
    assert run("enrol", recorded, "--to", model)[0] == 0
    assert run("enrol", alone, "--to", model)[0] == 0
    assert load(model).words == tuple(sorted(WORDS))
    (more / "bed").mkdir(parents=True)
    shutil.copy(alone / "bed" / "1.wav", more / "bed" / "again.wav")
    assert run("enrol", more, "--to", model)[0] == 0
    assert enrolled(read_folder(model), Encoder())["bed"].names == ("again.wav",)
    assert run("enrol", "--remove", "bed", "cat", "--to", model)[0] == 0
    assert load(model).words == ("happy", "marvin")
    whole = recorded.with_name("whole")
    shutil.rmtree(recorded / "cat")
    assert run("enrol", recorded, "--to", whole)[0] == 0
    ours, theirs = (load(folder).runtime.weights["head.1.weight"] for folder in (model, whole))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_recording_of_another_word_is_named(run: Run, recorded: Path, take: Take) -> None:
    wave = read_wave(take("cat", 1, skip=7)[0])
    soundfile.write(recorded / "marvin" / "odd.wav", wave, 16_000)
    status, out, err = run("enrol", recorded, "--to", recorded.with_name("lamp"))
    assert status == 0
    assert "marvin/odd.wav: does not fit the others" in err
    assert "marvin\t5 recordings\t" in out


def test_each_recording_is_answered_without_itself(encoder: Encoder, take: Take) -> None:
    words = words_of(encoder, take, 3)
    found = check(encoder, words)
    assert len(found.answers) == 12
    first = words["bed"]
    left = dict(words, bed=Examples(first.names[1:], first.embeddings[1:]))
    means = np.stack([one.mean for one in left.values()])
    shares = softmax(encoder.head(WORDS).logits(means, first.embeddings[0]))
    assert found.shares["bed", first.names[0]] == pytest.approx(shares[-4], rel=1e-4)
    alone = check(encoder, {"bed": Examples(first.names[:1], first.embeddings[:1])})
    assert not alone.answers
    assert "cannot be checked" in alone.summary


def test_rows_of_the_bank_that_are_the_words_themselves_are_left_out(encoder: Encoder) -> None:
    """Else a recording of a word may be taken for the unknown word that it is."""
    bank = encoder.bank
    mine, other = bank.words[0], "Zeitgeist"
    assert bank.words.count(mine) == 1 and other not in bank.words
    clip = bank.unknown[0]
    for word, there in ((other, True), (mine, False), (mine.upper(), False)):
        head = encoder.head([word])
        unknown = [label.startswith(UNKNOWN) for label in head.config.labels]
        assert sum(unknown) == len(bank.unknown) - (not there)
        logits = head.logits(-bank.unknown[:1], clip)[unknown]
        nearest = 0.5 * clip @ bank.metric @ clip  # the logit of a row at no distance
        assert (logits.max() == pytest.approx(nearest, rel=1e-5)) == there


def test_one_in_a_hundred_of_the_bank_is_taken_for_a_word(encoder: Encoder, take: Take) -> None:
    """Each of the bank without its own row."""
    means = np.stack([one.mean for one in words_of(encoder, take).values()])
    bank, unheard = encoder.bank, ("Wort", "palabra", "mot", "parola")
    logits = encoder.head(unheard).logits(means, bank.unknown)
    own = np.arange(len(logits))
    logits[own, len(bank.silence) + own] = -np.inf
    taken = softmax(logits)[:, -len(WORDS) :].sum(1) > 0.5
    assert 0.005 <= taken.mean() <= 0.015


def test_background_raises_the_threshold_until_nothing_is_found_in_it(
    run: Run, recorded: Path, take: Take, tmp_path: Path
) -> None:
    """A background in which the words are spoken, at the distance of a second."""
    background = tmp_path / "background"
    background.mkdir()
    quiet = np.zeros(16_000, np.float32)
    said = np.concatenate([w for p in take("two", 6) for w in (read_wave(p), quiet)])
    soundfile.write(background / "talk.wav", said, 16_000)
    low, high = recorded.with_name("low"), recorded.with_name("high")
    assert run("enrol", recorded, "--to", low)[0] == 0
    assert run("enrol", recorded, "--to", high, "--background", background)[0] == 0
    assert load(high).thresholds["bed"] >= load(low).thresholds["bed"]
    assert not list(load(high).detect([said]))


def test_threshold_that_a_model_has_stays_when_words_are_added(run: Run, recorded: Path) -> None:
    model, alone = recorded.with_name("lamp"), recorded.with_name("alone")
    alone.mkdir()
    shutil.move(recorded / "bed", alone / "bed")
    run("enrol", recorded, "--to", model)
    assert set(load(model).thresholds.values()) == {THRESHOLD}
    save_thresholds(model, dict.fromkeys(load(model).words, 0.7))
    assert run("enrol", alone, "--to", model)[0] == 0
    assert load(model).thresholds == dict.fromkeys(sorted(WORDS), 0.7)


def test_a_quiet_background_does_not_lower_the_threshold(run: Run, recorded: Path) -> None:
    model, quiet = recorded.with_name("lamp"), recorded.with_name("quiet")
    quiet.mkdir()
    soundfile.write(quiet / "room.wav", np.zeros(32_000), 16_000)
    run("enrol", recorded, "--to", model)
    save_thresholds(model, dict.fromkeys(load(model).words, 0.7))
    assert run("enrol", recorded, "--to", model, "--background", quiet)[0] == 0
    assert set(load(model).thresholds.values()) == {0.7}


def test_recordings_of_one_name_in_two_folders_of_a_word_are_two(run: Run, recorded: Path) -> None:
    for name in ("anna", "ben"):
        (recorded / "bed" / name).mkdir()
    (recorded / "bed" / "1.wav").rename(recorded / "bed" / "anna" / "1.wav")
    (recorded / "bed" / "2.wav").rename(recorded / "bed" / "ben" / "1.wav")
    status, out, _ = run("enrol", recorded, "--to", recorded.with_name("lamp"))
    assert (status, out.splitlines()[0].split("\t")[1]) == (0, "4 recordings")


def test_words_that_are_said_in_the_background_cannot_be_told_from_it(
    encoder: Encoder, take: Take
) -> None:
    network = network_of(encoder, words_of(encoder, take))
    quiet = np.zeros(16_000, np.float32)
    said = [w for word in WORDS for p in take(word, 4) for w in (one_second(p), quiet)]
    try:
        level = quiet_threshold(network, said)
    except ValueError as error:
        assert "at every threshold" in str(error)
    else:
        assert level > 0.8


def test_stream_of_an_enrolled_model_equals_the_whole(encoder: Encoder, take: Take) -> None:
    network = network_of(encoder, words_of(encoder, take))
    wave = np.concatenate([one_second(path) for path in take("bed", 2)])[None]
    whole, _ = network.step(wave)
    parts, state = [], None
    for start in range(0, wave.shape[1], 777):
        logits, state = network.step(wave[:, start : start + 777], state)
        parts.append(logits)
    apart = np.abs(np.concatenate(parts, 1) - whole).max()
    assert apart < 1e-5 * np.abs(whole).max()


def test_model_folder_says_what_it_was_made_of(run: Run, recorded: Path) -> None:
    model = recorded.with_name("lamp")
    run("enrol", recorded, "--to", model)
    about = json.loads((model / "config.json").read_text())
    assert about["training"] == {"encoder": Encoder().checksum, "recordings": 16}
    assert "- marvin: 4\n" in (model / "README.md").read_text()
    status, out, _ = run("info", model)
    assert status == 0
    assert "_silence_ _unknown_ bed cat happy marvin" in out


def silent(folder: Path) -> None:
    soundfile.write(folder / "bed" / "silent.wav", np.zeros(16_000), 16_000)


def long(folder: Path) -> None:
    soundfile.write(folder / "bed" / "long.wav", np.full(160_000, 0.1), 16_000)


def twice(folder: Path) -> None:
    shutil.copy(folder / "bed" / "1.wav", folder / "bed" / "2b.wav")


def empty(folder: Path) -> None:
    (folder / "bed" / "empty.wav").touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (silent, "silent.wav: is silent"),
        (long, "long.wav: lasts 10.0 s, expected one word in at most 3 s"),
        (twice, "2b.wav: is the same recording as 1.wav"),
        (empty, "empty.wav"),
    ],
)
def test_bad_recording_among_good_ones_is_left_out(
    run: Run, recorded: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(recorded)
    status, out, err = run("enrol", recorded, "--to", recorded.with_name("lamp"))
    assert status == 1
    (line,) = [line for line in err.splitlines() if "left out" in line]
    assert message in line
    assert "bed\t4 recordings\t" in out


def test_clipped_recording_is_kept_and_named(run: Run, recorded: Path, take: Take) -> None:
    loud = np.clip(read_wave(take("bed", 1, skip=8)[0]) * 100, -1, 1)
    soundfile.write(recorded / "bed" / "loud.wav", loud, 16_000)
    status, out, err = run("enrol", recorded, "--to", recorded.with_name("lamp"))
    assert status == 0
    assert "loud.wav: is clipped" in err
    assert "bed\t5 recordings\t" in out


def test_one_recording_of_one_word_gives_a_model(run: Run, tmp_path: Path, take: Take) -> None:
    (tmp_path / "own" / "bed").mkdir(parents=True)
    shutil.copy(take("bed", 1)[0], tmp_path / "own" / "bed")
    status, out, _ = run("enrol", tmp_path / "own", "--to", tmp_path / "lamp")
    assert status == 0
    assert out == "bed\t1 recording\tnot checked: record more\n"
    assert load(tmp_path / "lamp").classify(take("bed", 1)[0]).label == "bed"


def label_as_word(folder: Path) -> None:
    (folder / "bed").rename(folder / "_unknown_")


def nothing_usable(folder: Path) -> None:
    for path in (folder / "bed").iterdir():
        path.write_bytes(b"")


def no_folders(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (label_as_word, "_unknown_ is no word but a label"),
        (nothing_usable, "no recording in it can be used; the last one was left out: "),
        (no_folders, "expected FOLDER/WORD/1.wav"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_folder_that_makes_no_model_is_refused_in_one_line(
    run: Run, recorded: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(recorded)
    status, out, err = run("enrol", recorded, "--to", recorded.with_name("lamp"))
    assert status == 1
    assert not out
    (line,) = err.splitlines()
    assert message in line
    assert not recorded.with_name("lamp").exists()


def test_what_was_not_enrolled_is_not_added_to(
    run: Run, recorded: Path, model_folder: Path
) -> None:
    before = sorted(path.read_bytes() for path in model_folder.iterdir())
    status, _, err = run("enrol", recorded, "--to", model_folder)
    assert status == 1
    assert f"no {EXAMPLES} in this folder" in err
    assert before == sorted(path.read_bytes() for path in model_folder.iterdir())


def test_a_run_folder_is_not_replaced_by_the_model_in_it(run: Run, recorded: Path) -> None:
    room = recorded.with_name("lamp")
    run("enrol", recorded, "--to", room / "model")
    (room / "notes.txt").touch()
    status, _, err = run("enrol", recorded, "--to", room)
    assert status == 1
    assert f"{room}: holds a model in {room / 'model'}: type --to {room / 'model'}" in err
    assert sorted(path.name for path in room.iterdir()) == ["model", "notes.txt"]


def test_the_name_of_a_shipped_model_is_refused(run: Run, recorded: Path) -> None:
    status, _, err = run("enrol", recorded, "--to", "base")
    assert status == 1
    assert "base: is the name of a model that is shipped" in err
    assert not Path("base").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--remove", "door"), "has no word 'door'"),
        (("--remove", *WORDS), "no word would be left"),
        ((), "expected a FOLDER of recordings"),
    ],
)
def test_words_that_cannot_be_taken_away(
    run: Run, recorded: Path, arguments: tuple[str, ...], message: str
) -> None:
    model = recorded.with_name("lamp")
    run("enrol", recorded, "--to", model)
    status, _, err = run("enrol", *arguments, "--to", model)
    assert status == 1
    assert message in err
    assert load(model).words == tuple(sorted(WORDS))


def test_model_of_another_encoder_is_refused(run: Run, recorded: Path) -> None:
    model = recorded.with_name("lamp")
    run("enrol", recorded, "--to", model)
    about = json.loads((model / "config.json").read_text())
    about["training"]["encoder"] = "0" * 64
    (model / "config.json").write_text(json.dumps(about))
    status, _, err = run("enrol", recorded, "--to", model)
    assert status == 1
    assert "was enrolled with another encoder" in err


def test_folder_without_a_bank_is_no_encoder(run: Run, recorded: Path, model_folder: Path) -> None:
    lamp = recorded.with_name("lamp")
    status, _, err = run("enrol", recorded, "--to", lamp, "--encoder", model_folder)
    assert status == 1
    assert f"no {BANK} in this folder" in err


def test_damaged_bank_is_named(run: Run, recorded: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(ENCODER, encoder)
    (encoder / BANK).write_bytes((encoder / BANK).read_bytes()[:200])
    status, _, err = run("enrol", recorded, "--to", tmp_path / "lamp", "--encoder", encoder)
    assert status == 1
    assert f"{BANK} is damaged" in err


def test_encoder_is_small_enough_for_the_wheel() -> None:
    assert sum(path.stat().st_size for path in ENCODER.iterdir()) < 1_500_000
    assert read_folder(ENCODER).config.parameter_count <= 250_000


@pytest.mark.parametrize("kind", ["onnx", "html"])
def test_enrolled_model_is_exported(run: Run, recorded: Path, take: Take, kind: str) -> None:
    pytest.importorskip("onnx")
    model, file = recorded.with_name("lamp"), recorded.with_name(f"lamp.{kind}")
    run("enrol", recorded, "--to", model)
    status, _, err = run("export", model, "--format", kind, "--to", file)
    assert status == 0, err
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        exported = load(file)
        assert exported.labels == (SILENCE, UNKNOWN, *sorted(WORDS))
        for path in take("bed", 2):
            ours, theirs = load(model).classify(path), exported.classify(path)
            assert (ours.label, ours.score) == (theirs.label, pytest.approx(theirs.score, abs=1e-4))

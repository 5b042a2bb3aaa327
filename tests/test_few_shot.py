"""The few-shot benchmark: encoders whose figures are known, episodes, and the command."""

import json
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import Run, assert_one_line

from speechrnn.config import ModelConfig
from speechrnn.corpus import Clips
from speechrnn.enrolment import BANK, Bank, Encoder, bank_bytes
from speechrnn.evaluation import few_shot as room
from speechrnn.evaluation import plots
from speechrnn.evaluation.background import Background
from speechrnn.evaluation.few_shot import (
    FALSE_ACCEPTS,
    FewShot,
    FewShotReport,
    FewShotStream,
    evaluate_few_shot,
    operating_points,
)
from speechrnn.evaluation.text import few_shot_rows, few_shot_stream_rows, few_shot_text
from speechrnn.folder import read_folder, save_folder
from speechrnn.model import Model

WORDS = ("yes", "no", "stop")
OTHERS = ("bed", "cat", "tree")
SPEAKERS, TIMES = 30, 3  # each says each word so many times
SIZE = 8


def clips_of(words: tuple[str, ...] = (*WORDS, *OTHERS), speakers: int = SPEAKERS) -> Clips:
    """The first sample of a clip tells its word, the second its speaker and its turn."""
    rows = [
        (target, person, turn)
        for target in range(len(words))
        for person in range(speakers)
        for turn in range(TIMES)
    ]
    waves = np.zeros((len(rows), 16_000), np.int16)
    waves[:, 0] = [row[0] for row in rows]
    waves[:, 1] = [row[1] * TIMES + row[2] for row in rows]
    names = [f"{words[target]}/s{person}_nohash_{turn}.wav" for target, person, turn in rows]
    return Clips(waves, np.array([row[0] for row in rows]), names, words)


def encoder_that(embed: Any, unheard: list[str] | None = None) -> Any:
    """An encoder with these embeddings, and logits by their distance to the means alone."""

    def logits(means: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        bank = np.zeros((2, SIZE))
        rows = np.concatenate((bank, means))
        return -50 * ((embeddings[:, None] - rows) ** 2).sum(-1)

    training = {} if unheard is None else {"unheard": unheard}
    folder = SimpleNamespace(about={"training": training})
    head = SimpleNamespace(logits=logits)
    network = SimpleNamespace(embed=embed)
    return SimpleNamespace(network=network, head=lambda words: head, folder=folder)


def labels(waves: np.ndarray) -> np.ndarray:
    return np.eye(SIZE)[np.rint(waves[:, 0] * 32768).astype(int)]


def chance(waves: np.ndarray) -> np.ndarray:
    return np.random.default_rng(len(waves)).normal(0, 0.1, (len(waves), SIZE))


@pytest.fixture(scope="module")
def perfect() -> FewShot:
    return FewShot(encoder_that(labels, ["yes", "no", "stop", "cat"]), clips_of(), WORDS)


# Figures


@pytest.mark.parametrize("same_speaker", [False, True])
def test_an_encoder_that_embeds_the_word_is_always_right(perfect: FewShot, same_speaker: bool):
    for result in perfect.measure(1, 5, same_speaker):
        assert result.accuracy == dict.fromkeys(FALSE_ACCEPTS, (1.0, 1.0, 1.0))
        assert result.auroc == (1.0, 1.0, 1.0)
        assert (result.shots, result.episodes, result.words) == (1, 5, 3.0)
        assert result.same_speaker == same_speaker


def test_an_encoder_that_knows_nothing_is_at_chance():
    (result,) = FewShot(encoder_that(chance), clips_of(), WORDS).measure(5, 60)
    assert result.auroc[0] == pytest.approx(0.5, abs=0.03)
    for share in FALSE_ACCEPTS:
        mean, low, high = result.accuracy[share]
        assert 0 <= low <= mean <= high <= 2 * share, "a third of what passes, and that is as few"


def test_the_threshold_lets_no_more_pass_than_the_stated_share():
    random = np.random.default_rng(0)
    accepted, right = random.random(1_000), np.ones(1_000, bool)
    false = np.arange(200) / 200  # 1 % are two of them: 0.995 and 0.99
    one, five, area = operating_points(accepted, right, false)
    assert one == (accepted > 0.985).mean() and five == (accepted > 0.945).mean()
    assert area == pytest.approx(accepted.mean(), abs=0.01)
    assert operating_points(accepted, np.zeros(1_000, bool), false)[:2] == [0, 0]


def test_equal_scores_of_words_and_others_are_half_an_area():
    one, five, area = operating_points(np.ones(10), np.ones(10, bool), np.ones(100))
    assert (one, five, area) == (0, 0, 0.5)


def test_interval_is_that_of_the_mean_over_the_episodes():
    mean, low, high = room._interval(np.array([0.4, 0.6] * 50))
    assert mean == pytest.approx(0.5)
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.01, 0.5 + 1.96 * 0.01), abs=1e-4)


# Episodes


def test_speakers_of_recordings_speak_no_query(perfect: FewShot):
    for episode in islice(perfect.other_speakers(3), 20):
        support = {word: perfect.speakers[numbers] for word, numbers in episode.support.items()}
        assert set(support) == set(WORDS)
        assert all(len(set(people)) == len(people) == 3 for people in support.values())
        asked = [*episode.queries.values(), *episode.unknown.values()]
        taken = np.concatenate(list(support.values()))
        assert not np.isin(taken, perfect.speakers[np.concatenate(asked)]).any()


def test_the_same_speaker_speaks_recordings_and_queries(perfect: FewShot):
    people = set()
    for episode in islice(perfect.one_speaker(2), 20):
        assert set(episode.support) == set(WORDS)
        numbers = np.concatenate([*episode.support.values(), *episode.queries.values()])
        assert len(numbers) == len(set(numbers)) == TIMES * len(WORDS)
        (person,) = set(perfect.speakers[numbers].tolist())
        people.add(person)
    assert len(people) > 5


def test_queries_are_of_their_word_and_unknown_ones_of_no_word(perfect: FewShot):
    names = np.array([name.partition("/")[0] for name in perfect.clips.names])
    for draw in (perfect.other_speakers(1), perfect.one_speaker(1)):
        episode = next(draw)
        for word, numbers in episode.queries.items():
            assert set(names[numbers]) == {word} == set(names[episode.support[word]])
        kinds = {kind: set(names[numbers]) for kind, numbers in episode.unknown.items()}
        assert kinds == {room.OTHERS: set(OTHERS), room.UNHEARD: {"cat"}}


def test_of_many_words_each_episode_has_ten_and_the_rest_is_unknown():
    words = tuple(f"word{number}" for number in range(14))
    encoder = encoder_that(lambda waves: np.zeros((len(waves), SIZE)))
    few_shot = FewShot(encoder, clips_of(words), words)
    names = np.array([name.partition("/")[0] for name in few_shot.clips.names])
    drawn = set()
    for episode in islice(few_shot.other_speakers(1), 10):
        assert len(episode.support) == 10
        assert set(names[episode.unknown[room.OTHERS]]) == set(words) - set(episode.support)
        drawn.add(frozenset(episode.support))
    assert len(drawn) > 5


def test_silence_is_no_unknown_word():
    labels_of = (*WORDS, "bed", "_silence_")
    encoder = encoder_that(labels)
    few_shot = FewShot(encoder, clips_of(labels_of), WORDS)
    names = np.array([name.partition("/")[0] for name in few_shot.clips.names])
    assert set(names[next(few_shot.other_speakers(1)).unknown[room.OTHERS]]) == {"bed"}


def test_draws_are_a_function_of_the_seed():
    encoder, clips = encoder_that(chance), clips_of()
    first, again, other = (FewShot(encoder, clips, WORDS, seed) for seed in (3, 3, 4))
    assert first.measure(1, 4) == again.measure(1, 4) != other.measure(1, 4)


def test_too_few_clips_are_told_in_a_line():
    encoder = encoder_that(labels)
    few_shot = FewShot(encoder, clips_of(speakers=5), WORDS)
    with pytest.raises(ValueError, match=r"^\w+: 5 speakers in this split, expected more than 5$"):
        few_shot.measure(5, 1)
    with pytest.raises(ValueError, match="never: 0 speakers"):
        FewShot(encoder, clips_of(), ("never",)).measure(1, 1)
    with pytest.raises(ValueError, match=f"nobody says 3 words more than {TIMES} times"):
        few_shot.measure(TIMES, 1, same_speaker=True)
    few, many = clips_of(speakers=2), (*WORDS, *OTHERS[1:])
    with pytest.raises(ValueError, match="none is left to ask; expected more speakers"):
        FewShot(encoder, few, many).measure(1, 1)  # both speakers are taken
    with pytest.raises(ValueError, match="no words but yes, no, stop: expected others too"):
        FewShot(encoder, clips_of(WORDS), WORDS)
    clips = clips_of()
    nameless = replace(clips, names=[name.replace("_nohash_", "-") for name in clips.names])
    with pytest.raises(ValueError, match="do not tell their speakers"):
        FewShot(encoder, nameless, WORDS)


# The command


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that was never trained, with a bank of noise."""
    folder = tmp_path_factory.mktemp("encoders") / "encoder"
    torch.manual_seed(0)
    model = Model(ModelConfig(labels=("_silence_", "_unknown_"), hidden_size=16, layers=1))
    training = {"unheard": ["yes", "cat"]}
    save_folder(folder, model.config, model.arrays(), training=training, scores={}, card="")
    random = np.random.default_rng(0)
    unknown, silence = random.normal(size=(4, 16)), random.normal(size=(2, 16))
    bank = Bank(unknown, silence, np.eye(16), ("tree", "house"))
    (folder / BANK).write_bytes(bank_bytes(bank))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen speakers say each of five words, and one of them says three words four times."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(5)]
    listed = []
    for word in words:
        (folder / word).mkdir()
        for person in range(15):
            for turn in range(4 if person == 0 and word in words[:3] else 1):
                name = f"{word}/{person}_nohash_{turn}.wav"
                soundfile.write(folder / name, random.uniform(-0.5, 0.5, 2_000), 16_000)
                listed.append(name)
    (folder / "validation_list.txt").write_text("\n".join(listed))
    (folder / "testing_list.txt").write_text("")
    return folder


@pytest.fixture
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "EPISODES", 3)
    monkeypatch.setattr(room, "SHOTS", (1, 2))
    monkeypatch.setattr(room, "WAYS", 3)
    monkeypatch.setattr(room, "STREAM_SHOTS", 2)
    monkeypatch.setattr(room, "STREAM_CLIPS", 2)
    monkeypatch.setattr(room, "STREAM_HOURS", 1e-6)


def test_command_prints_and_writes_what_was_measured(
    run: Run, encoder_folder: Path, corpus: Path, tmp_path: Path, few_episodes: None
):
    talk = tmp_path / "talk"
    talk.mkdir()
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, 80_000)
    soundfile.write(talk / "talk.wav", noise, 16_000)
    words = ("evaluate", encoder_folder, "--few-shot", "--data", corpus, "--protocol", "own")
    words = (*words, "--split", "validation", "--streamed", "--talk", talk)
    status, out, error = run(*words, "--json", "--report", tmp_path / "report")
    assert status == 0 and error.startswith("written: ") and error.count("\n") == 1
    found = json.loads(out)
    assert found["encoder"]["name"] == str(encoder_folder)
    assert (found["split"], found["clips"]) == ("validation", 5 * 15 + 3 * 3)
    rows = [(row["same_speaker"], row["shots"]) for row in found["results"]]
    assert rows == [(False, 1), (False, 2), (True, 1), (True, 3)]
    stream = found["stream"]
    assert [point["false_alarms_allowed"] for point in stream["points"]] == [1, 5, 10]
    assert stream["words"] == 6 and stream["talk_hours"] == pytest.approx(5 / 3600)
    names = {"few_shot.html", "few_shot.md", "few_shot.json", "few_shot.png"}
    assert set(os.listdir(tmp_path / "report")) == names
    assert json.loads((tmp_path / "report/few_shot.json").read_text()) == found
    page = (tmp_path / "report/few_shot.md").read_text()
    assert "Gok 2025" in page and "(few_shot.png)" in page

    status, out, error = run(*words)
    assert (status, error) == (0, "")
    assert str(encoder_folder) in out.splitlines()[0]
    for row in found["results"]:
        for value in (*row["accuracy"], row["auroc"]):
            low, high = value["interval_95"]
            assert f"| {value['mean']:.1%} ({low:.1%} to {high:.1%}) |" in out, "the same draws"
    for point in stream["points"]:
        assert (
            f"| {point['false_alarms_allowed']:g} | {point['false_alarms_per_hour']:.1f} |" in out
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--noise"], "goes with neither --noise nor --sounds"),
        (["--streamed"], "--streamed and --talk FOLDER go together"),
        (["--protocol", "v2-35"], "expected v1-12, v2-12, own"),
        (["--allow-partial"], "none at all of backward"),
        (["--protocol", "own"], "no words but word0, word1, word2, word3, word4: expected others"),
    ],
    ids=str,
)
def test_wrong_use_is_told_in_a_line(
    run: Run, encoder_folder: Path, corpus: Path, options: list[str], said: str
):
    words = ("evaluate", encoder_folder, "--few-shot", "--data", corpus, "--split", "validation")
    status, out, error = run(*words, *options)
    assert (status, out) == (1, "")
    assert_one_line(error, said)


def test_a_model_is_no_encoder_and_one_encoder_is_measured(
    run: Run, model_folder: Path, encoder_folder: Path, corpus: Path
):
    options = ("--few-shot", "--data", corpus)
    status, out, error = run("evaluate", model_folder, *options)
    assert (status, out) == (1, "")
    assert_one_line(error, model_folder, "no bank.safetensors in this folder, so it is no encoder")
    status, out, error = run("evaluate", encoder_folder, model_folder, *options)
    assert (status, out) == (1, "")
    assert_one_line(error, "expected one folder, got 2")


# Text and picture


@pytest.fixture(scope="module")
def report(encoder_folder: Path) -> FewShotReport:
    patch = pytest.MonkeyPatch()
    with patch.context() as changed:
        changed.setattr(room, "EPISODES", 2)
        changed.setattr(room, "SAME_SPEAKER_SHOTS", (1, 2))
        encoder = encoder_that(labels, ["yes", "cat"])
        encoder.folder = read_folder(encoder_folder)
        return evaluate_few_shot("mine", FewShot(encoder, clips_of(), WORDS), "testing")


def test_text_names_the_encoder_and_the_words_that_it_heard(report: FewShotReport):
    first = few_shot_text(report).splitlines()[0]
    assert first.startswith("encoder mine, ") and "testing, 540 clips" in first
    assert first.endswith("new words: yes, no, stop; in training it heard no, stop")
    silent = few_shot_text(replace(report, unheard=None)).splitlines()[0]
    assert silent.endswith("does not tell which words it never heard in training")
    others = tuple(result for result in report.results if not result.same_speaker)
    assert "The same speaker: not measured" in few_shot_text(replace(report, results=others))
    assert "not measured" not in few_shot_text(report)


def test_table_has_a_row_for_shots_speaker_and_unknown_words(report: FewShotReport):
    head, *rows = few_shot_rows(report.results)
    assert head[:5] == [
        *("speaker", "shots", "unknown"),
        *("right at 1% false accepts", "right at 5% false accepts"),
    ]
    assert [row[:2] for row in rows[::2]] == [
        *(["others", "1"], ["others", "5"], ["others", "10"]),
        *(["the same", "1"], ["the same", "2"]),
    ]
    assert {row[2] for row in rows[::2]} == {room.OTHERS}
    assert {row[2] for row in rows[1::2]} == {room.UNHEARD}
    assert rows[0][3:] == [*3 * ["100.0% (100.0% to 100.0%)"], "3.0", "2"]


def test_a_threshold_that_is_not_there_is_said_so():
    points = ((1.0, 8.0, None, None), (10.0, 8.0, 0.9, 0.125))
    rows = few_shot_stream_rows(FewShotStream(10, 100, 1.0, 0.5, points))
    assert rows[1:] == [
        ["1", "8.0", "none is high enough", ""],
        ["10", "8.0", "0.900", "12.5%"],
    ]


def test_picture_shows_the_results_and_the_published_figures(report: FewShotReport):
    figure = plots.few_shot(report.results, "$a title")
    assert [axes.get_title() for axes in figure.axes] == ["1% false accepts", "5% false accepts"]
    dots = [
        [(line.get_label().partition(",")[0], line.get_xydata().tolist()) for line in axes.lines]
        for axes in figure.axes
    ]
    assert [{name: xy for name, xy in pane if name[0] != "_"} for pane in dots] == [
        {"Gok 2025": [[10, 0.769]]},
        {"Mazumder 2021": [[5, 0.874]], "Rusci 2023": [[10, 0.76]]},
    ]
    for pane in dots:
        ours = [xy for name, xy in pane if name[0] == "_"]
        assert [[1, 1], [5, 1], [10, 1]] in ours and [[1, 1], [2, 1]] in ours
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 4


# In a stream


def test_stream_is_of_other_speakers_and_its_thresholds_hold_in_talk(
    encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(room, "STREAM_SHOTS", 2)
    monkeypatch.setattr(room, "STREAM_CLIPS", 4)
    monkeypatch.setattr(room, "STREAM_HOURS", 1e-6)
    joined = []
    kept = room.JoinedRecording

    def recording(clips: Clips, *rest: object) -> object:
        joined.append(clips)
        return kept(clips, *rest)

    monkeypatch.setattr(room, "JoinedRecording", recording)
    few_shot = FewShot(Encoder(encoder_folder), clips_of(), WORDS)
    means = []
    kept_means = few_shot._means
    monkeypatch.setattr(few_shot, "_means", lambda one: means.append(one) or kept_means(one))
    noise = np.random.default_rng(0).integers(-3_000, 3_000, 16_000 * 20).astype(np.int16)
    found = few_shot.stream({}, Background(("talk",), (noise,), {}))
    (clips,), (episode,) = joined, means
    assert len(clips) == found.words == 12 and set(clips.labels) == set(WORDS)
    support = {few_shot.clips.names[n] for part in episode.support.values() for n in part}
    people = [
        {name.split("/")[1].split("_")[0] for name in names} for names in (support, clips.names)
    ]
    assert not people[0] & people[1]
    assert found.shots == 2 and found.talk_hours == pytest.approx(20 / 3600)
    for allowed, rate, threshold, missed in found.points:
        assert (threshold is None) == (missed is None) == (rate > allowed)

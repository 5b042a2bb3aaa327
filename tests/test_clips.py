"""The answers on clips: every clip is counted once, and every figure follows from the counts."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DATA
from evaluation_examples import MEASURED, RESULT, clip_result, drawn, sounds, undecided
from sklearn import metrics
from statsmodels.stats import contingency_tables

from speechrnn import Recogniser, load
from speechrnn.audio import from_int16
from speechrnn.corpus import Clips, load_split
from speechrnn.evaluation import clips as clips_module
from speechrnn.evaluation.clips import (
    WORST,
    ClipResult,
    differences,
    evaluate_clips,
    measured_model,
)
from speechrnn.evaluation.statistics import wilson_interval
from speechrnn.evaluation.text import summary
from speechrnn.folder import read_folder
from speechrnn.model import Model, TorchRuntime


class Parrot:
    """A runtime that gives the label whose number is the clip's first sample."""

    def __init__(self, labels: tuple[str, ...], answers: tuple[str, ...]) -> None:
        self.config = SimpleNamespace(labels=labels, answers=labels)
        self.answers = np.array([labels.index(answer) for answer in answers])
        self.batches: list[int] = []

    def step(self, wave: np.ndarray, state: None = None) -> tuple[np.ndarray, None]:
        self.batches.append(len(wave))
        answer = self.answers[(wave[:, 0] * 32768).round().astype(int)]
        return np.eye(len(self.config.labels))[answer][:, None], None


def parrot(labels: tuple[str, ...], answers: tuple[str, ...]) -> Recogniser:
    return Recogniser(Parrot(labels, answers), {})


def clips_with(labels: tuple[str, ...], pairs: list[tuple[str, str]]) -> Clips:
    """A clip for each pair of what is spoken and what `Parrot` shall answer."""
    waves = np.zeros((len(pairs), 4), np.int16)
    waves[:, 0] = [labels.index(answer) for _, answer in pairs]
    targets = np.array([labels.index(spoken) for spoken, _ in pairs])
    names = [f"{spoken}/{i}" for i, (spoken, _) in enumerate(pairs)]
    return Clips(waves, targets, names, labels)


# Figures


def test_result_agrees_with_counts_made_by_hand():
    assert (RESULT.clips, RESULT.correct) == (16, 9)
    assert RESULT.accuracy == 9 / 16
    assert RESULT.interval == wilson_interval(9, 16)
    assert RESULT.confusion.tolist() == [[8, 2, 0, 0], [3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    mean = (8 / 10 + 1 / 4 + 0) / 3
    assert RESULT.mean_accuracy == pytest.approx(mean), "a class without clips has no share"
    assert RESULT.macro_f1 == pytest.approx((16 / 21 + 2 / 9 + 0) / 3)


def test_silence_is_counted_apart_where_there_are_clips_of_it_and_of_others():
    counts = [[3, 1, 0], [0, 4, 2], [0, 0, 6]]
    result = clip_result(counts, ("_silence_", "_unknown_", "yes"))
    assert result.silence_apart == (10 / 12, 3 / 4)
    assert "words and unknown 83.33%, silence 75.00%" in summary(
        replace(result, split="validation")
    )
    assert result.to_dict()["silence_apart"] == [10 / 12, 3 / 4]
    only_words = clip_result([[0, 0, 0], *counts[1:]], result.labels)
    only_silence = clip_result([counts[0], [0, 0, 0], [0, 0, 0]], result.labels)
    for other in (only_words, only_silence, RESULT):
        assert other.silence_apart is None
        assert "silence" not in summary(other)


def test_each_label_has_its_figures():
    yes, no, up, down = RESULT.per_label()
    assert yes == {
        "label": "yes",
        "clips": 10,
        "recall": 0.8,
        "precision": pytest.approx(8 / 11),
        "f1": pytest.approx(2 * 0.8 * (8 / 11) / (0.8 + 8 / 11)),
        "taken_for": "no",
    }
    assert (no["recall"], no["precision"], no["taken_for"]) == (0.25, 0.2, "yes")
    assert no["f1"] == pytest.approx(2 * 0.25 * 0.2 / 0.45)
    assert (up["clips"], up["recall"], up["precision"], up["f1"]) == (2, 0, 0, 0)
    assert (down["clips"], down["recall"], down["precision"], down["f1"]) == (0, 0, 0, 0)
    assert (up["taken_for"], down["taken_for"]) == ("no", None)


def test_dictionary_survives_json_and_holds_everything():
    figures = json.loads(json.dumps(RESULT.to_dict()))
    assert figures == RESULT.to_dict()
    assert (figures["protocol"], figures["split"]) == ("own", "testing")
    assert (figures["clips"], figures["correct"]) == (16, 9)
    for name in ("accuracy", "mean_accuracy", "macro_f1", "calibration_error"):
        assert figures[name] == getattr(RESULT, name)
    assert figures["interval_95"] == list(RESULT.interval)
    assert figures["labels"] == [row["label"] for row in figures["per_label"]]
    assert figures["labels"] == ["yes", "no", "up", "down"]
    assert figures["confusion"] == RESULT.confusion.tolist()
    assert len(figures["calibration"]) == 15
    assert sum(row["count"] for row in figures["calibration"]) == 16
    for name in ("names", "truth", "answers", "scores"):
        assert len(figures[name]) == 16
    assert figures["model"] is None
    assert not {"names", "scores", "mistakes"} & RESULT.figures().keys(), "a model folder's scores"
    known = json.loads(json.dumps(replace(RESULT, model=MEASURED).to_dict()))
    assert known["model"]["parameters"] == 11_760


def test_result_of_a_stream_tells_that_it_is_one():
    streamed = replace(RESULT, streamed=True)
    assert (RESULT.to_dict()["streamed"], streamed.to_dict()["streamed"]) == (False, True)


@pytest.mark.parametrize("result", [drawn(1), drawn(2, 0.1, 40), RESULT])
def test_figures_of_the_labels_are_those_of_scikit_learn(result: ClipResult):
    places = np.arange(len(result.labels))
    pair = result.truth, result.answers
    confusion = metrics.confusion_matrix(*pair, labels=places)
    assert result.confusion.tolist() == confusion.tolist()
    expected = metrics.precision_recall_fscore_support(*pair, labels=places, zero_division=0)
    for place, row in enumerate(result.per_label()):
        figures = [row[name] for name in ("precision", "recall", "f1", "clips")]
        assert figures == pytest.approx([column[place] for column in expected])
    present = np.unique(result.truth)
    macro = metrics.f1_score(*pair, labels=present, average="macro", zero_division=0)
    assert result.macro_f1 == pytest.approx(macro)


def test_calibration_agrees_with_bins_made_by_hand():
    """Right are three of four at 0.9 to 0.93, one of two at 0.5, none at 0.4, an edge, one at 1."""
    truth = np.zeros(8, dtype=int)
    answers = np.array([0, 0, 0, 1, 0, 1, 1, 0])
    scores = np.array([0.9, 0.91, 0.92, 0.93, 0.5, 0.5, 0.4, 1.0])
    names = tuple("abcdefgh")
    result = ClipResult(("yes", "no"), names, truth, answers, scores, "own", "testing")
    bins = list(result.calibration())
    edges = [(round(15 * row["above"]), round(15 * row["up_to"])) for row in bins]
    assert edges == [(i, i + 1) for i in range(15)]
    counts = {i: row["count"] for i, row in enumerate(bins) if row["count"]}
    assert counts == {5: 1, 7: 2, 13: 4, 14: 1}
    assert (bins[13]["confidence"], bins[13]["accuracy"]) == (pytest.approx(0.915), 0.75)
    assert bins[13]["interval_95"] == list(wilson_interval(3, 4))
    empty = bins[0]
    assert (empty["confidence"], empty["accuracy"], empty["interval_95"]) == (None, None, None)
    gaps = (4 * 0.165 + 2 * 0 + 1 * 0.4 + 1 * 0) / 8
    assert result.calibration_error == pytest.approx(gaps)


def test_calibration_counts_every_clip_once_whatever_its_score():
    scores = np.array([0.0, 1e-9, *(i / 15 for i in range(1, 16))])
    result = replace(drawn(1, clips=17), scores=scores)
    assert [row["count"] for row in result.calibration()] == [3, *[1] * 14]


# Answers


@pytest.mark.parametrize(
    ("batch", "batches"), [(4, [4, 4, 3]), (11, [11]), (10, [10, 1]), (256, [11])]
)
def test_every_clip_is_counted_once(batch, batches, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clips_module, "BATCH", batch)
    labels = ("yes", "no", "up")
    pairs = [("yes", "yes")] * 4 + [("yes", "up")] * 2 + [("no", "no")] * 3
    pairs += [("no", "yes"), ("up", "no")]
    model = parrot(labels, labels)
    result = evaluate_clips(model, clips_with(labels, pairs), "own", "testing")
    assert model.runtime.batches == batches
    assert result.confusion.tolist() == [[4, 0, 2], [1, 3, 0], [0, 1, 0]]
    assert (result.labels, result.protocol, result.split) == (labels, "own", "testing")


def test_labels_of_the_model_in_another_order_give_the_same_counts():
    labels = ("yes", "no", "up")
    pairs = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("up", "yes"), ("up", "yes")]
    order = ("down", "up", "yes", "no")  # and with one more
    result = evaluate_clips(parrot(order, labels), clips_with(labels, pairs), "own", "testing")
    assert result.labels == order
    assert result.confusion.tolist() == [[0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert result.mean_accuracy == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_label_that_the_model_lacks_is_named():
    clips = clips_with(("yes", "no", "up"), [("yes", "yes")])
    message = "the model has no label no, up: it knows down, yes; take the protocol"
    with pytest.raises(ValueError, match=message):
        evaluate_clips(parrot(("down", "yes"), ("yes",)), clips, "own", "testing")


def counts_of(answer: Callable[[np.ndarray], str], clips: Clips) -> list[list[int]]:
    counts = np.zeros((len(clips.labels), len(clips.labels)), int)
    for wave, target in zip(clips.waves, clips.targets, strict=True):
        counts[target, clips.labels.index(answer(from_int16(wave)))] += 1
    return counts.tolist()


def test_counts_are_the_answers_of_classify(recogniser: Recogniser, monkeypatch):
    monkeypatch.setattr(clips_module, "BATCH", 4)
    model = undecided(recogniser)
    clips = sounds(model.labels, 11)
    result = evaluate_clips(model, clips, "own", "testing")
    assert result.confusion.tolist() == counts_of(lambda w: model.classify(w).label, clips)
    assert len(set(result.answers.tolist())) > 1


def test_torch_model_in_training_answers_as_in_evaluation(recogniser: Recogniser, model: Model):
    clips = sounds(model.config.labels, 11)
    in_torch = Recogniser(TorchRuntime(model.train()), {})
    result = evaluate_clips(in_torch, clips, "own", "testing")
    assert not model.training
    expected = evaluate_clips(recogniser, clips, "own", "testing")
    assert result.answers.tolist() == expected.answers.tolist()
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-5)


def test_answers_do_not_depend_on_the_number_of_cores(recogniser: Recogniser, monkeypatch):
    model = undecided(recogniser)
    clips = sounds(model.labels, 200)
    results = []
    for cores in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        results.append(evaluate_clips(model, clips, "own", "testing"))
    one, three = results
    assert one.answers.tolist() == three.answers.tolist()
    assert one.scores.tolist() == three.scores.tolist()


def test_another_pool_may_answer():
    labels = ("yes", "no", "up")
    clips = clips_with(labels, [("yes", "yes"), ("yes", "no"), ("no", "no"), ("up", "yes")])
    result = evaluate_clips(
        parrot(labels, labels),
        clips,
        "own",
        "testing",
        pool=lambda logits: -logits[:, 0] - 0.1 * np.arange(3),
    )
    first_of_the_others = [[1, 1, 0], [1, 0, 0], [0, 1, 0]]
    assert result.confusion.tolist() == first_of_the_others


def test_model_is_described_from_its_folder(model_folder, recogniser: Recogniser):
    clips = sounds(("yes", "no"), 6)
    about = measured_model("mine", read_folder(model_folder))
    result = evaluate_clips(recogniser, clips, "own", "testing", about)
    config = recogniser.config
    assert result.model == about
    assert (about.name, about.parameters) == ("mine", config.parameter_count)
    assert about.multiplications == config.multiplications
    assert about.sha256 == json.loads((model_folder / "config.json").read_text())["sha256"]
    assert result.title == "mine, own testing"


def test_shipped_model_is_measured_on_the_corpus_of_the_repository(capsys):
    clips = load_split(DATA, "v2-12", "validation", allow_partial=True)
    result = evaluate_clips(load("tiny"), clips, "v2-12", "validation")
    assert (result.protocol, result.split, result.clips) == ("v2-12", "validation", 216)
    assert "of 216 clips, v2-12 validation" in summary(result)
    assert capsys.readouterr().err.startswith("partial corpus: ")


# Mistakes


def test_mistakes_are_the_clips_answered_wrongly_the_most_probable_first(recogniser: Recogniser):
    model = undecided(recogniser)
    clips = sounds(model.labels, 60)
    result = evaluate_clips(model, clips, "own", "testing")
    assert len(result.mistakes) == result.clips - result.correct > WORST
    scores = [mistake.score for mistake in result.mistakes]
    assert scores == sorted(scores, reverse=True)
    for mistake in result.mistakes:
        place = clips.names.index(mistake.name)
        answer = model.classify(from_int16(clips.waves[place]))
        label = model.labels[clips.targets[place]]
        assert (mistake.label, mistake.answer) == (label, answer.label)
        assert mistake.score == pytest.approx(answer.score, abs=1e-5)
        assert mistake.label != mistake.answer
    stored = json.loads(json.dumps(result.to_dict()))["mistakes"]
    assert [m["name"] for m in stored] == [m.name for m in result.mistakes[:WORST]]


# Two models


def answered(right: str, **changes: object) -> ClipResult:
    """A result on clips of `yes`, of which those with a 1 were answered rightly."""
    answers = np.array([1 - int(figure) for figure in right])
    size = len(right)
    names, truth = tuple(map(str, range(size))), np.zeros(size, int)
    result = ClipResult(("yes", "no"), names, truth, answers, np.ones(size), "own", "testing")
    return replace(result, **changes)


def test_differences_count_the_clips_that_only_one_model_answered_rightly():
    only_first, only_second, p = differences(answered("1111111100"), answered("1000000011"))
    assert (only_first, only_second, p) == (7, 2, pytest.approx(2 * (1 + 9 + 36) / 512))


@pytest.mark.parametrize(
    ("seeds", "right"), [((1, 2), (0.7, 0.7)), ((3, 4), (0.9, 0.5)), ((5, 5), (0.5, 0.5))]
)
def test_differences_are_tested_as_by_statsmodels(seeds, right):
    a, b = (drawn(seed, share) for seed, share in zip(seeds, right, strict=True))
    only_a, only_b, p = differences(a, b)
    table = [[0, only_a], [only_b, 0]]
    assert p == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue, rel=1e-9)
    right_a, right_b = a.truth == a.answers, b.truth == b.answers
    assert (only_a, only_b) == (sum(right_a & ~right_b), sum(~right_a & right_b))


def test_models_whose_labels_stand_in_another_order_are_compared():
    changes = {"truth": np.ones(2, int), "answers": np.array([0, 1])}
    other = answered("10", labels=("no", "yes"), **changes)
    assert differences(answered("10"), other)[:2] == (1, 1)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (answered("10", protocol="v2-12"), "protocol is own in the first, v2-12 in the second"),
        (answered("10", split="validation"), "split is testing in the first, validation in the"),
        (answered("10", streamed=True), "streamed is False in the first, True in the second"),
        (answered("101"), "clips is 2 in the first, 3 in the second"),
        (answered("10", names=("0", "7")), r"number 2 is 1 \(yes\) in the first, 7 \(yes\) in"),
        (answered("10", truth=np.array([1, 0])), r"number 1 is 0 \(yes\) in the first, 0 \(no\)"),
    ],
)
def test_results_on_different_clips_do_not_compare(other: ClipResult, message: str):
    with pytest.raises(ValueError, match=message):
        differences(answered("10"), other)

"""What `speechrnn.evaluation` promises: every clip is counted once, and every figure follows from the counts."""

import copy
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from speechrnn import evaluation
from speechrnn.data import Clips
from speechrnn.evaluation import (
    About,
    Report,
    comparison_rows,
    evaluate,
    evaluate_clips,
    evaluate_conditions,
    evaluate_stream,
    latex,
    markdown,
    mcnemar,
    paper_rows,
    wilson_interval,
)
from speechrnn.model import Model, pool
from speechrnn.stream import Stream

SYNTHETIC = Path(__file__).parents[1] / "data" / "synthetic_commands"


def report_of(
    counts: object, labels: tuple[str, ...] = ("yes", "no", "up", "down"), score: float = 0.5, model: About | None = None
) -> Report:
    """A report with this confusion, every answer with the same score."""
    counts = np.array(counts)
    truth, answers = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0).T
    names = tuple(f"{labels[label]}/{place}" for place, label in enumerate(truth))
    return Report(labels, names, truth, answers, np.full(len(truth), score), "own", "testing", model=model)


# 10 yes: 8 right, 2 as no; 4 no: 1 right, 3 as yes; 2 up: both as no; no clips of down, which was answered by nobody.
REPORT = report_of([[8, 2, 0, 0], [3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
ABOUT = About("runs/my_words", 11_760, 2_456_789, "7b70fb124a7f" + 52 * "0")


class Parrot(nn.Module):
    """Answers with the label whose number is the clip's first sample."""

    def __init__(self, labels: tuple[str, ...], answers: tuple[str, ...]) -> None:
        super().__init__()
        self.config = SimpleNamespace(labels=labels)
        self.input = nn.Linear(1, 1)
        self.answers = torch.tensor([labels.index(answer) for answer in answers])
        self.batches: list[int] = []

    def forward(self, wave: Tensor) -> tuple[Tensor, None]:
        assert not self.training and not torch.is_grad_enabled()
        self.batches.append(len(wave))
        answer = self.answers[(wave[:, 0] * 32768).round().long()]
        return nn.functional.one_hot(answer, len(self.config.labels)).float()[:, None], None


def clips_with(labels: tuple[str, ...], pairs: list[tuple[str, str]]) -> Clips:
    """A clip for each pair of what is said and what `Parrot` shall answer."""
    waves = torch.zeros(len(pairs), 4, dtype=torch.int16)
    waves[:, 0] = torch.tensor([labels.index(answer) for _, answer in pairs], dtype=torch.int16)
    targets = torch.tensor([labels.index(said) for said, _ in pairs])
    return Clips(waves, targets, [f"{said}/{i}" for i, (said, _) in enumerate(pairs)], labels)


def sounds(labels: tuple[str, ...], count: int, seed: int = 0) -> Clips:
    """Noises, each with its loudness in time, of all labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    envelopes = 10 ** torch.empty(count, 100).uniform_(-4, 0, generator=generator).repeat_interleave(160, 1)
    waves = (envelopes * torch.empty(count, 16_000).uniform_(-32768, 32767, generator=generator)).short()
    return Clips(waves, torch.arange(count) % len(labels), [f"{labels[i % len(labels)]}/{i}" for i in range(count)], labels)


def hiss(samples: int = 40_000) -> Tensor:
    return torch.randint(-3_000, 3_000, (samples,), dtype=torch.int16, generator=torch.Generator().manual_seed(7))


# Values of the score interval without continuity correction in Newcombe, Statistics in Medicine 17 (1998), table I, and two
# that follow from the formula at the ends: 1 / (1 + z^2 / n) and its complement.
@pytest.mark.parametrize(
    ("correct", "clips", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (95, 100, 0.8882, 0.9785),
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (4743, 4890, 0.9648, 0.9744),
    ],
)
def test_wilson_interval_agrees_with_published_values(correct: int, clips: int, low: float, high: float) -> None:
    assert wilson_interval(correct, clips) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_stays_within_0_and_1_and_holds_the_share() -> None:
    for clips in range(1, 200):
        for correct in {0, 1, clips // 2, clips - 1, clips}:
            low, high = wilson_interval(correct, clips)
            assert 0 <= low <= correct / clips + 1e-12 and correct / clips - 1e-12 <= high <= 1, (correct, clips)


def test_report_agrees_with_counts_made_by_hand() -> None:
    assert (REPORT.clips, REPORT.correct) == (16, 9)
    assert REPORT.accuracy == 9 / 16
    assert REPORT.interval == wilson_interval(9, 16)
    assert REPORT.confusion.tolist() == [[8, 2, 0, 0], [3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert REPORT.mean_accuracy == pytest.approx((8 / 10 + 1 / 4 + 0) / 3), "a class without clips has no share"
    assert REPORT.macro_f1 == pytest.approx((16 / 21 + 2 / 9 + 0) / 3)


def test_each_label_has_its_figures() -> None:
    yes, no, up, down = REPORT.per_label()
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
    assert (up["clips"], up["recall"], up["precision"], up["f1"], up["taken_for"]) == (2, 0, 0, 0, "no")
    assert (down["clips"], down["recall"], down["precision"], down["f1"], down["taken_for"]) == (0, 0, 0, 0, None)


def test_dictionary_survives_json_and_holds_everything() -> None:
    figures = json.loads(json.dumps(REPORT.to_dict()))
    assert figures == REPORT.to_dict()
    assert (figures["protocol"], figures["split"], figures["clips"], figures["correct"]) == ("own", "testing", 16, 9)
    assert (figures["accuracy"], figures["mean_accuracy"]) == (REPORT.accuracy, REPORT.mean_accuracy)
    assert figures["interval_95"] == list(REPORT.interval)
    assert figures["labels"] == ["yes", "no", "up", "down"] == [row["label"] for row in figures["per_label"]]
    assert figures["confusion"] == REPORT.confusion.tolist()
    assert (figures["macro_f1"], figures["calibration_error"]) == (REPORT.macro_f1, REPORT.calibration_error)
    assert len(figures["calibration"]) == 15 and sum(row["count"] for row in figures["calibration"]) == 16
    assert [len(figures[name]) for name in ("names", "truth", "answers", "scores")] == [16] * 4
    assert figures["model"] is None
    assert json.loads(json.dumps(replace(REPORT, model=ABOUT).to_dict()))["model"]["parameters"] == 11_760
    assert not {"names", "scores", "mistakes"} & REPORT.figures().keys(), "what a model folder keeps is no list of clips"


def test_summary_is_one_line_with_accuracy_and_interval() -> None:
    assert REPORT.summary() == (
        "accuracy 56.25% (95 % interval 33.18% to 76.90%), mean over classes 35.00%, macro F1 32.80%, "
        "calibration error 6.25%, 9 of 16 clips, own testing"
    )
    nobody = report_of([[0, 7], [0, 0]], ("yes", "no"))  # where rounding gave an interval from -0.00%
    assert "interval 0.00% to 35.43%" in nobody.summary()


def test_report_of_a_stream_says_so() -> None:
    streamed = replace(REPORT, streamed=True)
    assert "9 of 16 clips in one stream, own testing" in streamed.summary()
    assert (REPORT.to_dict()["streamed"], streamed.to_dict()["streamed"]) == (False, True)


def test_table_is_markdown_with_a_row_for_each_label() -> None:
    head, rule, *rows = REPORT.table().splitlines()
    assert {line.count("|") for line in (head, rule, *rows)} == {7}
    assert set(rule) <= set("|-:")
    assert [row.split("|")[1].strip() for row in rows] == ["yes", "no", "up", "down"]
    assert rows[0] == "| yes | 10 | 80.0% | 72.7% | 76.2% | no |"
    assert rows[3] == "| down | 0 | 0.0% | 0.0% | 0.0% |  |"


@pytest.mark.parametrize(("batch", "batches"), [(4, [4, 4, 3]), (11, [11]), (10, [10, 1]), (256, [11])])
def test_every_clip_is_counted_once(batch: int, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH", batch)
    labels = ("yes", "no", "up")
    pairs = [("yes", "yes")] * 4 + [("yes", "up")] * 2 + [("no", "no")] * 3 + [("no", "yes"), ("up", "no")]
    model = Parrot(labels, labels)
    report = evaluate_clips(model, clips_with(labels, pairs), "own", "testing")
    assert model.batches == batches
    assert report.confusion.tolist() == [[4, 0, 2], [1, 3, 0], [0, 1, 0]]
    assert (report.labels, report.protocol, report.split) == (labels, "own", "testing")


def test_labels_of_the_model_in_another_order_give_the_same_counts() -> None:
    labels = ("yes", "no", "up")
    clips = clips_with(labels, [("yes", "yes"), ("yes", "no"), ("no", "no"), ("up", "yes"), ("up", "yes")])
    order = ("down", "up", "yes", "no")  # and with one more
    report = evaluate_clips(Parrot(order, labels), clips, "own", "testing")
    assert report.labels == order
    assert report.confusion.tolist() == [[0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert report.mean_accuracy == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_label_that_the_model_lacks_is_named() -> None:
    clips = clips_with(("yes", "no", "up"), [("yes", "yes")])
    with pytest.raises(ValueError, match="the model has no label no, up: it knows down, yes; take the protocol"):
        evaluate_clips(Parrot(("down", "yes"), ("yes",)), clips, "own", "testing")


def test_counts_are_the_answers_of_classify(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH", 4)
    labels = model.config.labels
    clips = sounds(labels, 11)
    expected = torch.zeros(len(labels), len(labels), dtype=torch.int64)
    for wave, target in zip(clips.waves, clips.targets, strict=True):
        expected[target, labels.index(model.classify(wave.float() / 32768).label)] += 1
    report = evaluate_clips(model.train(), clips, "own", "testing")
    assert report.confusion.tolist() == expected.tolist()
    assert not model.training


def test_another_pool_may_answer() -> None:
    labels = ("yes", "no", "up")
    clips = clips_with(labels, [("yes", "yes"), ("yes", "no"), ("no", "no"), ("up", "yes")])
    report = evaluate_clips(Parrot(labels, labels), clips, "own", "testing", lambda logits: -logits[:, 0] - 0.1 * torch.arange(3))
    assert report.confusion.tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 0]], "the first that the parrot does not say"


# Against other implementations


def drawn(seed: int, right: float = 0.7, clips: int = 500) -> Report:
    """Random answers to clips of four of five labels."""
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(0).integers(0, 4, clips)
    answers = np.where(random.random(clips) < right, truth, random.integers(0, 5, clips))
    names = tuple(map(str, range(clips)))
    return Report(("a", "b", "c", "d", "e"), names, truth, answers, random.uniform(0, 1, clips), "own", "testing")


@pytest.mark.parametrize("report", [drawn(1), drawn(2, 0.1, 40), REPORT], ids=["many", "few", "by hand"])
def test_figures_of_the_labels_are_those_of_scikit_learn(report: Report) -> None:
    from sklearn import metrics

    places = np.arange(len(report.labels))
    pair = report.truth, report.answers
    assert report.confusion.tolist() == metrics.confusion_matrix(*pair, labels=places).tolist()
    precision, recall, f1, clips = metrics.precision_recall_fscore_support(*pair, labels=places, zero_division=0)
    for place, row in enumerate(report.per_label()):
        figures = (row["precision"], row["recall"], row["f1"], row["clips"])
        assert figures == pytest.approx((precision[place], recall[place], f1[place], clips[place]))
    present = np.unique(report.truth)
    assert report.macro_f1 == pytest.approx(metrics.f1_score(*pair, labels=present, average="macro", zero_division=0))


def test_wilson_interval_is_that_of_statsmodels() -> None:
    from statsmodels.stats import proportion

    for correct, clips in ((0, 3), (1, 7), (155, 216), (3579, 3676), (4890, 4890)):
        expected = proportion.proportion_confint(correct, clips, method="wilson")
        assert wilson_interval(correct, clips) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("seeds", "right"), [((1, 2), (0.7, 0.7)), ((3, 4), (0.9, 0.5)), ((5, 5), (0.5, 0.5))])
def test_mcnemar_is_that_of_statsmodels(seeds: tuple[int, int], right: tuple[float, float]) -> None:
    from statsmodels.stats import contingency_tables as tables

    a, b = (drawn(seed, share) for seed, share in zip(seeds, right, strict=True))
    only_a, only_b, p = mcnemar(a, b)
    assert p == pytest.approx(tables.mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue, rel=1e-9)
    right_a, right_b = a.truth == a.answers, b.truth == b.answers
    assert (only_a, only_b) == (sum(right_a & ~right_b), sum(~right_a & right_b))


# Calibration


def test_calibration_agrees_with_bins_made_by_hand() -> None:
    """Three right of four at 0.9 to 0.93, one right of two at 0.5, one wrong at a bin's edge, 0.4, and one right at 1."""
    truth = np.zeros(8, dtype=int)
    answers = np.array([0, 0, 0, 1, 0, 1, 1, 0])
    scores = np.array([0.9, 0.91, 0.92, 0.93, 0.5, 0.5, 0.4, 1.0])
    report = Report(("yes", "no"), tuple("abcdefgh"), truth, answers, scores, "own", "testing")
    bins = list(report.calibration())
    assert [(round(15 * row["above"]), round(15 * row["up_to"])) for row in bins] == [(i, i + 1) for i in range(15)]
    assert {i: row["count"] for i, row in enumerate(bins) if row["count"]} == {5: 1, 7: 2, 13: 4, 14: 1}
    assert (bins[13]["confidence"], bins[13]["accuracy"]) == (pytest.approx(0.915), 0.75)
    assert bins[13]["interval_95"] == list(wilson_interval(3, 4))
    assert (bins[0]["confidence"], bins[0]["accuracy"], bins[0]["interval_95"]) == (None, None, None)
    assert report.calibration_error == pytest.approx((4 * 0.165 + 2 * 0 + 1 * 0.4 + 1 * 0) / 8)


def test_calibration_counts_every_clip_once_whatever_its_score() -> None:
    scores = np.array([0.0, 1e-9, *(i / 15 for i in range(1, 16))])
    report = replace(drawn(1, clips=17), scores=scores)
    assert [row["count"] for row in report.calibration()] == [3, *[1] * 14]


# Several models


def heard(right: str, **changes: object) -> Report:
    """A report on clips of `yes`, of which those with a 1 were heard right."""
    answers = np.array([1 - int(figure) for figure in right])
    size = len(right)
    clips = Report(("yes", "no"), tuple(map(str, range(size))), np.zeros(size, int), answers, np.ones(size), "own", "testing")
    return replace(clips, **changes)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("1111", "1111", (0, 0, 1.0)),
        ("1100", "0011", (2, 2, 1.0)),
        ("11111100", "00000000", (6, 0, 2 / 64)),
        ("1111111100", "1000000011", (7, 2, 2 * (1 + 9 + 36) / 512)),
    ],
)
def test_mcnemar_agrees_with_tosses_counted_by_hand(a: str, b: str, expected: tuple[int, int, float]) -> None:
    assert mcnemar(heard(a), heard(b)) == pytest.approx(expected)
    assert mcnemar(heard(b), heard(a))[2] == pytest.approx(expected[2])


def test_mcnemar_does_not_overflow_for_thousands_of_clips() -> None:
    only_a, only_b, p = mcnemar(heard("1" * 5_000 + "0" * 5_000), heard("0" * 5_000 + "1" * 5_000))
    assert (only_a, only_b, p) == (5_000, 5_000, 1.0)
    assert 0 <= mcnemar(heard("1" * 9_000 + "0" * 1_000), heard("0" * 9_000 + "1" * 1_000))[2] < 1e-300


def test_mcnemar_compares_models_whose_labels_stand_in_another_order() -> None:
    other = replace(heard("10"), labels=("no", "yes"), truth=np.ones(2, int), answers=np.array([0, 1]))
    assert mcnemar(heard("10"), other)[:2] == (1, 1)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (heard("10", protocol="v2-12"), "protocol is own in the first, v2-12 in the second"),
        (heard("10", split="validation"), "split is testing in the first, validation in the second"),
        (heard("10", streamed=True), "streamed is False in the first, True in the second"),
        (heard("101"), "clips is 2 in the first, 3 in the second"),
        (heard("10", names=("0", "7")), r"number 2 is 1 \(yes\) in the first, 7 \(yes\) in the second"),
        (heard("10", truth=np.array([1, 0])), r"number 1 is 0 \(yes\) in the first, 0 \(no\) in the second"),
    ],
)
def test_reports_on_different_clips_do_not_compare(other: Report, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mcnemar(heard("10"), other)


def test_rows_for_a_paper_are_as_written_here() -> None:
    rows = paper_rows([replace(REPORT, model=ABOUT)])
    assert markdown(rows) == (
        "| model | protocol | split | clips | accuracy | 95 % interval | parameters | million multiplications / s | SHA-256 |\n"
        "|---|---|---|--:|--:|--:|--:|--:|---|\n"
        "| runs/my_words | own | testing | 16 | 56.25% | 33.18% to 76.90% | 11,760 | 2.46 | 7b70fb124a7f |"
    )
    assert latex(rows) == (
        "model & protocol & split & clips & accuracy & 95 \\% interval & parameters & million multiplications / s & SHA-256 "
        "\\\\\n"
        "\\midrule\n"
        "runs/my\\_words & own & testing & 16 & 56.25\\% & 33.18\\% to 76.90\\% & 11,760 & 2.46 & 7b70fb124a7f \\\\"
    )


def test_latex_and_markdown_escape_what_they_would_take_for_their_own() -> None:
    rows = [["a|b"], ["50% of #1 & {x} $2 ~ ^ \\"]]
    assert markdown(rows).splitlines()[0] == "| a\\|b |"
    assert latex(rows).splitlines()[2] == (r"50\% of \#1 \& \{x\} \$2 \textasciitilde{} \textasciicircum{} \textbackslash{} \\")


def test_comparison_has_a_row_a_model_and_needs_to_know_it() -> None:
    assert comparison_rows([replace(REPORT, model=ABOUT)])[1:] == [
        ["runs/my_words", "11,760", "56.25%", "33.18% to 76.90%", "35.00%", "32.80%"]
    ]
    with pytest.raises(ValueError, match=r"on own testing does not know its model: expected one of `speechrnn\.evaluate`"):
        comparison_rows([REPORT])


# From Python


def test_evaluate_takes_a_name_a_folder_or_a_model(model: Model, model_folder: Path) -> None:
    clips = sounds(("yes", "no"), 6)
    named, given = evaluate(str(model_folder), clips, "own"), evaluate(model, clips, "own")
    assert named.model == About(str(model_folder), model.parameter_count, model.multiplications, named.model.sha256)
    assert given.model == replace(named.model, name="model"), "with the checksum that it would be saved with"
    assert named.model.sha256 == json.loads((model_folder / "config.json").read_text())["sha256"]
    assert given.answers.tolist() == named.answers.tolist() and given.names == tuple(clips.names)
    assert (given.protocol, given.split) == ("own", "testing")


def test_evaluate_reads_a_folder_in_the_protocol_of_the_training() -> None:
    report = evaluate("tiny", SYNTHETIC, split="validation", allow_partial=True)
    assert (report.protocol, report.split, report.clips) == ("v2-12", "validation", 216)
    assert report.plot().axes[0].get_title() == f"tiny, v2-12 validation: {report.accuracy:.1%}"


# All clips in one stream


class Listener(Stream):
    """A stream that keeps what it was given."""

    made: list["Listener"]

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.blocks: list[Tensor] = []
        self.made.append(self)

    def push(self, block: Tensor) -> Tensor:
        self.blocks.append(block.clone())
        return super().push(block)


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> list[Listener]:
    Listener.made = []
    monkeypatch.setattr(evaluation, "Stream", Listener)
    return Listener.made


@pytest.fixture(scope="module")
def undecided(model: Model) -> Model:
    """A model that was never trained answers with one label alone; this one's mean answer to noise is none of them."""
    undecided = copy.deepcopy(model).eval()
    with torch.no_grad():
        logits = undecided(sounds(model.config.labels, 20, seed=1).waves.float() / 32768)[0]
        undecided.head[-1].bias -= pool(logits).mean(0)
    return undecided


def test_stream_counts_every_clip_once(undecided: Model) -> None:
    clips = sounds(undecided.config.labels, 23)
    report = evaluate_stream(undecided, clips, hiss(), "own", "validation")
    assert report.confusion.sum(1).tolist() == torch.bincount(clips.targets).tolist() == [6, 6, 6, 5]
    assert (report.labels, report.protocol, report.split) == (undecided.config.labels, "own", "validation")
    assert report.streamed


def test_stream_is_the_answer_of_the_window_that_ends_with_each_clip(undecided: Model) -> None:
    """The recording joined by hand from the same draws, heard in one call."""
    clips, noise, seed = sounds(undecided.config.labels, 23), hiss(), 5
    random = np.random.default_rng(seed)
    order = random.permutation(23).tolist()
    recording, ends = np.zeros(0, dtype=np.float32), []
    for place in order:
        length = random.integers(1_600, 16_000)
        start = random.integers(0, len(noise) - length + 1)
        background = noise.numpy()[start : start + length] * 10 ** (random.uniform(-40, 0) / 20)
        recording = np.concatenate((recording, background, clips.waves[place].numpy()))
        ends.append(len(recording))
    with torch.inference_mode():
        logits = undecided(torch.from_numpy(recording).float()[None] / 32768)[0]
    answers = [int(pool(logits[:, end // 480 - 33 : end // 480]).argmax()) for end in ends]  # steps of 30 ms, 33 in a second
    assert len(set(answers)) > 1
    expected = Counter(zip(clips.targets[order].tolist(), answers, strict=True))
    found = evaluate_stream(undecided, clips, noise, "own", "testing", seed).confusion
    assert {place: found[place] for place in np.ndindex(found.shape) if found[place]} == expected


def test_stream_is_one_with_background_between_the_clips(model: Model, listeners: list[Listener]) -> None:
    clips, noise = sounds(model.config.labels, 40), torch.arange(1, 32_001, dtype=torch.int16)  # a ramp tells its place and level
    evaluate_stream(model, clips, noise, "own", "testing")
    (listener,) = listeners
    left = [wave.float() / 32768 for wave in clips.waves]
    lengths, levels, starts = [], [], []
    for block in listener.blocks:
        between, clip = block[:-16_000], block[-16_000:]
        left = [wave for wave in left if not wave.equal(clip)]
        gain = (between[-1] - between[0]).item() * 32768 / (len(between) - 1)
        start = round(between[-1].item() * 32768 / gain) - len(between)
        torch.testing.assert_close(between, noise[start : start + len(between)] * gain / 32768)
        lengths.append(len(between))
        levels.append(float(decibels(gain)))
        starts.append(start)
    assert not left, "every clip was heard, and as it is"
    assert 1_600 <= min(lengths) < 4_000 and 13_000 < max(lengths) < 16_000
    assert -40 <= min(levels) < -30 and -10 < max(levels) <= 1e-3
    assert min(starts) < 5_000 and max(starts) > 15_000


@pytest.mark.parametrize("samples", [0, 15_999])
def test_stream_without_noise_has_digital_silence_between_the_clips(
    samples: int, model: Model, listeners: list[Listener]
) -> None:
    report = evaluate_stream(model, sounds(model.config.labels, 5), hiss(samples), "own", "testing")
    assert report.clips == len(listeners[0].blocks) == 5
    assert all(len(block) >= 17_600 and not block[:-16_000].any() for block in listeners[0].blocks)


def test_stream_is_the_same_for_a_seed_and_another_for_another(model: Model, listeners: list[Listener]) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    clips = sounds(model.config.labels, 6)
    reports = [evaluate_stream(model, clips, hiss(), "own", "testing", seed) for seed in (0, 0, 1)]
    one, again, other = (torch.cat(listener.blocks) for listener in listeners)
    assert one.equal(again) and reports[0].confusion.tolist() == reports[1].confusion.tolist()
    assert one.shape != other.shape
    assert not one[:1_600].equal(other[:1_600])


def test_stream_refuses_a_label_that_the_model_lacks(model: Model) -> None:
    with pytest.raises(ValueError, match="the model has no label up"):
        evaluate_stream(model, sounds(("yes", "up"), 2), hiss(), "own", "testing")


# Mistakes


def test_mistakes_are_the_clips_heard_wrong_the_surest_first(undecided: Model) -> None:
    labels = undecided.config.labels
    clips = sounds(labels, 60)
    report = evaluate_clips(undecided, clips, "own", "testing")
    assert len(report.mistakes) == report.clips - report.correct > evaluation.WORST
    scores = [mistake.score for mistake in report.mistakes]
    assert scores == sorted(scores, reverse=True)
    for mistake in report.mistakes:
        place = clips.names.index(mistake.name)
        heard = undecided.classify(clips.waves[place].float() / 32768)
        assert (mistake.label, mistake.answer) == (labels[clips.targets[place]], heard.label)
        assert mistake.score == pytest.approx(heard.score, abs=1e-5)
        assert mistake.label != mistake.answer
    told = json.loads(json.dumps(report.to_dict()))["mistakes"]
    assert [mistake["name"] for mistake in told] == [mistake.name for mistake in report.mistakes[: evaluation.WORST]]


def test_mistakes_in_a_stream_have_the_names_of_their_clips(undecided: Model) -> None:
    clips = sounds(undecided.config.labels, 23)
    report = evaluate_stream(undecided, clips, hiss(), "own", "testing")
    assert len(report.mistakes) == 23 - report.correct > 0
    for mistake in report.mistakes:
        assert undecided.config.labels[clips.targets[clips.names.index(mistake.name)]] == mistake.label != mistake.answer
    heard = Counter((mistake.label, mistake.answer) for mistake in report.mistakes)
    for (label, answer), count in heard.items():
        assert report.confusion[report.labels.index(label), report.labels.index(answer)] == count


# Conditions


class Ear:
    """Keeps what it was asked, and answers `yes`."""

    config = SimpleNamespace(labels=("_silence_", "_unknown_", "yes", "no"), words=("yes", "no"))

    def __init__(self) -> None:
        self.heard: list[list[np.ndarray]] = []

    def eval(self) -> None: ...

    def classify_waves(self, waves: Sequence[np.ndarray]) -> list[SimpleNamespace]:
        self.heard.append([np.array(wave) for wave in waves])
        return [SimpleNamespace(label="yes")] * len(waves)


SNRS, LEVELS = (20, 15, 10, 5, 0, -5), (0, -20, -40)
SPOKEN = [
    "as recorded",
    *(f"{name}, {snr} dB" for name in ("hiss", "hum") for snr in SNRS),
    "30 dB quieter",
    "20 dB louder, clipped",
    "telephone, 300 to 3,400 Hz at 8 kHz",
    "word begins with the file",
    "word ends with the file",
    "the loudest 0.3 s as a file",
    "in 3 s of silence",
]
SILENT = ["digital zero", *(f"{name} alone, {level} dB" for name in ("hiss", "hum") for level in LEVELS)]


def hum() -> Tensor:
    return (1_000 * torch.sin(torch.arange(17_000) / 40)).short()


def words() -> Clips:
    """Bursts of a tone, one a clip and each in another place, and noises that are no words."""
    clips = sounds(Ear.config.labels, 12)
    tone = (8_000 * torch.sin(torch.arange(6_400) / 3)).short()
    for place in (clips.targets >= 2).nonzero()[:, 0].tolist():
        clips.waves[place] = 0
        clips.waves[place, 480 * (place + 1) :][:6_400] = tone
    return clips


@pytest.fixture
def conditions(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, float], dict[str, list[np.ndarray]], Clips]:
    """The rates, and what was heard for each."""
    monkeypatch.setattr(evaluation, "SILENCES", 30)
    ear, clips = Ear(), words()
    rates = evaluate_conditions(ear, clips, {"hiss": hiss(), "short": hiss(15_999), "hum": hum()})
    return rates, dict(zip(rates, ear.heard, strict=True)), clips


def decibels(ratio: np.ndarray | float) -> np.ndarray:
    return 20 * np.log10(ratio)


def rms(waves: Sequence[np.ndarray]) -> np.ndarray:
    return np.sqrt(np.square(np.array(waves, dtype=np.float64)).mean(-1))


def test_conditions_are_told_by_name_and_a_noise_below_a_second_is_left_out(conditions) -> None:
    rates, _, _ = conditions
    assert list(rates) == SPOKEN + SILENT


def test_condition_is_the_share_of_words_or_of_silences_heard_right(conditions) -> None:
    rates, heard, clips = conditions
    spoken = clips.targets[clips.targets >= 2]
    assert 0 < len(spoken) < len(clips), "what is no word is left out"
    assert {len(heard[name]) for name in SPOKEN} == {len(spoken)}
    assert {rates[name] for name in SPOKEN} == {(spoken == 2).float().mean().item()}
    assert {rates[name] for name in SILENT} == {0}
    assert [len(heard[name]) for name in SILENT] == [1, *[30] * 6]


def test_words_are_heard_in_noise_at_the_ratio_said(conditions) -> None:
    _, heard, clips = conditions
    recorded = np.array(heard["as recorded"])
    np.testing.assert_allclose(recorded, clips.waves[clips.targets >= 2] / 32768)
    for name in ("hiss", "hum"):
        for snr in SNRS:
            added = np.array(heard[f"{name}, {snr} dB"]) - recorded
            np.testing.assert_allclose(decibels(rms(recorded) / rms(added)), snr, atol=0.05)
    hisses = np.array(heard["hiss, 0 dB"]) - recorded
    assert not np.allclose(hisses[0], hisses[1], atol=1e-3), "each from another place"


def test_quiet_and_loud_words_are_as_said(conditions) -> None:
    _, heard, _ = conditions
    recorded = heard["as recorded"]
    np.testing.assert_allclose(decibels(rms(heard["30 dB quieter"]) / rms(recorded)), -30, atol=1e-3)
    loud = np.array(heard["20 dB louder, clipped"])
    np.testing.assert_allclose(loud, np.clip(10 * np.array(recorded), -1, 1), atol=1e-6)
    assert np.abs(loud).max() == 1


def test_words_at_the_edges_are_whole_and_begin_or_end_with_the_file(conditions) -> None:
    _, heard, _ = conditions
    for at_start, at_end, wave in zip(
        heard["word begins with the file"], heard["word ends with the file"], heard["as recorded"], strict=True
    ):
        spoken = wave[(first := wave.nonzero()[0][0]) - 1 : first + 6_399]
        np.testing.assert_allclose(at_start[:6_400], spoken)
        np.testing.assert_allclose(at_end[-6_400:], spoken)
        assert len(at_start) == len(at_end) == 16_000 and not at_start[6_400:].any() and not at_end[:-6_400].any()


def test_short_and_long_files_hold_the_word(conditions) -> None:
    _, heard, _ = conditions
    for short, long, wave in zip(
        heard["the loudest 0.3 s as a file"], heard["in 3 s of silence"], heard["as recorded"], strict=True
    ):
        assert len(short) == 4_800 and (np.abs(short) > 0.1).mean() > 0.5, "of the word, not of the silence around it"
        np.testing.assert_allclose(long, np.pad(wave, 16_000))


def test_silences_are_zero_and_each_noise_at_its_levels(conditions) -> None:
    _, heard, _ = conditions
    (zero,) = heard["digital zero"]
    assert len(zero) == 16_000 and not zero.any()
    for name, noise in (("hiss", hiss()), ("hum", hum())):
        for level in LEVELS:
            alone = heard[f"{name} alone, {level} dB"]
            np.testing.assert_allclose(decibels(rms(alone) / rms([(noise / 32768).numpy()])), level, atol=0.3)
            assert len({wave.tobytes() for wave in alone}) > 20, "from many places"


def test_conditions_follow_the_seed() -> None:
    heard = []
    for seed in (0, 0, 1):
        ear = Ear()
        evaluate_conditions(ear, words(), {"hiss": hiss()}, seed)
        heard.append(np.array(ear.heard[1]))
    assert np.array_equal(heard[0], heard[1]) and not np.array_equal(heard[0], heard[2])


def test_words_as_recorded_are_the_words_of_the_report(undecided: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SILENCES", 4)
    labels = undecided.config.labels
    clips = sounds(labels, 41)
    rates = evaluate_conditions(undecided.train(), clips, {"hiss": hiss(17_000)})
    assert not undecided.training
    confusion = evaluate_clips(undecided, clips, "own", "testing").confusion
    spoken = [labels.index(word) for word in undecided.config.words]
    assert rates["as recorded"] == pytest.approx(confusion[spoken, spoken].sum() / confusion[spoken].sum())
    assert all(0 <= rate <= 1 for rate in rates.values())
    assert len(rates) == 1 + 6 + 7 + 1 + 3


def test_model_without_silence_has_no_condition_of_silence() -> None:
    ear = Ear()
    ear.config = SimpleNamespace(labels=("yes", "no"), words=("yes", "no"))
    rates = evaluate_conditions(ear, sounds(("no", "yes"), 4), {"hiss": hiss()})
    assert list(rates)[-1] == "in 3 s of silence"


@pytest.mark.parametrize(
    ("frequency", "low_db", "high_db"), [(100, -300, -15), (1_000, -1, 1), (2_000, -2, 1), (6_000, -300, -30)]
)
def test_telephone_keeps_its_band_alone(frequency: float, low_db: float, high_db: float) -> None:
    tone = torch.sin(2 * torch.pi * frequency * torch.arange(16_000) / 16_000)[None]
    heard = evaluation._telephone(tone)
    assert heard.shape == tone.shape
    inside = slice(1_000, 15_000)
    assert low_db < decibels(rms(heard[:, inside].numpy())[0] / rms(tone[:, inside].numpy())[0]) < high_db

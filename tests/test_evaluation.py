"""What `speechrnn.evaluation` promises: every clip is counted once, and every figure follows from the counts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from speechrnn import evaluation
from speechrnn.data import Clips
from speechrnn.evaluation import Report, evaluate_clips, wilson_interval
from speechrnn.model import Model

# 10 yes: 8 right, 2 as no; 4 no: 1 right, 3 as yes; 2 up: both as no; no clips of down, which was answered by nobody.
REPORT = Report(("yes", "no", "up", "down"), np.array([[8, 2, 0, 0], [3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]), "own", "testing")


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
    assert REPORT.mean_accuracy == pytest.approx((8 / 10 + 1 / 4 + 0) / 3), "a class without clips has no share"


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


def test_summary_is_one_line_with_accuracy_and_interval() -> None:
    assert REPORT.summary() == (
        "accuracy 56.25% (95 % interval 33.18% to 76.90%), mean over classes 35.00%, 9 of 16 clips, own testing"
    )
    nobody = Report(("yes", "no"), np.array([[0, 7], [0, 0]]), "own", "testing")  # where rounding gave an interval from -0.00%
    assert "interval 0.00% to 35.43%" in nobody.summary()


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
    generator = torch.Generator().manual_seed(0)
    envelopes = 10 ** torch.empty(11, 100).uniform_(-4, 0, generator=generator).repeat_interleave(160, 1)
    waves = (envelopes * torch.empty(11, 16_000).uniform_(-32768, 32767, generator=generator)).short()
    targets = torch.arange(11) % len(labels)
    expected = torch.zeros(len(labels), len(labels), dtype=torch.int64)
    for wave, target in zip(waves, targets, strict=True):
        expected[target, labels.index(model.classify(wave.float() / 32768).label)] += 1
    report = evaluate_clips(model.train(), Clips(waves, targets, [""] * 11, labels), "own", "testing")
    assert report.confusion.tolist() == expected.tolist()
    assert not model.training

"""Results as lines and tables, written out by hand; Markdown and LaTeX."""

from dataclasses import replace

import pytest
from evaluation_examples import MEASURED, RESULT, clip_result
from test_spotting import posteriors_of, word

from speechrnn.evaluation.results import ModelResult, StreamResult
from speechrnn.evaluation.spotting import ALL, Score, SpottingResult, evaluate_spotting
from speechrnn.evaluation.tables import latex, markdown
from speechrnn.evaluation.text import (
    alone_rows,
    as_json,
    as_text,
    close_summary,
    comparison_rows,
    condition_rows,
    difference_rows,
    label_rows,
    mcnemar_tests,
    paper_rows,
    spotting_rows,
    spotting_summary,
    summary,
)

KNOWN = replace(RESULT, model=MEASURED)
OTHER = replace(KNOWN, model=replace(MEASURED, name="runs/other"), answers=KNOWN.truth)


@pytest.fixture(scope="module")
def spotting() -> SpottingResult:
    """Two hours with 100 `yes` and 100 `no`, all detected, and nine false `yes`."""
    spoken = [(10.0 + 5 * i, "yes", 0.8) for i in range(100)]
    spoken += [(1_000.0 + 5 * i, "no", 0.7) for i in range(100)]
    alarms = [(3_000.0 + 5 * i, "yes", 0.75) for i in range(9)]
    truth = [word(middle, label) for middle, label, _ in spoken]
    return evaluate_spotting(posteriors_of(spoken + alarms, 2.0), truth, {"yes": 0.7, "no": 0.6})


@pytest.fixture(scope="module")
def complete(spotting: SpottingResult) -> ModelResult:
    streamed = replace(KNOWN, streamed=True)
    close = spotting.scores[ALL]
    stream = StreamResult(streamed, spotting, close, {"hiss": 0.5, "other words": 12.0})
    return ModelResult(KNOWN, stream, {"as recorded": 0.5, "hiss, 20 dB": 0.25})


def test_summary_is_one_line_with_accuracy_and_interval():
    assert summary(RESULT) == (
        "accuracy 56.25% (95 % interval 33.18% to 76.90%), mean over classes 35.00%, "
        "macro F1 32.80%, calibration error 6.25%, 9 of 16 clips, own testing"
    )
    # Where rounding gave an interval from -0.00%.
    never = clip_result([[0, 7], [0, 0]], ("yes", "no"))
    assert "interval 0.00% to 35.43%" in summary(never)


def test_summary_of_a_stream_tells_that_it_is_one():
    streamed = replace(RESULT, streamed=True)
    assert "9 of 16 clips in one stream, own testing" in summary(streamed)


def test_labels_have_a_row_each():
    head, *rows = label_rows(RESULT)
    assert head == ["label", "clips", "recall", "precision", "F1", "most frequent wrong answer"]
    assert [row[0] for row in rows] == ["yes", "no", "up", "down"]
    assert rows[0] == ["yes", "10", "80.0%", "72.7%", "76.2%", "no"]
    assert rows[3] == ["down", "0", "0.0%", "0.0%", "0.0%", ""]


def test_words_of_a_stream_have_a_row_each_and_a_line(spotting: SpottingResult):
    rows = spotting_rows(spotting)
    assert rows[0] == ["word", "threshold", "spoken", "missed", "wrong", "false alarms", "an hour"]
    assert rows[1] == ["all", "", "200", "0.0%", "0", "9", "4.50"]
    assert [row[:2] for row in rows[2:]] == [["yes", "0.700"], ["no", "0.600"]]
    assert spotting_summary(spotting).startswith(
        "stream of 2.00 h: 0 of 200 words missed (0.0%), 0 detected as others, 4.50 false alarms "
        "an hour, reported "
    )


def test_stream_without_a_hit_has_no_latency():
    nothing = evaluate_spotting(posteriors_of([], 2.0), [word(5, "yes")], {"yes": 0.7, "no": 0.7})
    assert spotting_summary(nothing) == (
        "stream of 2.00 h: 1 of 1 words missed (100.0%), 0 detected as others, "
        "0.00 false alarms an hour"
    )


def test_words_that_follow_each_other_fast_have_a_line():
    score = Score(words=200, hits=165, wrong=3, false_alarms=1, hours=0.1, latencies=())
    assert close_summary(score) == "0.3 s after another clip: 35 of 200 words missed (17.5%)"
    assert close_summary(replace(score, words=0, hits=0)).endswith(
        "clip: no words that the model knows"
    )


def test_conditions_and_sounds_without_words_have_a_row_each():
    assert condition_rows({"as recorded": 0.987})[1:] == [["as recorded", "98.7%"]]
    assert alone_rows({"hiss": 0.52})[1:] == [["hiss", "0.5"]]


def test_rows_for_a_paper_are_as_written_here():
    rows = paper_rows([KNOWN])
    assert markdown(rows) == (
        "| model | protocol | split | clips | accuracy | 95 % interval | parameters | "
        "million multiplications / s | SHA-256 |\n"
        "|---|---|---|--:|--:|--:|--:|--:|---|\n"
        "| runs/my_words | own | testing | 16 | 56.25% | 33.18% to 76.90% | 11,760 | 2.46 | "
        "7b70fb124a7f |"
    )
    assert latex(rows) == (
        "model & protocol & split & clips & accuracy & 95 \\% interval & parameters & "
        "million multiplications / s & SHA-256 \\\\\n"
        "\\midrule\n"
        "runs/my\\_words & own & testing & 16 & 56.25\\% & 33.18\\% to 76.90\\% & 11,760 & 2.46 & "
        "7b70fb124a7f \\\\"
    )


def test_latex_and_markdown_escape_what_they_would_take_for_their_own():
    rows = [["a|b"], ["50% of #1 & {x} $2 ~ ^ \\"]]
    assert markdown(rows).splitlines()[0] == "| a\\|b |"
    assert latex(rows).splitlines()[2] == (
        r"50\% of \#1 \& \{x\} \$2 \textasciitilde{} \textasciicircum{} \textbackslash{} \\"
    )


def test_comparison_has_a_row_for_each_model_and_needs_to_know_it():
    assert comparison_rows([KNOWN])[1:] == [
        ["runs/my_words", "11,760", "56.25%", "33.18% to 76.90%", "35.00%", "32.80%"]
    ]
    message = "on own testing does not know its model: give `evaluate_clips` a `MeasuredModel`"
    with pytest.raises(ValueError, match=message):
        comparison_rows([RESULT])


def test_each_pair_of_models_is_tested():
    tests = mcnemar_tests([KNOWN, OTHER, KNOWN])
    assert [test["models"] for test in tests] == [
        ["runs/my_words", "runs/other"],
        ["runs/my_words", "runs/my_words"],
        ["runs/other", "runs/my_words"],
    ]
    p = 2 / 2**7
    assert tests[0] == {"models": tests[0]["models"], "only_first": 0, "only_second": 7, "p": p}
    assert difference_rows(tests)[1] == ["runs/my_words", "runs/other", "0", "7", "0.016"]


def test_text_of_one_model_is_its_lines_and_tables_in_order(complete: ModelResult):
    stream = complete.stream
    lines = [summary(KNOWN), summary(stream.clips), spotting_summary(stream.spotting)]
    lines += [close_summary(stream.close)]
    tables = [
        spotting_rows(stream.spotting),
        alone_rows(stream.false_alarms_alone),
        label_rows(KNOWN),
        condition_rows(complete.conditions),
        paper_rows([KNOWN]),
    ]
    parts = ["\n".join(lines), *map(markdown, tables), latex(paper_rows([KNOWN]))]
    assert as_text([complete]) == "\n\n".join(parts)


def test_text_shows_no_more_than_was_measured():
    paper = paper_rows([KNOWN])
    parts = [summary(KNOWN), markdown(label_rows(KNOWN)), markdown(paper), latex(paper)]
    assert as_text([ModelResult(KNOWN)]) == "\n\n".join(parts)


def test_text_of_several_models_names_each_and_compares_them():
    text = as_text([ModelResult(KNOWN), ModelResult(OTHER)])
    assert f"runs/my_words\n{summary(KNOWN)}" in text and f"runs/other\n{summary(OTHER)}" in text
    paper = paper_rows([KNOWN, OTHER])
    compared = [comparison_rows([KNOWN, OTHER]), difference_rows(mcnemar_tests([KNOWN, OTHER]))]
    assert text.endswith("\n\n".join([*map(markdown, [*compared, paper]), latex(paper)]))


def test_json_holds_what_was_measured(complete: ModelResult):
    assert as_json([ModelResult(KNOWN)]) == KNOWN.to_dict()
    found = as_json([complete])
    parts = {"stream", "events", "close_words", "false_alarms_alone", "conditions"}
    assert found.keys() == KNOWN.to_dict().keys() | parts
    assert found["stream"] == complete.stream.clips.to_dict()
    assert found["events"] == complete.stream.spotting.to_dict()
    assert found["close_words"] == complete.stream.close.to_dict()
    assert found["false_alarms_alone"] == {"hiss": 0.5, "other words": 12.0}
    both = as_json([complete, ModelResult(OTHER)])
    assert both["reports"] == [found, OTHER.to_dict()]
    assert both["mcnemar"] == mcnemar_tests([KNOWN, OTHER])

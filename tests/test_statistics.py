"""Intervals and tests of `speechrnn.evaluation.statistics`, by hand and against statsmodels."""

import pytest
from statsmodels.stats import contingency_tables, proportion

from speechrnn.evaluation.statistics import mcnemar, wilson_interval


# Values of the score interval without continuity correction in Newcombe, Statistics in Medicine 17
# (1998), table I, and two that follow from the formula at the ends: 1 / (1 + z^2 / n) and its
# complement.
@pytest.mark.parametrize(
    ("correct", "trials", "low", "high"),
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
def test_wilson_interval_agrees_with_published_values(correct, trials, low, high):
    assert wilson_interval(correct, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_stays_within_0_and_1_and_holds_the_share():
    for trials in range(1, 200):
        for correct in {0, 1, trials // 2, trials - 1, trials}:
            low, high = wilson_interval(correct, trials)
            share = correct / trials
            assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1, (correct, trials)


def test_wilson_interval_is_that_of_statsmodels():
    for correct, trials in ((0, 3), (1, 7), (155, 216), (3579, 3676), (4890, 4890)):
        expected = proportion.proportion_confint(correct, trials, method="wilson")
        assert wilson_interval(correct, trials) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (2, 2, 1.0), (6, 0, 2 / 64), (7, 2, 2 * (1 + 9 + 36) / 512)],
)
def test_mcnemar_agrees_with_tosses_counted_by_hand(only_first, only_second, p):
    assert mcnemar(only_first, only_second) == pytest.approx(p)
    assert mcnemar(only_second, only_first) == pytest.approx(p)


@pytest.mark.parametrize(("only_first", "only_second"), [(80, 95), (210, 12), (1, 300), (5, 5)])
def test_mcnemar_is_that_of_statsmodels(only_first, only_second):
    table = [[0, only_first], [only_second, 0]]
    expected = contingency_tables.mcnemar(table, exact=True).pvalue
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_does_not_overflow_for_thousands_of_clips():
    assert mcnemar(5_000, 5_000) == 1.0
    assert 0 <= mcnemar(9_000, 1_000) < 1e-300

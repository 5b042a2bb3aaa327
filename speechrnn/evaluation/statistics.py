"""How sure a counted share is, and whether two differ. In: counts. Out: plain numbers."""

import math

Z_95 = 1.959964  # the quantile of the normal distribution that leaves 2.5 % above it


def wilson_interval(correct: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share that was counted.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22
    (1927).

    Args:
        correct: how many trials went right.
        trials: of how many, at least 1.

    Returns:
        Lower and upper end, 0 to 1.
    """
    share, square = correct / trials, Z_95 * Z_95
    middle = share + square / (2 * trials)
    spread = Z_95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    # Rounding may leave 0 to 1 by 1e-16.
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test of whether one of two models is right more often on the same clips.

    Source: McNemar, Note on the sampling error of the difference between correlated proportions or
    percentages, Psychometrika 12 (1947), with the binomial distribution in place of its
    approximation.

    Args:
        only_first: clips that only the first model answered rightly.
        only_second: clips that only the second did.

    Returns:
        The two-sided p-value: the chance of such a difference or a larger one if each of these
        clips had gone to either model by the toss of a coin.
    """
    tosses = only_first + only_second
    ways = total = 1  # exact integers: no power of two is too large for them
    for heads in range(min(only_first, only_second)):
        ways = ways * (tosses - heads) // (heads + 1)
        total += ways
    return float(min(1.0, 2 * total / 2**tosses))

"""How an export is held to the NumPy network, before it gets its name.

In: the network that was exported and whatever computes the export. Out: how far their logits and
states are apart, on waves made by formulas. It knows no format. (The NumPy network is held to the
golden vectors by the tests, and so is each export of the shipped models.)
"""

import numpy as np

from speechrnn.config import SAMPLE_RATE
from speechrnn.network import Network, Runtime

SAMPLES = 19_277  # 1.2 s, and not a whole number of steps
ODD = 1_601  # samples of a chunk that ends within a step


def waves() -> np.ndarray:
    """Five waves (5, N) float32: voice-like, a sweep, noise, full scale, and digital silence."""
    n = np.arange(SAMPLES)
    time = n / SAMPLE_RATE
    phase = 2 * np.pi * (120 * time - 4 * np.cos(2 * np.pi * 3 * time))
    voice = sum(np.sin(k * phase) / k for k in range(1, 25))
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time)
    return np.stack(
        [
            0.3 * voice * syllables,
            0.5 * np.sin(2 * np.pi * (100 + 3_000 * time) * time),
            # The parts behind the point of n^2 times an irrational number spread evenly (Weyl).
            0.2 * (n.astype(np.float64) ** 2 * (np.sqrt(5) - 1) / 2 % 1 - 0.5),
            np.sign(np.sin(0.2 * n)),
            np.zeros(SAMPLES),
        ]
    ).astype(np.float32)


def largest_difference(network: Network, runtime: Runtime) -> float:
    """How far logits are apart at most, as a share of the largest; the last states likewise.

    All waves together as a whole, and each alone in steps and in odd chunks.

    Args:
        network: what was exported; it is computed in float64.
        runtime: computes the export.

    Returns:
        NaN where either is not finite.
    """
    exact = Network(
        network.config, {name: array.astype(np.float64) for name, array in network.weights.items()}
    )
    batch = waves()
    runs = [(slice(None), SAMPLES)]
    for chunk in (network.config.step_samples, ODD):
        runs += [(slice(row, row + 1), chunk) for row in range(len(batch))]
    apart = []
    with np.errstate(all="ignore"):
        expected, (_, last) = exact.step(batch.astype(np.float64))
        largest, fullest = np.abs(expected).max() or 1, np.abs(last).max() or 1
        for rows, chunk in runs:
            logits, hidden = _stream(runtime, batch[rows], chunk)
            apart.append(np.abs(logits - expected[rows]).max() / largest)
            apart.append(np.abs(hidden - last[:, rows]).max() / fullest)
    return float(np.max(apart))


def _stream(runtime: Runtime, wave: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, T, C) and the last h (L, B, H) of a wave (B, N) in chunks."""
    logits, state = runtime.step(wave[:, :chunk])
    parts = [logits]
    for start in range(chunk, wave.shape[1], chunk):
        logits, state = runtime.step(wave[:, start : start + chunk], state)
        parts.append(logits)
    return np.concatenate(parts, 1), state.hidden

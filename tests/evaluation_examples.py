"""Results and clips that several tests of the evaluation take, and a model that is undecided."""

import numpy as np

from speechrnn import Recogniser
from speechrnn.audio import from_int16
from speechrnn.corpus import Clips
from speechrnn.evaluation.clips import ClipResult, MeasuredModel
from speechrnn.network import Network, pool

MEASURED = MeasuredModel("runs/my_words", 11_760, 2_456_789, "7b70fb124a7f" + 52 * "0")


def clip_result(
    counts: object,
    labels: tuple[str, ...] = ("yes", "no", "up", "down"),
    score: float = 0.5,
    model: MeasuredModel | None = None,
) -> ClipResult:
    """A result with this confusion, every answer with the same score."""
    counts = np.array(counts)
    truth, answers = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0).T
    names = tuple(f"{labels[label]}/{place}" for place, label in enumerate(truth))
    scores = np.full(len(truth), score)
    return ClipResult(labels, names, truth, answers, scores, "own", "testing", model=model)


# 10 yes: 8 right, 2 answered "no"; 4 no: 1 right, 3 answered "yes"; 2 up: both answered "no";
# no clip of down, which was never answered.
RESULT = clip_result([[8, 2, 0, 0], [3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])


def drawn(seed: int, right: float = 0.7, clips: int = 500) -> ClipResult:
    """Random answers to clips of four of five labels."""
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(0).integers(0, 4, clips)
    answers = np.where(random.random(clips) < right, truth, random.integers(0, 5, clips))
    names, scores = tuple(map(str, range(clips))), random.uniform(0, 1, clips)
    labels = ("a", "b", "c", "d", "e")
    return ClipResult(labels, names, truth, answers, scores, "own", "testing")


def sounds(labels: tuple[str, ...], count: int, seed: int = 0) -> Clips:
    """Noises, each with its own loudness in time, of all labels in turn."""
    random = np.random.default_rng(seed)
    envelopes = np.repeat(10 ** random.uniform(-4, 0, (count, 100)), 160, axis=1)
    waves = (envelopes * random.uniform(-32768, 32767, (count, 16_000))).astype(np.int16)
    targets = np.arange(count) % len(labels)
    return Clips(waves, targets, [f"{labels[t]}/{i}" for i, t in enumerate(targets)], labels)


def hiss(samples: int = 40_000) -> np.ndarray:
    return np.random.default_rng(7).integers(-3_000, 3_000, samples).astype(np.int16)


def undecided(recogniser: Recogniser) -> Recogniser:
    """The same model, shifted so that its mean answer to noise is no label.

    A model that was never trained gives the same label to everything.
    """
    config, weights = recogniser.config, dict(recogniser.runtime.weights)
    logits = recogniser.runtime.step(from_int16(sounds(config.labels, 20, seed=1).waves))[0]
    weights["head.1.bias"] = weights["head.1.bias"] - pool(logits).mean(0)
    return Recogniser(Network(config, weights), recogniser.thresholds)

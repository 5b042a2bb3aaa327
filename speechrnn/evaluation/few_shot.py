"""How good a few recordings of a word are: the few-shot benchmark of an encoder.

In: an encoder and labelled clips whose names tell the speakers. Out: a `FewShotResult` for each
number of shots: over many episodes, how many clips of the new words are answered rightly where a
given share of other words is taken for one of them. It draws nothing and words nothing.

Source: the protocol is that of Rusci and Tuytelaars (arXiv 2306.02161) and Gok et al. (arXiv
2506.17686): support and queries from different speakers, other words as unknown, accuracy at a
given share of false accepts.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from speechrnn.audio import from_int16
from speechrnn.corpus import Clips, progress, speaker
from speechrnn.enrolment import Encoder, embed
from speechrnn.network import softmax

FALSE_ACCEPTS = (0.01, 0.05)
QUERIES = 20  # of each word in an episode
UNKNOWN_QUERIES = 500  # in an episode
SAME_SPEAKER_WORDS = 3  # at least, in an episode


@dataclass(frozen=True)
class FewShotResult:
    """What an encoder reaches with so many recordings of a word.

    Args:
        shots: recordings of each word.
        same_speaker: whether one person speaks the recordings and the queries.
        episodes: how many were drawn.
        words: mean number of words in an episode.
        accuracy: share of the queries of words that are answered with their word and above the
            threshold, by the share of unknown queries that are above it too: mean over the
            episodes, and the 95 % interval of the mean.
        auroc: area under the curve of accepts of words against accepts of unknown ones, likewise.
    """

    shots: int
    same_speaker: bool
    episodes: int
    words: float
    accuracy: dict[float, tuple[float, float, float]]
    auroc: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        return asdict(self)


class FewShot:
    """Clips whose embeddings are computed once, and the episodes that are drawn from them.

    Args:
        encoder: that is measured.
        clips: labelled by word; names as in Speech Commands.
        words: that are new; all others are unknown.
        seed: of the draws.
    """

    def __init__(self, encoder: Encoder, clips: Clips, words: Sequence[str], seed: int = 0) -> None:
        self.encoder, self.words, self.random = encoder, tuple(words), np.random.default_rng(seed)
        self.names = [name.partition("/")[0] for name in clips.names]
        self.speakers = np.array([speaker(name) for name in clips.names])
        self.embeddings = embed(encoder.network, from_int16(clips.waves))
        places = defaultdict(list)
        for number, name in enumerate(self.names):
            places[name if name in self.words else ""].append(number)
        self.places = {name: np.array(numbers) for name, numbers in places.items()}

    def measure(self, shots: int, episodes: int, same_speaker: bool = False) -> FewShotResult:
        """Draw episodes, and measure each.

        Raises:
            ValueError: if there are too few clips.
        """
        draw = self._one_speaker if same_speaker else self._other_speakers
        found, words = [], []
        for _ in progress(range(episodes), f"{shots} shots"):
            support, queries, unknown = draw(shots)
            words.append(len(support))
            means = np.stack([self.embeddings[numbers].mean(0) for numbers in support.values()])
            found.append(self._score(means, list(queries.values()), unknown))
        columns = np.array(found).T
        intervals = [_interval(column) for column in columns]
        accuracy = dict(zip(FALSE_ACCEPTS, intervals, strict=False))
        return FewShotResult(
            shots, same_speaker, episodes, float(np.mean(words)), accuracy, intervals[-1]
        )

    def _other_speakers(
        self, shots: int
    ) -> tuple[dict[str, list[int]], dict[str, np.ndarray], np.ndarray]:
        """Support by word, queries by word and unknown queries, all numbers of clips.

        Each recording of a word is of another speaker, and no speaker of one speaks a query.
        """
        support: dict[str, list[int]] = {}
        for word in self.words:
            mine = self.random.permutation(self.places[word])
            _, first = np.unique(self.speakers[mine], return_index=True)
            if len(first) <= shots:
                raise ValueError(f"{word}: {len(first)} speakers, expected more than {shots}")
            support[word] = mine[np.sort(first)[:shots]].tolist()
        taken = {self.speakers[number] for numbers in support.values() for number in numbers}
        free = np.array([one not in taken for one in self.speakers])
        queries = {}
        for word in self.words:
            mine = self.places[word][free[self.places[word]]]
            queries[word] = self.random.permutation(mine)[:QUERIES]
        others = self.places[""][free[self.places[""]]]
        return support, queries, self.random.permutation(others)[:UNKNOWN_QUERIES]

    def _one_speaker(
        self, shots: int
    ) -> tuple[dict[str, list[int]], dict[str, np.ndarray], np.ndarray]:
        """The same, all by one person who speaks some of the words often enough."""
        able = self._able(shots)
        if not able:
            raise ValueError(f"no speaker says {SAME_SPEAKER_WORDS} words more than {shots} times")
        person = able[self.random.integers(len(able))]
        support, queries = {}, {}
        for word in self.words:
            mine = self.places[word][self.speakers[self.places[word]] == person]
            if len(mine) > shots:
                mine = self.random.permutation(mine)
                support[word], queries[word] = mine[:shots].tolist(), mine[shots:]
        return support, queries, self.random.permutation(self.places[""])[:UNKNOWN_QUERIES]

    def _able(self, shots: int) -> list[str]:
        counts: dict[str, int] = defaultdict(int)
        for word in self.words:
            people, times = np.unique(self.speakers[self.places[word]], return_counts=True)
            for person in people[times > shots].tolist():
                counts[person] += 1
        return [person for person, words in counts.items() if words >= SAME_SPEAKER_WORDS]

    def _score(
        self, means: np.ndarray, queries: list[np.ndarray], unknown: np.ndarray
    ) -> list[float]:
        """Accuracy at each share of false accepts, and the area under the curve."""

        def shares(numbers: np.ndarray) -> np.ndarray:
            rows = softmax(self.encoder.logits(means, self.embeddings[numbers]))
            return rows[:, -len(means) :]

        targets = np.repeat(np.arange(len(queries)), [len(numbers) for numbers in queries])
        found = shares(np.concatenate(queries))
        score, right = found.max(1), found.argmax(1) == targets
        false = np.sort(shares(unknown).max(1))
        accuracy = []
        for allowed in FALSE_ACCEPTS:
            level = false[-1 - int(allowed * len(false))]
            accuracy.append(float(((score > level) & right).mean()))
        return [*accuracy, float((np.searchsorted(false, score) / len(false)).mean())]


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by the normal distribution."""
    mean, half = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return mean, mean - half, mean + half

"""How good a few recordings of a word are: the few-shot benchmark of an encoder.

In: an encoder, labelled clips whose names tell the speakers, and for streams background noise and
talk. Out: a `FewShotResult` for each number of recordings: over many episodes, how many clips of
new words are answered rightly where a given share of other words is taken for one of them; and a
`FewShotStream`. It draws nothing and words nothing.

Source: the protocol is that of Rusci and Tuytelaars (arXiv 2306.02161) and Gok et al. (arXiv
2506.17686): support and queries from different speakers, other words as unknown, accuracy at a
given share of false accepts.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from speechrnn.audio import from_int16
from speechrnn.config import DEFAULT_THRESHOLD, SILENCE
from speechrnn.corpus import Clips, join_noises, progress, speaker
from speechrnn.enrolment import Encoder, embed
from speechrnn.evaluation.background import Background, false_alarm_curve
from speechrnn.evaluation.clips import MeasuredModel, in_batches, measured_model
from speechrnn.evaluation.recordings import JoinedRecording, posteriors
from speechrnn.evaluation.spotting import ALL, choose_threshold, score_curve
from speechrnn.evaluation.statistics import Z_95
from speechrnn.network import softmax
from speechrnn.recogniser import Recogniser

EPISODES = 500
SHOTS, SAME_SPEAKER_SHOTS = (1, 5, 10), (1, 3)
FALSE_ACCEPTS = (0.01, 0.05)
WAYS = 10  # words of an episode, where there are more
QUERIES = 20  # of each word in an episode
UNKNOWN_QUERIES = 500  # in an episode
SAME_SPEAKER_WORDS = 3  # at least, in an episode
OTHERS, UNHEARD = "all other words", "words that the encoder never heard"
STREAM_SHOTS = 10
STREAM_CLIPS, STREAM_HOURS = 100, 0.5  # of each word in a stream at most, and in all at least
FALSE_ALARMS = (1.0, 5.0, 10.0)  # an hour of talk

Interval = tuple[float, float, float]  # mean over the episodes, and both ends of its 95 % interval


class Published(NamedTuple):
    """A figure of somebody else.

    Args:
        work: and where it is to be read.
        shots: recordings of each word; None where that is not said.
        protocol: how it was measured.
        false_accepts: share of unknown words that are accepted; None where that is not said.
        accuracy: reached there.
    """

    work: str
    shots: int | None
    protocol: str
    false_accepts: float | None
    accuracy: float


TEN = "ten words of Speech Commands, open set"
PUBLISHED = (
    Published("Mazumder 2021 (arXiv 2104.01454)", 5, "streamed, words of MSWC", 0.043, 0.874),
    Published("Rusci 2023 (arXiv 2306.02161)", 10, TEN, 0.05, 0.76),
    Published("Gok 2025 (arXiv 2506.17686)", 10, f"{TEN}, 11 classes", 0.01, 0.769),
    Published("local-wake", None, "same speaker, clean", None, 0.986),
)


@dataclass(frozen=True)
class FewShotResult:
    """What an encoder reaches with so many recordings of a word.

    Args:
        shots: recordings of each word.
        same_speaker: whether one person speaks the recordings and the queries.
        unknown: which words are unknown, `OTHERS` or `UNHEARD`.
        episodes: how many were drawn.
        words: mean number of words in an episode.
        accuracy: share of the queries of words that are answered with their word and above the
            threshold, by the share of unknown queries that may be above it too. The interval is
            that of the draws: the clips are the same ones in all episodes.
        auroc: area under the curve of accepts of words against accepts of unknown ones.
    """

    shots: int
    same_speaker: bool
    unknown: str
    episodes: int
    words: float
    accuracy: dict[float, Interval]
    auroc: Interval

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        accuracy = [
            {"false_accepts": share, **_interval_dict(value)}
            for share, value in self.accuracy.items()
        ]
        return {**asdict(self), "accuracy": accuracy, "auroc": _interval_dict(self.auroc)}


@dataclass(frozen=True)
class FewShotStream:
    """How well the words are found in a stream, with thresholds by their false alarms in talk.

    Args:
        shots: recordings of each word, of speakers who are not in the stream.
        words: spoken in the stream.
        hours: length of the stream.
        talk_hours: length of the talk.
        points: false alarms an hour that are allowed, those at the lowest threshold that allows no
            more, this threshold, and the share of words that are missed at it; the last two are
            None where no threshold does.
    """

    shots: int
    words: int
    hours: float
    talk_hours: float
    points: tuple[tuple[float, float, float | None, float | None], ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        names = ("false_alarms_allowed", "false_alarms_per_hour", "threshold", "miss_rate")
        points = [dict(zip(names, point, strict=True)) for point in self.points]
        return {**asdict(self), "points": points}


@dataclass(frozen=True)
class FewShotReport:
    """All that is measured of an encoder.

    Args:
        encoder: which.
        unheard: words that its training never had; None where its folder does not tell.
        words: that may be new in an episode.
        split: of the corpus.
        clips: of all words in it.
        results: by shots, speaker and unknown words. Those of the same speaker are not there where
            nobody says enough words often enough.
        stream: if that was asked for.
    """

    encoder: MeasuredModel
    unheard: tuple[str, ...] | None
    words: tuple[str, ...]
    split: str
    clips: int
    results: tuple[FewShotResult, ...]
    stream: FewShotStream | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        return {
            **asdict(self),
            "results": [result.to_dict() for result in self.results],
            "stream": self.stream.to_dict() if self.stream else None,
        }


class Episode(NamedTuple):
    """Clips of an episode, each as its number.

    Args:
        support: what is enrolled, by word.
        queries: by word.
        unknown: queries of other words, by what they are: `OTHERS`, `UNHEARD`.
    """

    support: dict[str, np.ndarray]
    queries: dict[str, np.ndarray]
    unknown: dict[str, np.ndarray]


class FewShot:
    """Clips whose embeddings are computed once, and the episodes that are drawn from them.

    Args:
        encoder: that is measured.
        clips: labelled by word; names as in Speech Commands. Silence is left out.
        words: that may be new. If there are more than `WAYS`, each episode has others. Whatever is
            none of an episode's words is unknown in it.
        seed: of the draws.

    Raises:
        ValueError: if the names do not tell the speakers, or no word is left to be unknown.
    """

    def __init__(self, encoder: Encoder, clips: Clips, words: Sequence[str], seed: int = 0) -> None:
        self.encoder, self.clips, self.words = encoder, clips, tuple(words)
        self._random = np.random.default_rng(seed)
        names = np.array([name.partition("/")[0] for name in clips.names])
        if not any("_nohash_" in name for name in clips.names):
            raise ValueError(
                "the clips do not tell their speakers, who must differ: expected names such as "
                "lights/anna_nohash_0.wav"
            )
        _, self.speakers = np.unique([speaker(name) for name in clips.names], return_inverse=True)
        self.places = {
            str(word): np.flatnonzero(names == word) for word in np.unique(names) if word != SILENCE
        }
        if len(self.words) <= WAYS and not set(self.places) - set(self.words):
            raise ValueError(
                f"there are no words but {', '.join(self.words)}: expected others too, which are "
                "unknown"
            )
        self.unheard = encoder.folder.about["training"].get("unheard")
        network = encoder.network

        def part(numbers: slice) -> np.ndarray:
            return embed(network, from_int16(clips.waves[numbers]))

        parts = in_batches(network, part, len(clips), "embedding")
        self.embeddings = np.concatenate(parts)

    def measure(
        self, shots: int, episodes: int, same_speaker: bool = False
    ) -> tuple[FewShotResult, ...]:
        """Draw episodes, and measure each: a result for each kind of unknown words.

        Raises:
            ValueError: if there are too few clips.
        """
        draw = self.one_speaker if same_speaker else self.other_speakers
        words, found = [], defaultdict(list)
        with_bar = progress(range(episodes), f"{shots} shots")
        for _, episode in zip(with_bar, draw(shots), strict=False):
            words.append(len(episode.support))
            for kind, row in self._score(episode).items():
                found[kind].append(row)
        results = []
        for kind, rows in found.items():
            *accuracy, auroc = map(_interval, np.array(rows).T)
            by_share = dict(zip(FALSE_ACCEPTS, accuracy, strict=True))
            mean = float(np.mean(words))
            results.append(
                FewShotResult(shots, same_speaker, kind, episodes, mean, by_share, auroc)
            )
        return tuple(results)

    def other_speakers(self, shots: int, queries: int = QUERIES) -> Iterator[Episode]:
        """Endless episodes in which each recording of a word is of another speaker.

        No speaker of a recording speaks a query, of whatever word.

        Raises:
            ValueError: if there are too few clips.
        """
        while True:
            words, support = self._some(self.words), {}
            for word in words:
                mine = self._random.permutation(self.places.get(word, np.zeros(0, int)))
                _, first = np.unique(self.speakers[mine], return_index=True)
                if len(first) <= shots:
                    raise ValueError(
                        f"{word}: {len(first)} speakers in this split, expected more than {shots}"
                    )
                support[word] = mine[np.sort(first)[:shots]]
            taken = self.speakers[np.concatenate(list(support.values()))]
            free = ~np.isin(self.speakers, taken)
            asked = {
                word: self._drawn(self.places[word][free[self.places[word]]], queries)
                for word in words
            }
            unknown = self._unknown(words, free)
            for what, numbers in [*asked.items(), *unknown.items()]:
                if not len(numbers):
                    raise ValueError(
                        f"{what}: all their speakers in this split are needed for the recordings "
                        "of the words, and none is left to ask; expected more speakers"
                    )
            yield Episode(support, asked, unknown)

    def one_speaker(self, shots: int) -> Iterator[Episode]:
        """Endless episodes in which one person speaks the recordings and the queries of the words.

        The unknown queries are everybody's, for one person has too few.

        Raises:
            ValueError: if nobody says enough words often enough.
        """
        able = list(self.able(shots).items())
        if not able:
            raise ValueError(f"nobody says {SAME_SPEAKER_WORDS} words more than {shots} times")
        everybody = np.ones(len(self.speakers), bool)
        while True:
            person, often = able[self._random.integers(len(able))]
            support, asked = {}, {}
            for word in self._some(often):
                mine = self.places[word][self.speakers[self.places[word]] == person]
                mine = self._random.permutation(mine)
                support[word], asked[word] = mine[:shots], mine[shots:]
            yield Episode(support, asked, self._unknown(list(support), everybody))

    def able(self, shots: int) -> dict[int, list[str]]:
        """Words that each speaker says more than so many times, of those who have enough words."""
        often = defaultdict(list)
        for word in self.words:
            people, times = np.unique(
                self.speakers[self.places.get(word, np.zeros(0, int))], return_counts=True
            )
            for person in people[times > shots].tolist():
                often[person].append(word)
        return {
            person: words for person, words in often.items() if len(words) >= SAME_SPEAKER_WORDS
        }

    def stream(self, noises: Mapping[str, np.ndarray], talk: Background) -> FewShotStream:
        """Enrol one draw of words, and look for them in a stream of other speakers and in talk.

        Args:
            noises: (n,) int16 by name: background of the stream.
            talk: running speech.

        Raises:
            ValueError: if there are too few clips.
        """
        episode = next(self.other_speakers(STREAM_SHOTS, STREAM_CLIPS))
        words = tuple(episode.support)
        network = self.encoder.head(words).network(self._means(episode))
        recogniser = Recogniser(network, dict.fromkeys(words, DEFAULT_THRESHOLD))
        numbers = np.concatenate(list(episode.queries.values()))
        targets = np.repeat(np.arange(len(words)), [len(one) for one in episode.queries.values()])
        spoken = Clips(
            self.clips.waves[numbers], targets, [self.clips.names[one] for one in numbers], words
        )
        recording = JoinedRecording(spoken, join_noises(noises), STREAM_HOURS)
        outputs, in_talk = posteriors(recogniser, [recording, talk])
        missed = {level: scores[ALL] for level, scores in score_curve(outputs, recording.words)}
        curve = false_alarm_curve(in_talk, talk)
        rates = dict(curve)
        points: list[tuple[float, float, float | None, float | None]] = []
        for allowed in FALSE_ALARMS:
            level = choose_threshold([curve], allowed)
            reached = rates[level] <= allowed
            miss_rate = missed[level].miss_rate
            points.append(
                (allowed, rates[level], *((level, miss_rate) if reached else (None,) * 2))
            )
        return FewShotStream(
            STREAM_SHOTS, len(recording.words), recording.hours, talk.hours, tuple(points)
        )

    def _some(self, words: Sequence[str]) -> list[str]:
        """The words of an episode."""
        return [words[one] for one in self._random.permutation(len(words))[:WAYS]]

    def _drawn(self, numbers: np.ndarray, count: int) -> np.ndarray:
        drawn: np.ndarray = self._random.permutation(numbers)[:count]
        return drawn

    def _unknown(self, words: Sequence[str], free: np.ndarray) -> dict[str, np.ndarray]:
        """Unknown queries by kind, of free speakers, where these words are an episode's."""
        kinds = {OTHERS: set(self.places) - set(words)}
        if unheard := set(self.unheard or ()) & set(self.places) - set(self.words):
            kinds[UNHEARD] = unheard
        found = {}
        for kind, names in kinds.items():
            numbers = [np.zeros(0, int), *(self.places[name] for name in sorted(names))]
            mine = np.concatenate(numbers)
            found[kind] = self._drawn(mine[free[mine]], UNKNOWN_QUERIES)
        return found

    def _means(self, episode: Episode) -> np.ndarray:
        """(W, H), what stands for each word."""
        return np.stack([self.embeddings[numbers].mean(0) for numbers in episode.support.values()])

    def _score(self, episode: Episode) -> dict[str, list[float]]:
        """By kind of unknown: accuracy at each share of false accepts, area under the curve."""
        head, means = self.encoder.head(tuple(episode.support)), self._means(episode)

        def shares(numbers: np.ndarray) -> np.ndarray:
            rows = softmax(head.logits(means, self.embeddings[numbers]))
            return rows[:, -len(means) :]

        queries = list(episode.queries.values())
        targets = np.repeat(np.arange(len(queries)), [len(numbers) for numbers in queries])
        found = shares(np.concatenate(queries))
        right = found.argmax(1) == targets
        return {
            kind: operating_points(found.max(1), right, shares(numbers).max(1))
            for kind, numbers in episode.unknown.items()
        }


def operating_points(accepted: np.ndarray, right: np.ndarray, false: np.ndarray) -> list[float]:
    """Accuracy at each of `FALSE_ACCEPTS`, and the area under the curve of accepts.

    Args:
        accepted: (n,) score of each query of a word; it is accepted above the threshold.
        right: (n,) bool, whether its word is the best.
        false: (m,) score of each unknown query. The threshold is the lowest that lets no more of
            them pass than allowed.
    """
    false = np.sort(false)
    points = []
    for allowed in FALSE_ACCEPTS:
        level = false[-1 - int(allowed * len(false))]
        points.append(float(((accepted > level) & right).mean()))
    below, upto = (np.searchsorted(false, accepted, side) for side in ("left", "right"))
    return [*points, float((below + upto).mean() / 2 / len(false))]


def evaluate_few_shot(
    name: str,
    few_shot: FewShot,
    split: str,
    stream: FewShotStream | None = None,
) -> FewShotReport:
    """Measure an encoder with all numbers of recordings, of other speakers and of the same one.

    Args:
        name: of the encoder.
        few_shot: the encoder and the clips.
        split: which clips they are.
        stream: what was measured in a stream, if anything.

    Raises:
        ValueError: if there are too few clips.
    """
    results: list[FewShotResult] = []
    for shots in SHOTS:
        results += few_shot.measure(shots, EPISODES)
    for shots in SAME_SPEAKER_SHOTS:
        if few_shot.able(shots):
            results += few_shot.measure(shots, EPISODES, same_speaker=True)
    unheard = few_shot.unheard
    return FewShotReport(
        measured_model(name, few_shot.encoder.folder),
        None if unheard is None else tuple(unheard),
        few_shot.words,
        split,
        sum(len(numbers) for numbers in few_shot.places.values()),
        tuple(results),
        stream,
    )


def _interval(values: np.ndarray) -> Interval:
    """Mean, and its 95 % interval by the normal distribution."""
    mean, half = float(values.mean()), Z_95 * float(values.std()) / len(values) ** 0.5
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def _interval_dict(interval: Interval) -> dict[str, Any]:
    mean, low, high = interval
    return {"mean": mean, "interval_95": [low, high]}

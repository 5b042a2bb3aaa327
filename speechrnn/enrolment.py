"""A model for new words from a few recordings of each, without a training: `speechrnn enrol`.

In: an encoder, which is a network that has learned what words are, and recordings of new words.
Out: a model folder like any other. The recurrent stack stays as it is. The new head has a row for
each word, the mean embedding of its recordings, and many rows for `_unknown_` and `_silence_`: a
bank of embeddings of other words, of talk, sounds and noise that travels with the encoder. The
embeddings of the recordings are kept with the model, so that words can be added and taken away
later. It does not know the command line.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from speechrnn.audio import AudioError, find_audio, loudest_second, read_wave
from speechrnn.config import SAMPLE_RATE, SILENCE, UNKNOWN, ModelConfig, row_labels
from speechrnn.detection import SlidingWindow, Trigger, join_posteriors
from speechrnn.folder import ModelFolder, read_folder, save_folder
from speechrnn.network import Network, answer_shares

ENCODER = Path(__file__).with_name("encoder")
BANK, EXAMPLES = "bank.safetensors", "examples.safetensors"
BATCH = 32  # clips at once
LONGEST_SECONDS = 3.0  # of a recording: it holds one word
QUIETEST_DB = -55.0  # of full scale, in the loudest tenth of a second
CLIPPED_SHARE = 0.002  # of the samples at full scale: more than the peaks of one loud vowel
FALSE_ACCEPTS = 0.01  # share of the bank that is taken for a word
DOUBTFUL = 0.1  # probability of its own word below which a recording does not fit the others
# From which a word counts in a stream: ten commands from ten recordings by others gave two false
# alarms in 2.4 h of validation talk.
THRESHOLD = 0.44
LEVELS = tuple(round(THRESHOLD + 0.02 * step, 2) for step in range(28))  # of thresholds


CARD = """# Words of somebody's own

A model of `speechrnn enrol`: a vanilla recurrent network that was trained on words in general, with
a head for these words and their numbers of recordings:

{words}

{check}
"""


class Bank(NamedTuple):
    """Embeddings that are none of a user's words, and how to compare embeddings.

    Args:
        unknown: (n, H) of other words, then of talk and of sounds.
        silence: (m, H) of background noise.
        metric: (H, H) for the squared distance of two embeddings, d @ metric @ d: the inverse of
            their covariance within words, as in linear discriminant analysis (Fisher 1936), times
            a factor that was chosen on words that the encoder had learned.
        words: of which the first rows of `unknown` are.
    """

    unknown: np.ndarray
    silence: np.ndarray
    metric: np.ndarray
    words: tuple[str, ...]


@dataclass(frozen=True)
class Examples:
    """The recordings of one word.

    Args:
        names: of the files.
        embeddings: (k, H).
    """

    names: tuple[str, ...]
    embeddings: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(H,), what stands for the word."""
        mean: np.ndarray = self.embeddings.mean(0)
        return mean


class Encoder:
    """The network that embeds clips, and its bank.

    Args:
        folder: a model folder with a bank in it. The head of its model is used for one thing alone:
            to weigh the steps of a clip.

    Raises:
        FileNotFoundError: if the folder, or its bank, is not there.
        ValueError: if one is damaged, or they do not belong together.
    """

    def __init__(self, folder: str | Path = ENCODER) -> None:
        self.folder = read_folder(folder)
        self.weights = self.folder.weights()
        self.network = Network(self.folder.config, self.weights)
        self.bank = _read_bank(self.folder)

    @property
    def checksum(self) -> str:
        """By which enrolled models know their encoder."""
        return str(self.folder.about["sha256"])

    def head(self, words: Sequence[str]) -> "Head":
        """What answers with these words, once it has their mean embeddings."""
        return Head(self, words)


class Head:
    """Rows for some words and, from an encoder's bank, for everything else, see `Encoder.head`.

    Rows of the bank that are the words themselves are left out.
    """

    def __init__(self, encoder: Encoder, words: Sequence[str]) -> None:
        bank, mine = encoder.bank, {word.casefold() for word in words}
        kept = np.ones(len(bank.unknown), bool)
        kept[: len(bank.words)] = [word.casefold() not in mine for word in bank.words]
        unknown, silence = bank.unknown[kept], bank.silence
        rest = (*row_labels(SILENCE, len(silence)), *row_labels(UNKNOWN, len(unknown)))
        self.encoder = encoder
        self.config: ModelConfig = replace(encoder.folder.config, labels=(*rest, *words))
        self._unknown = unknown.astype(np.float64)
        self._weight, self._bias = self._rows(np.concatenate((silence, unknown)))
        own = np.arange(len(unknown))
        logits = self._unknown @ self._weight.T + self._bias
        logits[own, len(silence) + own] = -np.inf
        self._elsewhere = np.logaddexp.reduce(logits, 1)

    def logits(self, means: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        """Logits (..., R) of embeddings (..., H), for words with these mean embeddings (W, H)."""
        weight, bias = self._fit(means)
        logits: np.ndarray = embeddings @ weight.T + bias
        return logits

    def network(self, means: np.ndarray) -> Network:
        """The encoder's network with this head, for words with these mean embeddings (W, H).

        The mean row of a head weighs the steps (`network.pool`): it stays the encoder's.
        """
        weight, bias = self._fit(means)
        weights = self.encoder.weights
        weight = weight - weight.mean(0) + weights["head.1.weight"].mean(0)
        new = {"head.1.weight": weight, "head.1.bias": bias - bias.mean()}
        parts = {name: part.astype(np.float32) for name, part in new.items()}
        return Network(self.config, weights | parts)

    def _rows(self, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight (R, H) and bias (R,): minus half the squared distance to each embedding (R, H)."""
        rows = embeddings.astype(np.float64)
        weight = rows @ self.encoder.bank.metric
        return weight, -0.5 * np.vecdot(weight, rows)

    def _fit(self, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight (R, H) and bias (R,) of all rows.

        As there are many more rows of the bank than words, words get a bias: the one with which
        `FALSE_ACCEPTS` of the bank are more probably a word than not, each without its own row.
        """
        weight, bias = self._rows(means)
        word = np.logaddexp.reduce(self._unknown @ weight.T + bias, 1)
        bias -= np.quantile(word - self._elsewhere, 1 - FALSE_ACCEPTS)
        return np.concatenate((self._weight, weight)), np.concatenate((self._bias, bias))


def embed(network: Network, clips: np.ndarray) -> np.ndarray:
    """Embeddings (n, H) of clips (n, 16000), float32 at 16 kHz."""
    parts = [network.embed(clips[start : start + BATCH]) for start in range(0, len(clips), BATCH)]
    return np.concatenate(parts)


def _read_bank(folder: ModelFolder) -> Bank:
    path = folder.path / BANK
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder.path}: no {BANK} in this folder, so it is no encoder; expected what "
            "recipes/encoder.py wrote"
        )
    size = folder.config.hidden_size
    try:
        with safe_open(path, "np") as file:
            words = tuple(json.loads(file.metadata()["words"]))
            unknown, silence, metric = (
                file.get_tensor(name).astype(np.float32) for name in Bank._fields[:3]
            )
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): copy the encoder again") from error
    if {array.shape[-1] for array in (unknown, silence, metric)} != {size}:
        raise ValueError(
            f"{path} is of another encoder: expected embeddings of {size} numbers; copy the whole "
            "folder again"
        )
    return Bank(unknown, silence, metric, words)


def bank_bytes(bank: Bank) -> bytes:
    """What `Encoder` reads again from the file `BANK` of a folder."""
    arrays = bank._asdict()
    words = json.dumps(arrays.pop("words"))
    return save(
        {name: array.astype(np.float32) for name, array in arrays.items()}, {"words": words}
    )


def read_clips(folder: str | Path, faults: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """The recordings of each word, as clips (16000,), by their names.

    Args:
        folder: holds a folder for each word.
        faults: gets a line for each recording that is left out, or that is not as it should be.

    Raises:
        FileNotFoundError: if there is no such folder, or no word with a recording in it.
        ValueError: if a word is named like a label, or none of its recordings can be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; expected one with a folder for each word"
        )
    found: dict[str, dict[str, np.ndarray]] = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        if place.name.startswith("."):
            continue
        if place.name.startswith("_"):
            raise ValueError(
                f"{place}: {place.name} is no word but a label; other words and noise come with "
                "the encoder, and background of your own is given as --background FOLDER"
            )
        if paths := find_audio([place]):
            found[place.name] = _read_word(place, paths, faults)
            if not found[place.name]:
                raise ValueError(
                    f"{place}: no recording in it can be used; the last one was {faults[-1]}"
                )
    if not found:
        raise FileNotFoundError(
            f"{folder}: no folders with recordings in it; expected FOLDER/WORD/1.wav and so on, "
            "as `speechrnn listen --record WORD` writes them"
        )
    return found


def _read_word(place: Path, paths: Iterable[Path], faults: list[str]) -> dict[str, np.ndarray]:
    clips: dict[str, np.ndarray] = {}
    for path in paths:
        try:
            wave = read_wave(path)
        except AudioError as error:
            faults.append(f"left out: {error}")
            continue
        clip = loudest_second(wave)
        same = next((name for name, other in clips.items() if np.array_equal(clip, other)), None)
        if len(wave) > LONGEST_SECONDS * SAMPLE_RATE:
            seconds = len(wave) / SAMPLE_RATE
            faults.append(
                f"left out: {path}: lasts {seconds:.1f} s, expected one word in at most "
                f"{LONGEST_SECONDS:g} s"
            )
        elif _loudness(clip) < QUIETEST_DB:
            faults.append(f"left out: {path}: is silent, or nearly so; record it again")
        elif same is not None:
            faults.append(f"left out: {path}: is the same recording as {same}")
        else:
            if np.mean(np.abs(clip) > 0.99) > CLIPPED_SHARE:
                faults.append(f"{path}: is clipped; record it again, from further away")
            clips[path.relative_to(place).as_posix()] = clip
    return clips


def _loudness(clip: np.ndarray) -> float:
    """Level of its loudest tenth of a second, dB of full scale."""
    power = (clip.reshape(10, -1).astype(np.float64) ** 2).mean(1).max()
    return float(10 * np.log10(power + 1e-12))


def embed_examples(encoder: Encoder, clips: Mapping[str, np.ndarray]) -> Examples:
    """What is known of a word whose clips (16000,) these are, by name."""
    return Examples(tuple(clips), embed(encoder.network, np.stack(list(clips.values()))))


def network_of(encoder: Encoder, words: Mapping[str, Examples]) -> Network:
    """The network for these words."""
    return encoder.head(tuple(words)).network(_means(words))


def _means(words: Mapping[str, Examples]) -> np.ndarray:
    return np.stack([one.mean for one in words.values()])


@dataclass(frozen=True)
class Check:
    """How well the recordings of a model's words fit, each answered without itself.

    Args:
        answers: what each was answered with, by word and name of the recording; empty where there
            is no other recording of a word.
        shares: likewise, the probability of its own word.
    """

    answers: dict[tuple[str, str], str]
    shares: dict[tuple[str, str], float]

    @property
    def summary(self) -> str:
        """What to make of it, in a sentence."""
        if not self.answers:
            return "One recording of a word cannot be checked: record more."
        count = len(self.answers)
        right = sum(word == answer for (word, _), answer in self.answers.items())
        return f"{right} of {count} recordings are answered rightly by a head made without them."

    @property
    def doubtful(self) -> list[tuple[str, str]]:
        """Word and name of each recording that does not fit the others, the worst first.

        Only of words whose recordings mostly fit: where they do not, none of them stands out.
        """
        total = Counter(word for word, _ in self.answers)
        right = Counter(word for (word, _), answer in self.answers.items() if answer == word)
        fits = {word for word, count in total.items() if 2 * right[word] >= count}
        doubtful = [
            one for one, share in self.shares.items() if share < DOUBTFUL and one[0] in fits
        ]
        return sorted(doubtful, key=self.shares.__getitem__)

    @property
    def confused(self) -> tuple[str, str] | None:
        """The two words that are most often taken for each other."""
        pairs = [
            (min(word, answer), max(word, answer))
            for (word, _), answer in self.answers.items()
            if answer != word and not answer.startswith("_")
        ]
        return max(sorted(set(pairs)), key=pairs.count) if pairs else None


def check(encoder: Encoder, words: Mapping[str, Examples]) -> Check:
    """Answer each recording with a head that was made without it."""
    head, means = encoder.head(tuple(words)), _means(words)
    answers, shares = {}, {}
    for place, (word, one) in enumerate(words.items()):
        count = len(one.names)
        for number, name in enumerate(one.names):
            if count < 2:
                continue
            others = means.copy()
            others[place] = (means[place] * count - one.embeddings[number]) / (count - 1)
            found = answer_shares(head.logits(others, one.embeddings[number]), head.config)
            answers[word, name] = head.config.answers[int(found.argmax())]
            shares[word, name] = float(found[head.config.answers.index(word)])
    return Check(answers, shares)


def quiet_threshold(network: Network, blocks: Iterable[np.ndarray]) -> float:
    """The lowest of `LEVELS` at which a model finds no word in a background.

    Args:
        network: of the model.
        blocks: (n,) float32 at 16 kHz, of a recording in which none of its words is spoken.

    Raises:
        ValueError: if words are found at every threshold.
    """
    window, state, found = SlidingWindow(network.config), None, []
    for block in blocks:
        logits, state = network.step(block[None], state)
        found.append(window.push(logits[0]))
    heard = join_posteriors(found)
    words = network.config.words
    for level in LEVELS:
        if not Trigger(network.config, dict.fromkeys(words, level)).push(heard):
            return level
    raise ValueError(
        f"words are found in the background at every threshold up to {LEVELS[-1]}: "
        "take away what speaks them there, or record the words again"
    )


def enrolled(folder: ModelFolder, encoder: Encoder) -> dict[str, Examples]:
    """The words of a model that was enrolled, with their examples.

    Raises:
        ValueError: if it was not enrolled, or with another encoder, or a file is damaged.
    """
    path = folder.path / EXAMPLES
    if not path.is_file():
        raise ValueError(
            f"{folder.path}: no {EXAMPLES} in this folder, so `speechrnn enrol` did not make it; "
            "type another name behind --to"
        )
    if folder.about["training"].get("encoder") != encoder.checksum:
        raise ValueError(
            f"{folder.path}: was enrolled with another encoder: enrol all its recordings again, "
            "into a new folder"
        )
    try:
        with safe_open(path, "np") as file:
            names = json.loads(file.metadata()["names"])
            return {
                word: Examples(tuple(names[word]), file.get_tensor(word).astype(np.float32))
                for word in names
            }
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): enrol the recordings again") from error


def save_enrolled(
    folder: str | Path,
    encoder: Encoder,
    words: Mapping[str, Examples],
    threshold: float,
    check: Check,
) -> None:
    """Write the model for words as a folder, whole or not at all; what was there is replaced.

    Raises:
        OSError: if it cannot be written.
    """
    network = network_of(encoder, words)
    arrays = {word: one.embeddings.astype(np.float32) for word, one in words.items()}
    names = {word: list(one.names) for word, one in words.items()}
    card = CARD.format(
        words="\n".join(f"- {word}: {len(one.names)}" for word, one in words.items()),
        check=check.summary,
    )
    save_folder(
        folder, network.config, network.weights,
        training={"encoder": encoder.checksum, "recordings": sum(map(len, names.values()))},
        scores={}, card=card, thresholds={"thresholds": dict.fromkeys(words, threshold)},
        others={EXAMPLES: save(arrays, {"names": json.dumps(names)})},
    )  # fmt: skip

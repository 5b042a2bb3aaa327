"""Make an encoder of a model that was trained on many words, and fill its bank.

Usage:
    python recipes/encoder.py runs/encoder/model --words data/words --talk data/talk/training \\
        --sounds data/sounds/training --to speechrnn/encoder

Of the head that told the words apart only the mean row stays, which weighs the steps of a clip. The
bank holds embeddings of clips that are none of a user's words: other words, pieces of talk and of
sounds, background noise; and how far apart two clips of one word lie.
"""

import argparse
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from speechrnn.audio import from_int16
from speechrnn.config import SILENCE, UNKNOWN
from speechrnn.corpus import Clips, load_split
from speechrnn.enrolment import BANK, Bank, bank_bytes, embed
from speechrnn.evaluation.background import random_seconds, read_background
from speechrnn.folder import read_folder, save_folder
from speechrnn.network import Network

WORDS, TALK, SOUNDS, SILENT = 800, 150, 50, 40  # embeddings of each
FACTS = ("corpus", "recipe", "seed", "epochs", "date", "hardware")  # of the training
SHRINKAGE, SHARPNESS = 0.25, 0.06  # of the metric
SPREAD_CLIPS, SPREAD_LEAST = 12_000, 8  # for the spread within words: clips in all, and of a word

CARD = """# An encoder of words

A vanilla recurrent network of {parameters:,} parameters, trained to tell {count:,} words apart, of
which it keeps all but the head. `speechrnn enrol` fits new heads to it, for words of which there
are a few recordings. `bank.safetensors` holds embeddings of other words, of talk, sounds and
silence.

Data: Google Speech Commands (Pete Warden, CC BY 4.0); LibriSpeech (Panayotov et al., CC BY 4.0);
words synthesised by flite, espeak-ng and Kokoro-82M; talk and sounds from Debian packages, whose
licences stand in recipes/README.md of speechrnn.
"""


def one_of_each(
    targets: np.ndarray, among: np.ndarray, count: int, random: np.random.Generator
) -> np.ndarray:
    """Numbers of clips of as many different words as there are, out of those `among` all."""
    places = random.permutation(among)
    times: Counter[int] = Counter()
    rank = np.zeros(len(places), np.int64)
    for number, target in enumerate(targets[places].tolist()):
        rank[number] = times[target]
        times[target] += 1
    chosen: np.ndarray = places[np.argsort(rank, kind="stable")[:count]]
    return chosen


def metric(within: np.ndarray) -> np.ndarray:
    """For squared distances, from the covariance within words, see `enrolment.Bank`."""
    size = len(within)
    shrunk = (1 - SHRINKAGE) * within + SHRINKAGE * np.trace(within) / size * np.eye(size)
    inverse: np.ndarray = np.linalg.inv(shrunk) * SHARPNESS
    return inverse


def spread(
    network: Network, clips: Clips, among: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Covariance (H, H) of the embeddings of a word around its mean, over words with many clips."""
    counts = np.bincount(clips.targets[among], minlength=len(clips.labels))
    often = among[counts[clips.targets[among]] >= SPREAD_LEAST]
    chosen = np.sort(random.permutation(often)[:SPREAD_CLIPS])
    targets, rows = clips.targets[chosen], embed(network, from_int16(clips.waves[chosen]))
    within, freedom = np.zeros((rows.shape[1],) * 2), 0
    for target in np.unique(targets):
        mine = rows[targets == target]
        centred = mine - mine.mean(0)
        within += centred.T @ centred
        freedom += len(mine) - 1
    return within / freedom


def main() -> int:
    parser = argparse.ArgumentParser(description="Make an encoder, and fill its bank.")
    parser.add_argument("model", type=Path, help="trained on many words (recipes/encoder.yaml)")
    for name in ("words", "talk", "sounds"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="what it was trained on")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--unheard",
        nargs="+",
        metavar="WORD",
        help="words that the training never had: `speechrnn evaluate --few-shot` tells them apart",
    )
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    trained = read_folder(arguments.model)
    if heard := sorted(set(arguments.unheard or ()) & set(trained.config.words)):
        raise ValueError(
            f"{arguments.model}: was trained on {', '.join(heard)}: take them from --unheard"
        )
    weights = trained.weights()
    weigher = weights["head.1.weight"].mean(0)
    weights["head.1.weight"] = np.stack((weigher, weigher))
    weights["head.1.bias"] = np.zeros(2, np.float32)
    config = replace(trained.config, labels=(SILENCE, UNKNOWN))
    network = Network(config, weights)
    clips = load_split(arguments.words, "own", "training", allow_partial=True)
    rest = [clips.labels.index(label) for label in (SILENCE, UNKNOWN) if label in clips.labels]
    words = np.flatnonzero(~np.isin(clips.targets, rest))
    silence = np.flatnonzero(clips.targets == clips.labels.index(SILENCE))
    other = one_of_each(clips.targets, words, WORDS, random)
    unknown = [
        from_int16(clips.waves[other]),
        from_int16(random_seconds(read_background(arguments.talk), TALK, random)),
        from_int16(random_seconds(read_background(arguments.sounds), SOUNDS, random)),
    ]
    bank = Bank(
        embed(network, np.concatenate(unknown)),
        embed(network, from_int16(clips.waves[random.permutation(silence)[:SILENT]])),
        metric(spread(network, clips, words, random)),
        tuple(clips.labels[target] for target in clips.targets[other]),
    )
    count = len(trained.config.words)
    facts = {name: trained.about["training"].get(name) for name in FACTS}
    unheard = {"unheard": arguments.unheard} if arguments.unheard else {}
    save_folder(
        arguments.to, config, weights, training={**facts, "words": count, **unheard}, scores={},
        card=CARD.format(count=count, parameters=config.parameter_count),
        others={BANK: bank_bytes(bank)},
    )  # fmt: skip
    size = sum(path.stat().st_size for path in arguments.to.iterdir())
    print(f"written: {arguments.to}: {count} words, {size:,} bytes")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"encoder.py: {error}")

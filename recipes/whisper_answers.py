"""What Whisper makes of the training clips: a second teacher of the shipped `base`.

Usage:
    python recipes/whisper_answers.py CORPUS --ear data/kokoro/whisper --to data/answers.npz

Whisper tiny.en has learned from 680,000 hours of talk (Radford et al. 2022, arXiv 2212.04356). A
logistic regression on the states of its encoder, in fifths of a clip, learns the labels. The clips
of a speaker are answered by one that has learned from other speakers: so it says what it hears, and
does not repeat the label. Prints how many validation clips are answered rightly by it, by `base`,
and by both together.

Whisper takes twelve minutes of a core; its states are kept in the folder `--run`, for a run that
fits the regression again. Needs faster-whisper (`pip install 'speechrnn[speak]'`).
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from encoder import teacher_states
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from speechrnn.audio import from_int16
from speechrnn.corpus import load_split, speaker
from speechrnn.evaluation.clips import in_batches
from speechrnn.folder import read_folder
from speechrnn.network import Network, pool
from speechrnn.training.batches import save_answers

PROTOCOL = "v2-12"  # of the shipped models
PARTS = 5  # of a clip, each with its mean state
DECAY, STEPS = 0.003, 60  # of the squared weights; of L-BFGS. Chosen on validation
FOLDS = 5


def log_probabilities(logits: Tensor) -> np.ndarray:
    return logits.detach().log_softmax(-1).numpy()


def regression(states: Tensor, targets: Tensor, classes: int) -> nn.Linear:
    """A logistic regression from states (n, D) to targets (n,)."""
    head = nn.Linear(states.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = cross_entropy(head(states), targets) + DECAY / 2 * head.weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    return head


def folds(names: list[str]) -> Tensor:
    """A number below `FOLDS` for each clip, the same for all of a speaker."""
    digests = [hashlib.sha1(f"fold {speaker(name)}".encode()).digest() for name in names]
    return torch.tensor([digest[0] % FOLDS for digest in digests])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--ear", type=Path, required=True, help="folder of Whisper tiny.en")
    parser.add_argument("--to", type=Path, required=True, help="file to write")
    parser.add_argument("--run", type=Path, default="runs/whisper_answers", help="(%(default)s)")
    arguments = parser.parse_args()
    training, validation = (
        load_split(arguments.corpus, PROTOCOL, split, allow_partial=True)
        for split in ("training", "validation")
    )
    run: Path = arguments.run
    run.mkdir(parents=True, exist_ok=True)
    waves = np.concatenate((training.waves, validation.waves))
    states = torch.from_numpy(teacher_states(arguments.ear, waves, run / "teacher.npz", PARTS))
    heard, unseen = states[: len(training)], states[len(training) :]
    mean, deviation = heard.mean(0), heard.std(0)
    heard, unseen = (heard - mean) / deviation, (unseen - mean) / deviation
    targets, classes = torch.from_numpy(training.targets), len(training.labels)

    answers = np.empty((len(training), classes), np.float32)
    fold = folds(training.names)
    for number in range(FOLDS):
        mine = fold == number
        head = regression(heard[~mine], targets[~mine], classes)
        answers[mine] = log_probabilities(head(heard[mine]))
    save_answers(arguments.to, training, answers)
    right = (answers.argmax(1) == training.targets).mean()
    print(f"{arguments.to}: {len(answers):,} answers, {right:.2%} as the labels say")

    whisper = log_probabilities(regression(heard, targets, classes)(unseen))
    base = read_folder("base")
    network = Network(base.config, base.weights())

    def logits(part: slice) -> np.ndarray:
        return pool(network.step(from_int16(validation.waves[part]))[0])

    answered = in_batches(network, logits, len(validation), "base")
    own = log_probabilities(torch.from_numpy(np.concatenate(answered)))
    for name, found in (("Whisper", whisper), ("base", own), ("both", whisper + own)):
        share = (found.argmax(1) == validation.targets).mean()
        print(f"{name}: {share:.2%} of {len(validation):,} validation clips")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(f"whisper_answers.py: {error}")

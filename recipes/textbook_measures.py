"""What the page of `textbook.py` shows and no other file of this folder holds: measured here.

In: the name of a part, a corpus. Out: that part of `textbook.json`. Every part tells its command,
commit, date, hardware and seed. Of the corpus's labelled clips only training and validation are
read.

- `trained` trains the textbook's network and the recipe for a few epochs, as rows of the ablation:
  gradients over the training, and what each answers when time passes after a word.
- `shipped` measures the same distance for the shipped model: to be made anew with its weights.
- `speed` times the steps of a recurrence against one product of the same size.
"""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ablation import EPOCHS, RECIPE, ROWS, Corpus, train

from speechrnn.audio import from_int16
from speechrnn.bench import machine, times
from speechrnn.config import SAMPLE_RATE
from speechrnn.corpus import Clips, join_noises, load_noises, load_split, random_cuts
from speechrnn.evaluation.recordings import word_spans
from speechrnn.folder import read_folder
from speechrnn.model import TorchRuntime, best_device
from speechrnn.network import Network, Runtime, pool, softmax

SEED = 1
PLAIN = ROWS[1]  # one tanh layer, its last state
SHIPPED = "small"  # as large as the textbook's network
DISTANCES = (0, 0.12, 0.24, 0.36, 0.48, 0.75, 0.99, 1.5, 1.98, 2.49, 3)  # s; multiples of 30 ms
WORD_ENDS = 0.99  # s, in the input: a window of the shipped models
BATCH = 64
UNITS = 96  # of the recurrence that is timed: those of `base`
BATCHES, LENGTHS = (1, 4, 16, 64, 256), (33, 100, 300)  # clips at once, steps


def trained(corpus: Path) -> dict[str, Any]:
    """Gradients over two trainings, and how these networks bear the distance."""
    settings = {**yaml.safe_load(RECIPE.read_text())["data"], "folder": str(corpus)}
    data = Corpus(**settings, allow_partial=True)
    data.setup("fit")
    runs = {}
    for name, row in (("plain", PLAIN), ("recipe", ROWS[0])):
        model, history = train(row, data, SEED, EPOCHS)
        states = {"last": read_last} if name == "plain" else {"window": read_window}
        config = model.config
        runs[name] = {
            "row": row.name,
            "epochs": EPOCHS * row.epochs,
            "layers": config.layers,
            "units": config.hidden_size,
            "seconds_per_step": config.seconds_per_step,
            "history": [{key: rounded(value) for key, value in one.items()} for one in history],
            "distance": distance(TorchRuntime(model), corpus, states),
        }
    clips = {split: len(data.clips[split]) for split in ("training", "validation")}
    return {"clips": clips, **runs}


def shipped(corpus: Path) -> dict[str, Any]:
    """How the shipped model bears the distance, read in its own way and by its last step."""
    folder = read_folder(SHIPPED)
    ways = {"window": read_window, "last": read_last}
    return {
        "model": SHIPPED,
        "version": folder.about["version"],
        "sha256": folder.about["sha256"],
        "parameters": folder.config.parameter_count,
        "distance": distance(Network(folder.config, folder.weights()), corpus, ways),
    }


def speed(_: Path | None) -> dict[str, Any]:
    """Seconds for all steps of a recurrence, one after the other, and for one product as large."""
    on = best_device()
    torch.manual_seed(SEED)
    weight = torch.nn.init.orthogonal_(torch.empty(UNITS, UNITS)).to(on)
    cases = []
    for batch in BATCHES:
        for steps in LENGTHS:
            z = torch.randn(batch, steps, UNITS, device=on)
            with torch.inference_mode():
                taken = times(
                    {
                        "steps_seconds": lambda z=z: in_steps(z, weight),
                        "product_seconds": lambda z=z: at_once(z, weight),
                    },
                    on,
                )
            seconds = {way: rounded(value) for way, value in taken.items()}
            cases.append({"batch": batch, "steps": steps, **seconds})
    return {"units": UNITS, "cases": cases}


def in_steps(z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """h[t] = tanh(z[t] + W_hh h[t-1]), of z (B, T, H): every step waits for the one before."""
    hidden, states = torch.zeros_like(z[:, 0]), []
    for step in z.unbind(1):
        hidden = torch.addmm(step, hidden, weight.T).tanh_()
        states.append(hidden)
    return torch.stack(states, 1)


def at_once(z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """tanh(z[t] + W_hh z[t]) of z (B, T, H): as many multiplications, and no step waits."""
    rows = z.flatten(0, 1)
    return torch.addmm(rows, rows, weight.T).tanh_().view_as(z)


def distance(runtime: Runtime, corpus: Path, ways: dict[str, Any]) -> dict[str, Any]:
    """Accuracy on the ten words when so much background follows each.

    Each validation clip is cut where its word ends, and background of the validation noises stands
    before it, up to `WORD_ENDS`, and behind it. No clip is heard twice: what a network would answer
    at an earlier end of the input is read at that step.

    Args:
        runtime: the network.
        corpus: in the layout of Speech Commands.
        ways: of reading an answer from the logits (B, T, C) at given steps, by name.
    """
    clips = load_split(corpus, "v2-12", "validation", allow_partial=True)
    waves, truth = waves_with_background(clips, corpus)
    seconds = runtime.config.seconds_per_step
    steps = [round((WORD_ENDS + passed) / seconds) for passed in DISTANCES]
    right = {name: np.zeros(len(steps), int) for name in ways}
    for start in range(0, len(waves), BATCH):
        logits = runtime.step(waves[start : start + BATCH])[0]
        for name, read in ways.items():
            answers = read(logits, steps, runtime.config.window_steps)
            right[name] += (answers == truth[start : start + BATCH, None]).sum(0)
    return {
        "clips": len(waves),
        "seconds": list(DISTANCES),
        **{name: rounded((counts / len(waves)).tolist(), 4) for name, counts in right.items()},
    }


def waves_with_background(clips: Clips, corpus: Path) -> tuple[np.ndarray, np.ndarray]:
    """Waves (n, N) of all word clips, each word's end at `WORD_ENDS`, and their targets (n,)."""
    words = [index for index, label in enumerate(clips.labels) if not label.startswith("_")]
    chosen = np.isin(clips.targets, words)
    spoken, targets = clips.waves[chosen], clips.targets[chosen]
    before = round(WORD_ENDS * SAMPLE_RATE)
    length = before + round(max(DISTANCES) * SAMPLE_RATE)
    noise = join_noises(load_noises(corpus, "validation"))
    waves = random_cuts(noise, len(spoken), length, np.random.default_rng(SEED))
    for wave, clip, (_, end) in zip(waves, from_int16(spoken), word_spans(spoken), strict=True):
        heard = clip[max(0, end - before) : end]
        wave[before - len(heard) : before] = heard
    return waves, targets


def read_last(logits: np.ndarray, steps: list[int], _: int) -> np.ndarray:
    """Answers (B, D) from the logits (B, T, C) of the last step of each input."""
    return logits[:, [step - 1 for step in steps]].argmax(-1)


def read_window(logits: np.ndarray, steps: list[int], window: int) -> np.ndarray:
    """Answers (B, D) as `Recogniser.classify` gives them.

    A second is pooled at a time, and the second with the most probable word decides.
    """
    shares = softmax(pool(logits, window))  # (B, T - window + 1, C)
    best = shares[..., 2:].max(-1)  # of the words; the first two labels are none
    answers = []
    for step in steps:
        surest = best[:, : step - window + 1].argmax(1)
        answers.append(shares[np.arange(len(shares)), surest].argmax(-1))
    return np.stack(answers, 1)


def rounded(value: Any, digits: int = 3) -> Any:
    """Numbers, in any nesting of lists, to so many significant digits."""
    if isinstance(value, list):
        return [rounded(one, digits) for one in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def origin(command: str) -> dict[str, Any]:
    """By which command, from which commit, when, on what and with which seed it was measured."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True)
    hardware, _, date = machine().rpartition("; ")
    return {
        "command": command,
        "commit": done.stdout.strip(),
        "date": date,
        "hardware": hardware,
        "seed": SEED,
    }


PARTS = {"trained": trained, "shipped": shipped, "speed": speed}

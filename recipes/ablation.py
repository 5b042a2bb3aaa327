"""Which parts of the recipe matter: each row changes one thing in `v2_12_small.yaml`.

    python recipes/ablation.py --data CORPUS    # train every row for a few epochs, with seed 1
    python recipes/ablation.py --data CORPUS --rows textbook "no carried" --seed 2
    python recipes/ablation.py                  # table; draw gradients.png and systems.png

What is in ablation.jsonl is not run again. What a row needs and the package does not (other cells,
poolings, constraints) stands here, so that the package has one network.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from speechrnn.config import UNKNOWN
from speechrnn.corpus import Clips
from speechrnn.evaluation import plots
from speechrnn.evaluation.clips import evaluate_clips
from speechrnn.features import Mfcc
from speechrnn.folder import read_folder
from speechrnn.model import Model, TorchRuntime, pool
from speechrnn.recogniser import Recogniser
from speechrnn.recurrence import recurrences
from speechrnn.training.augmentation import Augmentation
from speechrnn.training.batches import SpeechCommands
from speechrnn.training.gradients import GradientFlow
from speechrnn.training.module import Training
from speechrnn.training.run import prepare, streamed_result

HERE = Path(__file__).parent
RECIPE, RESULTS = HERE / "v2_12_small.yaml", HERE / "ablation.jsonl"
EPOCHS = 3
NEW_WORDS = "words_not_in_training"  # key of a result
# Unknown words that are left out of training in turn.
FOLDS = (
    ("zero", "cat", "forward", "one"),
    ("marvin", "eight", "happy"),
    ("backward", "bed", "five"),
)


class Gated(nn.Module):
    """A GRU or LSTM in the place of a recurrence; the LSTM's cell starts from zero."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], size: int) -> None:
        super().__init__()
        self.cell = kind(size, size, batch_first=True)
        for gates in (self.cell.weight_ih_l0, self.cell.weight_hh_l0):
            for gate in gates.split(size):
                nn.init.orthogonal_(gate)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        start = hidden.unsqueeze(0)
        if isinstance(self.cell, nn.LSTM):
            start = (start, torch.zeros_like(start))
        states, last = self.cell(x, start)
        return states, (last[0] if isinstance(last, tuple) else last)[0]


class Without(nn.Module):
    """A block without its residual paths."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        states, last = self.block.recurrence(self.block.recurrence_norm(x), hidden)
        return self.block.feed_forward(states), last


class Zero(nn.Module):
    """No feed-forward part."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def plain(model: Model) -> None:
    first = recurrences(model)[0]
    # model.input is its W_ih and b: two linear maps in a row would be one.
    nn.init.eye_(first.weight_ih_l0)
    first.weight_ih_l0.requires_grad_(False)
    first.bias_ih_l0.requires_grad_(False)
    # No normalisation, residual paths or feed-forward parts.
    model.blocks = nn.ModuleList(recurrences(model))
    model.head = nn.Sequential(nn.Identity(), model.head[1])


def no_norm(model: Model) -> None:
    for block in model.blocks:
        block.recurrence_norm = nn.Identity()
        block.feed_forward.norm = nn.Identity()


def no_residual(model: Model) -> None:
    model.blocks = nn.ModuleList(Without(block) for block in model.blocks)


def no_feed_forward(model: Model) -> None:
    for block in model.blocks:
        block.feed_forward = Zero()


def gelu(model: Model) -> None:
    size, units = model.config.hidden_size, model.config.feed_forward
    for block in model.blocks:
        block.feed_forward = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, units), nn.GELU(), nn.Linear(units, size)
        )


def gated(kind: type[nn.GRU] | type[nn.LSTM]) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        for block in model.blocks:
            block.recurrence = Gated(kind, model.config.hidden_size)

    return change


def default_start(model: Model) -> None:
    bound = model.config.hidden_size**-0.5
    for recurrence in recurrences(model):
        for name in ("weight_ih_l0", "weight_hh_l0"):
            nn.init.uniform_(getattr(recurrence, name), -bound, bound)


def identity_start(model: Model) -> None:
    for recurrence in recurrences(model):
        nn.init.eye_(recurrence.weight_hh_l0)


def always_orthogonal(model: Model) -> None:
    for recurrence in recurrences(model):
        # nn.RNN keeps its own list of weights and would not see the parametrisation.
        recurrence.backend = "loop"
        orthogonal(recurrence, "weight_hh_l0")


def last_state(logits: Tensor) -> Tensor:
    return logits[:, -1]


def mean(logits: Tensor) -> Tensor:
    return logits.mean(1)


def log_sum(logits: Tensor) -> Tensor:
    return logits.logsumexp(1)


@dataclass(frozen=True)
class Row:
    """One change.

    Args:
        question: number in the list of what is to be found out.
        name: what was changed.
        model: keys of the recipe's `model` that differ.
        augmentation: keys of its `augmentation` that differ.
        data: keys of its `data` that differ.
        change: done to the model before training.
        pool: how steps become an answer.
        adam: AdamW for all parameters, at this learning rate.
        recurrent_rate: factor of the learning rate of W_hh.
        penalty: of the distance of W_hh from orthogonal.
        average: decay of a moving average of the weights.
        epochs: factor of the budget.
        streamed: whether the split is measured in one stream too.
        fold: unknown words that are left out of training; how many of their clips are answered with
            unknown is measured.
    """

    question: int
    name: str
    model: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Model], None] | None = None
    pool: Callable[[Tensor], Tensor] = pool
    adam: float = 0.0
    recurrent_rate: float = 1.0
    penalty: float = 0.0
    average: float = 0.0
    epochs: int = 1
    streamed: bool = False
    fold: tuple[str, ...] = ()


NO_AUGMENTATION = {
    "shift_frames": 0, "gain_db": 0, "noise_probability": 0, "time_masks": 0, "mel_masks": 0,
    "pseudo_words": 0,
}  # fmt: skip
TEXTBOOK = {"stack": 1, "label_smoothing": 0, "carry_state": 0}
ROWS = [
    Row(0, "the recipe", streamed=True),
    *(Row(1, f"textbook: one tanh layer of 220, its last state, no stacking, AdamW at {rate:g}, no "
          "augmentation, no smoothing, no carried state",
          {**TEXTBOOK, "layers": 1, "hidden_size": 220}, NO_AUGMENTATION,
          change=plain, pool=last_state, adam=rate) for rate in (1e-3, 3e-3)),
    Row(1, "textbook, four layers of 89, AdamW at 0.001",
        {**TEXTBOOK, "layers": 4, "hidden_size": 89}, NO_AUGMENTATION,
        change=plain, pool=last_state, adam=1e-3),
    Row(2, "frames not stacked", {"stack": 1, "feed_forward": 65}),
    Row(2, "two frames stacked", {"stack": 2, "feed_forward": 61}),
    Row(2, "four frames stacked", {"stack": 4, "feed_forward": 55}),
    Row(3, "two layers of 67", {"layers": 2, "hidden_size": 67, "feed_forward": 80}),
    Row(3, "six layers of 39", {"layers": 6, "hidden_size": 39, "feed_forward": 49}),
    Row(3, "eight layers of 34", {"layers": 8, "hidden_size": 34, "feed_forward": 42}),
    Row(4, "W_hh and W_ih start uniform (the default of nn.RNN)", change=default_start),
    Row(4, "W_hh starts as the identity", change=identity_start),
    Row(4, "W_hh always orthogonal (parametrisation, to 0.002 in bf16)", change=always_orthogonal),
    Row(4, "W_hh learns at a tenth of the rate", recurrent_rate=0.1),
    Row(4, "penalty 0.01 on the squared distance of W_hh W_hh^T from 1", penalty=0.01),
    Row(5, "no normalisation in the blocks", change=no_norm),
    Row(5, "no residual paths", change=no_residual),
    Row(5, "no feed-forward part, six layers of 65", {"layers": 6, "hidden_size": 65},
        change=no_feed_forward),
    Row(5, "feed-forward part without a gate", {"feed_forward": 87}, change=gelu),
    Row(6, "pooling: last step", pool=last_state),
    Row(6, "pooling: mean", pool=mean),
    Row(6, "pooling: log-sum-exp (a soft maximum)", pool=log_sum),
    Row(7, "no augmentation", augmentation=NO_AUGMENTATION),
    Row(7, "no shift", augmentation={"shift_frames": 0}),
    Row(7, "no noise", augmentation={"noise_probability": 0}),
    Row(7, "no change of level", augmentation={"gain_db": 0}),
    Row(7, "no masks", augmentation={"time_masks": 0, "mel_masks": 0}),
    Row(7, "two masks each", augmentation={"time_masks": 2, "mel_masks": 2}),
    Row(8, "no label smoothing", {"label_smoothing": 0}),
    Row(8, "label smoothing 0.1", {"label_smoothing": 0.1}),
    Row(8, "moving average of the weights (0.99)", average=0.99),
    Row(8, "twice the epochs", epochs=2),
    Row(8, "four times the epochs", epochs=4),
    Row(8, "AdamW at 0.002 for all parameters", adam=2e-3),
    Row(8, "AdamW at 0.004 for all parameters", adam=4e-3),
    Row(8, "batches of 64", data={"batch_size": 64}),
    Row(8, "words drawn as they come", data={"balance": 0.0}),
    Row(9, "taught by base", {"teacher": "base"}),
    Row(10, "relu, W_hh starts as the identity, AdamW at 0.0005", {"activation": "relu"},
        adam=5e-4),
    Row(11, "GRU, four layers of 37", {"hidden_size": 37, "feed_forward": 44},
        change=gated(nn.GRU)),
    Row(11, "LSTM, four layers of 33", {"hidden_size": 33, "feed_forward": 46},
        change=gated(nn.LSTM)),
    Row(12, "no carried state", {"carry_state": 0.0}, streamed=True),
    Row(12, "nine tenths start from a carried state", {"carry_state": 0.9}, streamed=True),
    *(Row(13, f"{share:.0%} pseudo-words, without {', '.join(fold)}",
          augmentation={"pseudo_words": share}, fold=fold)
      for share in (0.0, 0.3, 0.6) for fold in FOLDS),
]  # fmt: skip


class Variant(Training):
    """The recipe's training with the changes of a row."""

    def __init__(self, row: Row, **settings: Any) -> None:
        super().__init__(**settings)
        self.row = row
        if row.change:
            row.change(self.model)

    def answer(self, log_mel: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        logits, hidden = self.model.from_log_mel(log_mel, hidden)
        return self.row.pool(logits.float()), hidden

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        loss = super().training_step(batch, batch_index)
        if self.row.penalty:
            # In bf16 the steps near 1 are as large as what is penalised.
            with torch.autocast("cpu", enabled=False):
                for recurrence in recurrences(self.model):
                    weight = recurrence.weight_hh_l0
                    distance = weight @ weight.T - torch.eye(len(weight))
                    loss = loss + self.row.penalty * distance.square().sum()
        return loss

    def optimizer_groups(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        matrices, rest = super().optimizer_groups()
        skew = [p for name, p in self.model.named_parameters() if "parametrizations" in name]
        if skew:  # only a triangle of each counts: no matrix for Muon, and not to be drawn to zero
            ids = {id(p) for p in skew}
            others = [p for p in matrices[0]["params"] if id(p) not in ids]
            return [{"params": others}], [*rest, {"params": skew, "weight_decay": 0.0}]
        if self.row.adam:
            return [], [{**group, "lr": self.row.adam} for group in (*matrices, *rest)]
        if self.row.recurrent_rate != 1:
            recurrent = {id(recurrence.weight_hh_l0) for recurrence in recurrences(self.model)}
            both = [p for group in matrices for p in group["params"]]
            rate = self.matrix_learning_rate * self.row.recurrent_rate
            matrices = [
                {"params": [p for p in both if id(p) not in recurrent]},
                {"params": [p for p in both if id(p) in recurrent], "lr": rate},
            ]
        return matrices, rest


class Corpus(SpeechCommands):
    """The recipe's data, of which some training clips are never drawn."""

    left_out: Tensor  # (n,) bool
    stack = 0  # of the frames

    def compute_frames(self, mfcc: Mfcc) -> None:
        # Rows change nothing that shapes the frames but the stacking.
        if mfcc.config.stack != self.stack:
            self.stack = mfcc.config.stack
            super().compute_frames(mfcc)

    def weights(self, clips: Clips) -> Tensor:
        weights = super().weights(clips)
        unknown = torch.from_numpy(clips.targets == clips.labels.index(UNKNOWN))
        share = weights[unknown].sum()
        weights[self.left_out] = 0
        weights[unknown] *= share / weights[unknown].sum()
        return weights


def parameter_count(model: Model) -> int:
    """How many numbers training may change, whatever the row has made of the model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def run(row: Row, data: Corpus, seed: int, epochs: int) -> dict[str, Any]:
    """Train and measure one row; the result as JSON can hold it."""
    started = time.monotonic()
    model, history = train(row, data, seed, epochs)
    seconds = time.monotonic() - started
    result = {
        "question": row.question, "row": row.name, "seed": seed, "epochs": epochs * row.epochs,
        "parameters": parameter_count(model), **measure(row, model, data),
        "seconds": round(seconds, 1),
    }  # fmt: skip
    if row.question in (0, 1):
        result["gradients"] = [history[0], history[-1]]
    return result


def train(row: Row, data: Corpus, seed: int, epochs: int) -> tuple[Model, list[dict[str, Any]]]:
    """Train one row: its model, and the history of its gradients (see `GradientFlow`)."""
    seed_everything(seed, verbose=False)
    recipe = yaml.safe_load(RECIPE.read_text())
    settings = {**recipe["model"], **row.model}
    augmentation = Augmentation(**{**settings.pop("augmentation"), **row.augmentation})
    for name in ("batch_size", "balance"):
        setattr(data, name, {**recipe["data"], **row.data}[name])
    names = data.clips["training"].names
    data.left_out = torch.tensor([name.partition("/")[0] in row.fold for name in names])
    training = Variant(row, labels=data.labels, augmentation=augmentation, **settings)
    flow = GradientFlow(every=100)
    callbacks: list[Callback] = [flow]
    if row.average:
        callbacks.append(EMAWeightAveraging(decay=row.average))
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs * row.epochs,
        gradient_clip_val=recipe["trainer"]["gradient_clip_val"], precision="bf16-mixed",
        callbacks=callbacks, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    prepare(training, data, trainer.strategy.root_device)
    trainer.fit(training, datamodule=data)
    return training.model, flow.history


def measure(row: Row, model: Model, data: Corpus) -> dict[str, Any]:
    """What a trained row reaches on validation, and on the words that it was not trained on."""
    recogniser = Recogniser(TorchRuntime(model), {})

    def pool(logits: np.ndarray) -> np.ndarray:
        return row.pool(torch.from_numpy(logits)).numpy()

    def accuracies(clips: Clips) -> tuple[float, float]:
        result = evaluate_clips(recogniser, clips, data.protocol, "validation", pool=pool)
        return result.accuracy, result.mean_accuracy

    accuracy, mean_accuracy = accuracies(data.clips["validation"])
    found: dict[str, Any] = {"accuracy": accuracy, "mean_accuracy": mean_accuracy}
    if row.streamed:
        found["streamed"] = streamed_result(recogniser, data).accuracy
    if row.fold:
        clips, found[NEW_WORDS] = data.clips["training"], {}
        for word in row.fold:
            places = [
                place for place, name in enumerate(clips.names) if name.startswith(f"{word}/")
            ]
            of_word = replace(
                clips, waves=clips.waves[places], targets=clips.targets[places],
                names=[clips.names[place] for place in places],
            )  # fmt: skip
            found[NEW_WORDS][word] = accuracies(of_word)[0]
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a line a row, the mean over its seeds.

    The difference is that from the recipe at the same seeds.
    """
    lines = [
        "| | change | parameters | seeds | accuracy | difference | mean over classes | streamed "
        "| words not in training |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    by_row: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_row.setdefault(result["row"], []).append(result)
    recipe = {result["seed"]: result["accuracy"] for result in by_row.get(ROWS[0].name, [])}

    def average(values: list[float], form: str) -> str:
        return format(float(np.mean(values)), form) if values else ""

    for row in ROWS:
        if of_row := by_row.get(row.name):
            others = [r["accuracy"] - recipe[r["seed"]] for r in of_row if r["seed"] in recipe]
            new_words = [share for r in of_row for share in r.get(NEW_WORDS, {}).values()]
            cells = [
                str(row.question or ""), row.name, f"{of_row[0]['parameters']:,}", str(len(of_row)),
                average([r["accuracy"] for r in of_row], ".2%"),
                average([100 * difference for difference in others], "+.2f"),
                average([r["mean_accuracy"] for r in of_row], ".2%"),
                average([r["streamed"] for r in of_row if "streamed" in r], ".2%"),
                average(new_words, ".1%"),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]]) -> None:
    """Draw the gradients of a textbook network and of the recipe's, and systems by size."""
    from pictures import systems  # beside this file: found where this file is the command

    shown = {
        ROWS[1].name: "textbook: one layer, last state",
        ROWS[0].name: "the recipe: four layers, each step counts",
    }
    runs = [
        (shown[name], result["gradients"], 1 / len(result["gradients"][0]["gradient"][0]))
        for name in shown
        for result in [result for result in results if result["row"] == name][:1]
    ]
    plots.save(plots.gradients(runs), HERE / "gradients.png")
    with (HERE / "systems.csv").open(newline="") as file:
        published = list(csv.DictReader(file))
    ours = []
    for name in ("tiny", "small", "base"):
        folder = read_folder(name)
        score = folder.about["scores"]["validation"]
        ours.append({
            "system": name, "parameters": folder.config.parameter_count,
            "accuracy": 100 * score["accuracy"],
            "interval": [100 * end for end in score["interval_95"]],
        })  # fmt: skip
    title = (
        "Ours on a part of v2-12 validation, the others on the official test sets:\n"
        "the heights do not compare to a point"
    )
    plots.save(systems(published, ours, title), HERE / "systems.png")


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, metavar="CORPUS", help="train the rows that are missing on this corpus"
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    options = parser.parse_args()
    starts = options.rows or [""]
    chosen = [row for row in ROWS if any(row.name.startswith(start) for start in starts)]
    for start in starts:
        if not any(row.name.startswith(start) for row in ROWS):
            names = [row.name for row in ROWS]
            parser.error(f"no row begins with {start!r}: expected some of {names}")
    if options.data:
        train_missing(chosen, options)
    results = read_results(options.results)
    if not results:
        parser.error(f"{options.results}: no results yet: type --data CORPUS")
    print(table(results))
    if not options.data:
        draw(results)


def train_missing(rows: list[Row], options: argparse.Namespace) -> None:
    """Train the rows that have no result yet, and add their results to the file."""
    recipe = yaml.safe_load(RECIPE.read_text())
    settings = {**recipe["data"], "folder": str(options.data), "allow_partial": True}
    data = Corpus(**settings)
    data.setup("fit")
    for row in rows:
        done = {(r["row"], r["seed"], r["epochs"]) for r in read_results(options.results)}
        if (row.name, options.seed, options.epochs * row.epochs) not in done:
            result = run(row, data, options.seed, options.epochs)
            print(f"{row.name}: {result['accuracy']:.2%}, {result['seconds']:.0f} s", flush=True)
            with options.results.open("a") as file:
                file.write(json.dumps(result) + "\n")


def read_results(path: Path) -> list[dict[str, Any]]:
    """All results, in the order in which they were made."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()

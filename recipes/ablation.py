"""Which parts of the recipe matter: each row changes one thing in `v2_12_small.yaml` and trains it for a few epochs.

    python recipes/ablation.py --data CORPUS              # every row, seed 1; what is in ablation.jsonl is not run again
    python recipes/ablation.py --data CORPUS --rows textbook "no carried" --seed 2
    python recipes/ablation.py                            # print the table, draw gradients.png and systems.png

What a row needs and the package does not (other cells, poolings, constraints) stands here, so that the package has one network.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import yaml
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from speechrnn import checkpoint, plots
from speechrnn.augment import Augmentation
from speechrnn.data import UNKNOWN, Clips, SpeechCommands, load_noise
from speechrnn.evaluation import evaluate_clips, evaluate_stream
from speechrnn.gradients import GradientFlow
from speechrnn.model import Model, pool
from speechrnn.recurrence import recurrences
from speechrnn.training import Training, log_mel_frames, set_feature_statistics

HERE = Path(__file__).parent
RECIPE, RESULTS = HERE / "v2_12_small.yaml", HERE / "ablation.jsonl"
EPOCHS = 3
FOLDS = (("zero", "cat", "forward", "one"), ("marvin", "eight", "happy"), ("backward", "bed", "five"))  # words left out in turn


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
        states, last = self.cell(x, (start, torch.zeros_like(start)) if isinstance(self.cell, nn.LSTM) else start)
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
    first = recurrences(model)[0]  # model.input is its W_ih and b: two linear maps in a row would be one
    nn.init.eye_(first.weight_ih_l0)
    first.weight_ih_l0.requires_grad_(False)
    first.bias_ih_l0.requires_grad_(False)
    model.blocks = nn.ModuleList(recurrences(model))  # no normalisation, residual path or feed-forward part
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
        block.feed_forward = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, units), nn.GELU(), nn.Linear(units, size))


def gated(kind: type[nn.GRU] | type[nn.LSTM]) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        for block in model.blocks:
            block.recurrence = Gated(kind, model.config.hidden_size)

    return change


def default_start(model: Model) -> None:
    for recurrence in recurrences(model):
        for name in ("weight_ih_l0", "weight_hh_l0"):
            nn.init.uniform_(getattr(recurrence, name), -(model.config.hidden_size**-0.5), model.config.hidden_size**-0.5)


def identity_start(model: Model) -> None:
    for recurrence in recurrences(model):
        nn.init.eye_(recurrence.weight_hh_l0)


def always_orthogonal(model: Model) -> None:
    for recurrence in recurrences(model):
        recurrence.backend = "loop"  # nn.RNN keeps its own list of weights and would not see the parametrisation
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
        streamed: whether the split is heard in one stream too.
        fold: unknown words that are left out of training, and on which unknown is measured.
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


NO_AUGMENTATION = {"shift_frames": 0, "gain_db": 0, "noise_probability": 0, "time_masks": 0, "mel_masks": 0, "strange": 0}
TEXTBOOK = {"stack": 1, "label_smoothing": 0, "carry_state": 0}
ROWS = [
    Row(0, "the recipe", streamed=True),
    *(Row(1, f"textbook: one tanh layer of 220, its last state, no stacking, AdamW at {rate:g}, no augmentation, no smoothing, "
          "no carried state", {**TEXTBOOK, "layers": 1, "hidden_size": 220}, NO_AUGMENTATION, change=plain, pool=last_state,
          adam=rate) for rate in (1e-3, 3e-3)),
    Row(1, "textbook, four layers of 89, AdamW at 0.001", {**TEXTBOOK, "layers": 4, "hidden_size": 89}, NO_AUGMENTATION,
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
    Row(5, "no feed-forward part, six layers of 65", {"layers": 6, "hidden_size": 65}, change=no_feed_forward),
    Row(5, "feed-forward part without a gate", {"feed_forward": 87}, change=gelu),
    Row(6, "pooling: last step", pool=last_state),
    Row(6, "pooling: mean", pool=mean),
    Row(6, "pooling: log-sum-exp (a soft maximum)", pool=log_sum),
    Row(7, "no augmentation", augmentation=NO_AUGMENTATION),
    Row(7, "no shift", augmentation={"shift_frames": 0}),
    Row(7, "no noise", augmentation={"noise_probability": 0}),
    Row(7, "no change of speed and voice", augmentation={"speed": 0, "voice": 0}),
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
    Row(10, "relu, W_hh starts as the identity, AdamW at 0.0005", {"activation": "relu"}, adam=5e-4),
    Row(11, "GRU, four layers of 37", {"hidden_size": 37, "feed_forward": 44}, change=gated(nn.GRU)),
    Row(11, "LSTM, four layers of 33", {"hidden_size": 33, "feed_forward": 46}, change=gated(nn.LSTM)),
    Row(12, "no carried state", {"carry_state": 0.0}, streamed=True),
    Row(12, "nine tenths start from a carried state", {"carry_state": 0.9}, streamed=True),
    *(Row(13, f"{strange:.0%} strange words, without {', '.join(fold)}", augmentation={"strange": strange}, fold=fold)
      for strange in (0.0, 0.3, 0.6) for fold in FOLDS),
]  # fmt: skip


class Variant(Training):
    """The recipe's training with the changes of a row."""

    frames: ClassVar[dict[int, Tensor]] = {}  # log mel frames of the training clips, by stacking

    def __init__(self, row: Row, **settings: Any) -> None:
        super().__init__(**settings)
        self.row = row
        if row.change:
            row.change(self.model)

    def answer(self, logits: Tensor) -> Tensor:
        return self.row.pool(logits)

    def on_fit_start(self) -> None:
        data = self.trainer.datamodule
        mfcc, stack = self.model.mfcc, self.model.config.stack
        if stack not in self.frames:
            self.frames.clear()
            self.frames[stack] = log_mel_frames(mfcc, data.clips["training"].waves)
        self.log_mel = self.frames[stack]
        set_feature_statistics(mfcc, self.log_mel)
        self.noise = log_mel_frames(mfcc, data.noise.unsqueeze(0))[0].float()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        loss = super().training_step(batch, batch_index)
        if self.row.penalty:
            with torch.autocast("cpu", enabled=False):  # in bf16 the steps near 1 are as large as what is penalised
                for recurrence in recurrences(self.model):
                    weight = recurrence.weight_hh_l0
                    loss = loss + self.row.penalty * (weight @ weight.T - torch.eye(len(weight))).square().sum()
        return loss

    def optimizer_groups(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        matrices, rest = super().optimizer_groups()
        skew = [parameter for name, parameter in self.model.named_parameters() if "parametrizations" in name]
        if skew:  # of which only a triangle counts: no matrix that Muon knows, nor one to be drawn to zero
            others = [parameter for parameter in matrices[0]["params"] if all(parameter is not other for other in skew)]
            return [{"params": others}], [*rest, {"params": skew, "weight_decay": 0.0}]
        if self.row.adam:
            return [], [{**group, "lr": self.row.adam} for group in (*matrices, *rest)]
        if self.row.recurrent_rate != 1:
            recurrent = {id(recurrence.weight_hh_l0) for recurrence in recurrences(self.model)}
            both = [parameter for group in matrices for parameter in group["params"]]
            slow = [parameter for parameter in both if id(parameter) in recurrent]
            fast = [parameter for parameter in both if id(parameter) not in recurrent]
            matrices = [{"params": fast}, {"params": slow, "lr": self.matrix_learning_rate * self.row.recurrent_rate}]
        return matrices, rest


class Corpus(SpeechCommands):
    """The recipe's data, of which some training clips are never drawn."""

    left_out: Tensor  # (n,) bool

    def weights(self, clips: Clips) -> Tensor:
        weights = super().weights(clips)
        unknown = clips.targets == clips.labels.index(UNKNOWN)
        share = weights[unknown].sum()
        weights[self.left_out] = 0
        weights[unknown] *= share / weights[unknown].sum()
        return weights


def run(row: Row, data: Corpus, seed: int, epochs: int) -> dict[str, Any]:
    """Train and measure one row; the result as JSON can hold it."""
    seed_everything(seed, verbose=False)
    recipe = yaml.safe_load(RECIPE.read_text())
    settings = {**recipe["model"], **row.model}
    augmentation = Augmentation(**{**settings.pop("augmentation"), **row.augmentation})
    for name in ("batch_size", "balance"):
        setattr(data, name, {**recipe["data"], **row.data}[name])
    whole = data.clips["training"]
    data.left_out = torch.tensor([name.partition("/")[0] in row.fold for name in whole.names])
    training = Variant(row, labels=data.labels, augmentation=augmentation, **settings)
    flow = GradientFlow(every=100)
    callbacks: list[Callback] = [flow]
    if row.average:
        callbacks.append(EMAWeightAveraging(decay=row.average))
    started = time.monotonic()
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs * row.epochs, gradient_clip_val=recipe["trainer"]["gradient_clip_val"],
        precision="bf16-mixed", callbacks=callbacks, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(training, datamodule=data)
    seconds = time.monotonic() - started
    model = training.model.eval()
    clips = data.clips["validation"]
    report = evaluate_clips(model, clips, data.protocol, "validation", row.pool)
    found = {
        "question": row.question, "row": row.name, "seed": seed, "epochs": epochs * row.epochs,
        "parameters": model.parameter_count, "accuracy": report.accuracy, "mean_accuracy": report.mean_accuracy,
        "seconds": round(seconds, 1),
    }  # fmt: skip
    if row.streamed:
        noise = load_noise(data.folder, "validation")
        found["streamed"] = evaluate_stream(model, clips, noise, data.protocol, "validation").accuracy
    if row.fold:
        found["unheard_words"] = {}
        for word in row.fold:
            chosen = torch.tensor([name.startswith(f"{word}/") for name in whole.names])
            names = [name for name in whole.names if name.startswith(f"{word}/")]
            unheard = replace(whole, waves=whole.waves[chosen], targets=whole.targets[chosen], names=names)
            found["unheard_words"][word] = evaluate_clips(model, unheard, data.protocol, "training").accuracy
    if row.question in (0, 1):
        found["gradients"] = [flow.history[0], flow.history[-1]]
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a line a row, the mean over its seeds, and the difference from the recipe at the same seeds."""
    lines = ["| | change | parameters | seeds | accuracy | difference | mean over classes | streamed | words not in training |",
             "|--:|---|--:|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    by_row: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_row.setdefault(result["row"], []).append(result)
    recipe = {result["seed"]: result["accuracy"] for result in by_row.get(ROWS[0].name, [])}

    def average(values: list[float], form: str) -> str:
        return format(float(np.mean(values)), form) if values else ""

    for row in ROWS:
        if found := by_row.get(row.name):
            unheard = [share for result in found for share in result.get("unheard_words", {}).values()]
            cells = [
                str(row.question or ""), row.name, f"{found[0]['parameters']:,}", str(len(found)),
                average([result["accuracy"] for result in found], ".2%"),
                average([100 * (r["accuracy"] - recipe[r["seed"]]) for r in found if r["seed"] in recipe], "+.2f"),
                average([result["mean_accuracy"] for result in found], ".2%"),
                average([result["streamed"] for result in found if "streamed" in result], ".2%"), average(unheard, ".1%"),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]]) -> None:
    """The gradients of a textbook network beside the recipe's, and the shipped models among published systems."""
    shown = {ROWS[1].name: "textbook: one layer, last state", ROWS[0].name: "the recipe: four layers, each step counts"}
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
        score = checkpoint.read_config(checkpoint.model_folder(name))["scores"]["validation"]
        interval = [100 * end for end in score["interval_95"]]
        size = checkpoint.load(name).parameter_count
        ours.append({"system": name, "parameters": size, "accuracy": 100 * score["accuracy"], "interval": interval})
    title = "Ours on a part of v2-12 validation, the others on the official test sets:\nthe heights do not compare to a point"
    plots.save(plots.systems(published, ours, title), HERE / "systems.png")


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="CORPUS", help="train the rows that are missing on this corpus")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    options = parser.parse_args()
    starts = options.rows or [""]
    chosen = [row for row in ROWS if any(row.name.startswith(start) for start in starts)]
    if missing := [start for start in starts if not any(row.name.startswith(start) for row in ROWS)]:
        parser.error(f"no row begins with {missing[0]!r}: expected some of {[row.name for row in ROWS]}")

    def results() -> list[dict[str, Any]]:
        return [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.is_file() else []

    if options.data:
        recipe = yaml.safe_load(RECIPE.read_text())
        data = Corpus(**{**recipe["data"], "folder": str(options.data), "allow_partial": True})
        data.setup("fit")
        for row in chosen:
            done = {(result["row"], result["seed"], result["epochs"]) for result in results()}
            if (row.name, options.seed, options.epochs * row.epochs) not in done:
                found = run(row, data, options.seed, options.epochs)
                print(f"{row.name}: {found['accuracy']:.2%}, {found['seconds']:.0f} s", flush=True)
                with options.results.open("a") as file:
                    file.write(json.dumps(found) + "\n")
    if not results():
        parser.error(f"{options.results}: no results yet: type --data CORPUS")
    print(table(results()))
    if not options.data:
        draw(results())


if __name__ == "__main__":
    main()

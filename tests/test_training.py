"""Training: resumed runs end like unbroken ones, two processes like one; what a run leaves."""

import copy
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import DATA, ROOT
from pytorch_lightning import Trainer
from safetensors.torch import load_file
from tolerances import HALF, TRAINING
from torch import nn
from torch.utils.data import DataLoader

from speechrnn import recurrence_triton
from speechrnn.audio import from_int16
from speechrnn.cli import main
from speechrnn.config import SILENCE, UNKNOWN, ModelConfig
from speechrnn.corpus import PROTOCOLS, TEN_WORDS, join_noises, load_noises, load_split
from speechrnn.folder import read_folder, save_folder
from speechrnn.model import Model, pool
from speechrnn.recurrence import Recurrence
from speechrnn.training.augmentation import Augmentation
from speechrnn.training.batches import NO_WORD, SpeechCommands, save_answers
from speechrnn.training.module import TEMPERATURE, JointOptimizer, Training
from speechrnn.training.run import prepare, read_metrics

SMALL = [
    "--model.hidden_size",
    "16",
    "--model.layers",
    "2",
    "--data.batch_size",
    "8",
    "--trainer.check_val_every_n_epoch",
    "1",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """All 35 words as tones of their own, four speakers, one noise; laid out with lists."""
    folder = tmp_path_factory.mktemp("speech_commands")
    random = np.random.default_rng(0)
    moments = np.arange(16_000) / 16_000
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for number, word in enumerate(PROTOCOLS["v2-35"].words):
        (folder / word).mkdir()
        for speaker, split in (
            ("ann", None),
            ("ben", None),
            ("cyd", "validation"),
            ("dan", "testing"),
        ):
            name = f"{word}/{speaker}_nohash_0.wav"
            tone = np.sin(2 * np.pi * (200 + 100 * number) * moments) * 0.2 + random.normal(
                0, 0.01, 16_000
            )
            soundfile.write(folder / name, tone, 16_000, subtype="PCM_16")
            if split:
                lists[split].append(name)
    for split, names in lists.items():
        (folder / f"{split}_list.txt").write_text("\n".join(names) + "\n")
    (folder / "_background_noise_").mkdir()
    soundfile.write(
        folder / "_background_noise_" / "hiss.wav",
        random.normal(0, 0.1, 16_000 * 20),
        16_000,
        subtype="PCM_16",
    )
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Runs in this process draw nothing: that takes longest."""
    monkeypatch.setattr("speechrnn.training.run._draw", lambda *_: None)


def save(model: Model, folder: Path) -> None:
    save_folder(folder, model.config, model.arrays(), training={}, scores={}, card="")


def _words(corpus: Path, run: Path, *more: str) -> list[str]:
    recipe = str(ROOT / "recipes" / "v2_12.yaml")
    return [
        "train",
        recipe,
        "--data.folder",
        str(corpus),
        "--trainer.default_root_dir",
        str(run),
        *SMALL,
        "--trainer.accelerator",
        "cpu",
        "--allow-partial",
        *more,
    ]


def _start(words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "speechrnn", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background job ignores it, and so would this
    )


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory) -> Path:
    """A run of six epochs that nobody stopped."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    process = _start(_words(corpus, run, "--trainer.max_epochs", "6"))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == str(run / "model")
    return run


def test_run_killed_and_resumed_ends_with_the_same_weights(corpus, finished, tmp_path):
    words = _words(corpus, tmp_path / "broken", "--trainer.max_epochs", "6")
    process = _start(words)
    deadline = time.monotonic() + 120
    while not (tmp_path / "broken" / "last.ckpt").is_file():
        assert time.monotonic() < deadline and process.poll() is None, (
            "no checkpoint before the end"
        )
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "broken" / "model").exists()
    resumed = _start([*words, "--resume"])
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, output
    assert "epoch 1 of 6" not in output, "it began anew"
    ours, theirs = (
        load_file(run / "model" / "model.safetensors") for run in (tmp_path / "broken", finished)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    ours, theirs = (
        torch.load(run / "last.ckpt", weights_only=False) for run in (tmp_path / "broken", finished)
    )
    assert all(
        torch.equal(ours["state_dict"][name], theirs["state_dict"][name])
        for name in theirs["state_dict"]
    )
    assert ours["callbacks"]["GradientFlow"] == theirs["callbacks"]["GradientFlow"]


def test_curves_of_a_resumed_run_have_every_epoch(finished):
    assert sorted(read_metrics(finished)["validation_accuracy"]) == list(range(6))


def test_two_processes_give_the_metrics_of_one(corpus, tmp_path):
    """Two CPU processes of Lightning's (`ddp`, gloo) share each batch; what is random is off."""
    fixed = ["--trainer.max_epochs", "2", "--model.carry_state", "0"]
    for name in (
        "shift_frames",
        "gain_db",
        "noise_probability",
        "time_masks",
        "mel_masks",
        "pseudo_words",
    ):
        fixed += [f"--model.augmentation.{name}", "0"]
    runs = {"one": fixed, "two": [*fixed, "--trainer.strategy", "ddp", "--trainer.devices", "2"]}
    for name, words in runs.items():
        process = _start(_words(corpus, tmp_path / name, *words))
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    one, two = (read_metrics(tmp_path / name) for name in runs)
    for name in (
        "training_loss",
        "validation_loss",
        "training_accuracy",
        "validation_accuracy",
        "validation_mean_accuracy",
    ):
        assert two[name] == pytest.approx(one[name], abs=TRAINING), name
    assert (tmp_path / "two" / "model" / "config.json").is_file()


def test_model_folder_says_how_it_came_to_be(finished, corpus):
    config = json.loads((finished / "model" / "config.json").read_text())
    assert config["training"]["seed"] == 1
    assert config["training"]["epochs"] == 6
    assert config["training"]["corpus"] == corpus.name
    assert "hidden_size: 16" in config["training"]["recipe"]
    assert config["model"]["labels"][:3] == ["_silence_", "_unknown_", "yes"]
    score = config["scores"]["validation"]
    assert score["clips"] == sum(map(sum, score["confusion"]))
    stream = config["scores"]["validation_stream"]
    assert (score["streamed"], stream["streamed"], stream["clips"]) == (False, True, score["clips"])
    card = (finished / "model" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["library_name"] == "speechrnn"
    assert metadata["pipeline_tag"] == "audio-classification"
    assert metadata["license"] == read_folder(finished).license == "unknown"
    assert metadata["metrics"] == ["accuracy", "f1"]
    (model,) = metadata["model-index"]
    assert model["name"] == finished.name
    for result, measured in zip(model["results"], (score, stream), strict=True):
        values = {metric["type"]: metric["value"] for metric in result["metrics"]}
        assert values["accuracy"] == pytest.approx(measured["accuracy"], abs=1e-4)
        assert values["f1"] == pytest.approx(measured["macro_f1"], abs=1e-4)
        assert result["dataset"]["split"] == "validation"
    for said in (
        "## Limits",
        "CC BY 4.0",
        "seed 1",
        f"accuracy {score['accuracy']:.2%}",
        "clips in one stream",
        "| yes |",
    ):
        assert said in card


def test_best_epoch_is_what_is_kept(finished):
    accuracy = read_metrics(finished)["validation_accuracy"]
    score = json.loads((finished / "model" / "config.json").read_text())["scores"]["validation"]
    assert score["accuracy"] == pytest.approx(max(accuracy.values()), abs=1e-6)


def test_run_folder_has_recipe_logs_checkpoints_and_pictures(finished):
    for name in (
        "recipe.yaml",
        "best.ckpt",
        "last.ckpt",
        "curves.png",
        "confusion.png",
        "gradients.png",
    ):
        assert (finished / name).stat().st_size > 500, name
    assert sorted(path.name for path in (finished / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert list(finished.glob("tensorboard/version_0/events*"))
    metrics = read_metrics(finished)
    assert metrics["learning_rate"][5] < metrics["learning_rate"][1]


def test_gradients_of_every_layer_are_kept_with_the_run(finished):
    history = torch.load(finished / "last.ckpt", weights_only=False)["callbacks"]["GradientFlow"][
        "history"
    ]
    assert [moment["step"] for moment in history] == [0, 17], (
        "the first, and the last of six epochs of three"
    )
    steps = read_folder(finished).config.window_steps
    assert [len(norms) for norms in history[0]["gradient"]] == [steps, steps]
    assert all(min(norms) > 0 for norms in history[0]["gradient"])
    assert [len(values) for values in history[0]["singular_values"]] == [16, 16]
    for values in history[0]["singular_values"]:
        assert values == pytest.approx([1] * 16, abs=1e-5), "W_hh starts orthogonal"
    logged = read_metrics(finished)
    for layer in (1, 2):
        assert logged[f"layer_{layer}_gradient_first"][0] == pytest.approx(
            history[0]["gradient"][layer - 1][0]
        )


def test_recipe_kept_with_the_run_gives_the_run_again(finished, tmp_path):
    assert main(["train", str(finished / "recipe.yaml"), "--trainer.fast_dev_run", "1"]) == 0


def test_a_run_is_not_overwritten(corpus, finished, capsys):
    before = (finished / "last.ckpt").read_bytes()
    assert main(_words(corpus, finished)) == 1
    assert "type --resume" in capsys.readouterr().err
    assert (finished / "last.ckpt").read_bytes() == before


def test_the_trained_model_beats_chance(finished):
    labels = read_folder(finished).config.labels
    score = json.loads((finished / "model" / "config.json").read_text())["scores"]["validation"]
    assert score["accuracy"] > 2 / len(labels)


@pytest.fixture(scope="module")
def answers(corpus, tmp_path_factory) -> Path:
    """Another model's answers to the training clips of v2-12, of whom nothing is known."""
    clips = load_split(corpus, "v2-12", "training", allow_partial=True)
    file = tmp_path_factory.mktemp("answers") / "answers.npz"
    save_answers(file, clips, np.full((len(clips), len(clips.labels)), -np.log(len(clips.labels))))
    return file


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "recipes").glob("*.yaml")))
def test_every_recipe_runs(recipe, corpus, answers, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        str(ROOT / "recipes" / recipe),
        "--data.folder",
        str(corpus),
        "--trainer.fast_dev_run",
        "1",
        "--allow-partial",
    ]
    if "talk:" in (ROOT / "recipes" / recipe).read_text():
        folder = tmp_path_factory.mktemp("recordings")
        (folder / "recording.ogg").symlink_to(DATA / "recording.ogg")
        for kind in ("talk", "sounds"):
            words += [f"--data.{kind}", str(folder)]
    if "answers:" in (ROOT / "recipes" / recipe).read_text():
        words += ["--data.answers", str(answers)]
    monkeypatch.setattr("speechrnn.training.run.ROOMS", 2)
    assert main(words) == 0
    assert not list(tmp_path.iterdir()), "a trial run leaves nothing"


@pytest.mark.parametrize(
    "recipe", sorted(path for path in (ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_recipe_is_25_to_40_lines(recipe):
    assert 25 <= len(recipe.read_text().splitlines()) <= 40


def test_profiler_reports_where_the_time_goes(corpus, tmp_path, caplog):
    assert (
        main(
            _words(
                corpus,
                tmp_path / "run",
                "--trainer.max_epochs",
                "1",
                "--trainer.profiler",
                "simple",
            )
        )
        == 0
    )
    for part in ("augmentation", "features", "network"):
        assert f"|  {part} " in caplog.text


def test_last_checkpoint_is_of_every_epoch_where_validation_is_not(corpus, tmp_path):
    """A run of hours must not lose the epochs since it was last validated."""
    words = _words(
        corpus, tmp_path, "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2"
    )
    assert main(words) == 0
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["epoch"] == 2
    assert list(read_metrics(tmp_path)["validation_accuracy"]) == [1]


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "5"],
        ["--trainer.max_steps", "1"],
    ],
    ids=["epochs", "steps"],
)
@pytest.mark.filterwarnings("ignore:.ModelCheckpoint.monitor=.*could not find the monitored key")
def test_run_too_short_for_its_first_validation_still_gives_a_model(corpus, tmp_path, words):
    assert main(_words(corpus, tmp_path, *words)) == 0
    assert (tmp_path / "model" / "config.json").is_file()


def test_label_loss_is_the_cross_entropy_and_for_no_word_takes_unknown_and_silence_for_one():
    torch.manual_seed(0)
    labels = (SILENCE, UNKNOWN, *TEN_WORDS)
    for smoothing in (0.0, 0.1):
        training = Training(labels, label_smoothing=smoothing, hidden_size=8, feed_forward=8)
        logits, targets = torch.randn(6, len(labels)), torch.tensor([0, 3, 5, 1, 2, 11])
        expected = nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        torch.testing.assert_close(training._label_loss(logits, targets), expected)
    training = Training(labels, label_smoothing=0.0, hidden_size=8, feed_forward=8)
    sounds = torch.full((6,), NO_WORD)
    share = logits.softmax(-1)
    no_word = share[:, labels.index(UNKNOWN)] + share[:, labels.index(SILENCE)]
    torch.testing.assert_close(training._label_loss(logits, sounds), -no_word.log().mean())


def test_relu_trains_too(corpus):
    assert (
        main(
            _words(
                corpus, Path("nowhere"), "--model.activation", "relu", "--trainer.fast_dev_run", "2"
            )
        )
        == 0
    )


def test_interrupted_training_says_how_to_go_on(corpus, tmp_path):
    process = _start(_words(corpus, tmp_path / "run", "--trainer.max_epochs", "1000"))
    while not (tmp_path / "run" / "last.ckpt").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert (
        output.splitlines()[-1]
        == "speechrnn: stopped; type --resume to go on from the last epoch that was complete"
    )


def test_results_alone_are_on_stdout(corpus, tmp_path):
    words = _words(corpus, tmp_path / "run", "--trainer.max_epochs", "1")
    done = subprocess.run(
        [sys.executable, "-m", "speechrnn", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'run' / 'model'}\n"), done.stderr
    assert "epoch 1 of 1: training loss" in done.stderr


@pytest.mark.parametrize(
    "changed",
    [["--model.hidden_size", "24"], ["--seed_everything", "2"], ["--data.batch_size", "4"]],
)
def test_a_run_is_not_resumed_as_another(changed, corpus, finished, capsys):
    kept = (finished / "recipe.yaml").read_bytes()
    assert main(_words(corpus, finished, "--trainer.max_epochs", "6", "--resume", *changed)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"was begun with {changed[0].removeprefix('--')} " in error
    assert (finished / "recipe.yaml").read_bytes() == kept


def test_damaged_checkpoint_is_named(corpus, finished, tmp_path, capsys):
    for name in ("recipe.yaml", "last.ckpt"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    for size in (0, 30_000):
        with (tmp_path / "last.ckpt").open("r+b") as file:
            file.truncate(size)
        assert main(_words(corpus, tmp_path, "--trainer.max_epochs", "6", "--resume")) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert "last.ckpt is damaged" in error
        assert "delete it to begin the run anew" in error


def test_full_disk_while_training_keeps_the_checkpoint_before(corpus, finished, tmp_path):
    """A limit on the size of a file stands for the disk: the kernel refuses the write in both."""
    for name in ("recipe.yaml", "last.ckpt"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    kept = (tmp_path / "last.ckpt").read_bytes()
    words = _words(corpus, tmp_path, "--trainer.max_epochs", "7", "--resume")
    code = f"""
import resource, signal, sys
from speechrnn.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(kept) // 2},) * 2)
sys.exit(main({words!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "last.ckpt").read_bytes() == kept
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.batch_size", "0"], "batch_size 0"),
        (["--data.balance", "2"], "balance 2"),
        (["--seed_everything", "false"], "seed_everything is false"),
        (["--model.log_floor", "0"], "log_floor is 0"),
    ],
)
def test_impossible_settings_are_one_line(words, said, corpus, capsys):
    assert main(_words(corpus, Path("nowhere"), "--trainer.fast_dev_run", "1", *words)) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("backend", ["triton", "loop"])
def test_a_run_is_computed_by_the_backend_it_names(backend, corpus, monkeypatch):
    taken = set()
    compute = Recurrence._compute

    def watched(self, name, x, hidden):
        taken.add(name)
        return compute(self, name, x, hidden)

    monkeypatch.setattr(Recurrence, "_compute", watched)
    assert (
        main(
            _words(
                corpus, Path("nowhere"), "--trainer.fast_dev_run", "1", "--model.backend", backend
            )
        )
        == 0
    )
    assert taken == {backend}


def test_a_backend_that_cannot_run_says_why_in_one_line(corpus, capsys, monkeypatch):
    monkeypatch.setattr(recurrence_triton, "MAX_HIDDEN", 15)
    assert (
        main(
            _words(
                corpus, Path("nowhere"), "--trainer.fast_dev_run", "1", "--model.backend", "triton"
            )
        )
        == 1
    )
    error = capsys.readouterr().err.splitlines()[-1]
    assert "backend 'triton' cannot run here: hidden_size is 16" in error
    assert error.endswith("use backend 'auto' or 'torch'")


def test_a_run_may_be_resumed_with_another_backend(corpus, tmp_path):
    assert main(_words(corpus, tmp_path / "run", "--trainer.max_epochs", "1")) == 0
    words = ["--trainer.max_epochs", "2", "--resume", "--model.backend", "torch"]
    assert main(_words(corpus, tmp_path / "run", *words)) == 0


def test_accumulated_batches_are_augmented_differently(corpus, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        torch,
        "manual_seed",
        lambda seed, real=torch.manual_seed: (seeds.append(seed), real(seed))[1],
    )
    words = ["--trainer.fast_dev_run", "3", "--trainer.accumulate_grad_batches", "3"]
    assert main(_words(corpus, Path("nowhere"), *words)) == 0
    steps = [seed for seed in seeds if seed > 1_000_000]
    assert len(set(steps)) == len(steps) == 3


def test_a_run_of_very_many_labels_keeps_no_table_of_confusions(corpus, tmp_path, monkeypatch):
    """Of an encoder's 2,600 it would fill 170 MB; nor are they measured as a stream."""
    monkeypatch.setattr("speechrnn.training.run.MOST_LABELS", 11)
    assert main(_words(corpus, tmp_path / "run", "--trainer.max_epochs", "1")) == 0
    scores = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["scores"]
    assert set(scores) == {"validation"}
    assert "accuracy" in scores["validation"] and "confusion" not in scores["validation"]


# A teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A model of the protocol's labels; another shape than its pupil's, and larger logits."""
    torch.manual_seed(0)
    model = Model(ModelConfig(labels=(SILENCE, UNKNOWN, *TEN_WORDS), hidden_size=12, layers=1))
    nn.init.normal_(model.head[-1].weight, std=2)
    folder = tmp_path_factory.mktemp("teachers") / "teacher"
    save(model, folder)
    return folder


def test_a_run_with_a_teacher_learns_its_answers(corpus, teacher, tmp_path):
    """With the teacher's share at 1 the labels do not count at all."""
    before = Model.load(teacher).state_dict()
    words = [
        "--model.teacher",
        str(teacher),
        "--model.teacher_share",
        "1",
        "--trainer.max_epochs",
        "20",
    ]
    assert main(_words(corpus, tmp_path, *words)) == 0
    loss = read_metrics(tmp_path)["training_loss"]
    assert loss[19] < 0.7 * loss[0]
    kept = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    for name, value in before.items():
        assert torch.equal(kept[f"teacher.{name}"], value), f"{name} of the teacher has changed"
    assert set(load_file(tmp_path / "model" / "model.safetensors")) == set(
        read_folder(tmp_path).config.shapes
    )
    assert (
        len(
            torch.load(tmp_path / "last.ckpt", weights_only=False)["callbacks"]["GradientFlow"][
                "history"
            ][0]["gradient"]
        )
        == 2
    )


def test_loss_of_a_teacher_is_the_divergence_from_its_softened_answers(teacher):
    labels = read_folder(teacher).config.labels
    training = Training(labels, teacher=str(teacher), hidden_size=8, layers=1)
    log_mel, answer = torch.randn(5, 99, 40), torch.randn(5, 12, requires_grad=True)
    loss = training._teacher_loss(log_mel, answer)
    taught = pool(Model.load(teacher).from_log_mel(log_mel, torch.zeros(1, 5, 12))[0])
    target, soft = ((logits.detach().double().numpy() / TEMPERATURE) for logits in (taught, answer))
    target, soft = (
        np.exp(logits) / np.exp(logits).sum(1, keepdims=True) for logits in (target, soft)
    )
    expected = TEMPERATURE**2 * (target * np.log(target / soft)).sum(1).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert training._teacher_loss(log_mel, taught).item() == pytest.approx(0, abs=1e-5)
    loss.backward()
    assert answer.grad.any()
    assert all(
        parameter.grad is None and not parameter.requires_grad
        for parameter in training.teacher.parameters()
    )


def test_answers_of_another_model_are_learned_beside_those_of_the_teacher(teacher):
    """The mean of both logarithms; where there are none, the teacher's alone."""
    labels = read_folder(teacher).config.labels
    training = Training(labels, teacher=str(teacher), hidden_size=8, layers=1)
    log_mel, others = torch.randn(5, 99, 40), torch.randn(5, 12).log_softmax(-1)
    taught = pool(Model.load(teacher).from_log_mel(log_mel, torch.zeros(1, 5, 12))[0])
    both = (taught.log_softmax(-1) + others) / 2
    others[3:] = torch.nan
    pupil = torch.cat((both[:3], taught[3:]))
    assert training._teacher_loss(log_mel, pupil, others).item() == pytest.approx(0, abs=1e-5)
    assert training._teacher_loss(log_mel, pupil).item() > 0.01


def test_answers_without_a_teacher_are_refused_in_one_line(corpus, answers, capsys):
    words = ["--data.answers", str(answers), "--trainer.fast_dev_run", "1"]
    assert main(_words(corpus, Path("nowhere"), *words)) == 1
    assert "expected a teacher too" in capsys.readouterr().err.splitlines()[-1]


def test_teacher_is_used_as_it_was_shipped(corpus, teacher, monkeypatch):
    """It stays in evaluation mode while the pupil is trained."""
    modes = []
    real = Training._teacher_loss
    monkeypatch.setattr(
        Training,
        "_teacher_loss",
        lambda self, *rest: (
            modes.append((self.teacher.training, self.model.training)),
            real(self, *rest),
        )[1],
    )
    assert (
        main(
            _words(
                corpus,
                Path("nowhere"),
                "--model.teacher",
                str(teacher),
                "--trainer.fast_dev_run",
                "2",
            )
        )
        == 0
    )
    assert modes == [(False, True)] * 2


@pytest.mark.parametrize(
    "labels", [TEN_WORDS, (UNKNOWN, SILENCE, *TEN_WORDS)], ids=["fewer", "in another order"]
)
def test_teacher_with_other_labels_is_refused_in_one_line(labels, corpus, tmp_path, capsys):
    model = Model(ModelConfig(labels=labels, hidden_size=8, layers=1))
    save(model, tmp_path / "other")
    words = ["--model.teacher", str(tmp_path / "other"), "--trainer.fast_dev_run", "1"]
    assert main(_words(corpus, Path("nowhere"), *words)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        f"speechrnn: teacher {tmp_path / 'other'} has labels {labels}: "
        f"expected ('{SILENCE}', '{UNKNOWN}', 'yes',"
    )


@pytest.mark.parametrize(
    "shape", [{"mel_bands": 24, "coefficients": 24}, {"stack": 2}, {"hop_ms": 12.5}]
)
def test_teacher_of_other_frames_is_refused_in_one_line(shape, corpus, tmp_path, capsys):
    model = Model(
        ModelConfig(labels=(SILENCE, UNKNOWN, *TEN_WORDS), hidden_size=8, layers=1, **shape)
    )
    save(model, tmp_path / "other")
    words = ["--model.teacher", str(tmp_path / "other"), "--trainer.fast_dev_run", "1"]
    assert main(_words(corpus, Path("nowhere"), *words)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"teacher {tmp_path / 'other'}" in error
    assert "expected" in error


def test_missing_teacher_is_named(corpus, capsys):
    assert (
        main(
            _words(
                corpus, Path("nowhere"), "--model.teacher", "nobody", "--trainer.fast_dev_run", "1"
            )
        )
        == 1
    )
    assert "no model 'nobody'" in capsys.readouterr().err.splitlines()[-1]


# A model to begin with


def test_a_run_begins_with_the_weights_and_the_normalisation_of_its_start(corpus, tmp_path):
    torch.manual_seed(3)
    model = Model(ModelConfig(labels=(SILENCE, UNKNOWN, *TEN_WORDS), hidden_size=16, layers=2))
    model.mfcc.mean.fill_(7)
    save(model, tmp_path / "first")
    words = [
        "--model.start",
        str(tmp_path / "first"),
        "--model.learning_rate",
        "0",
        "--model.matrix_learning_rate",
        "0",
    ]
    assert main(_words(corpus, tmp_path / "run", *words, "--trainer.max_epochs", "1")) == 0
    for name, value in Model.load(tmp_path / "run").state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.fixture
def encoder(tmp_path) -> Path:
    """What `recipes/encoder.py` leaves of a model: two equal rows of a head."""
    torch.manual_seed(3)
    model = Model(ModelConfig(labels=(SILENCE, UNKNOWN), hidden_size=16, layers=2))
    model.mfcc.mean.fill_(7)
    model.head[1].weight.data[1] = model.head[1].weight.data[0]
    save(model, tmp_path / "encoder")
    return tmp_path / "encoder"


def test_a_start_with_other_labels_gives_all_but_the_head(encoder):
    ours = Training(TEN_WORDS, start=str(encoder), hidden_size=16, layers=2).model.state_dict()
    theirs = Model.load(encoder).state_dict()
    assert ours["head.1.weight"].shape == (10, 16)
    for name in theirs.keys() - {"head.1.weight", "head.1.bias"}:
        assert torch.equal(ours[name], theirs[name]), name


def test_a_new_head_weighs_the_steps_of_a_clip_as_the_old_one_did(encoder):
    head = Training(TEN_WORDS, start=str(encoder), hidden_size=16, layers=2).model.head[1]
    weigher = Model.load(encoder).head[1].weight[0]
    assert torch.allclose(head.weight.mean(0), weigher, atol=1e-6)
    assert (head.weight - weigher).abs().max(1).values.min() > 0.05, "words begin alike"


def test_the_encoder_of_enrol_is_a_start_by_name(encoder, monkeypatch):
    monkeypatch.setattr("speechrnn.training.module.ENCODER", encoder)
    model = Training(TEN_WORDS, start="encoder", hidden_size=16, layers=2).model
    assert torch.equal(model.input.weight, Model.load(encoder).input.weight)


def test_a_missing_encoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("speechrnn.training.module.ENCODER", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=f"no model '{tmp_path / 'nothing'}'"):
        Training(TEN_WORDS, start="encoder")


@pytest.mark.parametrize("labels", [(SILENCE, UNKNOWN, *TEN_WORDS), TEN_WORDS])
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"hidden_size": 8}, "hidden_size 8: expected 16"),
        ({"hop_ms": 12.5}, "hop_ms 12.5: expected 10.0"),
    ],
)
def test_start_of_another_shape_is_refused_in_one_line(
    labels, other, said, corpus, tmp_path, capsys
):
    model = Model(ModelConfig(labels=labels, **{"hidden_size": 16, "layers": 2, **other}))
    save(model, tmp_path / "first")
    words = ["--model.start", str(tmp_path / "first"), "--trainer.fast_dev_run", "1"]
    assert main(_words(corpus, Path("nowhere"), *words)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"speechrnn: start {tmp_path / 'first'} has {said}, as in the recipe; change one of them"
    )


def test_a_run_that_began_with_an_encoder_is_resumed_as_if_it_had_not_been_stopped(
    corpus, encoder, tmp_path, monkeypatch
):
    words = ["--model.start", str(encoder), "--trainer.max_epochs", "3"]
    assert main(_words(corpus, tmp_path / "whole", *words)) == 0
    begun, real = [], Training.on_train_epoch_start

    def stop_once(self):
        begun.append(self.current_epoch)
        if begun == [0, 1, 2]:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Training, "on_train_epoch_start", stop_once)
    broken = _words(corpus, tmp_path / "broken", *words)
    assert main(broken) == 130
    assert main([*broken, "--resume"]) == 0
    assert begun == [0, 1, 2, 2]
    ours, theirs = (
        torch.load(tmp_path / run / "last.ckpt", weights_only=False)["state_dict"]
        for run in ("broken", "whole")
    )
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_a_run_says_how_many_clips_there_are_and_how_often_each_is_heard(corpus, tmp_path, capsys):
    words = ["--data.least_draws", "210", "--trainer.max_epochs", "2"]
    assert main(_words(corpus, tmp_path, *words)) == 0
    assert (
        "72 clips for training, 12 for validation; 2 x 210 draws: "
        "each is heard 5.8 times on average"
    ) in capsys.readouterr().err.splitlines()


# The state that goes on from clip to clip


def started(carry_state: float, carried: torch.Tensor | None, batch: int = 400) -> torch.Tensor:
    training = Training(("yes", "no"), carry_state=carry_state, hidden_size=4, layers=3)
    training.carried = carried
    return training._start(batch)


def test_clips_start_from_silence_or_from_all_that_the_clip_before_left():
    carried = torch.randn(3, 400, 4)
    torch.manual_seed(0)
    hidden = started(0.25, carried)
    goes_on = (hidden == carried).all(2).all(0)
    assert goes_on.float().mean().item() == pytest.approx(0.25, abs=0.08)
    assert not hidden[:, ~goes_on].any(), "all layers of a clip or none"


@pytest.mark.parametrize(("share", "kept"), [(0.0, False), (1.0, True)])
def test_no_clip_or_every_clip_goes_on(share, kept):
    carried = torch.randn(3, 400, 4)
    assert torch.equal(started(share, carried), carried if kept else torch.zeros(3, 400, 4))


@pytest.mark.parametrize(
    "carried", [None, torch.ones(3, 399, 4)], ids=["first batch", "a batch of another size"]
)
def test_clips_without_a_clip_before_start_from_silence(carried):
    assert torch.equal(started(1.0, carried), torch.zeros(3, 400, 4))


def test_an_epoch_begins_from_silence(corpus, tmp_path, monkeypatch):
    starts = []
    real = Training._start
    monkeypatch.setattr(
        Training, "_start", lambda self, batch: (starts.append(real(self, batch)), starts[-1])[1]
    )
    words = [
        "--trainer.max_epochs",
        "2",
        "--trainer.limit_train_batches",
        "2",
        "--model.carry_state",
        "1",
    ]
    assert main(_words(corpus, tmp_path, *words)) == 0
    assert [bool(hidden.any()) for hidden in starts] == [False, True, False, True]


# Muon and AdamW as one


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def joint(network: nn.Module) -> JointOptimizer:
    matrices, rest = (
        [p for p in network.parameters() if (p.ndim == 2) == matrix] for matrix in (True, False)
    )
    return JointOptimizer(
        torch.optim.Muon(matrices, lr=0.02),
        torch.optim.AdamW([{"params": rest, "weight_decay": 0.0}], lr=0.01),
    )


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()


def test_joint_optimizer_steps_as_each_alone():
    network, alone = small_network(), small_network()
    optimizer, parts = joint(network), joint(alone).parts
    for number in range(5):
        steps(network, optimizer, range(number, number + 1))
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
        alone.zero_grad()
        alone(x).square().sum().backward()
        for part in parts:
            part.step()
    assert all(
        one.equal(other)
        for one, other in zip(network.parameters(), alone.parameters(), strict=True)
    )


def test_saved_optimizers_take_the_next_step_that_unsaved_ones_take():
    network = small_network()
    optimizer = joint(network)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for number in range(4):
        steps(network, optimizer, range(number, number + 1))
        schedule.step()
    buffer = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    other = copy.deepcopy(network)
    loaded = joint(other)
    resumed = torch.optim.lr_scheduler.LambdaLR(loaded, lambda step: 0.5**step)
    loaded.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["schedule"])
    assert [group["lr"] for group in loaded.param_groups] == [
        group["lr"] for group in optimizer.param_groups
    ]
    for number in range(4, 8):
        for net, optim, plan in ((network, optimizer, schedule), (other, loaded, resumed)):
            steps(net, optim, range(number, number + 1))
            plan.step()
        assert all(
            one.equal(two)
            for one, two in zip(network.parameters(), other.parameters(), strict=True)
        ), number
    fresh = copy.deepcopy(network)
    steps(fresh, joint(fresh), range(8, 9))
    steps(network, optimizer, range(8, 9))
    assert not fresh[0].weight.equal(network[0].weight), "the state counts"


def test_learning_rates_of_a_schedule_reach_both_optimizers():
    optimizer = joint(small_network())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1**step)
    optimizer.step()
    schedule.step()
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == pytest.approx([0.002, 0.001])


def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest():
    training = Training((SILENCE, "yes", "no"), hidden_size=8, layers=2, feed_forward=5)
    names = {id(parameter): name for name, parameter in training.model.named_parameters()}
    matrices, rest = training.optimizer_groups()
    of_muon = [names[id(p)] for group in matrices for p in group["params"]]
    assert len(of_muon) == 2 * 5 and all(
        name.startswith("blocks.") and name.endswith(("weight", "_l0")) for name in of_muon
    )
    assert {p.ndim for group in matrices for p in group["params"]} == {2}
    decayed, free = ([names[id(p)] for p in group["params"]] for group in rest)
    assert decayed == ["input.weight", "head.1.weight"]
    assert rest[1]["weight_decay"] == 0 and {p.ndim for p in rest[1]["params"]} == {1}
    trained = [name for name, p in training.model.named_parameters() if p.requires_grad]
    assert sorted(of_muon + decayed + free) == sorted(trained), "each once"


# The steps, and what they are given


def test_training_step_makes_pseudo_words_of_unknown_words_only(corpus, monkeypatch):
    asked, targets = [], []
    real = Augmentation.make_pseudo_words
    monkeypatch.setattr(
        Augmentation,
        "make_pseudo_words",
        lambda self, log_mel, unknown: (asked.append(unknown), real(self, log_mel, unknown))[1],
    )
    step = Training.training_step
    monkeypatch.setattr(
        Training,
        "training_step",
        lambda self, batch, index: (targets.append(batch[1]), step(self, batch, index))[1],
    )
    assert main(_words(corpus, Path("nowhere"), "--trainer.fast_dev_run", "3")) == 0
    assert len(asked) == len(targets) == 3
    assert all(torch.equal(unknown, t == 1) for unknown, t in zip(asked, targets, strict=True))
    assert any(unknown.any() for unknown in asked)


# Lightning 2.6 calls what torch 2.11 deprecates.
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")
def test_module_trains_on_batches_from_anywhere():
    """It needs no data module: batches of frames and targets are all it takes."""
    training = Training((SILENCE, UNKNOWN, "yes", "no"), hidden_size=8, layers=1)
    batches = [(torch.randn(4, 99, 40).half(), torch.arange(4)) for _ in range(3)]
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(batches, batch_size=None)
    trainer.fit(training, loader, loader)
    after = training.model.parameters()
    assert not all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def data(corpus) -> SpeechCommands:
    return SpeechCommands(str(corpus), batch_size=8, allow_partial=True)


def test_prepared_training_has_normalised_features_and_frames_of_the_noise(data):
    training = Training(data.labels, hidden_size=8, layers=1)
    prepare(training, data, torch.device("cpu"))
    features = training.model.mfcc.cepstrum(data.frames["training"].float())
    assert features.mean((0, 1)).abs().max() < 1e-3
    assert (features.std((0, 1)) - 1).abs().max() < 1e-2
    mfcc = training.model.mfcc
    noise = join_noises(load_noises(data.folder, "training"))
    frames, _ = mfcc.frames(torch.from_numpy(from_int16(noise))[None])
    assert len(noise) == 0.8 * 20 * 16_000
    torch.testing.assert_close(training.noise, mfcc.log_mel(frames)[0], rtol=0, atol=HALF)


def test_rooms_are_simulated_where_the_augmentation_asks_for_them(data, monkeypatch):
    monkeypatch.setattr("speechrnn.training.run.ROOMS", 3)  # for time
    dry = Training(data.labels, hidden_size=8, layers=1)
    prepare(dry, data, torch.device("cpu"))
    assert not len(dry.decays)
    quiet = Augmentation(shift_frames=0, gain_db=0, noise_probability=0, reverberation=1)
    training = Training(data.labels, hidden_size=8, layers=1, augmentation=quiet)
    prepare(training, data, torch.device("cpu"))
    assert training.decays.shape == (3, data.frames["training"].shape[1])
    assert (training.decays.sum(1) <= 1 + 1e-4).all() and (training.decays.sum(1) > 0.9).all()
    log_mel = torch.full((50, 99, 40), np.log(dry.model.config.log_floor))
    log_mel[:, 9] = 0
    heard = training.augmented(log_mel, torch.full((50,), 2)).exp()[:, 9:, 0]
    rooms = [torch.isclose(heard, room[:90], rtol=1e-2, atol=1e-5) for room in training.decays]
    assert all(room.all(1).any() for room in rooms), "each room is heard by some clip"


def test_augmentation_mixes_in_the_noise_that_the_module_was_given(data):
    quiet = Augmentation(
        shift_frames=0, gain_db=0, noise_probability=1, snr_low_db=0, snr_high_db=0
    )
    training = Training(data.labels, hidden_size=8, layers=1, augmentation=quiet)
    log_mel, targets = torch.zeros(3, 99, 40), torch.full((3,), 2)
    assert training.augmented(log_mel, targets).abs().max() < 1e-4, "without noise none is added"
    prepare(training, data, torch.device("cpu"))
    change = training.augmented(log_mel, targets).exp().mean((1, 2))
    torch.testing.assert_close(change, torch.full((3,), 2.0), rtol=1e-3, atol=0)

"""Training: a run that was killed ends as one that was not, two processes as one, and what a run leaves is complete."""

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
from safetensors.torch import load_file
from tolerances import TRAINING

from speechrnn import load
from speechrnn.cli import main
from speechrnn.data import PROTOCOLS
from speechrnn.plots import read_metrics

ROOT = Path(__file__).parents[1]
SMALL = ["--model.hidden_size", "16", "--model.layers", "2", "--data.batch_size", "8"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """All 35 words as tones of their own, four speakers, one noise; in the corpus's layout with its lists."""
    folder = tmp_path_factory.mktemp("speech_commands")
    random = np.random.default_rng(0)
    moments = np.arange(16_000) / 16_000
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for number, word in enumerate(PROTOCOLS["v2-35"].words):
        (folder / word).mkdir()
        for speaker, split in (("ann", None), ("ben", None), ("cyd", "validation"), ("dan", "testing")):
            name = f"{word}/{speaker}_nohash_0.wav"
            tone = np.sin(2 * np.pi * (200 + 100 * number) * moments) * 0.2 + random.normal(0, 0.01, 16_000)
            soundfile.write(folder / name, tone, 16_000, subtype="PCM_16")
            if split:
                lists[split].append(name)
    for split, names in lists.items():
        (folder / f"{split}_list.txt").write_text("\n".join(names) + "\n")
    (folder / "_background_noise_").mkdir()
    soundfile.write(folder / "_background_noise_" / "hiss.wav", random.normal(0, 0.1, 16_000 * 20), 16_000, subtype="PCM_16")
    return folder


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
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it, and so would this
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
        assert time.monotonic() < deadline and process.poll() is None, "no checkpoint before the end"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "broken" / "model").exists()
    resumed = _start([*words, "--resume"])
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, output
    assert "epoch 1 of 6" not in output, "it began anew"
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "broken", finished))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    ours, theirs = (torch.load(run / "last.ckpt", weights_only=False)["state_dict"] for run in (tmp_path / "broken", finished))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_curves_of_a_resumed_run_have_every_epoch(finished):
    assert sorted(read_metrics(finished)["validation_accuracy"]) == list(range(6))


def test_two_processes_give_the_metrics_of_one(corpus, tmp_path):
    """Two of Lightning's own CPU processes (`ddp`, gloo) share each batch; what is random is off."""
    fixed = ["--trainer.max_epochs", "2", "--model.dropout", "0", "--model.carry_state", "0"]
    for name in ("shift_ms", "gain_db", "noise_probability", "time_masks", "mel_masks"):
        fixed += [f"--model.augmentation.{name}", "0"]
    runs = {"one": fixed, "two": [*fixed, "--trainer.strategy", "ddp", "--trainer.devices", "2"]}
    for name, words in runs.items():
        process = _start(_words(corpus, tmp_path / name, *words))
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    one, two = (read_metrics(tmp_path / name) for name in runs)
    for name in ("training_loss", "validation_loss", "training_accuracy", "validation_accuracy", "validation_mean_accuracy"):
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
    card = (finished / "model" / "README.md").read_text()
    for said in ("## Limits", "CC BY 4.0", "seed 1", f"accuracy {score['accuracy']:.2%}", "| yes |"):
        assert said in card


def test_best_epoch_is_what_is_kept(finished):
    accuracy = read_metrics(finished)["validation_accuracy"]
    score = json.loads((finished / "model" / "config.json").read_text())["scores"]["validation"]
    assert score["accuracy"] == pytest.approx(max(accuracy.values()), abs=1e-6)


def test_run_folder_has_recipe_logs_checkpoints_and_pictures(finished):
    for name in ("recipe.yaml", "best.ckpt", "last.ckpt", "curves.png", "confusion.png"):
        assert (finished / name).stat().st_size > 500, name
    assert list(finished.glob("tensorboard/version_0/events*"))
    metrics = read_metrics(finished)
    assert metrics["learning_rate"][5] < metrics["learning_rate"][1]


def test_recipe_kept_with_the_run_gives_the_run_again(finished, tmp_path):
    assert main(["train", str(finished / "recipe.yaml"), "--trainer.fast_dev_run", "1"]) == 0


def test_a_run_is_not_overwritten(corpus, finished, capsys):
    before = (finished / "last.ckpt").read_bytes()
    assert main(_words(corpus, finished)) == 1
    assert "type --resume" in capsys.readouterr().err
    assert (finished / "last.ckpt").read_bytes() == before


def test_the_trained_model_beats_chance(finished):
    model = load(finished)
    score = json.loads((finished / "model" / "config.json").read_text())["scores"]["validation"]
    assert score["accuracy"] > 2 / len(model.config.labels)


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "recipes").glob("*.yaml")))
def test_every_recipe_runs(recipe, corpus, tmp_path, monkeypatch):
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
    assert main(words) == 0
    assert not list(tmp_path.iterdir()), "a trial run leaves nothing"


@pytest.mark.parametrize("recipe", sorted(path for path in (ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_25_to_40_lines(recipe):
    assert 25 <= len(recipe.read_text().splitlines()) <= 40


def test_profiler_reports_where_the_time_goes(corpus, tmp_path, caplog):
    assert main(_words(corpus, tmp_path / "run", "--trainer.max_epochs", "1", "--trainer.profiler", "simple")) == 0
    for part in ("augmentation", "features", "network"):
        assert f"|  {part} " in caplog.text


def test_relu_trains_too(corpus):
    assert main(_words(corpus, Path("nowhere"), "--model.activation", "relu", "--trainer.fast_dev_run", "2")) == 0


def test_interrupted_training_says_how_to_go_on(corpus, tmp_path):
    process = _start(_words(corpus, tmp_path / "run", "--trainer.max_epochs", "1000"))
    while not (tmp_path / "run" / "last.ckpt").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert output.splitlines()[-1] == "speechrnn: stopped; type --resume to go on from the last epoch that was complete"


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


@pytest.mark.parametrize("changed", [["--model.hidden_size", "24"], ["--seed_everything", "2"], ["--data.batch_size", "4"]])
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
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
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


def test_accumulated_batches_are_augmented_differently(corpus, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", lambda seed, real=torch.manual_seed: (seeds.append(seed), real(seed))[1])
    words = ["--trainer.fast_dev_run", "3", "--trainer.accumulate_grad_batches", "3"]
    assert main(_words(corpus, Path("nowhere"), *words)) == 0
    steps = [seed for seed in seeds if seed > 1_000_000]
    assert len(set(steps)) == len(steps) == 3

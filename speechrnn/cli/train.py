"""The commands that make a model: `download` a corpus, `train` from a recipe."""

import argparse
import logging
from pathlib import Path

from speechrnn.cli.common import Commands, add_command, fail, one_line


def add_parsers(commands: Commands) -> None:
    """Add `download` and `train`."""
    _add_download(commands)
    _add_train(commands)


def _add_download(commands: Commands) -> None:
    parser = add_command(
        commands,
        download,
        "fetch a corpus of Google Speech Commands",
        "A download that broke off goes on when the command is typed again.",
    )
    parser.add_argument(
        "name",
        choices=["v2", "v1", "v2-test", "v1-test"],
        help="corpus, or its official test archive",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("data"),
        metavar="FOLDER",
        help="where its folder goes (default: data)",
    )


def download(options: argparse.Namespace) -> int:
    """Fetch a corpus."""
    from speechrnn.download import CORPORA, download

    print(download(CORPORA[options.name], options.to))
    return 0


def _add_train(commands: Commands) -> None:
    parser = add_command(
        commands,
        train,
        "train a model from a recipe",
        "Each key of the recipe can be overridden:\n\n"
        "  speechrnn train recipes/quickstart.yaml --model.hidden_size 192 --trainer.max_epochs 5\n"
        "  speechrnn train recipes/v2_12.yaml --data.folder CORPUS --trainer.strategy ddp \\\n"
        "    --trainer.devices 4\n\n"
        "`speechrnn train RECIPE.yaml --print_config` shows every key. The run is kept in\n"
        "runs/NAME: recipe.yaml, last.ckpt, best.ckpt, csv/, tensorboard/, curves.png,\n"
        "confusion.png, gradients.png and model/, the folder that the other commands take.",
    )
    parser.set_defaults(takes_overrides=True)
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="what to train on what")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the run's last checkpoint, if there is one",
    )
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="go on where the corpus lacks clips of the official splits",
    )


def train(options: argparse.Namespace) -> int:
    """Train from a recipe."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    from speechrnn.training.run import run

    _print_backends()
    partial = ["--data.allow_partial", "true"] if options.allow_partial else []
    try:
        folder = run(options.recipe, [*options.rest, *partial], options.resume)
    except (MisconfigurationException, ModuleNotFoundError) as error:
        return fail(one_line(error))  # a device that is not there, or whose library is not
    if folder:
        print(folder)
    return 0


def _print_backends() -> None:
    """Print to stderr by which backend the recurrences are computed, when `auto` chooses."""
    log = logging.getLogger("speechrnn")
    log.setLevel(logging.INFO)
    log.handlers = [logging.StreamHandler()]  # on what is stderr now

"""Make a run one of the models that the package ships.

    speechrnn thresholds RUN --data CORPUS --allow-partial --false-alarms-per-hour 5 \\
        --talk TALK --sounds SOUNDS
    speechrnn evaluate RUN --data CORPUS --allow-partial --streamed --noise --split validation \\
        --talk TALK --sounds SOUNDS --report RUN/validation
    speechrnn evaluate RUN --data CORPUS --allow-partial --streamed --noise --split testing \\
        --report RUN/testing
    python recipes/ship.py RUN base

Its weights and thresholds are copied, and its card gets the figures of both splits.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn import folder
from speechrnn.evaluation.clips import ClipResult
from speechrnn.evaluation.tables import markdown
from speechrnn.evaluation.text import condition_rows, label_rows, summary
from speechrnn.training.card import card_metadata, model_card

SPLITS = ("validation", "testing")
PARTS = {"stream", "events", "conditions", "names"}  # of each report
IN_USE = {"talk", "sounds"}  # of that of validation
DATASETS = ("openslr/librispeech_asr",)  # beside the corpus; by their names on the Hub
DATA = """The corpus was a part of Speech Commands v0.02 by its own split (for some words, v0.01),
coded once as Ogg Opus, with fewer clips of `go` and `stop`; `recipes/README.md` in the project
lists them. Unknown words and silence were drawn from it with seed 0. These are not the clips of the
official test archive: the figures do not compare with published ones.

Seconds of talk were trained as unknown words, seconds of sounds as unknown or silence; licences of
each source in brackets:

- talk, 9.4 h: 1.1 h of LibriSpeech, about 260 readers (Panayotov et al. 2015, CC BY 4.0); from
  Debian's packages 1.7 h of acted dialogues of the game Flight of the Amazon Queen (freely
  distributable, not to be sold alone) and 1.0 h of Fish Fillets in Dutch and Czech (GPL-2), 0.3 h
  of shouts of Hedgewars (GFDL 1.3), 2.1 h of letters and names of things of KLettres and KTuberling
  in many languages (GPL-2+, some CC0 and CC BY), 0.8 h of Tux Paint in twelve languages (GPL-2),
  1.6 h of telephone prompts of Asterisk in French, Italian and Russian (CC BY-SA 3.0, Russian CC BY
  3.0); 0.7 h of letters, words and sentences rendered by Kokoro-82M (Apache-2.0), the sentences
  from WordNet 3.0;
- sounds, 7.2 h: 3.4 h of music, effects, animals and machines from 40 of Debian's packages
  (`recipes/get_sounds.py` names them and their licences); 2.9 h of music made up by
  `recipes/make_music.py` and played on the soundfonts FluidR3 (MIT) and OPL3 (CC BY-SA 4.0); 1 h
  computed by `data/make_sounds.py`.

Commands were cut out of the acted talk where Whisper tiny.en heard them. A fifth of the clips was
heard in simulated rooms, 15 % of all through a narrow band. Seven tenths of the loss were the
answers of a teacher, the `base` that was shipped before."""
BASE = """The answers were the mean of those of that `base` and of Whisper tiny.en (OpenAI, MIT).
The training began with the weights of that `base`, which had begun with the encoder of
`speechrnn enrol`, and that was taught by Whisper too."""


def main() -> None:
    """Write `speechrnn/weights/NAME`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=["base", "small", "tiny"])
    options = parser.parse_args()
    trained = folder.read_folder(options.run)
    try:
        reports = read_reports(options.run, trained)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    ship(trained, options.name, reports)


def read_reports(run: Path, model: folder.ModelFolder) -> dict[str, dict[str, Any]]:
    """The report of each split, as `speechrnn evaluate --report` wrote it.

    Raises:
        OSError: there is none.
        ValueError: one is of another model or of other thresholds, or lacks a part.
    """
    reports = {}
    for split in SPLITS:
        path = run / split
        report = json.loads((path / "report.json").read_text("utf-8"))
        needed = PARTS | (IN_USE if split == "validation" else set())
        if missing := needed - report.keys():
            flags = "--streamed --noise" + " --talk --sounds" * (split == "validation")
            raise ValueError(f"{path}: no {', '.join(sorted(missing))}: evaluate with {flags}")
        used = report["model"]["sha256"], report["events"]["thresholds"]
        if used != (model.about["sha256"], model.thresholds):
            raise ValueError(
                f"{path} is of another model than {model.path}, or of other thresholds: evaluate "
                "again"
            )
        reports[split] = report
    return reports


def ship(trained: folder.ModelFolder, name: str, reports: dict[str, Any]) -> None:
    """Write the folder of a shipped model."""
    alone = {split: read_result(report) for split, report in reports.items()}
    streamed = {split: read_result(report["stream"]) for split, report in reports.items()}
    facts = trained.about["training"]
    # Corpus, recordings and run lay anywhere.
    places = {
        "folder": f"data/{facts['corpus']}",
        "talk": "data/talk/training",
        "sounds": "data/sounds/training",
        "answers": "data/answers.npz",
        "default_root_dir": f"runs/{name}",
    }
    for key, place in places.items():
        facts["recipe"] = re.sub(rf"(?m)^( +{key}:) (?!null$)\S+$", rf"\1 {place}", facts["recipe"])
    card = model_card(trained.config, facts, alone["validation"], streamed["validation"])
    card = card.replace("# A speechrnn model", f"# {name}").replace(
        "--model FOLDER", f"--model {name}"
    )
    data = f"{DATA}\n{BASE}" if name == "base" else DATA
    more = more_of_the_card(alone["testing"], streamed["testing"], reports, data)
    card = card.replace("## Limits", f"{more}\n\n## Limits")
    results = [result[split] for split in SPLITS for result in (alone, streamed)]
    card = card_metadata(name, facts["corpus"], results, "apache-2.0", DATASETS) + card
    scores = {}
    for split in SPLITS:
        scores |= {split: alone[split].figures(), f"{split}_stream": streamed[split].figures()}
    thresholds = trained.path / folder.THRESHOLDS_FILE
    folder.save_folder(
        folder.SHIPPED / name,
        trained.config,
        trained.weights(),
        training=facts,
        scores=scores,
        card=card,
        thresholds=json.loads(thresholds.read_text()) if thresholds.is_file() else None,
    )


def read_result(report: dict[str, Any]) -> ClipResult:
    """The answers in a report, as `speechrnn evaluate --report` wrote them."""
    labels, names = tuple(report["labels"]), tuple(report["names"])
    columns = (np.array(report[name]) for name in ("truth", "answers", "scores"))
    about = (report[name] for name in ("protocol", "split", "streamed"))
    return ClipResult(labels, names, *columns, *about)


def more_of_the_card(
    alone: ClipResult, streamed: ClipResult, reports: dict[str, Any], data: str
) -> str:
    """What the card of a shipped model tells beyond that of a run.

    Args:
        alone: the answers on the testing clips, each clip alone.
        streamed: the same, all clips in one stream.
        reports: by split, as `speechrnn evaluate --report` wrote them.
        data: what it was trained on.
    """
    lines = []
    for split, report in reports.items():
        score = report["events"]["scores"]["all"]
        lines.append(
            f"- {split}: {100 * score['miss_rate']:.1f} % of {score['words']:,} words missed, "
            f"{score['wrong']} taken for others, {score['false_alarms_per_hour']:.2f} false alarms "
            f"an hour in {score['hours']:.1f} h"
        )
    for kind in ("talk", "sounds"):
        found = reports["validation"][kind]
        lines.append(
            f"- {kind}, validation recordings: {found['false_alarms_per_hour']:.1f} false "
            f"alarms an hour in {found['hours']:.2f} h; {found['random_seconds']:.1%} of "
            "random seconds are answered with a word"
        )
    events = "\n".join(lines)
    return f"""## Accuracy on the testing split, measured once

- Each clip alone: {summary(alone)}.
- All clips in one stream: {summary(streamed)}.

{markdown(label_rows(alone))}

{data}

## In a stream

{events}

## Under hard conditions

The ten words of the validation split in noise and worse, and silence of all kinds: the share of
right answers.

{markdown(condition_rows(reports["validation"]["conditions"]))}"""


if __name__ == "__main__":
    main()

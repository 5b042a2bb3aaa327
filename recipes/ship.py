"""Make a run one of the models that the package ships.

    speechrnn thresholds RUN --data CORPUS --allow-partial --false-alarms-per-hour 10 \\
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
DATASETS = ("openslr/librispeech_asr",)  # beside the corpus; by their names on the Hub
DATA = """The corpus was a part of Speech Commands v0.02 by its own split (for some words, v0.01),
coded once as Ogg Opus, with fewer clips of `go` and `stop`; `recipes/README.md` in the project
lists them. Unknown words and silence were drawn from it with seed 0. These are not the clips of the
official test archive: the figures do not compare with published ones.

Seconds of talk were trained as unknown words, seconds of sounds as unknown or silence; licences of
each source in brackets:

- talk: 1.1 h of LibriSpeech, about 260 readers (Panayotov et al. 2015, CC BY 4.0); 1 h of acted
  dialogues of the game Flight of the Amazon Queen (freely distributable, not to be sold alone);
  shouts of Hedgewars (GFDL 1.3); letters of KLettres (GPL-2+, some CC0), all from Debian's
  packages; 221 sentences, 1,236 words, and letters and other short words (327 clips), rendered by
  Kokoro-82M (Apache-2.0);
- sounds: 3.4 h of music, effects, animals and machines from 40 of Debian's packages
  (`recipes/get_sounds.py` names them and their licences); 2 h of music made up by
  `recipes/make_music.py` and played on the soundfonts FluidR3 (MIT) and OPL3 (CC BY-SA 4.0); 1 h
  computed by `data/make_sounds.py`.

Commands were cut out of the acted talk where Whisper tiny.en heard them. A fifth of the clips was
heard in simulated rooms, 15 % of all through a narrow band."""


def main() -> None:
    """Write `speechrnn/weights/NAME`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=["base", "small", "tiny"])
    options = parser.parse_args()
    reports = {
        split: json.loads((options.run / split / "report.json").read_text()) for split in SPLITS
    }
    for split, report in reports.items():
        if missing := {"stream", "events", "conditions", "names"} - report.keys():
            parser.error(
                f"{options.run / split}: no {', '.join(sorted(missing))}: evaluate with --streamed "
                "--noise"
            )
    trained = folder.read_folder(options.run)
    if trained.about["scores"]["validation"]["confusion"] != reports["validation"]["confusion"]:
        parser.error(
            f"{options.run / 'validation'} is of another model than {trained.path}: evaluate again"
        )
    ship(trained, options.name, reports)


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
        "default_root_dir": f"runs/{name}",
    }
    for key, place in places.items():
        facts["recipe"] = re.sub(rf"(?m)^( +{key}:) \S+$", rf"\1 {place}", facts["recipe"])
    card = model_card(trained.config, facts, alone["validation"], streamed["validation"])
    card = card.replace("# A speechrnn model", f"# {name}").replace(
        "--model FOLDER", f"--model {name}"
    )
    more = more_of_the_card(alone["testing"], streamed["testing"], reports)
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


def more_of_the_card(alone: ClipResult, streamed: ClipResult, reports: dict[str, Any]) -> str:
    """What the card of a shipped model tells beyond that of a run.

    Args:
        alone: the answers on the testing clips, each clip alone.
        streamed: the same, all clips in one stream.
        reports: by split, as `speechrnn evaluate --report` wrote them.
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
        if kind in reports["validation"]:
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

{DATA}

## In a stream

{events}

## Under hard conditions

The ten words of the validation split in noise and worse, and silence of all kinds: the share of
right answers.

{markdown(condition_rows(reports["validation"]["conditions"]))}"""


if __name__ == "__main__":
    main()

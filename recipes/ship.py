"""Make a run one of the models that the package ships: its weights, and a card with its figures on both splits.

speechrnn evaluate RUN --data CORPUS --allow-partial --false-alarms-per-hour 3 --noise --split validation --report RUN/validation
speechrnn evaluate RUN --data CORPUS --allow-partial --streamed --noise --split testing --report RUN/testing
python recipes/ship.py RUN base
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn import checkpoint
from speechrnn.evaluation import Report, conditions_table
from speechrnn.training import model_card

DATA = """The corpus was a part of Speech Commands v0.02 by its own split (for some words, v0.01), coded once as Ogg Opus, with
fewer clips of `go` and `stop`; `recipes/README.md` in the project lists them. Unknown words and silence were drawn from it with
seed 0. These are not the clips of the official test archive: the figures do not compare with published ones."""


def read_report(found: dict[str, Any]) -> Report:
    """A report as `speechrnn evaluate --report` wrote it."""
    columns = (np.array(found[name]) for name in ("truth", "answers", "scores"))
    return Report(tuple(found["labels"]), tuple(found["names"]), *columns, found["protocol"], found["split"], found["streamed"])


def main() -> None:
    """Write `speechrnn/weights/NAME`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name", choices=["base", "small", "tiny"])
    options = parser.parse_args()
    found = {split: json.loads((options.run / split / "report.json").read_text()) for split in ("validation", "testing")}
    for split, report in found.items():
        if missing := {"stream", "events", "conditions", "names"} - report.keys():
            parser.error(f"{options.run / split}: no {', '.join(sorted(missing))}: evaluate with --streamed --noise")
    folder = checkpoint.model_folder(options.run)
    config = checkpoint.read_config(folder)
    if config["scores"]["validation"]["confusion"] != found["validation"]["confusion"]:
        parser.error(f"{options.run / 'validation'} is of another model than {folder}: evaluate again")
    reports = {split: read_report(found[split]) for split in found}
    streams = {split: read_report(found[split]["stream"]) for split in found}
    model = checkpoint.load(folder)
    facts = config["training"]
    facts["recipe"] = re.sub(r"(?m)^( +folder:) .*", rf"\1 data/{facts['corpus']}", facts["recipe"])  # wherever it was
    events = "\n".join(
        f"- {split}: {100 * score['miss_rate']:.1f} % of {score['words']:,} words missed, {score['wrong']} heard as others, "
        f"{score['false_alarms_per_hour']:.2f} false alarms an hour in {score['hours']:.1f} h"
        for split, score in ((split, report["events"]["scores"]["all"]) for split, report in found.items())
    )
    card = model_card(model, facts, reports["validation"], streams["validation"])
    card = card.replace("# A speechrnn model", f"# {options.name}").replace("--model FOLDER", f"--model {options.name}")
    card = card.replace(
        "## Limits",
        f"""## Accuracy on the testing split, measured once

- Each clip alone: {reports["testing"].summary()}.
- All clips in one stream: {streams["testing"].summary()}.

{reports["testing"].table()}

{DATA}

## In a stream

{events}

## Under hard conditions

The ten words of the validation split in noise and worse, and silence of all kinds: the share that is heard as what it is.

{conditions_table(found["validation"]["conditions"])}

## Limits""",
    )
    scores = {}
    for split in found:
        scores |= {split: reports[split].figures(), f"{split}_stream": streams[split].figures()}
    shipped = checkpoint.SHIPPED / options.name
    checkpoint.save(model, shipped, training=facts, scores=scores, card=card)
    if (folder / checkpoint.THRESHOLDS).is_file():
        shutil.copy(folder / checkpoint.THRESHOLDS, shipped)


if __name__ == "__main__":
    main()

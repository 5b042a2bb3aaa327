"""Build `textbook.html`: what a recurrent network is, with a real one running in the page.

    python recipes/textbook.py                                             # build the page
    python recipes/textbook.py --measure trained shipped --data CORPUS     # measure, then build
    python recipes/textbook.py --measure speed

In: the shipped weights, recordings of `data/`, files of measurements, and `textbook/` (template,
style, scripts). Out: one file that needs nothing beside it. Every number in it is read: from
`textbook.json` (made by `--measure`, see textbook_measures.py), `ablation.jsonl`, `systems.csv`,
README.md of this folder, and the model folders; and so is every line of code that it shows.
"""

import argparse
import json
from pathlib import Path

HERE = Path(__file__).parent
MEASURES = HERE / "textbook.json"
PARTS = ("trained", "shipped", "speed")


def measure(parts: list[str], corpus: Path | None) -> None:
    """Measure parts anew, and put each into `textbook.json` as soon as it is there."""
    import textbook_measures as measures  # beside this file; torch is not needed to build the page

    for part in parts:
        command = (
            f"python recipes/textbook.py --measure {part}{' --data CORPUS' * (part != 'speed')}"
        )
        found = {**measures.origin(command), **measures.PARTS[part](corpus)}
        kept = json.loads(MEASURES.read_text()) if MEASURES.is_file() else {}
        if part == "speed":
            device = measures.best_device().type
            kept.setdefault("speed", {"cpu": None, "cuda": None})[device] = found
        else:
            kept[part] = found
        MEASURES.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> None:
    """Measure what is asked for, and build the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", nargs="+", choices=PARTS, default=[], metavar="PART")
    parser.add_argument("--data", type=Path, metavar="CORPUS")
    options = parser.parse_args()
    if options.data is None and set(options.measure) - {"speed"}:
        parser.error("--measure trained and shipped need --data CORPUS")
    measure(options.measure, options.data)


if __name__ == "__main__":
    main()

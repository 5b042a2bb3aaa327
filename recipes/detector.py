"""Compare rules of the detector, by the three constants of `speechrnn/detection.py`.

    python recipes/detector.py base small tiny --data CORPUS --talk TALK --sounds SOUNDS

For each model it prints, in a row for each rule, the words found in the joined validation clips
where these, talk and sounds give at most 1, 2, 3, 5 and 10 false alarms an hour each; and at 1 and
5 the delay of 95 % of the words, and the words found 0.3 s after another clip. TALK and SOUNDS are
recordings for validation. It takes five minutes a model.
"""

import argparse
from pathlib import Path

import numpy as np
from results import ALLOWED

from speechrnn import detection, load
from speechrnn.corpus import load_noises, load_split
from speechrnn.evaluation.background import false_alarm_curve, read_background
from speechrnn.evaluation.recordings import posteriors
from speechrnn.evaluation.results import join_split
from speechrnn.evaluation.spotting import ALL, choose_threshold, score, score_curve
from speechrnn.evaluation.tables import markdown

NO_LIMIT = 1.0  # s, the whole window
# HOLD_SECONDS, WIDEST_SECONDS, BEHIND_SPEECH; the first without the last two, then each by itself.
RULES = ((0.45, NO_LIMIT, 0), (0.42, 0.75, 0), (0.42, NO_LIMIT, 2), (0.42, 0.75, 2),
         (0.36, 0.75, 2), (0.39, 0.75, 2), (0.45, 0.75, 2), (0.42, 0.66, 2), (0.42, 0.84, 2),
         (0.42, 0.75, 1), (0.42, 0.75, 3))  # fmt: skip


def main() -> None:
    """Run each model once through the recordings, and each rule over what it gave."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    for name in ("data", "talk", "sounds"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args()
    clips = load_split(options.data, "v2-12", "validation", allow_partial=True)
    streams = join_split(clips, load_noises(options.data, "validation"))
    backgrounds = [read_background(folder) for folder in (options.talk, options.sounds)]
    joined = [streams.recording, streams.close]
    head = ["hold", "widest", "behind speech", *(f"found at {allowed}" for allowed in ALLOWED)]
    for model in options.models:
        outputs, fast, *others = posteriors(load(model), [*joined, *backgrounds])
        words = outputs.config.words
        rows = [[*head, "delay of 95 % at 1, 5", "found 0.3 s after a clip at 1, 5"]]
        for rule in RULES:
            hold, widest, behind = rule
            detection.HOLD_SECONDS, detection.WIDEST_SECONDS, detection.BEHIND_SPEECH = rule
            curve = score_curve(outputs, streams.recording.words)
            alarms = [(level, scores[ALL].false_alarms_per_hour) for level, scores in curve]
            curves = [alarms, *map(false_alarm_curve, others, backgrounds)]
            scores = dict(curve)
            levels = [choose_threshold(curves, allowed) for allowed in ALLOWED]
            found = [f"{1 - scores[level][ALL].miss_rate:.1%}" for level in levels]
            delays, close = [], []
            for level in (levels[0], levels[3]):
                delays.append(np.percentile(scores[level][ALL].latencies or [np.nan], 95))
                detections = fast.detections(dict.fromkeys(words, level))
                close.append(score(detections, streams.close.words, words, fast.hours)[ALL])
            rows.append([
                f"{hold:.2f} s", f"{widest:.2f} s" if widest < NO_LIMIT else "any", f"{behind:g}",
                *found,
                ", ".join(f"{delay:.2f}" for delay in delays) + " s",
                ", ".join(f"{1 - one.miss_rate:.1%}" for one in close),
            ])  # fmt: skip
        print(f"\n`{model}`\n\n{markdown(rows)}", flush=True)


if __name__ == "__main__":
    main()

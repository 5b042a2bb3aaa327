"""Commands that measure: how good models are, thresholds for streams, and how fast all this is."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.cli.common import Commands, add_command, count

if TYPE_CHECKING:
    import numpy as np

    from speechrnn.corpus import Clips
    from speechrnn.evaluation.background import Background
    from speechrnn.evaluation.results import ModelResult, Streams
    from speechrnn.recogniser import Recogniser

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, of AMD, and in WSL
SPLITS = ("training", "validation", "testing")
# With --few-shot: by the protocol whose words are new, that which loads all words of the corpus.
FEW_SHOT_PROTOCOLS = {"v1-12": "v1-30", "v2-12": "v2-35", "own": "own"}


def add_parsers(commands: Commands) -> None:
    """Add the commands of this file to the main parser."""
    _add_evaluate(commands)
    _add_thresholds(commands)
    _add_bench(commands)


def evaluate(options: argparse.Namespace) -> int:
    """Measure models on a split, print the results, and write the report that was asked for."""
    if options.few_shot:
        return _few_shot(options)
    from speechrnn.evaluation.conditions import conditions_rooms
    from speechrnn.evaluation.results import join_split
    from speechrnn.evaluation.text import as_json, as_text

    clips, noises = _read_corpus(options, options.models)
    rooms = conditions_rooms() if options.noise else None
    streams = join_split(clips, noises) if options.streamed else None
    backgrounds = _read_backgrounds(options)
    results = [
        _measure(options, name, clips, noises, rooms, streams, backgrounds)
        for name in options.models
    ]
    print(json.dumps(as_json(results), indent=2) if options.json else as_text(results))
    if options.report:
        from speechrnn.evaluation.report import write_report

        written = write_report(options.report, results)
        if streams:
            streams.recording.save(options.report / "stream.flac")
            written += [options.report / f"stream.{kind}" for kind in ("flac", "txt")]
        names = ", ".join(path.name for path in written)
        print(f"written: {options.report}: {names}", file=sys.stderr)
    return 0


def _few_shot(options: argparse.Namespace) -> int:
    """Measure an encoder with a few recordings of each word."""
    from speechrnn.config import words_among
    from speechrnn.corpus import folder_labels, load_noises, load_split
    from speechrnn.enrolment import Encoder
    from speechrnn.evaluation.background import read_background
    from speechrnn.evaluation.few_shot import FewShot, evaluate_few_shot
    from speechrnn.evaluation.text import few_shot_text

    if len(options.models) > 1:
        count = len(options.models)
        raise ValueError(f"--few-shot measures one encoder: expected one folder, got {count}")
    if options.noise or options.sounds:
        raise ValueError("--few-shot goes with neither --noise nor --sounds: leave them out")
    if options.streamed != bool(options.talk):
        raise ValueError(
            "with --few-shot, --streamed and --talk FOLDER go together: misses in a stream are "
            "told at false alarms in talk"
        )
    protocol = options.protocol or "v2-12"
    if protocol not in FEW_SHOT_PROTOCOLS:
        raise ValueError(
            f"--few-shot does not go with --protocol {protocol}: expected "
            f"{', '.join(FEW_SHOT_PROTOCOLS)}"
        )
    (name,) = options.models
    encoder = Encoder(name)
    talk = read_background(options.talk) if options.talk else None
    clips = load_split(
        options.data,
        FEW_SHOT_PROTOCOLS[protocol],
        options.split,
        seed=options.draw_seed,
        allow_partial=options.allow_partial,
    )
    words = words_among(
        clips.labels if protocol == "own" else folder_labels(options.data, protocol)
    )
    few_shot = FewShot(encoder, clips, words, options.draw_seed)
    stream = few_shot.stream(load_noises(options.data, options.split), talk) if talk else None
    report = evaluate_few_shot(name, few_shot, options.split, stream)
    print(json.dumps(report.to_dict(), indent=2) if options.json else few_shot_text(report))
    if options.report:
        from speechrnn.evaluation.report import write_few_shot

        written = write_few_shot(options.report, report)
        names = ", ".join(path.name for path in written)
        print(f"written: {options.report}: {names}", file=sys.stderr)
    return 0


def thresholds(options: argparse.Namespace) -> int:
    """Choose a model's thresholds on a split, and write them into its folder."""
    from speechrnn.evaluation.background import false_alarm_curve
    from speechrnn.evaluation.recordings import posteriors
    from speechrnn.evaluation.results import join_recording
    from speechrnn.evaluation.spotting import (
        ALL,
        SpottingResult,
        choose_threshold,
        score,
        score_curve,
    )
    from speechrnn.evaluation.text import spotting_summary
    from speechrnn.folder import find_folder, save_thresholds

    find_folder(options.model)  # refused now where nothing could be written into it
    if options.split == "testing":
        raise ValueError("thresholds are not chosen on the testing split: type --split validation")
    clips, noises = _read_corpus(options, [options.model])
    recording = join_recording(clips, noises)
    backgrounds = [one for one in _read_backgrounds(options).values() if one]
    allowed = options.false_alarms_per_hour
    hours = min([recording.hours, *(one.hours for one in backgrounds)])
    if hours * allowed < 1:
        raise ValueError(
            f"{allowed:g} false alarms an hour are none in {hours:.2f} h: expected "
            f"{1 / hours:.2f} or more, or a longer recording"
        )
    recogniser = _load(options.model)
    outputs, *others = posteriors(recogniser, [recording, *backgrounds])
    curve = score_curve(outputs, recording.words)
    curves = [
        [(level, scores[ALL].false_alarms_per_hour) for level, scores in curve],
        *map(false_alarm_curve, others, backgrounds),
    ]
    chosen = dict.fromkeys(recogniser.words, choose_threshold(curves, allowed))
    path = save_thresholds(
        options.model,
        chosen,
        false_alarms_per_hour=allowed,
        protocol=_protocol(options, [options.model]),
        split=options.split,
        talk=options.talk and options.talk.name,
        sounds=options.sounds and options.sounds.name,
    )
    scores = score(outputs.detections(chosen), recording.words, recogniser.words, outputs.hours)
    print(spotting_summary(SpottingResult(chosen, scores, curve, outputs.hours)))
    print(f"written: {path}", file=sys.stderr)
    return 0


def bench(options: argparse.Namespace) -> int:
    """Time the recurrence, what a user waits for, and a training step; print tables."""
    from speechrnn import bench
    from speechrnn.evaluation import plots
    from speechrnn.evaluation.tables import markdown

    cases, missing = bench.stacks(options.hidden, options.batch, options.steps, options.dtype)
    for line in missing:
        print(f"not measured: {line}", file=sys.stderr)
    print(f"{bench.machine()}.")
    for title, rows in bench.tables(cases).items():
        print(f"\n### {title}\n\n{markdown(rows)}")
    if options.plot:
        plots.save(plots.speed(bench.panels(cases), bench.machine()), options.plot)
    return 0


def _load(name: str) -> "Recogniser":
    """A model on the GPU if there is one, else in NumPy; an exported file as it is."""
    from speechrnn import load
    from speechrnn.onnx_runtime import is_exported

    # Without a driver there is no GPU: then torch, which loads in two seconds, is not asked.
    no_driver = sys.platform == "linux" and not any(map(os.path.exists, GPU_DRIVERS))
    if no_driver or is_exported(name):
        return load(name)
    from speechrnn.model import best_device

    device = best_device()
    return load(name) if device.type == "cpu" else load(name, "torch", str(device))


def _protocol(options: argparse.Namespace, names: list[str]) -> str:
    """The protocol that was asked for, else the one that the models were trained with.

    Raises:
        ValueError: if they were trained with different ones.
    """
    from speechrnn.onnx_runtime import read_model

    if options.protocol:
        return str(options.protocol)
    trained = {}
    for name in names:
        scores = read_model(name).about["scores"]
        trained[name] = str(scores.get("validation", {}).get("protocol", "v2-12"))
    if len(set(trained.values())) > 1:
        each = ", ".join(f"{name} with {protocol}" for name, protocol in trained.items())
        raise ValueError(
            f"the models were trained with different protocols ({each}): type --protocol, to "
            "compare them on one"
        )
    return trained[names[0]]


def _read_corpus(
    options: argparse.Namespace, names: list[str]
) -> "tuple[Clips, dict[str, np.ndarray]]":
    """The clips and the noises of the split."""
    from speechrnn.corpus import load_noises, load_split

    clips = load_split(
        options.data,
        _protocol(options, names),
        options.split,
        seed=options.draw_seed,
        allow_partial=options.allow_partial,
    )
    return clips, load_noises(options.data, options.split)


def _measure(
    options: argparse.Namespace,
    name: str,
    clips: "Clips",
    noises: "dict[str, np.ndarray]",
    rooms: "dict[str, list[np.ndarray]] | None",
    streams: "Streams | None",
    backgrounds: "dict[str, Background | None]",
) -> "ModelResult":
    """Measure what was asked for of a model."""
    from speechrnn.evaluation.background import evaluate_background
    from speechrnn.evaluation.clips import evaluate_clips, measured_model
    from speechrnn.evaluation.conditions import evaluate_conditions
    from speechrnn.evaluation.results import ModelResult, measure_stream
    from speechrnn.onnx_runtime import read_model

    model, recogniser = measured_model(name, read_model(name)), _load(name)
    of = _protocol(options, options.models), options.split, model
    return ModelResult(
        evaluate_clips(recogniser, clips, *of),
        measure_stream(recogniser, streams, *of) if streams else None,
        evaluate_conditions(recogniser, clips, noises, rooms) if rooms else None,
        *(
            evaluate_background(recogniser, background, kind == "talk") if background else None
            for kind, background in backgrounds.items()
        ),
    )


def _read_backgrounds(options: argparse.Namespace) -> "dict[str, Background | None]":
    """The recordings of talk and of sounds, where they were asked for."""
    from speechrnn.evaluation.background import read_background

    folders = {"talk": options.talk, "sounds": options.sounds}
    return {kind: read_background(folder) if folder else None for kind, folder in folders.items()}


def _add_evaluate(commands: Commands) -> None:
    this = add_command(
        commands,
        evaluate,
        "measure models on a split of a corpus",
        "Prints for each model its accuracy and a table of the labels; of several models also a\n"
        "comparison and, of each pair, McNemar's exact test on the same clips; last the row for a\n"
        "paper, as Markdown and as LaTeX. It writes nothing into the model folders.\n\n"
        "--json gives one object for one model. For several: `reports`, a list of these, and\n"
        "`mcnemar`, a list with the two `models` of each pair, `only_first` and `only_second`\n"
        "(clips that only this one answered rightly), and `p`. In a report, `truth` and `answers`\n"
        "of the clips in `names` are places in `labels`, `scores` the probabilities of the "
        "answers.\n\n"
        "--few-shot measures an encoder of `speechrnn enrol` in place of a model: 500 times a few\n"
        "recordings of each word are drawn, and other speakers say these words and others. New\n"
        "are the ten commands (--protocol v2-12, if none is given), or in each draw ten words\n"
        "of the corpus (own). With --streamed --talk FOLDER also words missed in a stream. An\n"
        "encoder that heard the words in its training tells little: take one that never did.\n\n"
        "  speechrnn evaluate ENCODER --few-shot --data CORPUS --split validation",
    )
    this.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="shipped model, folder of a trained one, or exported file.onnx",
    )
    _add_corpus(this, "testing")
    this.add_argument(
        "--few-shot",
        action="store_true",
        help="MODEL is the folder of an encoder: how good new words are from 1, 5 and 10 "
        "recordings",
    )
    this.add_argument(
        "--streamed",
        action="store_true",
        help="also join all clips into one stream: misses, false alarms and latency, at the "
        "model's thresholds and at all others",
    )
    this.add_argument(
        "--noise",
        action="store_true",
        help="also in each noise from 20 to -5 dB, in rooms, quiet, loud, by telephone, cut off, "
        "in long files; and silence of all kinds",
    )
    _add_backgrounds(this)
    this.add_argument(
        "--report",
        type=Path,
        metavar="FOLDER",
        help="write report.html, report.md, report.json and the pictures there; with --few-shot "
        "they are called few_shot",
    )
    this.add_argument("--json", action="store_true", help="print the results as JSON")


def _add_thresholds(commands: Commands) -> None:
    this = add_command(
        commands,
        thresholds,
        "choose the thresholds of a model for `transcribe`",
        "Joins the clips of a split into one recording of two hours or more, takes the lowest\n"
        "threshold that gives no more false alarms than allowed there and in the talk and the\n"
        "sounds that are given, the same for every word, and writes it into thresholds.json of\n"
        "the model folder.",
    )
    this.add_argument("model", metavar="MODEL", help="folder of a trained model, or shipped model")
    _add_corpus(this, "validation")
    this.add_argument(
        "--false-alarms-per-hour",
        type=float,
        required=True,
        metavar="N",
        help="most that are allowed in an hour of each recording",
    )
    _add_backgrounds(this)


def _add_backgrounds(to: argparse.ArgumentParser) -> None:
    """Add the options that name recordings which are not meant for the model."""
    to.add_argument(
        "--talk",
        type=Path,
        metavar="FOLDER",
        help="also false alarms in recordings of running speech; what is spoken in them may stand "
        "in transcripts.tsv there, or in FOLDER.tsv: columns file and text, separated by tabs",
    )
    to.add_argument(
        "--sounds",
        type=Path,
        metavar="FOLDER",
        help="also false alarms in recordings of music, animals, machines and the like",
    )


def _add_corpus(to: argparse.ArgumentParser, split: str) -> None:
    """Add the options that choose the clips of a corpus."""
    to.add_argument(
        "--data", required=True, type=Path, metavar="FOLDER", help="corpus or test archive"
    )
    to.add_argument(
        "--protocol",
        choices=["v1-12", "v2-12", "v1-30", "v2-35", "own"],
        help="default: that of the training",
    )
    to.add_argument("--split", default=split, choices=SPLITS, help=f"default: {split}")
    to.add_argument(
        "--draw-seed",
        type=int,
        default=0,
        metavar="N",
        help="of the draws of unknown and silence clips (default: 0)",
    )
    to.add_argument(
        "--allow-partial",
        action="store_true",
        help="go on where clips of the official split are missing",
    )


def _add_bench(commands: Commands) -> None:
    this = add_command(
        commands,
        bench,
        "time the recurrence beside nn.RNN and other ways to compute it, inference, and training",
        "Prints tables as Markdown. On the GPU if there is one, else on the CPU: two hours, with\n"
        "these sizes three minutes:\n\n"
        "  speechrnn bench --hidden 96 --batch 128 --steps 33",
    )
    for name, sizes, what in (
        ("hidden", (64, 128, 192, 256), "units H"),
        ("batch", (64, 256, 1024, 4096), "clips B"),
        ("steps", (50, 100), "steps T"),
    ):
        help = f"{what} (default: {' '.join(map(str, sizes))})"
        this.add_argument(f"--{name}", type=count, nargs="+", default=sizes, metavar="N", help=help)
    this.add_argument(
        "--dtype",
        choices=["float32", "tf32", "float16", "bfloat16"],
        nargs="+",
        help="of the numbers (default: all on a GPU, float32 on a CPU)",
    )
    this.add_argument("--plot", type=Path, metavar="OUT.png", help="draw the times too")

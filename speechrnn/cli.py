"""The command line: one function a command. Imports stand inside each, so that help comes before torch is loaded.

Results go to stdout, tab-separated or as JSON; everything else to stderr. Status 0 if all went well, 1 if something could not be
done (the rest is), 2 for wrong usage, 130 if stopped from the keyboard.
"""

import argparse
import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechrnn import __version__
from speechrnn.transcripts import FORMATS

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from speechrnn import Detection, Model

SECONDS_AT_ONCE = 256  # of audio in memory in `classify`, 16 MB, but for one file that is longer
PLOT_SECONDS = 600  # of audio in memory in `transcribe --plot`: 40 MB of it, and 350 MB to draw it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; `arguments` default to those of the process. Returns the exit status."""
    options, rest = _parser().parse_known_args(arguments)
    if rest and options.command is not train:
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be UTF-8
    command: Callable[[argparse.Namespace], int] = options.command
    if command in (train, evaluate):
        _tell_of_backends()
    try:
        status = command(options)
        sys.stdout.flush()  # here, where an error is caught
        return status
    except KeyboardInterrupt as stop:
        return _fail("; ".join(["stopped", *map(str, stop.args)]), 130)
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except argparse.ArgumentError as error:  # from the recipe's parser
        return _fail(_one_line(error), 2)
    except (OSError, ValueError, RuntimeError) as error:
        return _fail(_one_line(error))


def _tell_of_backends() -> None:
    """Print which way the recurrences are computed, when `auto` decides."""
    import logging

    log = logging.getLogger("speechrnn")
    log.setLevel(logging.INFO)
    log.handlers = [logging.StreamHandler()]  # on what is stderr now


def download(options: argparse.Namespace) -> int:
    """Fetch a corpus."""
    from speechrnn.download import CORPORA, download

    print(download(CORPORA[options.name], options.to))
    return 0


def train(options: argparse.Namespace) -> int:
    """Train from a recipe."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    from speechrnn import training

    overrides = [*options.rest, *(["--data.allow_partial", "true"] if options.allow_partial else [])]
    try:
        folder = training.run(options.recipe, overrides, options.resume)
    except (MisconfigurationException, ModuleNotFoundError) as error:  # a device that is not there, or not installed
        return _fail(_one_line(error))
    if folder:
        print(folder)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Measure models on a split."""
    import torch

    from speechrnn import checkpoint, evaluation, events, plots, report
    from speechrnn.data import load_noise, load_noises, load_split

    if options.false_alarms_per_hour is not None and options.split == "testing":
        raise ValueError("thresholds are not chosen on the testing split: add --split validation")
    protocols = {name: options.protocol or evaluation.trained_protocol(name) for name in options.models}
    if len(set(protocols.values())) > 1:
        trained = ", ".join(f"{name} with {protocol}" for name, protocol in protocols.items())
        raise ValueError(f"the models were trained with different protocols ({trained}): type --protocol, to compare them on one")
    protocol = protocols[options.models[0]]
    clips = load_split(options.data, protocol, options.split, seed=options.draw_seed, allow_partial=options.allow_partial)
    several = len(options.models) > 1
    reports, said = [], []
    found: list[dict[str, Any]] = []
    sections: list[report.Section] = []
    for number, name in enumerate(options.models, 1):
        alone = evaluation.evaluate(name, clips, protocol, options.split)
        model = checkpoint.load(name).to("cuda" if torch.cuda.is_available() else "cpu")
        reports.append(alone)
        found.append(alone.to_dict())
        said += [*([name] if several else []), alone.summary()]
        if options.report:  # drawing takes a while
            sections += report.of_clips(alone, f"-{number}" if several else "")
        of = f": {name}" if several else ""
        if options.streamed or options.false_alarms_per_hour is not None:
            noise = load_noise(options.data, options.split)
            stream = evaluation.evaluate_stream(model, clips, noise, protocol, options.split)
            recording = events.JoinedClips(clips, noise, events.HOURS)
            heard = events.hear(model, recording)
            if options.false_alarms_per_hour is not None:
                model.thresholds = events.choose_thresholds(heard, recording.words, options.false_alarms_per_hour)
                path = checkpoint.save_thresholds(name, model.thresholds, options.false_alarms_per_hour, protocol, options.split)
                print(f"written: {path}", file=sys.stderr)
            spotted = events.report(heard, recording.words, model.thresholds)
            alone_rates = events.false_alarms_alone(model, clips, load_noises(options.data, options.split))
            found[-1] |= {"stream": stream.to_dict(), "events": spotted.to_dict(), "false_alarms_alone": alone_rates}
            tables = spotted.rows(), events.alone_rows(alone_rates)
            said += [stream.summary(), spotted.summary(), *(f"\n{evaluation.markdown(rows)}" for rows in tables)]
            if options.report:
                picture = {f"detection_errors-{number}" if several else "detection_errors": plots.detection_errors(spotted, name)}
                sections.append(report.Section(f"All clips in one stream{of}", stream.summary(), stream.rows()))
                sections.append(report.Section(f"Words in a stream{of}", f"{spotted.summary()}.", tables[0], picture))
                sections.append(report.Section(f"Where no word is{of}", rows=tables[1]))
                if number == 1:
                    recording.save(options.report / "stream.flac")
        said.append(f"\n{alone.table()}\n")
        if options.noise:
            rates = evaluation.evaluate_conditions(model, clips, load_noises(options.data, options.split))
            found[-1]["conditions"] = rates
            said.append(f"{evaluation.conditions_table(rates)}\n")
            if options.report:
                picture = {f"noise-{number}" if several else "noise": plots.noise(rates, name)}
                sections.append(report.Section(f"Under hard conditions{of}", "", evaluation.conditions_rows(rates), picture))
    if several:
        compared = report.comparison(reports)
        said += [f"{evaluation.markdown(section.rows)}\n" for section in compared]
        sections = compared + sections
    paper = report.of_paper(reports)
    said.append("\n\n".join(paper.code))
    result = {"reports": found, "mcnemar": report.differences(reports)} if several else found[0]
    print(json.dumps(result, indent=2) if options.json else "\n".join(said))
    if options.report:
        written = report.write(options.report, *report.heading(reports), [*sections, paper], result)
        print(f"written: {options.report}: {', '.join(path.name for path in written)}", file=sys.stderr)
    return 0


def classify(options: argparse.Namespace) -> int:
    """Say the word in each file."""
    from speechrnn import checkpoint
    from speechrnn.audio import SAMPLE_RATE, AudioError, find_audio, read_wave

    model = checkpoint.load(options.model)
    status = 0
    paths: list[str | Path] = []
    for name in options.files:
        found = [name] if name == "-" else find_audio([name])
        if not found:
            status = _fail(f"{name}: no audio files in this folder")
        paths += found
    answers: list[dict[str, Any]] = []
    waiting: list[tuple[str | Path, np.ndarray, list[str]]] = []
    samples = 0  # of those that wait
    for path in paths:
        notes: list[str] = []
        try:
            wave = read_wave(sys.stdin.buffer if path == "-" else path, notes)
        except AudioError as error:
            status = _fail(_one_line(error))
            continue
        waiting.append((path, wave, notes))
        samples += len(wave)
        if samples >= SECONDS_AT_ONCE * SAMPLE_RATE:
            answers += _answer(model, waiting, options)
            waiting, samples = [], 0
    answers += _answer(model, waiting, options)
    if options.json:
        print(json.dumps(answers, indent=2))
    return status


def _answer(
    model: "Model", waiting: "list[tuple[str | Path, np.ndarray, list[str]]]", options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Classify waves of (path, wave, notes) together; print the answers, or keep them for JSON."""
    paths, waves, notes = [list(column) for column in zip(*waiting, strict=True)] or ([], [], [])
    answers = []
    for path, answer in zip(paths, model.classify_waves(waves, options.top_k, notes), strict=True):
        if options.verbose:
            for note in answer.notes:
                print(f"{path}: {note}", file=sys.stderr)
        if options.json:
            top = [{"label": label, "score": score} for label, score in answer.top]
            answers.append({"path": str(path), "label": answer.label, "score": answer.score, "top": top})
        else:
            cells = [cell for label, score in answer.top for cell in (label, f"{score:.2f}")]
            print(path, *cells, sep="\t", flush=True)
    return answers


def transcribe(options: argparse.Namespace) -> int:
    """Find the words in recordings of any length."""
    from speechrnn import checkpoint
    from speechrnn.audio import AudioError, read_blocks, read_pipe
    from speechrnn.transcripts import OF_ONE_RECORDING, read_labels

    count = len(options.files)
    if count > 1 and options.format in OF_ONE_RECORDING:
        return _fail(f"--format {options.format} describes one recording, got {count} files: transcribe each alone", 2)
    if count > 1 and options.plot:
        return _fail(f"--plot draws one recording, got {count} files: transcribe each alone", 2)
    if options.truth and not options.plot:
        return _fail("--truth is drawn by --plot: say where with --plot OUT.png", 2)
    if options.raw and "-" not in options.files:
        return _fail("--raw is for samples from standard input: type - as FILE", 2)
    truth = read_labels(options.truth.read_text(errors="replace"), str(options.truth)) if options.truth else None
    model = checkpoint.load(options.model)
    heard: list[tuple[str, Detection]] = []
    status = 0
    try:
        for path in options.files:
            notes: list[str] = []
            blocks = read_pipe(sys.stdin.buffer, options.raw, notes) if path == "-" else read_blocks(path, notes=notes)
            try:
                if options.plot:
                    _draw(options, model, blocks, path, heard, truth)
                else:
                    _hear(options, model, blocks, path, heard)
            except AudioError as error:
                status = _fail(_one_line(error))
            finally:
                _print_notes(options, path, notes)
    finally:  # what was found before an error counts too
        _print_json(options, heard)
    return status


def listen(options: argparse.Namespace) -> int:
    """Find the words that the microphone hears, until stopped."""
    from speechrnn import checkpoint
    from speechrnn.audio import read_microphone

    model = checkpoint.load(options.model)
    heard: list[tuple[str, Detection]] = []
    notes: list[str] = []
    blocks = read_microphone(notes)
    try:
        if sys.stderr.isatty():
            meter = _Meter(model.config.words)
            _hear(options, model, meter.watch(blocks), "microphone", heard, meter.follow)
        else:
            _hear(options, model, blocks, "microphone", heard)
    finally:
        _print_notes(options, "microphone", notes)
        _print_json(options, heard)
    return 0


class _Meter:
    """A line on the terminal, there while the next block is waited for: how loud the last was, and the most probable word."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._word = ""

    def follow(self, probabilities: "Tensor") -> None:
        if len(probabilities):
            share, word = probabilities[-1].max(0)
            self._word = f"{self._words[int(word)]} {share:.2f}"

    def watch(self, blocks: "Iterable[np.ndarray]") -> "Iterator[np.ndarray]":
        try:
            for block in blocks:
                print("\r\033[K", end="", file=sys.stderr, flush=True)  # words are printed where it stood
                yield block
                level = 10 * math.log10(float((block**2).mean()) + 1e-10)  # dB of full scale
                bar = "#" * max(0, 20 + round(level / 3))
                print(f"{level:4.0f} dB |{bar:20}| {self._word}", end="", file=sys.stderr, flush=True)
        finally:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _hear(
    options: argparse.Namespace,
    model: "Model",
    blocks: "Iterable[np.ndarray]",
    path: str,
    heard: "list[tuple[str, Detection]]",
    follow: "Callable[[Tensor], object] | None" = None,
) -> None:
    """Print the words of a recording, each as soon as it is sure; with their path, those that are needed later go to `heard`."""
    from speechrnn.audio import SAMPLE_RATE
    from speechrnn.stream import REFRACTORY_SECONDS, Stream
    from speechrnn.transcripts import AT_THE_END, lines, textgrid

    samples = 0
    refractory = REFRACTORY_SECONDS if options.refractory is None else options.refractory

    def counted() -> "Iterator[np.ndarray]":
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    def kept() -> "Iterator[Detection]":
        for word in Stream(model).detect(counted(), options.threshold, refractory, follow):
            if options.plot or options.format in AT_THE_END:
                heard.append((path, word))
            yield word

    try:
        for line in lines(options.format, kept(), path, named=len(options.files) > 1):
            print(line, flush=True)
    finally:
        if options.format == "textgrid" and samples:
            print(textgrid((word for _, word in heard), samples / SAMPLE_RATE))


def _draw(
    options: argparse.Namespace,
    model: "Model",
    blocks: "Iterable[np.ndarray]",
    path: str,
    heard: "list[tuple[str, Detection]]",
    truth: list[tuple[float, float, str]] | None,
) -> None:
    """Print the words of a recording as `_hear` does, and draw them."""
    import numpy as np
    import torch

    from speechrnn import plots
    from speechrnn.audio import AudioError, read_blocks
    from speechrnn.stream import Detector

    wave: list[np.ndarray] = []
    probabilities: list[Tensor] = []
    if path != "-":
        with contextlib.suppress(AudioError):  # comes again where it belongs, after the words before it
            for _ in _until_too_long(read_blocks(path), path):  # refused before it is heard
                pass

    def kept() -> "Iterator[np.ndarray]":
        for block in _until_too_long(blocks, path):
            wave.append(block)
            yield block

    _hear(options, model, kept(), path, heard, probabilities.append)
    choice = Detector(model, options.threshold).choice
    picture = plots.transcript(
        model,
        np.concatenate(wave),
        torch.cat(probabilities).numpy(),
        dict(zip(choice.words, choice.thresholds, strict=True)),
        [(word.start, word.end, word.label) for _, word in heard],
        truth,
        "standard input" if path == "-" else Path(path).name,
    )
    plots.save(picture, options.plot)


def _until_too_long(blocks: "Iterable[np.ndarray]", path: str) -> "Iterator[np.ndarray]":
    from speechrnn.audio import SAMPLE_RATE

    samples = 0
    for block in blocks:
        samples += len(block)
        if samples > PLOT_SECONDS * SAMPLE_RATE:
            raise ValueError(
                f"{path}: longer than {PLOT_SECONDS // 60} minutes, the most that --plot draws: leave it out, or cut the file"
            )
        yield block


def _print_notes(options: argparse.Namespace, path: str, notes: list[str]) -> None:
    if options.verbose:
        for note in notes:
            print(f"{path}: {note}", file=sys.stderr)


def _print_json(options: argparse.Namespace, heard: "list[tuple[str, Detection]]") -> None:
    from speechrnn.transcripts import entry

    if options.format == "json":
        print(json.dumps([entry(word, path) for path, word in heard], indent=2))


def bench(options: argparse.Namespace) -> int:
    """Time the recurrence beside other ways to compute it, inference, and a training step."""
    from speechrnn import bench, plots
    from speechrnn.evaluation import markdown

    cases, missing = bench.stacks(options.hidden, options.batch, options.steps, options.dtype)
    for line in missing:
        print(f"not measured: {line}", file=sys.stderr)
    passes = {"Forward": False, "Forward and backward": True}
    sections = {f"{name}, {bench.LAYERS} layers": bench.stack_rows(cases, backward) for name, backward in passes.items()}
    sections |= {"Inference with `base`": bench.inference_rows(), "Training `base`": bench.training_rows()}
    print(f"{bench.machine()}.")
    for title, rows in sections.items():
        print(f"\n### {title}\n\n{markdown(rows)}")
    if options.plot:
        plots.save(plots.speed(cases, bench.machine()), options.plot)
    return 0


def info(options: argparse.Namespace) -> int:
    """Describe a model, or list the shipped ones."""
    from speechrnn import checkpoint

    if options.model is None:
        return _list_models(options.json)
    folder = checkpoint.model_folder(options.model)
    config = checkpoint.read_config(folder)
    model = checkpoint.load(folder)
    parameters = model.parameter_count
    if options.json:
        print(json.dumps({**config, "parameters": parameters}, indent=2))
        return 0
    training, shape = config["training"], model.config
    facts = ("corpus", "seed", "epochs", "date", "hardware")
    rows = {
        "model": folder,
        "labels": " ".join(shape.labels),
        "layers": f"{shape.layers} vanilla recurrent, of {shape.hidden_size} {shape.activation} units",
        "parameters": f"{parameters:,}",
        "features": f"{shape.coefficients} MFCC every {shape.hop_ms:g} ms, {shape.stack} frames joined",
        "training": ", ".join(f"{name} {training[name]}" for name in facts if name in training),
        "speechrnn": config["version"],
    }
    for split, score in config["scores"].items():
        rows[split] = (
            f"{score['accuracy']:.2%} of {score['clips']:,} clips{' in one stream' if score['streamed'] else ''}, "
            f"mean over classes {score['mean_accuracy']:.2%}, {score['protocol']}"
        )
    for name, value in rows.items():
        print(name, value, sep="\t")
    return 0


def _list_models(as_json: bool) -> int:
    """The shipped models, one a line: name, parameters, labels, and what each reached on its validation split."""
    from speechrnn import checkpoint

    models = {name: checkpoint.read_config(checkpoint.model_folder(name)) for name in checkpoint.shipped_models()}
    sizes = {name: checkpoint.load(name).parameter_count for name in models}
    if as_json:
        print(json.dumps({name: {**config, "parameters": sizes[name]} for name, config in models.items()}, indent=2))
        return 0
    for name in sorted(models, key=sizes.__getitem__, reverse=True):
        score = models[name]["scores"]["validation"]
        labels = f"{len(models[name]['model']['labels'])} labels"
        print(name, f"{sizes[name]:,} parameters", labels, f"{score['accuracy']:.2%} of {score['protocol']} validation", sep="\t")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speechrnn", description="Recognise spoken commands with vanilla recurrent networks.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"speechrnn {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(command: Callable[[argparse.Namespace], int], help: str, epilog: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(
            command.__name__,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command, parser=added)
        return added

    def add_model(to: argparse.ArgumentParser) -> None:
        to.add_argument(
            "--model", metavar="MODEL", help="shipped model, or folder of a trained one (default: the shipped `base`)"
        )

    this = add(
        download,
        "fetch a corpus of Google Speech Commands",
        "A download that broke off goes on when the command is typed again.",
    )
    this.add_argument("name", choices=["v2", "v1", "v2-test", "v1-test"], help="corpus, or its official test archive")
    this.add_argument("--to", type=Path, default=Path("data"), metavar="FOLDER", help="where its folder goes (default: data)")

    this = add(
        train,
        "train a model from a recipe",
        "Each key of the recipe can be overridden:\n\n"
        "  speechrnn train recipes/quickstart.yaml --model.hidden_size 192 --trainer.max_epochs 5\n"
        "  speechrnn train recipes/v2_12.yaml --data.folder CORPUS --trainer.strategy ddp --trainer.devices 4\n\n"
        "`speechrnn train RECIPE.yaml --print_config` shows every key. The run is kept in runs/NAME: recipe.yaml, last.ckpt,\n"
        "best.ckpt, csv/, tensorboard/, curves.png, confusion.png, gradients.png and model/, the folder that the other commands\n"
        "take.",
    )
    this.add_argument("recipe", metavar="RECIPE.yaml", help="what to train on what")
    this.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint, if there is one")
    this.add_argument("--allow-partial", action="store_true", help="go on where the corpus lacks clips of the official splits")

    this = add(
        evaluate,
        "measure models on a split of a corpus",
        "Prints for each model its accuracy and a table of the labels; of several models a comparison too, and of each pair\n"
        "McNemar's exact test on the same clips; last the row for a paper, as Markdown and as LaTeX.\n\n"
        "--json gives one object for one model. For several: `reports`, a list of these, and `mcnemar`, a list with the two\n"
        "`models` of each pair, `only_first` and `only_second` (clips that only this one heard right), and `p`. In a report,\n"
        "`truth` and `answers` of the clips in `names` are places in `labels`, `scores` the probabilities of the answers.",
    )
    this.add_argument("models", nargs="+", metavar="MODEL", help="shipped model, or folder of a trained one")
    this.add_argument("--data", required=True, type=Path, metavar="FOLDER", help="corpus or test archive")
    this.add_argument("--protocol", choices=["v1-12", "v2-12", "v1-30", "v2-35", "own"], help="default: that of the training")
    this.add_argument("--split", default="testing", choices=["training", "validation", "testing"], help="default: testing")
    this.add_argument(
        "--draw-seed", type=int, default=0, metavar="N", help="of the draws of unknown and silence clips (default: 0)"
    )
    this.add_argument("--allow-partial", action="store_true", help="go on where clips of the official split are missing")
    this.add_argument(
        "--streamed",
        action="store_true",
        help="hear all clips in one stream too: misses, false alarms and latency, at the model's thresholds and at all others",
    )
    this.add_argument(
        "--false-alarms-per-hour",
        type=float,
        metavar="N",
        help="choose the threshold so that the stream has no more, and keep it in the model folder for `transcribe`",
    )
    this.add_argument(
        "--noise",
        action="store_true",
        help="also in each noise from 20 to -5 dB, quiet, loud, by telephone, cut off, long; and all kinds of silence",
    )
    this.add_argument(
        "--report", type=Path, metavar="FOLDER", help="write report.html, report.md, report.json and the pictures there"
    )
    this.add_argument("--json", action="store_true", help="print the report as JSON")

    this = add(classify, "say the word in each file", "Prints path, label and probability, a line a file, in the order given.")
    this.add_argument("files", nargs="+", metavar="FILE", help="audio file, folder of them, or - for standard input")
    add_model(this)
    this.add_argument("--top-k", type=_count, default=1, metavar="K", help="print the K best labels (default: 1)")
    this.add_argument("--json", action="store_true", help="print a JSON list")
    this.add_argument("-v", "--verbose", action="store_true", help="say which files were resampled, mixed down or padded")

    def add_hearing(to: argparse.ArgumentParser) -> None:
        to.add_argument("--format", choices=FORMATS, default="tsv", help="of what is printed (default: tsv)")
        add_model(to)
        to.add_argument(
            "--threshold", type=float, metavar="P", help="probability from which any word counts (default: the model's, or 0.6)"
        )
        to.add_argument(
            "--refractory", type=float, metavar="S", help="seconds after a word in which no other begins (default: 0.15)"
        )

    this = add(
        transcribe,
        "find the words in recordings of any length",
        "Prints start, end (s), label and probability, a line a word, as soon as each is sure; the path before them if there\n"
        "are several files. Other formats: json, one list at the end; jsonl, a line a word; srt and vtt, subtitles; audacity, a\n"
        "label track; textgrid, for Praat, at the end. A wav from a pipe is heard as it comes:\n\n"
        "  ffmpeg -i FILE -f wav - | speechrnn transcribe -\n"
        "  arecord -f S16_LE -r 16000 -t raw | speechrnn transcribe --raw 16000 -",
    )
    this.add_argument("files", nargs="+", metavar="FILE", help="audio file, or - for standard input")
    add_hearing(this)
    this.add_argument(
        "--raw", type=_count, metavar="RATE", help="standard input is no wav but 16-bit little-endian mono samples at RATE Hz"
    )
    this.add_argument("--plot", type=Path, metavar="OUT.png", help="draw it, if it lasts 10 minutes or less")
    this.add_argument("--truth", type=Path, metavar="LABELS", help="what was said, to draw: a label track of Audacity")
    this.add_argument("-v", "--verbose", action="store_true", help="say which files were resampled or mixed down")

    this = add(
        listen,
        "find the words that the microphone hears",
        "Prints what `transcribe` prints, until stopped with Ctrl-C. Needs sounddevice: pip install 'speechrnn[listen]'.",
    )
    add_hearing(this)
    this.add_argument("-v", "--verbose", action="store_true", help="say at the end what was done to the sound")
    this.set_defaults(files=["microphone"], plot=None)

    this = add(
        bench,
        "time the recurrence beside nn.RNN and other ways to compute it, inference, and a training step",
        "Prints tables as Markdown. On the GPU if there is one, else on the CPU: two hours, with these sizes three minutes:\n\n"
        "  speechrnn bench --hidden 96 --batch 128 --steps 33",
    )
    for name, sizes, what in (
        ("hidden", (64, 128, 192, 256), "units H"),
        ("batch", (64, 256, 1024, 4096), "clips B"),
        ("steps", (50, 100), "steps T"),
    ):
        said = f"{what} (default: {' '.join(map(str, sizes))})"
        this.add_argument(f"--{name}", type=_count, nargs="+", default=sizes, metavar="N", help=said)
    dtypes = ["float32", "tf32", "float16", "bfloat16"]
    this.add_argument("--dtype", choices=dtypes, nargs="+", help="of the numbers (default: all on a GPU, float32 on a CPU)")
    this.add_argument("--plot", type=Path, metavar="OUT.png", help="draw the times too")

    this = add(info, "list the shipped models, or describe one: labels, size, features, training, scores")
    this.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="shipped model, or folder of a trained one (default: a list of the shipped ones)",
    )
    this.add_argument("--json", action="store_true", help="print everything the model folder says, as JSON")
    return parser


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r}: expected a number from 1 on")
    return int(word)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str, status: int = 1) -> int:
    print(f"speechrnn: {message}", file=sys.stderr)
    return status

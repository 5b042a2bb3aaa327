"""The commands of the light floor, which need no torch: classify, transcribe, listen, info."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from speechrnn.cli import record
from speechrnn.cli.common import Commands, add_command, count, fail, one_line, show_level
from speechrnn.transcripts import AT_THE_END, FORMATS, OF_ONE_RECORDING, entry, lines, textgrid

if TYPE_CHECKING:
    import numpy as np

    from speechrnn import Detection, Recogniser

SECONDS_AT_ONCE = 256  # of audio in memory in `classify`, 16 MB, but for one file that is longer
PLOT_SECONDS = 600  # of audio in memory in `transcribe --plot`: 40 MB, and 350 MB to draw it


def add_parsers(commands: Commands) -> None:
    """Add the parser of each command."""
    _add_classify(commands)
    _add_transcribe(commands)
    _add_listen(commands)
    _add_info(commands)


def _add_model(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--model",
        metavar="MODEL",
        help="shipped model, folder of a trained one, or exported file.onnx (default: `base`)",
    )


def _add_detection(to: argparse.ArgumentParser) -> None:
    to.add_argument("--format", choices=FORMATS, default="tsv", help="of the output (default: tsv)")
    _add_model(to)
    to.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability from which any word counts; behind other speech it must be higher "
        "(default: the model's, or 0.6)",
    )
    to.add_argument(
        "--refractory",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds after a word in which no other begins (default: 0)",
    )


def _add_classify(commands: Commands) -> None:
    this = add_command(
        commands,
        classify,
        "name the word in each file",
        "Prints path, label and probability, a line a file, in the order given.",
    )
    this.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="audio file, folder of them, or - for standard input",
    )
    _add_model(this)
    this.add_argument(
        "--top-k", type=count, default=1, metavar="K", help="print the K best labels (default: 1)"
    )
    this.add_argument(
        "--json",
        action="store_true",
        help="print a JSON list with path, label and score of each answer, best first",
    )
    this.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="tell which files were resampled, mixed down or padded",
    )


def classify(options: argparse.Namespace) -> int:
    """Name the word in each file."""
    from speechrnn import load
    from speechrnn.audio import AudioError, find_audio, read_wave
    from speechrnn.config import SAMPLE_RATE

    recogniser = load(options.model)
    status = 0
    paths: list[str | Path] = []
    for name in options.files:
        files = [name] if name == "-" else find_audio([name])
        if not files:
            status = fail(f"{name}: no audio files in this folder")
        paths += files
    answers: list[dict[str, Any]] = []
    batch: list[tuple[str | Path, np.ndarray, list[str]]] = []
    samples = 0
    for path in paths:
        notes: list[str] = []
        try:
            wave = read_wave(sys.stdin.buffer if path == "-" else path, notes)
        except AudioError as error:
            status = fail(one_line(error))
            continue
        batch.append((path, wave, notes))
        samples += len(wave)
        if samples >= SECONDS_AT_ONCE * SAMPLE_RATE:
            answers += _classify_batch(recogniser, batch, options)
            batch, samples = [], 0
    answers += _classify_batch(recogniser, batch, options)
    if options.json:
        print(json.dumps(answers, indent=2))
    return status


def _classify_batch(
    recogniser: "Recogniser",
    batch: "list[tuple[str | Path, np.ndarray, list[str]]]",
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Classify waves of (path, wave, notes) together; print the answers, or give them for JSON."""
    predictions = recogniser.classify_waves([wave for _, wave, _ in batch], options.top_k)
    entries = []
    for (path, _, notes), answer in zip(batch, predictions, strict=True):
        if options.verbose:
            for note in (*notes, *answer.notes):
                print(f"{path}: {note}", file=sys.stderr)
        if options.json:
            # Label and score as Hugging Face's audio classification gives them.
            entries += [
                {"path": str(path), "label": label, "score": score} for label, score in answer.top
            ]
        else:
            cells = [cell for label, score in answer.top for cell in (label, f"{score:.2f}")]
            print(path, *cells, sep="\t", flush=True)
    return entries


def _add_transcribe(commands: Commands) -> None:
    this = add_command(
        commands,
        transcribe,
        "find the words in recordings of any length",
        "Prints start, end (s), label and probability, a line a word, as soon as each is sure;\n"
        "the path before them if there are several files. Other formats: json, one list at the\n"
        "end; jsonl, a line a word; srt and vtt, subtitles; audacity, a label track; textgrid,\n"
        "for Praat, at the end. A wav from a pipe is transcribed as it comes:\n\n"
        "  ffmpeg -i FILE -f wav - | speechrnn transcribe -\n"
        "  arecord -f S16_LE -r 16000 -t raw | speechrnn transcribe --raw 16000 -",
    )
    this.add_argument(
        "files", nargs="+", metavar="FILE", help="audio file, or - for standard input"
    )
    _add_detection(this)
    this.add_argument(
        "--raw",
        type=count,
        metavar="RATE",
        help="standard input is no wav but 16-bit little-endian mono samples at RATE Hz",
    )
    this.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="draw it, if it lasts 10 minutes or less"
    )
    this.add_argument(
        "--truth",
        type=Path,
        metavar="LABELS",
        help="the words that were spoken, to draw: a label track of Audacity",
    )
    this.add_argument(
        "-v", "--verbose", action="store_true", help="tell which files were resampled or mixed down"
    )


def transcribe(options: argparse.Namespace) -> int:
    """Find the words in recordings of any length."""
    from speechrnn import load
    from speechrnn.audio import AudioError, read_blocks, read_pipe
    from speechrnn.transcripts import read_labels

    files = len(options.files)
    if files > 1 and options.format in OF_ONE_RECORDING:
        wrong = f"--format {options.format} describes one recording, got {files} files"
        return fail(f"{wrong}: transcribe each alone", 2)
    if files > 1 and options.plot:
        return fail(f"--plot draws one recording, got {files} files: transcribe each alone", 2)
    if options.truth and not options.plot:
        return fail("--truth is drawn by --plot: add --plot OUT.png", 2)
    if options.raw and "-" not in options.files:
        return fail("--raw is for samples from standard input: type - as FILE", 2)
    truth = None
    if options.truth:
        truth = read_labels(options.truth.read_text("utf-8", "replace"), str(options.truth))
    if options.plot:
        from speechrnn.evaluation import plots  # noqa: F401  # refused now where it is missing
        from speechrnn.folder import find_folder

        find_folder(options.model)  # an exported file does not give the features that are drawn
    recogniser = load(options.model)
    recordings: list[_Recording] = []
    status = 0
    try:
        for path in options.files:
            notes: list[str] = []
            from_pipe = path == "-"
            blocks = (
                read_pipe(sys.stdin.buffer, options.raw, notes)
                if from_pipe
                else read_blocks(path, notes=notes)
            )
            recordings.append(_Recording(recogniser, options, path))
            try:
                recordings[-1].print_words(blocks, named=files > 1)
                if options.plot:
                    recordings[-1].draw(truth)
            except AudioError as error:
                status = fail(one_line(error))
            finally:
                _print_notes(options, path, notes)
    finally:  # the words before an error count too
        _print_json(options, recordings)
    return status


def _add_listen(commands: Commands) -> None:
    this = add_command(
        commands,
        listen,
        "find the words in what the microphone picks up, or record examples of one",
        "Prints what `transcribe` prints, until stopped with Ctrl-C. Needs sounddevice:\n"
        "pip install 'speechrnn[listen]'.\n\n" + record.EPILOG,
        extra="listen",
    )
    _add_detection(this)
    record.add_options(this)
    this.add_argument(
        "-v", "--verbose", action="store_true", help="tell at the end what was done to the sound"
    )
    this.set_defaults(plot=None)


def listen(options: argparse.Namespace) -> int:
    """Find the words in what the microphone picks up, until stopped, or record examples of one."""
    if wrong := record.misplaced(options):
        return fail(wrong, 2)
    if options.record is not None:
        return record.record(options)
    from speechrnn import load
    from speechrnn.audio import read_microphone

    recording = _Recording(load(options.model), options, "microphone")
    notes: list[str] = []
    blocks = read_microphone(notes)
    try:
        if sys.stderr.isatty():
            blocks = show_level(blocks, recording.best_word)
        recording.print_words(blocks, named=False)
    finally:
        _print_notes(options, "microphone", notes)
        _print_json(options, [recording])
    return 0


class _Recording:
    """A recording on its way through a listener: prints its words, keeps what is needed later.

    Args:
        recogniser: finds the words.
        options: of `transcribe` or `listen`.
        path: of the recording.
    """

    def __init__(self, recogniser: "Recogniser", options: argparse.Namespace, path: str) -> None:
        self.path = path
        self.words: list[Detection] = []
        self.listener = recogniser.listener(options.threshold, options.refractory)
        self._recogniser, self._format, self._picture = recogniser, options.format, options.plot
        self._waves: list[np.ndarray] = []
        self._probabilities: list[np.ndarray] = []

    def print_words(self, blocks: "Iterable[np.ndarray]", named: bool) -> None:
        """Print each word as soon as it is sure, behind the path if it is `named`."""
        try:
            for line in lines(self._format, self._detect(blocks), self.path, named):
                print(line, flush=True)
        finally:
            if self._format == "textgrid" and self.listener.seconds:
                print(textgrid(self.words, self.listener.seconds))

    def best_word(self) -> str:
        """The most probable word of the last step, and its probability."""
        if not len(latest := self.listener.probabilities):
            return ""
        word = self.listener.words[int(latest[-1].argmax())]
        return f"{word} {latest[-1].max():.2f}"

    def _detect(self, blocks: "Iterable[np.ndarray]") -> "Iterator[Detection]":
        for block in blocks:
            yield from self._keep(self.listener.push(block), block)
        yield from self._keep(self.listener.finish(), None)

    def _keep(self, words: "list[Detection]", block: "np.ndarray | None") -> "list[Detection]":
        if self._picture and self.listener.seconds <= PLOT_SECONDS:
            self._waves += [] if block is None else [block]
            self._probabilities.append(self.listener.probabilities)
        if self._picture or self._format in AT_THE_END:
            self.words += words
        return words

    def draw(self, truth: list[tuple[float, float, str]] | None) -> None:
        """Draw the recording, beside the words that were spoken, if those are known.

        Raises:
            ValueError: if it is too long.
        """
        import numpy as np

        from speechrnn.evaluation import plots
        from speechrnn.network import Network, mfcc

        if self.listener.seconds > PLOT_SECONDS:
            raise ValueError(
                f"{self.path}: not drawn, since it is longer than {PLOT_SECONDS} s: leave out "
                "--plot, or cut the file"
            )
        wave = np.concatenate(self._waves)
        picture = plots.transcript(
            wave,
            mfcc(cast(Network, self._recogniser.runtime), wave),
            np.concatenate(self._probabilities),
            self._recogniser.config,
            self.listener.thresholds,
            [(word.start, word.end, word.label) for word in self.words],
            truth,
            "standard input" if self.path == "-" else Path(self.path).name,
        )
        plots.save(picture, self._picture)


def _print_notes(options: argparse.Namespace, path: str, notes: list[str]) -> None:
    for note in notes if options.verbose else ():
        print(f"{path}: {note}", file=sys.stderr)


def _print_json(options: argparse.Namespace, recordings: list[_Recording]) -> None:
    if options.format == "json":
        words = [entry(word, one.path) for one in recordings for word in one.words]
        print(json.dumps(words, indent=2))


def _add_info(commands: Commands) -> None:
    this = add_command(
        commands,
        info,
        "list the shipped models, or describe one: labels, size, features, training, scores",
    )
    this.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="shipped model, folder of a trained one, or exported file.onnx (default: a list of "
        "the shipped ones)",
    )
    this.add_argument(
        "--json", action="store_true", help="print everything the model folder holds, as JSON"
    )


def info(options: argparse.Namespace) -> int:
    """Describe a model, or list the shipped ones; no weights are read."""
    from speechrnn.onnx_runtime import read_model

    if options.model is None:
        return _list_models(options.json)
    folder = read_model(options.model)
    config, about, parameters = folder.config, folder.about, folder.config.parameter_count
    if options.json:
        print(json.dumps({**about, "parameters": parameters}, indent=2))
        return 0
    training = about["training"]
    facts = ("corpus", "seed", "epochs", "date", "hardware")
    layers = f"{config.layers} vanilla recurrent, of {config.hidden_size} {config.activation} units"
    frames = f"{config.coefficients} MFCC every {config.hop_ms:g} ms, {config.stack} frames joined"
    rows = {
        "model": folder.path,
        "labels": " ".join(config.answers),
        "layers": layers,
        "parameters": f"{parameters:,}",
        "features": frames,
        "training": ", ".join(f"{name} {training[name]}" for name in facts if name in training),
        "speechrnn": about["version"],
    }
    for split, score in about["scores"].items():
        streamed = " in one stream" if score["streamed"] else ""
        rows[split] = (
            f"{score['accuracy']:.2%} of {score['clips']:,} clips{streamed}, "
            f"mean over classes {score['mean_accuracy']:.2%}, {score['protocol']}"
        )
    for name, value in rows.items():
        print(name, value, sep="\t")
    return 0


def _list_models(as_json: bool) -> int:
    """The shipped models, one a line: name, parameters, labels, and validation accuracy."""
    from speechrnn.folder import read_folder, shipped_models

    folders = {name: read_folder(name) for name in shipped_models()}
    sizes = {name: folder.config.parameter_count for name, folder in folders.items()}
    if as_json:
        models = {name: {**f.about, "parameters": sizes[name]} for name, f in folders.items()}
        print(json.dumps(models, indent=2))
        return 0
    for name in sorted(folders, key=sizes.__getitem__, reverse=True):
        score = folders[name].about["scores"]["validation"]
        labels = f"{len(folders[name].config.answers)} labels"
        accuracy = f"{score['accuracy']:.2%} of {score['protocol']} validation"
        print(name, f"{sizes[name]:,} parameters", labels, accuracy, sep="\t")
    return 0

"""Results in words: a line for each, and tables. In: results. Out: strings, and rows for `tables`.

The first row of a table is its head. It measures nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from speechrnn.evaluation.background import BackgroundResult
from speechrnn.evaluation.clips import ClipResult, MeasuredModel, differences
from speechrnn.evaluation.few_shot import (
    FALSE_ACCEPTS,
    PUBLISHED,
    FewShotReport,
    FewShotResult,
    FewShotStream,
    Interval,
)
from speechrnn.evaluation.results import CLOSE_SECONDS, ModelResult
from speechrnn.evaluation.spotting import ALL, Score, SpottingResult
from speechrnn.evaluation.tables import latex, markdown

Rows = list[list[str]]


def summary(result: ClipResult) -> str:
    """The accuracy with its interval, and what else one number can tell, in one line."""
    (low, high), apart = result.interval, ""
    if result.silence_apart:
        words, silence = result.silence_apart
        apart = f"words and unknown {words:.2%}, silence {silence:.2%}, "
    return (
        f"accuracy {result.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), {apart}"
        f"mean over classes {result.mean_accuracy:.2%}, macro F1 {result.macro_f1:.2%}, "
        f"calibration error {result.calibration_error:.2%}, "
        f"{result.correct:,} of {result.clips:,} clips"
        f"{' in one stream' if result.streamed else ''}, {result.protocol} {result.split}"
    )


def label_rows(result: ClipResult) -> Rows:
    """A row for each label."""
    rows = [["label", "clips", "recall", "precision", "F1", "most frequent wrong answer"]]
    for row in result.per_label():
        shares = (f"{row[name]:.1%}" for name in ("recall", "precision", "f1"))
        rows.append([row["label"], str(row["clips"]), *shares, row["taken_for"] or ""])
    return rows


def spotting_summary(result: SpottingResult) -> str:
    """Misses, false alarms and latency, in one line."""
    score = result.scores[ALL]
    parts = [
        f"stream of {result.hours:.2f} h: {_missed(score)}",
        f"{score.wrong:,} detected as others",
        f"{score.false_alarms_per_hour:.2f} false alarms an hour",
    ]
    if score.hits:
        late = score.to_dict()
        parts.append(
            f"reported {late['latency_median']:.2f} s after a word's end "
            f"(95 %: {late['latency_95']:.2f} s)"
        )
    return ", ".join(parts)


def close_summary(score: Score) -> str:
    """Misses where clips follow each other fast, in one line."""
    return f"{CLOSE_SECONDS[0]} s after another clip: {_missed(score)}"


def spotting_rows(result: SpottingResult) -> Rows:
    """A row for each word, below one for all."""
    rows = [["word", "threshold", "spoken", "missed", "wrong", "false alarms", "an hour"]]
    for word, score in result.scores.items():
        threshold = f"{result.thresholds[word]:.3f}" if word in result.thresholds else ""
        counts = [f"{score.miss_rate:.1%}", f"{score.wrong:,}", f"{score.false_alarms:,}"]
        rate = f"{score.false_alarms_per_hour:.2f}"
        rows.append([word, threshold, f"{score.words:,}", *counts, rate])
    return rows


def alone_rows(rates: Mapping[str, float]) -> Rows:
    """A row for each kind of sound without words, from its false alarms an hour."""
    return [
        ["an hour of", "false alarms"],
        *([name, f"{rate:.1f}"] for name, rate in rates.items()),
    ]


def background_summary(result: BackgroundResult, kind: str) -> str:
    """False alarms in talk or in sounds, in one line."""
    text = (
        f"{kind}, {result.hours:.2f} h: {result.false_alarms_per_hour:.2f} false alarms an hour, "
        f"{result.random_seconds:.2%} of random seconds answered with a word"
    )
    if result.spoken:
        text += f", {result.spoken} detections of words that the transcripts have there"
    return text


def background_rows(result: BackgroundResult) -> Rows:
    """A row for each word with false alarms, and for each place among pauses."""
    counts = {**result.false_alarms, **result.places}
    rows = [[name, f"{count:,}", f"{count / result.hours:.2f}"] for name, count in counts.items()]
    return [["false alarms", "count", "an hour"], *rows]


def condition_rows(rates: Mapping[str, float]) -> Rows:
    """A row for each condition, from what `evaluate_conditions` gives."""
    return [["condition", "right"], *([name, f"{rate:.1%}"] for name, rate in rates.items())]


def paper_rows(results: Sequence[ClipResult]) -> Rows:
    """A row for each result with all that a paper should say."""
    measured = ["accuracy", "95 % interval", "parameters", "million multiplications / s", "SHA-256"]
    rows = [["model", "protocol", "split", "clips", *measured]]
    for result in results:
        model, (low, high) = _model(result), result.interval
        rows.append(
            [
                model.name,
                result.protocol,
                result.split,
                f"{result.clips:,}",
                f"{result.accuracy:.2%}",
                f"{low:.2%} to {high:.2%}",
                f"{model.parameters:,}",
                f"{model.multiplications / 1e6:.2f}",
                model.sha256[:12],
            ]
        )
    return rows


def comparison_rows(results: Sequence[ClipResult]) -> Rows:
    """A row for each model."""
    rows = [["model", "parameters", "accuracy", "95 % interval", "mean over classes", "macro F1"]]
    for result in results:
        model, (low, high) = _model(result), result.interval
        shares = [f"{result.accuracy:.2%}", f"{low:.2%} to {high:.2%}"]
        means = [f"{result.mean_accuracy:.2%}", f"{result.macro_f1:.2%}"]
        rows.append([model.name, f"{model.parameters:,}", *shares, *means])
    return rows


def mcnemar_tests(results: Sequence[ClipResult]) -> list[dict[str, Any]]:
    """McNemar's test of each pair of models on the same clips, as JSON can hold it."""
    tests = []
    for place, first in enumerate(results):
        for second in results[place + 1 :]:
            only_first, only_second, p = differences(first, second)
            models = [_model(first).name, _model(second).name]
            counts = {"only_first": only_first, "only_second": only_second}
            tests.append({"models": models, **counts, "p": p})
    return tests


def difference_rows(tests: Sequence[Mapping[str, Any]]) -> Rows:
    """A row for each of `mcnemar_tests`."""
    rows = [["first", "second", "only the first right", "only the second right", "p"]]
    for test in tests:
        counts = f"{test['only_first']:,}", f"{test['only_second']:,}"
        rows.append([*test["models"], *counts, f"{test['p']:.2g}"])
    return rows


def as_text(results: Sequence[ModelResult]) -> str:
    """All results as `speechrnn evaluate` prints them."""
    several = len(results) > 1
    parts = []
    for result in results:
        lines = [_model(result.clips).name] if several else []
        lines.append(summary(result.clips))
        tables = []
        if result.stream:
            lines += [summary(result.stream.clips), spotting_summary(result.stream.spotting)]
            lines += [close_summary(result.stream.close)]
            tables += [spotting_rows(result.stream.spotting)]
            tables += [alone_rows(result.stream.false_alarms_alone)]
        for kind, background in (("talk", result.talk), ("sounds", result.sounds)):
            if background:
                lines.append(background_summary(background, kind))
                tables += [background_rows(background)] if background.false_alarms else []
        tables.append(label_rows(result.clips))
        if result.conditions is not None:
            tables.append(condition_rows(result.conditions))
        parts += ["\n".join(lines), *map(markdown, tables)]
    clips = [result.clips for result in results]
    if several:
        parts.append(markdown(comparison_rows(clips)))
        parts.append(markdown(difference_rows(mcnemar_tests(clips))))
    rows = paper_rows(clips)
    return "\n\n".join([*parts, markdown(rows), latex(rows)])


def as_json(results: Sequence[ModelResult]) -> dict[str, Any]:
    """All results as `speechrnn evaluate --json` prints them."""
    if len(results) == 1:
        return results[0].to_dict()
    tests = mcnemar_tests([result.clips for result in results])
    return {"reports": [result.to_dict() for result in results], "mcnemar": tests}


def few_shot_summary(report: FewShotReport) -> str:
    """Which encoder was measured on what, and which of the words it may have heard."""
    encoder, words = report.encoder, ", ".join(report.words)
    if report.unheard is None:
        heard = "its config.json does not tell which words it never heard in training"
    else:
        known = [word for word in report.words if word not in report.unheard]
        heard = f"in training it heard {', '.join(known) or 'none of them'}"
    return (
        f"encoder {encoder.name}, {encoder.parameters:,} parameters, SHA-256 "
        f"{encoder.sha256[:12]}; {report.split}, {report.clips:,} clips; new words: {words}; "
        f"{heard}"
    )


def few_shot_rows(results: Sequence[FewShotResult]) -> Rows:
    """A row for each number of recordings of other speakers and of the same one."""
    shares = [f"right at {share:.0%} false accepts" for share in FALSE_ACCEPTS]
    rows = [["speaker", "shots", "unknown", *shares, "AUROC", "words", "episodes"]]
    for result in results:
        who = "the same" if result.same_speaker else "others"
        measured = [_share(result.accuracy[share]) for share in FALSE_ACCEPTS]
        counts = [f"{result.words:.1f}", f"{result.episodes:,}"]
        rows.append(
            [who, str(result.shots), result.unknown, *measured, _share(result.auroc), *counts]
        )
    return rows


def few_shot_stream_summary(stream: FewShotStream) -> str:
    """What was streamed, in one line."""
    return (
        f"enrolled with {stream.shots} shots of each word: stream of {stream.hours:.2f} h by other "
        f"speakers, {stream.words:,} words; talk, {stream.talk_hours:.2f} h"
    )


def few_shot_stream_rows(stream: FewShotStream) -> Rows:
    """A row for each number of false alarms an hour of talk that is allowed."""
    rows = [["false alarms an hour allowed", "found in talk", "threshold", "words missed"]]
    for allowed, rate, threshold, missed in stream.points:
        at = ["none is high enough", ""]
        if threshold is not None and missed is not None:
            at = [f"{threshold:.3f}", f"{missed:.1%}"]
        rows.append([f"{allowed:g}", f"{rate:.1f}", *at])
    return rows


def published_rows() -> Rows:
    """A row for each published figure; the protocols differ."""
    rows = [["work", "shots", "protocol", "false accepts", "accuracy"]]
    for one in PUBLISHED:
        accepts = "" if one.false_accepts is None else f"{one.false_accepts:.1%}"
        shots = "" if one.shots is None else str(one.shots)
        rows.append([one.work, shots, one.protocol, accepts, f"{one.accuracy:.1%}"])
    return rows


def few_shot_text(report: FewShotReport) -> str:
    """All of it as `speechrnn evaluate --few-shot` prints it."""
    parts = [few_shot_summary(report), markdown(few_shot_rows(report.results))]
    if not any(result.same_speaker for result in report.results):
        parts.append("The same speaker: not measured, for nobody says enough words often enough.")
    if report.stream:
        rows = few_shot_stream_rows(report.stream)
        parts += [few_shot_stream_summary(report.stream), markdown(rows)]
    return "\n\n".join(parts)


def _share(interval: Interval) -> str:
    mean, low, high = interval
    return f"{mean:.1%} ({low:.1%} to {high:.1%})"


def _missed(score: Score) -> str:
    if not score.words:
        return "no words that the model knows"
    missed = score.words - score.hits
    return f"{missed:,} of {score.words:,} words missed ({score.miss_rate:.1%})"


def _model(result: ClipResult) -> MeasuredModel:
    if result.model is None:
        raise ValueError(
            f"this result on {result.title} does not know its model: give `evaluate_clips` a "
            "`MeasuredModel`"
        )
    return result.model

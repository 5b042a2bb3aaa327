"""The model card: what a user of a model should know, in words, from the facts of its run.

In: the facts that `config.json` keeps, and the answers on the validation clips. Out: Markdown, and
the block of metadata before it that model hubs read. It computes nothing.
"""

from collections.abc import Sequence
from typing import Any

import yaml

from speechrnn import __version__
from speechrnn.config import ModelConfig
from speechrnn.evaluation.clips import ClipResult
from speechrnn.evaluation.tables import markdown
from speechrnn.evaluation.text import label_rows, summary

SPEECH_COMMANDS = "google/speech_commands"  # its name on the Hugging Face Hub


def card_metadata(
    name: str,
    corpus: str,
    results: Sequence[ClipResult],
    license: str = "unknown",
    datasets: Sequence[str] = (),
) -> str:
    """The block of YAML with which the file of a model card begins.

    Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md

    Args:
        name: of the model.
        corpus: name of the folder with the clips; a part of it or all was trained on.
        results: what was measured.
        license: identifier of the Hub; `unknown` until who trained the model has chosen one.
        datasets: what else was trained on, by their names on the Hub.
    """
    public = "speech_commands" in corpus
    known = [*[SPEECH_COMMANDS] * public, *datasets]
    found = []
    for result in results:
        way = ", one stream" if result.streamed else ""
        metrics = (
            ("accuracy", "accuracy", result.accuracy),
            ("f1", "macro F1", result.macro_f1),
        )
        found.append(
            {
                "task": {"type": "audio-classification", "name": "Keyword spotting"},
                "dataset": {
                    "type": SPEECH_COMMANDS if public else corpus,
                    "name": f"{corpus}, {result.protocol}, {result.clips:,} clips{way}",
                    "split": {"testing": "test"}.get(result.split, result.split),
                },
                "metrics": [
                    {"type": kind, "name": title, "value": round(value, 4)}
                    for kind, title, value in metrics
                ],
            }
        )
    metadata = {
        "library_name": "speechrnn",
        "pipeline_tag": "audio-classification",
        "license": license,
        **({"datasets": known} if known else {}),
        "metrics": ["accuracy", "f1"],
        "model-index": [{"name": name, "results": found}],
    }
    block = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{block}---\n\n"


def model_card(
    config: ModelConfig, facts: dict[str, Any], alone: ClipResult, streamed: ClipResult | None
) -> str:
    """A model card.

    Source: Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993).

    Args:
        config: shape, features and labels of the model.
        facts: of the run: recipe, seed, epochs, best_epoch, clips, corpus, date, hardware, torch.
        alone: the answers on the validation clips, each clip alone.
        streamed: the same, all clips in one stream; None where that was not measured.
    """
    words = ", ".join(config.words)
    in_stream = ""
    if streamed:
        in_stream = f"""
- All clips in one stream, with background between them and a state that is never reset:
  {summary(streamed)}."""
    credit = ""
    if "speech_commands" in facts["corpus"]:
        credit = " Speech Commands is Pete Warden's (arXiv 1804.03209), CC BY 4.0."
    return f"""# A speechrnn model

Recognises {len(config.words)} spoken words ({words}) in audio at 16 kHz. It has
{config.parameter_count:,} parameters in {config.layers} vanilla recurrent layers of
{config.hidden_size} units, `h[t] = {config.activation}(W_ih x[t] + b + W_hh h[t-1])`.

    speechrnn classify --model FOLDER a.wav

## Data

Trained on {facts["clips"]["training"]:,} clips of `{facts["corpus"]}`, protocol {alone.protocol}.
The best epoch was chosen on {alone.clips:,} validation clips.{credit}

## Accuracy on the validation split, on which the epoch was chosen

- Each clip alone: {summary(alone)}.{in_stream}

{markdown(label_rows(alone))}

## Limits

The model knows the words above, spoken alone, in the accents and rooms of its corpus. It answers
with one of its labels to anything it is given. It was not measured on children, on far microphones
or on other languages. Do not let it decide anything that matters without asking the user again.

## The run

speechrnn {__version__}, torch {facts["torch"]}, seed {facts["seed"]}, {facts["epochs"]} epochs, of
which number {facts["best_epoch"]} was the best, {facts["date"]}, {facts["hardware"]}.

```yaml
{facts["recipe"].strip()}
```
"""

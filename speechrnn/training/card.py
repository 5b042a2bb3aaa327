"""The model card: what a user of a model should know, in words, from the facts of its run.

In: the facts that `config.json` keeps, and the answers on the validation clips. Out: Markdown. It
computes nothing.
"""

from typing import Any

from speechrnn import __version__
from speechrnn.config import ModelConfig
from speechrnn.evaluation.clips import ClipResult
from speechrnn.evaluation.tables import markdown
from speechrnn.evaluation.text import label_rows, summary


def model_card(
    config: ModelConfig, facts: dict[str, Any], alone: ClipResult, streamed: ClipResult
) -> str:
    """A model card.

    Source: Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993).

    Args:
        config: shape, features and labels of the model.
        facts: of the run: recipe, seed, epochs, best_epoch, clips, corpus, date, hardware, torch.
        alone: the answers on the validation clips, each clip alone.
        streamed: the same, all clips in one stream.
    """
    words = ", ".join(config.words)
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

- Each clip alone: {summary(alone)}.
- All clips in one stream, with background between them and a state that is never reset:
  {summary(streamed)}.

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

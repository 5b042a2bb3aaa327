"""Whether a spoken word can be understood, by the judgement of a recogniser that knows English.

In: a wave (N,) at 16 kHz and the word that it should hold. Out: yes or no. The recogniser is
Whisper tiny.en, which shares nothing with the synthesiser: neither data nor phonemes. It writes
down what it takes the word for, and the answer is yes if the expected word is nearly as probable as
that, or sounds the same. The module needs faster-whisper, which the extra `speak` installs. It does
not know clips or folders.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from speechrnn.config import SAMPLE_RATE

FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")
GET_MODEL = "recipes/get_kokoro.sh writes it"

# Whisper was made for windows of 30 s. With 3 s it answers nine times faster and as well, but says
# the word again and again, so the first word counts.
WINDOW_FRAMES = 300  # of 10 ms
SILENCE_SECONDS = 0.25  # before the word
PEAK = 0.5  # of the wave, so that the answer does not depend on its level
MOST_TOKENS = 8  # of an answer
LEAST_PROBABILITY = 1e-9  # of a token, so that its logarithm is finite

# Natural logarithm: a word counts as understood if it is at most exp(3) = 20 times less probable
# than what the recogniser wrote down.
# Source: 1,159 training clips of Speech Commands, 35 words. Understood as their own word 95.7 %, of
# the ten commands 94.8 %; as another of the 35 words 1.3 %, as a look-alike of a command ("town"
# for "down") 0.5 %. With a margin of 2: 92.0, 92.2, 0.7, 0.3 %. It rejects too few halves of
# words: 31 % of first halves, 47 % of second ones.
MARGIN = 3.0


class Judge:
    """Whisper tiny.en, asked whether a wave is a certain word.

    Args:
        folder: holds the model as CTranslate2 reads it: `model.bin`, `config.json`,
            `tokenizer.json`, `vocabulary.txt`.
        pronounce: gives the phonemes of a word. Words with the same phonemes ("won", "one") are
            taken for each other.

    Raises:
        RuntimeError: faster-whisper is not installed.
        OSError: a file is missing.
        ValueError: a file is cut off or is not what is expected.
    """

    def __init__(self, folder: str | Path, pronounce: Callable[[str], str] = str) -> None:
        try:
            from faster_whisper import WhisperModel
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"checking words needs {error.name}, which is not installed: "
                "type pip install 'speechrnn[speak]'"
            ) from error
        folder = Path(folder)
        self._pronounce = pronounce
        for name in FILES:  # what is missing would be looked for on the internet
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name}: there is no such file; {GET_MODEL}")
        try:
            self._whisper = WhisperModel(
                str(folder), device="cpu", compute_type="int8", cpu_threads=1
            )
        except Exception as error:  # tokenizers raises Exception itself
            raise ValueError(
                f"{folder}: not a whole Whisper model ({error}); {GET_MODEL}"
            ) from error
        words = self._whisper.hf_tokenizer
        self._end = words.token_to_id("<|endoftext|>")
        self._begin = [
            words.token_to_id("<|startoftranscript|>"),
            words.token_to_id("<|notimestamps|>"),
        ]
        if self._whisper.model.is_multilingual or None in (self._end, *self._begin):
            raise ValueError(f"{folder}: not an English model, expected tiny.en; {GET_MODEL}")
        # Numbers are to be written as words: "nine", not "9".
        letters = re.compile(r"Ġ?[A-Za-z'-]+|[.,!?]")
        vocabulary = words.get_vocab()
        self._suppressed = [
            number
            for token, number in vocabulary.items()
            if number < self._end and not letters.fullmatch(token)
        ]

    def understands(self, wave: np.ndarray, word: str) -> bool:
        """Whether a wave (N,) at 16 kHz can be taken for the word, and for hardly another."""
        heard, gap = self.compare(wave, word)
        return gap >= -MARGIN or self._sounds(heard) == self._sounds(word)

    def compare(self, wave: np.ndarray, word: str) -> tuple[str, float]:
        """What the recogniser takes a wave for, and how much more probable the expected word is.

        Args:
            wave: float32 (N,) at 16 kHz, at most 2.5 s of it count.
            word: in small letters.

        Returns:
            The first word of its answer in small letters, and the logarithm of the ratio of the
            probabilities of the expected word and of that word.
        """
        states = self._whisper.encode(self._features(wave))
        answer = self._whisper.model.generate(
            states,
            [self._begin],
            beam_size=1,
            max_length=MOST_TOKENS,
            suppress_tokens=self._suppressed,
        )[0]
        text = self._whisper.hf_tokenizer.decode(answer.sequences_ids[0])
        first = re.search(r"[a-z]+(['-][a-z]+)*", text.lower())
        heard = first[0] if first else ""
        expected = self._log_probability(states, word)
        return heard, expected - self._log_probability(states, heard)

    def _sounds(self, word: str) -> str:
        """The phonemes of a word without the marks of stress, which depend on its use."""
        stress = {ord("ˈ"): None, ord("ˌ"): None}  # noqa: RUF001  # phonemes
        return self._pronounce(word).translate(stress)

    def _features(self, wave: np.ndarray) -> np.ndarray:
        """The log mel spectrum (80, 300) of a wave, with silence around it."""
        samples = np.zeros(WINDOW_FRAMES * SAMPLE_RATE // 100, np.float32)
        start = round(SILENCE_SECONDS * SAMPLE_RATE)
        wave = wave[: len(samples) - start]
        samples[start : start + len(wave)] = wave * (PEAK / (np.abs(wave).max() + 1e-9))
        features: Any = self._whisper.feature_extractor(samples, padding=0)
        return np.ascontiguousarray(features[:, :WINDOW_FRAMES], np.float32)

    def _log_probability(self, states: Any, word: str) -> float:
        """Of a word as a sentence, for instance " Nine."."""
        sentence = f" {word.capitalize()}."
        tokens = self._whisper.hf_tokenizer.encode(sentence, add_special_tokens=False)
        aligned = self._whisper.model.align(
            states, self._begin[:1], [tokens.ids], [WINDOW_FRAMES], median_filter_width=1
        )[0]
        return float(np.log(np.maximum(aligned.text_token_probs, LEAST_PROBABILITY)).sum())

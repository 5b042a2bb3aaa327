"""How often a model is right under hard conditions: noise, rooms, levels, a telephone, cuts.

In: a recogniser, labelled clips, background noises, impulse responses of rooms. Out: the share of
right answers by the name of the condition. Each clip is changed just before it is answered, so that
memory holds one batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import soxr

from speechrnn.audio import from_int16
from speechrnn.config import CLIP_SAMPLES, SAMPLE_RATE, SILENCE
from speechrnn.corpus import Clips, random_cuts
from speechrnn.evaluation.clips import in_batches, known_labels
from speechrnn.evaluation.recordings import word_spans
from speechrnn.recogniser import Recogniser
from speechrnn.rooms import simulate_rooms

SNR_DB = (20, 15, 10, 5, 0, -5)
RT60_SECONDS = (0.2, 0.5, 1.0)  # of rooms
ROOMS = 20  # of each reverberation time
ROOMS_SEED = 1_000_003  # no training's, whose seeds are small
LEVELS_DB = (0, -20, -40)  # of a noise alone
SILENCES = 200  # cuts of a noise alone
SHORT_SAMPLES = 4_800  # 0.3 s
SHORT_STEP = 160  # the loudest part is looked for in steps of 10 ms
QUIETEST_RMS = 1e-6  # a cut of digital zero is not made louder without end
BAND_HZ = (300.0, 3_400.0)  # of a telephone, ITU-T G.712
TELEPHONE_RATE = 8_000  # Hz
RINGING_SAMPLES = 1_600  # 0.1 s, after which nothing is left of the filters' answer to a sample
BUTTERWORTH_Q = 1 / 2**0.5  # a filter without a peak at its edge

Condition = Callable[[slice], Iterable[np.ndarray]]  # takes the places of clips, gives their waves
RECORDED = "as recorded"


def conditions_rooms() -> dict[str, list[np.ndarray]]:
    """Impulse responses of the rooms in which every model is measured, by name."""
    return {
        f"in a room, RT60 {seconds} s": simulate_rooms(ROOMS, (seconds, seconds), ROOMS_SEED)
        for seconds in RT60_SECONDS
    }


def evaluate_conditions(
    recogniser: Recogniser,
    clips: Clips,
    noises: Mapping[str, np.ndarray],
    rooms: Mapping[str, Sequence[np.ndarray]],
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy under each condition, on every word clip, or on silence.

    Args:
        recogniser: the model.
        clips: labelled clips; those that are no words are left out.
        noises: (n,) int16 of each background noise, by name; those shorter than a second are left
            out.
        rooms: impulse responses (n,) by name, as from `conditions_rooms`.
        seed: of the places in the noises.

    Returns:
        The share of right answers by condition: words as recorded; in each noise at each of
        `SNR_DB`; in rooms; quiet, loud, through a telephone, at either edge of the second, in short
        and in long files; and where the model knows silence, digital zero and each noise alone at
        each of `LEVELS_DB`.
    """
    labels = recogniser.labels
    index = known_labels(labels, clips)[clips.targets]
    spoken = np.flatnonzero([labels[label] in recogniser.words for label in index])
    words, truth = clips.waves[spoken], index[spoken]
    random = np.random.default_rng(seed)
    long_enough = {name: noise for name, noise in noises.items() if len(noise) >= CLIP_SAMPLES}

    def share(condition: Condition, truth: np.ndarray) -> float:
        def right(part: slice) -> int:
            answers = recogniser.classify_waves(list(condition(part)))
            pairs = zip(answers, truth[part].tolist(), strict=True)
            return sum(answer.label == labels[label] for answer, label in pairs)

        return sum(in_batches(recogniser.runtime, right, len(truth), "conditions")) / len(truth)

    rates = {RECORDED: share(lambda part: from_int16(words[part]), truth)}
    for number, (name, noise) in enumerate(long_enough.items()):
        for snr_db in SNR_DB:
            noisy = in_noise(words, noise, snr_db, (seed, number))
            rates[f"{name}, {snr_db} dB"] = share(noisy, truth)
    for name, responses in rooms.items():
        rates[name] = share(in_rooms(words, responses), truth)
    for name, condition in word_conditions(words).items():
        rates[name] = share(condition, truth)
    if SILENCE in labels:
        silence = np.full(SILENCES, labels.index(SILENCE))
        rates["digital zero"] = share(
            lambda _: np.zeros((1, CLIP_SAMPLES), np.float32), silence[:1]
        )
        for name, noise in long_enough.items():
            for level_db in LEVELS_DB:
                cuts = random_cuts(noise, SILENCES, CLIP_SAMPLES, random, (level_db, level_db))
                rates[f"{name} alone, {level_db} dB"] = share(cuts.__getitem__, silence)
    return rates


def in_noise(
    words: np.ndarray, noise: np.ndarray, snr_db: float, seed: tuple[int, ...]
) -> Condition:
    """Words (n, N) int16, to each a random cut of a noise (m,) int16 added at a ratio of powers."""

    def condition(part: slice) -> np.ndarray:
        clean = from_int16(words[part])
        # Drawn for each batch, so that the batches may be computed in any order.
        random = np.random.default_rng((*seed, part.start))
        added = random_cuts(noise, len(clean), words.shape[1], random, (0.0, 0.0))
        added *= _rms(clean) / np.maximum(_rms(added), QUIETEST_RMS)
        return clean + added * np.float32(10 ** (-snr_db / 20))

    return condition


def in_rooms(words: np.ndarray, responses: Sequence[np.ndarray]) -> Condition:
    """Words (n, N) int16, each in a room, in turn; what rings on after the clip is cut off."""
    samples = words.shape[1]
    size = 2 * samples  # of an FFT in which nothing that is heard comes round
    spectra = np.stack([np.fft.rfft(response[:samples], size) for response in responses])

    def condition(part: slice) -> np.ndarray:
        chosen = np.arange(len(words))[part] % len(spectra)
        heard = np.fft.rfft(from_int16(words[part]), size) * spectra[chosen]
        waves: np.ndarray = np.fft.irfft(heard, size)[:, :samples]
        return waves.astype(np.float32)

    return condition


def word_conditions(words: np.ndarray) -> dict[str, Condition]:
    """The conditions without noise, of words (n, N) int16."""
    spans = word_spans(words)

    def waves(part: slice) -> np.ndarray:
        return from_int16(words[part])

    def at_start(part: slice) -> list[np.ndarray]:
        pairs = zip(waves(part), spans[part, 0].tolist(), strict=True)
        return [np.pad(wave[first:], (0, first)) for wave, first in pairs]

    def at_end(part: slice) -> list[np.ndarray]:
        pairs = zip(waves(part), spans[part, 1].tolist(), strict=True)
        return [np.pad(wave[:last], (len(wave) - last, 0)) for wave, last in pairs]

    return {
        "30 dB quieter": lambda part: waves(part) * np.float32(10 ** (-30 / 20)),
        "20 dB louder, clipped": lambda part: (waves(part) * 10).clip(-1, 1),
        "telephone, 300 to 3,400 Hz at 8 kHz": lambda part: telephone(waves(part)),
        "word begins with the file": at_start,
        "word ends with the file": at_end,
        "the loudest 0.3 s as a file": lambda part: [_loudest(wave) for wave in waves(part)],
        "in 3 s of silence": lambda part: np.pad(waves(part), ((0, 0), (CLIP_SAMPLES,) * 2)),
    }


def telephone(waves: np.ndarray) -> np.ndarray:
    """Waves (n, N) float32 in the band of a telephone, as if they had been sampled at 8 kHz."""
    size = waves.shape[1] + RINGING_SAMPLES
    spectrum = np.fft.rfft(waves, size)
    z = np.exp(-2j * np.pi * np.arange(spectrum.shape[1]) / size)
    response = _filter(z, BAND_HZ[0], -1) * _filter(z, BAND_HZ[1], 1)
    spectrum *= response.astype(np.complex64)
    band = np.fft.irfft(spectrum, size)[:, : waves.shape[1]]
    low = soxr.resample(np.ascontiguousarray(band.T), SAMPLE_RATE, TELEPHONE_RATE)
    return np.ascontiguousarray(soxr.resample(low, TELEPHONE_RATE, SAMPLE_RATE).T)


def _filter(z: np.ndarray, edge_hz: float, sign: int) -> np.ndarray:
    """Response of a second-order low-pass (sign 1) or high-pass (-1) filter at 1 / z.

    Source: Bristow-Johnson, Cookbook formulae for audio equalizer biquad filter coefficients.
    """
    cosine, sine = (
        np.cos(2 * np.pi * edge_hz / SAMPLE_RATE),
        np.sin(2 * np.pi * edge_hz / SAMPLE_RATE),
    )
    alpha = sine / (2 * BUTTERWORTH_Q)
    above = (1 - sign * cosine) / 2 * (1 + sign * z) ** 2
    return np.asarray(above / (1 + alpha - 2 * cosine * z + (1 - alpha) * z**2))


def _loudest(wave: np.ndarray) -> np.ndarray:
    """The 0.3 s of a wave (N,) with the most energy."""
    energy = np.square(wave).reshape(-1, SHORT_STEP).sum(1)
    sums = np.lib.stride_tricks.sliding_window_view(energy, SHORT_SAMPLES // SHORT_STEP).sum(1)
    start = int(sums.argmax()) * SHORT_STEP
    return wave[start : start + SHORT_SAMPLES]


def _rms(waves: np.ndarray) -> np.ndarray:
    """Of each wave (n, N), as (n, 1)."""
    power: np.ndarray = np.square(waves).mean(1, keepdims=True)
    root: np.ndarray = np.sqrt(power)
    return root

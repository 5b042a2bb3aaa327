"""Compute sounds that are no commands: noise, tones, instruments, sung vowels, animals, machines.

Usage:
    python data/make_sounds.py FOLDER               # an hour for training, a quarter for validation
    python data/make_sounds.py FOLDER --minutes 10 --seed 3

It writes `FOLDER/training/<kind>_<number>.flac` and `FOLDER/validation/...`: 16 kHz, mono, 10 s
each. A recording is a function of its split, kind, number and the seed, and of nothing else: a
stopped run goes on where it was, and gives the same. Levels go from digital zero to full scale.

It does not know features, models or the loader; and it does not know the world: formulas are far
simpler than what they are named after. Both splits come from the same formulas, so a score on its
validation sounds says less than one on recorded sounds.
"""

import argparse
import hashlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16_000
SECONDS = 10
SAMPLES = SECONDS * SAMPLE_RATE
SEED = "speechrnn sounds 1"
TRAINING_MINUTES = 60.0
VALIDATION_PART = 0.25
STEP = 160  # samples between two values of a slow curve

# First three formants in Hz, averages of 33 men, 28 women and 15 children.
# Source: Peterson and Barney, "Control methods used in a study of the vowels", JASA 24, 1952,
# table II.
FORMANTS = {
    "man": {
        "ee": (270, 2290, 3010), "i": (390, 1990, 2550), "e": (530, 1840, 2480),
        "ae": (660, 1720, 2410), "ah": (730, 1090, 2440), "aw": (570, 840, 2410),
        "u": (440, 1020, 2240), "oo": (300, 870, 2240), "uh": (640, 1190, 2390),
        "er": (490, 1350, 1690),
    },
    "woman": {
        "ee": (310, 2790, 3310), "i": (430, 2480, 3070), "e": (610, 2330, 2990),
        "ae": (860, 2050, 2850), "ah": (850, 1220, 2810), "aw": (590, 920, 2710),
        "u": (470, 1160, 2680), "oo": (370, 950, 2670), "uh": (760, 1400, 2780),
        "er": (500, 1640, 1960),
    },
    "child": {
        "ee": (370, 3200, 3730), "i": (530, 2730, 3600), "e": (690, 2610, 3570),
        "ae": (1010, 2320, 3320), "ah": (1030, 1370, 3170), "aw": (680, 1060, 3180),
        "u": (560, 1410, 3310), "oo": (430, 1170, 3260), "uh": (850, 1590, 3360),
        "er": (560, 1820, 2160),
    },
}  # fmt: skip
VOWELS = list(FORMANTS["man"])
# Source: Klatt, "Software for a cascade/parallel formant synthesizer", JASA 67, 1980, table I: the
# fourth and fifth formant of a man's voice, and their bandwidths. The higher ones are those of an
# even tube of 17 cm: one each 1000 Hz. Women's and children's are about 1.15 and 1.35 times as
# high, as their third formants in the table above.
HIGH_FORMANTS = {
    "man": (3300, 3750, 5500, 6500, 7500),
    "woman": (3800, 4300, 6300, 7500),
    "child": (4500, 5100, 7400),
}
HIGHEST_FORMANT = 7600.0
BANDWIDTHS = (60, 80, 150, 250, 300, 400, 500, 600)
PITCH_RANGE = {"man": (80, 350), "woman": (150, 800), "child": (220, 900)}
# A nasal murmur instead of a vowel: the mouth is closed. Source: Klatt 1980, section on nasals.
HUM = (270, 1100, 2100)


def random_generator(name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{SEED}: {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def between(random: np.random.Generator, low: float, high: float) -> float:
    """A number between two, evenly in its logarithm: for pitches, times and amplitudes."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def decibels(value: float) -> float:
    return 10 ** (value / 20)


def peak_one(wave: np.ndarray) -> np.ndarray:
    """The wave at a peak of 1; a wave of zeros stays as it is."""
    peak = np.abs(wave).max(initial=0.0)
    return wave / peak if peak > 0 else wave


def seconds_axis(samples: int) -> np.ndarray:
    return np.arange(samples) / SAMPLE_RATE


def phase(frequency_hz: np.ndarray) -> np.ndarray:
    """Phase in radians (N,) of a tone whose frequency moves."""
    return 2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE


def wander(samples: int, random: np.random.Generator, rate_hz: float) -> np.ndarray:
    """A slow random curve (N,): mean 0, about unit deviation, `rate_hz` new values a second."""
    points = max(4, int(samples / SAMPLE_RATE * rate_hz) + 2)
    values = random.standard_normal(points)
    return np.interp(np.arange(samples), np.linspace(0, samples, points), values)


def envelope(samples: int, attack_s: float, release_s: float) -> np.ndarray:
    """Rises from 0 to 1 and falls to 0 at the end, both as half a cosine: (N,)."""
    rise = max(1, min(samples // 2, int(attack_s * SAMPLE_RATE)))
    fall = max(1, min(samples // 2, int(release_s * SAMPLE_RATE)))
    curve = np.ones(samples)
    curve[:rise] = 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)
    curve[samples - fall :] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(fall) / fall)
    return curve


def add(wave: np.ndarray, piece: np.ndarray, start: int) -> None:
    """Add a piece to a wave in place; what reaches beyond its end is lost."""
    piece = piece[: max(0, len(wave) - start)]
    wave[start : start + len(piece)] += piece


def coloured_noise(samples: int, exponent: float, random: np.random.Generator) -> np.ndarray:
    """Noise (N,) of RMS 1 whose power falls with `frequency ** -exponent` above 20 Hz."""
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(random.standard_normal(samples))
    spectrum *= np.maximum(frequency, 20.0) ** (-exponent / 2)
    spectrum[frequency < 20.0] = 0
    wave = np.fft.irfft(spectrum, samples)
    return wave / np.sqrt(np.mean(wave**2) + 1e-20)


def band(wave: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """The wave with soft edges of a sixth of an octave around a band."""
    frequency = np.maximum(np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE), 1.0)
    octaves = np.minimum(np.log2(frequency / low_hz), np.log2(high_hz / frequency))
    gain = 1 / (1 + np.exp(np.clip(-octaves * 24, -60, 60)))
    return np.fft.irfft(np.fft.rfft(wave) * gain, len(wave))


def reverberate(wave: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The wave in a room: convolved with noise that decays by 60 dB in 0.1 to 2 s.

    Source: Moorer, "About this reverberation business", Computer Music Journal 3(2), 1979.
    """
    decay_s = between(random, 0.1, 2.0)
    length = int(decay_s * SAMPLE_RATE)
    response = random.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    response *= random.uniform(0.1, 1.0) / np.sqrt(np.sum(response**2))
    response[0] += 1
    size = len(wave) + length
    product = np.fft.rfft(wave, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[: len(wave)]


def resonance(frequency_hz: np.ndarray, formant_hz: np.ndarray, bandwidth_hz: float) -> np.ndarray:
    """Gain of a digital resonator of two poles, 1 at 0 Hz; frequencies and formants broadcast.

    Source: Klatt 1980, equation 2.
    """
    decay = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE)
    b = 2 * decay * np.cos(2 * np.pi * formant_hz / SAMPLE_RATE)
    c = -(decay**2)
    z = np.exp(-2j * np.pi * frequency_hz / SAMPLE_RATE)
    return np.abs((1 - b - c) / (1 - b * z - c * z**2))


def voice(pitch_hz: np.ndarray, formants_hz: np.ndarray, tilt: float = 1.0) -> np.ndarray:
    """Glottal pulses through formant resonators whose pitch and formants may move.

    The harmonics of the pulses are summed, each with the resonators' gain at its frequency: in the
    steady state the same as filtering, and it needs no loop over samples.

    Args:
        pitch_hz: (N,).
        formants_hz: (M, formants), a row for each `STEP` samples; their widths are `BANDWIDTHS`.
        tilt: the harmonic k has the amplitude `k ** -tilt`: 2 of the glottal flow, less 1 of the
            radiation at the lips.
    """
    steps = np.arange(len(formants_hz)) * STEP
    samples = np.arange(len(pitch_hz))
    pitch_steps = np.interp(steps, samples, pitch_hz)
    angle = phase(pitch_hz)
    wave = np.zeros(len(pitch_hz))
    for harmonic in range(1, int(7600 / pitch_hz.min()) + 1):
        frequency = harmonic * pitch_steps
        gain = np.where(frequency < 7600, harmonic**-tilt, 0.0)
        for formant, bandwidth in zip(formants_hz.T, BANDWIDTHS, strict=False):
            gain = gain * resonance(frequency, formant, bandwidth)
        wave += np.interp(samples, steps, gain) * np.cos(harmonic * angle)
    return wave


def formants_of(person: str, vowel: str, size: float = 1.0) -> np.ndarray:
    """Formants in Hz of a vowel, `size` times as high: those of a shorter or longer throat."""
    formants = np.array([*FORMANTS[person][vowel], *HIGH_FORMANTS[person]], dtype=float)
    return np.minimum(formants * size, HIGHEST_FORMANT)


def glide(points: list[np.ndarray], samples: int, held: float) -> np.ndarray:
    """Formants (M, F) which stay at each point for a part `held` of its time, then glide on."""
    places, values = [], []
    share = samples / len(points)
    for number, point in enumerate(points):
        places += [(number + (1 - held) / 2) * share, (number + (1 + held) / 2) * share]
        values += [point, point]
    steps = np.arange(0, samples + STEP, STEP)
    return np.stack([np.interp(steps, places, column) for column in np.array(values).T], axis=1)


def bent_pitch(
    start_hz: float, end_hz: float, samples: int, random: np.random.Generator
) -> np.ndarray:
    """Pitch (N,) from one value to another, with a vibrato of 4.5 to 7 Hz and some jitter."""
    time = seconds_axis(samples)
    course = np.exp(np.linspace(np.log(start_hz), np.log(end_hz), samples))
    depth = random.choice([0.0, random.uniform(0.0, 0.06)])
    vibrato = np.sin(2 * np.pi * random.uniform(4.5, 7.0) * time + random.uniform(0, 6.28))
    vibrato *= np.minimum(1, time / 0.3)
    return course * (1 + depth * vibrato + 0.004 * wander(samples, random, 20))


def draw_person(random: np.random.Generator) -> tuple[str, float]:
    person = str(random.choice(list(FORMANTS)))
    return person, between(random, *PITCH_RANGE[person])


# Each of the functions below gives one recording, (SAMPLES,), at any level.


def noise(random: np.random.Generator) -> np.ndarray:
    """Coloured noise, sometimes of one band, in steps from zero to full scale, slowly modulated."""
    wave = np.zeros(SAMPLES)
    start = 0
    while start < SAMPLES:
        length = min(SAMPLES - start, int(between(random, 0.2, 5.0) * SAMPLE_RATE))
        piece = coloured_noise(max(length, 64), random.uniform(-1.0, 2.5), random)[:length]
        if random.uniform() < 0.3:
            low = between(random, 50, 3000)
            piece = band(piece, low, low * between(random, 1.3, 8))
        slow = 1 + random.uniform(0, 1) * wander(length, random, between(random, 0.3, 8))
        level = 0.0 if random.uniform() < 0.15 else decibels(random.uniform(-80, 0))
        ends = envelope(length, between(random, 0.001, 0.5), between(random, 0.001, 0.5))
        wave[start : start + length] = level * peak_one(piece * np.clip(slow, 0, None)) * ends
        start += length
    return wave


def tones(random: np.random.Generator) -> np.ndarray:
    """Beeps, held tones, sirens and telephone rings, of two tones, pure or distorted."""
    wave = np.zeros(SAMPLES)
    start = int(random.uniform(0, 1) * SAMPLE_RATE)
    while start < SAMPLES:
        style = random.choice(["beeps", "held", "siren", "ring"])
        length = int(between(random, 0.5, 4.0) * SAMPLE_RATE)
        time = seconds_axis(length)
        frequency = np.full(length, between(random, 100, 4000))
        gate = envelope(length, 0.01, 0.05)
        if style == "beeps":
            period, duty = between(random, 0.1, 1.0), random.uniform(0.2, 0.8)
            gate = gate * ((time % period) < duty * period)
        elif style == "siren":
            rate = between(random, 0.2, 4)
            wave_form = np.sin if random.uniform() < 0.5 else (lambda x: np.sign(np.sin(x)))
            frequency *= 2 ** (random.uniform(0.1, 0.6) * wave_form(2 * np.pi * rate * time))
        elif style == "ring":
            gate = gate * (0.5 + 0.5 * np.sign(np.sin(2 * np.pi * random.uniform(10, 25) * time)))
        angle = phase(frequency)
        piece = np.sin(angle) + random.uniform(0, 1) * np.sin(angle * random.uniform(1.05, 1.6))
        if random.uniform() < 0.4:
            piece = np.tanh(between(random, 1, 20) * piece)
        smooth = np.convolve(gate, np.hanning(65) / 32, "same")  # no clicks at the ends of a beep
        add(wave, decibels(random.uniform(-30, 0)) * piece * smooth, start)
        start += length + int(random.uniform(0, 1.5) * SAMPLE_RATE)
    return wave


def sweep(start_hz: float, end_hz: float, samples: int) -> np.ndarray:
    """A chirp of constant octaves a second: (N,)."""
    return np.sin(phase(np.exp(np.linspace(np.log(start_hz), np.log(end_hz), samples))))


def chirps(random: np.random.Generator) -> np.ndarray:
    """Chirps up and down, from 30 ms to 4 s, one behind the other or overlapped."""
    wave = np.zeros(SAMPLES)
    start = 0
    while start < SAMPLES:
        length = int(between(random, 0.03, 4.0) * SAMPLE_RATE)
        piece = sweep(between(random, 60, 6000), between(random, 60, 6000), length)
        add(wave, decibels(random.uniform(-25, 0)) * piece * envelope(length, 0.01, 0.02), start)
        start += int(length * random.uniform(0.5, 1.2)) + int(random.uniform(0, 0.7) * SAMPLE_RATE)
    return wave


def piano_note(pitch_hz: float, seconds: float, random: np.random.Generator) -> np.ndarray:
    """Stretched harmonics which decay, the high ones faster.

    Source: Fletcher, "Normal vibration frequencies of a stiff piano string", JASA 36, 1964: the
    partial k of a stiff string is at `k * pitch * sqrt(1 + B k**2)`.
    """
    samples = int(seconds * SAMPLE_RATE)
    time = seconds_axis(samples)
    stiffness, bright = between(random, 1e-5, 1e-3), between(random, 0.6, 2.0)
    wave = np.zeros(samples)
    for partial in range(1, 25):
        frequency = partial * pitch_hz * np.sqrt(1 + stiffness * partial**2)
        if frequency < 7600:
            decay = np.exp(-time * (1.5 + 0.5 * partial) / between(random, 0.3, 1.5))
            angle = 2 * np.pi * frequency * time + random.uniform(0, 6.28)
            wave += partial**-bright * decay * np.sin(angle)
    return wave * envelope(samples, 0.004, 0.03)


def organ_note(pitch_hz: float, seconds: float, random: np.random.Generator) -> np.ndarray:
    """Harmonics which stay, with a tremulant now and then: organ, brass, strings."""
    samples = int(seconds * SAMPLE_RATE)
    time = seconds_axis(samples)
    bright = random.uniform(0.5, 2.5)
    trembling = random.choice([0.0, random.uniform(0.0, 0.01)])
    frequency = pitch_hz * (1 + trembling * np.sin(2 * np.pi * random.uniform(4, 7) * time))
    angle = phase(frequency)
    even = random.choice([1.0, random.uniform(0, 1)])  # a stopped pipe has odd harmonics only
    wave = np.zeros(samples)
    for partial in range(1, min(30, int(7600 / pitch_hz)) + 1):
        weight = partial**-bright * (even if partial % 2 == 0 else 1.0) * random.uniform(0.4, 1)
        wave += weight * np.sin(partial * angle + random.uniform(0, 6.28))
    return wave * envelope(samples, between(random, 0.01, 0.3), between(random, 0.02, 0.4))


def plucked_note(pitch_hz: float, seconds: float, random: np.random.Generator) -> np.ndarray:
    """A plucked string: a burst of noise in a loop which averages neighbours.

    Source: Karplus and Strong, "Digital synthesis of plucked-string and drum timbres", Computer
    Music Journal 7(2), 1983: `y[n] = (y[n - P] + y[n - P - 1]) / 2`; P + 1/2 samples a period.
    """
    samples = int(seconds * SAMPLE_RATE)
    period = max(2, round(SAMPLE_RATE / pitch_hz - 0.5))
    loop = random.uniform(-1, 1, period + 1)
    loss = 1 - between(random, 1e-4, 0.02)
    periods = []
    for _ in range(samples // period + 1):
        new = loss * 0.5 * (loop[1:] + loop[:-1])
        periods.append(new)
        loop = np.concatenate([loop[-1:], new])
    return np.concatenate(periods)[:samples] * envelope(samples, 0.001, 0.05)


def bell_note(pitch_hz: float, seconds: float, random: np.random.Generator) -> np.ndarray:
    """A bell or bar: partials which are no harmonics.

    Source: Chowning, "The synthesis of complex audio spectra by means of frequency modulation",
    JAES 21(7), 1973: a ratio of carrier and modulator which is no integer, an index which decays.
    """
    time = seconds_axis(int(seconds * SAMPLE_RATE))
    decay = np.exp(-time / between(random, 0.1, 2.0))
    modulator = np.sin(2 * np.pi * pitch_hz * random.uniform(1.1, 3.6) * time)
    wave = np.sin(2 * np.pi * pitch_hz * time + between(random, 0.5, 8) * decay * modulator)
    return wave * decay * envelope(len(time), 0.002, 0.05)


CHORDS = ((0,), (0, 7), (0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 3, 6, 9), (0, 5, 7), (0, 4, 7, 12))
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def music(note: Callable[..., np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Chords, arpeggios and melodies of one instrument in one key and one tempo."""
    wave = np.zeros(SAMPLES)
    key_hz = between(random, 50, 500)
    beat = between(random, 0.12, 0.8)
    scale = SCALES[random.integers(len(SCALES))]
    start = 0.0
    while start < SECONDS:
        style = random.choice(["chord", "arpeggio", "melody", "rest"], p=[0.3, 0.25, 0.35, 0.1])
        degree = scale[random.integers(len(scale))] + 12 * random.integers(0, 2)
        chord = CHORDS[random.integers(len(CHORDS))] if style != "melody" else (0,)
        length = beat * random.choice([1, 1, 2, 4])
        for semitones in chord if style != "rest" else ():
            pitch = min(2500.0, key_hz * 2 ** ((degree + semitones) / 12))
            piece = decibels(random.uniform(-15, 0)) * peak_one(note(pitch, length * 1.3, random))
            add(wave, piece, int(start * SAMPLE_RATE))
            start += beat if style == "arpeggio" else 0
        start += length if style != "arpeggio" else 0
    return wave


def piano(random: np.random.Generator) -> np.ndarray:
    return music(piano_note, random)


def organ(random: np.random.Generator) -> np.ndarray:
    return music(organ_note, random)


def plucked(random: np.random.Generator) -> np.ndarray:
    return music(plucked_note, random)


def bells(random: np.random.Generator) -> np.ndarray:
    return music(bell_note, random)


def drum(random: np.random.Generator) -> np.ndarray:
    """A kick, tom, snare or cymbal: a falling tone and noise, mixed and decaying."""
    samples = int(0.6 * SAMPLE_RATE)
    time = seconds_axis(samples)
    pitch = between(random, 45, 350)
    tone = np.sin(phase(pitch * (1 + random.uniform(0, 3) * np.exp(-time / 0.03))))
    hiss = band(random.standard_normal(samples), between(random, 200, 5000), 7900)
    tonal = random.choice([1.0, 0.0, random.uniform()])
    wave = tonal * tone * np.exp(-time / between(random, 0.03, 0.25))
    wave += (1 - tonal) * peak_one(hiss) * np.exp(-time / between(random, 0.01, 0.3))
    return wave * envelope(samples, 0.001, 0.05)


def drums(random: np.random.Generator) -> np.ndarray:
    """Four drums which repeat a bar of sixteen steps, with small differences of level."""
    wave = np.zeros(SAMPLES)
    step = between(random, 0.08, 0.25)
    kit = [drum(random) for _ in range(4)]
    bar = random.uniform(size=(4, 16)) < random.uniform(0.1, 0.4, size=(4, 1))
    bar[random.integers(4), 0] = True  # never an empty bar
    for number in range(int(SECONDS / step)):
        for piece, beats in zip(kit, bar, strict=True):
            if beats[number % 16]:
                place = int(number * step * SAMPLE_RATE)
                add(wave, decibels(random.uniform(-12, 0)) * piece, place)
    return wave


def sung_note(
    person: str, vowels: list[str], pitch: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """One breath of a voice through some vowels while its pitch (N,) moves; some breath noise."""
    samples = len(pitch)
    size = random.uniform(0.92, 1.08)  # of this singer's vocal tract
    points = [formants_of(person, vowel, size) for vowel in vowels]
    formants = glide(points, samples, random.uniform(0.1, 0.9))
    wave = peak_one(voice(pitch, formants, random.uniform(0.7, 1.5)))
    breath = band(coloured_noise(samples, 0.5, random), points[0][1] * 0.8, points[0][2] * 1.2)
    wave += decibels(random.uniform(-60, -25)) * breath
    return wave * envelope(samples, between(random, 0.01, 0.3), between(random, 0.03, 0.5))


def held_vowels(random: np.random.Generator) -> np.ndarray:
    """One person who holds single vowels for 1 to 4 s, at one pitch each or gliding."""
    wave = np.zeros(SAMPLES)
    person, base = draw_person(random)
    start = int(random.uniform(0, 0.5) * SAMPLE_RATE)
    while start < SAMPLES:
        samples = int(between(random, 0.8, 4.0) * SAMPLE_RATE)
        first = base * 2 ** random.uniform(-0.4, 0.4)
        last = first * 2 ** random.choice([0, random.uniform(-0.7, 0.7)])
        pitch = bent_pitch(first, last, samples, random)
        note = sung_note(person, [str(random.choice(VOWELS))], pitch, random)
        add(wave, decibels(random.uniform(-15, 0)) * note, start)
        start += samples + int(random.uniform(0, 0.8) * SAMPLE_RATE)
    return wave


def sung_vowels(random: np.random.Generator) -> np.ndarray:
    """One person who sings a melody on vowels, one or several a note: ah, oh, ooh."""
    wave = np.zeros(SAMPLES)
    person, base = draw_person(random)
    scale = SCALES[random.integers(len(SCALES))]
    beat = between(random, 0.2, 0.8)
    start, last = 0.0, base
    while start < SECONDS:
        length = beat * random.choice([1, 1, 2, 3])
        pitch_hz = base * 2 ** ((scale[random.integers(len(scale))] - 5) / 12)
        samples = int(length * SAMPLE_RATE)
        pitch = bent_pitch(pitch_hz, pitch_hz, samples, random)
        slide = np.exp(-seconds_axis(samples) / between(random, 0.01, 0.1))
        pitch = pitch * (last / pitch_hz) ** slide
        vowels = [str(random.choice(VOWELS)) for _ in range(random.integers(1, 4))]
        note = decibels(random.uniform(-12, 0)) * sung_note(person, vowels, pitch, random)
        add(wave, note, int(start * SAMPLE_RATE))
        start += length + (random.uniform(0, 0.6) if random.uniform() < 0.3 else 0)
        last = pitch_hz
    return wave


def calls(random: np.random.Generator) -> np.ndarray:
    """Short calls of vowels which glide, with quiet in between: ah, oh, like wow, like laughter."""
    wave = np.zeros(SAMPLES)
    start = int(random.uniform(0, 1) * SAMPLE_RATE)
    while start < SAMPLES:
        person, base = draw_person(random)
        vowels = [str(random.choice(VOWELS)) for _ in range(random.integers(1, 4))]
        repeats = random.integers(2, 7) if random.uniform() < 0.25 else 1
        samples = int(between(random, 0.1, 0.9) * SAMPLE_RATE) // (2 if repeats > 1 else 1)
        level = decibels(random.uniform(-20, 0))
        for _ in range(repeats):
            pitch = bent_pitch(base, base * 2 ** random.uniform(-0.6, 0.4), samples, random)
            add(wave, level * sung_note(person, vowels, pitch, random), start)
            start += int(samples * random.uniform(1.0, 1.5))
        start += int(random.uniform(0.2, 1.5) * SAMPLE_RATE)
    return wave


def hum(random: np.random.Generator) -> np.ndarray:
    """A melody with the mouth closed: a nasal murmur of three formants, dull."""
    wave = np.zeros(SAMPLES)
    person, base = draw_person(random)
    size = HIGH_FORMANTS[person][0] / HIGH_FORMANTS["man"][0]
    start = 0.0
    while start < SECONDS:
        samples = int(between(random, 0.3, 2.5) * SAMPLE_RATE)
        first = min(600.0, base * 2 ** random.uniform(-0.5, 0.3))
        pitch = bent_pitch(first, first * 2 ** random.uniform(-0.2, 0.2), samples, random)
        murmur = voice(pitch, glide([np.array(HUM) * size], samples, 1.0), random.uniform(1.4, 2.2))
        add(wave, peak_one(murmur) * envelope(samples, 0.06, 0.15), int(start * SAMPLE_RATE))
        start += samples / SAMPLE_RATE + random.choice([0.0, random.uniform(0, 0.6)])
    return wave


def whistling(random: np.random.Generator) -> np.ndarray:
    """A whistled melody: one tone of 500 to 3000 Hz which slides, with some noise around it."""
    wave = np.zeros(SAMPLES)
    start, base = 0.0, between(random, 700, 1800)
    while start < SECONDS:
        samples = int(between(random, 0.08, 1.5) * SAMPLE_RATE)
        first = base * 2 ** random.uniform(-0.6, 0.7)
        pitch = bent_pitch(first, first * 2 ** random.uniform(-0.4, 0.4), samples, random)
        breath = band(random.standard_normal(samples), first / 1.3, first * 1.3)
        piece = np.sin(phase(pitch)) + decibels(random.uniform(-50, -15)) * breath
        add(wave, piece * envelope(samples, 0.03, 0.05), int(start * SAMPLE_RATE))
        start += samples / SAMPLE_RATE + random.choice([0.0, random.uniform(0, 0.7)])
    return wave


def bark(random: np.random.Generator) -> np.ndarray:
    """80 to 250 ms whose pitch rises and falls, rough, through two wide resonances."""
    samples = int(between(random, 0.08, 0.25) * SAMPLE_RATE)
    arch = np.sin(np.pi * np.linspace(0, 1, samples) ** random.uniform(0.4, 1))
    pitch = between(random, 150, 900) * 2 ** (random.uniform(0.2, 1.0) * (arch - 1))
    pitch = pitch * (1 + 0.05 * wander(samples, random, 150))
    size = between(random, 0.6, 1.6)
    points = [formants_of("man", vowel, size) for vowel in ("u", "ah", "aw")]
    wave = peak_one(voice(pitch, glide(points, samples, 0.2), random.uniform(0.5, 1.2)))
    wave += random.uniform(0, 0.4) * peak_one(coloured_noise(samples, 1, random))
    return wave * envelope(samples, 0.015, 0.08)


def cry(random: np.random.Generator) -> np.ndarray:
    """Meow, moo, bleat, howl: 0.3 to 2 s of voice, the mouth opens and closes, of any size."""
    samples = int(between(random, 0.3, 2.0) * SAMPLE_RATE)
    arch = np.sin(np.pi * np.linspace(0, 1, samples) ** random.uniform(0.4, 1.4))
    pitch = between(random, 90, 900) * 2 ** (random.uniform(-0.3, 0.7) * arch)
    bleating = random.choice([0.0, random.uniform(0.02, 0.1)])
    time = seconds_axis(samples)
    pitch = pitch * (1 + bleating * np.sin(2 * np.pi * random.uniform(6, 14) * time))
    size = between(random, 0.5, 1.5)
    closed, opened = random.choice(["ee", "i", "oo", "u"]), random.choice(["ae", "ah", "e", "aw"])
    points = [formants_of("child", vowel, size) for vowel in (closed, opened, opened, "oo")]
    wave = voice(pitch, glide(points, samples, 0.2), random.uniform(0.6, 1.5))
    tremble = 1 + (5 * bleating) * np.sin(2 * np.pi * random.uniform(6, 14) * time)
    return peak_one(wave * tremble) * envelope(samples, 0.08, 0.15)


def bird_call(random: np.random.Generator) -> np.ndarray:
    """A call of 1 to 12 equal syllables, each a whistle of 1.5 to 7 kHz which slides or trills."""
    samples = int(between(random, 0.02, 0.3) * SAMPLE_RATE)
    time = np.linspace(0, 1, samples)
    base = between(random, 1500, 5000)
    course = random.uniform(-0.6, 0.6) * time + random.uniform(-0.4, 0.4) * np.sin(np.pi * time)
    trill = random.choice([0.0, random.uniform(0, 0.15)])
    course += trill * np.sin(2 * np.pi * random.uniform(20, 60) * seconds_axis(samples))
    angle = phase(np.minimum(base * 2**course, 7500))
    syllable = np.sin(angle) + random.choice([0.0, random.uniform(0, 0.4)]) * np.sin(angle / 2)
    syllable *= envelope(samples, 0.01, 0.02)
    gap = np.zeros(int(between(random, 0.01, 0.15) * SAMPLE_RATE))
    return np.concatenate([syllable, gap] * int(random.integers(1, 13)))


def growl(random: np.random.Generator) -> np.ndarray:
    """Growl, croak, purr, quack: pulses, 15 to 120 a second, through the resonances of a throat."""
    samples = int(between(random, 0.1, 1.5) * SAMPLE_RATE)
    pitch = between(random, 20, 120) * (1 + 0.1 * wander(samples, random, 15))
    pitch = np.clip(pitch, 15, 200)
    throat = formants_of("man", str(random.choice(VOWELS)), between(random, 0.6, 1.4))
    return voice(pitch, glide([throat], samples, 1.0), 0.6) * envelope(samples, 0.05, 0.1)


def insects(random: np.random.Generator) -> np.ndarray:
    """Crickets or a buzz: a high tone in fast pulses, or harmonics of a wing beat."""
    samples = int(between(random, 0.5, 3) * SAMPLE_RATE)
    time = seconds_axis(samples)
    if random.uniform() < 0.5:
        pulses = np.clip(np.sin(2 * np.pi * between(random, 10, 60) * time), 0, None)
        calling = np.sin(2 * np.pi * between(random, 0.5, 5) * time)
        pulses = pulses * np.clip(4 * calling + 1, 0, 1)
        tone = np.sin(2 * np.pi * between(random, 2500, 7000) * time) * pulses
    else:
        angle = phase(between(random, 100, 600) * (1 + 0.05 * wander(samples, random, 4)))
        tone = sum(np.sin(k * angle) / k for k in range(1, 12))
    return tone * envelope(samples, 0.1, 0.1)


def animals(random: np.random.Generator) -> np.ndarray:
    """Animals of one or two kinds, near and far, with quiet between their calls."""
    wave = np.zeros(SAMPLES)
    species = random.choice([bark, cry, bird_call, growl, insects], 2)
    start = int(random.uniform(0, 1) * SAMPLE_RATE)
    while start < SAMPLES:
        piece = peak_one(species[random.integers(2)](random))
        add(wave, decibels(random.uniform(-20, 0)) * piece, start)
        start += len(piece) + int(between(random, 0.03, 2.0) * SAMPLE_RATE)
    return wave


def knock(random: np.random.Generator) -> np.ndarray:
    """A click, key stroke, knock or clatter: a burst of noise rings in one to four short modes."""
    samples = int(0.25 * SAMPLE_RATE)
    time = seconds_axis(samples)
    wave = random.standard_normal(samples) * np.exp(-time / between(random, 0.0003, 0.01))
    for _ in range(random.integers(1, 5)):
        ringing = np.exp(-time / between(random, 0.002, 0.06))
        frequency = between(random, 80, 6000)
        wave += random.uniform(0, 2) * ringing * np.sin(2 * np.pi * frequency * time)
    return wave * envelope(samples, 0.0002, 0.05)


def clicks(random: np.random.Generator) -> np.ndarray:
    """Clicks, typing, knocks, a clock: one to three sounds, in a rhythm, in bursts or at random."""
    wave = np.zeros(SAMPLES)
    kinds = [peak_one(knock(random)) for _ in range(random.integers(1, 4))]
    regular, gap = random.uniform() < 0.4, between(random, 0.07, 1.2)
    start = random.uniform(0, 1)
    while start < SECONDS:
        piece = kinds[random.integers(len(kinds))]
        add(wave, decibels(random.uniform(-12, 0)) * piece, int(start * SAMPLE_RATE))
        start += gap if regular else random.exponential(gap) + 0.03
    return wave


def engine(random: np.random.Generator) -> np.ndarray:
    """A motor, fan or mains hum: harmonics of 20 to 200 Hz, speed that changes, noise, a beat."""
    change = random.choice([0.01, random.uniform(0, 0.5)])
    speed = np.exp(change * wander(SAMPLES, random, between(random, 0.2, 2)))
    speed *= between(random, 20, 200)
    angle = phase(speed)
    bright = random.uniform(0.3, 1.5)
    wave = np.zeros(SAMPLES)
    for harmonic in range(1, int(min(60, 7600 / speed.max())) + 1):
        wave += random.uniform(0, 1) * harmonic**-bright * np.sin(harmonic * angle)
    rattle = coloured_noise(SAMPLES, random.uniform(0, 2), random)
    throb = 1 + random.uniform(0, 1) * np.sin(angle * random.choice([0.25, 0.5, 1.0]))
    return (peak_one(wave) + decibels(random.uniform(-40, 0)) * peak_one(rattle)) * throb


def babble(random: np.random.Generator) -> np.ndarray:
    """Three to eight voices at once, syllables of vowels with hisses between them: no words."""
    wave = np.zeros(SAMPLES)
    for _ in range(random.integers(3, 9)):
        person, _ = draw_person(random)
        low, _ = PITCH_RANGE[person]
        base = low * random.uniform(1.0, 1.6)
        start = random.uniform(-0.5, 0.5)
        level = decibels(random.uniform(-15, 0))
        while start < SECONDS:
            samples = int(random.uniform(0.08, 0.3) * SAMPLE_RATE)
            pitch = bent_pitch(base * 2 ** random.uniform(-0.2, 0.3), base, samples, random)
            vowels = [str(random.choice(VOWELS)) for _ in range(2)]
            piece = sung_note(person, vowels, pitch, random)
            add(wave, level * piece, int(max(0, start) * SAMPLE_RATE))
            start += samples / SAMPLE_RATE * random.uniform(0.9, 1.2)
            if random.uniform() < 0.4:
                length = int(random.uniform(0.03, 0.12) * SAMPLE_RATE)
                hiss = band(random.standard_normal(length), between(random, 1500, 4000), 7500)
                hiss = 0.2 * level * peak_one(hiss) * envelope(length, 0.01, 0.02)
                add(wave, hiss, int(max(0, start) * SAMPLE_RATE))
                start += length / SAMPLE_RATE
            start += random.uniform(0.3, 1.0) if random.uniform() < 0.12 else 0
    return wave


KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    function.__name__: function
    for function in (
        noise, tones, chirps, piano, organ, plucked, bells, drums, held_vowels, sung_vowels, calls,
        hum, whistling, animals, clicks, engine, babble,
    )
}  # fmt: skip


def make_sound(split: str, kind: str, number: int, seed: int) -> np.ndarray:
    """One recording, float64 (SAMPLES,), within -1 and 1.

    A third of all but the noise stands in a room, a third has noise behind it. Noise draws its own
    levels; of the others the peak is at -45 to 0 dB of full scale.
    """
    random = random_generator(f"{seed} {split} {kind} {number}")
    wave = KINDS[kind](random)
    if kind == "noise":
        return wave
    if random.uniform() < 1 / 3:
        wave = reverberate(wave, random)
    if random.uniform() < 1 / 3:
        behind = peak_one(coloured_noise(SAMPLES, random.uniform(0, 2), random))
        wave = peak_one(wave) + decibels(random.uniform(-60, -15)) * behind
    return peak_one(wave) * decibels(random.uniform(-45, 0))


def encode(wave: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def sounds_of(minutes: float) -> list[tuple[str, str, int]]:
    """Split, kind and number of each recording; the kinds take turns, all get the same share."""
    sounds = []
    for split, length in (("training", minutes), ("validation", minutes * VALIDATION_PART)):
        for number in range(round(length * 60 / SECONDS)):
            sounds.append((split, list(KINDS)[number % len(KINDS)], number // len(KINDS)))
    return sounds


def check_seed(folder: Path, seed: int) -> None:
    """Write the seed into the folder, or compare it with the one that is there.

    Raises:
        RuntimeError: the folder's recordings come from another seed, or from something else.
    """
    path = folder / "seed.txt"
    if path.is_file() and path.read_text().strip() != f"{SEED}, {seed}":
        raise RuntimeError(
            f"{folder} holds sounds of '{path.read_text().strip()}', not of '{SEED}, {seed}': "
            "choose another folder or delete it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{SEED}, {seed}\n")


def make_sounds(folder: Path, minutes: float, seed: int) -> int:
    """Write each recording that is not there yet, beside its place, then renamed; returns how many.

    Raises:
        RuntimeError: the folder's recordings come from another seed.
    """
    check_seed(folder, seed)
    made = 0
    sounds = sounds_of(minutes)
    for count, (split, kind, number) in enumerate(sounds, 1):
        path = folder / split / f"{kind}_{number:04d}.flac"
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.write_bytes(encode(make_sound(split, kind, number, seed)))
        os.replace(unfinished, path)
        made += 1
        if count % len(KINDS) == 0:
            print(f"{count} of {len(sounds)}", file=sys.stderr)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Compute sounds that are no commands.")
    parser.add_argument("folder", type=Path, help="where the sounds are written")
    parser.add_argument(
        "--minutes",
        type=float,
        default=TRAINING_MINUTES,
        help="of training sounds; validation gets a quarter as much (default: %(default)g)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other sounds (default: 0)"
    )
    arguments = parser.parse_args()
    if arguments.minutes <= 0:
        parser.error(f"--minutes is {arguments.minutes:g}: give a positive number")
    try:
        made = make_sounds(arguments.folder, arguments.minutes, arguments.seed)
    except (RuntimeError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"{made} new recordings in {arguments.folder}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

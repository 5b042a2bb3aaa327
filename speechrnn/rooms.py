"""Rooms between a mouth and a far microphone, simulated: impulse responses and how they decay.

In: how many rooms, their reverberation times, a seed. Out: impulse responses at 16 kHz, and of each
the energy that arrives in each frame. Rooms are boxes, the simulator is pyroomacoustics (Scheibler,
Bezzam and Dokmanic 2018, arXiv 1710.04196): image sources for the first reflections, rays for what
comes later. It does not know clips, features or models.
"""

from collections.abc import Sequence

import numpy as np

from speechrnn.config import SAMPLE_RATE
from speechrnn.corpus import progress

SIZE_M = (3.0, 3.0, 2.3), (10.0, 8.0, 4.0)  # smallest and largest room
WALL_M = 0.5  # between a mouth or a microphone and any wall, at least
DISTANCE_M = (0.5, 5.0)  # between mouth and microphone
IMAGE_ORDER = 3  # reflections by image sources
RAYS = 1_000  # three times as many decay alike
# Share of what a wall gives back that goes to all sides: furniture. With it, the simulated times
# are those asked for, within a sixth in the mean.
SCATTERING = 0.2
EYRING = 0.161  # s / m: 24 ln 10 over the speed of sound


def simulate_rooms(count: int, rt60: tuple[float, float], seed: int) -> list[np.ndarray]:
    """Impulse responses of random rooms: with mouth and microphone at random places in each.

    All walls of a room absorb the same share of all frequencies, by Eyring's formula (1930): it
    holds for dead rooms too, where Sabine's asks for walls that absorb more than everything.

    Args:
        count: how many rooms; one takes about 0.15 s on one core.
        rt60: shortest and longest reverberation time, in which the sound falls by 60 dB, s.
        seed: of all draws; it also seeds pyroomacoustics, whose generator is one for the process.

    Returns:
        Each (n,) float32, from the direct sound on, with energy 1: then a clip in the room is about
        as loud as before. (With a direct sound of 1, far microphones would be loud ones.)
    """
    import pyroomacoustics  # here, for it takes a second, and few commands need it

    random = np.random.default_rng(seed)
    pyroomacoustics.random.seed(seed)
    # The simulator centres each reflection in a filter of this length.
    lead = pyroomacoustics.constants.get("frac_delay_length") // 2
    responses = []
    for _ in progress(range(count), "simulating rooms"):
        size, mouth, microphone = _places(random)
        volume, surface = size.prod(), 2 * (size * np.roll(size, 1)).sum()
        absorption = 1 - np.exp(-EYRING * volume / (surface * random.uniform(*rt60)))
        room = pyroomacoustics.ShoeBox(
            size,
            fs=SAMPLE_RATE,
            materials=pyroomacoustics.Material(float(absorption), SCATTERING),
            max_order=IMAGE_ORDER,
            ray_tracing=True,
        )
        room.set_ray_tracing(n_rays=RAYS)
        room.add_source(mouth).add_microphone(microphone)
        room.compute_rir()
        delay = round(np.linalg.norm(mouth - microphone) / room.c * SAMPLE_RATE)
        response = room.rir[0][0][delay + lead :]
        responses.append((response / np.linalg.norm(response)).astype(np.float32))
    return responses


def energy_decays(responses: Sequence[np.ndarray], hop: int, frames: int) -> np.ndarray:
    """The energy (R, frames) float32 in each `hop` samples of R impulse responses."""
    decays = np.zeros((len(responses), frames), np.float32)
    for decay, response in zip(decays, responses, strict=True):
        padded = np.zeros(frames * hop, np.float32)
        used = response[: len(padded)]
        padded[: len(used)] = used
        decay[:] = np.square(padded).reshape(frames, hop).sum(1)
    return decays


def _places(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Size of a room, and where mouth and microphone are in it, m."""
    while True:
        size = random.uniform(*SIZE_M)
        mouth, microphone = random.uniform(WALL_M, size - WALL_M, (2, 3))
        if DISTANCE_M[0] <= np.linalg.norm(mouth - microphone) <= DISTANCE_M[1]:
            return size, mouth, microphone

"""Augmentation of whole batches on the training device, on log mel frames.

In: log mel frames (B, T, M) of recorded clips. Out: the same shape, with another place in time, a
room around it, noise, a narrower band, another level, masks; and words that nobody said. The powers
of two sounds add (their cross term is zero in the mean), so noise is mixed into the bands of frames
that are computed once, not into waves, and a room adds the powers of earlier frames: a training
step needs no FFT. All draws come from torch's global generator of the device, which the training
seeds anew for each step. It does not know models.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

# Of narrow bands, as shares of the mel scale up to 8 kHz: a telephone's 300 Hz and 3.4 kHz lie at
# 0.14 and 0.69, and 5.5 kHz, where much older sound ends, at 0.86.
LOW_EDGE, HIGH_EDGE = (0.0, 0.16), (0.65, 1.0)
LOST_DB = (15.0, 60.0)


@dataclass(frozen=True)
class Augmentation:
    """How much a training clip may differ from the recorded one; zeros change nothing.

    Args:
        shift_frames: largest shift in time to either side, frames; silence fills the gap (10 frames
            are the 100 ms of kws_streaming and BC-ResNet).
        gain_db: largest change of level to either side, dB.
        reverberation: share of the clips that are heard in a room, by a far microphone.
        noise_probability: share of the clips that get background noise (0.8 in the same recipes).
        snr_low_db: smallest ratio of the clip's energy to the noise's, dB.
        snr_high_db: largest such ratio, dB.
        band_limit: share of the clips that are heard through a narrow band, as telephones, old
            recordings and small loudspeakers have it.
        time_masks: stretches of frames masked in each clip (SpecAugment, arXiv 1904.08779).
        time_mask_frames: largest length of such a stretch, frames.
        mel_masks: groups of neighbouring mel bands masked in each clip.
        mel_mask_bands: largest width of such a group, bands.
        pseudo_words: share of the unknown clips that are made into words that nobody said, see
            `make_pseudo_words`.
    """

    shift_frames: int = 10
    gain_db: float = 10.0
    reverberation: float = 0.0
    noise_probability: float = 0.8
    snr_low_db: float = 5.0
    snr_high_db: float = 40.0
    band_limit: float = 0.0
    time_masks: int = 0
    time_mask_frames: int = 10
    mel_masks: int = 0
    mel_mask_bands: int = 5
    pseudo_words: float = 0.0

    def __call__(
        self, log_mel: Tensor, noise: Tensor, log_floor: float, decays: Tensor | None = None
    ) -> Tensor:
        """Shift, put into a room, add noise, narrow the band, change the level, mask.

        Args:
            log_mel: (B, T, M) log(power + log_floor).
            noise: (K, M) the same of background noise; a random place of it is added to each clip.
                With fewer than T frames none is added.
            log_floor: of the features.
            decays: (R, K) the energy that arrives in each frame after the direct sound, of R rooms;
                one of them is drawn for each clip. Without any, no clip is put into a room.
        """
        power = to_power(log_mel, log_floor)
        if self.shift_frames:
            power = shift(power, self.shift_frames)
        if self.reverberation and decays is not None and len(decays):
            chosen = torch.rand(len(power), device=power.device) < self.reverberation
            power = _reverberate(power, decays, chosen.nonzero()[:, 0])
        batch, frames, device = *power.shape[:2], power.device
        if len(noise) >= frames and self.noise_probability:
            start = torch.randint(len(noise) - frames + 1, (batch, 1), device=device)
            background = to_power(noise[start + torch.arange(frames, device=device)], log_floor)
            snr_db = _uniform(batch, self.snr_low_db, self.snr_high_db, device)
            ratio = _level(power) / _level(background).clamp(min=1e-9) * 10 ** (-snr_db / 10)
            noisy = torch.rand_like(ratio) < self.noise_probability
            power = power + background * ratio * noisy
        if self.band_limit:
            heard = torch.rand(batch, 1, 1, device=device) < self.band_limit
            power = torch.where(heard, power * _narrow_band(batch, power.shape[2], device), power)
        gain = 10 ** (_uniform(batch, -self.gain_db, self.gain_db, device) / 10)
        return self._mask(torch.log(power * gain + log_floor))

    def make_pseudo_words(self, log_mel: Tensor, unknown: Tensor) -> Tensor:
        """Make words that nobody said out of unknown ones: in use, unknown is any word at all.

        A quarter is played backwards. A quarter has another unknown word mixed over it. A quarter
        goes on as another unknown word, from somewhere in its middle third. A quarter begins as any
        clip of the batch and goes on as an unknown word; a few of these hold a whole short command,
        which is the price of teaching that the beginning of a command is no command.

        Args:
            log_mel: (B, T, M).
            unknown: (B,) bool, which clips are unknown words.
        """
        places = unknown.nonzero()[:, 0]
        device = places.device
        chosen = places[torch.rand(len(places), device=device) < self.pseudo_words]
        if not len(chosen):
            return log_mel
        batch, frames = len(chosen), log_mel.shape[1]

        def draw(below: int) -> Tensor:
            return torch.randint(below, (batch,), device=device)

        word = log_mel[chosen]
        other = log_mel[places[draw(len(places))]]
        any_clip = log_mel[draw(len(log_mel))]
        cut = frames // 3 + draw(frames // 3)[:, None, None]
        before = torch.arange(frames, device=device)[:, None] < cut
        kinds = torch.stack(
            (
                word.flip(1),
                torch.logaddexp(word, other),
                torch.where(before, word, other),
                torch.where(before, any_clip, other),
            )
        )
        made = kinds[draw(len(kinds)), torch.arange(batch, device=device)]
        return log_mel.index_copy(0, chosen, made)

    def _mask(self, log_mel: Tensor) -> Tensor:
        """Set masked frames and bands to the clip's mean: (B, T, M) to (B, T, M)."""
        if not self.time_masks and not self.mel_masks:
            return log_mel
        mean = log_mel.mean((1, 2), keepdim=True)
        masked = (log_mel - mean).unsqueeze(1)
        for axis, masks, size in (
            (2, self.time_masks, self.time_mask_frames),
            (3, self.mel_masks, self.mel_mask_bands),
        ):
            for _ in range(masks):
                # It draws a length below its argument.
                masked = mask_along_axis_iid(masked, size + 1, 0.0, axis)
        return masked.squeeze(1) + mean


def to_power(log_mel: Tensor, log_floor: float) -> Tensor:
    """Power of the mel bands, from log(power + log_floor), of any shape."""
    return (log_mel.exp() - log_floor).clamp(min=0)


def shift(power: Tensor, reach: int) -> Tensor:
    """Move each clip (B, T, M) by a random number of frames, up to `reach` to either side."""
    batch, frames, _ = power.shape
    offset = torch.randint(-reach, reach + 1, (batch, 1), device=power.device)
    source = torch.arange(frames, device=power.device) + offset
    rows = torch.arange(batch, device=power.device)[:, None]
    moved = power[rows, source.clamp(0, frames - 1)]
    return moved * ((source >= 0) & (source < frames)).unsqueeze(-1)


def _reverberate(power: Tensor, decays: Tensor, chosen: Tensor) -> Tensor:
    """Put the clips with these numbers into random rooms: (B, T, M) to (B, T, M).

    Late reflections are so many that they are as good as noise under an envelope that decays
    (Polack 1988); so their powers add, in each band (Lebart, Boucher and Denbigh 2001; Habets
    2007): the power of the clip, convolved with the room's decay. What this leaves out are the
    phases: in single frames and bands, reflections weaken or strengthen each other. Against waves
    in rooms of 0.2 to 1 s, frames of 200 recorded clips are off by 2.3 dB in the mean; without the
    room by 7.9 dB.
    """
    frames, device = power.shape[1], power.device
    decay = decays[torch.randint(len(decays), chosen.shape, device=device)]
    frame = torch.arange(frames, device=device)
    lag = frame[:, None] - frame
    heard = (lag >= 0) & (lag < decay.shape[1])
    weights = decay[:, lag.clamp(0, decay.shape[1] - 1)] * heard  # (chosen, T, T)
    # Half precision ends at 65,504, the power of a loud frame does not.
    with torch.autocast(device.type, enabled=False):
        return power.index_copy(0, chosen, weights @ power[chosen])


def _narrow_band(batch: int, bands: int, device: torch.device) -> Tensor:
    """Factors (B, 1, M) of the power in mel bands, of which the lowest and the highest are lost."""
    place = torch.arange(bands, device=device) / bands
    low, high = _uniform(batch, *LOW_EDGE, device), _uniform(batch, *HIGH_EDGE, device)
    lost = 10 ** (-_uniform(batch, *LOST_DB, device) / 10)
    return torch.where((place >= low) & (place < high), 1, lost)


def _uniform(batch: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.empty(batch, 1, 1, device=device).uniform_(low, high)


def _level(power: Tensor) -> Tensor:
    return power.mean((1, 2), keepdim=True)

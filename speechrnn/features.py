"""MFCC frames from a wave, causally: the same numbers for a whole clip and for a stream.

In: float wave (B, N) at 16 kHz. Out: features (B, T, F), one frame every `hop_ms`. Frame t ends
with sample (t + 1) * hop and sees nothing after it; before the first sample lies silence. It does
not know clips, labels or networks.
"""

import torch
from torch import Tensor, nn

from speechrnn.config import SAMPLE_RATE, ModelConfig


class Mfcc(nn.Module):
    """Mel-frequency cepstral coefficients (Davis and Mermelstein 1980), normalised.

    Window, mel and DCT matrices and the normalisation (mean and deviation of the training set) are
    buffers, so a saved model carries its front end. The mel filters are triangles with peaks at 1
    on HTK's scale.

    Args:
        config: its settings; frames come in multiples of `config.stack`, audio that does not fill
            one waits in `past`.
    """

    window: Tensor
    mel: Tensor
    dct: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        for name, shape in config.shapes.items():
            if name.startswith("mfcc."):
                self.register_buffer(name.removeprefix("mfcc."), torch.zeros(shape))
        nn.init.ones_(self.std)
        if not self.mel.is_meta:  # on `meta` the values are about to be loaded
            self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fill window, mel and DCT matrices from the settings."""
        from torchaudio.functional import create_dct, melscale_fbanks

        config = self.config
        self.window.copy_(torch.hann_window(config.window_size))
        low, high = config.mel_low_hz, config.mel_high_hz
        bins, bands = self.mel.shape
        self.mel.copy_(melscale_fbanks(bins, low, high, bands, SAMPLE_RATE))
        self.dct.copy_(create_dct(config.coefficients, bands, norm="ortho"))

    def initial_past(self, batch: int) -> Tensor:
        """The silence before the first sample: zeros (B, window - hop)."""
        return self.window.new_zeros(batch, self.config.window_size - self.config.hop)

    def frames(self, wave: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cut a wave into overlapping frames, each complete when its last sample is there.

        Args:
            wave: (B, N) float, full scale +-1.
            past: (B, P) audio that earlier calls left over; None at the start of a stream.

        Returns:
            The frames (B, T, window), not yet windowed, and the past for the next call.
        """
        config = self.config
        audio = torch.cat((self.initial_past(len(wave)) if past is None else past, wave), dim=1)
        overlap = config.window_size - config.hop
        used = (audio.shape[1] - overlap) // config.step_samples * config.step_samples
        if used <= 0:
            return audio.new_empty(len(audio), 0, config.window_size), audio
        windows = audio[:, : overlap + used].unfold(1, config.window_size, config.hop)
        return windows, audio[:, used:]

    def log_mel(self, frames: Tensor) -> Tensor:
        """Logarithm of the power in each mel band: (B, T, window) to (B, T, mel_bands).

        In float32 even under autocast: half precision ends at 65,504, the power of a loud frame
        does not.
        """
        if frames.shape[1] == 0:  # MKL refuses an FFT of nothing
            return frames.new_empty(len(frames), 0, self.config.mel_bands)
        with torch.autocast(frames.device.type, enabled=False):
            frames = frames if frames.dtype == torch.float64 else frames.float()
            spectrum = torch.fft.rfft(frames * self.window, self.config.fft_size)
            power = spectrum.real.square() + spectrum.imag.square()
            return torch.log(power @ self.mel + self.config.log_floor)

    def cepstrum(self, log_mel: Tensor) -> Tensor:
        """Normalised DCT coefficients: (B, T, mel_bands) to (B, T, F)."""
        with torch.autocast(log_mel.device.type, enabled=False):
            return (log_mel @ self.dct - self.mean) / self.std

    def forward(self, wave: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) of a wave (B, N), and the past for the next call."""
        frames, past = self.frames(wave, past)
        return self.cepstrum(self.log_mel(frames)), past

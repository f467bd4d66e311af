"""Pictures of 16-bit PCM: `waveform`, `spectrogram`, `goniometer` draw on axes, `sheet` puts them on one page."""

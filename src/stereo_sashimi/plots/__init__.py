"""Pictures of 16-bit PCM: `waveform`, `spectrogram`, `goniometer` draw on axes, `sheet` puts them on one page."""

from stereo_sashimi.plots.goniometer import goniometer as goniometer
from stereo_sashimi.plots.sheet import save_png as save_png
from stereo_sashimi.plots.sheet import sheet as sheet
from stereo_sashimi.plots.spectrogram import spectrogram as spectrogram
from stereo_sashimi.plots.waveform import waveform as waveform

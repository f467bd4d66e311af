"""Audio as integers: files (`io`), channels (`channels`), codes (`quantize`), sample rates (`resample`)."""

from stereo_sashimi.audio.channels import ChannelError as ChannelError
from stereo_sashimi.audio.io import AudioError as AudioError
from stereo_sashimi.audio.io import probe as probe
from stereo_sashimi.audio.io import read_pcm as read_pcm
from stereo_sashimi.audio.io import write_pcm as write_pcm
from stereo_sashimi.audio.quantize import decode as decode
from stereo_sashimi.audio.quantize import encode as encode
from stereo_sashimi.audio.quantize import float_to_pcm as float_to_pcm
from stereo_sashimi.audio.resample import resample as resample

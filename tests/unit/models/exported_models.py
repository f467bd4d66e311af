"""What tests of files of models share."""

from collections.abc import Callable
from typing import Any

import torch

from stereo_sashimi.models.language_model import LanguageModel
from stereo_sashimi.nn.heads.head import DMLHeadConfig
from tiny_config import S4D, tiny_config


def make(n_channels=2, merge="concat", decoder=None, layer=S4D, unet=False) -> LanguageModel:
    torch.manual_seed(1)
    decoder = decoder or DMLHeadConfig("independent", n_mixtures=2)
    return tiny_config(n_channels, merge, decoder, pad_len=2, pool=(2,), unet=unet, layer=layer).build().eval()


def same_bits(first: LanguageModel, second: LanguageModel) -> bool:
    codes = torch.randint(256, (2, 11, first.spec.n_channels))
    with torch.no_grad():
        return torch.equal(first.log_prob(codes), second.log_prob(codes))


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets what these keys lead to."""

    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    """Takes it away."""

    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return change


def flipped(data: bytes, place: float, byte: int) -> bytes:
    """With bits of one byte turned, at this share of the length."""
    changed = bytearray(data)
    changed[int(len(data) * place)] ^= byte
    return bytes(changed)

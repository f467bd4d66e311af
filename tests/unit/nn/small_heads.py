"""What test_heads.py and test_head_training.py share."""

import pytest
import torch

from stereo_sashimi.nn.heads.head import COUPLINGS, CategoricalHeadConfig, DMLHeadConfig, Head

WIDTH = 12
CONFIGS = [kind(coupling=coupling) for kind in (CategoricalHeadConfig, DMLHeadConfig) for coupling in COUPLINGS]
each_head = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.kind}-{c.coupling}")
each_width = pytest.mark.parametrize("n_channels", [1, 2, 3])


def build(config: CategoricalHeadConfig | DMLHeadConfig, n_channels: int, n_levels: int = 256) -> Head:
    """A head of which no parameter is trivial."""
    torch.manual_seed(3)
    head = config.build(WIDTH, n_channels, n_levels)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return head


def batch(n_channels: int, n_levels: int = 256, shape: tuple[int, int] = (2, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(*shape, WIDTH, generator=generator)
    return hidden, torch.randint(n_levels, (*shape, n_channels), generator=generator)

"""Training: the LightningModule, optimizers and callbacks."""

from stereo_sashimi.tasks.autoregressive import AutoregressiveTask as AutoregressiveTask

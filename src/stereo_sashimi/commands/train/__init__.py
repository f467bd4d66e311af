"""The `train` command: config to trainer, header, resume, stopping."""

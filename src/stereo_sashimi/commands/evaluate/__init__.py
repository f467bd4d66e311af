"""The `evaluate` command: bits of recordings beside FLAC and WavPack, and the page about them."""

"""The `generate` command."""

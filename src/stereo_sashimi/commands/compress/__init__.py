"""The `compress` command."""

"""The `page` command: draw, listen and compress in a browser."""

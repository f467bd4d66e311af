"""Pictures of 16-bit PCM: the panels draw on axes, `sheet` puts them on one page."""

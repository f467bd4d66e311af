"""What several commands use: config checks, overrides, error messages, run folders, progress."""

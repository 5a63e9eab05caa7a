"""The schema of option files: every key with its type, range, default and meaning, written once."""

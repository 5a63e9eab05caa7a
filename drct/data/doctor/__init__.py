"""The check of a folder of images before one trains on it: `drct prepare check`."""

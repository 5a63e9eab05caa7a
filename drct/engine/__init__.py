"""Runs: option files, devices, checkpoints, metrics, and the training and test loops."""

"""Surroundings of a process: devices, other processes, checkpoint files."""

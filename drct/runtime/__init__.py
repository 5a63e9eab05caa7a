"""What a process runs on: devices, other processes, checkpoint files."""

"""Run the command `drct` by `python -m drct`."""

from drct.cli import entry_point

if __name__ == "__main__":
    entry_point()

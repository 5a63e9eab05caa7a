"""What a weight file says of its training, beside what is needed to load it: licence, data, recipe, results, ..."""

from collections.abc import Mapping
from typing import Any

from drct.errors import DRCTError
from drct.text import brief

# Entries of the metadata that say how to load a file, and how it was written
TECHNICAL = (
    *("drct_version", "drct_config", "network_g", "network", "name", "scale", "minimum"),
    *("made_from", "entry", "precision", "format"),
)
LONGEST = 2000  # characters of an entry


def card_in(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of a file's metadata that are not technical."""
    return {key: text for key, text in metadata.items() if key not in TECHNICAL}


def checked_card(entries: Mapping[str, Any], file: object) -> dict[str, str]:
    """Return the entries of a YAML file for the metadata of weights, each in one line.

    Args:
        entries: Content of the file: texts and numbers by name.
        file: Name of the file, for errors.

    Raises:
        DRCTError: if an entry is no text, or has the name of a technical one.
    """
    card: dict[str, str] = {}
    for key, value in entries.items():
        if not isinstance(key, str) or not key.isprintable() or not key.strip():
            raise DRCTError(f"{file}: {brief(key)} is not a name: names of entries are text")
        if key in TECHNICAL:
            raise DRCTError(f"{file}: {key} is written by drct itself: remove it, or choose another name")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise DRCTError(f"{file}: {key} must be text or a number, not {brief(value)}")
        card[key] = " ".join(str(value).split())
        if len(card[key]) > LONGEST:
            raise DRCTError(f"{file}: {key} has {len(card[key]):,} characters, more than {LONGEST:,}: shorten it")
    return card

"""Small pieces of text that commands and reports share."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Format a Markdown table, which ends with a newline.

    The first `left` columns are aligned to the left; the others, which hold numbers, to the right.
    """
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def brief(value: object, length: int = 160) -> str:
    """Return the `repr` of a value, without its middle if it is longer than `length` characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # such as a number of 5,000 digits
        return f"a {type(value).__name__}"
    return text if len(text) <= length else f"{text[: length - 40]} ... {text[-30:]}"


def count(number: int, noun: str) -> str:
    """Format a number with its noun in the singular or plural, such as '1 image' or '3 images'."""
    return f"{number} {noun}{'s' * (number != 1)}"

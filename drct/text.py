"""Small pieces of text that several commands and reports write."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table that ends with a newline.

    Args:
        header: Titles of the columns.
        rows: Cells of each line.
        left: Number of leading columns aligned to the left; the others, of numbers, are aligned to the right.
    """
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name if it has none."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def count(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural, such as '1 image' or '3 images'."""
    return f"{number} {noun}{'s' * (number != 1)}"

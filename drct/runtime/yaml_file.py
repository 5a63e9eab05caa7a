"""Reading YAML without running code in it, as option files and `--force_yml` need it."""

import os
import re
from typing import Any

import yaml

from drct.errors import DRCTError
from drct.text import brief

PLAIN = ("null", "bool", "int", "float", "str", "seq", "map", "merge", "value")  # tags; dates are text
MOST_VALUES = 100_000  # of an option file, with those that aliases repeat
DEEPEST = 50  # levels of sections and lists


class _Loader(yaml.SafeLoader):
    """Safe YAML of plain values that reads 2e-4 as a number (text in YAML 1.1) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, f"{brief(key)} is not a key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {brief(key)} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix("tag:yaml.org,2002:") in PLAIN
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: Any) -> Any:
    """Return what YAML text, or an open file of it, stands for: plain values in sections and lists.

    Raises `yaml.YAMLError` or `ValueError`.
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except RecursionError:
        raise ValueError(f"sections and lists are nested more than {DEEPEST} deep") from None
    _check_extent(value)
    return value


def _check_extent(value: Any) -> None:
    """Raise `ValueError` if sections and lists are nested without end, or aliases make them grow beyond measure."""
    count, level = 0, [value]
    for _ in range(DEEPEST):
        count += sum(len(_entries(part)) for part in level)
        if count > MOST_VALUES:
            raise ValueError(f"there are more than {MOST_VALUES:,} values")
        level = [entry for part in level for entry in _entries(part)]
        if not level:
            return
    raise ValueError(f"sections and lists are nested more than {DEEPEST} deep")


def _entries(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def load_yaml(path: str | os.PathLike, kind: str = "option file") -> dict[str, Any]:
    """Read an option file, or a YAML file of another kind. Raises `DRCTError` with kind, file, line and problem."""
    try:
        with open(path, encoding="utf-8") as file:
            opt = parse_yaml(file)
    except OSError as error:
        raise DRCTError(f"cannot read {kind} {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DRCTError(f"{kind} {path}{where}: {problem}") from error
    except ValueError as error:  # an explicit tag with a value that does not parse, such as !!float abc
        raise DRCTError(f"{kind} {path}: {error}") from error
    if not isinstance(opt, dict):
        content = "options" if kind == "option file" else "entries"
        raise DRCTError(f"{kind} {path} does not hold {content} (key: value)")
    return opt

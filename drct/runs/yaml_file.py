"""Reading YAML without running code in it, as option files and `--force_yml` need it."""

import os
import re
from typing import Any

import yaml

from drct.errors import DRCTError


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 2e-4 as a number (a string in YAML 1.1) and refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is not a key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: Any) -> Any:
    """Return what YAML text, or an open file of it, stands for. Raises `yaml.YAMLError` or `ValueError`."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader


def load_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Read an option file. Raises `DRCTError` with the file, line and problem."""
    try:
        with open(path, encoding="utf-8") as file:
            opt = parse_yaml(file)
    except OSError as error:
        raise DRCTError(f"cannot read option file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DRCTError(f"option file {path}{where}: {problem}") from error
    except ValueError as error:  # an explicit tag with a value that does not parse, such as !!float abc
        raise DRCTError(f"option file {path}: {error}") from error
    if not isinstance(opt, dict):
        raise DRCTError(f"option file {path} does not hold options (key: value)")
    return opt

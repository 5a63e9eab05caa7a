"""Types of values in option files. Each says in a few words what a value must be, for errors and documentation."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError, PydanticUseDefault, core_schema

T = TypeVar("T")


class MustBe:
    """Annotation that says in a few words what a value must be, in place of pydantic's messages."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Let pydantic validate, and replace whatever it complains about."""
        return core_schema.no_info_wrap_validator_function(self._validate, handler(source))

    def _validate(self, value: Any, validate: Any) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise PydanticCustomError("must_be", self.words) from None


class NullIsDefault:
    """Annotation that makes `key: ~` in an option file the same as no such key."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Take the default for null."""
        return core_schema.no_info_before_validator_function(self._validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: Any) -> dict[str, Any]:
        """Tell editors that null is allowed."""
        return {"anyOf": [handler(schema), {"type": "null"}]}

    def _validate(self, value: Any) -> Any:
        if value is None:
            raise PydanticUseDefault
        return value


def _whole(value: Any) -> Any:
    """Turn 1e4, which YAML reads as a float, into a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> Any:
    """Turn a name that looks like a number, such as 2024, into text."""
    return value if isinstance(value, dict | list) else str(value)


OrNull = Annotated[T, NullIsDefault()]
_WHOLE = BeforeValidator(_whole)
EMPTY_IS_NONE = BeforeValidator(lambda value: value or None)

Switch = Annotated[bool, Field(strict=True), MustBe("true or false")]
Number = Annotated[float, Field(strict=True), MustBe("a number")]
PositiveNumber = Annotated[float, Field(strict=True, gt=0), MustBe("a number above 0")]
Rate = Annotated[float, Field(strict=True, ge=0, le=1), MustBe("a number from 0 to 1")]
Decay = Annotated[float, Field(strict=True, ge=0, lt=1), MustBe("a number from 0 (no average) to below 1")]
Whole = Annotated[int, Field(strict=True), _WHOLE, MustBe("a whole number")]
NotNegative = Annotated[int, Field(strict=True, ge=0), _WHOLE, MustBe("0 or a whole number above")]
Positive = Annotated[int, Field(strict=True, gt=0), _WHOLE, MustBe("a whole number above 0")]
Wholes = Annotated[list[Positive], MustBe("a list of whole numbers")]
Text = Annotated[str, Field(strict=True), MustBe("text")]
Name = Annotated[str, BeforeValidator(_text), MustBe("text")]
FolderName = Annotated[
    str,
    Field(strict=True, pattern=r"^[^/\\]*[^/\\.][^/\\]*$"),
    BeforeValidator(_text),
    MustBe("text that can be a folder's name"),
]
Folder = Annotated[str, Field(strict=True), MustBe("the path of one folder")]
File = Annotated[str, Field(strict=True), MustBe("the path of one file")]
NumGPU = Annotated[
    Annotated[int, Field(strict=True, ge=0), _WHOLE] | Literal["auto"], MustBe("0 (CPU), a number of GPUs or auto")
]
Port = Annotated[int, Field(strict=True, gt=0, lt=65536), _WHOLE, MustBe("the number of a port")]
Precision = Annotated[Literal["fp32", "bf16", "fp16"], MustBe("fp32, bf16 or fp16")]
PerChannel = Annotated[Number | list[Number], MustBe("a number or a list of one per channel")]
ImageSize = Annotated[Positive | list[Positive], MustBe("a whole number above 0, or a height and a width")]

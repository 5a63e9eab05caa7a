"""Building blocks of the schema of option files: types of values with their words, and sections of keys."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, PydanticUseDefault, core_schema

T = TypeVar("T")


@dataclass(frozen=True)
class MustBe:
    """Annotation that says in a few words what a value must be, in place of pydantic's messages."""

    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Let pydantic validate, and replace its error messages."""
        return core_schema.no_info_wrap_validator_function(self._validate, handler(source))

    def _validate(self, value: Any, validate: Any) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            limits = [entry["ctx"]["le"] for entry in error.errors() if entry["type"] == "less_than_equal"]
            words = f"{self.words}, at most {limits[0]}" if limits and "from" not in self.words else self.words
            raise PydanticCustomError("must_be", words) from None


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
WHOLE = BeforeValidator(_whole)
EMPTY_IS_NONE = BeforeValidator(lambda value: value or None)

_FINITE = Field(strict=True, allow_inf_nan=False)

Switch = Annotated[bool, Field(strict=True), MustBe("true or false")]
Number = Annotated[float, _FINITE, MustBe("a number")]
PositiveNumber = Annotated[float, _FINITE, Field(gt=0), MustBe("a number above 0")]
Ratio = Annotated[float, _FINITE, Field(gt=0, le=1e4), MustBe("a number above 0")]
Divisor = Annotated[float, _FINITE, Field(ge=0.01, le=1e4), MustBe("a number from 0.01 to 10000")]
Rate = Annotated[float, _FINITE, Field(ge=0, le=1), MustBe("a number from 0 to 1")]
Decay = Annotated[float, _FINITE, Field(ge=0, lt=1), MustBe("a number from 0 (no average) to below 1")]
LearningRate = Annotated[float, _FINITE, Field(ge=0), MustBe("a number, the learning rate")]
Whole = Annotated[int, Field(strict=True, ge=-(10**12), le=10**12), WHOLE, MustBe("a whole number")]
NotNegative = Annotated[int, Field(strict=True, ge=0, le=10**12), WHOLE, MustBe("0 or a whole number above")]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1), WHOLE, MustBe("0 or a whole number above")]
Positive = Annotated[int, Field(strict=True, gt=0, le=10**12), WHOLE, MustBe("a whole number above 0")]
Size = Annotated[int, Field(strict=True, gt=0, le=2**16), WHOLE, MustBe("a whole number above 0")]  # in memory
Scale = Annotated[int, Field(strict=True, gt=0, le=64), WHOLE, MustBe("a whole number above 0")]
Margin = Annotated[int, Field(strict=True, ge=0, le=2**16), WHOLE, MustBe("0 or a whole number above")]
Wholes = Annotated[list[Size], Field(min_length=1, max_length=256), MustBe("a list of whole numbers")]
Counts = Annotated[
    list[Annotated[int, Field(strict=True, gt=0, le=64), WHOLE]],
    Field(min_length=1, max_length=256),
    MustBe("a list of whole numbers from 1 to 64"),
]
Text = Annotated[str, Field(strict=True), MustBe("text")]
Name = Annotated[
    str,
    Field(strict=True, pattern=r"^[^\x00-\x1f]*$", max_length=100),
    BeforeValidator(_text),
    MustBe("text of one line and at most 100 letters"),
]
FolderName = Annotated[
    str,
    Field(strict=True, pattern=r"^[^/\\\x00-\x1f]*[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$", max_length=200),
    BeforeValidator(_text),
    MustBe("text that can be a folder's name"),
]
Folder = Annotated[str, Field(strict=True), MustBe("the path of one folder")]
File = Annotated[str, Field(strict=True), MustBe("the path of one file")]
NumGPU = Annotated[
    Annotated[int, Field(strict=True, ge=0, le=10**4), WHOLE] | Literal["auto"],
    MustBe("0 (CPU), a number of GPUs or auto"),
]
Port = Annotated[int, Field(strict=True, gt=0, lt=65536), WHOLE, MustBe("the number of a port")]
Precision = Annotated[Literal["fp32", "bf16", "fp16"], MustBe("fp32, bf16 or fp16")]
PerChannel = Annotated[Number | list[Number], MustBe("a number or a list of one per channel")]
ImageSize = Annotated[
    Size | Annotated[list[Size], Field(min_length=2, max_length=2)],
    MustBe("a whole number above 0, or a height and a width"),
]


def _ascending(value: list[float]) -> list[float]:
    if value[0] > value[1]:
        raise ValueError
    return value


Range = Annotated[
    list[Annotated[Number, Field(ge=0)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_ascending),
    MustBe("two numbers of at least 0, the smaller first"),
]


def described(meaning: str, default: Any = None) -> Any:
    """Declare a key that may be left out."""
    return Field(default, description=meaning)


def required(meaning: str) -> Any:
    """Declare a key that must be given."""
    return Field(description=meaning)


class Section(BaseModel):
    """Section of an option file. Unknown keys are kept; a warning names those that resemble known ones."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    must_be: ClassVar[str] = "a section of keys"

    @model_validator(mode="before")
    @classmethod
    def _check_section(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise PydanticCustomError("must_be", cls.must_be)
        for key in value:
            if not isinstance(key, str):
                words = "has the key {key}, but keys are text: remove it, or write it in quotes"
                raise PydanticCustomError("problem", words, {"key": repr(key)})
        needed = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {key: entry for key, entry in value.items() if entry is not None or key not in needed}


def as_in(section: type[Section], key: str, default: Any = ...) -> Any:
    """Describe a key as another section does, but make it required or change its default."""
    return described(str(section.model_fields[key].description), default)


class Arguments(Section):
    """Name of a class and its arguments, which the class checks itself."""

    must_be: ClassVar[str] = "a section with a type"
    type: Text = required("Name of the class.")

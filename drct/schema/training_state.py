"""The schema of training states, `<iter>.state`: what must hold before anything of one is used.

States of BasicSR and of early versions, which lack some entries, fit it too.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError

from drct.text import brief

Count = Annotated[int, Field(ge=0, le=10**12)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class OptimizerState(_Entry):
    """State dict of an optimizer of PyTorch."""

    state: dict[int, dict[str, Any]]
    param_groups: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Best(_Entry):
    """Best value of a metric so far, and its iteration."""

    better: Literal["higher", "lower"]
    val: float
    iter: Annotated[int, Field(ge=-1, le=10**12)]


class TrainingState(_Entry):
    """Content of a training state."""

    epoch: Count
    iter: Count
    optimizers: list[OptimizerState]
    schedulers: list[dict[str, Any]]
    kinds: list[str] = []
    networks: list[Literal["net_g", "net_d"]] = []
    options: Json[dict[str, Any]] | None = None
    scaler: dict[str, Any] | None = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    samples: Count = 0
    validated: Count = 0
    best_metric_results: dict[str, dict[str, Best]] = {}


def problem_of_state(content: Any) -> str:
    """Say what keeps the content of a file from being a training state; '' if nothing does."""
    try:
        TrainingState.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part)[:60] for part in first["loc"])
        if first["type"] == "missing":
            return f"it has no {key}"
        return f"{f'its {key}' if key else 'it'} cannot be {brief(first['input'], 80)}"
    return ""

"""What tiles change in a picture, by their overlap, as it is kept between runs."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Levels = Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=2)]


class TileErrors(BaseModel):
    """Differences between a sample in four tiles and as a whole, beside the cuts, in levels of 255.

    Entry k of `rms` and `largest` is about the pixels from k * step to (k + 1) * step away from the next cut, in input
    pixels: those beside the cuts of tiles that overlap by k * step on each side.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    half: int = Field(gt=0)  # side of a tile, half of the sample's, in input pixels
    step: int = Field(gt=0)  # input pixels
    rms: Levels
    largest: Levels
    slowdown: float = Field(gt=0, allow_inf_nan=False)  # time of the tiles, as a multiple of that of the whole

    @model_validator(mode="after")
    def _check(self) -> "TileErrors":
        if not len(self.rms) == len(self.largest) == self.half // self.step:
            raise ValueError("there is not one number for each overlap")
        return self

    def overlap(self, allowed: float) -> int | None:
        """Return the smallest overlap that keeps the RMS to `allowed`, as all larger ones do; None if none does."""
        return next((k * self.step for k in range(len(self.rms)) if max(self.rms[k:]) <= allowed), None)

    def worst(self, overlap: int) -> tuple[float, float]:
        """Return the RMS beside the cuts and the largest difference of any pixel for an overlap."""
        first = overlap // self.step
        return max(self.rms[first:]), max(self.largest[first:])

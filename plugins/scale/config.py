"""The `[scale]` table of a recipe."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from core.config.base import Endpoint, RecipeTable


class ScaleConfig(RecipeTable):
    """Which processes produce samples. All else stays in the command's process."""

    identifies_run: ClassVar[bool] = False

    runner: Literal["local", "dask", "ray"] = "local"
    """`local`: the command's own process. Others: processes here or in a cluster."""
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """To start on this machine."""
    address: Endpoint | None = None
    """Of a running cluster (`tcp://HOST:8786`, `HOST:6379`, `auto`) with the recipe's files at the same paths."""
    port: int = Field(0, ge=0, lt=65536)
    """To listen for workers. 0: any free one."""

    @model_validator(mode="after")
    def _check_runner(self) -> Self:
        if self.runner == "local" and (self.workers or self.address):
            raise ValueError('`workers` and `address` need runner = "dask" or "ray"')
        if self.runner != "local" and bool(self.workers) == bool(self.address):
            raise ValueError(
                f"runner = {self.runner!r} needs either `workers`, to start here, or the `address` of a cluster"
            )
        return self

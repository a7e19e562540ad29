"""The user's own tools in a recipe: Python modules and MCP servers, one per table of `[[tools]]`. Knows no family."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from core.addresses import normalize_base_url
from core.config.base import CommandLine, Endpoint, FileName, KeyVariable, ProgramFile, RecipeTable
from core.secrets import validate_variable_name


class ToolSourceConfig(RecipeTable):
    """One source of tools. A recipe never inherits its `module` or `command`."""

    module: ProgramFile | None = None
    """A Python file of public functions, run in the sandbox."""
    schemas: FileName | None = None
    """`module`: a JSON file. Default: type hints and docstrings."""
    command: CommandLine | None = Field(None, min_length=1)
    """An MCP server over stdio, started in the recipe's folder, with your rights."""
    env: tuple[str, ...] = ()
    """`command`: variables for it, besides PATH, HOME and LANG."""
    url: Endpoint | None = None
    """An MCP server over streamable HTTP."""
    api_key_env: KeyVariable = ""
    """`url`: the variable with the key, sent as bearer token."""
    only: tuple[str, ...] = ()
    """By name. Default: all."""
    seconds: float = Field(10.0, gt=0, le=600)
    """Of a call."""
    memory_mb: int = Field(256, ge=64, le=8192)
    """`module`: of a call."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        return None if url is None else normalize_base_url(url)

    @field_validator("api_key_env")
    @classmethod
    def _check_variable_name(cls, name: str) -> str:
        return validate_variable_name(name)

    @field_validator("env")
    @classmethod
    def _check_variable_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(validate_variable_name(name) for name in names)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        given = [name for name in ("module", "command", "url") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs one of `module`, `command` and `url`, and has {' and '.join(given) or 'none'}")
        for key, source in (("schemas", "module"), ("env", "command"), ("api_key_env", "url")):
            if getattr(self, key) and given[0] != source:
                raise ValueError(f"`{key}` belongs to `{source}`, and this table has a `{given[0]}`")
        return self

    @property
    def title(self) -> str:
        """The source in a few words, without a key."""
        return self.module or self.url or " ".join(self.command or ())


ToolSources = Annotated[tuple[ToolSourceConfig, ...], Field(max_length=16)]
"""The section `[[tools]]`."""

"""What a table of a recipe is."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict


class RecipeTable(BaseModel):
    """A table of the recipe: frozen, unknown keys refused, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    identifies_run: ClassVar[bool] = True
    """Whether the table can change samples, dataset or student. Of a plugin's section only."""


class _EndpointMarker:
    """Marks the type of a key that names an endpoint, which would get prompts or keys."""


class _FileMarker:
    """Marks the type of a key that names a file or folder."""


Endpoint = Annotated[str, _EndpointMarker()]
"""A key that names an endpoint: what a server for untrusted clients checks, whichever plugin the table is of."""
FileName = Annotated[str, _FileMarker()]
"""A key that names a file or folder, searched in the recipe's folder, the working directory and the project, so that `extends`
moves it, whichever plugin the table is of.
"""


def list_endpoints(table: BaseModel, where: str = "") -> Iterator[tuple[str, str]]:
    """Every endpoint in a table and its inner tables, with its dotted path."""
    for name, field in type(table).model_fields.items():
        value, path = getattr(table, name), f"{where}{name}"
        if isinstance(value, BaseModel):
            yield from list_endpoints(value, f"{path}.")
        elif isinstance(value, str) and any(map(_is_endpoint, (*field.metadata, field.annotation))):
            yield path, value


def list_endpoint_keys(table: type[BaseModel], where: str = "") -> Iterator[str]:
    """The dotted paths of the keys of a table that name an endpoint."""
    for name, field in table.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from list_endpoint_keys(field.annotation, f"{where}{name}.")
        elif any(map(_is_endpoint, (*field.metadata, field.annotation))):
            yield f"{where}{name}"


def list_file_keys(table: type[BaseModel]) -> list[str]:
    """The keys of a table that name a file or folder."""
    return [
        name
        for name, field in table.model_fields.items()
        if any(isinstance(part, _FileMarker) for part in field.metadata)
    ]


def _is_endpoint(annotation: Any) -> bool:
    inner = (*getattr(annotation, "__metadata__", ()), *get_args(annotation))
    return isinstance(annotation, _EndpointMarker) or any(map(_is_endpoint, inner))

"""What a table of a recipe is, and the marks of keys that name a file, a program, an endpoint or a variable with a key.

A mark is in the type of a key, so that whoever must know such keys (a server for untrusted clients, the reader of a stranger's
run, `extends`) finds them in the tables of any plugin.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

Mark = Literal["endpoint", "file", "folder", "program", "command", "variable"]


class RecipeTable(BaseModel):
    """A table of the recipe: frozen, unknown keys refused, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identifies_run: ClassVar[bool] = True
    """Whether the table can change samples, dataset or student. Of a plugin's section only."""

    def list_files(self) -> Sequence[str]:
        """The files that a filter or a plugin's section reads, by their names in the recipe: their content is part of the run's
        identity.
        """
        return ()


def check_repeats(key: str, number: int, temperature: float) -> None:
    """Raise ValueError if a teacher would give one reply several times."""
    if number > 1 and not temperature:
        raise ValueError(f"{key} = {number} at temperature = 0 would be one reply {number} times; raise temperature")


@dataclass(frozen=True)
class _Marker:
    mark: Mark


Endpoint = Annotated[str, _Marker("endpoint")]
"""A key that names an endpoint, which would get prompts or keys."""
FileName = Annotated[str, _Marker("file")]
"""A key that names a file, resolved like all files of a recipe: in its folder, the working directory or the project. The file's
content is part of the run's identity. A check gets the absolute path.
"""
FolderName = Annotated[str, _Marker("folder")]
"""As `FileName`, of a folder, or of a file that its plugin itself makes part of the run's identity."""
ProgramFile = Annotated[str, _Marker("program")]
"""As `FileName`, of a file that is executed: never inherited by `extends`."""
CommandLine = Annotated[tuple[str, ...], _Marker("command")]
"""A program that is started, with its arguments: never inherited either."""
KeyVariable = Annotated[str, _Marker("variable")]
"""The environment variable whose key is sent to the `Endpoint` in the same table."""


def find_mark(field: FieldInfo) -> Mark | None:
    return next((mark for part in (*field.metadata, field.annotation) if (mark := _read_mark(part))), None)


def _read_mark(annotation: Any) -> Mark | None:
    if isinstance(annotation, _Marker):
        return annotation.mark
    inner = (*getattr(annotation, "__metadata__", ()), *get_args(annotation))
    return next((mark for part in inner if (mark := _read_mark(part))), None)


def list_tables(value: Any, where: str = "") -> Iterator[tuple[str, BaseModel]]:
    """A table, and the tables in it at any depth, also in lists and tables of names, each with its dotted path."""
    if isinstance(value, BaseModel):
        yield where, value
        inner: list[tuple[Any, Any]] = list(value)
    elif isinstance(value, Mapping):
        inner = list(value.items())
    else:
        inner = list(enumerate(value)) if isinstance(value, tuple | list) else []
    for name, part in inner:
        yield from list_tables(part, f"{where}.{name}".lstrip("."))


def list_marked(table: BaseModel, *marks: Mark) -> Iterator[tuple[str, Any]]:
    """Every value in a table and its inner tables whose key has one of these marks, with its dotted path."""
    for where, inner in list_tables(table):
        for name, field in type(inner).model_fields.items():
            if find_mark(field) in marks and (value := getattr(inner, name)) is not None:
                yield f"{where}.{name}".lstrip("."), value


def list_inner_types(annotation: Any) -> list[type[BaseModel]]:
    """The tables in a type, such as `Table | None` or `tuple[Table, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in list_inner_types(part)]


def list_marked_keys(annotation: Any, *marks: Mark, where: str = "") -> Iterator[str]:
    """The dotted paths of the keys of a table, or of a list of tables, that have one of these marks."""
    for table in list_inner_types(annotation):
        for name, field in table.model_fields.items():
            if find_mark(field) in marks:
                yield f"{where}{name}"
            else:
                yield from list_marked_keys(field.annotation, *marks, where=f"{where}{name}.")


def read_table_type(table: type[BaseModel]) -> str:
    """The only value of the table's key `type`; "" if its type is no `Literal` of one value."""
    values = get_args(table.model_fields["type"].annotation)
    return str(values[0]) if len(values) == 1 else ""


def put_below(error: ValidationError, name: str) -> ValidationError:
    """`error` with `name` before each of its keys, as pydantic names the member of a union."""
    lines = [
        InitErrorDetails(
            type=PydanticCustomError(detail["type"], "{sentence}", {"sentence": detail["msg"]}),
            loc=(name, *detail["loc"]),
            input=detail["input"],
        )
        for detail in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, lines)

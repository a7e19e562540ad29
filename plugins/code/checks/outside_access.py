"""What a solution reaches for beyond its arguments: files, the clock, Python's own machinery. Read from its source.

This guides honest code; the sandbox is the protection. Knows no tests and runs nothing.
"""

import ast
import importlib
import re
import symtable
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType

from agents.checks.base import first_fault
from plugins.code.checks.call_harness import MODULES

FORBIDDEN_BUILTINS = {
    "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "exit", "getattr", "globals", "input", "locals",
    "open", "quit", "setattr", "vars",
}  # fmt: skip
FORBIDDEN_NAMES = {
    "sys", "_sys", "os", "_os", "modules", "builtins", "open", "FileIO", "inspect", "importlib", "import_module", "gc",
    "attrgetter", "methodcaller", "get_type_hints", "ForwardRef", "bltns", "open_code", "Formatter", "get_field",
    "update_wrapper",
}  # fmt: skip
"""Refused modules as attributes of allowed ones, and functions that read or set an attribute by name."""
CLOCKS = {"now", "today", "utcnow", "fromtimestamp"}
"""Functions whose value depends on the day or the place."""
IMPORT_HINT = f"a solution may import {', '.join(MODULES)}"
KNOWN_DUNDERS = {"__name__", "__main__", "__doc__", "__init__", "__post_init__", "__slots__", "__all__"}
DUNDER = re.compile(r"__[A-Za-z]\w*?__")
OPERATORS = {
    f"__{name}__"
    for name in """abs add and bool call contains copy delitem divmod enter eq exit float floordiv format ge getitem gt hash
    iadd iand ifloordiv imod imul index int invert ior ipow isub iter itruediv ixor le len lshift lt matmul missing mod mul ne
    neg next or pos pow radd rand repr reversed rfloordiv rlshift rmod rmul ror round rpow rrshift rshift rsub rtruediv rxor
    setitem str sub truediv xor""".split()
}
"""Operators by name, such as `key=rows.__getitem__`: each does what Python's syntax does with the same value. None leads to a
class, a frame, a namespace or a builtin, as `__class__`, `__self__`, `__globals__` and `__builtins__` do."""


def find_outside_access(source: str, tree: ast.Module) -> str | None:
    """What a solution reaches for, in a sentence; None if it works on its arguments alone."""
    modules = {
        alias.asname or alias.name.partition(".")[0]: alias.name if alias.asname else alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return _find_forbidden_builtin(source, tree) or first_fault(
        [_find_node_access(node, modules) for node in ast.walk(tree)]
    )


def _find_forbidden_builtin(source: str, tree: ast.Module) -> str | None:
    """Which of Python's functions that reach outside a solution uses.

    A parameter or local variable `open` hides the builtin in its function and in nested ones. A global or class variable
    hides it only while it is bound, so such a binding does not count.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tables = [symtable.symtable(source, "solution.py", "exec")]
    except (SyntaxError, ValueError, RecursionError) as error:
        return f"the solution cannot be compiled: {error}"
    # Names of `FORBIDDEN_BUILTINS` that a scope reads from outside, each with the scope's first line
    outside_names = []
    while tables:
        table = tables.pop()
        tables += table.get_children()
        own = table.get_type() == "function"
        for symbol in table.get_symbols():
            inside = own and not symbol.is_global()
            if symbol.is_referenced() and symbol.get_name() in FORBIDDEN_BUILTINS and not inside:
                outside_names.append((symbol.get_name(), table.get_lineno()))
    if not outside_names:
        return None
    name, line = min(outside_names, key=lambda use: use[1])
    uses = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    where = min((use for use in uses if use >= line), default=line)
    return f"line {where} of the solution uses {name}; a solution works on its arguments alone"


def _find_node_access(node: ast.AST, modules: Mapping[str, str]) -> str | None:
    """What a part of a solution reaches for beyond its arguments; `modules` are the imported ones by their names in it."""
    line = f"line {getattr(node, 'lineno', 0)} of the solution"
    match node:
        case ast.Import(names=names):
            return first_fault([_import_fault(line, name.name, ()) for name in names])
        case ast.ImportFrom(module=module, level=level, names=names):
            return _import_fault(line, "." * level + (module or ""), [name.name for name in names])
        case ast.Attribute(value=ast.Name(id=name), attr=part) if _is_inner_part(modules.get(name), part):
            return f"{line} uses {name}.{part}, which {name} has for itself; {IMPORT_HINT}"
        case ast.Attribute(value=text, attr="format" | "format_map") if not isinstance(text, ast.Constant):
            return f"{line} formats a text that is not written there; write the text in that place, or an f-string"
        case ast.Attribute(attr=name):
            return _name_fault(line, name)
        case ast.MatchClass(kwd_attrs=names):
            return first_fault([_name_fault(line, name) for name in names])
        case ast.Name(id=name) if _is_forbidden_dunder(name):
            return _name_fault(line, name)
        case ast.Constant(value=str() as text):  # `"{0.__code__}".format(f)`
            return first_fault([_name_fault(line, name) for name in DUNDER.findall(text)])
        case ast.Call(func=ast.Name(id="wraps") | ast.Attribute(attr="wraps"), args=given, keywords=named):
            return f"{line} gives wraps more than a function" if len(given) + len(named) > 1 else None
    return None


def _name_fault(line: str, name: str) -> str | None:
    if name in CLOCKS:
        return f"{line} uses {name}, so its tests pass on some days only; take the day as an argument"
    if name in FORBIDDEN_NAMES:
        return f"{line} uses {name}; a solution works on its arguments alone"
    return f"{line} uses {name}; do without Python's own machinery" if _is_forbidden_dunder(name) else None


def _is_forbidden_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in (*KNOWN_DUNDERS, *OPERATORS)


def _is_inner_part(module: str | None, part: str) -> bool:
    """Whether a name of an allowed module is private, or a module that is not allowed, such as `random` of `statistics`."""
    if module not in MODULES or _is_forbidden_dunder(part):
        return False
    inner = getattr(importlib.import_module(module), part, None)
    foreign = isinstance(inner, ModuleType) and inner.__name__.partition(".")[0] not in MODULES
    return foreign or (part.startswith("_") and not part.startswith("__"))


def _import_fault(line: str, module: str, names: Sequence[str]) -> str | None:
    if module.partition(".")[0] not in (*MODULES, "__future__"):
        return f"{line} imports {module}; {IMPORT_HINT}"
    inside = sorted(name for name in names if name in FORBIDDEN_NAMES or _is_inner_part(module, name))
    return f"{line} imports {inside[0]}; a solution works on its arguments alone" if inside else None

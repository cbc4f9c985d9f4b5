"""The data of a task, checked before it begins: against `Params`, an annotated `__init__`, or its names alone.

Nodes and producers check the same way and say the same words. pydantic is imported where a class asks for it
and nowhere else; no value that a producer sent is repeated in a message.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from pytask import wire
from pytask.errors import ConfigurationError, InvalidInputError, TaskDefinitionError
from pytask.options import OF_STARTS, OPTIONS, suggestion

MISSING = "pydantic is missing: pip install 'pytask-daemon[typed]'"
MOST_PROBLEMS = 20  # that are told
MOST_LISTED = 1000  # more than these are only counted: to list them all would take a node's time
MOST_WORDS = 300  # characters of one problem
KEYWORDS = frozenset({*OPTIONS, *OF_STARTS})  # of start_task, which a keyword of the data cannot have as a name

PLAIN = re.compile(r"[A-Za-z0-9_.\[\]-]{1,80}")  # places in the data that are told as they are

_EMPTY = inspect.Parameter.empty
_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_VAR = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Shape(NamedTuple):
    """What data a class takes: names that must be there, names that may, and a check of values, if there is one.

    `known` is None where any name will do; `check` returns what `__init__` gets.
    """

    required: frozenset[str]
    known: frozenset[str] | None
    check: Callable[[Any], Any] | None


_shapes: WeakKeyDictionary[type, Shape] = WeakKeyDictionary()


def is_typed(task_class: Any) -> bool:
    """Does the class ask for more than the right names?"""
    return task_class.Params is not None or bool(task_class.validate)


def fit(task_class: Any, data: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """`self.params`, and the arguments of `__init__`, for a class that is typed.

    Raises InvalidInputError for data that does not fit, and whatever user code in it raises.
    """
    try:
        if task_class.Params is not None:
            return task_class.Params.model_validate(data), {}
        check = shape_of(task_class).check
        assert check is not None
        return None, check(data)
    except ValueError as error:
        raise InvalidInputError(_misfit(task_class, words_of(error))) from error


def check_data(task_class: Any, data: Any) -> Mapping[str, Any]:
    """The data as a producer may send it; an object of the class's `Params` becomes a dict.

    Raises InvalidInputError with the words that the task would end with, and a hint where a name looks like that
    of an option.
    """
    if task_class.Params is not None and isinstance(data, task_class.Params):
        return dump(data)
    if not isinstance(data, Mapping):
        raise InvalidInputError(f"data is a dict, not {type(data).__name__}")
    shape = shape_of(task_class)
    if is_typed(task_class):
        try:
            fit(task_class, dict(data))
        except InvalidInputError as error:
            raise InvalidInputError(f"{error}{_hint(shape, data)}") from error.__cause__
    elif not shape.required <= data.keys() or (shape.known is not None and not data.keys() <= shape.known):
        raise InvalidInputError(f"{misfit_of_names(task_class, data)}{_hint(shape, data)}")
    return data


def dump(params: Any) -> dict[str, Any]:
    """The dict of an object of `Params`. Raises InvalidInputError where JSON would make another one of it."""
    data: dict[str, Any] = params.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if type(params).model_validate(data) != params:
        raise InvalidInputError(f"this {type(params).__name__} does not survive JSON (a secret?): give a dict")
    return data


def _hint(shape: Shape, data: Mapping[str, Any]) -> str:
    for name in data:
        if shape.known is not None and name not in shape.known and (found := suggestion(name)):
            return f" ({name} is no argument{found.replace('did you mean', 'did you mean the option')})"
    return ""


def misfit_of_names(task_class: Any, data: Mapping[str, Any]) -> str:
    """What is wrong with the names in the data, in words; empty where nothing is."""
    if task_class.Params is not None:
        return ""
    try:
        signature = inspect.signature(task_class.__init__)
    except (TypeError, ValueError):  # a class in C
        return ""
    try:
        signature.bind(None, **data)
    except TypeError as error:
        return _misfit(task_class, str(error))
    return ""


def _misfit(task_class: Any, words: str) -> str:
    return f"the field 'data' does not fit {task_class.NAME}: {words}"


def shape_of(task_class: Any) -> Shape:
    """What data the class takes; worked out once. Raises TaskDefinitionError where that cannot be told."""
    shape = _shapes.get(task_class)
    if shape is None:
        shape = _shapes[task_class] = _make_shape(task_class)
    return shape


def _make_shape(task_class: Any) -> Shape:
    if task_class.Params is not None:
        known = getattr(task_class.Params, "model_fields", None)
        return Shape(frozenset(), None if known is None else frozenset(known), None)
    try:
        parameters = parameters_of(task_class)
    except ValueError:  # a class in C: its __init__ will say what is wrong
        return Shape(frozenset(), None, None)
    named = [p for p in parameters if p.kind not in (*_VAR, _POSITIONAL_ONLY)]
    required = frozenset(p.name for p in named if p.default is _EMPTY)
    any_name = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    known = None if any_name else frozenset(p.name for p in named)
    return Shape(required, known, _adapter(task_class).validate_python if task_class.validate else None)


def parameters_of(task_class: Any) -> list[inspect.Parameter]:
    """The parameters of `__init__` behind `self`. Raises ValueError where a class in C does not tell them."""
    return list(inspect.signature(task_class.__init__).parameters.values())[1:]


# Checks of a class, when it is added.


def check_definition(label: str, task_class: Any) -> None:
    """Raises TaskDefinitionError for a class whose data could not be checked as it asks for."""
    if task_class.Params is None:
        if task_class.validate:
            shape_of(task_class)
        return
    if task_class.validate:
        raise TaskDefinitionError(f"{label}: Params and validate exclude each other: Params alone checks the data")
    if not callable(getattr(task_class.Params, "model_validate", None)):
        raise TaskDefinitionError(f"{label}: Params must be a pydantic model, or have a method model_validate")
    needed = [p.name for p in parameters_of(task_class) if p.default is _EMPTY and p.kind not in _VAR]
    if needed:
        raise TaskDefinitionError(
            f"{label}: with Params the data is in self.params, and __init__ gets no arguments; it needs"
            f" {', '.join(needed)}"
        )


def names_like_options(task_class: Any) -> list[str]:
    """Parameters of `__init__` that have the name of an option of `start_task`."""
    if task_class.local_only or task_class.Params is not None:
        return []
    return [p.name for p in parameters_of(task_class) if p.name in KEYWORDS and p.kind not in _VAR]


# What pydantic does.


def _adapter(task_class: Any) -> Any:
    """A pydantic TypeAdapter for the arguments of `__init__`, as a dict."""
    label = f"task {task_class.NAME}"
    try:
        from pydantic import TypeAdapter, with_config
        from typing_extensions import TypedDict
    except ImportError:
        raise TaskDefinitionError(f"{label}: {MISSING}") from None
    try:
        fields, any_name = _fields(task_class)
        config: Any = {"extra": "allow" if any_name else "forbid", "arbitrary_types_allowed": True}
        make: Any = TypedDict
        return TypeAdapter(with_config(config)(make(str(task_class.NAME), fields)))
    except Exception as error:  # annotations are user code
        problem = f"{type(error).__name__}: {str(error)[:MOST_WORDS]}"
        raise TaskDefinitionError(f"{label}: the annotations of its arguments are no types: {problem}") from error


def _fields(task_class: Any) -> tuple[dict[str, Any], bool]:
    """The types of the arguments by name, and whether there may be others."""
    hints = typing.get_type_hints(task_class.__init__, include_extras=True)
    fields: dict[str, Any] = {}
    any_name = False
    for parameter in parameters_of(task_class):
        if parameter.kind in _VAR:
            any_name = any_name or parameter.kind is inspect.Parameter.VAR_KEYWORD
            continue
        hint = hints.get(parameter.name, Any)
        required = parameter.default is _EMPTY
        fields[parameter.name] = hint if required else typing.NotRequired[_with_default(hint, parameter.default)]
    return fields, any_name


def _with_default(hint: Any, default: Any) -> Any:
    """The type, with the default for the schema where JSON can hold it."""
    from pydantic import Field

    try:
        wire.encode_json(default)
    except wire.WireError:
        return hint
    return typing.Annotated[hint, Field(json_schema_extra={"default": default})]


def get_schema(task_class: Any) -> dict[str, Any]:
    """The JSON Schema of the data. Raises ConfigurationError where `Params` has none, or pydantic is missing."""
    if task_class.Params is None:
        schema = _adapter(task_class).json_schema()
    elif hasattr(task_class.Params, "model_json_schema"):
        schema = task_class.Params.model_json_schema()
    else:
        raise ConfigurationError(f"the Params of task {task_class.NAME} have no model_json_schema")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": task_class.NAME}


def words_of(error: ValueError) -> str:
    """Each problem that a ValueError tells of, in words; pydantic's own list them by field."""
    listed = getattr(error, "errors", None)
    if not callable(listed) or not hasattr(error, "error_count"):
        return _cut(str(error)) or type(error).__name__
    count = error.error_count()
    if count > MOST_LISTED:
        return f"{count} problems"
    problems = listed(include_url=False, include_context=False, include_input=False)
    told = [_problem(problem) for problem in problems[:MOST_PROBLEMS]]
    rest = [f"and {count - MOST_PROBLEMS} more problems"] if count > MOST_PROBLEMS else []
    return "; ".join(told + rest)


def _problem(problem: Mapping[str, Any]) -> str:
    place = ".".join(_part(part) for part in problem["loc"])
    return f"{place}: {_cut(problem['msg'])}" if place else _cut(problem["msg"])


def _part(part: object) -> str:
    text = str(part)
    return text if PLAIN.fullmatch(text) else wire.shown(text)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_WORDS else text[: MOST_WORDS - 3] + "..."

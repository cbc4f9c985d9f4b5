"""Functions as tasks: what `task_app.task` makes of a plain function.

The data of such a task holds the arguments by the names of the function's parameters; what `*rest` takes is a list
under the name `rest`.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

from pytask.context import current
from pytask.errors import InvalidInputError, TaskDefinitionError
from pytask.handle import TaskHandle
from pytask.names import importable_name, shown
from pytask.options import OF_CLASSES, OF_STARTS, OPTIONS, suggestion
from pytask.task import Task

P = ParamSpec("P")
R = TypeVar("R")
ATTRIBUTES = ("forever", "validate", "provide_context")  # of a Task class, beside the options
NAMES = (*(option.name for option in OF_CLASSES), *ATTRIBUTES)

_KINDS = inspect.Parameter
_EMPTY = inspect.Parameter.empty


class FunctionTask(Task):
    """A task whose work is one function. Subclasses are made by `make_class`."""

    function: ClassVar[Callable[..., Any]]
    bind: ClassVar[bool] = False
    signature: ClassVar[inspect.Signature]
    plain: ClassVar[bool]  # can every parameter be given by its name?
    arguments: dict[str, Any]

    def start(self) -> Any:
        """Call the function."""
        first = (self,) if self.bind else ()
        if self.plain:
            return self.function(*first, **self.arguments)
        try:
            bound = to_bound(self.signature, self.arguments)
        except TypeError as error:
            raise self.Error(f"the field 'data' does not fit {self.NAME}: {error}") from None
        return self.function(*first, *bound.args, **bound.kwargs)


class Prepared(Generic[P]):
    """A function and options with which it is to be started."""

    def __init__(self, function: TaskFunction[P, Any], options: Mapping[str, Any]) -> None:
        self._function = function
        self._options = options

    def start(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle:
        """Make a task and push it; returns its handle. Raises InvalidInputError where the arguments do not fit."""
        data = self._function.to_data(args, kwargs)
        started: TaskHandle = self._function.app.helpers.start_task(self._function.task, data, **self._options)
        return started


class TaskFunction(Generic[P, R]):
    """A function that is a task as well. Calling it calls the function, here and now."""

    def __init__(self, app: Any, function: Callable[..., R], task_class: type[FunctionTask]) -> None:
        self.app = app
        self.task = task_class
        self.name = task_class.NAME
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function. With `bind` its first argument is made: what runs now, if anything does."""
        if not self.task.bind:
            return self.function(*args, **kwargs)
        task = self.task.__new__(self.task)
        task._context = current.get()
        return self.function(task, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def start(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle:
        """Make a task and push it; returns its handle. Raises InvalidInputError where the arguments do not fit."""
        return Prepared[P](self, {}).start(*args, **kwargs)

    def options(self, **options: Any) -> Prepared[P]:
        """Options for one start: `f.options(delay=5).start(...)`; those of `start_task`, `task_id`, `front`."""
        for name in options:
            if name not in OPTIONS and name not in OF_STARTS:
                raise InvalidInputError(f"there is no option {shown(name)}{suggestion(name)}")
        return Prepared(self, options)

    def run_now(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it as a task in this process, without a queue: the output, or what it raises."""
        output: R = self.app.run_now(self.task, self.to_data(args, kwargs))
        return output

    def to_data(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The data of a task with these arguments. Raises InvalidInputError where they do not fit."""
        try:
            bound = self.task.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidInputError(f"the arguments do not fit {self.name}: {error}{self._hint(kwargs)}") from None
        return to_data(self.task.signature, bound)

    def _hint(self, kwargs: dict[str, Any]) -> str:
        known = self.task.signature.parameters
        for name in kwargs:
            if name not in known and name in (*OPTIONS, *OF_STARTS):
                return f" ({name} is an option: {self.function.__name__}.options({name}=...).start(...))"
        return ""


def make_class(
    function: Callable[..., Any], name: str | None, bind: bool, attributes: Mapping[str, Any]
) -> type[FunctionTask]:
    """The Task class of a function. Raises TaskDefinitionError, which says what is wrong."""
    label = f"function {getattr(function, '__qualname__', repr(function))}"
    _check_function(label, function)
    for attribute in attributes:
        if attribute not in NAMES:
            raise TaskDefinitionError(f"{label}: there is no option {shown(attribute)}{suggestion(attribute)}")
    signature = _signature(label, function, bind)
    body = {
        "NAME": name if name is not None else default_name(function),
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__init__": _make_init(function, signature),
        "function": staticmethod(function),
        "bind": bind,
        "signature": signature,
        "plain": _is_plain(signature),
    }
    return type(function.__name__, (FunctionTask,), {**attributes, **body})


def _check_function(label: str, function: Any) -> None:
    if not inspect.isfunction(function):
        raise TaskDefinitionError(f"task takes a plain function (def), not {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(f"{label} is async, tasks run in greenlets: write a plain `def`")
    if inspect.isgeneratorfunction(function):
        raise TaskDefinitionError(f"{label} is a generator: nothing would run it; return a list")


def default_name(function: Callable[..., Any]) -> str:
    """`module.function`; a program that is run by its file counts under the name by which others import it."""
    name = f"{importable_name(function.__module__)}.{function.__name__}"
    if "<" in name:
        raise TaskDefinitionError(f"function {name} has no name of its own: say task(name='...')")
    return name


def _signature(label: str, function: Callable[..., Any], bind: bool) -> inspect.Signature:
    """The signature, without the first parameter where that is the task."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if bind:
        if not parameters or parameters[0].kind not in (_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD):
            raise TaskDefinitionError(f"{label}: with bind its first parameter is the task; it has none")
        del parameters[0]
    return signature.replace(parameters=parameters)


def _is_plain(signature: inspect.Signature) -> bool:
    by_place = (_KINDS.POSITIONAL_ONLY, _KINDS.VAR_POSITIONAL)
    return all(parameter.kind not in by_place for parameter in signature.parameters.values())


def _make_init(function: Callable[..., Any], signature: inspect.Signature) -> Callable[..., None]:
    """`__init__`, whose signature is that of the data: every argument by its name."""
    accepted = [_by_name(parameter) for parameter in signature.parameters.values()]
    required = {p.name for p in accepted if p.default is _EMPTY and p.kind is _KINDS.KEYWORD_ONLY}
    known = {p.name for p in accepted}
    any_name = any(p.kind is _KINDS.VAR_KEYWORD for p in accepted)

    def init(task: FunctionTask, /, **arguments: Any) -> None:
        if not required <= arguments.keys() or not (any_name or arguments.keys() <= known):
            raise TypeError("the arguments do not fit")  # which, is told by who compares them with the signature
        task.arguments = arguments

    made: Any = init
    own = _KINDS("_pytask_self", _KINDS.POSITIONAL_ONLY)
    made.__signature__ = inspect.Signature([own, *accepted])
    made.__annotations__ = dict(function.__annotations__)
    for parameter in signature.parameters.values():
        if parameter.kind is _KINDS.VAR_POSITIONAL and parameter.annotation is not _EMPTY:
            made.__annotations__[parameter.name] = _list_of(parameter.annotation)
    made.__wrapped__ = function  # its module is where the names in the annotations are looked up
    return typing.cast("Callable[..., None]", made)


def _by_name(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter as the data holds it."""
    if parameter.kind is _KINDS.VAR_KEYWORD:
        return parameter
    default = () if parameter.kind is _KINDS.VAR_POSITIONAL else parameter.default
    return parameter.replace(kind=_KINDS.KEYWORD_ONLY, default=default)


def _list_of(annotation: Any) -> Any:
    return f"list[{annotation}]" if isinstance(annotation, str) else list[annotation]


def to_data(signature: inspect.Signature, bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments as data. Raises InvalidInputError where one of `**more` has the name of another parameter."""
    data: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is _KINDS.VAR_KEYWORD:
            for key in value:
                if key in signature.parameters and key != name:
                    raise InvalidInputError(f"the argument {key} would be taken for the parameter of that name")
            data.update(value)
        else:
            data[name] = list(value) if kind is _KINDS.VAR_POSITIONAL else value
    return data


def to_bound(signature: inspect.Signature, data: Mapping[str, Any]) -> inspect.BoundArguments:
    """Data as arguments. Raises TypeError where what `*rest` takes is no list."""
    left = dict(data)
    arguments: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is _KINDS.VAR_KEYWORD:
            arguments[name] = left
        elif parameter.kind is _KINDS.VAR_POSITIONAL:
            arguments[name] = _as_tuple(name, left.pop(name, []))
        elif name in left:
            arguments[name] = left.pop(name)
    bound = inspect.BoundArguments(signature, arguments)
    bound.apply_defaults()
    return bound


def _as_tuple(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} is a list")
    return tuple(value)

"""Registries of plug-ins: kinds by name, created from the options of a config section.

A section of the config names its kind and holds that kind's options, e.g.
`config.loss = dict(name="triplet_hinge", margin=0.2)`. A kind is a class or a function
whose keyword parameters are its options; there is no second list of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import difflib
import functools
import inspect
import numbers
import re
import types
import typing
from typing import Any, Generic, TypeVar

from deeprank_jax.errors import ConfigError, UserError

T = TypeVar("T")
Kind = TypeVar("Kind", bound=Callable[..., Any])


class Registry(Mapping[str, Callable[..., T]], Generic[T]):
    """Kinds of one section of the config by name."""

    def __init__(
        self,
        section: str,
        kinds: Mapping[str, Callable[..., T]],
        *,
        methods: tuple[str, ...] = (),
        attributes: tuple[str, ...] = (),
        from_function: Callable[[Callable[..., Any]], Callable[..., T]] | None = None,
        by_key: bool = False,
    ):
        """Creates a registry.

        Args:
          section: Dotted name of the section, e.g. `"config.loss"`, for messages.
          kinds: Built-in kinds by name.
          methods: Names of the methods that a registered class must have.
          attributes: Names of the attributes that a created kind must have.
          from_function: Converter of a registered plain function into a kind; None
            where functions are kinds themselves.
          by_key: True for a section of several kinds, each with its options under its
            name: `config.evaluation.evaluators.triplets.k`.
        """
        self.section = section
        self._kinds = dict(kinds)
        self._built_in = frozenset(kinds)
        self._methods = methods
        self._attributes = attributes
        self._from_function = from_function
        self._by_key = by_key

    def __getitem__(self, name: str) -> Callable[..., T]:
        """Returns the kind of a name.

        Raises:
          ConfigError: No kind has this name; the message gives the nearest names.
        """
        if name not in self._kinds:
            raise ConfigError(
                f"{self._choice(name)} is not known"
                f"{did_you_mean(name, self._kinds)}; choose one of "
                f"{', '.join(sorted(self._kinds))}."
            )
        return self._kinds[name]

    def __contains__(self, name: object) -> bool:
        """Returns whether a kind has this name."""
        return name in self._kinds

    def __iter__(self) -> Iterator[str]:
        """Yields the names."""
        return iter(self._kinds)

    def __len__(self) -> int:
        """Returns the number of kinds."""
        return len(self._kinds)

    def register(self, name: str) -> Callable[[Kind], Kind]:
        """Returns a decorator that adds a kind under a name.

        A name may be registered again, as it is when a config file is read twice.

        Args:
          name: Name of the kind in the config.

        Raises:
          ConfigError: The name is built in, or the class lacks a method.
        """
        if name in self._built_in:
            raise ConfigError(
                f"{name!r} is a built-in name of {self.section}; register yours under "
                "another name."
            )

        def decorate(kind: Kind) -> Kind:
            if not inspect.isclass(kind) and self._from_function:
                self._kinds[name] = self._from_function(kind)
                return kind
            # Every class object has a __call__, that of its metaclass.
            bases = inspect.getmro(kind)[:-1] if isinstance(kind, type) else ()
            for method in self._methods if bases else ():
                if not any(method in vars(base) for base in bases):
                    raise ConfigError(
                        f"{kind.__name__}, registered as {name!r} for {self.section}, "
                        f"has no method {method}()."
                    )
            self._kinds[name] = kind
            return kind

        return decorate

    def options(self, name: str, context: tuple[str, ...] = ()) -> dict[str, Any]:
        """Returns a kind's options and their defaults.

        The default of a required option is `inspect.Parameter.empty`.

        Args:
          name: Name of the kind.
          context: Parameters that the caller gives and the config does not.
        """
        fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return {
            key: parameter.default
            for key, parameter in parameters_of(self[name]).items()
            if key not in context and parameter.kind not in fixed
        }

    def check(self, section: Mapping[str, Any], context: tuple[str, ...] = ()) -> None:
        """Checks the options of a section against the signature of its kind.

        Args:
          section: `name` and the options of that kind.
          context: Parameters that the caller gives and the config does not.

        Raises:
          ConfigError: The section has no name or an unknown one, an option that the
            kind does not have, or lacks one that the kind needs.
        """
        if "name" not in section:
            raise ConfigError(
                f"{self.section} has no name; choose one of "
                f"{', '.join(sorted(self._kinds))}."
            )
        name = section["name"]
        options, parameters = self.options(name, context), parameters_of(self[name])
        for key in section:
            if key != "name" and key not in options:
                has = ", ".join(options) if options else "none"
                raise ConfigError(
                    f"{self._prefix(name)}{key} is not an option of {name!r}"
                    f"{did_you_mean(key, options)}; its options are: {has}. A config "
                    f"file changes a kind by {self._section_of(name)}."
                )
            if key != "name" and not _fits(section[key], parameters[key]):
                raise ConfigError(
                    f"{self._prefix(name)}{key}={section[key]!r} is not of the type "
                    f"{_type_name(parameters[key])}."
                )
        for key, default in options.items():
            if default is inspect.Parameter.empty and key not in section:
                doc = argument_doc(self[name], key)
                raise ConfigError(
                    f"{self._choice(name)} needs {self._prefix(name)}{key}"
                    + (f": {doc}." if doc else ".")
                )

    def create(self, section: Mapping[str, Any], **context: Any) -> T:
        """Creates the kind that a section names, with the section's options.

        Args:
          section: `name` and the options of that kind.
          **context: Arguments from the caller; those that the kind does not take are
            left out, unless it takes any by `**`.

        Raises:
          ConfigError: As `check`; or the kind refuses a value. A `ValueError` whose
            message begins with the name of an option becomes one that begins with the
            option's full name.
        """
        self.check(section, tuple(context))
        name = section["name"]
        options = {key: value for key, value in section.items() if key != "name"}
        prefix = self._prefix(name)
        keys = {key: prefix + key for key in self.options(name, (*context,))}
        kind = self[name]
        parameters = parameters_of(kind)
        takes_all = any(x.kind is x.VAR_KEYWORD for x in parameters.values())
        if not takes_all:
            context = {key: x for key, x in context.items() if key in parameters}
        with config_keys(keys):
            created = kind(**options, **context)
        for attribute in self._attributes:
            if not hasattr(created, attribute):
                raise ConfigError(
                    f"{type(created).__name__}, the {self._choice(name)}, has no "
                    f"attribute {attribute!r}; docs/extending.md shows its interface."
                )
        return created

    def _choice(self, name: str) -> str:
        """Returns the words of the config that select a kind."""
        if self._by_key:
            return f"{self.section}.{name}"
        return f"{self.section}.name={name!r}"

    def _section_of(self, name: str) -> str:
        """Returns the assignment that selects a kind in a config file."""
        if self._by_key:
            return f"{self.section}.{name} = dict(...)"
        return f"{self.section} = dict(name={name!r}, ...)"

    def _prefix(self, name: str) -> str:
        """Returns the beginning of the full name of a kind's option."""
        return f"{self.section}.{name}." if self._by_key else f"{self.section}."


def parameters_of(kind: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a class or function by name.

    A class has those of its `__init__`, even if its metaclass, as that of NNX modules,
    takes any argument.
    """
    return inspect.signature(_with_init(kind)).parameters


def _with_init(kind: Callable[..., object]) -> Callable[..., object]:
    if isinstance(kind, functools.partial):
        return functools.partial(_with_init(kind.func), *kind.args, **kind.keywords)
    if not inspect.isclass(kind):
        return kind
    if kind.__init__ is object.__init__:  # It would seem to take any argument.
        return lambda: None
    return functools.partial(kind.__init__, None)


def _types(parameter: inspect.Parameter) -> tuple[type, ...]:
    """Returns the plain types that an option takes; none if any value may fit."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        if parameter.default is None or parameter.default is parameter.empty:
            return ()
        annotation = type(parameter.default)
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    kinds = typing.get_args(annotation) if is_union else (annotation,)
    plain = (bool, int, float, str, type(None))
    return tuple(kinds) if all(kind in plain for kind in kinds) else ()


def _fits(value: object, parameter: inspect.Parameter) -> bool:
    kinds = _types(parameter)
    if not kinds or type(value) in kinds:
        return True
    if isinstance(value, bool):
        return False
    number = float in kinds and isinstance(value, numbers.Real)
    return number or (int in kinds and isinstance(value, numbers.Integral))


def _type_name(parameter: inspect.Parameter) -> str:
    names = [getattr(kind, "__name__", str(kind)) for kind in _types(parameter)]
    return " or ".join("None" if name == "NoneType" else name for name in names)


@contextlib.contextmanager
def config_keys(keys: Mapping[str, str]) -> Iterator[None]:
    """Turns a `ValueError` about an argument into a `ConfigError` about its key.

    Pure functions do not know the config: their messages begin with the argument's
    name, in whose place the name of the key is put.

    Args:
      keys: Full name of the config's key by argument, e.g.
        `{"image_size": "config.data.image_size"}`.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        argument = re.match(r"\w*", str(error))
        if argument is None or argument[0] not in keys:
            raise
        rest = str(error)[argument.end() :]
        raise ConfigError(keys[argument[0]] + rest) from error


def argument_doc(kind: Callable[..., object], argument: str) -> str:
    """Returns the first clause of an argument's doc, "" if it has none.

    Args:
      kind: Class or function with a docstring in Google style.
      argument: Name of a parameter.
    """
    while isinstance(kind, functools.partial):
        kind = kind.func
    documented = kind.__init__ if inspect.isclass(kind) else kind
    entry = re.search(
        rf"^ +{argument}: (.+(?:\n {{3,}}\S.*)*)",
        inspect.getdoc(documented) or "",
        re.MULTILINE,
    )
    text = " ".join(entry[1].split()) if entry else ""
    clause = re.split(r"[;.] |\.$", text)[0]
    # A capital letter inside a sentence stays where it is a name's.
    return clause[:1].lower() + clause[1:] if clause[1:2].islower() else clause


def list_names(names: Iterable[str], most: int = 10) -> str:
    """Returns names as a sentence has them, the first ones if there are many.

    Args:
      names: Names.
      most: Largest number of names that are listed.
    """
    names = [*names]
    text = ", ".join(map(repr, names[:most]))
    num_others = len(names) - most
    return text + (f" and {num_others:,} others" if num_others > 0 else "")


def did_you_mean(name: str, names: Mapping[str, Any] | Iterator[str]) -> str:
    """Returns `" (did you mean 'x'?)"` with the nearest of the names, or nothing."""
    nearest = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.6)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""

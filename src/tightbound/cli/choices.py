"""Choices among registered specs at the command line: the name is parsed first, then its options are added, flat.

``tightbound train vae --objective iwae --samples 5`` makes ``VAE(objective=Iwae(samples=5))``. A command whose options
have such a field (:mod:`tightbound.options.choices`) needs only :func:`prepared` before parsing and :func:`plain`
after; a function needs :func:`prepared_command`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from docstring_parser import parse_from_object
from tyro.conf import arg

from ..errors import UsageError
from ..options.choices import can_replace, changed, choices, name_of, offered
from ..spec import Dataclass, field_names, flag

__all__ = ["given", "help_of", "plain", "prepared", "prepared_command", "refuse_options_of_others"]

T = TypeVar("T", bound=Dataclass)


def prepared(options: T, words: Sequence[str]) -> T:
    """Options to be parsed: each choice holds the class named in the words, with its name as an option.

    Args:
        options: A dataclass with the defaults.
        words: The words of the command line.

    Raises:
        UnknownName: If a word names an unknown choice.
    """
    whole = changed(options, {name: word for name in choices(options) if (word := given(words, name))})
    held = {name: _shown(whole, name, base) for name, base in choices(options).items()}
    return dataclasses.replace(whole, **held)


def plain(options: T) -> T:
    """Parsed options, with each choice converted to the registered spec."""
    held = dict[str, Dataclass]()
    for name, base in choices(options).items():
        value = getattr(options, name)
        cls = offered(base, name)[getattr(value, name)]
        held[name] = cls(**{f.name: getattr(value, f.name) for f in dataclasses.fields(cls)})
    return dataclasses.replace(options, **held)


def prepared_command(
    command: Callable[..., None], words: Sequence[str], before: Mapping[str, Dataclass] | None = None
) -> Callable[..., None]:
    """A command whose choices are prepared for parsing, and converted before it is called.

    Args:
        command: The command.
        words: The words of the command line.
        before: Default arguments, if not the defaults of their class.
    """
    before = before or {}
    found = {name: prepared(before.get(name) or cls(), words) for name, cls in _with_choices(command)}
    if not found:
        return command

    @functools.wraps(command)
    def called(*arguments: object, **options: Any) -> None:
        command(*arguments, **{name: plain(value) if name in found else value for name, value in options.items()})

    signature = inspect.signature(command)
    refuse_options_of_others(found.values(), words, signature.parameters)
    parameters = [_defaulted(each, found) for each in signature.parameters.values()]
    vars(called)["__signature__"] = signature.replace(parameters=parameters)
    return called


def refuse_options_of_others(parts: Iterable[Dataclass], words: Sequence[str], more: Iterable[str] = ()) -> None:
    """Refuses options of a choice that was not chosen.

    Args:
        parts: The dataclasses whose options are typed.
        words: The words of the command line.
        more: Names of further options.

    Raises:
        UsageError: If there is one.
    """
    held = list(parts)
    known = {name for options in held for name in _names(options)}.union(more)
    for options in held:
        for field, base in choices(options).items():
            for name in _named(words):
                owners = {label: cls for label, cls in offered(base, field).items() if name in field_names(cls)}
                if owners and name not in known:
                    raise _of_another(name, owners, options, field)


def _names(options: Dataclass) -> set[str]:
    """Names of all options of a prepared dataclass."""
    held = choices(options)
    return set(field_names(options)).union(*(field_names(getattr(options, name)) for name in held))


def _of_another(name: str, owners: Mapping[str, type[Dataclass]], options: Dataclass, field: str) -> UsageError:
    now = getattr(options, field)
    fitting = [label for label, cls in owners.items() if can_replace(cls, options, field)]
    other = f", or add --{field} {fitting[0]}" if fitting else ""
    option, own = flag(name), [flag(n) for n in sorted(set(field_names(now)) - {field})]
    return UsageError(
        f"{option} is an option of {' or '.join(f'--{field} {owner}' for owner in owners)}.",
        got=f"--{field} {getattr(now, field)}",
        expected=f"its options: {', '.join(own)}",
        remedy=f"Leave {option} out{other}.",
    )


def _shown(options: Dataclass, field: str, base: type[Dataclass]) -> Dataclass:
    """A class for the value of a choice, with the choice itself as its first option."""
    value = getattr(options, field)
    help_text = (
        f"{help_of(type(options), field)} Its options follow; --{field} NAME --help shows those of another choice."
    )
    kind = Annotated[Literal[tuple(offered(base, field))], arg(help=help_text)]
    named = dataclasses.field(default=name_of(value, field))
    chooser = dataclasses.make_dataclass("Chooser", [(field, kind, named)], frozen=True, kw_only=True)
    cls = dataclasses.make_dataclass(type(value).__name__, [], bases=(type(value), chooser), frozen=True)
    return cls(**vars(value))


def _with_choices(command: Callable[..., None]) -> Iterator[tuple[str, type[Dataclass]]]:
    """The arguments of a command that are dataclasses with a choice."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        while get_args(hint) and hasattr(hint, "__metadata__"):
            hint = get_args(hint)[0]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and choices(hint):
            yield name, hint


def _defaulted(parameter: inspect.Parameter, found: Mapping[str, Dataclass]) -> inspect.Parameter:
    """The parameter with the prepared value as its default; keyword-only, so that others need no default."""
    only = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
    kind = parameter.kind if only else inspect.Parameter.KEYWORD_ONLY
    return parameter.replace(kind=kind, default=found.get(parameter.name, parameter.default))


def help_of(options: type, name: str) -> str:
    """The help of an option, from the class that explains it; another may only have another default."""
    explained = (p for base in options.__mro__ for p in parse_from_object(base).params if p.arg_name == name)
    return next(" ".join(words.split()) for p in explained if (words := p.description))


def given(words: Sequence[str], name: str) -> str | None:
    """The value of an option, after it or after its equals sign; the last if it is repeated."""
    option, found = flag(name), None
    for word, following in zip(words, [*words[1:], None], strict=False):
        if word == option:
            found = following
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _named(words: Sequence[str]) -> Iterator[str]:
    """The options among words, by their names in Python."""
    for word in words:
        if word.startswith("--"):
            yield word[2:].partition("=")[0].replace("-", "_")

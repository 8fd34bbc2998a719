"""A choice among registered specs at the command line: its name is read first, then its own options are offered, flat.

``tightbound train vae --objective iwae --samples 5`` makes ``VAE(objective=Iwae(samples=5))``. A command whose options
have such a field (:mod:`tightbound.options.choices`) needs no more than :func:`prepared` before it is parsed and
:func:`plain` after; one that is a function, :func:`prepared_command`.
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
from ..options.choices import changed, choices, name_of, offered
from ..spec import Dataclass, field_names, flag

__all__ = ["given", "help_of", "plain", "prepared", "prepared_command", "refuse_options_of_others"]

T = TypeVar("T", bound=Dataclass)


def prepared(options: T, words: Sequence[str]) -> T:
    """Options to be parsed: each choice holds what the words name, and has its own name as an option.

    Args:
        options: A dataclass, as it is before any word.
        words: The words of the command line.

    Raises:
        UnknownName: If a word names what a choice does not offer.
    """
    whole = changed(options, {name: word for name in choices(options) if (word := given(words, name))})
    held = {name: _shown(whole, name, base) for name, base in choices(options).items()}
    return dataclasses.replace(whole, **held)


def plain(options: T) -> T:
    """Parsed options, with what each choice holds as the registered spec itself."""
    held = dict[str, Dataclass]()
    for name, base in choices(options).items():
        value = getattr(options, name)
        cls = offered(base, name)[getattr(value, name)]
        held[name] = cls(**{f.name: getattr(value, f.name) for f in dataclasses.fields(cls)})
    return dataclasses.replace(options, **held)


def prepared_command(
    command: Callable[..., None], words: Sequence[str], before: Mapping[str, Dataclass] | None = None
) -> Callable[..., None]:
    """A command whose arguments with choices are prepared for the words, and made plain before it is called.

    Args:
        command: The command.
        words: The words of the command line.
        before: Arguments as they are before any word, where that is not how their class makes them.
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
    """Refuses the options of what a choice could have been, and is not.

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
                owners = [label for label, cls in offered(base, field).items() if name in field_names(cls)]
                if owners and name not in known:
                    raise _of_another(name, owners, field, getattr(options, field))


def _names(options: Dataclass) -> set[str]:
    """Names of all options of a dataclass that is prepared."""
    held = choices(options)
    return set(field_names(options)).union(*(field_names(getattr(options, name)) for name in held))


def _of_another(name: str, owners: list[str], field: str, now: Dataclass) -> UsageError:
    option, own = flag(name), [flag(n) for n in sorted(set(field_names(now)) - {field})]
    return UsageError(
        f"{option} is an option of {' or '.join(f'--{field} {owner}' for owner in owners)}.",
        got=f"--{field} {getattr(now, field)}",
        expected=f"its options: {', '.join(own)}",
        remedy=f"Leave {option} out, or add --{field} {owners[0]}.",
    )


def _shown(options: Dataclass, field: str, base: type[Dataclass]) -> Dataclass:
    """What a choice holds, of a class that has the choice itself as its first option."""
    value = getattr(options, field)
    help_text = f"{help_of(type(options), field)} Its own options follow; --{field} NAME --help shows those of another."
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
    """The parameter with what is prepared as its default; by keyword, so that others need none."""
    only = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
    kind = parameter.kind if only else inspect.Parameter.KEYWORD_ONLY
    return parameter.replace(kind=kind, default=found.get(parameter.name, parameter.default))


def help_of(options: type, name: str) -> str:
    """The text under an option, from the class that has it."""
    owner = next(base for base in options.__mro__ if name in vars(base).get("__annotations__", {}))
    return next(" ".join((p.description or "").split()) for p in parse_from_object(owner).params if p.arg_name == name)


def given(words: Sequence[str], name: str) -> str | None:
    """The word that follows an option, or stands behind its equals sign; the last where it is given twice."""
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

"""The engine's argument line: the engine file's own flags, then the user's. A user's flag replaces the same one of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairlead.errors import RenderError

__all__ = ["merge_arguments"]


def merge_arguments(
    own: Sequence[Sequence[str]], user: Sequence[str], aliases: Mapping[str, str], protected: Sequence[str]
) -> list[str]:
    """`own` are flags with their values, as the engine file has them; `user` is `spec.engine.args` as written.

    `--flag value`, `--flag=value`, `--no-flag`, underscores for dashes and the `aliases` of the engine file are the same
    flag. Raises RenderError for a `protected` flag: those are the operator's.
    """
    replaced = set()
    for index, argument in enumerate(user):
        flag = _flag_of(argument, aliases)
        if flag is None:
            continue
        if flag in protected:
            raise RenderError(
                f"spec.engine.args[{index}]", f"{argument.partition('=')[0]} belongs to fairlead", "leave it out"
            )
        replaced.add(flag)
    kept = [group for group in own if _flag_of(group[0], aliases) not in replaced]
    return [argument for group in kept for argument in group] + list(user)


def _flag_of(argument: str, aliases: Mapping[str, str]) -> str | None:
    """The canonical name of the flag that `argument` is, or None when it is a value. Negative numbers are values."""
    if not argument.startswith("-") or argument[1:2].isdigit() or argument in ("-", "--"):
        return None
    name = argument.partition("=")[0]
    if name.startswith("--"):
        name = name.replace("_", "-")
        if name.startswith("--no-"):
            name = "--" + name.removeprefix("--no-")
    return aliases.get(name, name)

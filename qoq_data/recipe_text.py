"""A recipe as text: strict YAML into a tree of keys, what is wrong with it in words, and sections back into YAML."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from qoq_data.errors import RecipeError, UnknownNameError

RECIPE_BYTES = 1 << 20


def recipe_file(name: str) -> tuple[str, str] | None:
    """Text and name of the file that ``name`` is the path of; None where it is no path.

    Raises ``UnknownNameError`` where there is none, ``RecipeError`` where it cannot be read as text.
    """
    if not name.endswith((".yaml", ".yml")) and "/" not in name:
        return None
    path = Path(name)
    if not path.is_file():
        raise UnknownNameError(f"There is no recipe file {path.name}.")
    if path.stat().st_size > RECIPE_BYTES:
        raise RecipeError(path.name, ["it is larger than a recipe can be"])
    try:
        return path.read_text(encoding="utf-8"), path.name
    except (OSError, UnicodeDecodeError) as error:
        what = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "may not be read"
        raise RecipeError(path.name, [f"it {what}"]) from error


class Section(BaseModel):
    """A group of keys: unknown ones are errors, and nothing in it changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error and not a silent overwrite.

    Aliases are refused: a few lines of them, merged into each other, unfold to more than memory holds.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "a recipe has no aliases (*); write the value out", mark)
        return super().compose_node(parent, index)


def _mapping_without_repeats(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(None, None, "a key is no plain word", key_node.start_mark)
        if key in seen:
            raise yaml.MarkedYAMLError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


def recipe_tree(text: str, where: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a YAML text, with ``overrides`` (dotted keys) laid over them; raises ``RecipeError``."""
    if len(text) > RECIPE_BYTES:
        raise RecipeError(where, ["it is larger than a recipe can be"])
    try:
        tree = yaml.load(text, _UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError) as error:
        # PyYAML lets through what Python says of 2024-99-99, of !!bool maybe and of !!timestamp soon.
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise RecipeError(where, [f"{line}{getattr(error, 'problem', None) or 'it is not YAML'}"]) from error
    if not isinstance(tree, dict):
        raise RecipeError(where, ["it is not a mapping of keys to values"])
    for dotted, value in overrides.items():
        if not _set(tree, dotted.split("."), value):
            raise RecipeError(where, [f"{dotted}: it cannot be set, for what stands above it is no section"])
    return tree


def nearest(name: str, known: list[str]) -> str:
    """A sentence that names what was probably meant, or all there is when nothing is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" There are: {', '.join(sorted(set(known)))}." if known else ""


def problem_text(detail: Any, model: type[BaseModel]) -> str:
    *parents, last = detail["loc"] or ("recipe",)
    where = ".".join(str(part) for part in (*parents, last))
    if detail["type"] == "model_type":
        return f"{where}: it is not a mapping of keys to values"
    if detail["type"] != "extra_forbidden":
        return f"{where}: {detail['msg'].lower()}"
    current: Any = model
    for part in parents:
        if isinstance(part, int):
            continue
        current = _section_of(current.model_fields[part].annotation) if part in current.model_fields else BaseModel
    return f"{where}: there is no such key.{nearest(str(last), list(current.model_fields))}"


def _section_of(annotation: Any) -> Any:
    """The section class inside ``Section``, ``Section | None`` or ``tuple[Section, ...]``."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return BaseModel


def scalar(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def section_lines(section: BaseModel, depth: int = 0) -> Iterator[str]:
    """Every key of a section as a line of YAML, each with what it means."""
    for name in type(section).model_fields:
        yield from key_lines(section, name, depth)


def key_lines(section: BaseModel, name: str, depth: int) -> Iterator[str]:
    """One key of a section, with the sections below it."""
    pad = "  " * depth
    info, value = type(section).model_fields[name], getattr(section, name)
    comment = f"  # {info.description}" if info.description else ""
    if isinstance(value, BaseModel):
        yield f"{pad}{name}:{comment}"
        yield from section_lines(value, depth + 1)
    else:
        yield f"{pad}{name}: {scalar(value)}{comment}"


def _set(tree: dict[str, Any], keys: list[str], value: Any) -> bool:
    """Set a key some sections down, making those that are absent or blank; False where one of them is no section."""
    for key in keys[:-1]:
        if tree.get(key) is None:
            tree[key] = {}
        tree = tree[key]
        if not isinstance(tree, dict):
            return False
    tree[keys[-1]] = value
    return True

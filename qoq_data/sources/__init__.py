"""What each publisher ships, one file a source.

A source is found by its file in this folder, or by an entry point of the group ``qoq_data.sources`` in another
installed package, whose value is a module of the same shape. Nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType

from qoq_data.errors import UnknownNameError, UsageError
from qoq_data.recipe_text import nearest
from qoq_data.source import Source, SourceOptions, SourceSpec

ENTRY_POINT_GROUP = "qoq_data.sources"


def source_of(module: ModuleType) -> Source:
    """The source that a module holds; raises ``UsageError`` naming what it lacks."""
    lacking = [name for name in ("SPEC", "scan", "synthesize") if not hasattr(module, name)]
    if lacking:
        raise UsageError(f"The source module {module.__name__} has no {', '.join(lacking)}.")
    if not isinstance(module.SPEC, SourceSpec):
        raise UsageError(f"SPEC of the source module {module.__name__} is no SourceSpec.")
    return Source(
        spec=module.SPEC,
        scan=module.scan,
        synthesize=module.synthesize,
        module_file=Path(str(module.__file__)),
        options_model=getattr(module, "Options", SourceOptions),
        detect_version=getattr(module, "detect_version", None),
        statistics=getattr(module, "statistics", None),
        expand=getattr(module, "expand", None),
    )


@cache
def registry() -> Mapping[str, Source]:
    """Every source by name, sorted; raises ``UsageError`` when two have the same name."""
    modules = [
        importlib.import_module(f"{__name__}.{info.name}")
        for info in pkgutil.iter_modules(__path__)
        if not info.name.startswith("_") and not info.ispkg
    ]
    modules += [entry.load() for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name)]
    found: dict[str, Source] = {}
    for source in map(source_of, modules):
        if source.name in found:
            raise UsageError(f"Two installed sources are named {source.name!r}.")
        found[source.name] = source
    return MappingProxyType(dict(sorted(found.items())))


def get_source(name: str) -> Source:
    try:
        return registry()[name]
    except KeyError:
        raise UnknownNameError(f"There is no source {name!r}.{nearest(name, list(registry()))}") from None

"""Where the raw trees of a build lie: given, named by ``QOQ_RAW``, or written on the spot for a synthetic build.

The addresses, and the key of the patients' hashes, are remembered beside the corpus in its work folder, which no push
takes along, so that ``trace`` and ``verify --deep`` find the files again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from qoq_data.corpus.manifest import WORK_FOLDER, Manifest
from qoq_data.corpus.planning import SourceInput
from qoq_data.errors import LayoutError, RecordError, UsageError
from qoq_data.formats.new_file import storage_error
from qoq_data.formats.storage import Store
from qoq_data.recipe import Recipe
from qoq_data.sources import get_source

ROOTS = f"{WORK_FOLDER}/roots.json"
RAW_VARIABLE = "QOQ_RAW"


def gather_inputs(recipe: Recipe, raw: str | None, corpus: Store, patients: int | None) -> list[SourceInput]:
    """The sources of a recipe with their raw trees; with ``patients`` these are synthetic, of so many patients."""
    inputs = []
    for entry in recipe.sources:
        source = get_source(entry.name)
        if patients is not None:
            tree = _synthetic_tree(corpus, entry.name, recipe.seed, patients)
        else:
            tree = Store(raw_address(entry.name, raw, alone=len(recipe.sources) == 1))
            if not tree.is_folder():
                raise LayoutError(f"The raw folder of {entry.name} is not there. {_how(entry.name)}")
        inputs.append(SourceInput(source, entry, tree, synthetic=patients is not None))
    return inputs


def raw_address(name: str, raw: str | None, alone: bool) -> str:
    """Address of a source's raw tree: ``--raw`` itself for one source, its folder below for several, else QOQ_RAW's."""
    if raw is not None:
        return raw if alone else f"{raw.rstrip('/')}/{name}"
    base = os.environ.get(RAW_VARIABLE)
    if not base:
        raise UsageError(f"Where are the files of {name}? {_how(name)}")
    return f"{base.rstrip('/')}/{name}"


def remembered(manifest: Manifest, corpus: Store, raw: str | None) -> tuple[Recipe, list[SourceInput]]:
    """A finished corpus's recipe with its patient key, and its raw trees by ``--raw``, QOQ_RAW or as remembered."""
    try:
        known = json.loads(corpus.read(ROOTS))
        addresses, key = dict(known["roots"]), {"patient_key": known["patient_key"]}
    except (RecordError, ValueError, KeyError, TypeError):
        addresses, key = {}, {}
    recipe = Recipe.model_validate(dict(manifest.recipe) | key)
    synthetic = {source.name: source.synthetic for source in manifest.sources}
    inputs = []
    for entry in recipe.sources:
        given = raw is not None or entry.name not in addresses
        address = raw_address(entry.name, raw, alone=len(recipe.sources) == 1) if given else addresses[entry.name]
        inputs.append(SourceInput(get_source(entry.name), entry, Store(address), synthetic[entry.name]))
    return recipe, inputs


def _synthetic_tree(corpus: Store, name: str, seed: int, patients: int) -> Store:
    if corpus.folder is None:
        raise UsageError("A synthetic build writes its raw trees beside the corpus, so --out has to be a local folder.")
    folder = Path(corpus.full_path(f"{WORK_FOLDER}/synthetic/{name}-{seed}-{patients}"))
    begun = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        if not folder.is_dir():
            begun.mkdir(parents=True)
            get_source(name).synthesize(begun, seed, patients)
            begun.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another build has just put the same tree there
            raise storage_error(error, f"the synthetic tree of {name}") from error
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return Store(folder)


def remember(recipe: Recipe, corpus: Store, inputs: Sequence[SourceInput]) -> None:
    """Note, for later commands on the corpus, where its raw trees lie and the key of its patients' hashes."""
    roots = {
        one.source.name: str(one.raw.folder.resolve()) if one.raw.folder is not None else one.raw.address
        for one in inputs
    }
    corpus.write(ROOTS, json.dumps({"patient_key": recipe.patient_key, "roots": roots}, indent=1).encode())


def _how(name: str) -> str:
    return f"Give --raw, or set {RAW_VARIABLE} to the folder of {name}/. 'qoq-data info {name}' says how to get it."

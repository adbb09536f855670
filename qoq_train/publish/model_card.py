"""The card of a trained model: what it is made from, by which recipe, under which terms, and what was measured.

It is made from the run's folder alone and holds no row, no completion and no path of the machine.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import yaml

from qoq_data.corpus.manifest import read_manifest
from qoq_data.formats.storage import Store
from qoq_data.publish.markdown import plain, table
from qoq_train.publish.terms import read_json, recorded_hash, run_recipe, shown_name
from qoq_train.recipe import TrainRecipe, train_recipe_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qoq_train.publish.terms import Terms

_FIGURES: Final = ("macro_f1", "exact_match", "accuracy_one_vs_rest", "within_tolerance", "box_iou", "unreadable_rate")


def card_text(run: Path, terms: Terms) -> str:
    """The card's text: a header in the Hub's words, and the body."""
    recipe = run_recipe(run)
    figures = _last_evaluation(run)
    domains = sorted({name.split("/")[0] for name in figures if "/" in name} - {"overall"})
    header = yaml.safe_dump(_header(recipe, terms, domains), sort_keys=False, allow_unicode=True, width=120)
    lines = [
        "---", header.rstrip("\n"), "---", "", f"# {plain(recipe.name)}", "",
        *_warning(recipe), *_about(run, recipe, terms), *_measured(figures, domains), *_settings(run, recipe),
    ]  # fmt: skip
    return "\n".join(lines).rstrip("\n") + "\n"


def shown_recipe(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe with names in place of the machine's folders."""
    model = recipe.model.model_copy(update={"path": shown_name(recipe.model.path)})
    data = recipe.data.model_copy(update={"corpus": _last_name(recipe.data.corpus)})
    return recipe.model_copy(update={"model": model, "data": data})


def _header(recipe: TrainRecipe, terms: Terms, domains: list[str]) -> dict[str, Any]:
    base = recipe.model.path
    is_hosted = shown_name(base) == base and base.count("/") == 1
    only = terms.model.identifier if terms.is_open else None
    names = [terms.model.identifier or "unknown", *terms.corpora]
    licence = {"license": only} if only else {"license": "other", "license_name": _slug(" and ".join(names))}
    return {
        **licence,
        **({"base_model": base} if is_hosted else {}),
        "library_name": "transformers",
        "tags": ["medical", recipe.method.advantage, *(domain.replace("_", "-") for domain in domains)],
    }


def _warning(recipe: TrainRecipe) -> Iterator[str]:
    manifest = read_manifest(Store(recipe.data.corpus))
    if any(entry.synthetic for entry in manifest.sources):
        yield "> [!WARNING]"
        yield "> **It was trained on rows that a program generated.** No figure here says anything of a patient."
        yield ""
    yield "For research. It is no medical device, and nobody has examined whether its answers are safe to act on."
    yield ""


def _about(run: Path, recipe: TrainRecipe, terms: Terms) -> Iterator[str]:
    manifest = read_manifest(Store(recipe.data.corpus))
    chosen = [one for one in manifest.sources if recipe.data.sources is None or one.name in recipe.data.sources]
    yield "## What it is made from"
    yield ""
    yield from table(
        ("", ""),
        [
            ("base model", plain(shown_name(recipe.model.path))),
            ("its licence", plain(str(terms.model))),
            ("corpus", plain(manifest.name)),
            ("sha256 of the corpus's manifest", f"`{recorded_hash(run)}`"),
            ("licences of its rows", plain("; ".join(terms.corpora))),
            ("method", plain(recipe.method.advantage)),
        ],
    )
    yield from table(
        ("source", "version", "rows", "of them for training"),
        [(f"`{one.name}`", plain(one.version), one.rows, one.splits.get("train", 0)) for one in chosen],
    )


def _measured(figures: dict[str, float], domains: list[str]) -> Iterator[str]:
    if not figures:
        return
    yield "## On the validation split, at the last step"
    yield ""
    shown = [name for name in _FIGURES if any(f"{of}/{name}" in figures for of in ("overall", *domains))]
    rows = []
    for of in ("overall", *domains):
        values = (figures.get(f"{of}/{name}") for name in shown)
        rows.append((plain(of), *(None if value is None else f"{value:.3f}" for value in values)))
    yield from table(("", *(name.replace("_", " ") for name in shown)), rows)
    yield (
        "Overall is the mean of domains. These rows chose nothing in training, and are no test: "
        "`qoq-train eval` gives the test split's figures with intervals and baselines."
    )
    yield ""


def _settings(run: Path, recipe: TrainRecipe) -> Iterator[str]:
    yield "## Recipe"
    yield ""
    yield from ("```yaml", train_recipe_text(shown_recipe(recipe)).rstrip("\n"), "```", "")
    versions = read_json(run / "versions.json")
    yield from table(("library", "version"), [(plain(name), plain(str(versions[name]))) for name in sorted(versions)])


def _last_evaluation(run: Path) -> dict[str, float]:
    file = run / "evaluations.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = json.loads(lines[-1]) if lines else {}
    return {
        name: float(value) for name, value in found.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def _last_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def _slug(text: str) -> str:
    return "-".join(text.lower().replace(":", "").replace(";", "").split())

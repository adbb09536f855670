"""Checks of a SPEC alone: everything a person needs to get, judge and ask a source is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from qoq_data.clinical import ecg_features, image_features
from qoq_data.corpus.inspectors import INSPECTORS
from qoq_data.record import AnswerType
from qoq_data.source import Source, SourceSpec, Task

FEWEST_WORDINGS = 4
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TASK_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def require(*, condition: bool, message: str) -> None:
    """Raise ``AssertionError`` with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def check_spec_is_complete(source: Source, folder: Path) -> None:  # noqa: ARG001
    """Licence, access, citation, grouping, versions and layout are stated, and named as the rest of the frame does."""
    spec = source.spec
    problems = [*_missing_texts(spec), *_licence_problems(spec), *_layout_problems(spec), *_reference_problems(spec)]
    _report(source, problems)


def check_tasks_are_well_put(source: Source, folder: Path) -> None:  # noqa: ARG001
    """Every task has a vocabulary or a tolerance, and wordings enough, none of which gives an answer away."""
    tasks = source.spec.tasks
    problems = [] if tasks else ["it has no task"]
    problems += [f"the task {name} stands twice" for name in _repeated(task.name for task in tasks)]
    for task in tasks:
        problems += [f"task {task.name}: {problem}" for problem in (*_vocabulary(task), *_wordings(task))]
    _report(source, problems)


def _report(source: Source, problems: Sequence[str]) -> None:
    require(condition=not problems, message=f"SPEC of {source.name}: " + "; ".join(problems))


def _missing_texts(spec: SourceSpec) -> list[str]:
    problems = [] if _NAME.fullmatch(spec.name) else [f"the name {spec.name!r} is not lower case with dashes"]
    for field in ("title", "modality", "citation", "identity_group"):
        if not str(getattr(spec, field)).strip():
            problems.append(f"{field} is blank")
    if len(spec.grouping.split()) < 3:
        problems.append("grouping is not a sentence on what keeps splits apart")
    if not spec.homepage.startswith("https://"):
        problems.append("homepage is no https address")
    if not spec.access_steps or any(not step.strip() for step in spec.access_steps):
        problems.append("access_steps are missing or blank")
    if not spec.versions or any(not version.name for version in spec.versions):
        problems.append("versions are missing or without a name")
    return problems + [f"version {name} stands twice" for name in _repeated(v.name for v in spec.versions)]


def _licence_problems(spec: SourceSpec) -> list[str]:
    problems = [f"licences has no entry for {role}" for role in ("media", "labels") if role not in spec.licences]
    for role, licence in spec.licences.items():
        if not licence.identifier or not licence.title:
            problems.append(f"the licence of {role} has no identifier or title")
        if not licence.url.startswith("https://"):
            problems.append(f"the licence of {role} has no https address of its text")
    return problems


def _layout_problems(spec: SourceSpec) -> list[str]:
    problems = []
    if not any(file.required for file in spec.expected_files):
        problems.append("expected_files has no required file or folder")
    paths = [file.path for file in spec.expected_files]
    problems += [f"{path} stands twice in expected_files" for path in _repeated(paths)]
    for path in paths:
        if not path.strip("/") or path.startswith("/") or ".." in PurePosixPath(path).parts:
            problems.append(f"{path!r} in expected_files is no path below the root")
    for file in spec.expected_files:
        if file.path.endswith("/") and file.columns:
            problems.append(f"{file.path} is a folder and has columns")
        problems += [f"the column {name!r} of {file.path} stands twice" for name in _repeated(file.columns)]
    if spec.checksums_file is not None and spec.checksums_file not in paths:
        problems.append("checksums_file is none of expected_files")
    return problems


def _reference_problems(spec: SourceSpec) -> list[str]:
    problems = [f"there is no inspector {name}" for name in spec.inspectors if name not in INSPECTORS]
    for task in spec.tasks:
        inspector, _, column = task.fact.partition(".")
        if task.fact and column not in getattr(INSPECTORS.get(inspector), "schema", {}):
            problems.append(f"the fact {task.fact} of task {task.name} is none that an inspector measures")
    problems += [f"the context field {name} stands twice" for name in _repeated(spec.context_fields)]
    if not spec.synthetic:
        problems.append("synthetic names no task whose labels can be seen in the synthetic tree")
    names = {task.name: task for task in spec.tasks}
    for seen in spec.synthetic:
        if seen.task not in names or not names[seen.task].choices:
            problems.append(f"synthetic names {seen.task}, which is no task with labels")
        known = (ecg_features.FEATURES, image_features.FEATURES)
        if not seen.features or not any(set(seen.features) <= set(one) for one in known):
            problems.append(f"the features of synthetic task {seen.task} are not all measures of ECGs or of images")
    return problems


def _vocabulary(task: Task) -> list[str]:
    problems = [] if _TASK_NAME.fullmatch(task.name) else ["its name is not lower case with underscores"]
    if task.answer_type is AnswerType.NUMBER:
        if task.tolerance is None or not task.tolerance > 0:
            problems.append("its answer is a number, and it has no tolerance")
        return problems + (["its answer is a number, and it has choices"] if task.choices else [])
    if task.tolerance is not None:
        problems.append("its answer is no number, and it has a tolerance")
    if len(task.choices) < 2:
        problems.append("it has fewer than two choices")
    problems += [f"the key {key} stands twice" for key in _repeated(choice.key for choice in task.choices)]
    problems += [f"the text {text!r} stands twice" for text in _repeated(c.text.lower() for c in task.choices)]
    if any(not choice.key.strip() or not choice.text.strip() for choice in task.choices):
        problems.append("a choice is blank")
    return problems


def _wordings(task: Task) -> list[str]:
    problems = []
    if len({" ".join(wording.lower().split()) for wording in task.wordings}) < FEWEST_WORDINGS:
        problems.append(f"it has fewer than {FEWEST_WORDINGS} distinct wordings")
    for number, wording in enumerate(task.wordings, 1):
        if not wording.strip():
            problems.append(f"wording {number} is blank")
        named = [choice.text for choice in task.choices if holds_phrase(wording, choice.text)]
        if named and len(named) < len(task.choices):
            problems.append(f"wording {number} names the answer {named[0]!r} and not every other")
    return problems


def holds_phrase(text: str, phrase: str) -> bool:
    """Whether a phrase stands in a text as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", text, re.IGNORECASE) is not None


def _repeated(values: Iterable[str]) -> list[str]:
    every = list(values)
    return sorted({value for value in every if every.count(value) > 1})

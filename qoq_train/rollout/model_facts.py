"""What must be the same of a model for a rollout server and its trainer, as a few lines that can be compared."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoq_train.models.loading import Policy

_NOT_THE_MODEL: Final = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"})


def model_facts(policy: Policy) -> dict[str, Any]:
    """Of a policy: its kind, its config, its precision, how it cuts pictures, and which tokens end it or are banned.

    The config is read from the policy's path anew, since what trains a model changes the one that it carries.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(policy.choice.path)
    images = getattr(policy.processor, "image_processor", None)
    rule = policy.pictures
    return {
        "family": policy.family,
        "config": _digest(_plain(config.to_dict())),
        "dtype": policy.choice.dtype,
        "picture limits": None if rule is None else [rule.min_pixels, rule.max_pixels],
        "picture processor": None if images is None else _digest(_plain(images.to_dict())),
        "end tokens": sorted(policy.end_ids),
        "banned tokens": sorted(policy.banned_ids),
        "transformers": transformers.__version__,
    }


def differences(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Which facts differ, for a person; versions of libraries are told only where something else differs too."""
    differing = sorted(name for name in own if name != "transformers" and own[name] != theirs.get(name))
    told = []
    for name in [*differing, *(["transformers"] if differing and own != theirs else [])]:
        mine, other = own[name], theirs.get(name)
        hashed = name in ("config", "picture processor")
        told.append(name if hashed else f"{name} (here {mine}, there {other})")
    return told


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _plain(value) for key, value in tree.items() if key not in _NOT_THE_MODEL}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return tree


def _digest(tree: Any) -> str:
    text = json.dumps(tree, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()

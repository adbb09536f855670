"""What vLLM's worker is extended by, so that it takes weights piece by piece: nothing holds the whole model twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

WORKER_EXTENSION: Final = "qoq_train.rollout.worker.WeightReceiver"


class WeightReceiver:
    """Mixed into vLLM's worker under ``worker_extension_cls``; called by ``collective_rpc`` under these names.

    vLLM's own layerwise reload does the work: a layer is made ready as soon as its last weight is there. Between
    ``begin_weights`` and ``end_weights`` the model cannot be run.
    """

    model_runner: Any
    vllm_config: Any
    _takes_weights: bool = False

    def begin_weights(self) -> None:
        """Open an update; one that was left half-way is closed first, else its pieces would count for this one."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        with set_current_vllm_config(self.vllm_config):
            if self._takes_weights:
                self._finalise()
            self._takes_weights = True
            initialize_layerwise_reload(self.model_runner.get_model())

    def take_weights(self, weights: Sequence[tuple[str, torch.Tensor]]) -> None:
        """Take some weights by their names in the checkpoint.

        Raises:
            RuntimeError: no update is open.
        """
        from vllm.config import set_current_vllm_config

        if not self._takes_weights:
            raise RuntimeError("weights came without begin_weights before them")
        with set_current_vllm_config(self.vllm_config):
            self.model_runner.get_model().load_weights(iter(weights))

    def end_weights(self) -> None:
        """Close the update and empty what the worker keeps of pictures under the old weights."""
        from vllm.config import set_current_vllm_config

        with set_current_vllm_config(self.vllm_config):
            self._finalise()
        self.model_runner.reset_lora_state()
        self.model_runner.reset_encoder_cache()
        self.model_runner.reset_mm_cache()

    def _finalise(self) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize: Any = finalize_layerwise_reload
        finalize(self.model_runner.get_model(), self.model_runner.model_config)
        self._takes_weights = False

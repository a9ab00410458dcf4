"""Who makes the number format of the weights: the checkpoint brings it, or the engine converts while it loads.

An engine that is told to quantize what is quantized already refuses to start, and one that is not told loads 16 bits that
do not fit. `mode: Auto` decides by what the name of the source says; status tells the decision and its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.api.formats import VLLM_ON_LOAD
from fairlead.api.llmdeployment import QuantizationMode

__all__ = ["QuantizationDecision", "decide_quantization"]

_UNQUANTIZED = frozenset({"BF16", "FP16"})


@dataclass(frozen=True, slots=True)
class QuantizationDecision:
    """`weights`: the format asked for, None for what the checkpoint brings. `on_load`: the engine must convert. `note`: both
    with the reason, for status; None when nothing is known."""

    weights: str | None
    on_load: bool
    note: str | None


def decide_quantization(
    weights: str | None, mode: QuantizationMode, stored: str | None, *, has_accelerator: bool
) -> QuantizationDecision:
    """`weights` and `mode` as in the spec; `stored` as `read_stored_format` reads the source's name; `has_accelerator`: vLLM
    converts on accelerators only."""
    if weights is None:
        return QuantizationDecision(None, False, f"{stored}, as the name of the source says" if stored else None)
    if weights in _UNQUANTIZED or weights not in VLLM_ON_LOAD:
        return QuantizationDecision(weights, False, weights)
    if mode is not QuantizationMode.AUTO:
        on_load, why = mode is QuantizationMode.ON_LOAD, f"mode {mode.value}"
    elif stored == weights:
        on_load, why = False, "as the name of the source says"
    elif not has_accelerator:
        on_load, why = False, "nothing is converted on CPU"
    else:
        on_load, why = True, "the name of the source does not say that it is stored so"
    made = "made while loading" if on_load else "stored in the checkpoint"
    return QuantizationDecision(weights, on_load, f"{weights}, {made} ({why})")

"""On a CPU a node of a tree has the very logits that plain decoding computes there, in every dtype."""

import pytest
import torch
from compare import assert_bitwise
from models import KINDS, ScriptedDraft, prompts, tiny_target

from eagle_decoding import SpeculativeDecoder
from eagle_decoding.modules import fused_modules

SETTINGS = {"do_sample": False, "max_new_tokens": 60, "eos_token_id": None}
RECORD = {"return_dict_in_generate": True, "output_logits": True}


@pytest.mark.parametrize(("kind", "batch"), [*((kind, 1) for kind in KINDS), ("llama", 7)])
def test_logits_of_tree_and_plain_decoding_agree(kind, batch, dtype):
    """A batch of 7 verifies 161 rows at once: more than one request may have before the stock path takes over."""
    target = tiny_target(kind, dtype)
    inputs = prompts(batch)
    decoder = SpeculativeDecoder(target, ScriptedDraft([], accuracy=0.9, num_nodes=23))
    plain = decoder.generate(**inputs, speculate=False, **SETTINGS, **RECORD)
    padding = (inputs["attention_mask"] == 0).sum(1).tolist()
    decoder.draft.texts = [row[skip:].tolist() for row, skip in zip(plain.sequences, padding, strict=True)]
    speculative = decoder.generate(**inputs, **SETTINGS, **RECORD)
    assert decoder.stats.tokens_per_round > 2
    assert torch.equal(speculative.sequences, plain.sequences)
    for step, (actual, expected) in enumerate(zip(speculative.logits, plain.logits, strict=True)):
        assert_bitwise(actual, expected, f"logits of step {step}")


REPLACED = {
    "qwen3": {"Qwen3RMSNorm", "Qwen3MLP", "Qwen3DecoderLayer", "Qwen3Model"},
    "smollm3": {"SmolLM3RMSNorm", "SmolLM3MLP", "SmolLM3DecoderLayer"},
    "phi3": {"Phi3RMSNorm", "Phi3MLP"},
    "granite": {"GraniteRMSNorm", "GraniteMLP"},
    "glm4": {"Glm4RMSNorm", "Glm4MLP"},
    "olmo2": {"Olmo2MLP"},  # its norms round elsewhere
}


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("kind", REPLACED)
def test_fused_modules_compute_what_stock_modules_do(kind, dtype, linear):
    """Up to rounding; stock forwards are back afterwards, also after an error."""
    target = tiny_target(kind, dtype)
    inputs = prompts(1)
    with torch.inference_mode():
        stock = target(**inputs).logits.float()
        with fused_modules(target, linear):
            replaced = {type(module).__name__ for module in target.modules() if "forward" in vars(module)}
            fused = target(**inputs).logits.float()
        with pytest.raises(ZeroDivisionError), fused_modules(target):
            _ = 1 / 0
        after = target(**inputs).logits.float()
    whole = {name for name in REPLACED[kind] if name.endswith(("Layer", "Model"))}
    assert replaced == (REPLACED[kind] | {"Linear"} if linear else REPLACED[kind] - whole)
    tolerance = {torch.float32: 1e-4, torch.float16: 0.1, torch.bfloat16: 0.8}[dtype]
    assert (fused - stock).abs().max() < tolerance * max(1.0, stock.abs().mean().item())
    assert_bitwise(after, stock, "logits after fused_modules")

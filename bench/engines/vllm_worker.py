"""Runs in vLLM's own Python, without this project: one engine that answers requests, a line of JSON each.

Started with vLLM's settings as JSON. What vLLM prints goes to the standard error.
"""

import importlib
import json
import os
import sys
from typing import Any


def drafts(metrics: list[Any]) -> int:
    """How often a draft was verified so far."""
    return sum(metric.value for metric in metrics if metric.name == "vllm:spec_decode_num_drafts")


def main(settings: dict[str, Any]) -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    vllm = importlib.import_module("vllm")
    engine = vllm.LLM(**settings)
    print(json.dumps({"version": vllm.__version__}), file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        before = drafts(engine.get_metrics())
        wanted = vllm.SamplingParams(temperature=0, max_tokens=request["new_tokens"])
        given = engine.generate([{"prompt_token_ids": request["prompt"]}], wanted, use_tqdm=False)[0]
        tokens = list(given.outputs[0].token_ids)
        reply = {
            "tokens": tokens,
            "steps": len(tokens) - 1,
            "rounds": drafts(engine.get_metrics()) - before if "speculative_config" in settings else len(tokens) - 1,
            "prompt_seconds": given.metrics.first_token_latency,
            "seconds": given.metrics.last_token_ts - given.metrics.first_token_ts,
        }
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

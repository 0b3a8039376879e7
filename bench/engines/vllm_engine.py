"""vLLM: one engine for each way of drafting, in a process of its own Python, timed by its own request metrics."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from bench.engines.engine import Answer, Child

WORKER = Path(__file__).with_name("vllm_worker.py")


class Vllm:
    """An engine for one sequence at a time. speculative: its speculative_config; preload: libraries for LD_PRELOAD."""

    def __init__(
        self,
        python: Path,
        target: str,
        speculative: dict[str, Any] | None,
        threads: int,
        context: int,
        preload: str,
    ):
        settings: dict[str, Any] = {"model": target, "dtype": "bfloat16", "max_model_len": context, "max_num_seqs": 1}
        settings |= {"enable_prefix_caching": False, "disable_log_stats": False}
        if speculative:
            settings["speculative_config"] = speculative
        environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
        environment |= {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind", "LD_PRELOAD": preload}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.child = Child("vLLM", [python, WORKER, json.dumps(settings)], env=environment, **pipes)
        self.close = self.child.close
        self.cpu_seconds = self.child.cpu_seconds
        try:
            self.version: str = self.reply()["version"]
        except BaseException:
            self.close()
            raise

    def reply(self) -> dict[str, Any]:
        line = self.child.output.readline()
        if not line:
            raise self.child.failed()
        return json.loads(line)

    def ask(self, prompt: list[int], new_tokens: int) -> Answer:
        request = json.dumps({"prompt": prompt, "new_tokens": new_tokens})
        self.child.input.write(request.encode() + b"\n")
        self.child.input.flush()
        return Answer(**self.reply())


def vllm_arms(head: str, chains: list[int]) -> list[tuple[str, dict[str, Any] | None]]:
    """(name, speculative_config) of every vLLM engine."""
    configs = [{"method": "eagle3", "model": head, "num_speculative_tokens": size} for size in chains]
    named = [(f"vLLM, chain {size + 1}/{size}/1", config) for size, config in zip(chains, configs, strict=True)]
    return [("vLLM, plain", None), *named]

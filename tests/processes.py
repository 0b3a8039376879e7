"""Runs a function in processes of their own: several that torchrun would have started, or one that is killed."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import torch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["eagle_decoding.train.assemble"])  # imported once, not once a process


def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """The function in a process of its own, on one thread."""
    process = SERVER.Process(target=_on_one_thread, args=({}, function, *arguments), daemon=True)
    process.start()
    return process


def run_together(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """The function in `count` processes with the environment that torchrun gives; fails if one of them does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
    }
    team = []
    for rank in range(count):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        team.append(SERVER.Process(target=_on_one_thread, args=(environment, function, *arguments), daemon=True))
        team[-1].start()
    for process in team:
        process.join(120)
    codes = [process.exitcode for process in team]
    for process in team:
        process.kill()
    assert codes == [0] * count, f"the processes ended with {codes}"


def _on_one_thread(environment: dict[str, str], function: Callable[..., None], *arguments: Any) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    function(*arguments)

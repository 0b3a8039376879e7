"""Training speed of one head on the same packs: a plain PyTorch loop against this trainer, each in its own process;
all products in fp32, and all in bf16 (autocast).

python -m bench.bench_train --target MODEL --head DIRECTORY --tokens ROWS.safetensors --features FOLDER
"""

import argparse
import multiprocessing
import time
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.machine import machine
from bench.results_file import write_json
from eagle_decoding.checkpoint import read_head
from eagle_decoding.train.attention import rope_tables, rotate
from eagle_decoding.train.config import load_config
from eagle_decoding.train.data import pack_rows, read_token_rows
from eagle_decoding.train.features import FeatureShards
from eagle_decoding.train.loop import Trainer
from eagle_decoding.train.metrics import Acceptance
from eagle_decoding.train.objectives import OBJECTIVES
from eagle_decoding.train.process import settle_process
from eagle_decoding.train.target import frozen_target

PLAIN = "plain PyTorch"
FLOORS = {PLAIN: None, "trainer": 0.0, "trainer, path_floor 0.003": 0.003}
LEARNING_RATE = 1e-5  # the head is trained already: it must stay what it is


def make_trainer(options: argparse.Namespace, path_floor: float, bf16: bool) -> Trainer:
    """A trainer of the given head, whose packs are every process's same."""
    head = read_head(options.head)
    shape = head.config
    config = load_config(
        None,
        [
            f"head.draft_vocab_size={shape.draft_vocab_size}",
            f"head.num_kv_heads={shape.num_kv_heads}",
            f"head.fc_norm={shape.fc_norm}".lower(),
            f"head.norm_output={shape.norm_output}".lower(),
            f"unroll.steps={options.steps}",
            f"unroll.path_floor={path_floor}",
            f"optim.lr={LEARNING_RATE}",
            f"optim.bf16={bf16}".lower(),
        ],
    )
    target = frozen_target(options.target)
    module = OBJECTIVES["eagle3"].build(config, target, head.target_ids)
    own = module.state_dict()
    module.load_state_dict({name: head.tensors[name].to(own[name].dtype) for name in own})
    data = read_token_rows(options.tokens)
    features = FeatureShards(options.features, data, target)
    return Trainer(config, module, data, features, features.rows, [], lambda report: None)


def plain_step(trainer: Trainer, pack: list[int], bf16: bool) -> None:
    """One optimiser step as one would write it: a padded batch, every position at every step, all logits, autograd."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = plain_loss(trainer, pack)
    trainer.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainer.head.parameters(), trainer.config.optim.clip)
    trainer.optimizer.step()


def plain_loss(trainer: Trainer, pack: list[int]) -> Tensor:
    """The loss of a pack over all steps."""
    head: Any = trainer.head
    ids, supervised, aux, final = padded(trainer, pack)
    shape, layer, steps = head.config, head.layer, trainer.config.unroll.steps
    batch, length = ids.shape
    with torch.no_grad():
        teacher = (final @ head.lm_head.T).softmax(-1)
    hidden = head.begin(aux.flatten(0, 1), final.flatten(0, 1))
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    keys: list[Tensor] = []
    values: list[Tensor] = []
    total = torch.zeros(())
    for step in range(steps):
        following = ids.roll(-1 - step, 1)
        joined, residual = head.enter(head.embed_tokens[following].flatten(0, 1), hidden)
        cos, sin = rope_tables(head.inv_freq, (torch.arange(length) + step).repeat(batch), head.rope_scaling)
        heads = [
            projection(joined).unflatten(-1, (-1, shape.head_dim))
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        ]
        query, key, value = (
            x.view(batch, length, -1, shape.head_dim)
            .transpose(1, 2)
            .repeat_interleave(shape.num_heads // x.shape[1], 1)
            for x in (rotate(heads[0], cos, sin), rotate(heads[1], cos, sin), heads[2])
        )
        keys.append(key)
        values.append(value)
        scale = shape.head_dim**-0.5
        scores = [(query @ keys[0].transpose(-1, -2) * scale).masked_fill(future, -torch.inf)]
        scores += [(query * own).sum(-1, keepdim=True) * scale for own in keys[1:]]
        weights = torch.cat(scores, -1).softmax(-1)
        attended = weights[..., :length] @ values[0]
        for i, own in enumerate(values[1:]):
            attended = attended + weights[..., length + i, None] * own
        hidden = residual + layer.self_attn.o_proj(attended.transpose(1, 2).reshape(batch * length, -1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        normed, hidden = head.finish(hidden)
        logprobs = (normed @ head.lm_head.T).log_softmax(-1).view(batch, length, -1)
        loss = -(teacher.roll(-1 - step, 1) * logprobs).sum(-1)
        mask = supervised.roll(-2 - step, 1) & (head.draft_ids[ids.roll(-2 - step, 1)] >= 0)
        mask[:, length - 2 - step :] = False
        total = total + (loss * mask).sum() / supervised.sum() * trainer.config.unroll.decay**step
    return total


def padded(trainer: Trainer, pack: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ids, supervised [B, T], aux [B, T, A, H], final [B, T, H] of a pack's documents, padded on the right."""
    columns: list[list[Tensor]] = [[], [], [], []]
    for row in pack:
        document = trainer.data.pack([row])
        for column, part in zip(
            columns, (document.input_ids, document.supervised, *trainer.features.read([row])), strict=True
        ):
            column.append(part)
    ids, supervised, aux, final = (torch.nn.utils.rnn.pad_sequence(column, batch_first=True) for column in columns)
    return ids, supervised, aux, final


def measure(name: str, bf16: bool, options: argparse.Namespace, answer: Connection) -> None:
    """Send back supervised tokens, seconds and CPU seconds of the packs after a first one that is not counted."""
    torch.set_num_threads(options.threads)
    path_floor = FLOORS[name]
    if path_floor is not None:
        settle_process()
    trainer = make_trainer(options, path_floor or 0.0, bf16)

    def step(pack: list[int]) -> None:
        if path_floor is None:
            plain_step(trainer, pack, bf16)
        else:
            trainer._step([pack], LEARNING_RATE, Acceptance(options.steps))

    packs = pack_rows(trainer.data, trainer.train_rows, options.pack_tokens, 0)[: options.packs + 1]
    step(packs[0])
    start, start_cpu = time.perf_counter(), time.process_time()
    for pack in packs[1:]:
        step(pack)
    seconds = time.perf_counter() - start, time.process_time() - start_cpu
    answer.send((sum(trainer.data.supervised_tokens(row) for pack in packs[1:] for row in pack), *seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--head", required=True)
    parser.add_argument("--tokens", required=True, nargs="+")
    parser.add_argument("--features", required=True)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--packs", type=int, default=4)
    parser.add_argument("--pack-tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    spawn, best = multiprocessing.get_context("spawn"), {}
    for name, bf16 in product(list(FLOORS) * options.rounds, (False, True)):
        receive, send = spawn.Pipe(duplex=False)
        process = spawn.Process(target=measure, args=(name, bf16, options, send))
        process.start()
        send.close()
        tokens, seconds, cpu = receive.recv()
        process.join()
        name += ", bf16" * bf16
        speeds = {"tokens_per_second": tokens / seconds, "tokens_per_cpu_second": tokens / cpu}
        best[name] = {key: max(value, best.get(name, {}).get(key, 0)) for key, value in speeds.items()}
        print(f"{name:<34}{tokens} tokens in {seconds:.1f} s ({cpu:.1f} s of CPU)", flush=True)
    print(f"\n{'supervised tokens a second':<34}{'wall':>10}{'ratio':>8}{'CPU':>10}{'ratio':>8}")
    for name, speeds in best.items():
        rival = best[PLAIN + ", bf16" * name.endswith(", bf16")]  # of the same products
        cells = "".join(f"{value:>10.0f}{value / rival[key]:>8.2f}" for key, value in speeds.items())
        print(f"{name:<34}{cells}")
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key in ("steps", "packs", "pack_tokens")}
        write_json({"machine": machine("cpu"), **settings, "best": best}, options.json)


if __name__ == "__main__":
    main()

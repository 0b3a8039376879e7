"""Does this head belong to this target?"""

from __future__ import annotations

from typing import Any

from eagle_decoding.checkpoint.config import HeadConfig, LayerConfig
from eagle_decoding.checkpoint.errors import CheckpointError


def check_fits(head: LayerConfig, target: Any) -> None:
    """Raise CheckpointError, naming everything that disagrees, unless the head was made for a target of this shape.

    target: the target's transformers configuration (`hidden_size`, `vocab_size`, `num_hidden_layers`).
    """
    target = target.get_text_config()
    problems = []
    width = head.target_hidden_size if isinstance(head, HeadConfig) else head.hidden_size
    if width != target.hidden_size:
        problems.append(f"hidden size {width} against the target's {target.hidden_size}")
    if head.vocab_size != target.vocab_size:
        problems.append(f"vocabulary {head.vocab_size} against the target's {target.vocab_size}")
    if isinstance(head, HeadConfig):
        problems += _layer_problems(head, target.num_hidden_layers)
    if problems:
        raise CheckpointError(f"The head does not fit the target: {'; '.join(problems)}; use a head trained for it.")


def _layer_problems(head: HeadConfig, num_layers: int) -> list[str]:
    problems, ids = [], head.layer_ids(num_layers)
    if any(not 0 <= i <= num_layers + 1 for i in ids) or list(ids) != sorted(set(ids)):
        problems.append(f"layer ids {list(ids)} against the target's {num_layers} layers")
    if len(ids) != head.num_aux:
        problems.append(f"{head.num_aux} fused features against {len(ids)} layer ids {list(ids)}")
    return problems

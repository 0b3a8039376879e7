"""Writes a model of the target's first layers: the only small model that shares its tokenizer where no other exists.

    python -m bench.first_layers TARGET LAYERS OUT

Untrained early exit (cf. Draft & Verify, Zhang et al. 2023, arXiv 2309.08168), for the speculative sampling row of a
table.
"""

import argparse
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer


def write_first_layers(target: str, layers: int, out: Path) -> None:
    """Embeddings, the first `layers` layers, final norm and lm_head of the model in directory `target`, in `out`.

    Raises ValueError if the target has no more layers than that, or if `out` exists.
    """
    model = AutoModelForCausalLM.from_pretrained(target)
    if not 0 < layers < model.config.num_hidden_layers:
        raise ValueError(f"{layers} layers were asked for; {target} has {model.config.num_hidden_layers}, give fewer.")
    if out.exists():
        raise ValueError(f"{out} exists already; name a new directory.")
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    unfinished = out.with_name(f"{out.name}.unfinished")
    model.save_pretrained(unfinished)
    AutoTokenizer.from_pretrained(target).save_pretrained(unfinished)
    unfinished.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="directory or hub id")
    parser.add_argument("layers", type=int)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    write_first_layers(options.target, options.layers, options.out)


if __name__ == "__main__":
    main()

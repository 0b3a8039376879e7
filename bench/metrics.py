"""The papers' metrics under their names, with their definitions."""

from bench.rounds import Acceptance

DEFINITIONS = {
    "speed-up ratio": "tokens per second over those of the baseline on the same prompts, batch 1, prompt's forward "
    "excluded (EAGLE, arXiv 2401.15077, names it for transformers' vanilla decoding)",
    "average acceptance length tau": "tokens that a target forward over a draft yields on average: accepted drafts and "
    "the target's own token, so tau = accepted / rounds + 1 (EAGLE-2, arXiv 2406.16858)",
    "acceptance rate n-alpha": "chain drafts: share of accepted tokens among those drafted after n inputs that the "
    "draft predicted itself, all earlier ones of the round accepted; 0-alpha is the first token, drafted from the "
    "target's true features alone (EAGLE, arXiv 2401.15077)",
}


def average_acceptance_length(acceptance: Acceptance) -> float:
    """tau; 1 for plain decoding, where a round accepts nothing, and before the first round."""
    return 1 + sum(acceptance.by_depth) / acceptance.rounds if acceptance.rounds else 1.0


def acceptance_rates(acceptance: Acceptance) -> list[float]:
    """n-alpha for n = 0, 1, ...: of a chain. Raises ValueError when a node had several children."""
    if any(rank > 1 for ranks in acceptance.accepted for rank in ranks):
        raise ValueError("n-alpha is defined for chains: draft with topk 1.")
    return [
        accepted / tested for accepted, tested in zip(acceptance.by_depth, acceptance.tested, strict=True) if tested
    ]

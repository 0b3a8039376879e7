"""Which of a node's children are sampled and which are the likeliest ones, and how `auto` chooses between rules."""

import torch
from torch import Tensor

RULES = ("sampled", "hybrid", "likeliest")
CURIOSITY = 0.5  # accepted tokens by which a rule that was rarely tried is favoured


def fixed_children(rule: Tensor, num_children: Tensor) -> Tensor:
    """How many of each node's children, its first, are chosen without noise: none, all but one, or all.

    rule: [batch] index into RULES; num_children: [batch, nodes] int32
    """
    rule = rule[:, None]
    return torch.where(rule == 0, 0, torch.where(rule == 1, num_children - 1, num_children)).clamp(min=0).int()


class RuleChooser:
    """Chooses a rule for each request and round by the acceptance lengths of the request's earlier rounds.

    The rule with the largest mean accept length plus CURIOSITY * sqrt(2 log(rounds) / rounds of the rule) wins, as in
    UCB1 (Auer et al., 2002). This stays exact: every rule verifies with noise of its own round only, so what earlier
    rounds accepted says nothing about the noise to come. Coupled drafting is no rule here because its trees do depend
    on noise to come: leaving it after a bad round would bias the text.
    """

    def __init__(self, batch: int, device: torch.device):
        self.rounds = torch.zeros(batch, len(RULES), device=device)
        self.accepted = torch.zeros_like(self.rounds)
        self.rule = torch.full((batch, 1), -1, device=device)  # of the round under way, none before the first
        self.index = torch.arange(len(RULES), device=device)

    def forget(self) -> None:
        """New requests start."""
        self.rounds.zero_()
        self.accepted.zero_()
        self.rule.fill_(-1)

    def observe(self, accept_length: Tensor) -> None:
        """Takes in what the last round accepted, [batch]; the prompt's commit, before any round, is ignored."""
        chosen = self.rule == self.index
        self.rounds += chosen
        self.accepted += chosen * accept_length[:, None]

    def choose(self) -> Tensor:
        """[batch] int64: the rule of each request's next round; each rule is tried once, then the best one."""
        mean = self.accepted / self.rounds.clamp(min=1)
        total = self.rounds.sum(1, keepdim=True).clamp(min=1)
        bonus = CURIOSITY * (2 * total.log() / self.rounds.clamp(min=1)).sqrt()
        self.rule.copy_(torch.where(self.rounds > 0, mean + bonus, torch.inf).argmax(1, keepdim=True))
        return self.rule[:, 0]

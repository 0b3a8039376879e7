"""How far an output is from the exact one, and the bounds on it."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Bounds on the relative norm of the error: float32 sums of some thousand terms; two roundings of the other types.
NORM_BOUND = {torch.float32: 4e-6, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
TIE_BOUND = 1e-5  # tokens whose float64 scores differ by less count as a tie


@dataclass
class Finding:
    """One output of one op on one backend; the measures that do not apply are None."""

    op: str
    backend: str
    dtype: str
    output: str
    absolute: float | None = None
    ulp: float | None = None
    norm: float | None = None
    mismatches: int | None = None
    tie_gap: float | None = None
    variation: float | None = None
    holds: bool = True


def measure_floats(finding: Finding, actual: Tensor, exact: Tensor, rounded: torch.dtype) -> None:
    """Worst absolute error, worst error in units in the last place of the output's dtype, relative norm.

    rounded: the coarsest dtype that the op rounds to on the way to the output; it bounds the norm
    """
    info = torch.finfo(actual.dtype)
    a, e = actual.double(), exact.double()
    error = torch.where((a == e) | (a.isnan() & e.isnan()), 0.0, (a - e).abs()).nan_to_num(nan=torch.inf)
    spacing = torch.exp2(torch.floor(torch.log2(e.abs().clamp(min=info.tiny)))) * info.eps
    finite = torch.where(e.isfinite(), e, 0.0)
    finding.absolute = error.max().item() if error.numel() else 0.0
    finding.ulp = (error / spacing.nan_to_num(nan=1.0, posinf=1.0)).max().item() if error.numel() else 0.0
    finding.norm = (error.norm() / finite.norm().clamp(min=info.tiny)).item()
    finding.holds = finding.norm <= NORM_BOUND[rounded]


def measure_integers(finding: Finding, actual: Tensor, expected: Tensor, gap: Tensor | None) -> None:
    """Mismatches, and the largest score gap among them: how far from a tie the two choices were.

    gap: like actual, float64: how much worse the chosen entry scores than the expected one; None where ties do not
         excuse anything
    """
    differs = actual != expected
    finding.mismatches = int(differs.sum())
    if gap is not None:
        finding.tie_gap = gap[differs].abs().max().item() if finding.mismatches else 0.0
    finding.holds = finding.mismatches == 0 or (finding.tie_gap is not None and finding.tie_gap < TIE_BOUND)


def measure_variation(finding: Finding, tokens: Tensor, law: Tensor) -> None:
    """Total variation between the frequencies of `tokens` and `law`, against three times its mean for a true law."""
    frequencies = torch.bincount(tokens.flatten().long().cpu(), minlength=len(law)).double() / tokens.numel()
    finding.variation = 0.5 * (frequencies - law.cpu()).abs().sum().item()
    deviation = (law.cpu() * (1 - law.cpu()) / tokens.numel()).sqrt().sum().item()
    finding.holds = finding.variation <= 1.2 * deviation

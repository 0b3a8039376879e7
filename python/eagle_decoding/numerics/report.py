"""The findings as a markdown table."""

from eagle_decoding.numerics.audit import SIZES
from eagle_decoding.numerics.measures import NORM_BOUND, TIE_BOUND, Finding

HEADER = "| op | backend | dtype | output | abs. error | ULP | rel. norm | mismatches | tie gap | variation | |"
RULE = "|---|---|---|---|--:|--:|--:|--:|--:|--:|---|"


def markdown(findings: list[Finding], hardware: str) -> str:
    """A page: what was measured, the bounds, the table."""
    bounds = ", ".join(f"{str(dtype).removeprefix('torch.')} {bound:.1e}" for dtype, bound in NORM_BOUND.items())
    broken = sum(not finding.holds for finding in findings)
    lines = [
        "# Numerics of every op on every backend",
        "",
        f"Written by `eagle-decoding numerics` on {hardware}. {len(findings)} outputs, {broken} out of bounds.",
        "",
        "Floats are compared with the plain-torch reference in float64 on the same inputs: worst absolute error, worst",
        "error in units in the last place of the output's dtype, and norm of the error relative to the norm of the",
        f"output, which is bounded: {bounds}. Integers must equal the reference's; an argmax may differ where the",
        f"float64 scores of the two choices differ by less than {TIE_BOUND:.0e} (tie gap). Variation is the total",
        "variation distance between drawn tokens and the law, bounded by 1.2 times the sum of standard deviations.",
        "",
        f"Sizes: `{SIZES}`.",
        "",
        HEADER,
        RULE,
        *(row(finding) for finding in findings),
    ]
    return "\n".join(lines) + "\n"


def row(f: Finding) -> str:
    floats = [f"{value:.1e}" if value is not None else "" for value in (f.absolute, f.ulp, f.norm)]
    mismatches = "" if f.mismatches is None else str(f.mismatches)
    last = [f"{value:.1e}" if value is not None else "" for value in (f.tie_gap, f.variation)]
    cells = [f.op, f.backend, f.dtype, f.output, *floats, mismatches, *last, "" if f.holds else "**broken**"]
    return "| " + " | ".join(cells) + " |"

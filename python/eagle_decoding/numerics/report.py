"""The findings as a markdown table."""

import eagle_kernels
from eagle_decoding.numerics.audit import SIZES
from eagle_decoding.numerics.measures import NORM_BOUND, TIE_BOUND, Finding

HEADER = "| op | backend | dtype | output | abs. error | ULP | rel. norm | mismatches | tie gap | variation | |"
RULE = "|---|---|---|---|--:|--:|--:|--:|--:|--:|---|"


def markdown(findings: list[Finding], device: str, hardware: str) -> str:
    """A page: what was measured, the bounds, the table."""
    bounds = ", ".join(f"{str(dtype).removeprefix('torch.')} {bound:.1e}" for dtype, bound in NORM_BOUND.items())
    broken = sum(not finding.holds for finding in findings)
    lines = [
        "# Numerics of every op on every backend",
        "",
        f"Written by `eagle-decoding numerics --device {device} --report FILE` on {hardware}: {len(findings)} outputs, "
        f"{broken} out of bounds. " + versions(),
        "",
        "Floats are compared with the plain-torch reference in float64 on the same inputs: worst absolute error, worst",
        "error in units in the last place of the output's dtype, and norm of the error relative to the norm of the",
        f"output, which is bounded by the coarsest dtype that the op rounds to: {bounds}. "
        "Integers must equal the reference's; an argmax may differ where the",
        f"float64 scores of the two choices differ by less than {TIE_BOUND:.0e} (tie gap). Variation is the total",
        "variation distance between drawn tokens and the law, bounded by 1.2 times the sum of standard deviations.",
        "Triton's interpreter computes bfloat16 wrongly and is left out there.",
        "",
        f"Sizes: `{SIZES}`.",
        "",
        HEADER,
        RULE,
        *(row(finding, device) for finding in findings),
        *(f"| {op} | cuda | | | | | | | | | not run: no GPU at hand |" for op in missing(findings, device)),
    ]
    return "\n".join(lines) + "\n"


def versions() -> str:
    info = eagle_kernels.info()
    return f"torch {info['torch']}, Triton {info['triton']}."


def missing(findings: list[Finding], device: str) -> list[str]:
    """The ops without a measured CUDA kernel."""
    return sorted({f.op for f in findings} - {f.op for f in findings if device == "cuda" and f.backend == "cpp"})


def spelt(backend: str, device: str) -> str:
    """The backend as the report calls it: by where it ran."""
    return {"cpp": device, "triton": "triton" if device == "cuda" else "triton, interpreted"}.get(backend, backend)


def row(f: Finding, device: str) -> str:
    floats = [f"{value:.1e}" if value is not None else "" for value in (f.absolute, f.ulp, f.norm)]
    mismatches = "" if f.mismatches is None else str(f.mismatches)
    last = [f"{value:.1e}" if value is not None else "" for value in (f.tie_gap, f.variation)]
    cells = [
        f.op,
        spelt(f.backend, device),
        f.dtype,
        f.output,
        *floats,
        mismatches,
        *last,
        "" if f.holds else "**broken**",
    ]
    return "| " + " | ".join(cells) + " |"

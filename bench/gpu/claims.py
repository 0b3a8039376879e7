"""What the kernels and rounds are to show on a GPU: each claim with its bound and what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Part = dict[str, Any]  # what one command of the suite wrote
LARGEST_DIFFERENCE = 0.02  # of two results over their norm: several times what rounding to bfloat16 leaves
WARPGROUP_KERNEL = "warpgroup_attention_kernel"  # of csrc/cuda/attention_warpgroup.cuh


@dataclass(frozen=True)
class Claim:
    """A measured number and its bound; a number without one is only to be shown."""

    what: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool | None:
        """None for a number without a bound."""
        if self.at_least is not None:
            return self.measured >= self.at_least
        return self.measured <= self.at_most if self.at_most is not None else None

    def line(self) -> str:
        line = f"{self.what:<76} {self.measured:10.4g}"
        if self.holds is None:
            return line
        bound = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return f"{line}  {bound}: {'yes' if self.holds else 'NO'}"


def claims(parts: dict[str, Part]) -> Iterator[Claim]:
    """All claims that the parts, by name, have numbers for."""
    kernels = parts.get("kernels", {})
    for row in kernels.get("kernels", []):
        yield from of_kernel(row)
        yield from of_results(row)
        if "captured" in row and on_gpu(kernels):
            yield Claim(f"{title(row)}: captured", float(row["captured"]), at_least=1)
        if on_gpu(kernels) == 9:
            yield from of_warpgroups(row)
    for name, part in parts.items():
        if "graph_rounds" in part:
            yield from of_rounds(part)
        if "files" in part:
            yield from of_decoding(name, part)


def on_gpu(part: Part) -> int:
    """The major compute capability of the device; 0 for a CPU."""
    return int(part["machine"].get("compute_capability", [0])[0])


def title(row: dict[str, Any]) -> str:
    """A row's name and what tells it from others of that name; what could not be measured has no name."""
    told = ("product", "weights", "settings", "rows", "nodes", "context", "batch", "layers")
    return ", ".join([row.get("name", ""), *(f"{name} {row[name]}" for name in told if name in row)])


def of_kernel(row: dict[str, Any]) -> Iterator[Claim]:
    what, microseconds = f"{title(row)}: ", 1e6 * row.get("seconds", 0.0)
    match row:
        case {"name": "tree_attention", "context": context, "nodes": 60}:
            yield Claim(what + "share of bandwidth", row["share_of_bandwidth"], 0.75 if context >= 8192 else None)
            yield Claim(what + "time over the floor", row["times_floor"])
            for rival, taken in row["rivals"].items():
                if "seconds" in taken:
                    yield Claim(what + f"times faster than {rival}", taken["seconds"] / row["seconds"], 1.0)
        case {"name": "draft forward", "weights": weights}:
            bound = 1.25 if weights == "bfloat16" else 1.35
            yield Claim(what + "time over its bytes' floor", row["seconds"] / row["bytes_seconds"], at_most=bound)
        case {"name": "sample and walk", "settings": settings}:
            yield Claim(what + "microseconds", microseconds, at_most=15 if settings == "greedy" else 40)
        case {"name": "verify_rejection"}:
            yield Claim(what + "microseconds", microseconds)
        case {"name": "compact_kv"}:
            yield Claim(what + "microseconds", microseconds, at_most=10)


def of_results(row: dict[str, Any]) -> Iterator[Claim]:
    """A wrong result must not carry a good time."""
    for rival, taken in row.get("rivals", {}).items():
        if "difference" in taken:
            yield Claim(f"{title(row)}: difference from {rival}", taken["difference"], at_most=LARGEST_DIFFERENCE)


def of_warpgroups(row: dict[str, Any]) -> Iterator[Claim]:
    """Attention that csrc/cuda/tree_attention.cu hands to wgmma must have run there, not in what takes its place."""
    match row:
        case {"name": "tree_attention", "rows_per_key_head": rows, "head_dim": 64 | 128} if rows > 64:
            launched = row.get("kernels", [])
            found = any(WARPGROUP_KERNEL in name for name in launched)
            if launched:
                yield Claim(f"{title(row)}: ran {WARPGROUP_KERNEL}", float(found), at_least=1)
            else:
                yield Claim(f"{title(row)}: not profiled, kernels seen", 0)


def of_rounds(part: Part) -> Iterator[Claim]:
    """The bounds are those of the 8B model; of smaller ones, which launches bound, the figures are shown."""
    model = part["machine"]["model"]
    large = model == "Llama-3.1-8B"
    for row in part["graph_rounds"]:
        what = f"{model}, {row['rounds']}{', our layers' if row['linear'] == 'ours' else ''}: "
        bound = 0.8 if row["rounds"] == "plain" else 0.65
        seconds = row.get("graph_seconds", row["eager_seconds"])
        yield Claim(what + "tokens per second", row["tokens_per_round"] / seconds)
        if row["rounds"] != "transformers" and on_gpu(part):
            yield Claim(what + "captured", float("graph_seconds" in row), at_least=1)
        if "share_of_floor_speed" in row:
            deep = row["rounds"] in ("plain", "tree 60/8/10")
            yield Claim(what + "floor over time", row["share_of_floor_speed"], bound if large and deep else None)
        if row.get("idle", {}).get("host_gaps") is not None:
            yield Claim(what + "host gaps", row["idle"]["host_gaps"], at_most=0.03 if large else None)


def of_decoding(name: str, part: Part) -> Iterator[Claim]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for by_arm in part["files"].values():
        for arm, measured in by_arm.items():
            arms.setdefault(arm, []).append(measured)
    for arm, measured in arms.items():
        tokens, seconds = (sum(m[field] for m in measured) for field in ("tokens", "seconds"))
        capturing = sum(m["phases"].get("capture", 0.0) for m in measured)
        yield Claim(f"{name}, {arm}: tokens per second", tokens / seconds)
        if capturing:
            yield Claim(f"{name}, {arm}: tokens per second without captures", tokens / (seconds - capturing))
    for arm, share in part.get("equal_texts", {}).items():
        yield Claim(f"{name}, {arm}: share of texts equal to plain's", share)

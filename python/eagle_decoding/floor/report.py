"""The floor as tables: bytes and time of each phase beside what was measured, and the speed-up that is possible."""

from dataclasses import dataclass

from rich.table import Table

from eagle_decoding.floor.ceilings import Ceilings
from eagle_decoding.floor.speed import Floor
from eagle_decoding.floor.work import Work


@dataclass(frozen=True)
class MeasuredRound:
    """Means of a run: tokens per round, seconds of a round by phase, seconds of a plain round."""

    tokens_per_round: float
    phases: dict[str, float]
    plain_seconds: float

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())

    @property
    def speed_up(self) -> float:
        return self.tokens_per_round * self.plain_seconds / self.seconds


def ceilings_line(ceilings: Ceilings, device: str) -> str:
    return (
        f"{device}, {ceilings.threads} threads: copy {ceilings.copy_bandwidth / 1e9:.1f} GB/s, "
        f"read {ceilings.read_bandwidth / 1e9:.1f} GB/s, matrix product "
        f"{ceilings.flops_per_second / 1e9:.0f} GFLOP/s. The floor takes the better bandwidth."
    )


def phase_table(floor: Floor, measured: MeasuredRound) -> Table:
    """A line for each phase, the round, and a plain round."""
    tau = measured.tokens_per_round
    table = Table(
        title=f"A round at {tau:.2f} tokens per round and {floor.context_len:.0f} rows of context", title_justify="left"
    )
    table.add_column("phase")
    for heading in ("MB", "GFLOP", "floor ms", "measured ms", "times floor"):
        table.add_column(heading, justify="right")

    def add(name: str, work: Work, least: float, taken: float) -> None:
        times = f"{taken / least:.2f}" if least else ""
        figures = [
            f"{work.bytes / 1e6:,.1f}",
            f"{work.flops / 1e9:,.2f}",
            f"{1e3 * least:.2f}",
            f"{1e3 * taken:.2f}",
            times,
        ]
        table.add_row(name, *figures)

    works = floor.phases(tau)
    for name, taken in measured.phases.items():
        work = works.get(name, Work())
        add(name, work, floor.seconds(work), taken)
    table.add_section()
    add("round", sum(works.values(), Work()), floor.round_seconds(tau), measured.seconds)
    plain = floor.model.plain_round(floor.context_len, floor.batch)
    add("plain round", sum(plain.values(), Work()), floor.plain_seconds(), measured.plain_seconds)
    return table


def speed_table(floor: Floor, measured: MeasuredRound) -> Table:
    """The best possible speed-up over plain decoding at each number of tokens per round, and the measured one."""
    title = "Best possible speed-up over plain decoding, both at their floors"
    table = Table(title=title, title_justify="left")
    for heading in ("tokens per round", "round ms", "tokens/s", "speed-up"):
        table.add_column(heading, justify="right")
    whole = [float(tau) for tau in range(1, floor.tree.max_depth + 2)]
    for tau in sorted({*whole, measured.tokens_per_round}):
        seconds = floor.round_seconds(tau)
        here = tau == measured.tokens_per_round
        figures = [f"{tau:.2f}", f"{1e3 * seconds:.2f}", f"{tau / seconds:,.0f}", f"{floor.speed_up(tau):.2f}x"]
        table.add_row(*figures, style="bold" if here else None)
    return table


def verdict(floor: Floor, measured: MeasuredRound) -> str:
    """Where the measured round stands."""
    tau = measured.tokens_per_round
    return (
        f"Measured: {measured.speed_up:.2f}x over own plain decoding at {tau:.2f} tokens per round, where "
        f"{floor.speed_up(tau):.2f}x is possible. The round runs at {floor.round_seconds(tau) / measured.seconds:.0%} "
        f"of the speed of light, plain decoding at {floor.plain_seconds() / measured.plain_seconds:.0%}."
    )

"""Pictures of a decoding result: phases of a round, acceptance by depth, speed-up against tree size."""

from typing import Any

from matplotlib.figure import Figure

from bench.decode_report import PHASES, is_draft, totals
from bench.metrics import average_acceptance_length
from bench.pictures.style import INK, new_figure
from bench.pictures.style import PHASES as PHASE_COLORS


def round_breakdown(result: dict[str, Any]) -> Figure:
    """Stacked bars: milliseconds of a round by phase, for plain decoding and every tree."""
    ours = {arm: phases for arm, t in totals(result).items() if (phases := t.per_round())}
    figure, (axes,) = new_figure(height=1.6 + 0.5 * len(ours))
    left = dict.fromkeys(ours, 0.0)
    for phase in PHASES:
        widths = [1e3 * phases[phase] for phases in ours.values()]
        axes.barh(list(ours), widths, left=list(left.values()), label=phase, color=PHASE_COLORS[phase], height=0.6)
        left = {arm: left[arm] + width for arm, width in zip(ours, widths, strict=True)}
    for arm, right in left.items():
        acceptance = totals(result)[arm].acceptance
        yields = f"{average_acceptance_length(acceptance):.2f} tokens" if is_draft(arm) else "1 token"
        axes.annotate(f"{right:.1f} ms for {yields}", (right, arm), (4, 0),
                      textcoords="offset points", va="center", fontsize=8, color=INK)  # fmt: skip
    axes.invert_yaxis()
    axes.margins(x=0.24)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="milliseconds a round (tree: nodes/depth/children)", title="Where a round's time goes")
    axes.legend(ncols=len(PHASES), loc="lower center", bbox_to_anchor=(0.5, 1.08), fontsize=8)
    return figure


def acceptance_by_depth(result: dict[str, Any]) -> Figure:
    """Left: how often a round accepts a token at a depth. Right: how often it does where the path got that far."""
    figure, (reached, tested) = new_figure(columns=2, width=9.5, height=4.2)
    for arm, t in totals(result).items():
        if not is_draft(arm):
            continue
        accepted, depths = t.acceptance.by_depth, range(1, len(t.acceptance.tested) + 1)
        reached.plot(depths, [count / t.acceptance.rounds for count in accepted], marker="o", label=arm)
        tested.plot(depths, [c / n for c, n in zip(accepted, t.acceptance.tested, strict=True)], marker="o", label=arm)
    reached.set(ylabel="accepted tokens a round", title="By depth: their sum is tau - 1")
    tested.set(ylabel="accepted, where tested", title="Given that the parent was accepted")
    for axes in (reached, tested):
        axes.set(xlabel="depth below the root", ylim=(0, 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
    reached.legend(fontsize=8)
    return figure


def speed_against_tree_size(result: dict[str, Any]) -> Figure:
    """Speed-up ratio over every baseline and tau, by nodes of the tree; chains apart."""
    by_arm = totals(result)
    trees = sorted((arm for arm in by_arm if arm.startswith("tree")), key=nodes_of)
    chains = [arm for arm in by_arm if arm.startswith("chain")]
    figure, (speed, tau) = new_figure(columns=2, width=9.5, height=4.2)
    for index, base in enumerate(arm for arm in by_arm if not is_draft(arm)):
        below = by_arm[base].tokens_per_second
        ratios = [by_arm[arm].tokens_per_second / below for arm in trees]
        speed.plot([nodes_of(arm) for arm in trees], ratios, marker="o", color=f"C{index}", label=f"over {base}")
        for arm in chains:
            speed.scatter(nodes_of(arm), by_arm[arm].tokens_per_second / below, marker="D", color=f"C{index}")
    speed.axhline(1, color=INK, linewidth=1, linestyle="--")
    taus = {arm: average_acceptance_length(by_arm[arm].acceptance) for arm in (*trees, *chains)}
    tau.plot([nodes_of(arm) for arm in trees], [taus[arm] for arm in trees], marker="o", label="tree")
    for arm in chains:
        tau.scatter(nodes_of(arm), taus[arm], marker="D", color="C1", label=arm)
    speed.set(ylabel="speed-up ratio", title="Speed-up (diamonds: chains)", ylim=(0, None))
    tau.set(ylabel="tau", title="Tokens per round", ylim=(1, None))
    for axes in (speed, tau):
        axes.set(xlabel="nodes of the tree, the root included", xticks=sorted({nodes_of(arm) for arm in taus}))
        axes.legend(fontsize=8)
    return figure


def nodes_of(arm: str) -> int:
    return int(arm.split()[1].split("/")[0])

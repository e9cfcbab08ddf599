"""Gates in the terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd
from rich.text import Text

from engramctl.present import console
from engramctl.present.format import bounds, number
from engramctl.present.tokens import gate_colour, shown, visible

if TYPE_CHECKING:
    from rich.table import Table


SITE = ["layer", "branch"]
PHRASES_SHOWN = 10


def group_table(frame: pd.DataFrame) -> "Table":
    """Mean gate by group, one row per layer and branch."""
    several = len(frame.drop_duplicates(SITE)) > 1
    rows = [
        [
            r["grouping"],
            r["label"],
            *([f"{r['layer']}.{r['branch']}"] if several else []),
            f"{r['n_tokens']:,}",
            number(r["gate"]),
            bounds(r["gate_low"], r["gate_high"]),
        ]
        for r in frame.to_dict("records")
    ]
    names = ["tokens by", "group", *(["layer.branch"] if several else []), "tokens", "gate", "95 %"]
    return console.table(names, rows, left=2 + several)


def phrase_table(frame: pd.DataFrame) -> "Table":
    """The phrases that open the gates of each layer most."""
    top = frame[frame["rank"] <= PHRASES_SHOWN]
    rows = [[r["layer"], visible(r["text"]), number(r["gate"]), r["occurrences"]] for r in top.to_dict("records")]
    return console.table(["layer", "phrase", "gate", "times"], rows, left=2)


def coloured_texts(frame: pd.DataFrame) -> Iterator[Text]:
    """The text once for each layer and branch; the more a token's gate is open, the darker its background."""
    top = gate_top(frame)
    for (layer, branch), rows in frame.groupby(SITE, sort=True):
        heading = f"layer {layer}, branch {branch}: mean gate {rows['gate'].mean():.3f}\n"
        parts = [(shown(token), f"#000000 on {gate_colour(gate / top)}") for token, gate in zip(rows["token"], rows["gate"], strict=True)]
        yield Text.assemble((heading, "bold"), *parts, "\n")


def number_lines(frame: pd.DataFrame) -> Iterator[str]:
    """A line per token: its position, its text as in JSON, its gates by layer and branch."""
    wide = frame.pivot_table(index="position", columns=SITE, values="gate")
    tokens = frame.drop_duplicates("position").set_index("position")["token"]
    yield "\t".join(["position", "token", *(f"layer {site[0]}.{site[1]}" for site in wide.columns.tolist())])
    for position, token, gates in zip(wide.index, tokens[wide.index], wide.to_numpy(), strict=True):
        yield "\t".join([str(position), visible(token), *(f"{gate:.3f}" for gate in gates)])


def gate_top(frame: pd.DataFrame) -> float:
    """The upper end of the scale of gates: 1, or 2 if any gate exceeds 1."""
    return 2.0 if frame["gate"].max() > 1 else 1.0


def phrase_note(frame: pd.DataFrame) -> str:
    """How many phrases are shown, if not all; else empty."""
    return f"the first {PHRASES_SHOWN} of {frame.groupby('layer').size().max()} phrases" if (frame["rank"] > PHRASES_SHOWN).any() else ""

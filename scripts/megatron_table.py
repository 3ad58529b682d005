"""Writes the tables of Megatron-LM's options into docs/megatron.md, from the same data that the program reads.

Run it after a change of `firstlight.interop.megatron.meanings`: python scripts/megatron_table.py
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from firstlight.interop.megatron.meanings import GROUPS, REFUSED, meaning
from firstlight.interop.megatron.options import options

PAGE = Path(__file__).parents[1] / "docs" / "megatron.md"
BEGIN, END = "<!-- begin: written by scripts/megatron_table.py -->\n", "<!-- end -->\n"


def tables() -> str:
    """Markdown: what options become, those that are always so by their reason, and those that are refused."""
    becomes, refused = [], []
    always: dict[str, list[str]] = defaultdict(list)
    others: dict[str, list[str]] = defaultdict(list)
    for option in options().values():
        what = meaning(option)
        default = "" if option.switch or option.default is None else f" ({option.default})"
        if what.kind == "becomes":
            becomes.append(f"| `{option.name}`{default} | {_cell(what.text)} |")
        elif what.kind == "always":
            always[what.text].append(f"`{option.name}`")
        elif option.name in REFUSED:
            refused.append(f"| `{option.name}` | {_cell(what.text)} |")
        else:
            others[option.group].append(f"`{option.name}`")
    lines = ["### What an option becomes", "", "| Option (default) | Here |", "|---|---|", *becomes, ""]
    lines += ["### Accepted, with nothing to set", "", "| Why | Options |", "|---|---|"]
    lines += [f"| {_cell(why)} | {' '.join(names)} |" for why, names in always.items()]
    lines += ["", "### Refused", "", "| Option | Why, and what to use |", "|---|---|", *refused, ""]
    lines += ["All others are refused with the reason of their group:", "", "| Why | Options |", "|---|---|"]
    lines += [f"| {_cell(GROUPS[group])} | {' '.join(names)} |" for group, names in others.items()]
    return "\n".join(lines) + "\n"


def page_with_tables(text: str) -> str:
    """A page with the part between the two comments written anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

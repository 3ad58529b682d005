"""The shell that every page of Firstlight has, and the few pieces it is put together from.

A page is one file without addresses: its policy forbids all network, and scripts run only when their hash is in it.
Whatever comes from recipes, corpora and models goes through `text`, which shows markup and control characters as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any, Literal, NamedTuple

from firstlight.support.console import printable

Language = Literal["en", "zh"]


class Words(NamedTuple):
    """The same in both languages."""

    en: str
    zh: str


def asset(name: str) -> str:
    """The text of a file that is shipped with this room."""
    return (resources.files("firstlight.report") / "assets" / name).read_text(encoding="utf-8")


def text(value: object) -> str:
    """Text of others as HTML: nothing in it is markup, no character acts."""
    return escape(printable(str(value)))


def both(en: str, zh: str, tag: str = "span", kind: str = "") -> str:
    """A piece of text in both languages, of which the page shows one."""
    which = f' class="{kind}"' if kind else ""
    return f'<{tag} lang="en"{which}>{text(en)}</{tag}><{tag} lang="zh"{which}>{text(zh)}</{tag}>'


def said(words: Words, tag: str = "span", kind: str = "") -> str:
    """`both` of a pair."""
    return both(words.en, words.zh, tag, kind)


def section(name: str, title: Words, *parts: str) -> str:
    """A part of the page with a heading; empty where it has nothing to show."""
    inner = "\n".join(part for part in parts if part)
    return f'<section class="{name}">\n<h2>{said(title)}</h2>\n{inner}\n</section>' if inner else ""


def folded(title: Words, inner: str, name: str) -> str:
    """What a reader opens by choice. name: distinguishes it, so that it stays open when the page is refreshed."""
    return f'<details id="{text(name)}"><summary>{said(title)}</summary>\n{inner}\n</details>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of ready HTML cells, which scrolls alone where it is too wide. numbers: columns aligned as such."""
    kinds = [' class="number"' if column in numbers else "" for column in range(len(head))]
    top = "".join(f'<th scope="col"{kind}>{cell}</th>' for kind, cell in zip(kinds, head, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>\n" for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def fact_table(facts: Iterable[tuple[str, str]]) -> str:
    """Names and what is said of each, both ready HTML."""
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{fact}</td></tr>\n' for name, fact in facts)
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def bar(share: float, kind: str = "") -> str:
    """A bar as long as `share` (0 to 1) of its cell; the number itself stands beside it."""
    width = 100 * min(1.0, max(0.0, share))
    return f'<div class="bar {kind}" aria-hidden="true"><div style="width:{width:.2f}%"></div></div>'


def json_block(name: str, value: Any) -> str:
    """`value` for the page's script: JSON in which nothing can end the element."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{written}</script>'


def shell(
    title: str,
    body: str,
    language: Language = "en",
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    served: bool = False,
) -> str:
    """A whole page. title, body: ready HTML. styles: besides the common one. served: it may ask its own server."""
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts) or "'none'"
    connect = "'self'" if served else "'none'"
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )
    style = "\n".join([asset("page.css"), *styles])
    code = "".join(f"<script>{script}</script>\n" for script in scripts)
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n{code}</body>\n</html>\n"
    )


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

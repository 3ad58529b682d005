"""Pictures of a plan as inline SVG, drawn from its numbers: stacked bars and lines, without any library.

Colours are those of Okabe and Ito (2008), which people with any kind of colour vision tell apart; text takes the
page's colour, so that the pictures are right on light and on dark paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#999999")
WIDTH, HEIGHT, LABEL, ROW, GAP = 760, 300, 250, 24, 10
"""In units of the picture, which is as wide as the page allows."""


def stacked_bars(
    rows: Sequence[tuple[str, Mapping[str, float]]],
    written: Callable[[float], str],
    name: str,
    limit: tuple[str, float] | None = None,
) -> str:
    """A bar for each row, its parts side by side. rows: label and parts, with the same keys in all.

    written: a number in words. limit: a line across, such as a device's memory. name: for those who cannot see it.
    """
    keys = list(dict.fromkeys(key for _, parts in rows for key in parts))
    assert len(keys) <= len(COLOURS), "more parts than colours"
    wholes = [sum(parts.values()) for _, parts in rows]
    scale = (WIDTH - LABEL - 90) / (max([*wholes, limit[1] if limit else 0.0]) or 1.0)
    shapes = []
    for number, ((label, parts), whole) in enumerate(zip(rows, wholes, strict=True)):
        y, x = number * (ROW + GAP) + GAP / 2, float(LABEL)
        shapes.append(_words(LABEL - 8, y + ROW / 2 + 4, label, "end"))
        for key, value in parts.items():
            tip = f"<title>{escape(f'{label}: {key} {written(value)}')}</title>"
            place = f'x="{x:.1f}" y="{y:.1f}" width="{value * scale:.1f}" height="{ROW}"'
            shapes.append(f'<rect {place} fill="{COLOURS[keys.index(key)]}">{tip}</rect>' if value > 0 else "")
            x += value * scale
        shapes.append(_words(x + 6, y + ROW / 2 + 4, written(whole)))
    bottom = len(rows) * (ROW + GAP)
    if limit:
        x = LABEL + limit[1] * scale
        shapes += [_line(x, 0, x, bottom + 4), _words(x, bottom + 18, f"{limit[0]} {written(limit[1])}", "end")]
    return _svg(shapes, bottom + (26 if limit else 6), name) + _legend(keys)


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]], at: tuple[str, float], x_name: str, y_name: str, name: str
) -> str:
    """Lines over a logarithmic x, and a line across at `at` (label and x). lines: points (x, y) with rising x."""
    xs = [math.log10(x) for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
    left, right, top, bottom = 60.0, WIDTH - 20.0, 10.0, HEIGHT - 44.0

    def place(power: float, y: float) -> tuple[float, float]:
        return (
            left + (power - low_x) / (high_x - low_x) * (right - left),
            top + (high_y - y) / (high_y - low_y) * (bottom - top),
        )

    shapes = []
    for power in range(math.ceil(low_x), math.floor(high_x) + 1):
        x, _ = place(power, low_y)
        shapes += [_line(x, top, x, bottom, faint=True), _words(x, bottom + 16, f"1e{power}", "middle")]
    for quarter in range(5):
        value = low_y + quarter / 4 * (high_y - low_y)
        _, y = place(low_x, value)
        shapes += [_line(left, y, right, y, faint=True), _words(left - 6, y + 4, f"{value:.2f}", "end")]
    for number, points in enumerate(lines.values()):
        path = " ".join("{:.1f},{:.1f}".format(*place(math.log10(x), y)) for x, y in points)
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>')
    x, _ = place(math.log10(at[1]), low_y)
    shapes += [_line(x, top, x, bottom), _words(x + 5, top + 12, at[0])]
    shapes.append(_words((left + right) / 2, HEIGHT - 8, x_name, "middle"))
    shapes.append(f'<g transform="translate(14 {bottom / 2:.0f}) rotate(-90)">{_words(0, 0, y_name, "middle")}</g>')
    return _svg(shapes, HEIGHT, name) + _legend(list(lines))


def _words(x: float, y: float, text: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="12" fill="currentColor">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, *, faint: bool = False) -> str:
    kind = 'stroke-opacity="0.15"' if faint else 'stroke-dasharray="4 3"'
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" {kind}/>'


def _svg(shapes: Sequence[str], height: float, name: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(name)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(shapes)}</svg>'
    )


def _legend(keys: Sequence[str]) -> str:
    items = "".join(
        f'<li><span style="background:{COLOURS[number]}"></span>{escape(key)}</li>' for number, key in enumerate(keys)
    )
    return f'<ul class="legend">{items}</ul>'

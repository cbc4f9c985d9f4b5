"""Line charts as SVG, by hand: no library, no script, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 44, 46  # margins
COLOURS = ("#2f6fb5", "#d1662a", "#3d9150", "#8a56ac")
GREY = "#888"


def chart(title: str, labels: Sequence[str], lines: Mapping[str, Sequence[float]], unit: str) -> str:
    """Lines over places that stand equally far apart, from zero up."""
    top = 1.15 * max(max(line) for line in lines.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="{GREY}">',
        f"<title>{escape(title)}</title>",
        f'<text x="{LEFT}" y="16" font-size="14">{escape(title)}</text>',
    ]
    parts += _grid(top, unit)
    for number, label in enumerate(labels):
        parts.append(_text(_x(number, len(labels)), HEIGHT - BOTTOM + 18, label, "middle"))
    for number, (name, line) in enumerate(lines.items()):
        parts += _line(line, top, COLOURS[number % len(COLOURS)])
        parts.append(_text(LEFT + 150 * number, 34, name, "start", COLOURS[number % len(COLOURS)]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(number: int, count: int) -> float:
    return LEFT + 30 + (WIDTH - LEFT - RIGHT - 60) * number / max(count - 1, 1)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _text(x: float, y: float, text: str, anchor: str, colour: str = GREY) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _grid(top: float, unit: str) -> list[str]:
    parts = []
    for step in range(5):
        value = top * step / 4
        y = _y(value, top)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-opacity="0.3"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{value:,.0f}", "end"))
    parts.append(_text(LEFT, HEIGHT - 8, unit, "start"))
    return parts


def _line(line: Sequence[float], top: float, colour: str) -> list[str]:
    points = [(_x(number, len(line)), _y(value, top)) for number, value in enumerate(line)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    return [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]

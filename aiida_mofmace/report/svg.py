"""A small writer of SVG charts whose colours come from the page, so that they follow its light or dark theme.

Nothing is drawn in a fixed colour: every element has a class, and the style sheet of the report gives the class its
colour. Text keeps its size relative to the figure, which is drawn for a width of about 460 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MINUS", "Axis", "Canvas", "LegendEntry", "limits", "number"]

MINUS = "\N{MINUS SIGN}"
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def number(value: float) -> str:
    """Write a tick label: at most four significant digits, no exponent between 1e-4 and 1e6."""
    if value == 0.0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    text = f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS)


def limits(values: ArrayLike, margin: float = 0.05) -> tuple[float, float]:
    """Return the range of the finite values, widened by a fraction of itself.

    :param values: any shape
    :param margin: fraction of the range added on either side
    :raises ValueError: if no value is finite
    """
    array = np.asarray(values, dtype=float).ravel()
    array = array[np.isfinite(array)]
    if not len(array):
        raise ValueError("no finite value to draw")
    low, high = float(array.min()), float(array.max())
    spread = (high - low) or abs(high) or 1.0
    return low - margin * spread, high + margin * spread


@dataclass
class Axis:
    """A linear or logarithmic map from data to pixels.

    :param low: value at the first pixel
    :param high: value at the last pixel
    :param label: quantity and unit
    :param log: whether the map is logarithmic; both ends must then be positive
    :param whole: whether ticks stand at whole numbers only
    """

    low: float
    high: float
    label: str = ""
    log: bool = False
    whole: bool = False
    first_pixel: float = 0.0
    last_pixel: float = 1.0

    def __post_init__(self) -> None:
        if self.log and self.low <= 0.0:
            raise ValueError(f"a logarithmic axis cannot begin at {self.low}")
        if self.high <= self.low:
            self.high = self.low + (abs(self.low) or 1.0)

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the pixels of these values."""
        array, low, high = np.asarray(values, dtype=float), self.low, self.high
        if self.log:
            array, low, high = np.log10(np.maximum(array, 1e-300)), math.log10(low), math.log10(high)
        return self.first_pixel + (array - low) / (high - low) * (self.last_pixel - self.first_pixel)

    def at(self, value: float) -> float:
        """Return the pixel of one value."""
        return float(self(value))

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values along the axis, about ``count`` of them."""
        return self._log_ticks() if self.log else self._linear_ticks(count)

    def _linear_ticks(self, count: int) -> list[float]:
        raw = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in _STEPS if factor * power >= raw * 0.999)
        if self.whole:
            step = max(math.ceil(step), 1)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        decades = math.log10(self.high / self.low)
        factors = (1.0, 2.0, 5.0) if decades < 2.8 else (1.0,)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [factor * 10.0**power for power in powers for factor in factors]
        return [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]


@dataclass
class LegendEntry:
    """One line of a legend.

    :param text: what is shown
    :param css: class of the mark
    :param mark: circle, square, diamond, line, hexagon or band
    :param hollow: whether the mark is not filled
    """

    text: str
    css: str
    mark: str = "circle"
    hollow: bool = False


@dataclass
class Canvas:
    """The elements of one figure, in pixels.

    :param width: of the figure
    :param height: of the figure
    :param title: what the figure shows, read out by screen readers
    """

    width: float
    height: float
    title: str
    elements: list[str] = field(default_factory=list)

    def add(self, element: str) -> None:
        """Add an element as it is."""
        self.elements.append(element)

    def text(self, x: float, y: float, text: str, css: str = "tick", *, anchor: str = "start", rotate: int = 0) -> None:
        """Write text; ``anchor`` is start, middle or end."""
        turn = f' transform="rotate({rotate} {x:.1f} {y:.1f})"' if rotate else ""
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}"{turn}>{escape(text)}</text>')

    def segment(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """Draw a straight line."""
        self.add(f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="{css}"/>')

    def rectangle(self, x: float, y: float, width: float, height: float, *, css: str, tip: str = "") -> None:
        """Draw a rectangle, with a text that is shown where the pointer rests."""
        inner = f"><title>{escape(tip)}</title></rect>" if tip else "/>"
        self.add(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" '
            f'class="{css}"{inner}'
        )

    def line(self, xs: NDArray[np.float64], ys: NDArray[np.float64], css: str) -> None:
        """Draw a line through these pixels; it is broken where a value is not finite."""
        command, parts = "M", []
        for x, y in zip(xs, ys, strict=True):
            if not (math.isfinite(x) and math.isfinite(y)):
                command = "M"
                continue
            parts.append(f"{command}{x:.1f} {y:.1f}")
            command = "L"
        self.add(f'<path d="{"".join(parts)}" class="line {css}"/>')

    def cloud(self, xs: NDArray[np.float64], ys: NDArray[np.float64], css: str, size: float = 3.0) -> None:
        """Draw many dots as one path."""
        parts = [f"M{x:.1f} {y:.1f}h0" for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
        self.add(f'<path d="{"".join(parts)}" class="cloud {css}" stroke-width="{size:g}"/>')

    def mark(self, x: float, y: float, css: str, *, shape: str = "circle", size: float = 5.0, tip: str = "") -> None:
        """Draw one symbol: circle, square, diamond or hexagon."""
        inner = f"<title>{escape(tip)}</title>" if tip else ""
        if shape == "circle":
            self.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" class="{css}">{inner}</circle>')
            return
        corners, turn = {"square": (4, math.pi / 4), "diamond": (4, 0.0), "hexagon": (6, math.pi / 6)}[shape]
        angles = [turn + 2 * math.pi * corner / corners for corner in range(corners)]
        points = " ".join(f"{x + size * math.cos(a):.1f},{y + size * math.sin(a):.1f}" for a in angles)
        self.add(f'<polygon points="{points}" class="{css}">{inner}</polygon>')

    def legend(self, x: float, y: float, entries: Sequence[LegendEntry], spacing: float = 17.0) -> None:
        """Write a legend downwards from its upper left corner."""
        for row, entry in enumerate(entries):
            middle = y + row * spacing
            hollow = " hollow" if entry.hollow else ""
            if entry.mark == "line":
                self.segment(x - 8, middle, x + 8, middle, f"line {entry.css}")
            elif entry.mark == "band":
                self.rectangle(x - 8, middle - 5, 16, 10, css=entry.css)
            else:
                self.mark(x, middle, f"mark {entry.css}{hollow}", shape=entry.mark, size=4.5)
            self.text(x + 14, middle + 4, entry.text, "legend")

    def svg(self) -> str:
        """Return the figure as an inline element."""
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(self.title)}">'
            f"{''.join(self.elements)}</svg>"
        )

    def frame(self, x: Axis, y: Axis, x_ticks: int = 5, y_ticks: int = 5) -> None:
        """Draw the grid, the tick labels and the axis labels of a plot between the pixels of its axes."""
        left, right, bottom, top = x.first_pixel, x.last_pixel, y.first_pixel, y.last_pixel
        for value in y.ticks(y_ticks):
            self.segment(left, y.at(value), right, y.at(value), "grid")
            self.text(left - 7, y.at(value) + 4, number(value), "tick", anchor="end")
        for value in x.ticks(x_ticks):
            self.segment(x.at(value), bottom, x.at(value), top, "grid")
            self.text(x.at(value), bottom + 17, number(value), "tick", anchor="middle")
        self.segment(left, bottom, right, bottom, "axis")
        if x.label:
            self.text((left + right) / 2, bottom + 36, x.label, "label", anchor="middle")
        if y.label:
            self.text(16, (top + bottom) / 2, y.label, "label", anchor="middle", rotate=-90)

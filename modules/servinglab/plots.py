"""Matplotlib as the lessons use it: the bundled Korean font, colours that everybody can tell apart, shared charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from servinglab.paths import DATA

FONT = DATA / "fonts" / "NanumGothic.ttf"

# Okabe and Ito's palette (2008), which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")

WAITING: dict[str, Any] = {"facecolor": "#EEEEEE", "edgecolor": "#AAAAAA"}
READING: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "hatch": "////"}
"""The bars of `gantt` that are not tokens."""


def use_style() -> None:
    """Korean text, a white ground in the dark theme too, letters large enough for a projector."""
    font_manager.fontManager.addfont(FONT)
    plt.rcParams.update({
        "font.family": ["NanumGothic", "DejaVu Sans"],
        "axes.unicode_minus": False,
        "font.size": 13,
        "figure.facecolor": "white",
        "figure.figsize": (8, 3.2),
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS),
    })


def arrivals(times_ms: Sequence[float], texts: Sequence[str], label_every: int = 4) -> Figure:
    """When the pieces of a streamed answer arrived, in ms after the question: one mark a piece, some with their text.

    The wait before the first piece (TTFT) is shaded.
    """
    figure, axes = plt.subplots()
    axes.axvspan(0, times_ms[0], color=COLOURS[1], alpha=0.25)
    axes.text(times_ms[0] / 2, len(texts) * 0.98, "기다림\n(TTFT)", ha="center", va="top")
    axes.plot(times_ms, range(1, len(times_ms) + 1), marker="o", markersize=5, linewidth=1)
    for i in range(0, len(texts), label_every):
        axes.annotate(texts[i].strip(), (times_ms[i], i + 1), xytext=(7, -4), textcoords="offset points", fontsize=11)
    axes.set(xlabel="질문을 보낸 뒤 지난 시간 (ms)", ylabel="도착한 조각 수", xlim=(0, times_ms[-1] * 1.12))
    plt.close(figure)  # the cell shows the returned figure; pyplot would show it a second time
    return figure


def repeats(*panels: tuple[Mapping[float, Sequence[float]], str, str]) -> Figure:
    """Measurements that were repeated, panels side by side: every one as a ring, their middle as a square on a line.

    Args:
        panels: what was measured at each x, the label of x, the label of y.
    """
    figure, all_axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.6), squeeze=False)
    for axes, colour, (measured, x_label, y_label) in zip(all_axes[0], COLOURS, panels, strict=False):
        xs = sorted(measured)
        dots = [(x, y) for x in xs for y in measured[x]]
        axes.plot(*zip(*dots, strict=True), "o", markersize=9, markerfacecolor="none", color="black", label="한 번 잰 값")
        axes.plot(xs, [median(measured[x]) for x in xs], "-s", markersize=5, color=colour, label="가운데 값")
        axes.set(xlabel=x_label, ylabel=y_label, xticks=xs, xlim=(0, xs[-1] * 1.08), ylim=(0, max(y for _, y in dots) * 1.35))
        axes.legend(loc="upper left", frameon=False, fontsize=12)
    plt.close(figure)
    return figure


def growth(curves: Mapping[str, Sequence[float]], x_label: str, y_label: str) -> Figure:
    """How several things grow from 1 on: a line each, told apart by its pattern and its name at its end, not by colour alone."""
    figure, axes = plt.subplots(figsize=(8, 3.8))
    for (name, ys), pattern in zip(curves.items(), ("-", "--", ":", "-."), strict=False):
        axes.plot(range(1, len(ys) + 1), ys, pattern, linewidth=3)
        axes.annotate(name, (len(ys), ys[-1]), xytext=(8, 0), textcoords="offset points", va="center")
    longest = max(len(ys) for ys in curves.values())
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, longest * 1.3), ylim=(0, None))
    plt.close(figure)
    return figure


def gantt(groups: Mapping[str, Sequence[tuple[float, Sequence[float]]]]) -> Figure:
    """When each request waited, was read and got its tokens: a row a request, all groups on one axis of time.

    Args:
        groups: by name, for each request the moment its prefill began and those its tokens came, in seconds after all were sent.
    """
    height = sum(len(requests) + 1 for requests in groups.values())
    figure, axes = plt.subplots(figsize=(9, 0.8 + 0.3 * height))
    row, ticks, names = 0, [], []
    end = max(times[-1] for requests in groups.values() for _, times in requests)
    for colour, (name, requests) in zip(COLOURS, groups.items(), strict=False):
        last = max(times[-1] for _, times in requests)
        axes.text(0, row, f"{name}: {last:.1f}초에 모두 끝남", va="center")
        for number, (began, times) in enumerate(requests, start=1):
            row += 1
            bars(axes, row, began, times, colour)
            ticks.append(row)
            names.append(f"요청 {number}")
        row += 1
    axes.set_yticks(ticks, names, fontsize=11)
    axes.set(xlabel="모두 함께 보낸 뒤 지난 시간 (초)", xlim=(0, end * 1.02), ylim=(row - 0.3, -0.7))
    waiting, reading = Patch(label="차례를 기다림", **WAITING), Patch(label="프리필", **READING)
    writing = Patch(label="디코드: 한 칸이 토큰 하나", facecolor="#606060")
    figure.legend(handles=[waiting, reading, writing], loc="outside upper center", ncols=3, frameon=False, fontsize=12)
    plt.close(figure)
    return figure


def bars(axes: Axes, row: int, began: float, times: Sequence[float], colour: str) -> None:
    """One request of `gantt`: waiting pale, prefill hatched, every token a bar of its own."""
    axes.broken_barh([(0, began)], (row - 0.2, 0.4), **WAITING)
    axes.broken_barh([(began, times[0] - began)], (row - 0.38, 0.76), **READING)
    gaps = [(earlier, later - earlier) for earlier, later in pairwise(times)]
    for first, strength in ((0, 1.0), (1, 0.55)):  # two shades rather than frames, which would hide short bars
        axes.broken_barh(gaps[first::2], (row - 0.38, 0.76), facecolor=colour, alpha=strength, linewidth=0)

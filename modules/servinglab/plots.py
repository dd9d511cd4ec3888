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


def pareto(points: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Size against quality, a bubble a file, its area the speed. The front, where nothing smaller is better, is a line.

    Args:
        points: by name the size in MB, the KL divergence (nats a token), and tokens per second.
    """
    figure, axes = plt.subplots(figsize=(9, 5))
    front = [name for name, (size, kl, _) in points.items() if not any(s <= size and k <= kl and (s, k) != (size, kl) for s, k, _ in points.values())]
    edge = sorted(points[name][:2] for name in front)
    axes.plot(*zip(*edge, strict=True), "--", color="#606060", linewidth=1.5, zorder=1)
    fastest = max(rate for _, _, rate in points.values())
    for place, (name, (size, kl, rate)) in enumerate(sorted(points.items(), key=lambda point: point[1])):
        colour = COLOURS[0] if name in front else COLOURS[1]
        axes.scatter(size, kl, s=1400 * rate / fastest, color=colour, edgecolor="black", zorder=2)
        # Below and above by turns, and beside what is not on the front, or the names of neighbours would meet.
        offset = (44, 10) if name not in front else (-26, -34) if place % 2 == 0 else (10, 46)
        left = offset[0] < 0
        axes.annotate(
            name, (size, kl), xytext=offset, textcoords="offset points", ha="right" if left else "left", va="center",
            fontsize=12, zorder=1, arrowprops={"arrowstyle": "-", "color": "#606060", "relpos": (float(left), 0.5)},
        )
        ink = "white" if name in front else "black"  # readable on the colour
        axes.text(size, kl, f"{rate:.0f}", ha="center", va="center", color=ink, fontsize=10, zorder=3)
    axes.set(xlabel="파일 크기 (MB)", ylabel="원래 모델과의 차이: KL 발산 (로그 눈금)", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(0.2)
    handles = [Patch(label="파레토 경계에 놓인 것", facecolor=COLOURS[0]), Patch(label="더 작고 더 나은 것이 있음", facecolor=COLOURS[1])]
    axes.legend(handles=handles, loc="upper right", frameon=False, fontsize=12, title="동그라미 속의 수: 초당 토큰")
    plt.close(figure)
    return figure


def where_bytes(sizes: Mapping[str, int]) -> Figure:
    """What a file's bytes are spent on: a bar a part, with its size and its share of the whole."""
    figure, axes = plt.subplots(figsize=(8, 1 + 0.5 * len(sizes)))
    total, most = sum(sizes.values()), max(sizes.values())
    axes.barh(list(sizes), [size / 1e6 for size in sizes.values()], color=COLOURS[0])
    for row, size in enumerate(sizes.values()):
        text = f"{size / 1e6:,.2f} MB ({size / total:.1%})"
        axes.annotate(text, (size / 1e6, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=12)
    axes.set(xlabel="크기 (MB)", xlim=(0, most / 1e6 * 1.4))
    axes.invert_yaxis()
    plt.close(figure)
    return figure


PARTS = (("가중치", COLOURS[0], ""), ("KV 캐시", COLOURS[1], "////"), ("버퍼", COLOURS[2], "...."))
"""The parts of `memory_bars`, told apart by hatching too."""


def memory_bars(needs: Mapping[str, tuple[float, float, float]], usable: float) -> Figure:
    """What several setups need of a machine's memory: a bar each, of weights, KV cache and buffers, against a line.

    Args:
        needs: by name the three parts, in GiB.
        usable: what the machine has for them, in GiB.
    """
    figure, axes = plt.subplots(figsize=(8, 1.9 + 0.6 * len(needs)))
    end = max(usable, *map(sum, needs.values())) * 1.18
    for row, parts in enumerate(needs.values()):
        left = 0.0
        for (label, colour, hatch), part in zip(PARTS, parts, strict=True):
            axes.barh(row, part, 0.6, left, color=colour, hatch=hatch, edgecolor="white", label=label if row == 0 else None)
            left += part
        axes.text(left + end * 0.01, row, f"{left:.1f}", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.axvline(usable, color="black", linestyle="--", linewidth=2, label=f"쓸 수 있는 메모리 {usable:.1f} GiB")
    axes.set_yticks(range(len(needs)), list(needs))
    axes.set(xlabel="메모리 (GiB)", xlim=(0, end), ylim=(len(needs) - 0.4, -0.6))
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=12)
    plt.close(figure)
    return figure

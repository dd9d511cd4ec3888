"""The five layers of a local LLM as a picture that answers to the pointer and the keyboard. Its words are in `data/stack.yaml`."""

from __future__ import annotations

import html
from pathlib import Path

from servinglab import curriculum
from servinglab.curriculum import Strict, checked, read
from servinglab.paths import DATA

STYLE = """<style>
.servinglab-stack { max-width: 44em; font-size: 1.05em; line-height: 1.6; }
.servinglab-stack details, .servinglab-stack .end { border: 1px solid currentColor; border-radius: 4px; margin: 4px 0; }
.servinglab-stack .end { border-style: dashed; padding: 4px 12px; }
.servinglab-stack summary { cursor: pointer; padding: 8px 12px; font-weight: bold; }
.servinglab-stack summary:hover, .servinglab-stack summary:focus-visible { outline: 3px solid currentColor; border-radius: 4px; }
.servinglab-stack details > div { border-left: 6px solid currentColor; margin: 10px 12px 12px; padding: 0 12px; }
.servinglab-stack dt { font-weight: bold; }
.servinglab-stack dd { margin: 0 0 6px; }
</style>"""
"""No colours but the theme's own, so that it can be read in the dark one; a frame, not a hue, tells where the focus is."""


class Layer(Strict):
    """One layer: what it does, who else does it, where the lesson met it, which lessons run it."""

    name: str
    example: str
    does: str
    others: str
    here: str
    lessons: list[str]


class _Layers(Strict):
    layers: list[Layer]


class Stack:
    """The layers, from the bottom up in `layers`, drawn with the top one first."""

    def __init__(self, path: Path = DATA / "stack.yaml") -> None:
        self.layers = checked(path, _Layers, read(path)).layers
        self.titles = {lesson.id: f"{lesson.id} {lesson.title}" for lesson in curriculum.lessons()}

    def rows(self, layer: Layer) -> list[tuple[str, str]]:
        """What is told of a layer, each with its label."""
        run = ", ".join(self.titles[number] for number in layer.lessons)
        return [("하는 일", layer.does), ("같은 일을 하는 것", layer.others), ("이 레슨에서", layer.here), ("직접 해 보는 레슨", run)]

    def heads(self) -> list[tuple[str, Layer]]:
        """Each layer with its heading, the top one first."""
        numbered = [(f"{'①②③④⑤'[i]} {layer.name} · {layer.example}", layer) for i, layer in enumerate(self.layers)]
        return numbered[::-1]

    def __repr__(self) -> str:
        told = [[head, *(f"   {label}: {text}" for label, text in self.rows(layer))] for head, layer in self.heads()]
        return "\n".join(line for lines in told for line in lines)

    def _repr_html_(self) -> str:
        """`<details>` open by a click, by Enter and by the space bar.

        Their `<summary>` holds the focus, so it is there that JupyterLab is told to leave the keys alone.
        """
        parts = [STYLE, '<div class="servinglab-stack">', '<div class="end">사람과 도구: 요청은 위에서 내려오고 답은 위로 올라갑니다</div>']
        for head, layer in self.heads():
            rows = "".join(f"<dt>{html.escape(label)}</dt><dd>{html.escape(text)}</dd>" for label, text in self.rows(layer))
            summary = f'<summary data-lm-suppress-shortcuts="true">{html.escape(head)}</summary>'
            parts.append(f'<details name="servinglab-stack">{summary}<div><dl>{rows}</dl></div></details>')
        parts += ['<div class="end">하드웨어: 어느 층을 고를 수 있는지 먼저 거릅니다 (06절)</div>', "</div>"]
        return "\n".join(parts)

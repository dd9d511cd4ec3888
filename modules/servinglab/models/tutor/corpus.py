"""The text that the tutor learns: what `data/tutor/` holds, and how it becomes training documents.

Nothing here needs PyTorch; the evaluation and the tests read the same items.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from servinglab.paths import TUTOR

Message = dict[str, str]
"""One turn in the OpenAI API's form: `{"role": ..., "content": ...}`."""

STYLES = ("plain", "one", "simple", "english")
STYLE_SHARE = (0.40, 0.14, 0.26, 0.20)
OFF_TOPIC = "offtopic"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Item(_Strict):
    """One fact: how it is asked, how it is answered in each style, and how a program recognises it."""

    id: str
    term: str
    neighbours: list[str] = []
    fact: list[str]
    answer: str
    simple: str
    english: str
    questions: list[str]

    def reply(self, style: str) -> str:
        """The answer in one of `STYLES`; "one" is the first sentence of the plain answer."""
        if style == "one":
            return sentences(self.answer)[0]
        return {"plain": self.answer, "simple": self.simple, "english": self.english}[style]


class FollowUp(_Strict):
    """A second question that only makes sense after `first` (an item's id) was asked and answered."""

    first: str
    question: str
    variants: list[str]
    answer: str
    fact: list[str]


class Talk(_Strict):
    """Greetings, identity, thanks, and what is off the subject: several prompts, one reply."""

    id: str
    fact: list[str]
    answer: str
    questions: list[str]


class Frames(_Strict):
    """Words and the questions that any of them can be put into, as "{}이/가 뭐예요?"."""

    words: list[str]
    frames: list[str]

    def questions(self) -> Iterator[str]:
        """Every word in every frame."""
        return (fill(frame, word) for frame in self.frames for word in self.words)


@dataclass(frozen=True)
class Corpus:
    """Everything under `data/tutor/` that is trained on."""

    items: list[Item]
    followups: list[FollowUp]
    smalltalk: list[Talk]
    offtopic: list[str]
    offtopic_frames: list[Frames]
    refusals: list[str]
    systems: dict[str, list[str]]
    prose: list[str]

    def phrasings(self) -> Iterator[tuple[str, str]]:
        """Every question trained on, with the id of what it asks."""
        for item in self.items:
            yield from ((question, item.id) for question in item.questions)
        for follow in self.followups:
            yield from ((question, f"{follow.first}+") for question in [follow.question, *follow.variants])
        for talk in self.smalltalk:
            yield from ((question, talk.id) for question in talk.questions)
        yield from ((question, OFF_TOPIC) for question in self.offtopic)
        yield from ((question, OFF_TOPIC) for part in self.offtopic_frames for question in part.questions())


def read_yaml(path: Path) -> list[dict[str, object]]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or []


def load(folder: Path = TUTOR) -> Corpus:
    """Read the corpus. Raises pydantic's error, with the field, where a file does not fit its form."""
    items = [Item.model_validate(raw) for path in sorted((folder / "items").glob("*.yaml")) for raw in read_yaml(path)]
    extra: dict[str, list[str]] = {}
    for path in sorted((folder / "phrasings").glob("*.yaml")):
        for name, questions in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            extra.setdefault(name, []).extend(questions)
    items = [item.model_copy(update={"questions": unique(item.questions + extra.get(item.id, []))}) for item in items]
    followups = [
        FollowUp.model_validate(raw) for path in sorted((folder / "followups").glob("*.yaml")) for raw in read_yaml(path)
    ]
    talk = yaml.safe_load((folder / "smalltalk.yaml").read_text(encoding="utf-8"))
    return Corpus(
        items=items,
        followups=followups,
        smalltalk=[Talk.model_validate(raw) for raw in talk["smalltalk"]],
        offtopic=talk["offtopic"],
        offtopic_frames=[Frames.model_validate(raw) for raw in read_yaml(folder / "offtopic.yaml")],
        refusals=talk["refusals"],
        systems=talk["systems"],
        prose=[path.read_text(encoding="utf-8") for path in sorted((folder / "prose").glob("*.md"))],
    )


PARTICLES = {"이/가": "이가", "은/는": "은는", "을/를": "을를", "이란/란": ("이란", "란")}
"""What follows a word that ends in a consonant, and what follows one that ends in a vowel."""


def fill(frame: str, word: str) -> str:
    """The frame with the word and the particles that fit its last letter."""
    open_end = (ord(word[-1]) - ord("가")) % 28 == 0
    for both, (closed, opened) in PARTICLES.items():
        frame = frame.replace("{}" + both, "{}" + (opened if open_end else closed))
    return frame.format(word)


def unique(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def sentences(text: str) -> list[str]:
    """Split 합니다체 text after 다./요./까. and a space."""
    return [part for part in re.split(r"(?<=[다요까]\.)\s+", text.strip()) if part]


def says(fact: list[str], text: str) -> bool:
    """Whether a text states a fact: every one of its patterns occurs."""
    return all(re.search(pattern, text, re.IGNORECASE) for pattern in fact)


def trigrams(text: str) -> set[str]:
    """Character trigrams without spaces, case and marks, so that spacing and "?" hide no likeness."""
    plain = re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", text).lower())
    return {plain[i : i + 3] for i in range(max(1, len(plain) - 2))}


def overlap(question: str, phrasing: str) -> float:
    """Share of the question's character trigrams that the phrasing has too, 0 to 1."""
    asked = trigrams(question)
    return len(asked & trigrams(phrasing)) / len(asked)


# --- from items to training documents -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Document:
    """A conversation to learn, and what its last question is about (an id, None where no single fact is asked)."""

    messages: list[Message]
    topic: str | None


class Writer:
    """Makes one epoch's documents. Every epoch differs: style, noise and company are drawn anew."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self.corpus = corpus
        self.rng = random.Random(seed)
        self.by_id = {item.id: item for item in corpus.items}

    def questions(self) -> list[Document]:
        """Every question without its answer, for what can be learned from the topic alone."""
        asked = [(text, item.id) for item in self.corpus.items for text in item.questions]
        asked += [(text, talk.id) for talk in self.corpus.smalltalk for text in talk.questions]
        asked += [(text, OFF_TOPIC) for text in self.off_topic(1000)]
        documents = [
            Document([*self.system(self.style()), {"role": "user", "content": self.noisy(text)}], topic)
            for text, topic in asked
        ]
        self.rng.shuffle(documents)
        return documents

    def conversations(self) -> list[Document]:
        """Questions with answers, each ending with the assistant's turn. What has few wordings comes several times."""
        documents = [self.question(item, text) for item in self.corpus.items for text in item.questions]
        for follow in self.corpus.followups:
            documents += [self.follow_up(follow, text) for text in [follow.question, *follow.variants] for _ in range(8)]
        for talk in self.corpus.smalltalk:
            documents += [Document(turn(self.noisy(text), talk.answer), talk.id) for text in talk.questions for _ in range(6)]
        documents += [self.refusal(text) for text in self.off_topic(4000)]
        self.rng.shuffle(documents)
        return documents

    def off_topic(self, drawn: int) -> list[str]:
        """The questions written out, and as many more, put together anew each time."""
        parts = self.rng.choices(self.corpus.offtopic_frames, [len(part.words) for part in self.corpus.offtopic_frames], k=drawn)
        return self.corpus.offtopic + [fill(self.rng.choice(part.frames), self.rng.choice(part.words)) for part in parts]

    def style(self) -> str:
        return self.rng.choices(STYLES, STYLE_SHARE)[0]

    def system(self, style: str, chance: float = 1.0) -> list[Message]:
        """A system prompt for a style; the plain style mostly has none."""
        if self.rng.random() > (0.1 if style == "plain" else chance):
            return []
        return [{"role": "system", "content": self.rng.choice(self.corpus.systems[style])}]

    def question(self, item: Item, text: str) -> Document:
        style = self.style()
        head = self.system(style)
        if self.rng.random() < 0.08:  # an unrelated earlier turn, so that a longer conversation does not confuse
            other = self.rng.choice(self.corpus.items)
            head = head + turn(self.rng.choice(other.questions), other.reply("one" if style == "plain" else style))
        return Document(head + turn(self.noisy(text), item.reply(style)), item.id)

    def follow_up(self, follow: FollowUp, text: str) -> Document:
        item, style = self.by_id[follow.first], self.style()
        asked = turn(self.noisy(self.rng.choice(item.questions)), item.reply(style))
        return Document(self.system(style) + asked + turn(self.noisy(text), follow.answer), None)

    def refusal(self, text: str) -> Document:
        head = self.system(self.style(), 0.3)
        return Document(head + turn(self.noisy(text), self.rng.choice(self.corpus.refusals)), OFF_TOPIC)

    def noisy(self, text: str) -> str:
        """The question as people type it: often as written, else hurried."""
        if self.rng.random() < 0.5:
            return text
        for change, chance in ((drop_end, 0.4), (drop_particles, 0.25), (drop_spaces, 0.3), (typo, 0.25), (shuffle, 0.1)):
            if self.rng.random() < chance:
                text = change(text, self.rng)
        return text


def turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def drop_end(text: str, rng: random.Random) -> str:
    return text.rstrip("?.! ")


def drop_spaces(text: str, rng: random.Random) -> str:
    """All spaces gone, or about half of them."""
    keep = rng.choice((0.0, 0.5))
    return "".join(c for c in text if c != " " or rng.random() < keep)


def drop_particles(text: str, rng: random.Random) -> str:
    """은/는/이/가/을/를 left out after a word of two letters or more."""
    return re.sub(r"(?<=\w\w)(은|는|이|가|을|를)(?= )", lambda m: "" if rng.random() < 0.7 else m.group(), text)


def shuffle(text: str, rng: random.Random) -> str:
    """Two neighbouring words change places."""
    words = text.split(" ")
    if len(words) > 2:
        i = rng.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


# Vowels that lie side by side on the keyboard or sound alike, as indices into Unicode's order of the 21 vowels.
_VOWEL_SLIPS = {1: 5, 5: 1, 0: 4, 4: 0, 8: 13, 13: 8, 11: 15, 15: 11, 18: 20, 20: 18, 2: 6, 6: 2}


def typo(text: str, rng: random.Random) -> str:
    """One slip: a like vowel, a lost final consonant, or a letter typed twice."""
    places = [i for i, c in enumerate(text) if "가" <= c <= "힣"]
    if not places:
        return text
    i = rng.choice(places)
    lead, rest = divmod(ord(text[i]) - ord("가"), 588)
    vowel, final = divmod(rest, 28)
    kind = rng.random()
    if kind < 0.5 and vowel in _VOWEL_SLIPS:
        new = chr(ord("가") + lead * 588 + _VOWEL_SLIPS[vowel] * 28 + final)
    elif kind < 0.8 and final:
        new = chr(ord("가") + lead * 588 + vowel * 28)
    else:
        new = text[i] * 2
    return text[:i] + new + text[i + 1 :]

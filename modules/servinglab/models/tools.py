"""llama.cpp's tools for a model file: make it smaller, and measure what that costs in quality and brings in speed.

Each prints its exact command line, and computes on the CPU also where there is a GPU, so that everybody sees the same.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servinglab.errors import ModelFileError, ServingLabError, SettingError
from servinglab.models.convert import new_file
from servinglab.models.files import check
from servinglab.programs import Printed, ProgramFailed, run

KINDS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K", "IQ4_XS", "IQ3_XXS")
"""What `quantize` makes, by the names of `llama-quantize`."""

CONTEXT = 256
"""Tokens that are read at once (`-c`), a piece of the text."""

SCORED = CONTEXT // 2 - 1
"""Tokens of a piece that are scored, the last ones: those before them are their context."""

CPU = ("--device", "none", "-ngl", "0")

SMALL = 100_000_000
"""Bytes up to which a model is worked on by one thread. Threads that wait for each other crawl on a busy machine, and a model
as small as the tutor gains little by a second one."""

MAGIC = b"_logits_"
"""How the file of `logits` begins."""

TRIES = 12
"""How often `llama-perplexity` is run until it prints all."""

NUMBER = r"(-?[\d.]+)"


@dataclass(frozen=True)
class Quality:
    """How well a model predicts a text, and how near it comes to the model whose logits are the base.

    Attributes:
        perplexity: e to the mean negative logarithm of what it gave the right token; 1 is best. ± `perplexity_error`.
        tokens: how many tokens were scored.
        base_perplexity: that of the base as its file has it, which holds no probability for less than e^-16 times the greatest:
            too low for a model that is often sure and wrong. Like those below None without a base.
        kl: mean KL divergence from the base, in nats a token; 0 is equal. ± `kl_error`.
        same_top: share of tokens for which both hold the same next token likeliest, 0 to 1.
    """

    perplexity: float
    perplexity_error: float
    tokens: int
    base_perplexity: float | None = None
    kl: float | None = None
    kl_error: float | None = None
    same_top: float | None = None


@dataclass(frozen=True)
class Speed:
    """How fast a model writes, one token after the other for one user: mean and standard deviation of the repeats."""

    tokens_per_second: float
    deviation: float


def quantize(source: Path, out: Path, kind: str, imatrix: Path | None = None) -> Path:
    """Write `source` (F16) as `kind`, one of KINDS, to `out`; with an importance matrix where one is given. Returns `out`.

    The file appears under its name when it is whole.
    Raises SettingError for another kind, ModelFileError for a file that cannot be read, NotEnoughRoom, ProgramFailed, and
    ServingLabError where the kind wants an importance matrix.
    """
    if kind not in list(KINDS):
        raise SettingError(f"쓸 수 없는 값입니다: kind={kind!r}", f"쓸 수 있는 값: {', '.join(KINDS)}", '예: kind="Q4_K_M"')
    options: tuple[str | Path, ...] = () if imatrix is None else ("--imatrix", check(Path(imatrix)).absolute())
    path = model_file(source)
    if Path(out).resolve() == path.resolve():
        raise SettingError(f"원본과 결과의 이름이 같습니다: {path}", "원본이 지워집니다.", "결과에 다른 이름을 적으세요.")
    with written(Path(out)) as part:
        try:
            run("llama-quantize", *options, path, part, kind, doing=f"{path.name} → {kind}")
        except ProgramFailed as error:
            if imatrix is None and "requires an im" in error.output:
                raise ServingLabError(
                    f"{kind} 타입은 중요도 행렬(imatrix) 없이는 만들어 주지 않습니다.",
                    lines_with("imatrix|importance matrix|target type", error.output),
                    "tools.imatrix로 먼저 중요도 행렬을 만들고, 그 파일을 imatrix=에 적어 주세요.",
                ) from error
            raise
        check(part)
    return Path(out)


def imatrix(model: Path, text: Path, out: Path) -> Path:
    """Write the importance matrix of a model for a text to `out`: how large what each column is multiplied with is.

    Raises SettingError for a text that cannot be used, ModelFileError, NotEnoughRoom, ProgramFailed.
    """
    path, prompt = model_file(model), text_file(text)
    with written(Path(out)) as part:
        try:
            run("llama-imatrix", *reading(path, prompt), "--no-ppl", "-o", part, doing=f"{path.name} 중요도 재기")
        except ProgramFailed as error:  # its last words may be lost, see `measured`
            todo = f"글이 {2 * CONTEXT}토큰보다 긴지 먼저 확인하세요. {error.todo}"
            raise ProgramFailed(error.what, error.why, todo, error.output) from error
        check(part)
    return Path(out)


def logits(model: Path, text: Path, out: Path) -> Path:
    """Write what a model predicts for each token of a text: the base that others are compared with. Returns `out`.

    It takes two bytes for every scored token and token of the vocabulary, so it is for short texts.
    Raises SettingError for a text that cannot be used, ModelFileError, NotEnoughRoom, ProgramFailed.
    """
    path, prompt = model_file(model), text_file(text)
    with written(Path(out)) as part:
        run("llama-perplexity", *reading(path, prompt), "--kl-divergence-base", part, doing=f"{path.name} 예측 적기")
        if part.stat().st_size == len(MAGIC) + 4:  # it ended well, but stopped behind the context's size
            raise SettingError(f"글이 너무 짧습니다: {prompt}", f"{2 * CONTEXT}토큰이 되지 않습니다.", "더 긴 글을 쓰세요.")
        require_whole_base(part)
    return Path(out)


def perplexity(model: Path, text: Path, base: Path | None = None) -> Quality:
    """Measure how well a model predicts a text, and with the file that `logits` made of that text, what became of the base.

    With a base the tool takes the tokens from there.
    Raises SettingError for a text or base that cannot be used, ModelFileError, ProgramFailed, and ServingLabError where the
    tool does not print a figure.
    """
    path, prompt = model_file(model), text_file(text)
    if base is None:
        printed = measured(reading(path, prompt), "Final estimate", f"{path.name} 품질 재기")
        value, error = figures(printed, rf"Final estimate: PPL = {NUMBER} \+/- {NUMBER}", "퍼플렉시티")
        return Quality(value, error, scored(printed))
    require_whole_base(Path(base))
    options: list[str | Path] = ["--kl-divergence", "--kl-divergence-base", Path(base).absolute()]
    printed = measured([*reading(path, prompt), *options], "Same top p:", f"{path.name} 품질 재기")
    if "inconsistent vocabulary" in printed.all:
        why = lines_with("inconsistent", printed.all)
        raise SettingError(f"기준 파일과 모델의 어휘가 다릅니다: {base}", why, "같은 모델에서 나온 파일끼리 견주세요.")
    value, error = figures(printed, rf"Mean PPL\(Q\) +: +{NUMBER} ± +{NUMBER}", "퍼플렉시티")
    kl, kl_error = figures(printed, rf"Mean +KLD: +{NUMBER} ± +{NUMBER}", "KL 발산")
    (base_value,) = figures(printed, rf"Mean PPL\(base\) +: +{NUMBER}", "기준의 퍼플렉시티")
    (same,) = figures(printed, rf"Same top p: +{NUMBER}", "같은 토큰을 고른 비율")
    return Quality(value, error, scored(printed), base_value, kl, kl_error, same / 100)


def bench(model: Path, tokens: int = 32, threads: int | None = None) -> Speed:
    """Measure how fast a model writes `tokens` tokens, three times; by default with as many threads as the tool chooses.

    Raises SettingError for a value that cannot be used, ModelFileError, ProgramFailed.
    """
    for name, value in (("tokens", tokens), ("threads", 1 if threads is None else threads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingError(f"쓸 수 없는 값입니다: {name}={value!r}", "1 이상의 정수여야 합니다.", f"예: {name}=2")
    path = model_file(model)
    options = () if threads is None else ("-t", str(threads))
    measure = ("-p", "0", "-n", str(tokens), "-r", "3", "-o", "json")
    printed = run("llama-bench", "-m", path, *measure, *CPU, *options, doing=f"{path.name} 속도 재기")
    try:
        (result,) = json.loads(printed.out)
        return Speed(float(result["avg_ts"]), float(result["stddev_ts"]))
    except (ValueError, KeyError, TypeError) as error:
        raise missing("초당 토큰 수", printed) from error


# --- files ------------------------------------------------------------------------------------------------------------


def model_file(path: Path) -> Path:
    """A whole GGUF file with its full path, since a terminal opens in another folder than the notebook's."""
    return check(Path(path).expanduser()).absolute()


@contextmanager
def written(out: Path) -> Iterator[Path]:
    """A temporary file for a tool to fill, see `new_file`. A tool that fails on a full disk becomes NotEnoughRoom."""
    with new_file(out) as part:
        try:
            yield part.absolute()
        except (ProgramFailed, ModelFileError) as error:
            if shutil.disk_usage(part.parent).free < 1 << 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise


def text_file(path: Path) -> Path:
    full = Path(path).expanduser().absolute()
    if not full.is_file():
        raise SettingError(f"글 파일이 없습니다: {full}", "경로가 틀렸습니다.", "경로를 확인하세요.")
    return full


def reading(model: Path, text: Path) -> list[str | Path]:
    """The arguments of a tool that lets a model read a text."""
    threads = ("-t", "1") if model.stat().st_size < SMALL else ()
    return ["-m", model, "-f", text, "-c", str(CONTEXT), *CPU, *threads]


def require_whole_base(path: Path) -> None:
    """Raise ModelFileError unless the file of `logits` is whole: the tool ends well also where the disk was full.

    "_logits_", then as int32 the context, the vocabulary V and the number of pieces, and their tokens; then for every scored
    token two float32 and V 16-bit steps between them, V made even.
    """
    what, todo = f"기준 파일을 쓸 수 없습니다: {path}", "tools.logits로 다시 만드세요."
    if not path.is_file():
        raise ModelFileError(what, "파일이 없습니다.", todo)
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or not head.startswith(MAGIC):
        raise ModelFileError(what, f"_logits_ 라는 여덟 글자로 시작해야 하는데 첫머리가 다릅니다: {head[:8]!r}", todo)
    context, vocabulary, pieces = struct.unpack("<3i", head[8:])
    wanted, found = 20 + pieces * (4 * CONTEXT + SCORED * (8 + 2 * (vocabulary + vocabulary % 2))), path.stat().st_size
    if context != CONTEXT or min(vocabulary, pieces) < 1 or found != wanted:
        why = f"머리말로는 {wanted:,}바이트여야 하는데 {found:,}바이트입니다 (컨텍스트 {context})."
        raise ModelFileError(what, why, todo)


# --- figures ----------------------------------------------------------------------------------------------------------


def measured(arguments: list[str | Path], last: str, doing: str) -> Printed:
    """Run `llama-perplexity` until it prints its last figure.

    It does not wait for its own last lines: on a busy machine every second run ends without them (llama.cpp's issue 22142).
    """
    for attempt in range(TRIES):
        if attempt:
            print("  도구가 결과를 다 적지 못하고 끝나서 다시 잽니다.")
        printed = run("llama-perplexity", *arguments, doing=doing)
        if "you need at least" in printed.all:
            why = lines_with("you need at least|tokenizes to only", printed.all)
            raise SettingError("글이 너무 짧습니다.", why, f"{2 * CONTEXT}토큰보다 긴 글을 쓰세요.")
        if last in printed.all:
            break
    return printed


def scored(printed: Printed) -> int:
    """How many tokens were scored: so many of each piece ("over 14 chunks")."""
    (pieces,) = figures(printed, r"over (\d+) chunks", "조각의 수")
    return int(pieces) * SCORED


def figures(printed: Printed, pattern: str, what: str) -> list[float]:
    """The numbers that a pattern finds. Raises ServingLabError where the tool did not print them."""
    found = re.search(pattern, printed.all)
    if found is None:
        raise missing(what, printed)
    return [float(number) for number in found.groups()]


def missing(what: str, printed: Printed) -> ServingLabError:
    return ServingLabError(f"도구의 출력에 {what} 값이 없습니다.", printed.last, "모델 파일과 글을 확인하고 다시 실행하세요.")


def lines_with(pattern: str, output: str) -> str:
    """The tool's own words: its lines in which the pattern occurs."""
    return "\n".join(line.strip() for line in output.splitlines() if re.search(pattern, line))

"""The exercises of lesson 01. The questions stand in the notebook; here is what is right and what to say otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from servinglab.bench import Record
from servinglab.exercises.core import Choice, Exercise, Mistake, Number, WrongType

MIB = 2**20


class LifeOfARequest(Exercise):
    """Put the five steps of a request in order. Needs no Python."""

    id = "01-1"
    title = "요청의 일생"
    live = False
    order = "bdaec"
    hints = (
        "위 셀이 찍은 ①~⑦을 위에서부터 차례로 읽으세요. 다만 시간이 적힌 두 줄은 일이 다 끝난 뒤에 찍힌 것입니다.",
        "모델은 글이 아니라 토큰을 읽습니다. 그리고 프롬프트를 다 읽어야 첫 토큰을 고를 수 있습니다.",
    )

    def right(self) -> str:
        return self.order

    def mistakes(self) -> list[Mistake]:
        return [
            Mistake("dbaec", "읽기부터 했는데, 모델은 글자를 읽지 못합니다. 읽기 전에 글을 무엇으로 바꾸어야 했나요?"),
            Mistake("badec", "프롬프트를 읽기도 전에 답이 나왔습니다. 다음에 올 말의 점수는 앞의 글을 모두 읽어야 나옵니다."),
            Mistake("bdeac", "첫 토큰보다 그다음 토큰들이 먼저 나왔습니다. 디코드는 방금 만든 토큰을 받아서 이어 갑니다."),
            Mistake("bdace", "답을 다 만들기도 전에 슬롯을 비웠습니다. 그러면 다른 요청이 그 자리에 들어올 수 있습니다."),
            Mistake("bcdae", "슬롯을 너무 일찍 비웠습니다. 슬롯은 요청이 끝날 때까지 그 요청의 자리입니다."),
        ]

    def praise(self) -> str:
        return "자르고, 읽고, 첫 토큰을 보내고, 이어 쓰고, 자리를 비웁니다. 엔진이 무엇이든 이 차례는 같습니다."

    def how(self) -> str:
        return "토큰으로 자르기 → 프리필 → 첫 토큰 → 디코드 → 슬롯 비우기의 차례입니다."

    def read(self, answer: object) -> str:
        if not isinstance(answer, str):
            raise WrongType('다섯 글자를 차례대로 붙여 따옴표로 감싸 주세요. 예를 들면 "abcde"입니다.')
        given = "".join(letter for letter in answer.lower() if letter not in " ,>-→")
        if sorted(given) != list("abcde"):
            raise WrongType(f"a, b, c, d, e를 한 번씩만 써서 적어 주세요. 지금 적은 것: {answer!r}")
        return given

    def otherwise(self, answer: object) -> str:
        return "차례가 다릅니다. 위 셀이 찍은 로그를 위에서부터 따라가며, 앞의 일이 끝나야 할 수 있는 일이 무엇인지 살펴보세요."


class PrefillInTheLog(Number):
    """Read off the server's own log how long the prefill took, in milliseconds."""

    id = "01-2"
    title = "로그에서 읽기"
    unit = "밀리초(ms)"
    live = True
    tolerance = 0.01
    hints = ("⑤가 프리필입니다. 그 줄에서 prompt eval time = 뒤를 보세요.", "단위는 ms로 적혀 있습니다. 괄호 안의 값은 토큰 하나에 걸린 시간입니다.")

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.timings = record.require().timings

    def right(self) -> float:
        return self.timings["prompt_ms"]

    def mistakes(self) -> list[Mistake]:
        times = self.timings
        return [
            Mistake(times["predicted_ms"], "디코드에 걸린 시간입니다. 프리필은 프롬프트(prompt)를 읽는 쪽입니다."),
            Mistake(times["prompt_ms"] + times["predicted_ms"], "프리필과 디코드를 더한 시간(total time)입니다. 프리필의 몫만 적어 주세요."),
            Mistake(times["prompt_per_token_ms"], "토큰 하나에 걸린 시간입니다. 프롬프트 전체를 읽는 데 걸린 시간을 적어 주세요."),
            Mistake(times["prompt_ms"] / 1000, "초로 적은 값입니다. 밀리초로 적어 주세요. 1초는 1000밀리초입니다."),
            Mistake(times["prompt_n"], "읽은 토큰의 수입니다. 물은 것은 걸린 시간입니다."),
        ]

    def praise(self) -> str:
        return "서버가 스스로 잰 시간을 로그에서 읽었습니다. 밖에서 잰 TTFT와 견주면 어디에서 시간이 흘렀는지 알 수 있습니다."

    def how(self) -> str:
        return "prompt eval time = 바로 뒤의 수를 읽습니다."


class WholeAnswer(Number):
    """Foretell how long a whole answer takes, in seconds, from TTFT and the time per token."""

    id = "01-3"
    title = "답이 끝나는 때"
    unit = "초"
    live = True
    tolerance = 0.03
    hints = (
        "끝날 때까지의 시간은 두 조각입니다. 첫 토큰까지의 시간과, 그 뒤의 토큰들을 만드는 시간입니다.",
        "첫 토큰은 이미 나왔으니 뒤에 남은 토큰은 전체보다 하나 적습니다. 여기에 토큰 하나의 시간을 곱해 TTFT에 더하세요.",
    )

    def __init__(self, ttft: float, tpot: float, tokens: int) -> None:
        super().__init__()
        self.ttft, self.tpot, self.tokens = ttft, tpot, tokens

    def right(self) -> float:
        return self.ttft + (self.tokens - 1) * self.tpot

    def mistakes(self) -> list[Mistake]:
        return [
            Mistake(self.tokens * self.tpot, "토큰을 만드는 시간만 셈했습니다. 그 전에 프롬프트를 읽는 시간도 있습니다."),
            Mistake(self.ttft, "첫 토큰이 나오는 때입니다. 답은 그 뒤로도 이어집니다."),
            Mistake(self.ttft * self.tokens, "토큰마다 프롬프트를 다시 읽은 셈입니다. 프롬프트는 처음에 한 번만 읽습니다."),
            Mistake(self.right() * 1000, "밀리초로 적은 값입니다. 초로 적어 주세요."),
        ]

    def praise(self) -> str:
        return "재어 보지 않은 요청의 시간을 두 수로 내다보았습니다. 질문의 길이는 앞의 수에, 답의 길이는 뒤의 수에 걸립니다."

    def how(self) -> str:
        return f"식: {self.ttft:.3f} + ({self.tokens} - 1) × {self.tpot:.4f}"


class SkippedTokens(Number):
    """How many tokens of the prompt did not have to be read again."""

    id = "01-4"
    title = "건너뛴 토큰"
    unit = "토큰"
    live = True
    hints = ("②번 줄을 보세요. 토큰 수가 두 가지 적혀 있습니다.", "다시 쓴 것은 KV 캐시에 남아 있던 토큰, 읽은 것은 이번에 새로 계산한 토큰입니다.")

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record.require()

    def right(self) -> int:
        return int(self.record.timings["cache_n"])

    def mistakes(self) -> list[Mistake]:
        prompt = self.record.usage["prompt_tokens"]
        return [
            Mistake(self.record.timings["prompt_n"], "이번에 새로 읽은 토큰의 수입니다. 읽지 않고 넘어간 쪽을 적어 주세요."),
            Mistake(prompt, "프롬프트 전체의 토큰 수입니다. 그 가운데 다시 쓴 것만 적어 주세요."),
            Mistake(0, "하나도 건너뛰지 않았다면 TTFT가 ①과 비슷해야 합니다. ②는 훨씬 짧았습니다."),
            Mistake(prompt + self.record.timings["predicted_n"], "답까지 더한 수입니다. 프롬프트 가운데 다시 쓴 토큰만 적어 주세요."),
        ]

    def praise(self) -> str:
        return "앞부분이 같은 만큼 읽지 않고 넘어갔습니다. 늘 같은 안내문은 앞에, 바뀌는 말은 뒤에 두는 까닭입니다."

    def how(self) -> str:
        return "②번 줄에서 ‘다시 쓴 토큰’ 뒤의 수를 읽습니다."


class CacheForTheTalk(Number):
    """MiB of KV cache for a talk of so many tokens, from the model's own figures."""

    id = "01-5"
    title = "대화 하나의 자리"
    unit = "MiB"
    live = True
    tolerance = 0.01
    hints = (
        "토큰 하나의 바이트 수는 위 셀이 찍었습니다. 여기에 토큰 수를 곱하세요.",
        "1 MiB는 1,048,576바이트입니다. 곱한 값을 이 수로 나누세요.",
        "셀에 answer = 바이트 * 토큰 / 1048576 꼴로 적으면 셀이 계산합니다.",
    )

    def __init__(self, shape: Any, tokens: int) -> None:
        super().__init__()
        self.shape, self.tokens = shape, tokens

    def mib(self, heads: int, both: int = 2) -> float:
        """MiB with `heads` heads in each layer; `both` counts key and value. A value takes two bytes."""
        return float(both * self.shape.layers * heads * self.shape.head_size * 2 * self.tokens / MIB)

    def right(self) -> float:
        return self.mib(self.shape.kv_heads)

    def mistakes(self) -> list[Mistake]:
        shape, right = self.shape, self.right()
        return [
            Mistake(right / 2, "절반입니다. 키(K)와 값(V)을 둘 다 담아야 하고, 수 하나는 2바이트입니다. 둘 가운데 하나를 빠뜨렸습니다."),
            Mistake(self.mib(shape.heads), "쿼리 헤드의 수로 셈했습니다. KV 캐시에는 KV 헤드의 것만 담습니다."),
            Mistake(right / shape.layers, "층 하나의 몫입니다. 층마다 따로 담아야 합니다."),
            Mistake(right * MIB, "바이트로 적은 값입니다. 1,048,576으로 나누어 MiB로 적어 주세요."),
            Mistake(right * MIB / 1e6, "1,000,000으로 나눈 MB입니다. MiB는 1,048,576으로 나눕니다."),
            Mistake(right / self.tokens, "토큰 하나의 몫입니다. 대화의 토큰 수만큼 곱해 주세요."),
        ]

    def praise(self) -> str:
        return "설정 세 개를 곱해 대화 하나가 차지할 자리를 알아냈습니다. 동시에 몇 명을 받을 수 있는지도 이 수에서 시작합니다."

    def how(self) -> str:
        shape = self.shape
        return f"식: 2 × {shape.layers} × {shape.kv_heads} × {shape.head_size} × 2 × {self.tokens} ÷ 1,048,576"


class ThroughputRatio(Number):
    """How many times the throughput four slots have over one, from the two runs."""

    id = "01-6"
    title = "몇 배나 더 해냈나"
    unit = "배"
    live = True
    tolerance = 0.03
    hints = ("처리량 줄을 보세요. 초당 토큰 수가 두 가지 적혀 있습니다.", "슬롯 4개일 때의 처리량을 슬롯 1개일 때의 처리량으로 나눕니다.")

    def __init__(self, one: Sequence[Record], four: Sequence[Record]) -> None:
        super().__init__()
        self.one, self.four = one, four

    def right(self) -> float:
        return throughput(self.four) / throughput(self.one)

    def mistakes(self) -> list[Mistake]:
        pace = mean_tpot(self.four) / mean_tpot(self.one)
        return [
            Mistake(1 / self.right(), "거꾸로 나누었습니다. 슬롯 4개일 때의 처리량을 1개일 때의 처리량으로 나누세요."),
            Mistake(pace, "토큰 하나에 걸린 시간을 나눈 값입니다. 그것은 한 사람의 토큰 사이 간격이고, 물은 것은 서버 전체의 처리량입니다."),
            Mistake(throughput(self.four) - throughput(self.one), "뺀 값입니다. 몇 배인지를 물었으니 나누어 주세요."),
            Mistake(throughput(self.four), "슬롯 4개일 때의 처리량 그 자체입니다. 슬롯 1개일 때의 것으로 나누어 주세요."),
            Mistake(4, "슬롯의 수입니다. 자리가 네 배라고 일도 네 배가 되지는 않습니다. 처리량 두 개를 읽어 나누어 보세요."),
        ]

    def praise(self) -> str:
        return "장비도 모델도 그대로인데 해낸 일의 양이 달라졌습니다. 그 대신 한 사람의 토큰은 더 드문드문 나왔습니다."

    def how(self) -> str:
        return f"식: {throughput(self.four):.2f} ÷ {throughput(self.one):.2f}"


def throughput(records: Sequence[Record]) -> float:
    """Output tokens per second of requests that were all due at once."""
    tokens = sum(record.require().n_out or 0 for record in records)
    return tokens / (max(record.times[-1] for record in records) - records[0].due)


def mean_tpot(records: Sequence[Record]) -> float:
    paces = [record.tpot for record in records if record.tpot is not None]
    return sum(paces) / len(paces)


class WhichLayer(Choice):
    """Find the layer that a symptom belongs to. Needs no Python."""

    id = "01-7"
    title = "어느 층의 일인가"
    letter = "b"
    hints = ("파일은 무사히 받았습니다. 엔진이 파일을 열 때 탈이 났습니다.", "AWQ라는 이름은 다섯 층 가운데 어느 층의 설명에 나왔나요?")
    options: ClassVar = {
        "a": "① 허브에서 파일을 받는 일은 이미 끝났습니다. 받다가 끊겼다면 오류가 파일의 크기나 손상을 말했을 것입니다.",
        "b": "",
        "c": "④ API는 엔진이 켜진 뒤에 요청을 주고받는 약속입니다. 이번에는 요청을 보내기도 전에 멈추었습니다.",
        "d": "⑤ 운영이 탈이라면 켜져 있던 서버가 꺼지거나 되살아나지 않았을 것입니다. 이번에는 처음부터 켜지지 않았습니다.",
    }

    def praise(self) -> str:
        return "엔진마다 읽는 포맷이 다릅니다. 이 파일을 읽는 엔진을 고르거나, 이 엔진이 읽는 포맷의 파일을 받으면 됩니다."

    def how(self) -> str:
        return "AWQ는 GPU 서빙용으로 줄인 모델에 붙는 이름이고 대개 safetensors에 담깁니다. llama-server가 읽는 포맷은 GGUF입니다."


class Ceiling(Number):
    """The most tokens per second one user can get: bandwidth over the bytes of the weights."""

    id = "01-8"
    title = "속도의 천장"
    unit = "초당 토큰"
    live = True
    tolerance = 0.03
    hints = (
        "토큰 하나를 만들 때마다 가중치를 한 번씩 모두 읽습니다. 1초에 몇 번이나 다 읽을 수 있을까요?",
        "대역폭을 가중치의 크기로 나눕니다. 둘 다 GB로 적혀 있으니 그대로 나누면 됩니다.",
    )

    def __init__(self, bandwidth: float, weights: float) -> None:
        super().__init__()
        self.bandwidth, self.weights = bandwidth, weights

    def right(self) -> float:
        return self.bandwidth / self.weights

    def mistakes(self) -> list[Mistake]:
        return [
            Mistake(self.weights / self.bandwidth, "거꾸로 나누었습니다. 그 값은 가중치를 한 번 읽는 데 걸리는 초입니다."),
            Mistake(self.bandwidth, "대역폭 그 자체입니다. 토큰 하나에 읽어야 하는 양으로 나누어 주세요."),
            Mistake(self.bandwidth * self.weights, "곱한 값입니다. 읽을 것이 많을수록 느려져야 하니 나누어야 합니다."),
            Mistake(self.bandwidth * 8 / self.weights, "대역폭을 비트로 바꾸었습니다. 둘 다 바이트(GB)이므로 8을 곱하지 않습니다."),
        ]

    def praise(self) -> str:
        return (
            "사양표의 수 두 개로 한 사람이 받을 수 있는 속도의 천장을 구했습니다. "
            "토큰 하나마다 가중치를 한 번씩 다 읽는 한, 이보다 빠를 수는 없습니다."
        )

    def how(self) -> str:
        return f"식: {self.bandwidth:.1f} ÷ {self.weights:.2f}"


class TooOldACard(Choice):
    """A card whose compute capability is too low for the engine: no setting helps. Needs no Python."""

    id = "01-9"
    title = "설정으로 풀리지 않는 것"
    letter = "d"
    hints = (
        "이 카드에서 막힌 것은 메모리일까요, 세대일까요? 표에서 V100의 줄을 찾아 네 칸을 차례로 보세요.",
        "V100의 컴퓨트 캐퍼빌리티를 vLLM이 받아 주는 가장 낮은 번호와 견주어 보세요. 그 번호를 설정으로 올릴 수 있을까요?",
    )
    options: ClassVar = {
        "a": "비트를 줄이면 가중치가 차지하는 메모리가 줄어듭니다. 그런데 이 카드는 메모리가 이미 넉넉합니다.",
        "b": "컨텍스트를 줄이면 KV 캐시가 작아질 뿐입니다. 켜지지 않는 까닭은 대화의 길이와 상관이 없습니다.",
        "c": "사람 수를 줄이면 잡아 둘 KV 캐시 자리가 줄고 줄은 길어집니다. 혼자 써도 카드의 세대는 그대로입니다.",
        "d": "",
    }

    def praise(self) -> str:
        return "카드의 세대는 설정으로 바뀌지 않습니다. 이 카드를 받아 주는 llama.cpp 같은 엔진을 쓰거나, 카드를 바꾸어야 합니다."

    def how(self) -> str:
        return "V100의 컴퓨트 캐퍼빌리티(7.0)가 vLLM의 조건(7.5 이상)보다 낮습니다. 메모리를 줄이는 설정 셋은 이것과 상관이 없습니다."


ALL = (
    LifeOfARequest,
    PrefillInTheLog,
    WholeAnswer,
    SkippedTokens,
    CacheForTheTalk,
    ThroughputRatio,
    WhichLayer,
    Ceiling,
    TooOldACard,
)

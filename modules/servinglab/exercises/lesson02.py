"""The exercises of lesson 02. The questions stand in the notebook; here is what is right and what to say otherwise."""

from __future__ import annotations

import random
import struct
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from IPython.display import display
from numpy.typing import NDArray

from servinglab.exercises.core import Choice, Exercise, Mistake, Note, Number, WrongType
from servinglab.models import memory
from servinglab.models.gguf_file import GGUF, Tensor

MACHINE = "office-8"
"""The machine of exercise 02-9."""


class Function(Exercise):
    """A function that the learner writes. It is called with examples that are drawn anew for every check."""

    live = True

    def __init__(self) -> None:
        super().__init__()
        self.examples = [self.draw() for _ in range(5)]

    @abstractmethod
    def draw(self) -> Any:
        """One argument for the function."""

    @abstractmethod
    def right(self) -> Callable[[Any], Any]:
        """A function that does it."""

    def attempted(self, answer: object) -> bool:
        """A function as shipped returns `...`."""
        if not callable(answer):
            return super().attempted(answer)
        try:
            return answer(self.draw()) is not ...
        except Exception:  # it does something: judging it will meet the error again and tell it
            return True

    def read(self, answer: object) -> Callable[[Any], Any]:
        if not callable(answer):
            raise WrongType(f"함수를 넘겨 주세요. 괄호를 붙이지 않고 함수의 이름만 적습니다. 지금은 {type(answer).__name__} 꼴입니다.")
        self.examples = [self.draw() for _ in range(5)]
        if answer(self.examples[0]) is None:
            raise WrongType("함수가 아무것도 돌려주지 않았습니다. 마지막 줄에 return이 있는지 보세요.")
        return answer

    def otherwise(self, answer: object) -> str:
        return "함수가 돌려준 값이 다릅니다. 위의 글이 설명한 차례를 한 줄씩 따라가며, 중간의 값을 print로 찍어 견주어 보세요."

    def solution(self) -> None:
        display(Note(f"연습 {self.id} · 풀이", self.how()))  # type: ignore[no-untyped-call]


class TensorBytes(Number):
    """Read off the table how many bytes a tensor takes."""

    id = "02-1"
    title = "텐서 하나의 크기"
    unit = "바이트"
    live = True
    hints = ("텐서라고 적힌 줄을 눌러 펼치고, 그 표에서 이름이 같은 줄을 찾으세요.", "그 줄의 ‘크기 (바이트)’ 칸에 적힌 수를 쉼표 없이 적으세요.")

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def right(self) -> int:
        return self.tensor.size

    def mistakes(self) -> list[Mistake]:
        tensor = self.tensor
        return [
            Mistake(tensor.weights, "가중치의 개수입니다. 하나에 몇 바이트씩 드는지도 셈에 넣어야 합니다."),
            Mistake(tensor.size * 8, "비트로 적은 값입니다. 여덟 비트가 1바이트입니다."),
            Mistake(tensor.offset, "텐서가 시작하는 위치입니다. 물은 것은 차지하는 크기입니다."),
        ]

    def praise(self) -> str:
        return "표에서 이름, 모양, 타입, 크기를 읽을 수 있으면 어떤 GGUF 파일이든 속을 짐작할 수 있습니다."

    def how(self) -> str:
        return "둘째 표에서 고른 텐서의 줄을 찾아 크기 칸을 읽습니다. 코드로는 chosen.size 입니다."


class ReadHeader(Function):
    """Write the reader of a GGUF's first 24 bytes."""

    id = "02-2"
    title = "머리말 읽기"
    hints = (
        'struct.unpack("<4sIQQ", data[:24])가 네 값을 돌려줍니다.',
        "네 값은 표시(GGUF), 버전, 텐서 수, 메타데이터 수의 차례입니다. 표시를 뺀 셋을 돌려주세요.",
    )

    def draw(self) -> bytes:
        counts = (random.choice((2, 3)), random.randrange(2**33, 2**34), random.randrange(2**35, 2**36))
        return struct.pack("<4sIQQ", b"GGUF", *counts) + random.randbytes(40)

    def right(self) -> Callable[[Any], Any]:
        return lambda data: struct.unpack("<IQQ", data[4:24])

    def same(self, answer: Any, other: Any) -> bool:
        return all(tuple(answer(data)) == tuple(other(data)) for data in self.examples)

    def mistakes(self) -> list[Mistake]:
        return [
            Mistake(
                lambda data: struct.unpack(">IQQ", data[4:24]),
                "큰 자리부터 읽었습니다. GGUF는 작은 자리부터 적으므로 꼴을 <로 시작해야 합니다.",
            ),
            Mistake(lambda data: struct.unpack("<III", data[4:16]), "수 두 개를 4바이트씩 읽었습니다. 텐서 수와 메타데이터 수는 8바이트(Q)입니다."),
            Mistake(lambda data: struct.unpack("<4sIQQ", data[:24]), "표시(GGUF)까지 네 값을 돌려주었습니다. 뒤의 세 값만 돌려주세요."),
            Mistake(lambda data: struct.unpack("<IQQ", data[:20]), "맨 앞부터 읽었습니다. 처음 네 바이트는 표시이고, 버전은 그 뒤에 있습니다."),
            Mistake(
                lambda data: (lambda version, tensors, entries: (version, entries, tensors))(*struct.unpack("<IQQ", data[4:24])),
                "차례가 바뀌었습니다. 텐서 수가 메타데이터 수보다 먼저 나옵니다.",
            ),
        ]

    def praise(self) -> str:
        return "도구 없이 바이트에서 머리말을 읽었습니다. 엔진도 파일을 열 때 이 일부터 합니다."

    def how(self) -> str:
        return 'magic, version, tensors, entries = struct.unpack("<4sIQQ", data[:24])\nreturn version, tensors, entries'


class WhichFile(Choice):
    """The file that an engine on an office PC reads. Needs no Python."""

    id = "02-3"
    title = "받을 파일 고르기"
    letter = "a"
    live = False
    hints = ("llama-server가 읽는 그릇은 무엇이었나요? 표에서 llama.cpp의 칸을 보세요.", "그릇이 맞지 않으면 비트가 아무리 적어도 열리지 않습니다.")
    options: ClassVar = {
        "a": "",
        "b": "AWQ로 줄인 모델은 safetensors에 담겨 나옵니다. GPU에서 vLLM 같은 엔진으로 켤 때 받는 것입니다.",
        "c": "FP8은 8비트 소수로 줄이는 방법이고, 이것을 바로 계산하는 새 GPU에서 빠릅니다. GGUF에는 이 타입이 없습니다.",
        "d": "원본 safetensors는 훈련과 변환에 쓰는 그릇입니다. llama-server에서 쓰려면 먼저 GGUF로 바꾸어야 합니다.",
    }

    def praise(self) -> str:
        return "엔진이 읽는 그릇(GGUF)과 CPU에 알맞은 타입(Q4_K_M)이 모두 맞습니다."

    def how(self) -> str:
        return "llama-server는 GGUF를 읽습니다. 보기 가운데 GGUF는 이름이 .gguf로 끝나는 것뿐입니다."


class StepOfABlock(Number):
    """The step of a block of 32 at four bits, which an outlier has made wide."""

    id = "02-4"
    title = "이상치가 정하는 눈금 간격"
    unit = "가중치와 같은 단위"
    live = True
    tolerance = 0.01
    hints = (
        "눈금 간격은 블록에서 크기가 가장 큰 값이 정합니다.",
        "그 값의 크기(부호를 뗀 값)를 8로 나눕니다. four_bits(mine)의 둘째 값이기도 합니다.",
    )

    def __init__(self, block: NDArray[np.float32]) -> None:
        super().__init__()
        self.block = np.asarray(block, dtype=np.float64)

    def right(self) -> float:
        return float(abs(self.block).max() / 8)

    def mistakes(self) -> list[Mistake]:
        biggest, right = float(abs(self.block).max()), self.right()
        least = float(abs(self.block[:-1]).max() / 8)
        return [
            Mistake(biggest, "블록에서 가장 큰 값 그 자체입니다. 그 값까지를 여덟 칸으로 나눈 한 칸이 눈금 간격입니다."),
            Mistake(biggest / 127, "8비트일 때의 간격입니다. 이번에는 4비트라서 한쪽에 여덟 칸뿐입니다."),
            Mistake(
                least, "크기가 가장 큰 값으로 셈하지 않았습니다. 부호를 떼고 견주어 보세요. 키운 값까지 32개가 간격 하나를 함께 씁니다.",
                lambda answer: any(self.same(answer, other) for other in (least, float(min(self.block.max(), -self.block.min()) / 8))),
            ),
            Mistake(-right, "부호가 붙었습니다. 물은 것은 간격의 크기입니다."),
            Mistake(biggest / 4, "비트 수로 나누었습니다. 4비트로 적을 수 있는 수는 열여섯 개이고, 한쪽은 여덟 칸입니다."),
        ]

    def praise(self) -> str:
        return "유난히 큰 값 하나가 나머지 31개의 눈금 간격까지 정했습니다. 블록을 작게 나누는 까닭입니다."

    def how(self) -> str:
        return "abs(mine).max() / 8 을 계산합니다."


class DequantizeABlock(Function):
    """Write the dequantizer of one Q4_0 block."""

    id = "02-5"
    title = "블록 하나 되돌리기"
    hints = (
        "낮은 네 비트는 block[2:] & 15, 높은 네 비트는 block[2:] >> 4 입니다.",
        "둘을 np.concatenate로 잇고, 8을 뺄 수 있도록 int8로 바꾼 뒤 스케일을 곱하세요.",
    )

    def draw(self) -> NDArray[np.uint8]:
        scale = np.float16(random.uniform(0.01, 2.0))
        return np.frombuffer(scale.tobytes() + random.randbytes(16), dtype=np.uint8)

    def right(self) -> Callable[[Any], Any]:
        return lambda block: unpacked(block, 8)

    def same(self, answer: Any, other: Any) -> bool:
        pairs = [(np.asarray(answer(block)), np.asarray(other(block))) for block in self.examples]
        return all(one.shape == two.shape and np.allclose(one, two, rtol=1e-4, atol=1e-6) for one, two in pairs)

    def mistakes(self) -> list[Mistake]:
        return [
            Mistake(lambda block: unpacked(block, 0), "8을 빼지 않았습니다. 그러면 음수가 하나도 나오지 않습니다."),
            Mistake(
                lambda block: np.concatenate(np.split(unpacked(block, 8), 2)[::-1]),
                "앞 절반과 뒤 절반이 바뀌었습니다. 낮은 네 비트가 앞 16개입니다.",
            ),
            Mistake(
                lambda block: unpacked(block, 8).reshape(2, 16).T.ravel(),
                "낮은 비트와 높은 비트를 번갈아 놓았습니다. 앞 16개를 모두 놓은 뒤에 뒤 16개를 놓아야 합니다.",
            ),
            Mistake(lambda block: unpacked(block, 8) / scale_of(block), "스케일을 곱하지 않았습니다. 정수만으로는 원래 크기를 알 수 없습니다."),
            Mistake(
                lambda block: (np.concatenate([block[2:] & 15, block[2:] >> 4]) - np.uint8(8)) * scale_of(block),
                "uint8에서 8을 빼면 0 아래로 내려가지 못하고 248부터 255까지의 수가 됩니다. 빼기 전에 int8이나 float32로 바꾸세요.",
            ),
            Mistake(
                lambda block: unpacked(block, 8).reshape(2, 16), "모양이 (2, 16)입니다. 두 줄을 np.concatenate로 한 줄로 이어 주세요."
            ),
            Mistake(lambda block: unpacked(block, 8)[:16], "16개만 돌아왔습니다. 한 바이트에 두 값이 들어 있으니 모두 32개입니다."),
        ]

    def praise(self) -> str:
        return "엔진이 토큰을 하나 만들 때마다 모든 블록에서 되풀이하는 일을 손으로 했습니다."

    def how(self) -> str:
        return (
            'scale = block[:2].view("float16").astype("float32")\n'
            'small = np.concatenate([block[2:] & 15, block[2:] >> 4]).astype("int8") - 8\n'
            "return small * scale"
        )


def scale_of(block: NDArray[np.uint8]) -> NDArray[np.float32]:
    return block[:2].view(np.float16).astype(np.float32)


def unpacked(block: NDArray[np.uint8], zero: int) -> NDArray[np.float32]:
    """The 32 values of a Q4_0 block whose stored 0 to 15 stand for values from `-zero` on."""
    small = np.concatenate([block[2:] & 15, block[2:] >> 4]).astype(np.float32) - zero
    return small * scale_of(block)


class BitsOfAMix(Number):
    """Bits per weight of a file whose tensors have different types."""

    id = "02-6"
    title = "배합의 평균 비트"
    unit = "비트"
    live = False
    tolerance = 0.005
    hints = (
        "타입마다 (가중치의 수 × 하나에 드는 비트)를 구해 모두 더하세요.",
        "그 합을 가중치 전체의 수로 나눕니다. 셀에 answer = (수 * 비트 + 수 * 비트 + …) / 전체 꼴로 적으면 셀이 계산합니다.",
    )

    def __init__(self, view: GGUF) -> None:
        super().__init__()
        self.view = view

    def right(self) -> float:
        tensors = self.view.tensors
        return sum(tensor.weights * tensor.bits_per_weight for tensor in tensors) / sum(tensor.weights for tensor in tensors)

    def mistakes(self) -> list[Mistake]:
        tensors = self.view.tensors
        each = {tensor.kind: tensor.bits_per_weight for tensor in tensors}
        per_tensor = sum(tensor.bits_per_weight for tensor in tensors) / len(tensors)
        whole = self.view.size * 8 / sum(tensor.weights for tensor in tensors)
        return [
            Mistake(sum(each.values()) / len(each), "타입마다의 비트를 그대로 평균했습니다. 가중치가 많은 타입을 그만큼 더 무겁게 세어야 합니다."),
            Mistake(per_tensor, "텐서마다의 비트를 평균했습니다. 텐서마다 가중치의 수가 다릅니다."),
            Mistake(min(each.values()), "가장 적은 비트의 타입 하나만 보았습니다. 다른 타입으로 적힌 텐서도 있습니다."),
            Mistake(whole, "메타데이터까지 든 파일 전체의 크기로 셈했습니다. 가중치에 드는 비트만 세어 주세요."),
            Mistake(4.0, "이름에 적힌 수입니다. 스케일이 있고 더 넉넉한 텐서도 섞여 있어서 이보다 큽니다."),
        ]

    def praise(self) -> str:
        return "이름은 하나여도 속은 여러 타입의 배합입니다. 모델의 모양이 다르면 같은 이름이라도 평균이 달라집니다."

    def how(self) -> str:
        return "타입마다 (가중치의 수 × 비트)를 더해 가중치 전체의 수로 나눕니다."


class WrongClaim(Choice):
    """Find the false claim about quantization. Needs no Python."""

    id = "02-7"
    title = "틀린 말 찾기"
    letter = "e"
    live = False
    hints = ("표의 ± 뒤에 적힌 수가 무엇을 뜻하는지 떠올려 보세요.", "원래 모델과 얼마나 다른지는 어느 칸에 적혀 있었나요?")
    options: ClassVar = {
        "a": "맞는 말입니다. 32개에 스케일 2바이트가 붙어 8.5비트가 됩니다.",
        "b": "맞는 말입니다. 작은 모델은 가중치 하나하나가 맡은 몫이 커서 같은 오차에도 더 흔들립니다.",
        "c": "맞는 말입니다. imatrix는 스케일을 고르는 데 쓰이고, 블록의 모양과 크기는 바꾸지 않습니다.",
        "d": "맞는 말입니다. 임베딩은 더 넉넉한 타입으로 적고, 작은 정규화 텐서는 줄이지 않습니다.",
        "e": "",
    }

    def praise(self) -> str:
        return "퍼플렉시티는 고른 글에 따라 우연히 조금 좋아질 수 있습니다. 원래 모델과 멀어졌는지는 KL 발산으로 봅니다."

    def how(self) -> str:
        return "양자화는 원래 모델을 어림한 것이라 새로 배우는 것이 없습니다. 퍼플렉시티의 작은 차이는 다른 글로 재면 뒤집힐 수 있습니다."


class Roofline(Number):
    """The most tokens per second: measured bandwidth over the bytes of the weights."""

    id = "02-8"
    title = "루프라인으로 내다보기"
    unit = "초당 토큰"
    live = True
    tolerance = 0.03
    hints = (
        "토큰 하나를 만들 때마다 가중치를 한 번씩 모두 읽습니다.",
        "대역폭(1초에 읽는 GB)을 가중치의 크기(GB)로 나눕니다.",
    )

    def __init__(self, bandwidth: float, size: float) -> None:
        super().__init__()
        self.bandwidth, self.size = bandwidth, size

    def right(self) -> float:
        return self.bandwidth / self.size

    def mistakes(self) -> list[Mistake]:
        return [
            Mistake(self.size / self.bandwidth, "토큰 하나에 걸리는 초입니다. 1초에 몇 토큰인지 적어 주세요."),
            Mistake(self.right() * 8, "바이트를 비트로 바꾸었습니다. 대역폭도 크기도 바이트(GB)이므로 그대로 나눕니다."),
            Mistake(self.bandwidth / 1e9, "대역폭 그 자체입니다. 토큰 하나에 읽는 양으로 나누어 주세요."),
            Mistake(self.right() / 2, "F16일 때의 크기로 셈한 것 같습니다. 고른 타입의 가중치 크기로 나누어 주세요."),
        ]

    def praise(self) -> str:
        return "재 보기 전에 천장을 알았습니다. 잰 값이 이보다 훨씬 낮으면 병목은 메모리가 아니라 계산에 있습니다."

    def how(self) -> str:
        return f"식: {self.bandwidth / 1e9:.1f} ÷ {self.size / 1e9:.2f}"


class TypeThatFits(Exercise):
    """The type with the most bits that serves a model to four users on an office PC of 8 GB."""

    id = "02-9"
    title = "8 GB에 들어가는 타입"
    live = True
    hints = (
        "계산기에서 모델과 컨텍스트를 맞춘 다음, 타입을 넉넉한 것부터 하나씩 골라 처음으로 됩니다가 나오는 것을 찾으세요.",
        f'셀에서는 memory.judge("{MACHINE}", name, "llama.cpp", "Q8_0", context, 4) 로 물을 수 있습니다.',
    )

    def __init__(self, name: str, context: int, choices: Sequence[str]) -> None:
        super().__init__()
        self.name, self.context, self.choices = name, context, list(choices)

    def fits(self, kind: str) -> bool:
        return memory.judge(MACHINE, self.name, "llama.cpp", kind, self.context, 4).ok

    def right(self) -> str:
        fitting = [kind for kind in self.choices if self.fits(kind)]
        return max(fitting, key=lambda kind: memory.need(self.name, kind, self.context, 4).weights)

    def mistakes(self) -> list[Mistake]:
        right = self.right()
        return [Mistake(kind, self.reason(kind)) for kind in self.choices if kind != right]

    def reason(self, kind: str) -> str:
        total = memory.gib(memory.need(self.name, kind, self.context, 4).total)
        if self.fits(kind):
            return f"{kind}이면 모두 {total}라서 들어갑니다. 그런데 이보다 넉넉한 타입 가운데 들어가는 것이 더 있습니다."
        return f"{kind}이면 모두 {total}가 필요해서 이 PC에서 쓸 수 있는 메모리에 들어가지 않습니다."

    def praise(self) -> str:
        return "가중치, KV 캐시, 버퍼를 더해 보고 골랐습니다. 사람이나 컨텍스트가 늘면 답도 달라집니다."

    def how(self) -> str:
        return "보기를 bpw가 큰 것부터 차례로 memory.judge에 물어, 처음으로 된다고 하는 것을 고릅니다."

    def read(self, answer: object) -> str:
        known = {kind.lower(): kind for kind in self.choices}
        if not isinstance(answer, str):
            raise WrongType('타입의 이름을 따옴표로 감싸 적어 주세요. 예를 들면 "Q4_K_M"입니다.')
        if answer.strip().lower() not in known:
            raise WrongType(f"보기에 없는 타입입니다: {answer!r}. {', '.join(self.choices)} 가운데 하나를 적어 주세요.")
        return known[answer.strip().lower()]


ALL = (
    TensorBytes,
    ReadHeader,
    WhichFile,
    StepOfABlock,
    DequantizeABlock,
    BitsOfAMix,
    WrongClaim,
    Roofline,
    TypeThatFits,
)

"""Damaged model files, made from the tutor by a seeded generator, and what reading each of them does.

`python -m tests.mutants gguf FOLDER` reads every mutant of FOLDER/whole.gguf in a process that may take 200 MB more than it
starts with, and prints a JSON list of (label, must fail, seconds of processor time, error or "").
"""

from __future__ import annotations

import json
import random
import resource
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from servinglab.errors import ServingLabError

MEMORY = 200 * 2**20
CODES = {
    "uint8": (0, "B"), "int8": (1, "b"), "uint16": (2, "H"), "int16": (3, "h"), "uint32": (4, "I"), "int32": (5, "i"),
    "float32": (6, "f"), "bool": (7, "?"), "string": (8, ""), "array": (9, ""), "uint64": (10, "Q"), "int64": (11, "q"),
    "float64": (12, "d"),
}
BILLIONS = (2**31, 4_000_000_000, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


class Writer:
    """A GGUF file as bytes, and where each of its fields stands."""

    def __init__(self, entries, tensors, alignment=32):
        self.out, self.places = bytearray(), {}
        self.put("magic", b"GGUF")
        self.put("version", struct.pack("<I", 3))
        self.put("tensor_count", struct.pack("<Q", len(tensors)))
        self.put("metadata_kv_count", struct.pack("<Q", len(entries)))
        for i, (key, kind, value) in enumerate(entries):
            self.text(f"key {i}", key)
            self.value(f"value {i}", kind, value)
        offset = 0
        for i, (name, shape, code, data) in enumerate(tensors):
            self.text(f"name {i}", name)
            self.put(f"dims {i}", struct.pack("<I", len(shape)))
            for j, size in enumerate(shape):
                self.put(f"dim {i}.{j}", struct.pack("<Q", size))
            self.put(f"type {i}", struct.pack("<I", code))
            self.put(f"offset {i}", struct.pack("<Q", offset))
            offset += len(data) + -len(data) % alignment
        self.header = len(self.out)
        for _, _, _, data in tensors:
            self.out += bytes(-len(self.out) % alignment) + data

    def put(self, place, raw):
        self.places[place] = (len(self.out), len(raw))
        self.out += raw

    def text(self, place, text):
        raw = text if isinstance(text, bytes) else text.encode()
        self.put(f"length of {place}", struct.pack("<Q", len(raw)))
        self.put(f"text of {place}", raw)

    def value(self, place, kind, value, tag=True):
        first = kind.partition("[")[0]
        if tag:
            self.put(f"tag of {place}", struct.pack("<I", CODES[first][0]))
        if first == "string":
            self.text(place, value)
        elif first == "array":
            inner = kind[6:-1]
            self.put(f"inner of {place}", struct.pack("<I", CODES[inner.partition("[")[0]][0]))
            self.put(f"count of {place}", struct.pack("<Q", len(value)))
            if inner == "string" and len(value) > 10_000:  # nobody asks where one of them stands
                raws = [item.encode() for item in value]
                self.put(place, b"".join(part for raw in raws for part in (len(raw).to_bytes(8, "little"), raw)))
            elif CODES[inner.partition("[")[0]][1]:
                self.put(place, struct.pack(f"<{len(value)}{CODES[inner][1]}", *value))
            else:
                for i, item in enumerate(value):
                    self.value(f"{place}.{i}", inner, item, tag=False)
        else:
            self.put(place, struct.pack(f"<{CODES[kind][1]}", value))


def parts(path, vocabulary=384, width=64):
    """Metadata and tensors of the tutor, cut down to one narrow layer and a few tokens; half of its matrices as Q8_0."""
    reader = gguf.GGUFReader(path)
    found = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    tokens = found["tokenizer.ggml.tokens"][:vocabulary]
    found |= {
        "llama.embedding_length": width, "llama.block_count": 1, "llama.feed_forward_length": width,
        "llama.attention.head_count": 1, "llama.attention.head_count_kv": 1, "llama.vocab_size": vocabulary,
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": found["tokenizer.ggml.token_type"][:vocabulary],
        "tokenizer.ggml.merges": [pair for pair in found["tokenizer.ggml.merges"] if pair.replace(" ", "") in set(tokens)],
    }
    kinds = {name: [kind.name.lower() for kind in reader.fields[name].types] for name in found}
    entries = [(name, kinds[name][0] if len(kinds[name]) == 1 else f"array[{kinds[name][1]}]", found[name]) for name in found]
    tensors = []
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.") and not tensor.name.startswith("blk.0."):
            continue
        data, code = np.asarray(tensor.data), int(tensor.tensor_type)
        rows = vocabulary if tensor.name == "token_embd.weight" else width
        data = np.ascontiguousarray(data[:width] if data.ndim == 1 else data[:rows, :width])
        shape = data.shape[::-1]
        if "ffn" in tensor.name and data.ndim == 2:
            data, code = gguf.quants.quantize(data.astype(np.float32), gguf.GGMLQuantizationType.Q8_0), 8
        tensors.append((tensor.name, shape, code, data.tobytes()))
    return entries, tensors


def small(path) -> bytes:
    return bytes(Writer(*parts(path)).out)


# --- GGUF -------------------------------------------------------------------------------------------------------------


def gguf_cases(path) -> Iterator[tuple[str, bytes, bool]]:
    """(label, file, whether it must be refused): the same ones every time."""
    entries, tensors = parts(path)
    whole, rng = Writer(entries, tensors), random.Random(2)
    yield "whole", bytes(whole.out), False
    yield from truncated(whole, rng)
    yield from fields(whole, rng)
    yield from contents(whole, rng)
    yield from rebuilt(entries, tensors)
    yield from deadly(entries, tensors)
    yield from odd(entries, tensors)
    for i in range(200):
        damaged = bytearray(whole.out)
        start = rng.randrange(whole.header)
        for at in range(start, min(start + rng.choice((1, 1, 1, 2, 8)), whole.header)):
            damaged[at] = rng.randrange(256)
        yield f"random bytes {i} at {start}", bytes(damaged), False


def truncated(whole, rng):
    ends = {*range(1, 40), whole.header - 1, whole.header, len(whole.out) - 1, *(rng.randrange(40, whole.header) for _ in range(60))}
    ends |= {rng.randrange(whole.header, len(whole.out)) for _ in range(20)}
    for end in sorted(ends):
        yield f"cut after {end} bytes", bytes(whole.out[:end]), True


def changed(whole, place, raw):
    """The file with other bytes in the place of a field."""
    at, length = whole.places[place]
    assert len(raw) == length, place
    return bytes(whole.out[:at]) + raw + bytes(whole.out[at + length :])


def fields(whole, rng):
    """Every field that is a number, set to what cannot be."""
    of = {word: [place for place in whole.places if place.startswith(word)] for word in ("length of", "tag of", "inner of", "count of")}
    tensors = sum(place.startswith("offset ") for place in whole.places)
    numbers = [("version", "I", value) for value in (0, 1, 4, 99, 2**31, 3 << 24, 2 << 24, 2**32 - 1)]
    for place in ("tensor_count", "metadata_kv_count"):
        now = struct.unpack_from("<Q", whole.out, whole.places[place][0])[0]
        numbers += [(place, "Q", value) for value in (*BILLIONS, 10**6, 65537, now + 1)]
    numbers += [("tensor_count", "Q", 0), ("metadata_kv_count", "Q", now - 1)]
    numbers += [(place, "Q", rng.choice((*BILLIONS, len(whole.out)))) for place in rng.sample(of["length of"], 60)]
    numbers += [(place, "I", value) for place in of["tag of"] for value in (13, 2**32 - 1)]
    numbers += [(place, "I", value) for place in of["inner of"] for value in (13, 99, 2**32 - 1)]
    numbers += [(place, "Q", value) for place in of["count of"] for value in (*BILLIONS, 10**7)]
    for i in range(tensors):
        row, offset = (struct.unpack_from("<Q", whole.out, whole.places[f"{name} {i}{end}"][0])[0] for name, end in (("dim", ".0"), ("offset", "")))
        numbers += [(f"dims {i}", "I", value) for value in (0, 5, 2**32 - 1)]
        numbers += [(f"dim {i}.0", "Q", value) for value in (0, 2**33 + row, rng.choice(BILLIONS))]
        numbers += [(f"type {i}", "I", value) for value in (4, 5, rng.randrange(31, 34), rng.randrange(36, 39), 99, 2**32 - 1)]
        numbers += [(f"offset {i}", "Q", value) for value in (offset + 1, offset + 8, len(whole.out) // 32 * 32 + 32, 2**64 - 32)]
        if i:
            numbers += [(f"offset {i}", "Q", offset - 32), (f"offset {i}", "Q", 0)]
    last = f"offset {tensors - 1}"
    for more, bad in ((1, True), (8, True), (32, False)):  # nothing else is wrong: the file is longer by as much
        offset = struct.unpack_from("<Q", whole.out, whole.places[last][0])[0]
        yield f"the last tensor {more} later", changed(whole, last, struct.pack("<Q", offset + more)) + bytes(more), bad
    for place, form, value in numbers:
        yield f"{place} = {value}", changed(whole, place, struct.pack(f"<{form}", value)), True


def contents(whole, rng):
    """Bytes that are no UTF-8, and a bool that is neither true nor false."""
    texts = [place for place in whole.places if place.startswith("text of") and whole.places[place][1]]
    for place in rng.sample(texts, 50):
        raw = bytearray(whole.out[slice(whole.places[place][0], sum(whole.places[place]))])
        raw[rng.randrange(len(raw))] = rng.choice((0xFF, 0xC0, 0xFE))
        yield f"{place} is no UTF-8", changed(whole, place, bytes(raw)), True
    for magic in (b"GGML", b"gguf", b"FUGG", b"\0\0\0\0", b"PK\x03\x04", b"GGU\xff"):
        yield f"magic {magic!r}", changed(whole, "magic", magic), True
    places = [place for place in whole.places if place.startswith("value") and whole.places[place][1] == 1]
    yield from ((f"{place} = {value}", changed(whole, place, bytes([value])), True) for place in places for value in (2, 255))


def rebuilt(entries, tensors):
    """Files that are put together wrongly."""
    def file(more=(), entries=entries, tensors=tensors, **options):
        return bytes(Writer([*entries, *more], tensors, **options).out)

    for i in range(0, len(entries), 2):
        yield f"key {i} twice", file([entries[i]]), True
    for i in range(len(tensors)):
        yield f"name {i} twice", file(tensors=[*tensors, tensors[i]]), True
        name, shape, code, data = tensors[i]
        for wrong in ("", "x" * 64, "가" * 22):
            yield f"name {i} = {wrong}", file(tensors=[*tensors[:i], (wrong, shape, code, data), *tensors[i + 1 :]]), True
        if code == 8:
            other = (name, (shape[0] // 2 + 1, *shape[1:]), code, data)
            yield f"rows of {name} are no whole blocks", file(tensors=[*tensors[:i], other, *tensors[i + 1 :]]), True
            other = (name, (2**32, 2**32, 2**32, 2**32), code, data)
            yield f"dims of {name} overflow", file(tensors=[*tensors[:i], other, *tensors[i + 1 :]]), True
    for kind, value in (("uint32", 0), ("uint32", 1), ("uint32", 33), ("uint32", 48), ("uint32", 2**31), ("uint64", 32), ("string", "32")):
        yield f"alignment {value}", file([("general.alignment", kind, value)]), True
    yield "no tensors", file(tensors=[]), True
    yield "empty key", file([("", "uint8", 1)]), True
    yield "long key", file([("k" * 65536, "uint8", 1)]), True
    deep, kind = [], "array[uint8]"
    for _ in range(5):
        deep, kind = [deep], f"array[{kind}]"
    yield "arrays too deep", file([("deep", kind, deep)]), True
    yield "bools of 2", file([("bools", "array[uint8]", [0, 1, 2])]).replace(struct.pack("<II", 9, 0), struct.pack("<II", 9, 7)), True
    yield "nested", file([("nested", "array[array[int16]]", [[1, 2], [], [3]])]), False
    yield "alignment 64", file([("general.alignment", "uint32", 64)], alignment=64), False


def deadly(entries, tensors):
    """Files whose form is right, but on which llama.cpp calls abort()."""
    now = {key: (kind, value) for key, kind, value in entries}
    for change in DEADLY:
        new = now | change
        yield f"deadly {change}"[:80], bytes(Writer([(key, *pair) for key, pair in new.items()], tensors).out), True
    for heads, kv_heads in ((3, 2), (2, 4)):
        rows = {"attn_q": (64, 64 * heads), "attn_k": (64, 64 * kv_heads), "attn_v": (64, 64 * kv_heads), "attn_output": (64 * heads, 64)}
        fit = [(name, rows.get(name.split(".")[-2]), *rest) for name, _, *rest in tensors]
        fit = [(n, shape, 1, bytes(2 * int(np.prod(shape)))) if shape else tensors[i] for i, (n, shape, *_) in enumerate(fit)]
        change = {"head_count": heads, "head_count_kv": kv_heads, "key_length": 64, "value_length": 64}
        new = now | {f"llama.attention.{name}": ("uint32", value) for name, value in change.items()}
        yield f"{heads} heads for {kv_heads}", bytes(Writer([(key, *pair) for key, pair in new.items()], fit).out), True
    tokens = now["tokenizer.ggml.tokens"][1]
    for name, words in (("twice", [*tokens[:-1], tokens[7]]), ("zero", [*tokens[:-2], "a\0b", "a\0c"]), ("empty", ["", *tokens[1:-1], "[EMPTY_0]"])):
        new = now | {"tokenizer.ggml.tokens": ("array[string]", words)}
        yield f"token {name}", bytes(Writer([(key, *pair) for key, pair in new.items()], tensors).out), True
    for i, (name, shape, _, _) in enumerate(tensors):
        kinds = (1, 30, 26, 8) if "norm" in name else (24, 25, 26, 27, 28)
        for code in kinds:
            weights, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(code)]
            data = bytes(int(np.prod(shape)) // weights * size)
            yield f"{name} of type {code}", bytes(Writer(entries, [*tensors[:i], (name, shape, code, data), *tensors[i + 1 :]]).out), True


ODD = [
    ("array[uint32]", []), ("array[uint32]", [2, 1]), ("array[int32]", [-1]), ("array[float32]", [0.5]), ("array[bool]", [True]),
    ("array[string]", ["a"]), ("array[array[uint8]]", [[1], []]), ("string", "1"), ("float64", float("nan")), ("int64", -1), ("bool", True),
    ("uint64", 2**64 - 1),
]


def odd(entries, tensors):
    """Values of types that nobody expects, where the reader looks at values. Some are deadly, most are refused by llama.cpp."""
    now = {key: (kind, value) for key, kind, value in entries}
    for key in [*(key for key in now if key != "tokenizer.chat_template"), *sorted({key for change in DEADLY for key in change if key not in now})]:
        for kind, value in ODD:
            yield f"{key} is {kind} {value}"[:90], bytes(Writer([(k, *pair) for k, pair in (now | {key: (kind, value)}).items()], tensors).out), False


DEADLY = [
    {"llama.block_count": ("uint32", 0)},
    {"llama.block_count": ("uint32", 513)},
    {"llama.block_count": ("uint32", 4_000_000_000)},
    {"llama.nextn_predict_layers": ("uint32", 2)},
    {"llama.attention.layer_norm_rms_epsilon": ("float32", -1.0)},
    {"llama.attention.layer_norm_rms_epsilon": ("float32", float("nan"))},
    {"llama.rope.scaling.type": ("string", "weird")},
    {"llama.expert_count": ("uint32", 8)},
    {"llama.expert_count": ("uint32", 5000), "llama.expert_used_count": ("uint32", 2)},
    {"llama.expert_used_count": ("uint32", 2)},
    {"llama.expert_used_count": ("array[uint32]", [2])},
    {"llama.expert_used_count": ("array[int32]", [-1])},
    {"llama.expert_used_count": ("array[bool]", [True])},
    {"llama.expert_group_count": ("uint32", 2)},
    {"llama.expert_count": ("uint32", 8), "llama.expert_used_count": ("uint32", 2), "llama.expert_group_count": ("uint32", 3)},
    {"tokenizer.ggml.model": ("string", "none")},
    {"tokenizer.ggml.model": ("string", "llama")},
]


def accepted(path, count=40) -> list[tuple[str, bytes]]:
    """Mutants that the reader lets through: values at random in sound files."""
    entries, tensors = parts(path)
    rng, found = random.Random(3), []
    values = {
        "uint32": (0, 1, 2, 3, 5, 63, 128, 513, 2**16, 2**31, 2**32 - 1), "bool": (False, True),
        "float32": (0.0, -1.0, float("nan"), float("inf"), 1e30), "string": ("", "x", "a\0b", "qwen3", "gemma3", "{{", "t5"),
        "array[string]": ([], ["a"], ["a", "b", "a"], [""]), "array[int32]": ([], [1], [-1] * 384, [99] * 384),
    }
    while len(found) < count:
        i = rng.randrange(len(entries))
        key, kind, _ = entries[i]
        value = rng.choice(values[kind])
        if rng.random() < 0.3:
            kind, value = rng.choice(ODD)
        data = bytes(Writer([*entries[:i], (key, kind, value), *entries[i + 1 :]], tensors).out)
        if not outcome_of(data):
            found.append((f"{key} = {value!r:.40}", data))
    return found


def outcome_of(data) -> str:
    import tempfile

    from servinglab.models import gguf_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        path.write_bytes(data)
        try:
            gguf_file.read(path)
        except ServingLabError as error:
            return str(error)
    return ""


def extremes() -> Iterator[tuple[str, bytes, bool]]:
    """Large headers: the largest vocabulary in use, and those that are made to take time or memory."""
    tensor = [("token_embd.weight", (32,), 0, bytes(128))]
    words = [f"▁token{i}가" for i in range(262_144)]
    vocabulary = [
        ("tokenizer.ggml.tokens", "array[string]", words),
        ("tokenizer.ggml.scores", "array[float32]", [0.0] * len(words)),
        ("tokenizer.ggml.token_type", "array[int32]", [1] * len(words)),
    ]
    yield "262,144 tokens", bytes(Writer(vocabulary, tensor).out), False
    merges = [("tokenizer.ggml.merges", "array[string]", [f"ab{i % 977} cd" for i in range(514_906)])]
    yield "262,144 tokens and half a million merges", bytes(Writer(vocabulary + merges, tensor).out), False
    for label, kind, value in (
        ("a million empty strings", "array[string]", [""] * 2**20),
        ("more than a million empty strings", "array[string]", [""] * (2**20 + 1)),
        ("65,536 inner arrays", "array[array[uint8]]", [[]] * 2**16),
        ("more inner arrays", "array[array[uint8]]", [[]] * (2**16 + 1)),
        ("a million wide strings", "array[string]", ["🙂" + "a" * 15] * 2**20),
        ("one wide string", "string", "🙂" + "a" * (31 * 2**20)),
        ("one string beyond the limit", "string", "a" * (33 * 2**20)),
        ("an array of bytes", "array[uint8]", [7] * (30 * 2**20)),
    ):
        yield label, bytes(Writer([("k", kind, value)], tensor).out), "more" in label or "beyond" in label
    keys = [(f"k{i}", "uint8", 1) for i in range(32_768)]
    yield "32,768 keys", bytes(Writer(keys, tensor).out), False
    yield "32,769 keys", bytes(Writer([*keys, ("k", "uint8", 1)], tensor).out), True
    yield "32,768 tensors", bytes(Writer([], [(f"t{i}", (1,), 0, bytes(4)) for i in range(32_768)]).out), False


# --- safetensors ------------------------------------------------------------------------------------------------------


def packed(header, data=b"", length=None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def safetensors_cases(path) -> Iterator[tuple[str, bytes, bool]]:
    """(label, file, whether it must be refused), from the tutor's file with its data left out but for the beginning."""
    whole, rng = path.read_bytes(), random.Random(4)
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    names = ["model.norm.weight", "model.layers.0.input_layernorm.weight", "model.layers.1.input_layernorm.weight"]
    at, tensors = 0, {"__metadata__": header["__metadata__"]}
    for name in names:
        tensors[name] = header[name] | {"data_offsets": [at, at + 512]}
        at += 512
    data, raw = bytes(at), json.dumps(tensors).encode()
    sound = packed(tensors, data)
    yield "whole", sound, False
    yield "padded", packed(raw + b"   ", data), False
    yield "no metadata", packed({name: tensors[name] for name in names}, data), False
    yield from ((f"cut after {end} bytes", sound[:end], True) for end in (1, 7, 8, 9, *rng.sample(range(10, len(sound)), 20), len(sound) - 1))
    yield from ((f"longer by {more}", sound + bytes(more), True) for more in (1, 512))
    yield from ((f"header of {length}", packed(raw, data, length), True) for length in (0, 1, len(raw) - 1, len(raw) + 1, len(sound), *BILLIONS))
    for name in names:
        yield from lies(tensors, name, data)
    for label, wrong in (
        ("no JSON", b"{"), ("a list", b"[]"), ("a number", b"7"), ("empty", b"{}"), ("no UTF-8", raw.replace(b"norm", b"no\xff\xfe", 1)),
        ("deep", b"[" * 100_000), ("a long number", b'{"a":' + b"9" * 10_000 + b"}"), ("a key twice", raw[:-1] + b"," + raw[1:]),
        ("a field twice", raw.replace(b'"shape"', b'"dtype"', 1)), ("only metadata", b'{"__metadata__":{}}'),
        ("metadata of numbers", raw.replace(b'"pt"', b"1")), ("metadata in a list", raw.replace(b'{"format": "pt"}', b'["pt"]')),
        ("a lone surrogate", raw.replace(b"model.norm", b"\\ud800", 1).replace(b"F16", b"F17", 1)), ("NaN", raw.replace(b"[256]", b"[NaN]", 1)),
    ):
        yield label, packed(wrong, data), True
    yield "many objects", packed(b'{"a":[' + b"{}," * (2**21) + b"{}]}"), True
    yield "beyond the limit", packed(raw + b" " * 2**23, data), True
    for i in range(30):
        damaged = bytearray(sound)
        damaged[rng.randrange(8 + len(raw))] = rng.randrange(256)
        yield f"random byte {i}", bytes(damaged), False


def lies(tensors, name, data):
    """One tensor's entry, told wrongly."""
    begin, end = tensors[name]["data_offsets"]
    for field, values in {
        "dtype": ("F32", "F15", "", None, 7, ["F16"], {}),
        "shape": ([255], [257], [0], [-256], [256, 2], ["256"], [256.0], [True], 256, None, [2**32, 2**32], [2**70], [1] * 9, [[256]]),
        "data_offsets": (
            [begin, end + 2], [begin + 2, end], [begin + 512, end + 512], [begin - 512, end - 512], [end, begin], [begin], [begin, end, end],
            [begin, 2**40], [2**63, 2**63 + 512], [10**30, 10**30 + 512], "0", None, [0.0, 512.0], [str(begin), str(end)],
        ),
    }.items():
        for value in values:
            yield f"{name} {field} {value}"[:90], packed(tensors | {name: tensors[name] | {field: value}}, data), True
        yield f"{name} without {field}", packed(tensors | {name: {k: v for k, v in tensors[name].items() if k != field}}, data), True
    yield f"{name} with more", packed(tensors | {name: tensors[name] | {"more": 1}}, data), True
    yield f"{name} a list", packed(tensors | {name: [1]}, data), True
    yield f"{name} missing", packed({other: said for other, said in tensors.items() if other != name}, data), True


# --- reading them -----------------------------------------------------------------------------------------------------


def write_cases(folder: Path, cases) -> list[tuple[str, bool]]:
    """The mutants as files 0, 1, … of `folder`; returns their labels and whether they must be refused."""
    told = []
    for i, (label, data, bad) in enumerate(cases):
        (folder / str(i)).write_bytes(data)
        told.append((label, bad))
    return told


def memory(what: str) -> int:
    """Bytes of this process: VmRSS now in memory, VmHWM the most so far, VmSize mapped."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def main(kind: str, folder: Path) -> None:
    """Read the files 0, 1, … and print [seconds of processor time, error or ""] for each, and the peak of memory in bytes."""
    from servinglab.models import gguf_file, safetensors_file

    read = {"gguf": gguf_file.read, "safetensors": safetensors_file.read}[kind]
    found = []
    before, mapped = memory("VmRSS"), memory("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    for i in range(len(list(folder.iterdir()))):
        began, error = time.process_time(), ""
        try:
            read(folder / str(i))
        except ServingLabError as refused:
            error = str(refused)
        found.append((time.process_time() - began, error))
    print(json.dumps([found, memory("VmHWM") - before]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

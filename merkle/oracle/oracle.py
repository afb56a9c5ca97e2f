#!/usr/bin/env python3
"""Recomputes roots and verifies proofs of the state trie: a second implementation of docs/SPEC/merkle.md.

    oracle.py root DUMP       the root of a map; a line of DUMP is: key, space, value, in hexadecimal
    oracle.py answer          a request on each line of standard input, an answer on each line of output
    oracle.py check FILE ...  files of vectors (merkle/tests/vectors/*.json); exit code 1 if one does not hold

Requests, answers and vectors are in section 3.5 of the specification.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Optional, Union

import plain_blake3
import trie

REQUEST_BYTES_MAX = 64 << 20


class BadRequest(Exception):
    """What was asked has not the form that the specification gives it."""


def from_hex(text: Any, length: Optional[int] = None) -> bytes:
    """Lower-case hexadecimal, strictly, of so many bytes if that is given."""
    if not isinstance(text, str) or not re.fullmatch("([0-9a-f]{2})*", text):
        raise BadRequest("not hexadecimal")
    if length is not None and len(text) != 2 * length:
        raise BadRequest(f"not {length} bytes")
    return bytes.fromhex(text)


def elements(thing: Any, length: Optional[int] = None) -> list[Any]:
    """A JSON list, of so many elements if that is given."""
    if not isinstance(thing, list) or length not in (None, len(thing)):
        raise BadRequest("not a list, or not of that length")
    return thing


def number(thing: Any, lowest: int, highest: int) -> int:
    """A JSON integer within bounds."""
    if type(thing) is not int or not lowest <= thing <= highest:
        raise BadRequest("not a number, or out of bounds")
    return thing


def root_of(pairs: Any) -> str:
    """The root of a map, a list of pairs with ascending keys."""
    entries: dict[bytes, bytes] = {}
    last = b""
    for pair in elements(pairs):
        key, value = elements(pair, 2)
        last, before = from_hex(key, trie.KEY), last
        if last <= before:
            raise BadRequest("keys do not ascend")
        entries[last] = from_hex(value)
    return trie.root(entries).hex()


def ask(copy: trie.PrunedCopy, question: Any) -> Any:
    """What a copy says to a question."""
    kind, *what = elements(question)
    try:
        match kind, what:
            case "get", [key]:
                value = copy.get(from_hex(key, trie.KEY))
                return ["absent"] if value is None else ["value", value.hex()]
            case "value hash", [key]:
                value_hash = copy.value_hash(from_hex(key, trie.KEY))
                return ["absent"] if value_hash is None else ["value hash", value_hash.hex()]
            case "scan", [low, high, limit]:
                bound = None if high is None else from_hex(high, trie.KEY)
                most = None if limit is None else number(limit, 1, trie.COPY_NODES_MAX)
                entries = copy.scan(from_hex(low, trie.KEY), bound, most)
                return ["entries", *([key.hex(), value.hex()] for key, value in entries)]
            case "last before", [key]:
                last = copy.last_before(from_hex(key, trie.KEY))
                return ["left edge"] if last is None else ["key", last.hex()]
    except trie.Missing:
        return ["missing"]
    raise BadRequest("an unknown question")


def verify(data: bytes, certified: bytes) -> Union[str, trie.PrunedCopy]:
    """The copy, or what is wrong with it."""
    try:
        copy = trie.PrunedCopy(data)
    except trie.Refused:
        return "refused"
    return copy if copy.root == certified else "wrong root"


def respond(request: Any) -> Any:
    """The answer to a request, which is told by its members."""
    match request:
        case {"map": pairs, **rest} if not rest:
            return root_of(pairs)
        case {"root": root, "copy": data, "questions": questions, **rest} if not rest:
            copy = verify(from_hex(data), from_hex(root, trie.HASH))
            return copy if isinstance(copy, str) else [ask(copy, each) for each in elements(questions)]
        case {"root": root, "copy": data, "mask": mask, **rest} if not rest:
            return "".join(each_byte_changed(from_hex(data), from_hex(root, trie.HASH), from_hex(mask, 1)[0]))
        case {"key": key, "context": context, "input_len": length, **rest} if not rest:
            data = bytes(at % 251 for at in range(number(length, 0, 1 << 20)))
            return [plain_blake3.keyed(key.encode(), data).hex(), plain_blake3.derive(context, data).hex()]
    raise BadRequest("an unknown request")


def each_byte_changed(data: bytes, certified: bytes, mask: int) -> list[str]:
    """For each byte, what comes of the copy in which it alone is changed: f refused, w wrong root, - accepted."""
    changed = (data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :] for at in range(len(data)))
    found = [verify(copy, certified) for copy in changed]
    return ["f" if one == "refused" else "w" if one == "wrong root" else "-" for one in found]


def check(path: Path) -> bool:
    """Checks a file of vectors; says which do not hold."""
    vectors = elements(json.loads(path.read_bytes())["vectors"])
    failed = [vector["name"] for vector in vectors if respond(vector["request"]) != vector["answer"]]
    print(f"{path.name}: {len(vectors)} vectors, {len(failed)} do not hold", *failed, sep="\n  ")
    return not failed


def main(arguments: list[str]) -> int:
    """Runs a command; the exit code is 1 when a vector does not hold, 2 when the input is no good."""
    try:
        match arguments:
            case ["root", dump]:
                print(root_of([line.split(" ") for line in Path(dump).read_text("ascii").splitlines()]))
            case ["answer"]:
                while line := sys.stdin.buffer.readline(REQUEST_BYTES_MAX):
                    print(json.dumps(respond(json.loads(line)), separators=(",", ":")), flush=True)
            case ["check", _, *_]:
                return 0 if all([check(Path(file)) for file in arguments[1:]]) else 1
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (BadRequest, ValueError, KeyError, OSError, RecursionError) as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

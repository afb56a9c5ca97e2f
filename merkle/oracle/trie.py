"""The state trie and its pruned copies, from docs/SPEC/merkle.md, sections 1 to 3, and from nothing else.

`root` computes the root of a map. `PrunedCopy` parses a proof strictly and computes its root; until that is found
equal to a certified root, the copy proves nothing. Its methods answer questions, or raise `Missing`.
"""

from functools import lru_cache
from typing import NamedTuple, Optional, Union

import plain_blake3

KEY = 32
HASH = 32
COPY_BYTES_MAX = 16_777_216
COPY_NODES_MAX = 262_144
FORMAT = 1
EMPTY, INNER, LEAF, PRUNED_LEAF, STUB = range(5)


class Refused(Exception):
    """The bytes are not the encoding of a pruned copy."""


class Missing(Exception):
    """The copy does not show enough for an answer. Never an absence, and never an end."""


class Inner(NamedTuple):
    """A node with two children."""

    bit: int
    left: "Node"
    right: "Node"


class Leaf(NamedTuple):
    """A revealed leaf; pruned, that is without its value, when `value` is None."""

    key: bytes
    value_hash: bytes
    value: Optional[bytes]


class Stub(NamedTuple):
    """A subtree of which only the hash is shown."""

    hash: bytes


Node = Union[Inner, Leaf, Stub]


@lru_cache(maxsize=None)  # at most 259 contexts: bits are bytes
def derive(context: str) -> bytes:
    """A key, or the hash of the empty trie (section 2)."""
    return plain_blake3.derive("quorate merkle v1 " + context)


@lru_cache(maxsize=65_536)
def node_hash(context: str, first: bytes, second: bytes) -> bytes:
    """The hash of a leaf or an inner node. Remembered, because proofs of one map hash the same again and again."""
    return plain_blake3.keyed(derive(context), first + second)


def value_hash(value: bytes) -> bytes:
    """The hash of a value."""
    return plain_blake3.keyed(derive("value"), value)


def bit_of(key: bytes, bit: int) -> int:
    """Bit 0 is the most significant one of byte 0 (section 1)."""
    return key[bit // 8] >> (7 - bit % 8) & 1


def first_difference(one: bytes, other: bytes) -> Optional[int]:
    """The first bit in which two keys differ; None when they are equal."""
    difference = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return 8 * KEY - difference.bit_length() if difference else None


def root(entries: dict[bytes, bytes]) -> bytes:
    """The root of a map."""
    return subtree_hash(sorted(entries.items())) if entries else derive("empty")


def subtree_hash(entries: list[tuple[bytes, bytes]]) -> bytes:
    """The hash over ascending entries, at least one. At most 257 deep, as the bit rises."""
    if len(entries) == 1:
        key, value = entries[0]
        return node_hash("leaf", key, value_hash(value))
    bit = first_difference(entries[0][0], entries[-1][0])
    assert bit is not None, "keys of a map are distinct"
    left = [entry for entry in entries if bit_of(entry[0], bit) == 0]
    return node_hash(f"inner {bit}", subtree_hash(left), subtree_hash(entries[len(left) :]))


class Open:
    """An inner node of which a child is still to come: its bit, and its left child and that one's hash."""

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.left: Optional[tuple[Node, bytes]] = None


class PrunedCopy:
    """A parsed copy (section 3.1)."""

    def __init__(self, data: bytes) -> None:
        self.top: Optional[Node] = None  # None: the empty trie
        self.root = derive("empty")
        self.ends: list[Union[Leaf, Stub]] = []  # in the order of the trie
        self.data = data
        self.at = 0
        if len(data) > COPY_BYTES_MAX:
            raise Refused("more bytes than a copy may have")
        if self.take(1)[0] != FORMAT:
            raise Refused("another format")
        self.parse()
        if self.at != len(data):
            raise Refused("bytes after the last node")

    def take(self, count: int) -> bytes:
        """The next bytes; refused when there are fewer."""
        if count > len(self.data) - self.at:
            raise Refused("ends within a node, or before one")
        self.at += count
        return self.data[self.at - count : self.at]

    def parse(self) -> None:
        """Reads the nodes. `path` holds the inner nodes above the next one."""
        path: list[Open] = []
        last: Optional[tuple[bytes, list[Open]]] = None  # the last leaf's key, and the path to it
        for count in range(COPY_NODES_MAX):
            tag = self.take(1)[0]
            if tag == EMPTY and count == 0:
                return
            if tag == INNER:
                bit = self.take(1)[0]
                if path and bit <= path[-1].bit:
                    raise Refused("a bit is not above its parent's")
                path.append(Open(bit))
                continue
            end = self.read_end(tag)
            if isinstance(end, Leaf):
                check_place(end.key, path, last)
                last = (end.key, path.copy())
            self.ends.append(end)
            if self.close(end, path):
                return
        raise Refused("more nodes than a copy may have")

    def read_end(self, tag: int) -> Union[Leaf, Stub]:
        """A node without children, after its tag."""
        if tag == LEAF:
            key = self.take(KEY)
            value = self.take(int.from_bytes(self.take(4), "little"))
            return Leaf(key, value_hash(value), value)
        if tag == PRUNED_LEAF:
            return Leaf(self.take(KEY), self.take(HASH), None)
        if tag == STUB:
            return Stub(self.take(HASH))
        raise Refused("an unknown tag, or the empty trie below an inner node")

    def close(self, end: Union[Leaf, Stub], path: list[Open]) -> bool:
        """Puts a node into its place, and each inner node that it completes. True at the root."""
        node: Node = end
        hashed = end.hash if isinstance(end, Stub) else node_hash("leaf", end.key, end.value_hash)
        while path:
            parent = path[-1]
            if parent.left is None:
                parent.left = (node, hashed)
                return False
            left, left_hash = parent.left
            if isinstance(left, Stub) and isinstance(node, Stub):
                raise Refused("two stubs under one node")
            node, hashed = Inner(parent.bit, left, node), node_hash(f"inner {parent.bit}", left_hash, hashed)
            path.pop()
        if isinstance(node, Stub):
            raise Refused("a stub as the root")
        self.top, self.root = node, hashed
        return True

    def walk(self, key: bytes) -> Optional[Leaf]:
        """The leaf of a key, or None: proven absent (section 3.2)."""
        node = self.top
        while isinstance(node, Inner):
            node = node.right if bit_of(key, node.bit) else node.left
        if isinstance(node, Stub):
            raise Missing("the walk ends in a stub")
        return node if node is not None and node.key == key else None

    def get(self, key: bytes) -> Optional[bytes]:
        """The value of a key, or None: proven absent."""
        leaf = self.walk(key)
        if leaf is not None and leaf.value is None:
            raise Missing("the value is pruned")
        return leaf.value if leaf else None

    def value_hash(self, key: bytes) -> Optional[bytes]:
        """The hash of the value of a key, or None: proven absent."""
        leaf = self.walk(key)
        return leaf.value_hash if leaf else None

    def scan(self, low: bytes, high: Optional[bytes], limit: Optional[int]) -> list[tuple[bytes, bytes]]:
        """All entries from `low` on and below `high`, or the first `limit` of them (at least one)."""
        entries: list[tuple[bytes, bytes]] = []
        if high is not None and high <= low:
            return entries
        hidden = False  # a stub lies between the last leaf below `low`, or the left edge, and here
        for end in self.ends:
            if isinstance(end, Stub):
                hidden = True
            elif end.key < low:
                hidden = False
            elif hidden:
                break
            elif high is not None and end.key >= high:
                return entries
            elif end.value is None:
                raise Missing("a value is pruned")
            else:
                entries.append((end.key, end.value))
                if len(entries) == limit:
                    return entries
        if hidden:
            raise Missing("a stub lies in the range")
        return entries

    def last_before(self, key: bytes) -> Optional[bytes]:
        """The key of the last leaf below `key`; None when there is none."""
        last, hidden = None, False
        for end in self.ends:
            if isinstance(end, Stub):
                hidden = True
            elif end.key < key:
                last, hidden = end.key, False
            else:
                break
        if hidden:
            raise Missing("a stub lies before the key")
        return last


def check_place(key: bytes, path: list[Open], last: Optional[tuple[bytes, list[Open]]]) -> None:
    """Refuses a leaf that cannot be where it is."""
    if any(bit_of(key, above.bit) != (above.left is not None) for above in path):
        raise Refused("a leaf on the wrong side of a node above it")
    if last is not None:
        above_both = [mine for mine, its in zip(path, last[1]) if mine is its]
        if first_difference(last[0], key) != above_both[-1].bit:
            raise Refused("two leaves differ first in another bit than their node's")

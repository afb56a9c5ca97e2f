"""BLAKE3 in keyed and derive-key mode, 32 bytes of output, in plain Python.

Written from the BLAKE3 paper so that the oracle needs nothing but Python's own library. It is slow (some thousand
blocks a second) and takes no care of side channels: it hashes only what is public. The official test vectors are in
merkle/tests/vectors/blake3.json.
"""

import struct
from typing import Sequence

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
KEYED_HASH, DERIVE_KEY_CONTEXT, DERIVE_KEY_MATERIAL = 16, 32, 64
BLOCK, CHUNK = 64, 1024
MASK = 0xFFFFFFFF

Words = Sequence[int]


def compress(chaining: Words, block: bytes, counter: int, flags: int) -> list[int]:
    """The compression function; the eight words of the next chaining value."""
    words = list(struct.unpack("<16I", block.ljust(BLOCK, b"\0")))
    state = [*chaining, *IV[:4], counter & MASK, counter >> 32, len(block), flags]
    for _ in range(7):
        for number, (a, b, c, d) in enumerate(COLUMNS + DIAGONALS):
            at, bt, ct, dt = state[a], state[b], state[c], state[d]
            at = (at + bt + words[2 * number]) & MASK
            dt ^= at
            dt = dt >> 16 | dt << 16 & MASK
            ct = (ct + dt) & MASK
            bt ^= ct
            bt = bt >> 12 | bt << 20 & MASK
            at = (at + bt + words[2 * number + 1]) & MASK
            dt ^= at
            dt = dt >> 8 | dt << 24 & MASK
            ct = (ct + dt) & MASK
            bt ^= ct
            bt = bt >> 7 | bt << 25 & MASK
            state[a], state[b], state[c], state[d] = at, bt, ct, dt
        words = [words[index] for index in PERMUTATION]
    return [state[index] ^ state[index + 8] for index in range(8)]


def chaining_value(key: Words, data: bytes, counter: int, flags: int, root: int) -> list[int]:
    """The chaining value of the subtree over `data`, whose first chunk has number `counter`.

    `root` is ROOT for the whole input and 0 below it. As deep as the logarithm of the number of chunks.
    """
    if len(data) <= CHUNK:
        chaining = list(key)
        for start in range(0, max(len(data), 1), BLOCK):
            first = CHUNK_START if start == 0 else 0
            last = CHUNK_END | root if start + BLOCK >= len(data) else 0
            chaining = compress(chaining, data[start : start + BLOCK], counter, flags | first | last)
        return chaining
    # The left subtree has the largest power of two of whole chunks that leaves something for the right.
    left = 1 << ((len(data) - 1) // CHUNK).bit_length() - 1
    children = chaining_value(key, data[: left * CHUNK], counter, flags, 0)
    children += chaining_value(key, data[left * CHUNK :], counter + left, flags, 0)
    return compress(key, struct.pack("<16I", *children), 0, flags | PARENT | root)


def digest(key: Words, data: bytes, flags: int) -> bytes:
    """32 bytes of output over `data` in the mode of `flags`."""
    return struct.pack("<8I", *chaining_value(key, data, 0, flags, ROOT))


def keyed(key: bytes, data: bytes) -> bytes:
    """BLAKE3 in keyed mode; the key has 32 bytes."""
    return digest(struct.unpack("<8I", key), data, KEYED_HASH)


def derive(context: str, material: bytes = b"") -> bytes:
    """BLAKE3 in derive-key mode."""
    key = digest(IV, context.encode(), DERIVE_KEY_CONTEXT)
    return digest(struct.unpack("<8I", key), material, DERIVE_KEY_MATERIAL)

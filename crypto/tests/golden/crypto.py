#!/usr/bin/env python3
"""Computes crypto.txt: the vectors of docs/SPEC/crypto.md, from first principles.

Shares no code with the package: BLAKE3 (inputs of one chunk) and Ed25519 (RFC 8032) are spelled out
here, slowly and with no regard to side channels. Run as: python3 crypto.py | diff - crypto.txt
"""

import hashlib
import struct

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
COLUMNS_AND_DIAGONALS = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
CHUNK_START, CHUNK_END, ROOT, CONTEXT, MATERIAL = 1, 2, 8, 32, 64


def rotate(word, bits):
    return ((word >> bits) | (word << (32 - bits))) & 0xFFFFFFFF


def compress(chaining, block, flags):
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    state = chaining + IV[:4] + [0, 0, len(block), flags]
    for _ in range(7):
        for number, (a, b, c, d) in enumerate(COLUMNS_AND_DIAGONALS):
            for word, first, second in ((words[2 * number], 16, 12), (words[2 * number + 1], 8, 7)):
                state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
                state[d] = rotate(state[d] ^ state[a], first)
                state[c] = (state[c] + state[d]) & 0xFFFFFFFF
                state[b] = rotate(state[b] ^ state[c], second)
        words = [words[index] for index in PERMUTATION]
    return [state[index] ^ state[index + 8] for index in range(8)]


def blake3(data, key=None, mode=0):
    assert len(data) <= 1024, "one chunk only"
    blocks = [data[start:start + 64] for start in range(0, len(data), 64)] or [b""]
    chaining = list(key or IV)
    for number, block in enumerate(blocks):
        flags = mode | (CHUNK_START if number == 0 else 0)
        if number == len(blocks) - 1:
            flags |= CHUNK_END | ROOT
        chaining = compress(chaining, block, flags)
    return struct.pack("<8I", *chaining)


def derive(context, data):
    key = struct.unpack("<8I", blake3(context.encode(), mode=CONTEXT))
    return blake3(data, key, MATERIAL)


P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def even_x(y):
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square
    return P - x if x & 1 else x


BASE_Y = 4 * pow(5, -1, P) % P
BASE = (even_x(BASE_Y), BASE_Y)


def add(one, two):
    (x1, y1), (x2, y2) = one, two
    product = D * x1 * x2 * y1 * y2 % P
    return ((x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
            (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P)


def multiply(scalar, point):
    total = (0, 1)
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def compressed(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def sha512(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def expand(secret):
    digest = hashlib.sha512(secret).digest()
    scalar = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | 1 << 254
    return scalar, digest[32:]


def public(secret):
    return compressed(multiply(expand(secret)[0], BASE))


def sign(secret, message):
    scalar, prefix = expand(secret)
    nonce = sha512(prefix, message) % L
    r = compressed(multiply(nonce, BASE))
    challenge = sha512(r, public(secret), message) % L
    return r + ((nonce + challenge * scalar) % L).to_bytes(32, "little")


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def preimage(epoch, kind, view, height, digest):
    domain = b"quorate statement v1".ljust(32, b"\0")
    return domain + b"\x11" * 32 + u64(epoch) + bytes([kind]) + u64(view) + u64(height) + digest


def put(name, data):
    print(f"{name} = {data.hex()}")


ROLES = ["consensus", "transport", "blocks", "log note", "log cosignature", "principal", "session"]


def role_key(role, seed):
    return derive(f"quorate key v1 {role}", seed)


def keys_hash_and_statement():
    seed = bytes(range(32))
    put("seed", seed)
    for role in ROLES:
        secret = role_key(role, seed)
        put(f"secret.{role.replace(' ', '_')}", secret)
        put(f"public.{role.replace(' ', '_')}", public(secret))
    put("derive_hash", derive("quorate test vector", u64(3) + b"abc" + u64(0)))
    statement = preimage(0x0102030405060708, 3, 0x1112131415161718, 0x2122232425262728, b"\x22" * 32)
    put("statement.preimage", statement)
    put("statement.signature", sign(role_key("consensus", seed), statement))


def members_and_certificates():
    seeds = [bytes([index + 1]) * 32 for index in range(4)]
    members = u64(7) + u32(4)
    for index, seed in enumerate(seeds):
        address = f"replica-{index}.example:{4400 + index}".encode()
        members += b"".join(public(role_key(role, seed)) for role in ROLES[:5]) + u32(len(address)) + address
    put("members.encoding", members)
    put("members.digest", derive("quorate member set v1", u64(len(members)) + members))
    for name, kind, signers in (("prepare", 2, [0, 1, 2, 3]), ("commit", 3, [0, 2, 3])):
        vote = preimage(7, kind, 5, 9, b"\x33" * 32)
        certificate = bytes([kind]) + u64(7) + u64(5) + u64(9) + b"\x33" * 32
        certificate += u32(1) + bytes([sum(1 << index for index in signers)]) + u32(len(signers))
        certificate += b"".join(sign(role_key("consensus", seeds[index]), vote) for index in signers)
        put(f"certificate.{name}", certificate)


keys_hash_and_statement()
members_and_certificates()

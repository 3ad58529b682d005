"""A shuffle without a list: a keyed bijection of range(size), computed for any index on its own.

A shuffled index of a trillion tokens would have to be built and stored before the first step, and every rank would
need the same one. A Feistel network gives the shuffled position of one index directly, in constant memory. It works
on pairs (left, right) with moduli near √size, so that hardly any value falls outside range(size); one that does is
sent through again until it is inside (cycle walking). Source: Black & Rogaway, "Ciphers with Arbitrary Finite
Domains" (CT-RSA 2002), sections 4 and 5; the constants of the mixer are those of splitmix64 (Steele et al. 2014).
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from firstlight.tokens.draws import MASK_64, draw

MAX_SIZE = 2**62
ROUNDS = 8
ROUNDS_OF_SMALL_SIZES = 16  # halves of a few values each mix little per round; 8 rounds show a bias below size 10
SMALL_SIZE = 256

_CHUNK = 16384  # three buffers of this many uint64 stay in a second-level cache
_HALF = np.uint64(32)
_MULTIPLIER = np.uint64(0x94D049BB133111EB)


@overload
def permute(index: int, size: int, key: int) -> int: ...
@overload
def permute(index: NDArray[Any], size: int, key: int) -> NDArray[np.int64]: ...
def permute(index: int | NDArray[Any], size: int, key: int) -> int | NDArray[np.int64]:
    """Where the permutation of range(size) that `key` names sends `index` (an int, or an integer array of any shape).

    `size` is 1 to 2**62; `key` is any integer and counts modulo 2**64. For a fixed size and key this is a bijection
    of range(size). The result has the shape of `index`. Raises ValueError for a size or an index out of range.
    """
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"size {size} is not in 1 to 2**62")
    values = np.asarray(index)
    if values.size and (int(values.min()) < 0 or int(values.max()) >= size):
        raise ValueError(f"an index is not in range({size})")
    keys = _round_keys(key & MASK_64, ROUNDS if size >= SMALL_SIZE else ROUNDS_OF_SMALL_SIZES)
    flat = values.reshape(-1).astype(np.uint64)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        _network(chunk, size, keys)
        outside = np.flatnonzero(chunk >= size)
        while outside.size:
            walked = chunk[outside]
            _network(walked, size, keys)
            chunk[outside] = walked
            outside = outside[walked >= size]
    result = flat.view(np.int64).reshape(values.shape)
    return result if isinstance(index, np.ndarray) else int(result)


def place_before(value: int, size: int, key: int) -> int:
    """The index that `permute` sends to `value`: the same network, run backwards. Raises ValueError as `permute`."""
    if not 1 <= size <= MAX_SIZE or not 0 <= value < size:
        raise ValueError(f"{value} is not in range({size}), or {size} not in 1 to 2**62")
    keys = _round_keys(key & MASK_64, ROUNDS if size >= SMALL_SIZE else ROUNDS_OF_SMALL_SIZES)
    value = _network_back(value, size, keys)
    while value >= size:
        value = _network_back(value, size, keys)
    return value


def derive_key(*parts: int | str) -> int:
    """A 64-bit key from whole numbers and strings, the same in every process and on every machine.

    Different parts give unrelated keys: each is tagged with its type and length before it is hashed (BLAKE2b).
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = str(part).encode("utf-8", "surrogatepass")
        digest.update(b"%c%d:" % (b"s" if isinstance(part, str) else b"i", len(text)) + text)
    return int.from_bytes(digest.digest(), "little")


def _network(values: NDArray[np.uint64], size: int, keys: tuple[tuple[np.uint64, np.uint64], ...]) -> None:
    """One pass through the network, in place: a bijection of range(a × b), with size ≤ a × b < size + a."""
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    moduli = np.uint64(a), np.uint64(b)
    left = values // moduli[1]
    right = values - left * moduli[1]
    mixed = values  # the caller's buffer serves as scratch until the halves are joined
    for number, (offset, factor) in enumerate(keys):
        modulus = moduli[number % 2]
        np.bitwise_xor(right, offset, out=mixed)
        np.multiply(mixed, factor, out=mixed)
        mixed ^= mixed >> _HALF
        np.multiply(mixed, _MULTIPLIER, out=mixed)
        np.right_shift(mixed, _HALF, out=mixed)
        np.multiply(mixed, modulus, out=mixed)  # 32 random bits × modulus / 2**32: below the modulus, no division
        np.right_shift(mixed, _HALF, out=mixed)
        left += mixed
        np.subtract(left, modulus, out=mixed)
        np.minimum(left, mixed, out=left)  # modulo by wrap-around: left − modulus is huge when left is below it
        left, right = right, left
    np.multiply(left, moduli[1], out=values)
    values += right


def _network_back(value: int, size: int, keys: tuple[tuple[np.uint64, np.uint64], ...]) -> int:
    """What `_network` makes `value` of."""
    a = math.isqrt(size - 1) + 1
    moduli = a, -(-size // a)
    left, right = divmod(value, moduli[1])
    for number in reversed(range(len(keys))):
        left, right = right, left
        offset, factor = (int(word) for word in keys[number])
        mixed = (right ^ offset) * factor & MASK_64
        mixed = (mixed ^ (mixed >> 32)) * int(_MULTIPLIER) & MASK_64
        left = (left - ((mixed >> 32) * moduli[number % 2] >> 32)) % moduli[number % 2]
    return left * moduli[1] + right


@functools.lru_cache(maxsize=256)
def _round_keys(key: int, rounds: int) -> tuple[tuple[np.uint64, np.uint64], ...]:
    """An offset and an odd factor for each of an even number of rounds, from splitmix64 started at `key`."""
    words = draw(key, np.arange(2 * rounds))
    return tuple(zip(words[0::2], words[1::2] | np.uint64(1), strict=True))

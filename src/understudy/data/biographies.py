"""Synthetic knowledge of known size: names and their attributes' values, drawn from a seed."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from understudy.data.texts import Texts
from understudy.errors import UserError


@dataclass(frozen=True, kw_only=True)
class BioD:
    """bioD(N, K, C, D, L, T) (arXiv 2404.05405, definition 2.2), and N_0 names to draw from.

    names: N people, of N_0 = name_parts^2 names of two tokens. attributes: K. An attribute's value is
    `chunks` C strings, each of D that were drawn for that attribute from the T^L strings of L tokens.
    """

    names: int = 1000
    name_parts: int = 128
    attributes: int = 4
    chunks: int = 1
    diversity: int = 16
    length: int = 2
    tokens: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.names < self.name_parts**2:
            raise UserError(f"{self.names} of {self.name_parts**2} names: there have to be more")
        if not 1 <= self.diversity < self.tokens**self.length:
            raise UserError(
                f"{self.diversity} values of {self.tokens**self.length} strings: there have to be more"
            )

    @property
    def vocabulary(self) -> int:
        """Tokens: a start, names' parts, attributes, and what values are written with."""
        return 1 + self.name_parts + self.attributes + self.tokens

    @property
    def width(self) -> int:
        """Tokens of a biography, the start included."""
        return 3 + self.attributes * (1 + self.chunks * self.length)

    @property
    def bits(self) -> float:
        """What the set can hold: log2 of the number of such sets, in the limit of large N_0, T^L.

        N log2(N_0 / N) + N K C log2 D + K D log2(T^L / D).
        """
        names = self.names * math.log2(self.name_parts**2 / self.names)
        values = self.names * self.attributes * self.chunks * math.log2(self.diversity)
        strings = self.attributes * self.diversity
        return names + values + strings * math.log2(self.tokens**self.length / self.diversity)

    def drawn(self, seed: int) -> tuple[Tensor, Tensor]:
        """(names [N, 2], values [N, K, C L]) as token ids."""
        rng = np.random.default_rng(seed)
        people = rng.choice(self.name_parts**2, self.names, replace=False)
        names = 1 + np.stack((people // self.name_parts, people % self.name_parts), 1)
        first = 1 + self.name_parts + self.attributes
        values = np.zeros((self.names, self.attributes, self.chunks * self.length), dtype=np.int64)
        for a in range(self.attributes):
            codes = rng.choice(self.tokens**self.length, self.diversity, replace=False)
            strings = first + np.stack(
                [codes // self.tokens**i % self.tokens for i in range(self.length)], 1
            )
            which = rng.integers(self.diversity, size=(self.names, self.chunks))
            values[:, a] = strings[which].reshape(self.names, -1)
        return torch.from_numpy(names), torch.from_numpy(values)

    def texts(self, seed: int, *, orders: int = 1) -> Texts:
        """Each person `orders` times, attributes in another order: start, name, (attribute, value)*."""
        names, values = self.drawn(seed)
        rng = np.random.default_rng((seed, 1))
        rows = []
        for _ in range(orders):
            for n in range(self.names):
                row: list[int] = [0, *names[n].tolist()]
                for a in rng.permutation(self.attributes):
                    row += [1 + self.name_parts + int(a), *values[n, int(a)].tolist()]
                rows.append(row)
        return Texts(rows, name="biographies")

    def places(self) -> dict[str, Tensor]:
        """Which labels [width - 1] are of names, of values, and of values' first chunks."""
        kinds = {
            k: torch.zeros(self.width - 1, dtype=torch.bool) for k in ("name", "value", "first")
        }
        kinds["name"][:2] = True
        step = 1 + self.chunks * self.length
        for a in range(self.attributes):
            at = 3 + a * step
            kinds["value"][at : at + step - 1] = True
            kinds["first"][at : at + self.length] = True
        return kinds

    def bound(self, name: float, value: float, first: float) -> dict[str, float]:
        r"""Bits that a model holds at least (theorem 3.2), by part and in all; 0 at the least.

        name, value, first: p1, p2, p3, nats a name, a value, and a value's first chunk.

            N log2((N_0 - N) / e^p1) + N K log2(D^C / e^p2) + K D log2((T^L - D) / (D e^p3))
        """
        n, k, d = self.names, self.attributes, self.diversity
        e = math.log2(math.e)
        found = {
            "names": n * (math.log2(self.name_parts**2 - n) - name * e),
            "values": n * k * (self.chunks * math.log2(d) - value * e),
            "strings": k * d * (math.log2(self.tokens**self.length - d) - math.log2(d) - first * e),
        }
        return {**found, "bits": max(0.0, sum(found.values()))}

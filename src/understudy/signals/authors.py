"""Who wrote a text: marked in its sample number, so that an objective can tell.

Texts of the data keep their own numbers, which are not negative and key stored signals. A text that
a model wrote on the way has a negative one, which no store knows.
"""

from torch import Tensor

DATA, STUDENT, TEACHER, BOTH, CORPUS = range(5)
"""The data itself; the student that learns; the teacher; both, token by token; other text."""

NAMES = ("data", "student", "teacher", "both", "corpus")
_STRIDE = 8


def marked(index: Tensor, author: int) -> Tensor:
    """Sample numbers (not negative) with the author of the text in them."""
    return index if author == DATA else -(index * _STRIDE + author)


def authors(index: Tensor) -> Tensor:
    """The author of each text, by its sample number."""
    return ((-index) % _STRIDE).where(index < 0, 0)


def numbers(index: Tensor) -> Tensor:
    """The sample numbers in the data, without the author."""
    return ((-index) // _STRIDE).where(index < 0, index)

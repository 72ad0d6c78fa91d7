"""A sign's bitmap: capitals of three by five pixels, two lines of at most fifteen letters."""

import functools
import unicodedata

import numpy as np
from jaxtyping import Bool

LETTERS = 15
LINES = 2
# five rows of three pixels for each character, a digit a row: 4 is the left pixel, 2 the middle, 1 the right
GLYPHS = {
    "A": "25755", "B": "65656", "C": "34443", "D": "65556", "E": "74647", "F": "74644", "G": "34553", "H": "55755",
    "I": "72227", "J": "11152", "K": "55655", "L": "44447", "M": "57755", "N": "65555", "O": "25552", "P": "65644",
    "Q": "25573", "R": "65655", "S": "34216", "T": "72222", "U": "55557", "V": "55552", "W": "55775", "X": "55255",
    "Y": "55222", "Z": "71247", "0": "75557", "1": "26227", "2": "61247", "3": "61216", "4": "55711", "5": "74616",
    "6": "34757", "7": "71222", "8": "75757", "9": "75716", "'": "22000", "-": "00700", ".": "00002", "&": "25253",
}  # fmt: skip


def write_sign(name: str) -> tuple[str, ...]:
    """The lines of a sign: capitals without accents, broken between words.

    Examples:
        >>> write_sign("Sagrada Família"), write_sign("St Paul's Cathedral")
        (('SAGRADA FAMILIA',), ("ST PAUL'S", 'CATHEDRAL'))
    """
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss").replace("ø", "o")).upper()
    lines = [""]
    for word in "".join(c for c in plain if c in GLYPHS or c == " ").split():
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) <= LETTERS:
            lines[-1] = longer
        else:
            lines.append(word)
    return tuple(line[:LETTERS] for line in lines if line)[:LINES]


@functools.cache
def ink(name: str) -> Bool[np.ndarray, "height width"]:
    r"""Where a sign's letters are, with a margin of one pixel.

    Examples:
        >>> print("\n".join("".join(".#"[int(p)] for p in row) for row in ink("Fog")[1:-1]))
        .###..#...##.
        .#...#.#.#...
        .##..#.#.#.#.
        .#...#.#.#.#.
        .#....#...##.
    """
    lines = write_sign(name)
    sign = np.zeros((6 * len(lines) + 1, 4 * max(map(len, lines)) + 1), bool)
    for row, line in enumerate(lines):
        for column, letter in enumerate(line):
            for y, digit in enumerate(GLYPHS.get(letter, "00000")):
                for x in range(3):
                    sign[1 + 6 * row + y, 1 + 4 * column + x] = int(digit) >> (2 - x) & 1
    return sign

"""Words of any script, for what compares texts: Rouge-L, and the parsing of choices."""

import unicodedata

import regex

# Written without spaces between words: each character, with the marks on it, counts as a word.
SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
IN_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{SPACELESS}]]"
WORD = regex.compile(rf"[{SPACELESS}]\p{{M}}*|{IN_WORD}+", regex.V1)
# What NFKC would make plain digits of: 10⁵ is not 105, and ½ not the words 1 and 2.
NUMERALS = regex.compile(r"([⁰¹²³⁴-⁹¼-¾⅐-⅟↉]|(?<=\p{N})\p{No})")


def compatible(text: str) -> str:
    """Unicode's compatibility form (NFKC), except for superscript digits, fractions and such numerals after a digit."""
    return "".join(
        part if at % 2 else unicodedata.normalize("NFKC", part) for at, part in enumerate(NUMERALS.split(text))
    )


def folded(text: str) -> str:
    """Without case; a Turkish İ is an i."""
    return text.casefold().replace("i\N{COMBINING DOT ABOVE}", "i")


def words(text: str) -> list[str]:
    """Runs of letters, their marks and digits, case folded; of scripts without spaces, character by character."""
    return WORD.findall(folded(compatible(text)))

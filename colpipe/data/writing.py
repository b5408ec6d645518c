"""Words of any script, for what compares texts: Rouge-L, and the parsing of choices."""

import unicodedata

import regex

# Written without spaces between words: each character, with the marks on it, counts as a word.
SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(rf"[{SPACELESS}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{SPACELESS}]]+", regex.V1)


def words(text: str) -> list[str]:
    """Runs of letters, their marks and digits, case folded; of scripts without spaces, character by character."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())

"""Command lines without the credentials in them: masked with `*` at equal length in characters.

What is a credential: the value of an option, assignment or parameter whose name says so (`--token=…`, `--password …`,
`PGPASSWORD=…`, `?api_key=…`), also inside a word that is a command line, a header or JSON of its own
(`sh -c "curl -H 'X-Token: …'"`); user information in URLs; what looks like a bearer token, a JSON web token or a cloud
access key; and the one-letter options of programs that are known to take a password by one.

What it cannot know: a password that stands alone, or under a name that says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ebbflow.redaction.masks import ANYWHERE, SENSITIVE, SENSITIVE_PARAMETERS

_OPTION = re.compile(r"(-{0,2}[A-Za-z0-9_.-]+)(?:=(.*))?", re.DOTALL)
_SHAPES = re.compile(ANYWHERE.decode("ascii"))
# Of the last word when its end is not there: what may be the beginning of one of the shapes.
_CUT_SHAPES = re.compile(
    r"://([^/\s@]*)$|(?i:\b(?:bearer|basic|digest|negotiate))[ =]+(\S*)$|(eyJ[\w.-]*)$|\b((?:AKIA|ASIA)[A-Z0-9]*)$"
)
# Characters of a name that are looked at on either side of what makes it one of a credential.
_NAME = 48
# Where none of these and no sensitive name is in a command line, nothing in it is a credential.
_SHAPE_HINTS = ("://", "bearer", "basic", "digest", "negotiate", "eyj", "akia", "asia", "-u", "--proxy-user")
# user:password, where user and password are not both numbers (`docker run -u 1000:1000`).
_USER = re.compile(r"(?!\d+:\d+$)[^:/]*:(.+)", re.DOTALL)
_USER_OPTIONS = frozenset({"-u", "-U", "--user", "--proxy-user"})
# One-letter options with a password: letter to whether it may also stand in the next word.
_LETTERS: Mapping[str, tuple[str, bool]] = {
    **dict.fromkeys(("mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump", "mariadb-admin"), ("p", False)),
    **dict.fromkeys(("mongo", "mongosh", "mongodump", "mongorestore", "sshpass"), ("p", True)),
    "redis-cli": ("a", True),
    "ldapsearch": ("w", True),
    "ldapmodify": ("w", True),
}


class ArgumentMasker:
    """Masks the words of command lines.

    Args:
        names: further names of options, assignments, headers and parameters, beside the built-in ones.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        words = "|".join(re.escape(word).replace("\\-", "[-_]") for word in SENSITIVE)
        exact = "|".join([*map(re.escape, names), "(?!)"])
        # Without what may stand before the word: a pattern that begins anywhere in a name takes quadratic time.
        tail = rf"(?:(?:{words})[\w.-]{{0,{_NAME}}}|\b(?:{exact}))"
        quoted = "\"([^\"]*)\"?|'([^']*)'?"
        self._hints = tuple(
            word.lower() for word in (*SENSITIVE, *names, *(f"{name}=" for name in SENSITIVE_PARAMETERS), *_SHAPE_HINTS)
        )
        self._name = re.compile(rf"(?i)-{{0,2}}(?:[\w.-]*(?:{words})[\w.-]*|{exact})")
        self._patterns = (
            re.compile(rf"(?i){tail}[\"']?[ \t]*=[ \t]*(?:{quoted}|([^\s\"';&|]+))"),
            re.compile(
                rf"(?i)(?<![\w-])-{{1,2}}(?:[\w.-]{{0,{_NAME}}}(?:{words})[\w.-]{{0,{_NAME}}}|{exact})"
                rf"[ \t]+(?:{quoted}|([^\s\"';&|-][^\s\"';&|]*))"
            ),
            re.compile(rf"(?i){tail}[\"']?[ \t]*:(?:[ \t]*(?:{quoted})|[ \t]+([^\"'\n]+))"),
            re.compile(rf"(?i)[?&;](?:{'|'.join(SENSITIVE_PARAMETERS)}|{exact})=([^&;#\s\"']*)"),
            re.compile(r"(?<!\S)(?:-u|-U|--user|--proxy-user)[ =]+[\"']?[^:/\s]*:(?!\d+\b)([^\s\"';&|]+)"),
            _SHAPES,
        )

    def mask(self, argv: Sequence[str], *, cut: bool = False) -> list[str]:
        """The same number of words. `cut`: the last one ends before its end, or may."""
        letter, apart = _LETTERS.get(argv[0].rpartition("/")[2], ("", False)) if argv else ("", False)
        text = "\0".join(argv).lower()
        if not cut and not letter and not any(hint in text for hint in self._hints):
            return list(argv)
        masked: list[str] = []
        follows = ""
        for number, word in enumerate(argv):
            option = f"-{letter}" if letter else ""
            if follows and (follows in _USER_OPTIONS or not word.startswith("-")):
                masked.append(_user(word) if follows in _USER_OPTIONS else "*" * len(word))
                follows = ""
            elif number and option and word.startswith(option) and word != option:
                masked.append(option + "*" * (len(word) - len(option)))
            else:
                follows = word if word in _USER_OPTIONS or (apart and word == option) else self._follows(word)
                masked.append(self._word(word))
        if cut and masked:
            masked[-1] = _stars(_CUT_SHAPES, masked[-1])
        return masked

    def _follows(self, word: str) -> str:
        """The word, when it is an option whose value is the next one."""
        return word if word.startswith("-") and "=" not in word and self._name.fullmatch(word) else ""

    def _word(self, word: str) -> str:
        option = _OPTION.fullmatch(word)
        if option is not None and option[2] is not None and self._name.fullmatch(option[1]):
            return f"{option[1]}={'*' * len(option[2])}"
        if word.startswith("-u") and word[2:3] not in {"", "-", "="}:
            word = f"-u{_user(word[2:])}"
        for pattern in self._patterns:
            word = _stars(pattern, word)
        return word


def _user(word: str) -> str:
    """`user:password` with the password masked."""
    match = _USER.fullmatch(word)
    return word[: match.start(1)] + "*" * len(match[1]) if match else word


def _stars(pattern: re.Pattern[str], word: str) -> str:
    def star(match: re.Match[str]) -> str:
        whole = match[0]
        for group in range(1, pattern.groups + 1):
            if match[group] is not None:
                start, end = (place - match.start() for place in match.span(group))
                whole = whole[:start] + "*" * (end - start) + whole[end:]
        return whole

    return pattern.sub(star, word)


_DEFAULT = ArgumentMasker()


def mask_arguments(argv: Sequence[str]) -> list[str]:
    """A command line's words with credentials masked; see the module's docstring."""
    return _DEFAULT.mask(argv)

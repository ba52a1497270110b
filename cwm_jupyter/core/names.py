"""Names of windows and sessions, tags and ids: what is allowed, and when two are the same.

The rules are strict from the start, since a rule that is tightened later strands what was named
before. A name has to be fit for every place that it reaches: a file on any operating system, a
shell's and a magic's argument (where ``$``, ``%`` and braces expand), a URL, an Excel cell in an
exported list. ``@`` is kept for ``NAME@TURN``.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from typing import NoReturn

from cwm_jupyter.errors import ValidationError

__all__ = [
    "MAX_NAME_LENGTH",
    "check_id",
    "check_name",
    "check_tag",
    "check_unicode",
    "name_key",
    "new_id",
    "numbered",
]

#: Longest name, in characters.
MAX_NAME_LENGTH = 128
_MAX_NAME_BYTES = 200  # a file name has 255, and an extension and a suffix have to fit too
_MAX_TAG_LENGTH = 64

_ALLOWED = "Letters, digits, spaces and - _ . + = ( ) [ ] ! # ~ ^ are allowed, in any script."
_RESERVED_CHARACTERS = frozenset("/\\:*?\"'<>|@%$`;&{}")
# Separators, controls, formats, surrogates, private use, not assigned (in this Python's Unicode).
_REFUSED_CATEGORIES = frozenset({"Zl", "Zp", "Zs", "Cc", "Cf", "Cs", "Co", "Cn"})
# Letters and marks that show nothing: two names could look alike, or like none at all.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(
    chr(code)
    for first, last in ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
    for code in range(first, last + 1)
)
# Devices of Windows, with any extension; COM¹ is one as well, and NFKC makes it com1.
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin", "conout"}) | frozenset(
    f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)
)
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def check_name(name: str, what: str = "window") -> str:
    """Return `name` in the normal form NFC if it may name a window or session.

    Parameters
    ----------
    name
        As the user wrote it.
    what
        What it names, for the message.

    Raises
    ------
    ValidationError
        It may not: it is longer than `MAX_NAME_LENGTH` or than 200 bytes of UTF-8, or has what is
        refused; the message says which character at which position (from 1).
    """
    name = _check_text(name, f"{what} name", MAX_NAME_LENGTH)
    _check_ends(name, f"{what} name")
    device = unicodedata.normalize("NFKC", name).split(".")[0].rstrip().casefold()
    if device in _DEVICES:
        _refuse(f"{what} name", name, f"{device.upper()} is a device on Windows")
    return name


def check_tag(tag: str) -> str:
    """Return `tag` in NFC if it may be one: a name of up to 64 characters, no comma, no space.

    Raises
    ------
    ValidationError
        It may not be one.
    """
    tag = _check_text(tag, "tag", _MAX_TAG_LENGTH)
    for position, character in enumerate(tag, 1):
        if character in ", ":
            _refuse_character("tag", tag, position, character)
    _check_ends(tag, "tag")
    return tag


def check_unicode(text: str, what: str) -> str:
    """Return `text` if it can be written down: a note, a question, a system message.

    Raises
    ------
    ValidationError
        It has a half of a character (a lone surrogate), as bytes that are no UTF-8 become.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError(
            f"The {what} is no valid text: {_spelled(text[error.start])} at position "
            f"{error.start + 1}.",
            hint="It may have been read with another encoding than it was written in.",
        ) from None
    return text


def check_id(value: str, what: str = "window") -> str:
    """Return `value` if it has the form of an id, and so is safe as the name of a file.

    Raises
    ------
    ValidationError
        It has not.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value) or value in _DEVICES:
        raise ValidationError(
            f"Not the id of a {what}: {_shown(value)}.",
            hint="Ids are up to 64 lower-case ASCII letters, digits, - and _.",
        )
    return value


def new_id() -> str:
    """Return a fresh id: 16 hexadecimal digits of randomness."""
    return secrets.token_hex(8)


def name_key(name: str) -> str:
    """Return what names are compared by: two names of one key are the same name.

    Case, compatibility forms (full width, ligatures) and composition make no difference: they are
    too easily mixed up by people, and some file systems take them for equal.
    """
    if name.isascii():  # quick, and what most names are
        return name.casefold()
    # Folding can undo the normal form and the form can bring capitals: twice settles both.
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded).casefold()


def numbered(name: str, number: int) -> str:
    """Return an allowed name with a number after it, cut short where both would be too long."""
    suffix = f"-{number}"
    while len(name + suffix) > MAX_NAME_LENGTH or len((name + suffix).encode()) > _MAX_NAME_BYTES:
        name = name[:-1]
    return name + suffix


def _check_text(text: str, what: str, max_length: int) -> str:
    """Check what holds for names and tags: type, length, characters."""
    if not isinstance(text, str):
        raise ValidationError(f"A {what} is text, not {type(text).__name__}.")
    text = unicodedata.normalize("NFC", text)
    if not text:
        raise ValidationError(f"A {what} cannot be empty.", hint=_ALLOWED)
    if len(text) > max_length:
        _refuse(what, text, f"it has {len(text)} characters, and {max_length} are allowed")
    for position, character in enumerate(text, 1):
        refused = unicodedata.category(character) in _REFUSED_CATEGORIES and character != " "
        if refused or character in _RESERVED_CHARACTERS or character in _INVISIBLE:
            _refuse_character(what, text, position, character)
    size_bytes = len(text.encode())
    if size_bytes > _MAX_NAME_BYTES:
        _refuse(what, text, f"it has {size_bytes} bytes, and {_MAX_NAME_BYTES} are allowed")
    return text


def _check_ends(text: str, what: str) -> None:
    for position, refused in ((1, " .-~"), (len(text), " .")):
        character = text[position - 1]
        if character in refused:
            where = "begin" if position == 1 else "end"
            _refuse(what, text, f"it cannot {where} with {_spelled(character)}")


def _refuse_character(what: str, text: str, position: int, character: str) -> NoReturn:
    _refuse(what, text, f"{_spelled(character)} at position {position} is not allowed")


def _refuse(what: str, text: str, reason: str) -> NoReturn:
    raise ValidationError(f"Not a {what}: {_shown(text)}: {reason}.", hint=_ALLOWED)


def _spelled(character: str) -> str:
    """Name a character so that one can tell it apart from its likes."""
    if "!" <= character <= "~":
        return repr(character)
    name = unicodedata.name(character, "no name").lower()
    return f"U+{ord(character):04X} ({name})"


def _shown(value: object) -> str:
    """Return a short, printable form: `ascii` keeps what is invisible from the terminal."""
    text = str(value)
    text = text if len(text) <= 40 else text[:39] + "…"
    return repr(text) if text.isprintable() else ascii(text)

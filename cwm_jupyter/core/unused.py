"""A name for a session that is made of something else: of a window, or of another session."""

from __future__ import annotations

from cwm_jupyter.core.index import Index
from cwm_jupyter.core.names import check_name, numbered
from cwm_jupyter.errors import SessionExistsError

__all__ = ["require_unused", "unused_name"]


def unused_name(index: Index, like: str) -> str:
    """Return `like`, or with the first number after it under which there is no session."""
    name, number = like, 1
    while index.find_session(name) is not None:
        number += 1
        name = numbered(like, number)
    return name


def require_unused(index: Index, name: str) -> str:
    """Return a name that the user chose, in its normal form.

    Raises
    ------
    ValidationError
        It cannot be one.
    SessionExistsError
        There is a session of that name.
    """
    name = check_name(name, "session")
    if index.find_session(name) is not None:
        raise SessionExistsError(
            f"There is a session {name!r} already.",
            hint="Choose another name.",
            session=name,
        )
    return name

"""The panel: windows, the session and the family tree, to look at and to work with.

`panel` shows it. It is one widget (`cwm_jupyter.notebook.panel.widget`) over what it shows
(`state`) and what it does (`actions`); ``panel.js`` and ``panel.css`` draw it.
"""

from cwm_jupyter.notebook.panel.widget import Panel

__all__ = ["Panel", "panel"]


def panel() -> Panel:
    """Return a panel of this home's windows, for display in a notebook.

    It follows changes that are made elsewhere while it can be seen. Where there are no widgets it
    is a table.
    """
    return Panel()

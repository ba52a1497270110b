"""``%config CWM…`` and ``c.CWM…``: the settings as IPython's configuration shows and sets them.

The traits are a view: they hold nothing, so that what another front end changes is seen here too. A
setting's name has an underscore for its dot, as in ``%config CWM.limits_max_tokens = 256``.

They are made when IPython first asks for them. The schema is written in msgspec, which takes longer
to import than all of the extension, and most notebooks never say ``%config CWM``.
"""

from __future__ import annotations

import functools
import types
import weakref
from typing import TYPE_CHECKING, Any

from traitlets import HasTraits, TraitType
from traitlets.config import Configurable

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["CWM", "Setting"]

_without_traits: weakref.WeakSet[CWM] = weakref.WeakSet()


class CWM(Configurable):
    """Settings of cwm-jupyter; ``%cwm config`` says where each came from.

    Parameters
    ----------
    shell
        Its configuration is taken over, ``c.CWM``; what comes later is ``%config``'s.

    Raises
    ------
    ConfigError
        A setting in the configuration is wrong.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self.loaded = False
        _without_traits.add(self)
        if type(self).__name__ in shell.config:
            self.class_traits()
        super().__init__(parent=shell)
        self.loaded = True

    @classmethod
    def class_traits(cls, **metadata: Any) -> dict[str, TraitType[Any, Any]]:
        """Return the traits, and see to it that there are any."""
        if cls is not CWM:
            return super().class_traits(**metadata)
        full = _with_traits()
        while _without_traits:
            _without_traits.pop().__class__ = full
        return full.class_traits(**metadata)

    @classmethod
    def class_get_trait_help(
        cls, trait: TraitType[Any, Any], inst: HasTraits | None = None, helptext: str | None = None
    ) -> str:
        """Return the help on a setting."""
        from cwm_jupyter.config.checks import allowed
        from cwm_jupyter.config.reference import descriptions

        if isinstance(trait, Setting):
            helptext = f"{descriptions()[trait.setting]}. It must be {allowed(trait.setting)}."
        return super().class_get_trait_help(trait, inst, helptext)


class Setting(TraitType[Any, Any]):
    """A trait that reads and changes a setting of the process.

    Parameters
    ----------
    setting
        Its dotted name.
    """

    def __init__(self, setting: str) -> None:
        super().__init__()
        self.tag(config=True)
        self.setting = setting

    def get(self, obj: HasTraits, cls: type[Any] | None = None) -> Any:
        """Return the value that is in force; a secret is redacted."""
        from cwm_jupyter.config import get_settings
        from cwm_jupyter.config.checks import shown
        from cwm_jupyter.config.schema import value_of

        return shown(self.setting, value_of(get_settings(), self.setting))

    def set(self, obj: HasTraits, value: Any) -> None:
        """Change it, see `cwm_jupyter.changes.change`, which also says what this raises."""
        from cwm_jupyter import changes
        from cwm_jupyter.config.checks import Given

        # A command line's values (--CWM.limits_max_tokens=256) are text.
        from_text = isinstance(value, str)
        if getattr(obj, "loaded", False):
            changes.change({self.setting: Given(value, "%config", from_text)})
        else:
            changes.configure({self.setting: Given(value, "c.CWM", from_text)})


@functools.cache
def _with_traits() -> type[CWM]:
    """Return the class that has the traits; IPython names a configurable by its class."""
    from cwm_jupyter.config.schema import fields

    traits = {name.replace(".", "_"): Setting(name) for name in fields()}
    attributes = {"__doc__": CWM.__doc__, **traits}
    return types.new_class(CWM.__name__, (CWM,), exec_body=lambda body: body.update(attributes))

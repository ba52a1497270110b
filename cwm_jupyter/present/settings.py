"""How settings look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cwm_jupyter.config.reference import CHANGES
from cwm_jupyter.config.report import DEFAULT, SettingsReport, SettingView
from cwm_jupyter.layout import Block, Facts, Line, Table

__all__ = ["FORMS"]


def _settings(report: SettingsReport) -> list[Block]:
    if len(report.settings) == 1:
        shown = _one(report.settings[0])
    else:
        shown = [_table(report.settings), Line("* differs from the default", faint=True)]
    if report.written is not None:
        shown.append(Line(f"Written to {report.written}; what runs already keeps what it has."))
    elif len(report.settings) > 1:
        shown.append(Line(f"Files: {', '.join(report.files) or 'none'}", faint=True))
    if report.overridden_by is not None:
        shown.append(Line(f"It has no effect here: {report.overridden_by} wins.", loud=True))
    return shown


def _table(settings: list[SettingView]) -> Table:
    return Table(
        ("SETTING", "VALUE", "FROM", "MAY CHANGE"),
        [
            (
                f"{one.name}{'' if one.source == DEFAULT else ' *'}",
                _value(one.value),
                one.source,
                CHANGES[one.changes],
            )
            for one in settings
        ],
    )


def _one(setting: SettingView) -> list[Block]:
    return [
        Facts(
            [
                (setting.name, _value(setting.value)),
                ("from", setting.source),
                ("what it is", setting.help),
                ("must be", setting.allowed),
                ("may change", CHANGES[setting.changes]),
            ]
        )
    ]


def _value(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, list) else str(value)


#: by type, for `cwm_jupyter.present.blocks`
FORMS: dict[type, Callable[[Any], list[Block]]] = {SettingsReport: _settings}

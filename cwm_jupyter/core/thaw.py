"""Thaw: restore a window, or the state at the end of one of its turns, into a new session."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import msgspec
from anyio import to_thread

from cwm_jupyter.core.lifetime import renewed
from cwm_jupyter.core.models import ThawNote, ThawReport, Window, now
from cwm_jupyter.core.restore import Restoration, Restore

__all__ = ["Thaw"]

#: how many thaws a window remembers
_THAWS_NOTED = 5


@dataclass
class Thaw:
    """One thaw: a restoration, and the session that goes on from it."""

    restore: Restore

    async def run(
        self,
        session_name: str,
        *,
        recompute: bool = False,
        accept_engine: bool = False,
        accept_unknown: Collection[str] = (),
    ) -> ThawReport:
        """Restore the state into a new session and report what was measured.

        `session_name` is that of the new session, and free; where it fails there is none, and the
        window was kept. For all else see `cwm_jupyter.core.restore.Restore.run`.
        """
        restored = await self.restore.run(
            recompute=recompute, accept_engine=accept_engine, accept_unknown=accept_unknown
        )
        report = ThawReport(session=session_name, **msgspec.structs.asdict(restored.report))
        job = self.restore.job
        job.stage("session")
        await to_thread.run_sync(self._enter, restored, report)
        job.finish()
        return report.replace(stages_s=self._stages_s())

    def _stages_s(self) -> dict[str, float]:
        return {stage.name: stage.seconds for stage in self.restore.job.state.stages}

    def _enter(self, restored: Restoration, report: ThawReport) -> None:
        """Write the new session's transcript, then it and the window's use into the index."""
        window, library = self.restore.window, self.restore.parts.library
        note = ThawNote(
            at=now(),
            session=report.session,
            cached_tokens=report.cached_tokens,
            expected_cached_tokens=report.expected_cached_tokens,
            complete=report.complete,
            restore_s=report.restore_s,
            stages_s=self._stages_s(),
        )

        def used(window: Window) -> Window:
            window = window.replace(
                used_at=note.at,
                thaws=window.thaws + 1,
                last_thaws=[note, *window.last_thaws][:_THAWS_NOTED],
            )
            return renewed(window)

        library.add_session(
            self.restore.session(restored, report.session, "thawed", restored.transcript),
            restored.transcript,
            lambda transaction: transaction.update_window(window.id, used),
        )

"""The panel's widget: keeps what is shown up to date, and does what is clicked.

All work is done in the workspace's background loop, so that a cell never waits for a click. Nor
does a click for a cell where the front end speaks to widgets on a subshell, as JupyterLab 4.4 does
with ipykernel 7 after a panel's first click; elsewhere the kernel hears it when the cell has ended.
While the panel can be seen somewhere it looks once a second whether the index or the stack's state
has changed, at the times of two files; it stops when it is hidden, closed, or its page is gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anyio
import anywidget
import traitlets

from cwm_jupyter.core.job import Job, JobState
from cwm_jupyter.core.query import Query
from cwm_jupyter.current import shared
from cwm_jupyter.errors import CancelledJobError, CWMError
from cwm_jupyter.notebook.panel import state
from cwm_jupyter.notebook.panel.actions import ACTIONS, LONG
from cwm_jupyter.present import html, text
from cwm_jupyter.workspace import Workspace, get_workspace

__all__ = ["Panel"]

_LOG = logging.getLogger(__name__)
_HERE = Path(__file__).parent
_LOOK_S = 1.0
#: progress is shown at most so often
_PROGRESS_S = 0.1


class Panel(anywidget.AnyWidget):
    """The windows as a table, the session with a gauge, the family tree; see `panel`."""

    # As text: of a path, anywidget watches the file, and keeps every panel for its sake.
    _esm = (_HERE / "panel.js").read_text(encoding="utf-8")
    _css = (_HERE / "panel.css").read_text(encoding="utf-8")

    listing: Any = traitlets.Dict().tag(sync=True)
    session: Any = traitlets.Dict(default_value=None, allow_none=True).tag(sync=True)
    family: Any = traitlets.Dict().tag(sync=True)
    stack: Any = traitlets.Dict().tag(sync=True)
    job: Any = traitlets.Dict(default_value=None, allow_none=True).tag(sync=True)
    notice: Any = traitlets.Dict(default_value=None, allow_none=True).tag(sync=True)

    def __init__(self, workspace: Workspace | None = None) -> None:
        self._workspace = workspace or get_workspace()
        self._lock = threading.Lock()
        self._views: set[str] = set()
        self._following: Future[None] | None = None
        self._working: Future[None] | None = None
        self._running: Job | None = None
        self._query = Query(limit=state.PAGE)
        self._chosen: str | None = None
        self._last_progress = 0.0
        super().__init__()
        self._workspace.run(self._refresh)
        self.on_msg(self._heard)
        if self.comm is not None:  # as it is outside a kernel
            self.comm.on_close(lambda _message: self.close())

    # What is shown

    async def _refresh(self) -> None:
        manager = self._workspace.manager
        self.stack = await state.stack(manager)
        await self._refresh_listing()
        self.session = await state.session(manager, shared.name)
        await self._refresh_family()

    async def _refresh_listing(self) -> None:
        query = self._query
        found = await state.listing(self._workspace.manager, query)
        if query is self._query:  # or others were asked for meanwhile
            self.listing = found

    async def _refresh_family(self) -> None:
        chosen = self._chosen
        found = await state.family(self._workspace.manager, chosen)
        if chosen == self._chosen:
            self.family = found

    def _signature(self) -> tuple[object, ...]:
        """What changes when something has changed."""
        settings = self._workspace.settings
        paths = [self._workspace.library.index.path, *sorted(settings.run_dir.glob("*.json"))]
        times: list[object] = [shared.name]
        for path in paths:
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            times.append((path.name, found.st_mtime_ns, found.st_size))
        return tuple(times)

    async def _follow(self) -> None:
        seen: tuple[object, ...] = ()
        failed = ""
        while True:
            try:
                now = await anyio.to_thread.run_sync(self._signature)
                failed = ""
                if now != seen:
                    seen = now
                    await self._refreshed()
            except Exception as error:
                if repr(error) != failed:  # told once, not every second
                    failed = repr(error)
                    self._failed("Looking for changes", error)
            await anyio.sleep(_LOOK_S)

    def _see(self, view: str, *, visible: bool) -> None:
        """Note that a view can be seen or not, and follow changes while one can."""
        with self._lock:
            (self._views.add if visible else self._views.discard)(view)
            if self._views and self._following is None:
                self._following = self._workspace.start(self._follow)
            elif not self._views:
                self._stop_following()

    def _stop_following(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None

    # What is done

    def _heard(self, _widget: object, message: Mapping[str, Any], _buffers: object) -> None:
        do = message.get("do")
        if do in ("open", "hide"):
            self._see(str(message.get("view")), visible=do == "open")
        elif do == "cancel":
            self._cancel()
        elif do == "look":
            self._look(message)
        elif do in ACTIONS:
            self._start(str(do), message)

    def _look(self, message: Mapping[str, Any]) -> None:
        """Show other windows, or another family."""
        try:
            self._query = Query(
                text=str(message.get("text") or "") or None,
                sort=str(message.get("sort") or "-created"),
                tags=[str(message["tag"])] if message.get("tag") else [],
                state=str(message.get("state") or "") or None,
                offset=int(message.get("offset") or 0),
                limit=state.PAGE,
            )
        except (CWMError, ValueError) as error:
            self._tell(error)
            return
        self._workspace.start(self._refreshed, self._refresh_listing)
        chosen = str(message["window"]) if message.get("window") else None
        if chosen != self._chosen:
            self._chosen = chosen
            self._workspace.start(self._refreshed, self._refresh_family)

    async def _refreshed(self, refresh: Callable[[], Awaitable[None]] | None = None) -> None:
        """Show what has changed, all of it or what `refresh` shows; an error is told."""
        try:
            await (refresh or self._refresh)()
        except CWMError as error:
            self._tell(error)
        except Exception as error:
            self._failed("Showing the windows", error)

    def _start(self, do: str, message: Mapping[str, Any]) -> None:
        with self._lock:
            if self._running is not None and self._working is not None and not self._working.done():
                self.notice = {"kind": "error", "text": "Something is being done already.", "n": 0}
                return
            self._running = Job(do, self._watch)
            self._working = self._workspace.start(self._work, do, dict(message), self._running)

    async def _work(self, do: str, message: Mapping[str, Any], job: Job) -> None:
        if do in LONG:
            self._show(job.state)
        try:
            said = await ACTIONS[do](self._workspace.manager, shared, message, job)
        except CancelledJobError:
            self._say("done", "Cancelled: everything is as it was.")
        except (CWMError, ValueError, KeyError, OSError) as error:
            self._tell(error)
        except anyio.get_cancelled_exc_class():
            self._say("done", "Cancelled: everything is as it was.")
            raise
        except Exception as error:
            self._failed(do, error)
        else:
            undo = message.get("window") if do == "delete" else None
            self._say("done", said, undo=undo)
        finally:
            self._running = None  # what is shown anew below is no reason to refuse a click
            self.job = None
            with anyio.CancelScope(shield=True):
                await self._refreshed()

    def _cancel(self) -> None:
        with self._lock:
            if self._running is not None and self._working is not None:
                self._running.cancel()
                self._working.cancel()

    def _watch(self, job: JobState) -> None:
        now = time.monotonic()
        if job.stage and now - self._last_progress >= _PROGRESS_S:
            self._last_progress = now
            self._show(job)

    def _show(self, job: JobState) -> None:
        self.job = {
            "what": job.what,
            "stage": job.stage,
            "done": job.done,
            "total": job.total,
            "unit": job.unit,
        }

    def _tell(self, error: BaseException) -> None:
        self._say("error", text(error) if isinstance(error, CWMError) else str(error))

    def _failed(self, what: str, error: Exception) -> None:
        """Log what nobody expected, and tell the user: nobody asks for the work's result."""
        _LOG.error("%s failed", what, exc_info=error)
        self._say("error", f"{what} failed: {type(error).__name__}: {error}")

    def _say(self, kind: str, said: str, *, undo: object = None) -> None:
        if said:
            self.notice = {"kind": kind, "text": said, "undo": undo, "n": time.monotonic_ns()}

    # Where there are no widgets, and the end

    def _page(self) -> Any:
        """Return the windows as a table; where there are none at all, how one is made."""
        page = self._workspace.run(self._workspace.manager.windows, self._query)
        if page.total or self._query != Query(limit=state.PAGE):
            return page
        return "No windows yet. Talk with %%cwm, then %freeze NAME keeps the conversation's state."

    def __repr__(self) -> str:
        return text(self._page())

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**options)
        if bundle is not None:
            page = self._page()
            bundle[0]["text/plain"], bundle[0]["text/html"] = text(page), html(page)
        return bundle

    def close(self) -> None:
        """Stop following and what is being done, and close the widget's comms."""
        with self._lock:
            self._views.clear()
            self._stop_following()
        self._cancel()
        self.layout.close()  # which is a widget, with a comm, of its own
        super().close()

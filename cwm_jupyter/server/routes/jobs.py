"""Jobs and events: how clients follow what takes long, and hear of what has changed."""

from __future__ import annotations

from cwm_jupyter.server.answers import JobListing
from cwm_jupyter.server.jobs import JobView
from cwm_jupyter.server.operation import Asked, Operation, Stream

__all__ = ["OPERATIONS"]


async def listing(asked: Asked) -> JobListing:
    """List the jobs that are kept, the newest first."""
    return JobListing(items=asked.service.jobs.all())


async def one(asked: Asked) -> JobView:
    """Return a job: how far it is, its report, or the error in which it ended."""
    return asked.service.jobs.get(asked.path["id"])


async def cancel(asked: Asked) -> JobView:
    """Ask a job to stop; it does at its next step, and everything is as it was before."""
    return asked.service.jobs.cancel(asked.path["id"])


async def events(asked: Asked) -> Stream:
    """Listen: Server-Sent Events of jobs, of the index's generation, and of the figures."""
    await asked.service.workspace()
    subscription = asked.service.hub.subscribe()
    asked.service.history.watch()
    return Stream(subscription.events(), subscription.close, "text/event-stream")


OPERATIONS = (
    Operation("GET", "jobs", "cwm-jobs", listing, JobListing),
    Operation("GET", "jobs/{id}", "cwm-jobs", one, JobView),
    Operation("DELETE", "jobs/{id}", "cwm-jobs", cancel, JobView),
    Operation("GET", "events", "cwm-events", events, None, content_type="text/event-stream"),
)

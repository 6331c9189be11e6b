"""What administrators ask of the instance, answered by the supervisor."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
import structlog

from atomserve import control
from atomserve.errors import AtomError, Internal, ModelNotFound, NotSupported
from atomserve.supervisor.children import Child
from atomserve.supervisor.resources import Resources
from atomserve.supervisor.workers import WorkerGroup
from atomserve.telemetry.resources import Outcome, ResourceList

log = structlog.get_logger("atomserve.supervisor")


class Administration:
    """Does what an API process passes on from its administrators, and answers it."""

    def __init__(self, groups: Sequence[WorkerGroup]) -> None:
        self._groups = groups

    async def answer(self, child: Child, asked: control.Administration, files: list[int]) -> None:
        """Do what is ``asked``, with the ``files`` that came along, and tell ``child``."""
        try:
            document = await self._do(asked, files)
        except AtomError as exc:
            told = control.Told(asked.number, code=exc.code, detail=str(exc))
        except Exception:  # an order must not end whoever keeps all others alive
            log.exception("administration.failed")
            told = control.Told(asked.number, code=Internal.code, detail=Internal().title)
        else:
            told = control.Told(asked.number, msgspec.Raw(msgspec.json.encode(document)))
        finally:
            for fd in files:
                os.close(fd)
        child.post(told)

    async def _do(self, asked: control.Administration, files: list[int]) -> Outcome | ResourceList:
        match asked:
            case control.LoadResource(_, model):
                resources = self._of(model)
                return await resources.load(asked, files.pop())
            case control.UnloadResource(_, model):
                return await self._of(model).unload(asked)
        return ResourceList(
            {
                group.standing.model: group.resources.listed()
                for group in self._groups
                if group.standing.model and group.takes_resources
            }
        )

    def _of(self, model: str) -> Resources:
        for group in self._groups:
            if group.standing.model == model:
                if not group.takes_resources:
                    raise NotSupported(
                        f"{model} loads no resources: its wrapper has no method for it"
                    )
                return group.resources
        raise ModelNotFound(f"no model {model} is served by workers")

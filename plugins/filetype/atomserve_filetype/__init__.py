"""Say what kind of file some bytes are, several requests in one run of the model."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import msgspec

from atomserve import Blob, Example, Wrapper
from atomserve_filetype.files import as_file
from atomserve_filetype.samples import JSON, PDF, PICTURE, PYTHON

if TYPE_CHECKING:
    from atomserve_filetype.engine import Engine

__all__ = ["Answer", "FileType", "FileTypeConfig"]


class FileTypeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator may set for this model."""

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    """CPU threads for one batch."""


class Answer(msgspec.Struct, frozen=True):
    """What kind of file it is; `label` is `txt` or `unknown` where the model was too unsure."""

    label: str
    mime_type: str
    group: str
    description: str
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    is_text: bool


def golden(data: bytes, answer: Answer) -> Example:
    """Promise ``answer`` for ``data``, whose score may differ a little between processors."""
    return Example(name=answer.label, inputs={"input": data}, output=answer, tolerance=0.1)


class FileType(Wrapper):
    """Say what kind of file some bytes are: its name, media type and group."""

    # Each request of a batch takes 6 MB of memory for good, and larger batches are no faster.
    max_batch_size = 8
    max_batch_delay = 0.002
    examples = (
        golden(PICTURE, Answer("png", "image/png", "image", "PNG image", 1.0, False)),
        golden(PYTHON, Answer("python", "text/x-python", "code", "Python source", 1.0, True)),
        golden(JSON, Answer("json", "application/json", "code", "JSON document", 0.9, True)),
        golden(PDF, Answer("pdf", "application/pdf", "document", "PDF document", 1.0, False)),
    )
    _engine: "Engine"

    def load(self, config: FileTypeConfig) -> None:
        """Open the model that magika's wheel contains."""
        from atomserve_filetype.engine import Engine

        self._engine = Engine(config.threads)

    def predict_batch(self, requests: list[Blob]) -> list[Answer]:
        """Look at both ends of each file, and name its kind."""
        with ExitStack() as files:
            paths = [files.enter_context(as_file(blob)) for blob in requests]
            found = self._engine.identify_paths(paths)
        return [
            Answer(
                label=str(each.output.label),
                mime_type=each.output.mime_type,
                group=each.output.group,
                description=each.output.description,
                score=min(each.score, 1.0),
                is_text=each.output.is_text,
            )
            for each in found
        ]

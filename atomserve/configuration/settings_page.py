"""The documentation page of all settings, written from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from atomserve.configuration.catalogue import catalogue, dotted

_INTRODUCTION = """\
# Settings

A setting comes from the strongest place that names it: the command line, then the environment,
then the settings file, then the plugin's own default, then the default below. The file is the one
given by `--config` or `ATOMSERVE_CONFIG`, or `atomserve.toml` in the current folder.
`atomserve config` prints every value with its origin.

- Durations and sizes are written with their unit, `"250ms"` or `"64MiB"`; plain numbers are
  seconds and bytes. `KB`, `MB`, `GB` count in thousands, `KiB`, `MiB`, `GiB` in 1024s.
- In the environment, names are not case-sensitive, lists are separated by commas, a table is a
  JSON object, and a model's name has `_` for `-` and `.`: `ATOMSERVE_MODELS__MY_MODEL__SLOTS`.
  `..._CONFIG__LANG` says only `lang` of that table, in lower case, and `..._ENV__OMP_NUM_THREADS`
  one variable; the rest stays as it is. What stands there is text, which becomes a number where
  the plugin wants one, or a JSON array or object.
- `NAME` is a model's name, `[models.NAME]` its table in the file. There, `plugin = "ocr"` serves
  the plugin `ocr` under that name: one plugin under several names, with different settings.
- The variables that Kubernetes sets for a service called `atomserve` (`ATOMSERVE_PORT=tcp://...`
  and the like) are not settings and are passed over.
- linker_atom's variables are read, too. They are weaker than `ATOMSERVE_...`, so that what was
  written for this server wins, and stronger than the file, which a deployment may not be able to
  change. Empty ones say nothing. `META.servingHost` below is that key of the JSON object in `META`;
  a META that is none ends the start. The control plane runs on `HOST_NODE_NAME`, or on the own
  host, if META has no `servingHost`, but nothing registers by itself then. `META.modelIds` is left
  to the hosted service, and `ATOM_INNER_START_PORT` has no meaning any more: no port is opened
  but `port`.

| setting | flag | environment | takes | default | meaning |
|---|---|---|---|---|---|
"""


def settings_table() -> str:
    """Return the page of all settings, in Markdown."""
    rows = (
        (
            _code([dotted(setting.key)]),
            _code(setting.flags),
            _code(setting.variables),
            setting.form,
            "" if setting.default is None else _code([setting.show(setting.default)]),
            setting.description,
        )
        for setting in catalogue().values()
    )
    return _INTRODUCTION + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)

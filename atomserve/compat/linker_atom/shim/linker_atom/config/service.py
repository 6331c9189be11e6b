"""The settings of a service as one document."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from atomserve.compat.linker_atom.shim.linker_atom.config.logger import (
    LoggerConfig,
    read_logger_config,
)
from atomserve.compat.linker_atom.shim.linker_atom.config.serving import (
    ServingConfig,
    read_serving_config,
)
from atomserve.compat.linker_atom.shim.linker_atom.config.skywalking import (
    SkyWalkingConfig,
    read_skywalking_config,
)
from atomserve.compat.linker_atom.variables import (
    ALLOWED_PROFILING,
    LOGGED_PARAMETERS,
    Variables,
)
from atomserve.configuration.linker_environment import HEALTH_PATH


class Settings(BaseModel):
    """What the deployment says, under the names that services know."""

    model_config = ConfigDict(protected_namespaces=())

    atom_workers: int = 1
    atom_port: int = 8000
    atom_inner_start_port: int = 9000
    atom_title: str = "Atom"
    atom_description: str = "Atom"
    atom_api_prefix: str = ""
    log_config: LoggerConfig = LoggerConfig()
    sw_config: SkyWalkingConfig = SkyWalkingConfig()
    serving_meta_raw: str = ""
    host_node_name: str = ""
    docs_switch: bool = True
    profiling: bool = False
    profiling_on_request: bool = False
    """Whether `?PROFILING=1` has a request profiled, too: the operator's decision."""
    log_parameters: bool = True
    """Whether each request's headers and parameters are logged."""

    @property
    def serving_config(self) -> ServingConfig:
        """What META says, its defaults without one."""
        return read_serving_config(self.serving_meta_raw, self.host_node_name)

    @property
    def model_id_list(self) -> list[str]:
        """The models to load at the start."""
        names = (name.strip() for name in self.serving_config.model_ids.split(","))
        return [name for name in names if name]

    @property
    def healthcheck_url(self) -> str:
        """The path of the health route: META's word for word, else the usual below the prefix."""
        given = self.serving_config.atom_healthcheck_url if self.serving_meta_raw else ""
        return given or self.atom_api_prefix + HEALTH_PATH


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings of a service; raises `ConfigError` with one line for what is wrong."""
    variables, telemetry = Variables(environ), Variables(environ, lenient=True)
    settings = Settings(
        atom_workers=variables.number("ATOM_WORKERS", 1, least=1),
        atom_port=variables.number("ATOM_PORT", 8000, most=65_535),
        atom_inner_start_port=variables.number("ATOM_INNER_START_PORT", 9000, most=65_535),
        atom_title=variables.text("ATOM_TITLE", "Atom"),
        atom_description=variables.text("ATOM_DESC", "Atom"),
        atom_api_prefix=variables.text("ATOM_API_PREFIX"),
        log_config=read_logger_config(telemetry),
        sw_config=read_skywalking_config(telemetry),
        serving_meta_raw=variables.text("META"),
        host_node_name=variables.text("HOST_NODE_NAME"),
        docs_switch=variables.flag("DOCS_SWITCH", True),
        profiling=variables.flag("PROFILING", False),
        profiling_on_request=variables.flag(ALLOWED_PROFILING, False),
        log_parameters=variables.flag(LOGGED_PARAMETERS, True),
    )
    _ = settings.serving_config  # a malformed META ends the start, not the first request
    return settings

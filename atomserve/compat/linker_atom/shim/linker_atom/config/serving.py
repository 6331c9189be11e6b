"""What the control plane has handed down, under the names that services know."""

import socket

from pydantic import BaseModel, ConfigDict, Field

from atomserve.configuration.linker_environment import HEALTH_PATH, read_meta


class ServingConfig(BaseModel):
    """META, and HOST_NODE_NAME beside it."""

    model_config = ConfigDict(populate_by_name=True, protected_namespaces=())

    serving_host: str = Field(default="", alias="servingHost")
    serving_port: int = Field(default=80, alias="servingPort")
    ability_code: str = Field(default="", alias="abilityCode")
    ability_code_instance: str = Field(default="", alias="abilityCodeInstance")
    ability_depend_atom_codes: list[str] = Field(default=[], alias="abilityDependAtomCodes")
    atom_code: str = Field(default="", alias="atomCode")
    model_ids: str = Field(default="", alias="modelIds")
    svc_address: str = Field(default="", alias="svcAddress")
    atom_process_url: str = Field(default="/atom/process", alias="atomProcessUrl")
    atom_healthcheck_url: str = Field(default=HEALTH_PATH, alias="k8sHealthcheckUrl")
    host_node_name: str = ""

    @property
    def serving_domain(self) -> str:
        """The control plane's base URL."""
        host = self.serving_host or self.host_node_name or socket.gethostname()
        return f"http://{host}:{self.serving_port}"

    @property
    def atom_uri(self) -> str:
        """Where the control plane reaches this service."""
        return f"{self.svc_address}{self.atom_process_url}"


def read_serving_config(raw: str, host_node_name: str) -> ServingConfig:
    """Read META, the JSON text ``raw``; raises `ConfigError` with one line."""
    if not raw:
        return ServingConfig(host_node_name=host_node_name)
    meta = read_meta(raw)
    given = {name: getattr(meta, name) for name in meta.__struct_fields__}
    return ServingConfig(**given, host_node_name=host_node_name)

"""What a service is told of SkyWalking; the agent is started by the server."""

import uuid

from pydantic import BaseModel

from atomserve.compat.linker_atom.variables import Variables


class SkyWalkingConfig(BaseModel):
    """Whether traces go to SkyWalking, and under which names."""

    sw_switch: bool = False
    sw_agent_backend: str = ""
    sw_agent_name: str = ""
    sw_agent_instance_name: str = ""
    sw_agent_log_reporter_active: bool = True
    sw_agent_log_reporter_level: str = "DEBUG"


def read_skywalking_config(variables: Variables) -> SkyWalkingConfig:
    """Read the SW_* variables; an instance without a name gets one by chance."""
    return SkyWalkingConfig(
        sw_switch=variables.flag("SW_SWITCH", False),
        sw_agent_backend=variables.text("SW_AGENT_COLLECTOR_BACKEND_SERVICES"),
        sw_agent_name=variables.text("SW_AGENT_NAME"),
        sw_agent_instance_name=variables.text("SW_AGENT_INSTANCE_NAME", uuid.uuid4().hex),
        sw_agent_log_reporter_active=variables.flag("SW_AGENT_LOG_REPORTER_ACTIVE", True),
        sw_agent_log_reporter_level=variables.text("SW_AGENT_LOG_REPORTER_LEVEL", "DEBUG"),
    )

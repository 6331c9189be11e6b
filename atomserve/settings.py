"""What the operator decided: decoded once, frozen, each setting described by its annotation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from atomserve.units import Bytes, Rate, Seconds, Timeout

MiB = 1024 * 1024

MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z"

Count = Annotated[int, Meta(ge=1)]
CrashLimit = Annotated[
    str,
    Meta(
        pattern=r"^[1-9][0-9]{0,5}/([1-9][0-9]{0,5}(s|m|h|d))\Z",
        extra={"form": "number per duration (5/60s)"},
    ),
]
Quota = Annotated[
    str,
    Meta(
        pattern=r"^[1-9][0-9]{0,8}/(s|m|h|d)\Z",
        extra={"form": "number per unit of time (100/s, 5000/h)"},
    ),
]
Positive = Annotated[float, Meta(gt=0, extra={"form": "number, more than 0"})]
HeaderName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z", extra={"form": "name of a header (X-Tenant)"}),
]
FileName = Annotated[
    str, Meta(pattern=r"^[^/\x00-\x1f]{1,100}\Z", extra={"form": "part of a file's name"})
]
Executor = Literal["process", "thread"]
ModelName = Annotated[str, Meta(pattern=MODEL_NAME)]
NotEmpty = Annotated[str, Meta(min_length=1)]
Origin = Annotated[
    str,
    Meta(
        pattern=r"^(\*|null|[a-z][a-z0-9+.-]*://[^/\s]+)\Z",
        extra={"form": "origin (https://example.org, or *)"},
    ),
]
AdminAddress = Annotated[
    str,
    Meta(
        pattern=r"^(unix:.+|[^\s/]+:[0-9]{1,5})\Z",
        extra={"form": "unix:PATH or HOST:PORT"},
    ),
]
Prefix = Annotated[
    str,
    Meta(
        pattern=r"^(/[A-Za-z0-9._~-]+)*\Z",
        extra={"form": "path that begins with / and does not end with one"},
    ),
]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what one client, and all clients together, may make the server hold."""

    body: Annotated[Bytes, Meta(description="Largest request body.")] = 64 * MiB
    bodies_in_flight: Annotated[
        Bytes, Meta(description="All request bodies held at once, together.")
    ] = 512 * MiB
    headers: Annotated[Count, Meta(description="Most header fields of a request.")] = 100
    header_bytes: Annotated[
        Bytes, Meta(description="All header fields of a request, names and values together.")
    ] = 32 * 1024
    min_rate: Annotated[
        Rate, Meta(description="Slowest body that is waited for, after `limits.min_rate_grace`.")
    ] = 1024
    min_rate_grace: Annotated[
        Seconds, Meta(description="How long a body may be slower than `limits.min_rate`.")
    ] = 10.0
    chunks: Annotated[Count, Meta(description="Most pieces that a body may arrive in.")] = 65_536
    send_stall: Annotated[
        Timeout, Meta(description="How long a client may take nothing of what is sent to it.")
    ] = 30.0


class Cors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which web pages of other origins may call; nobody unless origins are listed."""

    origins: Annotated[
        tuple[Origin, ...], Meta(description="Origins whose pages may call; `*` is any of them.")
    ] = ()
    methods: Annotated[
        tuple[NotEmpty, ...], Meta(description="Methods that those pages may use.")
    ] = ("GET", "POST", "OPTIONS")
    headers: Annotated[
        tuple[NotEmpty, ...], Meta(description="Request headers that those pages may send.")
    ] = ("*",)
    credentials: Annotated[
        bool, Meta(description="Whether those pages may send cookies and credentials.")
    ] = False
    max_age: Annotated[
        int, Meta(ge=0, description="Seconds for which a browser may keep a preflight's answer.")
    ] = 600


class AigesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How AIGES wrappers are served, and how their clients are spoken to."""

    text: Annotated[
        Literal["raw", "base64", "gateway"] | None,
        Meta(
            description="How text is written in Athena answers; unset is raw over HTTP and base64 "
            "over WebSockets. `gateway` is base64, but JSON where the client asks for it."
        ),
    ] = None
    text_in: Annotated[
        Literal["base64", "raw"], Meta(description="How Athena clients write text.")
    ] = "base64"
    strict_accepts: Annotated[
        bool, Meta(description="Whether Athena clients get only the outputs that they name.")
    ] = False
    statuses: Annotated[
        Literal["compatible", "native"],
        Meta(
            description="Whether Athena failures have HTTP status 500 and close code 1000 always, "
            "or those that say what happened."
        ),
    ] = "compatible"
    validate: Annotated[
        Literal["off", "warn", "strict"],
        Meta(description="What becomes of parameters that do not fit the wrapper's fields."),
    ] = "warn"
    keys_file: Annotated[
        NotEmpty | None,
        Meta(
            description="JSON file of the keys that Athena requests must be signed with: "
            '`{"API_KEY": {"secret": "...", "app_id": "..."}}`.'
        ),
    ] = None
    prefer_real: Annotated[
        bool, Meta(description="Whether PyPI's `aiges` is used where it is installed.")
    ] = False
    c_len: Annotated[
        bool, Meta(description="Whether a result's `len` cuts its data, as the C++ loader does.")
    ] = False


class ResourceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what administrators have models load beside their wrappers."""

    largest: Annotated[Bytes, Meta(description="Largest resource.")] = 512 * MiB
    most: Annotated[Count, Meta(description="Most resources of one model.")] = 64
    timeout: Annotated[
        Timeout, Meta(description="How long a worker may take to load or unload a resource.")
    ] = 60.0


class LinkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How linker_atom's clients and services are met."""

    conventions: Annotated[
        bool,
        Meta(
            description="Whether models are served as linker_atom's services are: with its health "
            "route, its envelope of errors, and a log of each request."
        ),
    ] = False
    health_path: Annotated[
        str,
        Meta(
            pattern=r"^(/[^\s?#{}]+)?\Z",
            description="Path of the health route; empty is `/v1/health/ping` below the prefix.",
            extra={"form": "path that begins with /"},
        ),
    ] = ""
    log_parameters: Annotated[
        bool,
        Meta(description="Whether that log has each request's headers and parameters, cut short."),
    ] = True
    profiling: Annotated[
        bool, Meta(description="Whether each request is profiled into the log.")
    ] = False
    profiling_on_request: Annotated[
        bool, Meta(description="Whether a request is that asks for it with `?PROFILING=1`.")
    ] = False


class RegistrationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a control plane is told of this instance, which one, and how."""

    registrar: Annotated[
        str,
        Meta(
            description="Who is told: `linker`, `consul`, `file` or an installed registrar's name; "
            "`off`: nobody; empty: nobody, unless a hosted file says so."
        ),
    ] = ""
    url: Annotated[str, Meta(description="The control plane's base URL.")] = ""
    advertise: Annotated[
        str,
        Meta(
            description="URL at which this instance is reached; if empty, it follows from `host` "
            "and `port`."
        ),
    ] = ""
    instance: Annotated[
        str, Meta(description="This instance's name; if empty, the machine's host name.")
    ] = ""
    heartbeat: Annotated[Timeout, Meta(description="From one heartbeat to the next.")] = 2.0
    timeout: Annotated[Timeout, Meta(description="How long one call may take.")] = 5.0
    register_timeout: Annotated[Timeout, Meta(description="How long a registration may take.")] = (
        15.0
    )
    withdraw_timeout: Annotated[
        Timeout, Meta(description="How long a stop waits for the withdrawal at most.")
    ] = 2.0
    backoff_min: Annotated[
        Timeout, Meta(description="Wait after the first call that failed; each is longer.")
    ] = 2.0
    backoff_max: Annotated[Timeout, Meta(description="Longest wait after a call that failed.")] = (
        30.0
    )
    start_jitter: Annotated[
        Seconds,
        Meta(description="The first registration comes at a random moment of this long."),
    ] = 6.0
    unready_grace: Annotated[
        Seconds | None,
        Meta(
            description="How long the instance may be not ready before it is withdrawn; if unset, "
            "it stays registered."
        ),
    ] = None
    token_file: Annotated[
        NotEmpty | None,
        Meta(
            description="File of the token that calls are authorized by: a bearer token, or a "
            "whole `Authorization`. Read anew for each call."
        ),
    ] = None
    ca_file: Annotated[
        NotEmpty | None,
        Meta(description="Certificates that the control plane's is checked against, PEM."),
    ] = None
    certfile: Annotated[
        NotEmpty | None, Meta(description="This instance's own certificate chain, PEM.")
    ] = None
    keyfile: Annotated[NotEmpty | None, Meta(description="Its private key, PEM.")] = None
    options: Annotated[
        dict[str, Any], Meta(description="What the registrar of that name reads besides.")
    ] = {}


class MediaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What requests may name instead of holding it, and how much of it; nothing unless allowed."""

    urls: Annotated[
        bool, Meta(description='Whether media may be `{"url": ...}`, which the server fetches.')
    ] = False
    allow_networks: Annotated[
        tuple[NotEmpty, ...],
        Meta(description="Addresses or networks that URLs may lead to beside public ones."),
    ] = ()
    ca_file: Annotated[
        NotEmpty | None,
        Meta(description="Certificates, PEM, of authorities trusted beside the system's."),
    ] = None
    roots: Annotated[
        tuple[NotEmpty, ...],
        Meta(description='Folders of the files that media may be: `{"path": ...}`.'),
    ] = ()
    mmap: Annotated[
        bool,
        Meta(
            description='Whether media may be parts of those files: `{"mmap": {"path", "position", '
            '"size", "height", "width"}}`.'
        ),
    ] = False
    max_bytes: Annotated[
        Bytes, Meta(description="Most bytes of what one URL, path or part of a file leads to.")
    ] = 20 * MiB
    max_references: Annotated[
        Count, Meta(description="Most URLs, paths and parts of files of one input.")
    ] = 16
    timeout: Annotated[Timeout, Meta(description="How long fetching one URL may take.")] = 10.0
    connect_timeout: Annotated[
        Timeout, Meta(description="How long one address of a URL may take to accept.")
    ] = 2.0
    max_redirects: Annotated[
        int, Meta(ge=0, le=20, description="Most redirects that a URL may have.")
    ] = 3
    max_pixels: Annotated[
        Count, Meta(description="Most pixels of a picture, however it is sent.")
    ] = 40_000_000
    max_list_pixels: Annotated[
        Count,
        Meta(description="Most pixels of a list's pictures together, never fewer than of one."),
    ] = 160_000_000
    max_frames: Annotated[
        Count, Meta(description="Most frames of a picture, of which the first is taken.")
    ] = 1


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator says of one model; the wrapper's class attributes decide the rest."""

    plugin: Annotated[
        NotEmpty | None,
        Meta(description="What to serve, as for `--plugins`; if unset, the plugin of this name."),
    ] = None
    executor: Annotated[Executor | None, Meta(description="Where the slots run.")] = None
    slots: Annotated[Count | None, Meta(description="Running copies of the wrapper.")] = None
    capacity: Annotated[
        Count | None, Meta(description="Requests that one copy may run at once.")
    ] = None
    timeout: Annotated[
        Timeout | None,
        Meta(description="How long a request may take, waiting included; per item of a stream."),
    ] = None
    grace: Annotated[
        Seconds | None,
        Meta(description="How long after the timeout a busy slot counts as hung."),
    ] = None
    startup_timeout: Annotated[
        Timeout | None, Meta(description="How long `load` and the examples may take.")
    ] = None
    stream_timeout: Annotated[
        Timeout | None, Meta(description="How long a whole stream may take.")
    ] = None
    queue_size: Annotated[
        Count | None, Meta(description="Requests that may wait for a slot; one more is refused.")
    ] = None
    cancel: Annotated[
        Literal["run", "kill"] | None,
        Meta(description="What happens to a running request that nobody waits for any more."),
    ] = None
    idempotent: Annotated[
        bool | None,
        Meta(description="Whether a request that lost its worker may be run once more."),
    ] = None
    max_batch_size: Annotated[
        Count | None, Meta(description="Most requests that `predict_batch` gets at once.")
    ] = None
    max_batch_delay: Annotated[
        Seconds | None,
        Meta(description="How long a free slot may wait for a batch to grow; rarely used up."),
    ] = None
    batch_key: Annotated[
        str | None,
        Meta(description="Name of an input: only requests with equal values share a batch."),
    ] = None
    batch_cost: Annotated[
        str | None,
        Meta(description="What `max_batch_cost` bounds: the name of an input, or `bytes`."),
    ] = None
    max_batch_cost: Annotated[
        Positive | None, Meta(description="Most that the requests of a batch may cost together.")
    ] = None
    bisect: Annotated[
        bool | None,
        Meta(description="Whether a failing batch is split to find the request that is guilty."),
    ] = None
    target_latency: Annotated[
        Timeout | None,
        Meta(description="99th percentile to aim at: batch size and delay adapt to reach it."),
    ] = None
    cacheable: Annotated[
        bool | None,
        Meta(description="Whether equal requests are computed once, and their answer kept."),
    ] = None
    cache_size: Annotated[
        Bytes | None, Meta(description="Kept answers, all together, in each API process.")
    ] = None
    cache_ttl: Annotated[Timeout | None, Meta(description="How long an answer is kept.")] = None
    devices: Annotated[
        tuple[NotEmpty, ...] | None,
        Meta(description="Devices, dealt out to the slots in turn: `cuda:0`, `cpu`."),
    ] = None
    threads: Annotated[
        Count | None,
        Meta(description="Threads that numeric libraries may use in one slot (OMP and the like)."),
    ] = None
    env: Annotated[
        dict[str, str], Meta(description="Environment variables of this model's workers.")
    ] = {}
    max_memory: Annotated[
        Bytes | None,
        Meta(
            description="Memory of its own, without what is shared, over which a worker is "
            "replaced between requests."
        ),
    ] = None
    max_requests: Annotated[
        Count | None, Meta(description="Requests after which a worker is replaced.")
    ] = None
    crash_limit: Annotated[
        CrashLimit | None,
        Meta(description="Lost workers within a time after which the model is given up."),
    ] = None
    spares: Annotated[
        Annotated[int, Meta(ge=0, le=1)] | None,
        Meta(description="Loaded workers that wait to replace a lost one."),
    ] = None
    config: Annotated[
        dict[str, Any], Meta(description="The plugin's own configuration, handed to `load`.")
    ] = {}


class TenantSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tenant may have of each model, beside the others."""

    weight: Annotated[float, Meta(ge=0.01, le=100)] = 1.0
    """How much it gets while others wait, too: twice the weight is twice as much."""
    rate: Quota | None = None
    """How often it may ask."""
    share: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Part of the waiting places that it may hold."""


class LogsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which log files are kept, beside what goes to standard error."""

    folder: Annotated[
        NotEmpty | None,
        Meta(description="Folder of log files, below it the host's; unset, none are written."),
    ] = None
    name: Annotated[FileName, Meta(description="What the files are called after.")] = "atomserve"
    max_bytes: Annotated[Bytes, Meta(description="Bytes of a file; another follows.")] = 100 * MiB
    keep: Annotated[Count, Meta(description="Log files that are left, the newest.")] = 30


class SkyWalkingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether and where Apache SkyWalking's agent reports to; its other variables are its own."""

    enabled: Annotated[
        bool, Meta(description="Whether the agent runs in each process; extra `skywalking`.")
    ] = False
    collector: Annotated[str, Meta(description="Address of its collector, `host:port`.")] = ""
    service: Annotated[str, Meta(description="Name of this service; empty is `atomserve`.")] = ""
    instance: Annotated[str, Meta(description="Name of this instance; empty is the machine's.")] = (
        ""
    )
    report_logs: Annotated[
        bool, Meta(description="Whether records of Python's `logging` are reported.")
    ] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        Meta(description="Least level reported."),
    ] = "debug"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration of one instance."""

    plugins: Annotated[
        tuple[NotEmpty, ...],
        Meta(
            description="What to serve: `[NAME=]` and then an installed plugin's name, "
            "`package.module:Class`, `path/to/file.py[:Class]`, or what a loader makes servable: "
            "`aiges:PATH`, `asgi:package.module:app`, `linker:path/to/server.py`."
        ),
    ] = ()
    host: Annotated[NotEmpty, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port to listen on; 0 takes a free one, printed.")
    ] = 8000
    uds: Annotated[
        NotEmpty | None,
        Meta(description="Path of a unix socket to listen on instead of host and port."),
    ] = None
    admin: Annotated[
        AdminAddress | None,
        Meta(
            description="Where administrators are listened to, who may change what is served: "
            "`unix:PATH`, for the user alone, or `HOST:PORT`."
        ),
    ] = None
    admin_hosts: Annotated[
        tuple[NotEmpty, ...],
        Meta(
            description="Host names by which administrators may ask, beside this machine's own; "
            "without any, `admin` is no address that other machines reach."
        ),
    ] = ()
    api_processes: Annotated[Count, Meta(description="Processes that speak HTTP.")] = 1
    server: Annotated[Literal["hypercorn", "granian"], Meta(description="The HTTP server.")] = (
        "hypercorn"
    )
    executor: Annotated[
        Executor | None, Meta(description="Where slots run, for models that do not say.")
    ] = None
    slots: Annotated[
        Count | None, Meta(description="Copies of each wrapper, for models that do not say.")
    ] = None
    prefix: Annotated[
        Prefix, Meta(description="Put before every route but the health probes and the metrics.")
    ] = ""
    certfile: Annotated[
        NotEmpty | None, Meta(description="TLS certificate chain, PEM; needs `keyfile`.")
    ] = None
    keyfile: Annotated[
        NotEmpty | None,
        Meta(description="TLS private key of that certificate, PEM; needs `certfile`."),
    ] = None
    log_format: Annotated[
        Literal["json", "console"], Meta(description="Log lines for programs or for people.")
    ] = "json"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least level logged.")
    ] = "info"
    access_log: Annotated[bool, Meta(description="Whether each request leaves a record.")] = True
    drain_delay: Annotated[
        Seconds, Meta(description="How long a stopping server still accepts requests.")
    ] = 5.0
    drain_timeout: Annotated[
        Seconds, Meta(description="How long requests in flight get to finish at the stop.")
    ] = 20.0
    unload_timeout: Annotated[
        Seconds, Meta(description="How long a wrapper's `unload` may take.")
    ] = 5.0
    keep_alive: Annotated[
        Seconds, Meta(description="How long a connection without a request stays open.")
    ] = 75.0
    header_timeout: Annotated[
        Timeout, Meta(description="How long a request's headers may take to arrive.")
    ] = 10.0
    event_silence: Annotated[
        Timeout, Meta(description="Silence after which a comment keeps an event stream alive.")
    ] = 15.0
    readiness: Annotated[
        Literal["all", "any"], Meta(description="How many models must be up for ready.")
    ] = "all"
    docs: Annotated[
        bool, Meta(description="Whether `/openapi.json` and the pages under `/docs` are served.")
    ] = True
    title: Annotated[
        NotEmpty | None, Meta(description="Title of the API's description; unset, the models.")
    ] = None
    description: Annotated[
        NotEmpty | None, Meta(description="What that description begins with.")
    ] = None
    limits: Limits = Limits()
    cors: Cors = Cors()
    trusted_proxies: Annotated[
        tuple[NotEmpty, ...],
        Meta(description="Addresses or networks whose `X-Forwarded-*` headers are believed."),
    ] = ()
    tenant_header: Annotated[
        HeaderName | None, Meta(description="Request header that names the tenant.")
    ] = None
    tenants: Annotated[
        dict[NotEmpty, TenantSettings],
        Meta(
            description="What tenants may have of each model: `tenants.NAME = {weight = 1, "
            'rate = "100/s", share = 0.5}`; `*` stands for all that are not named.'
        ),
    ] = {}
    resources: ResourceSettings = ResourceSettings()
    aiges: AigesSettings = AigesSettings()
    logs: LogsSettings = LogsSettings()
    skywalking: SkyWalkingSettings = SkyWalkingSettings()
    registration: RegistrationSettings = RegistrationSettings()
    linker: LinkerSettings = LinkerSettings()
    media: MediaSettings = MediaSettings()
    models: dict[ModelName, ModelSettings] = {}


TELEMETRY = ("logs", "skywalking")
"""Sections in which a wrong value is passed over with a warning: serving matters more."""

"""What an LLMRoute is made of: the gateway, its backends, the models it offers, who may call it and what may go where.

Only fields whose behaviour is built are declared. What fields alone cannot say stands in `fairlead.api.rules.route`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from fairlead.api.base import ApiModel, Atomic, Bool, Int, ListMap, SchemaExtra
from fairlead.api.model import ConfigMapKeyReference, SecretKeyReference
from fairlead.api.serving import RevisionPolicy, ServiceType


class DataClass(StrEnum):
    """How far a request may travel, from the widest to the narrowest. The order is the law's."""

    PUBLIC = "Public"
    INTERNAL = "Internal"
    CONFIDENTIAL = "Confidential"
    RESTRICTED = "Restricted"


class LLMAccess(StrEnum):
    """Kinds of backends: in the cluster, or somebody else's."""

    LOCAL = "Local"
    CLOUD = "Cloud"


class ProviderType(StrEnum):
    """Cloud providers that fairlead knows; each has a data file in `providers/`."""

    OPENAI = "OpenAI"
    ANTHROPIC = "Anthropic"
    GEMINI = "Gemini"
    VERTEX_AI = "VertexAI"
    BEDROCK = "Bedrock"
    AZURE_OPENAI = "AzureOpenAI"
    COHERE = "Cohere"
    MISTRAL = "Mistral"
    TOGETHER = "Together"
    FIREWORKS = "Fireworks"
    DEEP_INFRA = "DeepInfra"
    REPLICATE = "Replicate"
    ANYSCALE = "Anyscale"
    GROQ = "Groq"
    CEREBRAS = "Cerebras"
    SAMBA_NOVA = "SambaNova"
    OPEN_ROUTER = "OpenRouter"
    X_AI = "XAI"
    DEEP_SEEK = "DeepSeek"
    MODAL = "Modal"
    BEAM = "Beam"
    RUN_POD = "RunPod"
    OPENAI_COMPATIBLE = "OpenAICompatible"


class BuiltinDetector(StrEnum):
    """Identifiers that the gateway recognises by itself."""

    EMAIL = "Email"
    PHONE = "Phone"
    SSN = "SSN"
    IBAN = "IBAN"
    PAYMENT_CARD = "PaymentCard"
    SECRETS = "Secrets"
    PRIVATE_KEY = "PrivateKey"


#: A list of names in any order, each once: the API server refuses the second. CEL could not look through so many pairs.
Names = SchemaExtra({"x-kubernetes-list-type": "set"})
ToolType = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_]*$")]
Classes = Annotated[list[DataClass], Atomic, Field(max_length=4)]


class NameReference(ApiModel):
    """An object of the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the object, in the namespace of this route. Required: without it nothing is referred to."""


class DeploymentReference(ApiModel):
    """An LLMDeployment of the same namespace, and how its pods are brought in."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the LLMDeployment, in the namespace of this route. Required: without it nothing is referred to."""
    slow_start: Annotated[str | None, Field(min_length=2, max_length=32)] = None
    """How long a pod that comes takes until it gets its whole share, as a duration such as 30s (1s to 1h): it begins with
    a tenth of it. Requests that an affinity sends to one pod are not held back. Absent: its whole share at once."""


class GatewayMode(StrEnum):
    """Where gateways run."""

    DEPLOYMENT = "Deployment"
    SIDECAR = "Sidecar"


class GatewayServiceSpec(ApiModel):
    """The Service in front of the gateway's pods."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """How the Service is published: ClusterIP (inside the cluster), NodePort or LoadBalancer. Default: ClusterIP."""
    port: Annotated[Int | None, Field(ge=1, le=65535)] = None
    """TCP port of the Service; the gateway's pods keep their own port behind it. Absent: 443 with gateway.tls, else 80."""
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Annotations of the Service, for load balancers and meshes. Keys under fairlead.dev/ belong to fairlead and are
    refused. Default: none."""


class GatewayTLSSpec(ApiModel):
    """The certificate with which the gateway's clients are served."""

    secret_name: Annotated[str, Field(min_length=1, max_length=253)]
    """A Secret of type kubernetes.io/tls in the namespace of this route, labelled fairlead.dev/use=gateway-tls: tls.crt has the
    certificate and its chain, tls.key the key, both PEM. The gateway mounts it and takes a renewed one without a restart; the
    operator never reads its values. While it is missing no gateway is started, and one that runs stays as it is. Required."""


class GatewaySpec(ApiModel):
    """Where the gateway runs, and how it is reached."""

    mode: GatewayMode = GatewayMode.DEPLOYMENT
    """Deployment: in pods of their own. Sidecar: beside the engines, in the pods of every LLMDeployment of this namespace whose
    spec.gateway.routeRef names this route; only for routes without providers and without tls. Default: Deployment."""
    replicas: Annotated[Int, Field(ge=1, le=100)] = 2
    """Gateway pods. Default: 2, so that one may fail. With mode Sidecar it has no effect: there are as many gateways as engine
    pods that carry one."""
    drain_timeout: Annotated[str, Field(min_length=2, max_length=32)] = "1m"
    """How long a gateway pod that ends may go on with the streams it has, as a duration such as 1m (0s to 1h); what
    takes longer is cut. The pod stays as long even if nothing runs. Default: 1m. With mode Sidecar it has no effect:
    rollout.drainTimeout of the LLMDeployment counts."""
    revision: RevisionPolicy = RevisionPolicy.PINNED
    """When gateway pods get what a newer fairlead would make of them (image, listeners, classifier): Pinned, when they
    are replaced anyway because drainTimeout or the Secrets that they mount change; or Latest, at once. Default: Pinned,
    so that an upgrade of the operator cuts no stream. With mode Sidecar it has no effect: rollout.revision of the
    LLMDeployment counts."""
    service: GatewayServiceSpec | None = None
    """The Service in front of the gateway. Absent: a ClusterIP Service on port 80, or 443 with tls."""
    tls: GatewayTLSSpec | None = None
    """TLS between clients and gateway: HTTPS (TLS 1.2 or newer, HTTP/2 and HTTP/1.1) and no plain HTTP. Not with mode Sidecar.
    Absent: plain HTTP."""
    application_sidecars: Bool = False
    """Serves application pods of this namespace that are labelled fairlead.dev/gateway=<route> through a sidecar of their own: it
    tries deployments itself and passes what needs a provider on to the gateway. Default: false, sidecars of this route answer 503."""


class ProviderTLSSpec(ApiModel):
    """How the provider's certificate is verified. There is no way to skip that."""

    ca_secret_ref: SecretKeyReference | None = None
    """Key of a Secret with the certificates (PEM) of the authorities that may sign for this host. Absent: those that
    the gateway's image trusts."""
    server_name: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """Name that the certificate must have, also sent as SNI. Absent: the host of the base URL."""


class ProviderSpec(ApiModel):
    """A cloud provider, and the key that opens it."""

    type: ProviderType
    """Who it is; base URL, authentication and quirks come from fairlead's data about it. OpenAICompatible is anybody
    else who speaks the OpenAI API. Required."""
    secret_ref: SecretKeyReference
    """Key of a Secret that holds the provider's API key. The Secret must be labelled fairlead.dev/use=provider and
    annotated fairlead.dev/hosts with the host, so that a route cannot send any Secret anywhere. The gateway mounts it;
    the operator never reads the value. Required: nobody is called without a key."""
    base_url: Annotated[str | None, Field(min_length=9, max_length=512, alias="baseURL")] = None
    """https URL below which the provider's OpenAI-compatible API begins, such as https://llm.example.com/v1: a host, perhaps
    a port, and a plain path. Required for OpenAICompatible, Anyscale, Modal and Beam, which have no address of their own.
    Absent: the provider's own address."""
    region: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    """Region whose address is used, for providers with one address per region. Not beside baseURL. Absent: the provider's
    default."""
    parameters: Annotated[dict[str, Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=8)] = Field(
        default_factory=dict
    )
    """Further parts of the provider's address, such as resource for AzureOpenAI or project for VertexAI; the provider
    table in the docs lists them. Not beside baseURL. Default: none."""
    tls: ProviderTLSSpec | None = None
    """How the provider's certificate is verified. Absent: by the usual authorities, for the host of the base URL."""
    trusted: Bool = False
    """Lets data of class Internal go there. Only for hosts that the operator's trustedHosts lists, else the route is
    not accepted. Default: false, the provider gets Public data only."""


class BackendSpec(ApiModel):
    """Somebody who answers: a deployment of this namespace, or a provider."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """What targets, metrics and response headers call it. Required: it identifies the entry."""
    deployment: DeploymentReference | None = None
    """An LLMDeployment of this namespace; its pods are reached directly. Absent: provider must be given."""
    provider: ProviderSpec | None = None
    """A cloud provider. Absent: deployment must be given; exactly one of both."""


class TargetSpec(ApiModel):
    """One place where a model's requests may go."""

    backend: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of an entry of spec.backends. Required: it says who answers."""
    model: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    """What the backend calls the model; requests are rewritten to it. Absent: the name that the LLMDeployment serves,
    or for a provider the name that clients send."""
    weight: Annotated[Int, Field(ge=0, le=1000)] = 1
    """Share of the requests among the permitted targets of the same priority. 0: only when others fail; where all of them
    have 0, they are tried in their order. Default: 1."""
    priority: Annotated[Int, Field(ge=0, le=15)] = 0
    """Targets with a higher number are tried when all with a lower one have failed. Default: 0, the first."""


class RouteTimeoutsSpec(ApiModel):
    """How long to wait for what, as durations such as 10s or 10m."""

    response_headers: Annotated[str, Field(min_length=2, max_length=32)] = "10s"
    """How long one backend may take until its response begins (streams); then the next target is tried. Requests
    without stream have attempt for that. Default: 10s."""
    idle: Annotated[str, Field(min_length=2, max_length=32)] = "60s"
    """How long a stream that has begun may pause before it is ended. Default: 60s."""
    request: Annotated[str, Field(min_length=2, max_length=32)] = "10m"
    """How long a whole request without stream may take, over all attempts. Default: 10m."""
    attempt: Annotated[str | None, Field(min_length=2, max_length=32)] = None
    """How long one backend may take for a whole request without stream; then the next target is tried, while the one before may still be
    at work. Absent: as long as request, so that a backend which is connected and silent is not given up before."""


class HoldSpec(ApiModel):
    """How requests wait for a deployment that is at zero replicas and wakes for them."""

    patience: Annotated[str, Field(min_length=2, max_length=32)] = "2m"
    """How long about a request waits for a pod, as a duration such as 2m (1s to 1h; for requests without stream it counts as part of
    timeouts.request, so it may not be longer); then the next target is tried, or the answer is 503. Default: 2m."""
    max_requests: Annotated[Int, Field(ge=1, le=10_000)] = 100
    """How many requests of this model wait at each gateway for each deployment; one more goes to the next target at once, or is answered
    with 503. Each keeps its body in the gateway's memory, so the more may wait the smaller these must be: one that is larger than
    192 MiB, divided by the pairs of model and deployment for which requests may wait and by this number, does not wait. Default: 100,
    and bodies up to 2 MB with one such pair."""
    overflow_after: Annotated[str | None, Field(min_length=2, max_length=32)] = None
    """How long about a request waits that has another target to go to, as a duration from 0s (goes there at once, and the deployment
    wakes meanwhile) to patience. Targets that its class or caller may not use do not count. Absent: as long as patience."""


class PromptPrefixSpec(ApiModel):
    """Which part of a prompt says that requests belong together."""

    characters: Annotated[Int, Field(ge=1, le=4096)] = 100
    """How many characters of it are compared, from its beginning on. Default: 100."""


class AffinitySpec(ApiModel):
    """Which requests go to the same pod of a deployment. Exactly one way must be given."""

    header: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    """Request header, in lower case, such as x-session-id: requests with the same value go to the same pod, those
    without it to any. It goes no further than the gateway; one that means something else already is refused. Absent:
    promptPrefix must be given."""
    prompt_prefix: PromptPrefixSpec | None = None
    """Requests whose prompts begin alike go to the same pod. What is compared is the text of the first message of role
    user, or of prompt or input; embeddings and rerank requests go to any pod. Absent: header must be given."""


class RouteModelSpec(ApiModel):
    """One model as clients know it, and where its requests go."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """What clients send as "model". Required: it identifies the entry."""
    targets: Annotated[list[TargetSpec], Atomic, Field(min_length=1, max_length=16)]
    """Where requests go: the lowest priority number first, inside of it by weight, then each of the others, then the
    next priority. The same backend may stand here again with another model. Targets that the caller or the class of the
    request may not use are never tried. Required."""
    timeouts: RouteTimeoutsSpec | None = None
    """How long to wait for what. Absent: 10s for response headers, 60s idle, 10m for a request."""
    affinity: AffinitySpec | None = None
    """Which requests go to the same pod of a deployment while it is healthy and has at most one and a half times its
    share of them. A target must be a deployment. Absent: each request goes to the less busy one of two pods."""
    hold: HoldSpec | None = None
    """How requests wait while a deployment of the targets is at zero replicas and wakes for them
    (autoscaling.minReplicas: 0). Absent: they do not wait; the next target is tried at once, or the answer is 503, and the deployment
    wakes all the same."""


class ApiKeysSpec(ApiModel):
    """Callers who show a key."""

    secret_ref: NameReference
    """A Secret labelled fairlead.dev/use=clients: each key of its data is the name of a consumer, the value has one API key
    per line (several while keys are exchanged). Required."""


class JWKSSpec(ApiModel):
    """Where the public keys of an issuer are, as a JSON Web Key Set."""

    secret_ref: SecretKeyReference | None = None
    """Key of a Secret labelled fairlead.dev/use=jwks. Absent: configMapRef must be given."""
    config_map_ref: ConfigMapKeyReference | None = None
    """Key of a ConfigMap labelled fairlead.dev/use=jwks. Absent: secretRef must be given; exactly one of both."""


class JWTSpec(ApiModel):
    """Callers who show a token that somebody else has signed."""

    issuer: Annotated[str, Field(min_length=1, max_length=512)]
    """Who signs: what tokens have as iss, such as https://id.example.com. Required."""
    audiences: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=512)]], Atomic, Field(min_length=1, max_length=16)
    ]
    """For whom tokens must be made out: one of these must be in aud, so that a token for somebody else does not open this
    gateway. Required."""
    jwks: JWKSSpec
    """The issuer's public keys: RSA, EC (P-256, P-384, P-521) and Ed25519. They are not fetched from the issuer; whoever
    exchanges them writes the new ones beside the old ones first. Required."""
    consumer_claim: Annotated[str, Field(min_length=1, max_length=128)] = "sub"
    """Claim that names the consumer, as spec.roles[].consumers has it; dots lead into nested claims. A token without it is
    refused. Each consumer is a label in metrics, so one with few values, such as a team, is better. Default: sub."""


class AnonymousSpec(ApiModel):
    """Callers who show nothing."""

    role: Annotated[str | None, Field(min_length=1, max_length=63)] = None
    """The role that they have. Required if spec.roles has any; absent: the role that a route without roles acts as."""


class AuthenticationSpec(ApiModel):
    """Who may call. At least one way must be given."""

    api_keys: ApiKeysSpec | None = None
    """Callers show a key, as Authorization: Bearer or x-api-key. Absent: nobody is known by a key."""
    jwt: JWTSpec | None = None
    """Callers show a signed token, as Authorization: Bearer. It must have a time at which it expires (exp), and goes no
    further than the gateway. Absent: nobody is known by a token."""
    anonymous: AnonymousSpec | None = None
    """Callers without key and token are let in with this role. Absent: they get 401."""


class LimitsSpec(ApiModel):
    """How much one consumer may ask for. At least one of both must be given."""

    requests_per_minute: Annotated[Int | None, Field(ge=1, le=1_000_000)] = None
    """Requests per minute, whatever becomes of them; GET /v1/models counts, too. All of a minute's may come at once. Absent: as
    many as come."""
    tokens_per_minute: Annotated[Int | None, Field(ge=1, le=1_000_000_000)] = None
    """Tokens per minute, charged before a request is sent on: its bytes divided by four for the prompt, and the most that
    it lets the model answer (max_tokens and the like, by n). An estimate, not what was used. Absent: as many as come."""


class RoleSpec(ApiModel):
    """What some consumers may do. A consumer with several roles needs one that permits the whole request by itself."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """What authentication.anonymous and denials call it. Required: it identifies the entry."""
    consumers: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Names, Field(max_length=256)] = (
        Field(default_factory=list)
    )
    """Consumers who have this role, each once: keys of the Secret with the clients' API keys, or what tokens have as
    authentication.jwt.consumerClaim. Default: none."""
    llm_access: Annotated[list[LLMAccess], Atomic, Field(min_length=1, max_length=2)]
    """Kinds of backends that may be used: Local (deployments of this cluster), Cloud (providers). Required."""
    data_access: Annotated[list[DataClass], Atomic, Field(min_length=1, max_length=4)]
    """Classes of requests that may be sent. Required."""
    may_declare: Classes = Field(default_factory=list)
    """Classes that the caller may declare in the header although the default is higher; a higher one than the default
    may always be declared. Default: none."""
    floor: DataClass | None = None
    """Class that requests of this role have at least, whatever callers declare; it may only raise. Absent: no floor."""
    limits: LimitsSpec | None = None
    """How much each consumer of this role may ask for, by itself. Of several roles the highest number counts. Absent, as each
    number that is: what spec.limits says."""


class DetectorSpec(ApiModel):
    """Something in a request that raises its class."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """What denials and the access log call it. default, floor, header, opaque and unchecked are taken. Required: it identifies the
    entry."""
    class_: Annotated[DataClass, Field(alias="class")]
    """Class that a request has at least in which this is found. Required."""
    keywords: Annotated[list[Annotated[str, Field(min_length=2, max_length=64)]], Atomic, Field(max_length=64)] = Field(
        default_factory=list
    )
    """Words or phrases, found in any text of the body whatever their case, as whole words; spaces, - and _ between words are
    the same. At most 256 in all detectors together. Absent: patterns or builtin must be given."""
    patterns: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Atomic, Field(max_length=16)] = (
        Field(default_factory=list)
    )
    """RE2 patterns, found anywhere in the text of the body, in the case in which they are written ((?i) ignores it). The text has no
    accents, digits of all scripts as 0 to 9, Greek and Cyrillic in small letters; ^ and $ are the ends of a string or line.
    One that does not compile, matches the empty text or is too large is not accepted. At most 16 in all detectors together.
    Absent: keywords or builtin must be given."""
    builtin: BuiltinDetector | None = None
    """An identifier that the gateway recognises: Email, Phone, SSN, IBAN (checked by mod 97), PaymentCard (Luhn), Secrets
    (keys of the usual vendors), PrivateKey. Absent: keywords or patterns must be given; exactly one of the three."""


class DataPolicySpec(ApiModel):
    """Which class a request has."""

    default: DataClass = DataClass.INTERNAL
    """Class of a request that nothing classified. Default: Internal."""
    floor: DataClass | None = None
    """Class that every request of the route has at least, whatever callers declare; it may only raise. Absent: no floor."""
    header: Annotated[str, Field(min_length=1, max_length=64)] = "x-data-classification"
    """Request header in which callers declare a class, in lower case; one that means something else already is refused.
    Default: x-data-classification."""
    detectors: Annotated[list[DetectorSpec], ListMap("name"), Field(max_length=32)] = Field(default_factory=list)
    """What raises the class of a request in whose body it is found. Default: none."""
    opaque_content: DataClass = DataClass.CONFIDENTIAL
    """Class that a request has at least which carries content that detectors cannot read: images, audio, files.
    Default: Confidential."""
    allow_store: Bool = False
    """Whether a provider may keep what it is sent (the Responses API's store), and requests may refer to what it keeps: an earlier
    response, a conversation, a stored prompt. What is referred to cannot be classified. Default: false: such requests are
    refused, and providers are told to keep nothing."""
    hosted_tools: Annotated[list[ToolType], Atomic, Field(max_length=32)] = Field(default_factory=list)
    """Types of tools that requests may have a provider run, which may call others: web_search, code_interpreter, mcp and so on, as
    they stand in the type of an entry of tools. Functions run at the caller and need no entry. Default: none."""
    deny_classes: Classes = Field(default_factory=list)
    """Classes for which it is meant that some model has no permitted target; without it the route is not accepted
    then. Default: none."""


class LLMRouteSpec(ApiModel):
    """What the user wants."""

    gateway: GatewaySpec | None = None
    """Where the gateway runs. Absent: a Deployment of two replicas behind a ClusterIP Service on port 80, without TLS."""
    backends: Annotated[list[BackendSpec], ListMap("name"), Field(min_length=1, max_length=64)]
    """Who answers requests. Required."""
    models: Annotated[list[RouteModelSpec], ListMap("name"), Field(min_length=1, max_length=256)]
    """What clients may ask for, and where it goes. Required."""
    authentication: AuthenticationSpec
    """Who may call. Required: a gateway that lets everybody in says so with anonymous: {}."""
    roles: Annotated[list[RoleSpec], ListMap("name"), Field(max_length=64)] = Field(default_factory=list)
    """What consumers may do. Default: one role for all callers, with Local and Cloud, Public and Internal."""
    data_policy: DataPolicySpec | None = None
    """Which class a request has. Absent: Internal unless the header says more, no detectors."""
    limits: LimitsSpec | None = None
    """How much each consumer may ask for, by itself, where its roles say nothing; callers without a key count as one. Divided
    among the gateway's replicas, or among the engine pods that carry one. Absent: as much as they like."""

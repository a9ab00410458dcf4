"""Valid specs of all kinds, for Hypothesis: every section may be there or not, and every engine, source and vendor occurs."""

from __future__ import annotations

from hypothesis import strategies as st

SIZES = st.sampled_from(["1Gi", "1.5Gi", "2000Mi", "64G", "100Gi"])
RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        "requests": st.fixed_dictionaries(
            {}, optional={"cpu": st.sampled_from(["1000m", "2", "0.5"]), "memory": st.just("4Gi")}
        ),
        "limits": st.fixed_dictionaries(
            {}, optional={"memory": SIZES.filter(lambda s: s not in ("1Gi", "1.5Gi", "2000Mi"))}
        ),
        "sharedMemory": st.sampled_from(["512Mi", "1024Mi"]),
    },
)
STORAGE = st.one_of(
    st.fixed_dictionaries({"type": st.just("EmptyDir")}, optional={"size": SIZES}),
    st.fixed_dictionaries(
        {"type": st.just("PersistentVolumeClaim"), "size": SIZES},
        optional={
            "storageClassName": st.sampled_from(["fast", "slow"]),
            "accessModes": st.sampled_from([["ReadWriteOnce"], ["ReadWriteMany"]]),
        },
    ),
    st.just({"type": "PersistentVolumeClaim", "claimName": "theirs"}),
)
POD = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.just({"team": "a"}),
        "annotations": st.just({"example.com/x": "y"}),
        "nodeSelector": st.sampled_from([{"kubernetes.io/arch": "arm64"}, {"zone": "a"}]),
        "tolerations": st.just([{"key": "spot", "operator": "Exists"}]),
        "affinity": st.just({"podAntiAffinity": {}}),
        "topologySpreadConstraints": st.just(
            [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
        ),
        "securityContext": st.just({"runAsUser": 1234}),
        "extraVolumes": st.just([{"name": "ca", "configMap": {"name": "ca"}}]),
    },
)
COMMON = {
    "replicas": st.integers(0, 5),
    "storage": STORAGE,
    "resources": RESOURCES,
    "pod": POD,
    "suspend": st.booleans(),
    "service": st.fixed_dictionaries({}, optional={"port": st.integers(1, 65535), "type": st.sampled_from(["ClusterIP", "NodePort"])}),
    "networkPolicy": st.sampled_from([{"mode": "Disabled"}, {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]),
    "files": st.just([
        {"path": "/etc/llm/chat.jinja", "configMapRef": {"name": "t", "key": "chat"}},
        {"path": "/etc/llm/more/x", "secretRef": {"name": "s", "key": "x"}},
    ]),
    "probes": st.fixed_dictionaries(
        {}, optional={"startupTimeout": st.sampled_from(["20m", "90s"]), "readiness": st.just({"periodSeconds": 1})},
    ),
    "context": st.fixed_dictionaries({}, optional={"maxLength": st.integers(1, 10**6), "maxSequences": st.integers(1, 512)}),
}  # fmt: skip
VLLM_SPECS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(
            [
                {"source": "hf://org/Model-8B-FP8", "revision": "main"},
                {"source": "hf://org/Odd", "secretRef": {"name": "hf", "key": "token"}, "task": "Embed"},
                {"source": "pvc://weights/some/dir", "name": "org/name.7b"},
            ]
        ),
        "engine": st.fixed_dictionaries(
            {"type": st.just("vLLM")},
            optional={
                "version": st.sampled_from(["0.11.0", "0.18.0", "0.33.0"]),
                "args": st.sampled_from([["--enable-prefix-caching"], ["--disable-access-log-for-endpoints=/health"]]),
                "env": st.just(
                    [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}, {"name": "DO_NOT_TRACK", "value": "0"}]
                ),
            },
        ),
    },
    optional={
        **COMMON,
        "accelerator": st.fixed_dictionaries(
            {"count": st.integers(1, 8)},
            optional={
                "resourceName": st.sampled_from(["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.10gb"]),
                "memoryUtilizationPercent": st.integers(1, 100),
            },
        ),
        "quantization": st.fixed_dictionaries({}, optional={"weights": st.sampled_from(["BF16", "GPTQ"])}),
    },
)
OLLAMA_SPECS = st.fixed_dictionaries(
    {
        "model": st.sampled_from([{"source": "ollama://qwen2.5:0.5b"}, {"source": "pvc://weights/a/b.gguf", "name": "acme/x"}]),
        "engine": st.just({"type": "Ollama"}),
    },
    optional={**COMMON, "quantization": st.just({"kvCache": "Q8_0"})},
)  # fmt: skip
SPECS = st.one_of(VLLM_SPECS, OLLAMA_SPECS)

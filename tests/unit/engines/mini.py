"""The smallest engine file that holds everything: what an administrator would start from."""

MINI = """\
name: Mini
versions: {default: "1.2.0", minimum: "1.0", newest: "1.2"}
sources: [hf, pvc]
---
{% if sequences.max_sequences %}
{{ fail("spec.context.maxSequences", "Mini works on one sequence at a time", "leave it out") }}
{% endif %}
image: {{ image or ("example.com/mini:" ~ version) }}
command: [mini]
args: {{ [[model.reference], ["--name", model.name]] }}
port: 9000
probes:
  readiness: {httpGet: {path: /ready, port: http}}
  liveness: {tcpSocket: {port: http}}
drain: {gracePeriodSeconds: {{ drain.timeout_s + 5 }}}
podSecurityContext: {runAsNonRoot: true, runAsUser: 7, seccompProfile: {type: RuntimeDefault}}
securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
volumeMounts:
- {name: fairlead-cache, mountPath: /data}
"""

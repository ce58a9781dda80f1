{{/*
What a chart that embeds the sidecar may set, and what holds where it sets nothing. The gateway's
values.yaml and a profile of the injector have the same keys (tests/charts compares them).
*/}}
{{- define "datapulse-sidecar.defaults" -}}
# The image. A digest wins over the tag; the default tag is this chart's version.
image: {repository: "", tag: "", digest: "", pullPolicy: IfNotPresent}
# The sidecar's own configuration. What the keys below say is put in, where it says nothing itself.
config: {}
# A ConfigMap with a key config.yaml, in place of `config`.
existingConfigMap: ""
# Where apps call, and where the kubelet and Prometheus do.
ports: {proxy: 8080, health: 9464}
# The part of each quota that a pod may use: "" (each quota says its own, or there is a fleet), auto
# (one part of replicas and surge), or a fraction such as 1/3; 1/1 where there is never a second pod.
share: ""
log: {level: info, format: json}
drain: {min: 0s, max: 5s}
vault:
  # https://…:8200; empty: Vault is not used.
  address: ""
  namespace: ""
  caBundle: {configMap: "", key: ca.crt}
  auth:
    # kubernetes | jwt | approle | token
    method: kubernetes
    # Where it is mounted; empty: as the method is called.
    mount: ""
    kubernetes: {role: "", audience: vault, expirationSeconds: 600}
    jwt: {role: "", audience: vault, expirationSeconds: 600}
    approle: {roleId: "", existingSecret: "", key: secret_id}
    token: {existingSecret: "", key: token}
aws:
  # Empty: Secrets Manager is not used.
  region: ""
  # The pod's identity reaches the sidecar alone, and not the containers beside it.
  skipAppContainers: true
probes:
  startup: {periodSeconds: 1, failureThreshold: 60}
  liveness: {periodSeconds: 10, failureThreshold: 6}
# These two are replaced as a whole: a key that is left out, or null (a limit, a user on OpenShift), is
# not set.
resources:
  requests: {cpu: 10m, memory: 32Mi}
  limits: {memory: 256Mi}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
extraEnv: []
extraVolumes: []
extraVolumeMounts: []
{{- end }}

{{/* The version of these charts and of the image that they are for. */}}
{{- define "datapulse-sidecar.version" -}}
0.1.0
{{- end }}

{{/*
Puts the values in force into the argument as `v`, once, after looking at them. Each template below
takes one argument, a dict:
  root        the chart's own `.`
  values      what the chart's user says, in the shape above
  replicas    how many pods there will be (optional; 1)
  surge       how many more while they are replaced (optional; 1)
  containers  the names of the containers beside the sidecar (optional)
  mode        embedded (the default), gateway or profile: the last two are for our own charts
*/}}
{{- define "datapulse-sidecar.prepare" -}}
{{- if not (hasKey . "v") -}}
{{- $given := deepCopy (.values | default dict) -}}
{{- $_ := set . "mode" (.mode | default "embedded") -}}
{{- $v := mergeOverwrite (fromYaml (include "datapulse-sidecar.defaults" .)) $given -}}
{{- range $whole := list "resources" "securityContext" -}}
{{- if hasKey $given $whole -}}
{{- $own := get $given $whole | default dict -}}
{{- include "datapulse-sidecar.dropNulls" $own -}}
{{- $_ := set $v $whole $own -}}
{{- end -}}
{{- end -}}
{{- $_ := set . "v" $v -}}
{{- include "datapulse-sidecar.validate" . -}}
{{- end -}}
{{- end }}

{{/* Takes the keys with null out of a mapping, and of those in it. */}}
{{- define "datapulse-sidecar.dropNulls" -}}
{{- range $key, $value := . -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $ $key -}}
{{- else if kindIs "map" $value -}}
{{- include "datapulse-sidecar.dropNulls" $value -}}
{{- end -}}
{{- end -}}
{{- end }}

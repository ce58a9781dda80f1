{{/* The container, as a mapping. The one definition: charts, policy and command have it from here. */}}
{{- define "datapulse-sidecar.container" -}}
{{- include "datapulse-sidecar.prepare" . -}}
{{- $v := .v -}}
{{- $gateway := eq .mode "gateway" -}}
name: datapulse-sidecar
image: {{ include "datapulse-sidecar.image" . | toJson }}
imagePullPolicy: {{ $v.image.pullPolicy }}
{{- if not $gateway }}
restartPolicy: Always
{{- end }}
args: [run, --config=/etc/datapulse-sidecar/config.yaml]
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}
  {{- with $v.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: sidecar-health, containerPort: {{ int64 $v.ports.health }}, protocol: TCP}
  {{- range .morePorts }}
  - {name: {{ .name }}, containerPort: {{ int64 .port }}, protocol: TCP}
  {{- end }}
startupProbe:
  httpGet: {path: /startupz, port: sidecar-health, scheme: HTTP}
  {{- toYaml $v.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: sidecar-health, scheme: HTTP}
  {{- toYaml $v.probes.liveness | nindent 2 }}
{{- if $gateway }}
readinessProbe:
  httpGet: {path: /readyz, port: sidecar-health, scheme: HTTP}
  {{- toYaml $v.probes.readiness | nindent 2 }}
{{- end }}
resources:
  {{- toYaml $v.resources | nindent 2 }}
securityContext:
  {{- toYaml $v.securityContext | nindent 2 }}
terminationMessagePath: /dev/termination-log
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: datapulse-sidecar-config, mountPath: /etc/datapulse-sidecar, readOnly: true}
  - {name: datapulse-sidecar-state, mountPath: /var/lib/datapulse-sidecar}
  {{- if not $gateway }}
  - {name: datapulse-sidecar-no-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  {{- end }}
  {{- if include "datapulse-sidecar.hasVaultToken" . }}
  - {name: datapulse-sidecar-vault-token, mountPath: /var/run/secrets/vault, readOnly: true}
  {{- end }}
  {{- if include "datapulse-sidecar.vaultSecret" . }}
  - {name: datapulse-sidecar-vault-auth, mountPath: /var/run/datapulse-sidecar/vault-auth, readOnly: true}
  {{- end }}
  {{- if and $v.vault.address $v.vault.caBundle.configMap }}
  - {name: datapulse-sidecar-vault-ca, mountPath: /var/run/datapulse-sidecar/vault-ca, readOnly: true}
  {{- end }}
  {{- with .moreMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $v.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The container as the first item of initContainers. */}}
{{- define "datapulse-sidecar.initContainers" -}}
- {{ include "datapulse-sidecar.container" . | indent 2 | trim }}
{{- end }}

{{- define "datapulse-sidecar.image" -}}
{{- $image := .v.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (toString $image.tag | default (include "datapulse-sidecar.version" .)) -}}
{{- end -}}
{{- end }}

{{/* "true" where the sidecar logs in to Vault by the pod's service account. */}}
{{- define "datapulse-sidecar.hasVaultToken" -}}
{{- include "datapulse-sidecar.prepare" . -}}
{{- if and .v.vault.address (has .v.vault.auth.method (list "kubernetes" "jwt")) -}}
true
{{- end -}}
{{- end }}

{{/* The Secret that Vault's login is in, where it is in one. */}}
{{- define "datapulse-sidecar.vaultSecret" -}}
{{- if and .v.vault.address (has .v.vault.auth.method (list "approle" "token")) -}}
{{- (get .v.vault.auth .v.vault.auth.method).existingSecret -}}
{{- end -}}
{{- end }}

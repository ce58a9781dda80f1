{{/* The labels of a pod with the sidecar: monitors and the guard find it by this one. */}}
{{- define "datapulse-sidecar.podLabels" -}}
sidecar.datapulse.ai/inject: embedded
{{- end }}

{{/* The annotations of a pod with the sidecar. */}}
{{- define "datapulse-sidecar.podAnnotations" -}}
{{- include "datapulse-sidecar.prepareConfig" . -}}
sidecar.datapulse.ai/revision: {{ include "datapulse-sidecar.revision" . | toJson }}
{{- if not .v.existingConfigMap }}
{{ include "datapulse-sidecar.checksumAnnotation" . }}
{{- end }}
{{- with include "datapulse-sidecar.skipContainers" . }}
{{ . }}
{{- end }}
{{- end }}

{{/* Rolls the pods when the configuration changes. (The sidecar also reads a changed one by itself.) */}}
{{- define "datapulse-sidecar.checksumAnnotation" -}}
checksum/datapulse-sidecar-config: {{ include "datapulse-sidecar.config" . | sha256sum }}
{{- end }}

{{/* Which version of which definition a pod has. */}}
{{- define "datapulse-sidecar.revision" -}}
{{- $container := include "datapulse-sidecar.container" . | fromYaml | toJson -}}
{{- printf "%s-%s" (include "datapulse-sidecar.version" .) (printf "%s\n%s" $container (include "datapulse-sidecar.config" .) | sha256sum | trunc 10) -}}
{{- end }}

{{/* Cloud identities for the sidecar alone. */}}
{{- define "datapulse-sidecar.skipContainers" -}}
{{- include "datapulse-sidecar.prepare" . -}}
{{- if and .v.aws.region .v.aws.skipAppContainers .containers -}}
eks.amazonaws.com/skip-containers: {{ .containers | join "," | toJson }}
{{- end -}}
{{- end }}

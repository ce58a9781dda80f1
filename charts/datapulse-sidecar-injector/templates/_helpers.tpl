{{- define "injector.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* "true" where the mutating policies are to be made. */}}
{{- define "injector.wanted" -}}
{{- $asked := .Values.injector.enabled | toString -}}
{{- if not (has $asked (list "auto" "true" "false")) -}}
{{- fail "datapulse-sidecar-injector: injector.enabled: expected auto, true or false" -}}
{{- end -}}
{{- if or (eq $asked "true") (and (eq $asked "auto") (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")) -}}
true
{{- end -}}
{{- end }}

{{/* The argument of the library's templates for one profile, put into `.sidecar` of the given dict. */}}
{{- define "injector.sidecar" -}}
{{- if or (not (regexMatch "^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$" .name)) (eq .name "embedded") -}}
{{- fail (printf "datapulse-sidecar-injector: injector.profiles: `%s` cannot be a profile's name: up to 42 small letters, digits and `-`, and not embedded, which pods with a sidecar of their chart's own have" .name) -}}
{{- end -}}
{{- $values := mergeOverwrite (deepCopy .root.Values.injector.defaults) (deepCopy (.profile | default dict)) -}}
{{- $at := printf "datapulse-sidecar-injector: injector.profiles.%s" .name -}}
{{- $sidecar := dict "root" .root "values" $values "mode" "profile" "at" $at -}}
{{- include "datapulse-sidecar.prepareConfig" $sidecar -}}
{{- if $sidecar.v.existingConfigMap -}}
{{- fail (printf "%s: existingConfigMap: a policy cannot put a ConfigMap into each namespace: give config" $at) -}}
{{- end -}}
{{- $_ := set . "sidecar" $sidecar -}}
{{- end }}

{{/* The audiences that the sidecars' tokens for Vault are for, as a JSON list. */}}
{{- define "injector.audiences" -}}
{{- $audiences := list .Values.guard.vaultAudience -}}
{{- range $name, $profile := .Values.injector.profiles -}}
  {{- $of := dict "root" $ "name" $name "profile" $profile -}}
  {{- include "injector.sidecar" $of -}}
  {{- if include "datapulse-sidecar.hasVaultToken" $of.sidecar -}}
    {{- $auth := $of.sidecar.v.vault.auth -}}
    {{- $audiences = append $audiences (get $auth $auth.method).audience -}}
  {{- end -}}
{{- end -}}
{{- $audiences | uniq | sortAlpha | toJson -}}
{{- end }}

{{/*
A match condition of both guards: the pod or template asks for the sidecar, or has it. `$at` is
where its metadata and spec are.
*/}}
{{- define "injector.concerned" -}}
{{ .at }}.metadata.?labels[?"sidecar.datapulse.ai/inject"].hasValue()
|| {{ .at }}.spec.?initContainers.orValue([]).exists(c, c.name == "datapulse-sidecar")
{{- end }}

{{- define "injector.actions" -}}
{{- if eq .Values.guard.action "Deny" -}}
[Deny]
{{- else if eq .Values.guard.action "Warn" -}}
[Warn, Audit]
{{- else -}}
{{- fail "datapulse-sidecar-injector: guard.action: expected Deny or Warn" -}}
{{- end -}}
{{- end }}

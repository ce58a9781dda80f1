{{/* The configuration as a dict in `.config`: what the values say, under what `config` says itself. */}}
{{- define "datapulse-sidecar.prepareConfig" -}}
{{- include "datapulse-sidecar.prepare" . -}}
{{- if not (hasKey . "config") -}}
{{- $v := .v -}}
{{- $config := dict "version" 1 -}}
{{- $_ := set $config "listeners" (.listeners | default (list (dict "listen" (printf "localhost:%d" (int $v.ports.proxy))))) -}}
{{- $_ := set $config "health" (dict "listen" (printf "[::]:%d" (int $v.ports.health))) -}}
{{- $_ := set $config "log" $v.log -}}
{{- $_ := set $config "drain" $v.drain -}}
{{- $stores := dict -}}
{{- if $v.vault.address -}}
  {{- $_ := set $stores "vault" (fromYaml (include "datapulse-sidecar.vaultStore" .)) -}}
{{- end -}}
{{- if $v.aws.region -}}
  {{- $_ := set $stores "aws" (dict "region" $v.aws.region) -}}
{{- end -}}
{{- if $stores -}}
  {{- $_ := set $config "stores" $stores -}}
{{- end -}}
{{- $config = mergeOverwrite $config (deepCopy $v.config) -}}
{{- include "datapulse-sidecar.setShares" (dict "config" $config "share" $v.share "replicas" .replicas "surge" .surge) -}}
{{- $_ := set . "config" $config -}}
{{- end -}}
{{- end }}

{{- define "datapulse-sidecar.vaultStore" -}}
{{- $vault := .v.vault -}}
{{- $method := $vault.auth.method -}}
{{- $of := get $vault.auth $method -}}
address: {{ $vault.address | toJson }}
{{- with $vault.namespace }}
namespace: {{ . | toJson }}
{{- end }}
{{- if $vault.caBundle.configMap }}
ca_file: {{ printf "/var/run/datapulse-sidecar/vault-ca/%s" $vault.caBundle.key | toJson }}
{{- end }}
auth:
  method: {{ $method }}
{{- if has $method (list "kubernetes" "jwt") }}
  role: {{ $of.role | toJson }}
  token_file: /var/run/secrets/vault/token
{{- else if eq $method "approle" }}
  role_id: {{ $of.roleId | toJson }}
  secret_id: {{ printf "file:/var/run/datapulse-sidecar/vault-auth/%s" $of.key | toJson }}
{{- else }}
  token: {{ printf "file:/var/run/datapulse-sidecar/vault-auth/%s" $of.key | toJson }}
{{- end }}
{{- if and $vault.auth.mount (ne $method "token") }}
  mount: {{ $vault.auth.mount | toJson }}
{{- end }}
{{- end }}

{{/*
Each limited quota that says no share of its own gets this one, unless a fleet shares it. And it begins
without bursts, unless it says otherwise: a new pod does not know what the one before it sent.
*/}}
{{- define "datapulse-sidecar.setShares" -}}
{{- $share := .share | toString -}}
{{- $pods := add (int (.replicas | default 1)) (int (ternary 1 .surge (kindIs "invalid" .surge))) -}}
{{- if eq $share "auto" -}}
  {{- $share = ternary "" (printf "1/%d" $pods) (le (int $pods) 1) -}}
{{- end -}}
{{- $fleet := dig "shaping" "fleet" "" .config -}}
{{- range $name, $quota := .config.quotas | default dict -}}
  {{- if ne (dig "limit" "unlimited" $quota | toString) "unlimited" -}}
    {{- if and $share (not $fleet) (not (get $quota "share")) -}}
      {{- $_ := set $quota "share" $share -}}
    {{- end -}}
    {{- if not (get $quota "cold_start") -}}
      {{- $_ := set $quota "cold_start" "paced" -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* The text of config.yaml. */}}
{{- define "datapulse-sidecar.config" -}}
{{- include "datapulse-sidecar.prepareConfig" . -}}
{{- toYaml .config -}}
{{- end }}

{{/* Where an embedded sidecar's configuration is. */}}
{{- define "datapulse-sidecar.configMapName" -}}
{{- include "datapulse-sidecar.prepare" . -}}
{{- .v.existingConfigMap | default .configMapName | default (printf "%s-datapulse-sidecar" .root.Release.Name | trunc 63 | trimSuffix "-") -}}
{{- end }}

{{/* The ConfigMap of an embedded sidecar; nothing where an existing one is named. */}}
{{- define "datapulse-sidecar.configMap" -}}
{{- include "datapulse-sidecar.prepareConfig" . -}}
{{- if not .v.existingConfigMap -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "datapulse-sidecar.configMapName" . }}
  namespace: {{ .root.Release.Namespace }}
  {{- with .labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  config.yaml: |
    {{- include "datapulse-sidecar.config" . | nindent 4 }}
{{- end -}}
{{- end }}

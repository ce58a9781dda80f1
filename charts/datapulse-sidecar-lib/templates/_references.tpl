{{/* The keys of the configuration that refer to secrets (tests/charts compares them with its schema). */}}
{{- define "datapulse-sidecar.referenceKeys" -}}
["api_key", "caller_token", "client_secret", "fallback", "key", "password", "secret_id", "secrets", "token"]
{{- end }}

{{/*
A secret itself would be in a ConfigMap, and in Helm's release. The schema leaves it to this template:
Helm's own sentence would repeat it.
*/}}
{{- define "datapulse-sidecar.validateReferences" -}}
{{- $at := .at | default "the sidecar's values" -}}
{{- $found := dict "all" list -}}
{{- include "datapulse-sidecar.references" (dict "node" .v.config "path" "config" "found" $found) -}}
{{- $stores := get .v.config "stores" | default dict -}}
{{- range $found.all -}}
  {{- $scheme := regexFind "^(vault|aws|file|env):" .text -}}
  {{- if not $scheme -}}
    {{- fail (printf "%s: %s: expected a reference to a secret (vault:MOUNT/PATH#FIELD, aws:NAME#KEY, file:PATH or env:NAME), not a secret itself" $at .path) -}}
  {{- end -}}
  {{- if and (eq $scheme "vault:") (not (or $.v.vault.address (get $stores "vault"))) -}}
    {{- fail (printf "%s: %s is in Vault, and nothing says where that is: set vault.address" $at .path) -}}
  {{- end -}}
  {{- if and (eq $scheme "aws:") (not (or $.v.aws.region (hasKey $stores "aws"))) -}}
    {{- fail (printf "%s: %s is in AWS Secrets Manager, and nothing says in which region: set aws.region" $at .path) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* Puts every reference below `.node`, which is at `.path`, into `.found.all`. */}}
{{- define "datapulse-sidecar.references" -}}
{{- $keys := include "datapulse-sidecar.referenceKeys" . | fromJsonArray -}}
{{- range $key, $value := omit .node "params" -}}
  {{- $many := kindIs "slice" $value -}}
  {{- range $n, $each := ternary $value (list $value) $many -}}
    {{- $path := printf "%s.%s%s" $.path $key (ternary (printf "[%d]" $n) "" $many) -}}
    {{- if kindIs "map" $each -}}
      {{- include "datapulse-sidecar.references" (dict "node" $each "path" $path "found" $.found) -}}
    {{- else if and (has $key $keys) (not (kindIs "invalid" $each)) -}}
      {{- $_ := set $.found "all" (append $.found.all (dict "path" $path "text" (toString $each))) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}


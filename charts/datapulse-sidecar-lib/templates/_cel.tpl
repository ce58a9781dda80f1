{{/*
A value as a CEL literal. CEL's lists and maps hold one type only, so that what is inside one is
`dyn()`; the outermost value is not. A key with null is as one that is not there.
*/}}
{{- define "datapulse-sidecar.toCEL" -}}
{{- if kindIs "map" . -}}
  {{- $items := list -}}
  {{- range $key, $value := . -}}
    {{- if not (kindIs "invalid" $value) -}}
      {{- $items = append $items (printf "%s: dyn(%s)" (toJson $key) (include "datapulse-sidecar.toCEL" $value)) -}}
    {{- end -}}
  {{- end -}}
  {{- printf "{%s}" (join ", " $items) -}}
{{- else if kindIs "slice" . -}}
  {{- $items := list -}}
  {{- range . -}}
    {{- $items = append $items (printf "dyn(%s)" (include "datapulse-sidecar.toCEL" .)) -}}
  {{- end -}}
  {{- printf "[%s]" (join ", " $items) -}}
{{- else if kindIs "string" . -}}
  {{- toJson . -}}
{{- else if kindIs "bool" . -}}
  {{- . -}}
{{- else if kindIs "invalid" . -}}
  {{- fail "null has no place in a container's lists" -}}
{{- else if eq (float64 .) (float64 (int64 .)) -}}
  {{- printf "%d" (int64 .) -}}
{{- else -}}
  {{- fail "a number that is not whole has no place in a container" -}}
{{- end -}}
{{- end }}

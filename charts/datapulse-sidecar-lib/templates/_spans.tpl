{{/* How many whole seconds a span of the configuration takes, such as `1h 30min`; at least so many. */}}
{{- define "datapulse-sidecar.seconds" -}}
{{- $sum := 0.0 -}}
{{- range $part := regexFindAll "[0-9][0-9.\\s]*[^0-9.\\s]+" (toString .) -1 -}}
  {{- $number := regexReplaceAll "[^0-9.]" $part "" -}}
  {{- $unit := regexFind "[^0-9.\\s]+$" $part -}}
  {{- $each := 0.0 -}}
  {{- if regexMatch "^(ms|mill)" $unit -}}{{- $each = 0.001 -}}
  {{- else if hasPrefix "s" $unit -}}{{- $each = 1.0 -}}
  {{- else if regexMatch "^(M|month)" $unit -}}{{- $each = 2630016.0 -}}
  {{- else if hasPrefix "m" $unit -}}{{- $each = 60.0 -}}
  {{- else if hasPrefix "h" $unit -}}{{- $each = 3600.0 -}}
  {{- else if hasPrefix "d" $unit -}}{{- $each = 86400.0 -}}
  {{- else if hasPrefix "w" $unit -}}{{- $each = 604800.0 -}}
  {{- else if hasPrefix "y" $unit -}}{{- $each = 31557600.0 -}}
  {{- end -}}
  {{- $sum = addf $sum (mulf (float64 $number) $each) -}}
{{- end -}}
{{- ceil $sum | int64 -}}
{{- end }}

{{/* How many seconds a call may take until the head of its answer: the argument is a configuration. */}}
{{- define "datapulse-sidecar.answerTime" -}}
{{- $most := include "datapulse-sidecar.seconds" (get (.upstream | default dict) "request_timeout" | default "30s") | int64 -}}
{{- range $rule := .policy | default list -}}
  {{- with $rule.request_timeout -}}
    {{- $most = max $most (include "datapulse-sidecar.seconds" . | int64) -}}
  {{- end -}}
{{- end -}}
{{- $most -}}
{{- end }}

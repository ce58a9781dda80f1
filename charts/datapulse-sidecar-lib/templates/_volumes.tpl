{{/* The sidecar's volumes, as list items. No other container may mount them (the guard says so). */}}
{{- define "datapulse-sidecar.volumes" -}}
{{- include "datapulse-sidecar.prepare" . -}}
{{- $v := .v -}}
- name: datapulse-sidecar-config
{{- if eq .mode "profile" }}
  downwardAPI:
    items:
      - path: config.yaml
        fieldRef: {apiVersion: v1, fieldPath: "metadata.annotations['sidecar.datapulse.ai/config']"}
{{- else }}
  configMap: {name: {{ include "datapulse-sidecar.configMapName" . }}}
{{- end }}
- name: datapulse-sidecar-state
  emptyDir: {sizeLimit: 20Mi}
{{- if ne .mode "gateway" }}
- name: datapulse-sidecar-no-token
  emptyDir: {sizeLimit: 4Ki}
{{- end }}
{{- if include "datapulse-sidecar.hasVaultToken" . }}
{{- $of := get $v.vault.auth $v.vault.auth.method }}
- name: datapulse-sidecar-vault-token
  projected:
    sources:
      - serviceAccountToken: {audience: {{ $of.audience | toJson }}, expirationSeconds: {{ int64 $of.expirationSeconds }}, path: token}
{{- end }}
{{- with include "datapulse-sidecar.vaultSecret" . }}
- name: datapulse-sidecar-vault-auth
  secret: {secretName: {{ . }}}
{{- end }}
{{- if and $v.vault.address $v.vault.caBundle.configMap }}
- name: datapulse-sidecar-vault-ca
  configMap: {name: {{ $v.vault.caBundle.configMap }}}
{{- end }}
{{- with .moreVolumes }}
{{ toYaml . }}
{{- end }}
{{- with $v.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The app's container: it calls localhost, and holds no credential. */}}
{{- define "app.container" -}}
name: app
image: {{ .Values.image }}
env:
  - {name: DATAPULSE_BASE_URL, value: "http://localhost:{{ dig "ports" "proxy" 8080 .Values.sidecar }}"}
  # For an SDK that insists on one; the sidecar replaces it.
  - {name: DATAPULSE_API_KEY, value: placeholder}
resources:
  requests: {cpu: 100m, memory: 64Mi}
  limits: {memory: 128Mi}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: 10001
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "gateway.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $full | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of the pod of `helm test`. */}}
{{- define "gateway.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "gateway.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* The port of config.webhooks.listen; empty without webhooks. */}}
{{- define "gateway.webhookPort" -}}
{{- $listen := dig "webhooks" "listen" "" .Values.config -}}
{{- if $listen -}}
{{- regexFind "[0-9]+$" $listen -}}
{{- end -}}
{{- end }}

{{/* Puts the argument of the library's templates into `.sidecar` of the given dict. */}}
{{- define "gateway.sidecar" -}}
{{- include "gateway.validate" .root -}}
{{- $values := .root.Values -}}
{{- $gateway := $values.gateway -}}
{{- $full := include "gateway.fullname" .root -}}
{{- $namespace := .root.Release.Namespace -}}
{{- $hosts := list $full (printf "%s.%s" $full $namespace) (printf "%s.%s.svc" $full $namespace) (printf "%s.%s.svc.cluster.local" $full $namespace) -}}
{{- $listener := dict "listen" (printf "[::]:%d" (int $values.ports.proxy)) "allowed_hosts" (concat $hosts $gateway.allowedHosts | uniq) -}}
{{- $_ := set $listener "tls" (dict "cert_file" "/var/run/datapulse-sidecar/tls/tls.crt" "key_file" "/var/run/datapulse-sidecar/tls/tls.key") -}}
{{- $_ := set $listener "caller_token" (printf "file:/var/run/datapulse-sidecar/caller/%s" $gateway.callerToken.key) -}}
{{- $ports := list (dict "name" "proxy" "port" $values.ports.proxy) -}}
{{- with include "gateway.webhookPort" .root -}}
{{- $ports = append $ports (dict "name" "webhooks" "port" .) -}}
{{- end -}}
{{- $own := list "nameOverride" "fullnameOverride" "commonLabels" "imagePullSecrets" "podSecurityContext" "serviceAccount" "gateway" "networkPolicy" "metrics" "webhooks" "podAnnotations" "podLabels" "extraObjects" "datapulse-sidecar-lib" -}}
{{- $sidecar := dict "root" .root "values" $values "mode" "gateway" "at" "datapulse-sidecar" "knownValues" $own -}}
{{- $_ := set $sidecar "replicas" $gateway.replicas -}}
{{- $_ := set $sidecar "autoscaling" $gateway.autoscaling.enabled -}}
{{- $_ := set $sidecar "surge" $gateway.strategy.maxSurge -}}
{{- $_ := set $sidecar "listeners" (list $listener) -}}
{{- $_ := set $sidecar "morePorts" $ports -}}
{{- $_ := set $sidecar "configMapName" $full -}}
{{- $_ := set $sidecar "labels" (fromYaml (include "gateway.labels" .root)) -}}
{{- $_ := set $sidecar "moreMounts" (list
    (dict "name" "datapulse-sidecar-tls" "mountPath" "/var/run/datapulse-sidecar/tls" "readOnly" true)
    (dict "name" "datapulse-sidecar-caller" "mountPath" "/var/run/datapulse-sidecar/caller" "readOnly" true)) -}}
{{- $_ := set $sidecar "moreVolumes" (list
    (dict "name" "datapulse-sidecar-tls" "secret" (dict "secretName" $gateway.tls.existingSecret))
    (dict "name" "datapulse-sidecar-caller" "secret" (dict "secretName" $gateway.callerToken.existingSecret))) -}}
{{- include "datapulse-sidecar.prepareConfig" $sidecar -}}
{{- $_ := set . "sidecar" $sidecar -}}
{{- end }}

{{/* terminationGracePeriodSeconds of the pods; the argument is one of the library's. */}}
{{- define "gateway.gracePeriod" -}}
{{- $asked := .root.Values.gateway.terminationGracePeriodSeconds -}}
{{- $max := get (.config.drain | default dict) "max" | default "5s" -}}
{{- $least := add (include "datapulse-sidecar.seconds" $max) 12 -}}
{{- if eq (toString $asked) "auto" -}}
{{- add $least (include "datapulse-sidecar.answerTime" .config) -}}
{{- else if lt (int64 $asked) (int64 $least) -}}
{{- fail (printf "datapulse-sidecar: gateway.terminationGracePeriodSeconds: a pod that drains (drain.max: %s) and writes what it renewed (12 s) may take %d s, and would be killed before: set at least that, or auto, which also waits for the longest call" $max (int64 $least)) -}}
{{- else -}}
{{- int64 $asked -}}
{{- end -}}
{{- end }}

{{/* auto | true | false, and a kind: "true" where the object is to be made. */}}
{{- define "gateway.wanted" -}}
{{- $asked := .asked | toString -}}
{{- if not (has $asked (list "auto" "true" "false")) -}}
{{- fail (printf "datapulse-sidecar: %s: expected auto, true or false" .at) -}}
{{- end -}}
{{- if or (eq $asked "true") (and (eq $asked "auto") (.root.Capabilities.APIVersions.Has .kind)) -}}
true
{{- end -}}
{{- end }}

{{- define "gateway.validate" -}}
{{- $gateway := .Values.gateway -}}
{{- if not $gateway.tls.existingSecret -}}
  {{- fail "datapulse-sidecar: gateway.tls.existingSecret is empty: apps reach the gateway over the network, so it needs a certificate; name a Secret of type kubernetes.io/tls for its Service" -}}
{{- end -}}
{{- if not $gateway.callerToken.existingSecret -}}
  {{- fail "datapulse-sidecar: gateway.callerToken.existingSecret is empty: without one whoever reaches the gateway could use your credentials; name a Secret with the token that apps send as X-DataPulse-Sidecar-Token" -}}
{{- end -}}
{{- if not (has .Values.aws.identity (list "pod-identity" "irsa" "none")) -}}
  {{- fail "datapulse-sidecar: aws.identity: expected pod-identity, irsa or none" -}}
{{- end -}}
{{- if and (eq .Values.aws.identity "irsa") (not .Values.aws.irsa.roleArn) -}}
  {{- fail "datapulse-sidecar: aws.irsa.roleArn is empty: with identity irsa the service account names the role" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}
  {{- fail "datapulse-sidecar: networkPolicy.egress is empty: the gateway could reach neither DataPulse nor a store; list where it may go" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not (or .Values.networkPolicy.clients.podSelector .Values.networkPolicy.clients.namespaceSelector)) -}}
  {{- fail "datapulse-sidecar: networkPolicy.clients is empty: say which pods may call the gateway, by podSelector, namespaceSelector or both" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.networkPolicy.clients.lockDown (or .Values.networkPolicy.clients.namespaceSelector (not .Values.networkPolicy.clients.podSelector)) -}}
  {{- fail "datapulse-sidecar: networkPolicy.clients.lockDown: a NetworkPolicy is for its own namespace, and this one would leave clients of other namespaces every way out: give podSelector and no namespaceSelector, and apply the policy of docs/kubernetes.md in each other namespace" -}}
{{- end -}}
{{- if and .Values.webhooks.httpRoute.enabled (not (include "gateway.webhookPort" .)) -}}
  {{- fail "datapulse-sidecar: webhooks.httpRoute leads nowhere: config.webhooks.listen has no port" -}}
{{- end -}}
{{- if and .Values.webhooks.httpRoute.enabled (not .Values.webhooks.httpRoute.parentRefs) -}}
  {{- fail "datapulse-sidecar: webhooks.httpRoute.parentRefs is empty: name the Gateway that DataPulse reaches" -}}
{{- end -}}
{{- if not (regexMatch "^[0-9]+$" (toString $gateway.strategy.maxSurge)) -}}
  {{- fail "datapulse-sidecar: gateway.strategy.maxSurge: expected a whole number; each replica's share of a quota is reckoned with it" -}}
{{- end -}}
{{- end }}

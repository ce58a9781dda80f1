{{/* Fails with a sentence on values that could only go wrong later. */}}
{{- define "datapulse-sidecar.validate" -}}
{{- $known := keys (fromYaml (include "datapulse-sidecar.defaults" .)) -}}
{{- $more := .knownValues | default list -}}
{{- $at := .at | default "the sidecar's values" -}}
{{- range $key := keys (.values | default dict) | sortAlpha -}}
  {{- if not (or (has $key $known) (has $key $more) (has $key (list "enabled" "global"))) -}}
    {{- fail (printf "%s: there is no key `%s`; known are %s" $at $key (concat $known $more | sortAlpha | join ", ")) -}}
  {{- end -}}
{{- end -}}
{{- $v := .v -}}
{{- if not $v.image.repository -}}
  {{- fail (printf "%s: image.repository is empty: name the registry and repository that your nodes pull the sidecar from, without a tag" $at) -}}
{{- end -}}
{{- if and $v.image.digest (not (regexMatch "^sha256:[0-9a-f]{64}$" $v.image.digest)) -}}
  {{- fail (printf "%s: image.digest: expected sha256: and 64 hexadecimal digits" $at) -}}
{{- end -}}
{{- if regexMatch "(:[^/]+|@.*)$" $v.image.repository -}}
  {{- fail (printf "%s: image.repository holds a tag or digest: put it into image.tag or image.digest" $at) -}}
{{- end -}}
{{- if and $v.existingConfigMap $v.config -}}
  {{- fail (printf "%s: existingConfigMap and config are both set: keep one of them" $at) -}}
{{- end -}}
{{- if not (or $v.existingConfigMap (dig "credentials" list $v.config)) -}}
  {{- fail (printf "%s: config.credentials is empty: the sidecar needs at least one credential, or existingConfigMap" $at) -}}
{{- end -}}
{{- include "datapulse-sidecar.validateReferences" . -}}
{{- include "datapulse-sidecar.validatePorts" . -}}
{{- include "datapulse-sidecar.validateProbes" . -}}
{{- include "datapulse-sidecar.validateVault" . -}}
{{- include "datapulse-sidecar.validateShares" . -}}
{{- include "datapulse-sidecar.validateNames" . -}}
{{- end }}

{{/* Ports that lead to nobody, or to somebody else. */}}
{{- define "datapulse-sidecar.validatePorts" -}}
{{- $at := .at | default "the sidecar's values" -}}
{{- $port := int .v.ports.proxy -}}
{{- if eq $port (int .v.ports.health) -}}
  {{- fail (printf "%s: ports.health is %d, as ports.proxy is: two listeners cannot have one port" $at $port) -}}
{{- end -}}
{{- $listeners := get .v.config "listeners" | default list -}}
{{- if and $listeners (eq .mode "gateway") -}}
  {{- $isThere := false -}}
  {{- range $listeners -}}
    {{- $listen := toString .listen -}}
    {{- $isOpen := not (regexMatch "^(127\\.|localhost:|\\[::1\\]|unix:)" $listen) -}}
    {{- if and $isOpen (or (contains "${" $listen) (eq (regexFind "[0-9]+$" $listen) (toString $port))) -}}
      {{- $isThere = true -}}
    {{- end -}}
  {{- end -}}
  {{- if not $isThere -}}
    {{- fail (printf "%s: config.listeners: the Service leads to port %d (ports.proxy) of the pod, where nobody listens: leave it out, or have one listen on [::]:%d" $at $port $port) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* What the kubelet could not probe, or would kill before it has started. */}}
{{- define "datapulse-sidecar.validateProbes" -}}
{{- $at := .at | default "the sidecar's values" -}}
{{- $port := int .v.ports.health -}}
{{- with get (.v.config.health | default dict) "listen" -}}
  {{- if regexMatch "^(127\\.|localhost:|\\[::1\\]|\\[::ffff:127\\.)" . -}}
    {{- fail (printf "%s: config.health.listen is a loopback address, which the kubelet cannot probe: leave it out, or use [::]:%d" $at $port) -}}
  {{- end -}}
  {{- if ne (regexFind "[0-9]+$" .) (toString $port) -}}
    {{- fail (printf "%s: config.health.listen: the kubelet and Prometheus ask port %d (ports.health): leave it out, or name the port there" $at $port) -}}
  {{- end -}}
{{- end -}}
{{- if not .v.existingConfigMap -}}
  {{- $probe := .v.probes.startup -}}
  {{- $killed := mul (int $probe.periodSeconds) (int $probe.failureThreshold) -}}
  {{- $opens := include "datapulse-sidecar.seconds" (.v.config.startup_timeout | default "30s") | int -}}
  {{- if gt (add $opens 5) $killed -}}
    {{- fail (printf "%s: config.startup_timeout: the kubelet kills the sidecar after %d s (probes.startup), and while a store is down the app would never start: leave 5 s between them" $at $killed) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{- define "datapulse-sidecar.validateVault" -}}
{{- $vault := .v.vault -}}
{{- $at := .at | default "the sidecar's values" -}}
{{- $method := $vault.auth.method -}}
{{- if not (has $method (list "kubernetes" "jwt" "approle" "token")) -}}
  {{- fail (printf "%s: vault.auth.method: expected kubernetes, jwt, approle or token" $at) -}}
{{- end -}}
{{- if $vault.address -}}
  {{- if not (hasPrefix "https://" $vault.address) -}}
    {{- fail (printf "%s: vault.address: expected https://…; secrets do not travel in plain text" $at) -}}
  {{- end -}}
  {{- $of := get $vault.auth $method -}}
  {{- if and (has $method (list "kubernetes" "jwt")) (not $of.role) -}}
    {{- fail (printf "%s: vault.auth.%s.role is empty: name the role that Vault has for this service account" $at $method) -}}
  {{- end -}}
  {{- if and (has $method (list "kubernetes" "jwt")) (not $of.audience) -}}
    {{- fail (printf "%s: vault.auth.%s.audience is empty: a token for no audience in particular could be used at the API server" $at $method) -}}
  {{- end -}}
  {{- if and (eq $method "approle") (not (and $of.roleId $of.existingSecret)) -}}
    {{- fail (printf "%s: vault.auth.approle: give roleId, and existingSecret with the secret id" $at) -}}
  {{- end -}}
  {{- if and (eq $method "token") (not $of.existingSecret) -}}
    {{- fail (printf "%s: vault.auth.token.existingSecret is empty: name the Secret that holds the token" $at) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* Replicas that do not know of each other would each use the whole quota. */}}
{{- define "datapulse-sidecar.validateShares" -}}
{{- $at := .at | default "the sidecar's values" -}}
{{- $replicas := int (.replicas | default 1) -}}
{{- $surge := int (ternary 1 .surge (kindIs "invalid" .surge)) -}}
{{- $many := or (eq .mode "profile") (gt (add $replicas $surge) 1) .autoscaling -}}
{{- $fleet := dig "shaping" "fleet" "" .v.config -}}
{{- $share := .v.share | toString -}}
{{- if and $share (ne $share "auto") (not (regexMatch "^[1-9][0-9]*/[1-9][0-9]*$" $share)) -}}
  {{- fail (printf "%s: share: expected auto or a fraction such as 1/3" $at) -}}
{{- end -}}
{{- if and $many (not $fleet) -}}
{{- range $name, $quota := .v.config.quotas | default dict -}}
  {{- $limited := ne (dig "limit" "unlimited" $quota | toString) "unlimited" -}}
  {{- $own := get $quota "share" -}}
  {{- if and $limited (not $own) -}}
    {{- if and $.autoscaling (or (not $share) (eq $share "auto")) -}}
      {{- fail (printf "%s: config.quotas.%s: the number of replicas changes, and replicas that each use too much meet 429 in half their calls: give the quota a `share` for the most there can be (1/N of maxReplicas and surge), or switch autoscaling off" $at $name) -}}
    {{- else if and (eq $.mode "profile") (or (not $share) (eq $share "auto")) -}}
      {{- fail (printf "%s: config.quotas.%s: the pods of a profile cannot be counted, and two that each use the whole quota meet 429 in half their calls: give the quota a `share` (1/N for at most N pods, 1 where there is one)" $at $name) -}}
    {{- else if and (not $share) (le $replicas 1) -}}
      {{- fail (printf "%s: config.quotas.%s: while one replica is replaced two call at once, each with the whole quota, and meet 429: set share (auto: one part of replicas and surge), or 1/1 where the old pod has ended before the new one begins" $at $name) -}}
    {{- else if not $share -}}
      {{- fail (printf "%s: config.quotas.%s: %d replicas that do not know of each other would each use the whole quota, and meet 429 in half their calls: set share (auto: one part of replicas and surge)" $at $name $replicas) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Names that Kubernetes would accept twice, and server-side apply would not. */}}
{{- define "datapulse-sidecar.validateNames" -}}
{{- $at := .at | default "the sidecar's values" -}}
{{- $taken := list "POD_NAME" "POD_NAMESPACE" -}}
{{- range .v.extraEnv -}}
  {{- if has .name $taken -}}
    {{- fail (printf "%s: extraEnv: %s is set twice, or by the sidecar itself" $at .name) -}}
  {{- end -}}
  {{- $taken = append $taken .name -}}
{{- end -}}
{{- range .v.extraVolumes -}}
  {{- if has .name (list "datapulse-sidecar-config" "datapulse-sidecar-vault-token" "datapulse-sidecar-state" "datapulse-sidecar-no-token" "datapulse-sidecar-vault-ca" "datapulse-sidecar-vault-auth" "datapulse-sidecar-tls" "datapulse-sidecar-caller") -}}
    {{- fail (printf "%s: extraVolumes: %s is a volume of the sidecar's own" $at .name) -}}
  {{- end -}}
{{- end -}}
{{- end }}

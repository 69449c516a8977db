{{/* What would go wrong later fails here, and says what to change. What a schema can tell is in values.schema.json. */}}

{{- define "fanwire.checks" -}}
{{- $engine := .Values.config.engine }}
{{- if and (eq $engine.type "memory") (gt (include "fanwire.replicasMax" . | int) 1) }}
  {{- fail "config.engine.type \"memory\" serves one pod: clients of different pods would not hear each other. Set it to \"redis\" with config.engine.redis.address, or replicas to 1 and autoscaling.enabled to false." }}
{{- end }}
{{- if and (eq $engine.type "redis") (not (include "fanwire.redisAddress" .)) }}
  {{- fail "config.engine.type \"redis\" needs config.engine.redis.address, such as \"redis.databases.svc:6379\"." }}
{{- end }}
{{- if hasKey (.Values.config.api | default dict) "true" }}
  {{- fail "YAML takes the key `on` of config.api for the truth value: write it in quotes, as \"on\"." }}
{{- end }}

{{- $secrets := dict
  "api.keys" "apiKeys"
  "client.token.hmac_secret" "tokenHmacSecret"
  "client.token.hmac_previous_secret" "tokenHmacPreviousSecret"
  "engine.redis.password" "redisPassword"
}}
{{- range $path, $key := $secrets }}
  {{- if include "fanwire.configHas" (dict "root" $ "path" $path) }}
    {{- fail (printf "config.%s is secret, and everybody who may read ConfigMaps would see it: put it into a Secret, and name that in secret.existingSecret and its key in secret.keys.%s." $path $key) }}
  {{- end }}
{{- end }}
{{- range $path := list "client.subscription_token.hmac_secret" "client.subscription_token.hmac_previous_secret" }}
  {{- if include "fanwire.configHas" (dict "root" $ "path" $path) }}
    {{- fail (printf "config.%s is secret, and everybody who may read ConfigMaps would see it: put it into a Secret, and set FANWIRE_%s from that by extraEnv." $path ($path | replace "." "__" | upper)) }}
  {{- end }}
{{- end }}
{{- range $path := list "server.address" "server.port" }}
  {{- if include "fanwire.configHas" (dict "root" $ "path" $path) }}
    {{- fail (printf "config.%s is set by the chart; service.client.port is where clients connect." $path) }}
  {{- end }}
{{- end }}
{{- range $path := list "server.tls.certificate_file" "server.tls.key_file" }}
  {{- if include "fanwire.configHas" (dict "root" $ "path" $path) }}
    {{- fail (printf "config.%s is set by the chart; tls.existingSecret names the Secret that the file is from." $path) }}
  {{- end }}
{{- end }}

{{- $ending := include "fanwire.shutdownSeconds" . | int }}
{{- if lt (.Values.terminationGracePeriodSeconds | int) (add $ending 10 | int) }}
  {{- fail (printf "terminationGracePeriodSeconds is %d, but config.shutdown.propagation, window and timeout together are %d s, and a pod may take 10 s more; Kubernetes would kill it while it sends its clients away. Set it to %d or more." (int .Values.terminationGracePeriodSeconds) $ending (add $ending 10)) }}
{{- end }}

{{- $scaling := .Values.autoscaling }}
{{- if $scaling.enabled }}
  {{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
    {{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas." }}
  {{- end }}
  {{- if not (or $scaling.targetCPUUtilizationPercentage $scaling.targetMemoryUtilizationPercentage $scaling.targetClientsPerPod) }}
    {{- fail "autoscaling needs a target: set autoscaling.targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or targetClientsPerPod." }}
  {{- end }}
{{- end }}

{{- $budget := .Values.podDisruptionBudget }}
{{- if and $budget.enabled (eq (kindIs "invalid" $budget.maxUnavailable) (kindIs "invalid" $budget.minAvailable)) }}
  {{- fail "podDisruptionBudget takes exactly one of maxUnavailable and minAvailable; set the other to null." }}
{{- end }}

{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
  {{- fail "httpRoute.enabled needs httpRoute.parentRefs: the Gateways that take the route." }}
{{- end }}
{{- end }}

{{/* Not empty when the configuration has something at a path. Takes a dict: root, path with dots. */}}
{{- define "fanwire.configHas" -}}
{{- $here := .root.Values.config }}
{{- range splitList "." .path }}
  {{- $here = ternary $here dict (kindIs "map" $here) }}
  {{- $here = get $here . }}
{{- end }}
{{- if not (or (kindIs "invalid" $here) (eq (toString $here) "")) }}yes{{ end }}
{{- end }}

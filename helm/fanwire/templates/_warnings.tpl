{{/* What works but may not be meant, for NOTES.txt. */}}

{{- define "fanwire.warnings" -}}
{{- $warnings := list }}
{{- $client := .Values.config.client | default dict }}
{{- $api := .Values.config.api | default dict }}

{{- if not .Values.secret.existingSecret }}
  {{- $warnings = append $warnings (printf "There is no Secret, so the API is closed, and no client can prove who it is by a shared secret. Make one and set secret.existingSecret=fanwire:\n      kubectl --namespace %s create secret generic fanwire --from-literal=token-hmac-secret=\"$(openssl rand -hex 32)\" --from-literal=api-keys=\"$(openssl rand -hex 32)\"" .Release.Namespace) }}
{{- end }}
{{- if eq .Values.config.engine.type "memory" }}
  {{- $warnings = append $warnings "The memory engine forgets history and presence when its pod ends, and serves one pod only; while a rollout replaces it, clients of the old and the new pod do not hear each other." }}
{{- end }}
{{- if has "*" ($client.allowed_origins | default list) }}
  {{- $warnings = append $warnings "config.client.allowed_origins has \"*\": a page of any origin can connect as whoever looks at it." }}
{{- else if not $client.allowed_origins }}
  {{- $warnings = append $warnings "config.client.allowed_origins is empty: no web page can connect." }}
{{- end }}
{{- if or $client.insecure (dig "token" "insecure_skip_signature" false $client) $api.insecure }}
  {{- $warnings = append $warnings "A key of config called `insecure` is on: it is for development only." }}
{{- end }}
{{- if ne (get $api "on" | default "both") "internal" }}
  {{- $warnings = append $warnings "config.api.on lets the API answer on the port of clients. Routes of this chart do not lead to it; a Service of type LoadBalancer or NodePort does." }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.annotations) }}
  {{- $warnings = append $warnings "The Ingress has no annotations. Most controllers end connections that are silent for 60 s and buffer events; see \"In front of it\" in the chart's README." }}
{{- end }}
{{- if and .Values.tls.existingSecret (or .Values.ingress.enabled .Values.httpRoute.enabled) }}
  {{- $warnings = append $warnings "Pods encrypt the port of clients (tls.existingSecret), so what routes to them must speak TLS as well: an Ingress by an annotation of its controller, a Gateway by a BackendTLSPolicy." }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.targetClientsPerPod) (not .Values.autoscaling.targetMemoryUtilizationPercentage) }}
  {{- $warnings = append $warnings "Autoscaling looks at CPU only, which idle connections do not use: pods may fill with clients unseen. Consider autoscaling.targetClientsPerPod." }}
{{- end }}
{{- if and (not .Values.autoscaling.enabled) (gt (int .Values.replicas) 1) (not .Values.podDisruptionBudget.enabled) }}
  {{- $warnings = append $warnings "There is no PodDisruptionBudget: draining hosts may end several pods at once." }}
{{- end }}
{{- if not .Values.networkPolicy.enabled }}
  {{- $warnings = append $warnings "There is no NetworkPolicy: every pod of the cluster reaches the internal port. networkPolicy.enabled=true closes it to other namespaces." }}
{{- end }}
{{- range $enabled, $api := dict "serviceMonitor" "monitoring.coreos.com/v1" "httpRoute" "gateway.networking.k8s.io/v1" }}
  {{- if and (get $.Values $enabled).enabled (not ($.Capabilities.APIVersions.Has $api)) }}
    {{- $warnings = append $warnings (printf "%s.enabled needs %s, which this cluster does not have." $enabled $api) }}
  {{- end }}
{{- end }}
{{- range $warnings }}

  * {{ . }}
{{- end }}
{{- end }}

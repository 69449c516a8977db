{{/* Names, labels and the numbers that several objects share. */}}

{{- define "fanwire.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for the longest suffix that an object adds. */}}
{{- define "fanwire.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" }}
{{- else }}
{{- $name := include "fanwire.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 54 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "fanwire.internalName" -}}
{{- include "fanwire.fullname" . }}-internal
{{- end }}

{{/* These never change, since a Deployment's selector cannot. */}}
{{- define "fanwire.selectorLabels" -}}
app.kubernetes.io/name: {{ include "fanwire.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* For objects. Pods have the selector's only: a label that changes with the chart would replace every pod. */}}
{{- define "fanwire.labels" -}}
{{ include "fanwire.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An object's metadata. Takes a dict: root, and where they differ from the release's, name, annotations, labels. */}}
{{- define "fanwire.metadata" -}}
name: {{ default (include "fanwire.fullname" .root) .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "fanwire.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "fanwire.image" -}}
{{- $image := .Values.image }}
{{- $name := ternary (printf "%s/%s" $image.registry $image.repository) $image.repository (ne $image.registry "") }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- define "fanwire.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "fanwire.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The paths on which clients connect, as JSON: nothing else is routed from outside. */}}
{{- define "fanwire.clientPaths" -}}
{{- $paths := list (dig "websocket" "path" "/connection/websocket" .Values.config) }}
{{- range $section, $path := dict
  "subscribe" "/subscribe"
  "publish" "/publish"
  "http_stream" "/connection/http_stream"
  "sse" "/connection/sse"
  "probe" "/probe"
  "uni_websocket" "/connection/uni_websocket"
  "uni_http_stream" "/connection/uni_http_stream"
  "uni_sse" "/connection/uni_sse" }}
{{- if dig $section "enabled" true $.Values.config }}
{{- $paths = append $paths (dig $section "path" $path $.Values.config) }}
{{- end }}
{{- end }}
{{- if or (dig "http_stream" "enabled" true .Values.config) (dig "sse" "enabled" true .Values.config) }}
{{- $paths = append $paths (dig "emulation" "path" "/emulation" .Values.config) }}
{{- end }}
{{- range dig "topics" "namespaces" list .Values.config }}
{{- if .status }}
{{- with dig "status" "heartbeat_path" "/heartbeat" $.Values.config }}
{{- $paths = append $paths . }}
{{- end }}
{{- end }}
{{- end }}
{{- $paths | toJson }}
{{- end }}

{{/* Most pods there can be, but for those that a rollout adds. */}}
{{- define "fanwire.replicasMax" -}}
{{- ternary .Values.autoscaling.maxReplicas .Values.replicas .Values.autoscaling.enabled | int }}
{{- end }}

{{/* How long a pod may take to end, in seconds. The schema has seen to it that each is a number and an `s`. */}}
{{- define "fanwire.shutdownSeconds" -}}
{{- $shutdown := .Values.config.shutdown }}
{{- $seconds := 0 }}
{{- range list $shutdown.propagation $shutdown.window $shutdown.timeout }}
{{- $seconds = add $seconds (trimSuffix "s" . | atoi) }}
{{- end }}
{{- $seconds }}
{{- end }}

{{/* "host:port" of Redis, or nothing. */}}
{{- define "fanwire.redisAddress" -}}
{{- if eq .Values.config.engine.type "redis" }}
{{- dig "engine" "redis" "address" "" .Values.config }}
{{- end }}
{{- end }}

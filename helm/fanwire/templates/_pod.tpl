{{/* Parts of the pod: its configuration file, and the secrets that it reads from files. */}}

{{/* The file that nodes read: the values' config, with ports, addresses and certificate as the rest of the chart has them. */}}
{{- define "fanwire.configuration" -}}
{{- $listeners := dict
  "server" (dict "address" "0.0.0.0" "port" 8000)
  "internal" (dict "address" "0.0.0.0" "port" 9000)
}}
{{- if .Values.tls.existingSecret }}
{{- $files := dict "certificate_file" "/etc/fanwire/tls/tls.crt" "key_file" "/etc/fanwire/tls/tls.key" }}
{{- $_ := set $listeners.server "tls" $files }}
{{- end }}
{{- toYaml (merge $listeners .Values.config) }}
{{- end }}

{{/* Each part of the Secret that is used: the key's name in values, and the variable that names its file. */}}
{{- define "fanwire.secretVariables" -}}
tokenHmacSecret: FANWIRE_CLIENT__TOKEN__HMAC_SECRET_FILE
tokenHmacPreviousSecret: FANWIRE_CLIENT__TOKEN__HMAC_PREVIOUS_SECRET_FILE
apiKeys: FANWIRE_API__KEYS_FILE
redisPassword: FANWIRE_ENGINE__REDIS__PASSWORD_FILE
{{- end }}

{{- define "fanwire.environment" -}}
{{- $secret := .Values.secret }}
{{- if $secret.existingSecret }}
{{- range $key, $variable := include "fanwire.secretVariables" . | fromYaml }}
{{- with get $secret.keys $key }}
- name: {{ $variable }}
  value: /etc/fanwire/secret/{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "fanwire.secretItems" -}}
{{- range $key := keys .Values.secret.keys | sortAlpha }}
{{- with get $.Values.secret.keys $key }}
- key: {{ . }}
  path: {{ . }}
{{- end }}
{{- end }}
{{- end }}

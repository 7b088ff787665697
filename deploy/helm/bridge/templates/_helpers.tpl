{{- define "bridge.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name }}{{ end }}
{{- end }}

{{- define "bridge.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bridge.labels" -}}
{{ include "bridge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "bridge.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "bridge.checkStop" -}}
{{- $shutdown := 25 }}
{{- with regexFind `(?m)^\s*shutdown_timeout\s*=\s*["'][^"'\n]+` .Values.config }}
{{- $shutdown = 0 }}
{{- range regexFindAll `\d+(ms|[dhms])` . -1 }}
{{- $unit := dict "s" 1 "m" 60 "h" 3600 "d" 86400 "ms" 0 }}
{{- $shutdown = add $shutdown (mul (regexFind `\d+` .) (get $unit (regexFind `[a-z]+` .))) }}
{{- end }}
{{- end }}
{{- $least := add .Values.preStopSeconds $shutdown 4 }}
{{- if le (int .Values.terminationGracePeriodSeconds) (int $least) }}
{{- fail (printf "terminationGracePeriodSeconds must be more than %d: preStopSeconds, server.shutdown_timeout and 4 seconds." $least) }}
{{- end }}
{{- end }}

{{- define "bridge.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

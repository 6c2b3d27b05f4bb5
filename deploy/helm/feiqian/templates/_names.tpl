{{/* Always with `feiqian` in it: the alerts find targets by a job of that name. */}}
{{- define "feiqian.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-feiqian" (trunc 40 .Release.Name)) (contains "feiqian" .Release.Name) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "feiqian.selector" -}}
app.kubernetes.io/name: feiqian
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "feiqian.labels" -}}
{{ include "feiqian.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What runs: role and its values, as YAML. SQLite has one writer, so one process does everything. */}}
{{- define "feiqian.roles" -}}
{{- if eq .Values.store.kind "sqlite" -}}
{{- dict "all" .Values.roles.all | toYaml -}}
{{- else -}}
{{- $roles := dict -}}
{{- range $role, $it := omit .Values.roles "all" -}}
{{- if dig "enabled" true $it -}}{{- $_ := set $roles $role $it -}}{{- end -}}
{{- end -}}
{{- $roles | toYaml -}}
{{- end -}}
{{- end }}

{{/* The role that merchants and payers talk to. */}}
{{- define "feiqian.front" -}}
{{- ternary "all" "gateway" (eq .Values.store.kind "sqlite") -}}
{{- end }}

{{/* The role that operators talk to; empty: none runs. */}}
{{- define "feiqian.console" -}}
{{- if eq .Values.store.kind "sqlite" }}all{{ else if .Values.roles.console.enabled }}console{{ end -}}
{{- end }}

{{/* feiqian.toml. What the chart knows better than its reader must not be said twice. */}}
{{- define "feiqian.config" -}}
{{- range list "store" "bus" -}}
{{- if regexMatch (printf "(?m)^\\s*\\[%s\\]" .) $.Values.config -}}
{{- fail (printf "config: remove [%s]; it follows from the value `%s`" . .) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "(?m)^\\s*(listen|admin_listen|public_url)\\s*=" .Values.config -}}
{{- fail "config: remove listen, admin_listen and public_url; the chart sets them" -}}
{{- end -}}
{{ .Values.config }}
{{- end }}

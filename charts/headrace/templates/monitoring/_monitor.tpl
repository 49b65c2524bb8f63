{{/* An endpoint of a monitor. Of (dict "values" .Values.metrics.… "port" "http" "honorLabels" false). */}}
{{- define "headrace.scrape" -}}
- port: {{ .port }}
  path: /metrics
  {{- if .honorLabels }}
  honorLabels: true
  {{- end }}
  {{- with .values.interval }}
  interval: {{ . }}
  {{- end }}
  {{- with .values.relabelings }}
  relabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "headrace.monitorMetadata" -}}
metadata:
  name: {{ include "headrace.fullname" .root }}-{{ .component }}
  namespace: {{ default .root.Release.Namespace .values.namespace }}
  {{- include "headrace.metadata" (merge (dict "labels" .values.labels) .) | nindent 2 }}
{{- end -}}

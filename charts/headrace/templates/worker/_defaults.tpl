{{/* What pods of pools have where their own templates say nothing, as the operator reads it; empty if that is nothing. Of the root. */}}
{{- define "headrace.workerDefaults" -}}
{{- $defaults := .Values.worker.defaults -}}
{{- $container := dict -}}
{{- range $field := list "resources" "securityContext" -}}
{{- with index $defaults $field }}{{ $_ := set $container $field . }}{{ end -}}
{{- end -}}
{{- $spec := deepCopy (default (dict) $defaults.podSpec) -}}
{{- with $defaults.podSecurityContext }}{{ $_ := set $spec "securityContext" . }}{{ end -}}
{{- with $container }}{{ $_ := set $spec "containers" (list .) }}{{ end -}}
{{- $metadata := dict -}}
{{- with $defaults.podLabels }}{{ $_ := set $metadata "labels" . }}{{ end -}}
{{- with $defaults.podAnnotations }}{{ $_ := set $metadata "annotations" . }}{{ end -}}
{{- $template := dict -}}
{{- with $metadata }}{{ $_ := set $template "metadata" . }}{{ end -}}
{{- with $spec }}{{ $_ := set $template "spec" . }}{{ end -}}
{{- with $template }}{{ toJson . }}{{ end -}}
{{- end -}}

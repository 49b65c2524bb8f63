{{/* The Secrets that a release needs, and the commands that make them. */}}

{{- define "headrace.redisSecretLine" -}}
{{- $redis := .Values.redis -}}
kubectl create secret generic {{ $redis.existingSecret }} --namespace {{ .Release.Namespace }}
{{- if $redis.embedded.enabled }} --from-literal={{ $redis.keys.addr }}={{ include "headrace.redisName" . }}.{{ .Release.Namespace }}:6379 --from-literal={{ $redis.keys.password }}="$(openssl rand -hex 24)"
{{- else if include "headrace.redisUrl" . }} --from-literal={{ $redis.keys.password }}='PASSWORD'
{{- else }} --from-literal={{ $redis.keys.url }}='redis://:PASSWORD@HOST:6379/0'
{{- end }}
{{- end -}}

{{- define "headrace.tokensSecretLine" -}}
kubectl create secret generic {{ .Values.api.auth.existingSecret }} --namespace {{ .Release.Namespace }} --from-literal={{ .Values.api.auth.key }}="admin:$(openssl rand -hex 24)"
{{- end -}}

{{/* What is wrong with one Secret; empty if nothing is. Of (dict "root" $ "name" … "keys" (list …)), of which one must be there. */}}
{{- define "headrace.secretFault" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .name -}}
{{- if not $found -}}
{{- /* Without a cluster a lookup of all gives nothing at all; with one, at least an empty list. */ -}}
{{- if lookup "v1" "Secret" .root.Release.Namespace "" -}}
the Secret {{ .name }} is missing in namespace {{ .root.Release.Namespace }}
{{- end -}}
{{- else -}}
{{- $there := false -}}
{{- range .keys -}}
{{- if hasKey (default (dict) $found.data) . }}{{ $there = true }}{{ end -}}
{{- end -}}
{{- if not $there -}}
the Secret {{ .name }} in namespace {{ .root.Release.Namespace }} lacks the key {{ join " or " .keys }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "headrace.checkSecrets" -}}
{{- if .Values.checkSecrets -}}
{{- $keys := .Values.redis.keys -}}
{{- $faults := list -}}
{{- $lines := list -}}
{{- $wanted := list $keys.url $keys.addr -}}
{{- if include "headrace.redisUrl" . }}{{ $wanted = list $keys.password }}{{ end -}}
{{- /* A Redis that the values name may have no password, and then no Secret. */ -}}
{{- if or .Values.redis.embedded.enabled (not (include "headrace.redisUrl" .)) -}}
{{- with include "headrace.secretFault" (dict "root" . "name" .Values.redis.existingSecret "keys" $wanted) -}}
{{- $faults = append $faults . -}}
{{- $lines = append $lines (include "headrace.redisSecretLine" $) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.api.enabled (eq .Values.api.auth.mode "tokens") -}}
{{- with include "headrace.secretFault" (dict "root" . "name" .Values.api.auth.existingSecret "keys" (list .Values.api.auth.key)) -}}
{{- $faults = append $faults . -}}
{{- $lines = append $lines (include "headrace.tokensSecretLine" $) -}}
{{- end -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "%s. Make it, then install again:\n\n%s\n\n(Something else will make it later? --set checkSecrets=false)" (join ", and " $faults) (join "\n" $lines)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

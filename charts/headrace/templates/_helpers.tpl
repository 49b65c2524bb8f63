{{/* Names, labels, images: what every template needs. */}}

{{- define "headrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "headrace.fullname" -}}
{{- $name := include "headrace.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of (dict "root" $ "component" "api"). What selectors have can never be changed, so it is no more than this. */}}
{{- define "headrace.selectorLabels" -}}
app.kubernetes.io/name: {{ include "headrace.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Each label once: of what several say, the nearest counts, and nothing changes what selectors find. Of (dict "root" $
"component" … "own" {…}), and "versions" where they may be: a pod is made anew when its label changes, and Redis need not be for
a new chart. */}}
{{- define "headrace.labels" -}}
{{- $ours := dict "app.kubernetes.io/managed-by" .root.Release.Service "app.kubernetes.io/part-of" "headrace" -}}
{{- if .versions -}}
{{- $_ := set $ours "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $ours "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- end -}}
{{- $fixed := include "headrace.selectorLabels" . | fromYaml -}}
{{- toYaml (merge $fixed (default (dict) .own) (default (dict) .root.Values.commonLabels) $ours) -}}
{{- end -}}

{{/* Labels and annotations of an object's metadata. Of (dict "root" $ "component" … "annotations" {…}). */}}
{{- define "headrace.metadata" -}}
labels:
  {{- include "headrace.labels" (dict "root" .root "component" .component "own" .labels "versions" true) | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) (default (dict) .root.Values.commonAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Of (dict "root" $ "image" .Values.image "default" tag). */}}
{{- define "headrace.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry -}}
{{- $name := compact (list $registry .image.repository) | join "/" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .default .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "headrace.serviceAccountName" -}}
{{- if .workload.serviceAccount.create -}}
{{- default (printf "%s-%s" (include "headrace.fullname" .root) .component) .workload.serviceAccount.name -}}
{{- else -}}
{{- default "default" .workload.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "headrace.redisName" -}}
{{ include "headrace.fullname" . }}-redis
{{- end -}}

{{/* Where Redis is, as far as the values say it; empty where the Secret does. */}}
{{- define "headrace.redisUrl" -}}
{{- $redis := .Values.redis -}}
{{- $scheme := ternary "rediss" "redis" $redis.tls.enabled -}}
{{- $query := ternary "?ssl_check_hostname=false" "" (and $redis.tls.enabled (not $redis.tls.checkHostname)) -}}
{{- $external := $redis.external -}}
{{- if $redis.embedded.enabled -}}
redis://{{ include "headrace.redisName" . }}:6379/0
{{- else if $external.url -}}
{{ $external.url }}
{{- else if $external.sentinel.masterName -}}
{{ $scheme }}+sentinel://{{ join "," $external.sentinel.nodes }}/{{ $external.sentinel.masterName }}/{{ $external.db }}{{ $query }}
{{- else if $external.host -}}
{{- $host := ternary (printf "[%s]" $external.host) $external.host (contains ":" $external.host) -}}
{{ $scheme }}://{{ $host }}:{{ $external.port }}/{{ $external.db }}{{ $query }}
{{- end -}}
{{- end -}}

{{/* The Secret with the API's tokens. */}}
{{- define "headrace.tokensSecret" -}}
{{ default .Values.redis.existingSecret .Values.api.auth.existingSecret }}
{{- end -}}

{{/* Values that may have templates in them. Of (dict "root" $ "value" …). */}}
{{- define "headrace.tpl" -}}
{{- $text := ternary .value (toYaml .value) (kindIs "string" .value) -}}
{{- tpl $text .root -}}
{{- end -}}

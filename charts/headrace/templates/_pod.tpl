{{/* What all our pods have in common, in one place: nobody can forget a security context or a pull secret. */}}

{{- define "headrace.pullSecrets" -}}
{{- with concat (default (list) .Values.global.imagePullSecrets) (default (list) .Values.imagePullSecrets) | uniq }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Of (dict "root" $ "workload" .Values.api). */}}
{{- define "headrace.podSecurityContext" -}}
{{- toYaml (mergeOverwrite (deepCopy (default (dict) .root.Values.podSecurityContext)) (default (dict) .workload.podSecurityContext)) -}}
{{- end -}}

{{- define "headrace.securityContext" -}}
{{- toYaml (mergeOverwrite (deepCopy (default (dict) .root.Values.securityContext)) (default (dict) .workload.securityContext)) -}}
{{- end -}}

{{/* The metadata of a pod template. Of (dict "root" $ "workload" … "component" …). */}}
{{- define "headrace.podMetadata" -}}
labels:
  {{- include "headrace.labels" (dict "root" .root "component" .component "own" .workload.podLabels) | nindent 2 }}
{{- with merge (dict) (default (dict) .workload.podAnnotations) (default (dict) .root.Values.commonAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A pod's fields beside its containers and volumes. Of (dict "root" $ "workload" … "component" … "automount" false). */}}
{{- define "headrace.podSpec" -}}
{{- $workload := .workload -}}
serviceAccountName: {{ include "headrace.serviceAccountName" . }}
automountServiceAccountToken: {{ .automount }}
# The variables of services would look like settings of ours.
enableServiceLinks: false
{{- include "headrace.pullSecrets" .root }}
securityContext:
  {{- include "headrace.podSecurityContext" . | nindent 2 }}
terminationGracePeriodSeconds: {{ $workload.terminationGracePeriodSeconds }}
topologySpreadConstraints:
{{- if $workload.topologySpreadConstraints }}
  {{- include "headrace.tpl" (dict "root" .root "value" $workload.topologySpreadConstraints) | nindent 2 }}
{{- else }}
{{- $context := . }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "headrace.selectorLabels" $context | nindent 8 }}
{{- end }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "dnsConfig" "initContainers" }}
{{- with index $workload $field }}
{{ $field }}:
  {{- include "headrace.tpl" (dict "root" $.root "value" .) | nindent 2 }}
{{- end }}
{{- end }}
{{- with $workload.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $workload.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with include "headrace.hostUsers" $workload }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Of a workload. False says something, so it is not left out as what is empty. */}}
{{- define "headrace.hostUsers" -}}
{{- if kindIs "bool" .hostUsers -}}
hostUsers: {{ .hostUsers }}
{{- end -}}
{{- end -}}

{{/* Image, security and resources of our container. */}}
{{- define "headrace.container" -}}
image: {{ include "headrace.image" (dict "root" .root "image" .root.Values.image "default" .root.Chart.AppVersion) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- include "headrace.securityContext" . | nindent 2 }}
{{- with .workload.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .workload.lifecycle }}
lifecycle:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .workload.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The three probes. Of (dict "workload" … "port" "http"). */}}
{{- define "headrace.probes" -}}
{{- $startup := dict "httpGet" (dict "path" "/livez" "port" .port) "periodSeconds" 1 "failureThreshold" 60 "timeoutSeconds" 5 -}}
{{- $liveness := dict "httpGet" (dict "path" "/livez" "port" .port) "periodSeconds" 10 "failureThreshold" 3 "timeoutSeconds" 5 -}}
{{- $readiness := dict "httpGet" (dict "path" "/readyz" "port" .port) "periodSeconds" 2 "failureThreshold" 2 "timeoutSeconds" 5 -}}
startupProbe:
  {{- toYaml (mergeOverwrite $startup (default (dict) .workload.startupProbe)) | nindent 2 }}
livenessProbe:
  {{- toYaml (mergeOverwrite $liveness (default (dict) .workload.livenessProbe)) | nindent 2 }}
readinessProbe:
  {{- toYaml (mergeOverwrite $readiness (default (dict) .workload.readinessProbe)) | nindent 2 }}
{{- end -}}

{{/* Where Redis is, and how to get in: the same variables as the operator gives to workers. Of the root. What must be there
is not optional, so that a pod without it does not start and says which key of which Secret it waits for. */}}
{{- define "headrace.redisEnv" -}}
{{- $redis := .Values.redis -}}
{{- $url := include "headrace.redisUrl" . -}}
{{- if $url }}
- name: HEADRACE_URL
  value: {{ $url | quote }}
{{- else if $redis.keys.url }}
{{- include "headrace.secretEnv" (list . "HEADRACE_URL" $redis.keys.url false) }}
{{- else }}
{{- include "headrace.secretEnv" (list . "REDIS_ADDR" $redis.keys.addr false) }}
{{- include "headrace.secretEnv" (list . "REDIS_PASSWORD" $redis.keys.password true) }}
{{- end }}
{{- if $redis.external.username }}
- name: HEADRACE_REDIS_USERNAME
  value: {{ $redis.external.username | quote }}
{{- end }}
{{- if $redis.existingSecret }}
{{- include "headrace.secretEnv" (list . "HEADRACE_REDIS_PASSWORD" $redis.keys.password (not $url)) }}
{{- if not $redis.embedded.enabled }}
{{- if not $redis.external.username }}
{{- include "headrace.secretEnv" (list . "HEADRACE_REDIS_USERNAME" $redis.keys.username true) }}
{{- end }}
{{- include "headrace.secretEnv" (list . "HEADRACE_REDIS_SENTINEL_PASSWORD" $redis.keys.sentinelPassword true) }}
{{- end }}
{{- end }}
{{- if $redis.tls.caSecret }}
- name: HEADRACE_REDIS_CA
  value: /etc/headrace/redis-ca/{{ $redis.tls.caKey }}
{{- end }}
{{- if $redis.tls.clientCertSecret }}
- name: HEADRACE_REDIS_CERT
  value: /etc/headrace/redis-client/tls.crt
- name: HEADRACE_REDIS_KEY
  value: /etc/headrace/redis-client/tls.key
{{- end }}
{{- end -}}

{{/* Of (list $ variable key optional). */}}
{{- define "headrace.secretEnv" }}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef: {name: {{ (index . 0).Values.redis.existingSecret }}, key: {{ index . 2 }}, optional: {{ index . 3 }}}
{{- end }}

{{/* Variables of ours, but for those that the values name themselves: the API server refuses two of one name. Of (dict "own" text "extra" list). */}}
{{- define "headrace.env" -}}
{{- $names := list -}}
{{- range .extra }}{{ $names = append $names .name }}{{ end -}}
{{- $variables := list -}}
{{- range .own | fromYamlArray }}{{ if not (has .name $names) }}{{ $variables = append $variables . }}{{ end }}{{ end -}}
{{- toYaml (concat $variables (default (list) .extra)) -}}
{{- end -}}

{{- define "headrace.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .root.Values.redis.tls.caSecret }}
- {name: redis-ca, mountPath: /etc/headrace/redis-ca, readOnly: true}
{{- end }}
{{- if .root.Values.redis.tls.clientCertSecret }}
- {name: redis-client, mountPath: /etc/headrace/redis-client, readOnly: true}
{{- end }}
{{- with .workload.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "headrace.volumes" -}}
- name: tmp
  emptyDir: {}
{{- with .root.Values.redis.tls.caSecret }}
- name: redis-ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .root.Values.redis.tls.clientCertSecret }}
- name: redis-client
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .workload.extraVolumes }}
{{ include "headrace.tpl" (dict "root" $.root "value" .) }}
{{- end }}
{{- end -}}

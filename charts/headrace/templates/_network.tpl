{{/* Parts of NetworkPolicies. */}}

{{- define "headrace.policyMetadata" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "headrace.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "headrace.metadata" . | nindent 2 }}
{{- end -}}

{{- define "headrace.selector" -}}
matchLabels:
  {{- include "headrace.selectorLabels" . | nindent 2 }}
{{- end -}}

{{/* Pods that the operator makes, wherever they are. */}}
{{- define "headrace.workerPeer" -}}
namespaceSelector: {}
podSelector:
  matchLabels: {app.kubernetes.io/managed-by: headrace, app.kubernetes.io/component: worker}
{{- end -}}

{{- define "headrace.egressDns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

{{/* From any namespace. */}}
{{- define "headrace.egressRedis" -}}
{{- if .Values.redis.embedded.enabled -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}
      podSelector:
        {{- include "headrace.selector" (dict "root" . "component" "redis") | nindent 8 }}
  ports:
    - {port: 6379, protocol: TCP}
{{- else -}}
- ports:
    {{- range include "headrace.redisPorts" . | fromJsonArray }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end -}}

{{/* As JSON, each once: what the values say, and the ports in the address, of which sentinels have several. */}}
{{- define "headrace.redisPorts" -}}
{{- $external := .Values.redis.external -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.redisPorts }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- if not $external.url }}{{ $ports = append $ports (int $external.port) }}{{ end -}}
{{- with include "headrace.redisUrl" . -}}
{{- range regexFindAll ":[0-9]+(,|$)" (index (splitList "/" .) 2) -1 -}}
{{- $ports = append $ports (trimSuffix "," . | trimPrefix ":" | int) -}}
{{- end -}}
{{- end -}}
{{- toJson (default (list 6379) $ports | uniq) -}}
{{- end -}}

{{- define "headrace.ingressFrom" -}}
- ports:
    - {port: {{ .port }}, protocol: TCP}
  {{- if .from }}
  from:
    {{- toYaml (concat .from (default (list) .also)) | nindent 4 }}
  {{- end }}
{{- end -}}

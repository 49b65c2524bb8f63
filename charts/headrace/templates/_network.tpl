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

{{- define "headrace.egressRedis" -}}
{{- $redis := .Values.redis -}}
{{- if $redis.embedded.enabled }}
- to:
    - podSelector:
        {{- include "headrace.selector" (dict "root" . "component" "redis") | nindent 8 }}
  ports:
    - {port: 6379, protocol: TCP}
{{- else }}
{{- $ports := concat (list (int $redis.external.port)) .Values.networkPolicy.redisPorts }}
{{- range $redis.external.sentinel.nodes }}
{{- $ports = append $ports (splitList ":" . | last | int) }}
{{- end }}
{{- $seen := dict }}
- ports:
    {{- range $ports }}
    {{- if not (hasKey $seen (toString .)) }}
    - {port: {{ int . }}, protocol: TCP}
    {{- $_ := set $seen (toString .) true }}
    {{- end }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.ingressFrom" -}}
- ports:
    - {port: {{ .port }}, protocol: TCP}
  {{- if .from }}
  from:
    {{- toYaml (concat .from (default (list) .also)) | nindent 4 }}
  {{- end }}
{{- end -}}

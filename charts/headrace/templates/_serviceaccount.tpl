{{- define "headrace.serviceAccount" -}}
{{- if and .workload.enabled .workload.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "headrace.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "headrace.metadata" (set . "annotations" .workload.serviceAccount.annotations) | nindent 2 }}
# A pod that needs its token says so itself.
automountServiceAccountToken: false
{{- end }}
{{- end -}}

{{/* Of (dict "root" $ "component" … "spec" {…}); the caller says when. */}}
{{- define "headrace.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "headrace.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "headrace.metadata" . | nindent 2 }}
spec:
  {{- toYaml .spec | nindent 2 }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "headrace.selectorLabels" . | nindent 6 }}
{{- end -}}

{{/* What the operator may do, as operator/headrace_operator/rbac.py has it, with the reasons; a test compares the two. */}}

{{- define "headrace.rules" -}}
- {apiGroups: [headrace.dev], resources: [workerpools], verbs: [list, watch]}
- {apiGroups: [headrace.dev], resources: [workerpools/status], verbs: [patch]}
- {apiGroups: [headrace.dev], resources: [workerpools/finalizers], verbs: [update]}
- {apiGroups: [apps], resources: [deployments], verbs: [list, watch, create, patch]}
- {apiGroups: [apps], resources: [deployments/scale], verbs: [get, patch]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch, patch]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [create, patch]}
- {apiGroups: [""], resources: [events], verbs: [create]}
{{- end -}}

{{- define "headrace.leaseRules" -}}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
# Of all Leases of this namespace only its own.
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [headrace-operator], verbs: [get, update]}
{{- end -}}

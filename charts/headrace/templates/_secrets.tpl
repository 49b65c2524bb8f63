{{/* The Secrets that a release needs, and the commands that make them. */}}

{{/* What one Secret must have, as a JSON list of {key, literal}: what a shell makes of a literal is the value. Of the root. */}}
{{- define "headrace.redisNeeds" -}}
{{- $keys := .Values.redis.keys -}}
{{- $needs := list -}}
{{- if .Values.redis.embedded.enabled -}}
{{- $needs = list (dict "key" $keys.password "literal" "\"$(openssl rand -hex 24)\"") -}}
{{- else if not (include "headrace.redisUrl" .) -}}
{{- $needs = list (ternary (dict "key" $keys.url "literal" "'redis://:PASSWORD@HOST:6379/0'") (dict "key" $keys.addr "literal" "'HOST:6379'") (not (empty $keys.url))) -}}
{{- else if .Values.redis.existingSecret -}}
{{- $needs = list (dict "key" $keys.password "literal" "'PASSWORD'") -}}
{{- end -}}
{{- toJson $needs -}}
{{- end -}}

{{/* WorkerPools take the address from the Secret, by keys of these names, also where the values say it to API and operator. Of the root. */}}
{{- define "headrace.poolsNeeds" -}}
{{- $redis := .Values.redis -}}
{{- $needs := list -}}
{{- with include "headrace.redisUrl" . -}}
{{- if $redis.embedded.enabled -}}
{{- $needs = list (dict "key" "addr" "literal" (printf "%s.%s:6379" (include "headrace.redisName" $) $.Release.Namespace)) -}}
{{- else -}}
{{- $login := printf "://%s:PASSWORD@" $redis.external.username -}}
{{- $needs = list (dict "key" "url" "literal" (printf "'%s'" (replace "://" $login .))) -}}
{{- end -}}
{{- end -}}
{{- toJson $needs -}}
{{- end -}}

{{- define "headrace.tokensNeeds" -}}
{{- $needs := list -}}
{{- if and .Values.api.enabled (eq .Values.api.auth.mode "tokens") -}}
{{- $needs = list (dict "key" .Values.api.auth.key "literal" "\"admin:$(openssl rand -hex 24)\"") -}}
{{- end -}}
{{- toJson $needs -}}
{{- end -}}

{{/* Of (dict "root" $ "name" … "needs" (list {key, literal} …)). */}}
{{- define "headrace.secretLine" -}}
kubectl create secret generic {{ .name }} --namespace {{ .root.Release.Namespace }}
{{- range .needs }} --from-literal={{ .key }}={{ .literal }}{{ end -}}
{{- end -}}

{{/* What is wrong with one Secret, and on a second line the command for it; empty if nothing is. Of the same. */}}
{{- define "headrace.secretFault" -}}
{{- $namespace := .root.Release.Namespace -}}
{{- $found := lookup "v1" "Secret" $namespace .name -}}
{{- if $found -}}
{{- $lacks := list -}}
{{- $keys := list -}}
{{- range .needs -}}
{{- if not (hasKey (default (dict) $found.data) .key) }}{{ $lacks = append $lacks . }}{{ $keys = append $keys .key }}{{ end -}}
{{- end -}}
{{- if $lacks -}}
the Secret {{ .name }} in namespace {{ $namespace }} lacks the key {{ join " and the key " $keys }}
{{ include "headrace.secretLine" (dict "root" .root "name" .name "needs" $lacks) }} --dry-run=client --output=yaml | kubectl apply --server-side --filename=-
{{- end -}}
{{- else if lookup "v1" "Secret" $namespace "" -}}
{{- /* Without a cluster a lookup of all gives nothing at all; with one, at least an empty list. */ -}}
{{- $needs := .needs -}}
{{- if eq .name .root.Values.redis.existingSecret -}}
{{- $needs = concat (include "headrace.poolsNeeds" .root | fromJsonArray) $needs -}}
{{- end -}}
the Secret {{ .name }} is missing in namespace {{ $namespace }}
{{ include "headrace.secretLine" (dict "root" .root "name" .name "needs" $needs) }}
{{- end -}}
{{- end -}}

{{- define "headrace.checkSecrets" -}}
{{- if .Values.checkSecrets -}}
{{- $redis := dict "root" . "name" .Values.redis.existingSecret "needs" (include "headrace.redisNeeds" . | fromJsonArray) -}}
{{- $tokens := dict "root" . "name" (include "headrace.tokensSecret" .) "needs" (include "headrace.tokensNeeds" . | fromJsonArray) -}}
{{- $wanted := list $redis $tokens -}}
{{- if eq $redis.name $tokens.name -}}
{{- $wanted = list (set $redis "needs" (concat $redis.needs $tokens.needs)) -}}
{{- end -}}
{{- $faults := list -}}
{{- $lines := list -}}
{{- range $wanted -}}
{{- if .needs -}}
{{- with include "headrace.secretFault" . -}}
{{- $faults = append $faults (splitList "\n" . | first) -}}
{{- $lines = append $lines (splitList "\n" . | last) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "%s. Make it, then install again:\n\n%s\n\n(Something else will make it later? --set checkSecrets=false)" (join ", and " $faults) (join "\n" $lines)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

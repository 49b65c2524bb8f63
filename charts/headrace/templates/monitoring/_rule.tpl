{{/* One rule of files/rules.yaml with what the values change; nothing, if they switch it off. Of (dict "rule" … "values" …). */}}
{{- define "headrace.rule" -}}
{{- $rule := .rule -}}
{{- if not (hasKey $rule "alert") -}}
{{- toYaml $rule -}}
{{- else -}}
{{- $change := default (dict) (get (default (dict) .values.alerts) $rule.alert) -}}
{{- if dig "enabled" true $change -}}
{{- if hasKey $change "threshold" -}}
{{- $_ := set $rule "expr" (regexReplaceAll "[0-9.]+ # threshold" $rule.expr (toString $change.threshold)) -}}
{{- end -}}
{{- with $change.for -}}
{{- $_ := set $rule "for" . -}}
{{- end -}}
{{- with $change.severity -}}
{{- $_ := set $rule.labels "severity" . -}}
{{- end -}}
{{- $_ := set $rule "labels" (merge (dict) $rule.labels (default (dict) .values.alertLabels)) -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s/%s.md" (trimSuffix "/" .values.runbookUrl) $rule.alert) -}}
{{- toYaml $rule -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses changes of alerts that are none, and thresholds where none is. Of (dict "groups" … "alerts" …). It renders nothing. */}}
{{- define "headrace.checkAlerts" -}}
{{- $thresholds := dict -}}
{{- range .groups -}}
{{- range .rules -}}
{{- with .alert -}}
{{- $_ := set $thresholds . false -}}
{{- end -}}
{{- if and (hasKey . "alert") (contains "# threshold" .expr) -}}
{{- $_ := set $thresholds .alert true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $change := .alerts -}}
{{- if not (hasKey $thresholds $name) -}}
{{- fail (printf "metrics.prometheusRule.alerts.%s: there is no such alert. There are %s." $name (keys $thresholds | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if and (hasKey (default (dict) $change) "threshold") (not (get $thresholds $name)) -}}
{{- fail (printf "metrics.prometheusRule.alerts.%s.threshold: this alert has no threshold; set its `for`, its `severity`, or `enabled: false`." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

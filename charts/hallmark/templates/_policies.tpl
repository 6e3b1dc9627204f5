{{- /* What a policy of the API server does in a mode. */}}
{{- define "hallmark.validationActions" -}}
{{- get (dict "enforce" "[Deny]" "warn" "[Warn, Audit]" "audit" "[Audit]") . -}}
{{- end }}

{{- /* A name in which * stands for any characters, as a regular expression in CEL. */}}
{{- define "hallmark.nameRegexp" -}}
{{- printf "^%s$" (regexQuoteMeta . | replace "\\*" ".*") | toJson -}}
{{- end }}

{{- /* The images of a pod, each once more where it stands twice. Call with object or oldObject. A list that may not be
left out is null when it is. */}}
{{- define "hallmark.imagesOf" -}}
(has({{ . }}.spec.containers) && dyn({{ . }}.spec.containers) != null ? {{ . }}.spec.containers.map(c, has(c.image) ? c.image : "") : []) +
(has({{ . }}.spec.initContainers) ? {{ . }}.spec.initContainers.map(c, has(c.image) ? c.image : "") : []) +
(has({{ . }}.spec.ephemeralContainers) ? {{ . }}.spec.ephemeralContainers.map(c, has(c.image) ? c.image : "") : []) +
(has({{ . }}.spec.volumes) ? {{ . }}.spec.volumes.filter(v, has(v.image)).map(v, has(v.image.reference) ? v.image.reference : "") : [])
{{- end }}

{{- /* What names of allowed images begin with, as a CEL list. A pattern of repositories counts up to its first
wildcard, so this may let through more than the webhook, and never less; what is whole ends at the tag or the digest. */}}
{{- define "hallmark.prefixes" -}}
{{- $prefixes := list -}}
{{- range $registry := .Values.config.registries -}}
{{- range $pattern := $registry.repositories | default (list "**") -}}
{{- $prefix := $registry.host -}}
{{- $whole := true -}}
{{- range $segment := splitList "/" $pattern -}}
{{- if contains "*" $segment }}{{ $whole = false }}{{ end -}}
{{- if $whole }}{{ $prefix = printf "%s/%s" $prefix $segment }}{{ end -}}
{{- end -}}
{{- if $whole -}}
{{- $prefixes = concat $prefixes (list (printf "%s:" $prefix) (printf "%s@" $prefix)) -}}
{{- else -}}
{{- $prefixes = append $prefixes (printf "%s/" $prefix) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $prefixes | uniq | toJson -}}
{{- end }}

{{- /* What is allowed, for people: at most three names, and a count. */}}
{{- define "hallmark.allowed" -}}
{{- $names := list -}}
{{- range $registry := .Values.config.registries -}}
{{- range $registry.repositories | default (list "**") }}{{ $names = append $names (printf "%s/%s" $registry.host .) }}{{ end -}}
{{- end -}}
{{- if not $names -}}
no registry is configured
{{- else if gt (len $names) 3 -}}
use one of {{ slice $names 0 3 | join ", " }} and {{ sub (len $names) 3 }} more
{{- else -}}
use one of {{ join ", " $names }}
{{- end -}}
{{- end }}

{{- /* Whether an exemption covers image i in this namespace, for a rule. Call: (list $ "registry"). */}}
{{- define "hallmark.exempt" -}}
{{- $rule := index . 1 -}}
{{- range (index . 0).Values.config.exemptions -}}
{{- if has $rule .rules }} || (
{{- range $i, $name := .namespaces }}{{ if $i }} || {{ end }}request.namespace.matches({{ include "hallmark.nameRegexp" $name }}){{ end }}) && (
{{- range $i, $pattern := .images }}{{ if $i }} || {{ end }}i.matches({{ include "hallmark.imageRegexp" $pattern }}){{ end }})
{{- end -}}
{{- end -}}
{{- end }}

{{- /* A pattern of images by whole segments, as a regular expression in CEL: * is one, ** any number, at the end one or more. */}}
{{- define "hallmark.imageRegexp" -}}
{{- $expression := regexQuoteMeta . | replace "\\*\\*/" "(?:[^/]+/)*" -}}
{{- $expression = regexReplaceAll "\\\\\\*\\\\\\*$" $expression "[^@]+" | replace "\\*" "[^/:@]+" -}}
{{- printf "^%s(?::[^/@:]+)?(?:@.+)?$" $expression | toJson -}}
{{- end }}

{{- /* The weaker of two modes. */}}
{{- define "hallmark.weaker" -}}
{{- $order := list "off" "audit" "warn" "enforce" -}}
{{- $found := "" -}}
{{- range $mode := $order }}{{ if and (not $found) (has $mode $) }}{{ $found = $mode }}{{ end }}{{ end -}}
{{- $found -}}
{{- end }}

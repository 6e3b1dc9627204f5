{{/* The name that all objects begin with. 40 characters leave room for what is added. */}}
{{- define "hallmark.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What a Deployment selects its pods by. Call: (list $ "webhook") */}}
{{- define "hallmark.selector" -}}
app.kubernetes.io/name: {{ default (index . 0).Chart.Name (index . 0).Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object. Call: (list $ "webhook"), or "registration" for what belongs to neither process. */}}
{{- define "hallmark.labels" -}}
{{ include "hallmark.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" | trunc 63 }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "hallmark.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What restricted Pod Security demands, and a root filesystem that nobody can write to. */}}
{{- define "hallmark.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "hallmark.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The Secret with the serving certificate. */}}
{{- define "hallmark.tlsSecret" -}}
{{- .Values.certificates.existingSecret | default (printf "%s-tls" (include "hallmark.fullname" .)) -}}
{{- end -}}

{{/* "true" when the controller makes the certificates. */}}
{{- define "hallmark.ownCertificates" -}}
{{- if and .Values.controller.enabled (not .Values.certificates.existingSecret) (not .Values.certificates.certManager.enabled) -}}
true
{{- end -}}
{{- end -}}

{{/* The configuration file: config with what the chart knows better filled in. */}}
{{- define "hallmark.config" -}}
{{- $head := dict "apiVersion" "hallmark.dev/v1alpha1" "kind" "Configuration" -}}
{{- $config := mergeOverwrite (deepCopy .Values.config) $head -}}
{{- if and .Values.cacheVolume.enabled (not (dig "cache" "dir" "" $config)) -}}
{{- $config = mergeOverwrite $config (dict "cache" (dict "dir" "/var/cache/hallmark")) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The mode of the file, which enforces when it says nothing. */}}
{{- define "hallmark.mode" -}}
{{- .Values.config.mode | default "enforce" -}}
{{- end -}}

{{/* Fail as soon as anything is enforced: in general, by a rule, or in a namespace. */}}
{{- define "hallmark.failurePolicy" -}}
{{- $modes := list (include "hallmark.mode" .) -}}
{{- range $mode := .Values.config.rules }}{{ $modes = append $modes $mode }}{{ end -}}
{{- range .Values.config.namespaces }}{{ $modes = append $modes .mode }}{{ end -}}
{{- if ne .Values.webhook.failurePolicy "auto" -}}
{{- .Values.webhook.failurePolicy -}}
{{- else -}}
{{- has "enforce" $modes | ternary "Fail" "Ignore" -}}
{{- end -}}
{{- end -}}

{{/* Namespaces that are judged: by name and label of the namespace, never by a label of the pod. */}}
{{- define "hallmark.namespaceSelector" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: {{ concat (list "kube-system" "kube-node-lease" "kube-public" .Release.Namespace) .Values.scope.exclude | uniq | toJson }}
  {{- if eq .Values.scope.mode "labelled" }}
  - key: hallmark.dev/enforce
    operator: In
    values: ["true"]
  {{- end }}
{{- end -}}

{{/* What decides: configuration, policies and the files that the configuration names, as arguments, mounts and volumes. */}}
{{- define "hallmark.sources" -}}
- --config=/etc/hallmark/config/config.yaml
- --policies=/etc/hallmark/policies
{{- range .Values.policies.configMaps }}
- --policies=/etc/hallmark/more-policies/{{ . }}
{{- end }}
{{- end -}}

{{/* Directories, never single files by subPath: those would not change with their ConfigMap. */}}
{{- define "hallmark.sourceMounts" -}}
- {name: config, mountPath: /etc/hallmark/config, readOnly: true}
- {name: policies, mountPath: /etc/hallmark/policies, readOnly: true}
{{- range $i, $configMap := .Values.policies.configMaps }}
- {name: policies-{{ $i }}, mountPath: /etc/hallmark/more-policies/{{ $configMap }}, readOnly: true}
{{- end }}
{{- range $key, $from := .Values.files }}
- {name: file-{{ $key }}, mountPath: /etc/hallmark/{{ $key }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "hallmark.sourceVolumes" -}}
- name: config
  configMap: {name: {{ include "hallmark.fullname" . }}-config}
- name: policies
  configMap: {name: {{ include "hallmark.fullname" . }}-policies}
{{- range $i, $configMap := .Values.policies.configMaps }}
- name: policies-{{ $i }}
  configMap: {name: {{ $configMap }}}
{{- end }}
{{- range $key, $from := .Values.files }}
- name: file-{{ $key }}
  {{- if $from.secret }}
  secret: {secretName: {{ $from.secret }}}
  {{- else }}
  configMap: {name: {{ $from.configMap }}}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* What is sent to each half, by the name of its entry: images of pods, and of what makes pods of a template. DELETE
and CONNECT are not, nor are subresources that cannot change an image. */}}
{{- define "hallmark.rules" -}}
pin.hallmark.dev:
  - operations: [CREATE, UPDATE]
    apiGroups: [""]
    apiVersions: [v1]
    resources: [pods, pods/ephemeralcontainers]
    scope: Namespaced
judge.hallmark.dev:
  - operations: [CREATE, UPDATE]
    apiGroups: [""]
    apiVersions: [v1]
    resources: [pods, pods/ephemeralcontainers, replicationcontrollers, podtemplates]
    scope: Namespaced
  - operations: [CREATE, UPDATE]
    apiGroups: [apps]
    apiVersions: [v1]
    resources: [deployments, statefulsets, daemonsets, replicasets]
    scope: Namespaced
  - operations: [CREATE, UPDATE]
    apiGroups: [batch]
    apiVersions: [v1]
    resources: [jobs, cronjobs]
    scope: Namespaced
{{- end }}

{{- /* What an update leaves as it is was judged when it was written. So labels, finalizers and the scaling of a
ReplicaSet go on while no webhook answers. Of a workload the template counts; a pod has none. */}}
{{- define "hallmark.changesImages" -}}
request.operation != "UPDATE" || !has(object.spec) || !has(oldObject.spec) ||
(has(object.spec.template) && has(oldObject.spec.template)
  ? object.spec.template != oldObject.spec.template
  : object.spec != oldObject.spec)
{{- end }}

{{- /* The rest of an entry. Call: (list $ entry path timeout). The controller adds rules and caBundle last, when the
webhook answers: an entry without rules calls nobody. */}}
{{- define "hallmark.entry" -}}
{{- $root := index . 0 -}}
admissionReviewVersions: [v1]
clientConfig:
  {{- if include "hallmark.registeredByFiles" $root }}
  url: {{ trimSuffix "/" $root.Values.registration.url }}{{ index . 2 }}
  {{- else }}
  service:
    namespace: {{ $root.Release.Namespace }}
    name: {{ include "hallmark.fullname" $root }}-webhook
    port: 443
    path: {{ index . 2 }}
  {{- end }}
  {{- with $root.Values.certificates.caBundle }}
  caBundle: {{ b64enc . }}
  {{- end }}
matchPolicy: Equivalent
sideEffects: None
timeoutSeconds: {{ index . 3 }}
namespaceSelector: {{- include "hallmark.namespaceSelector" $root | nindent 2 }}
matchConditions:
  - name: changes-images
    expression: >-
      {{- include "hallmark.changesImages" $root | nindent 6 }}
{{- if not $root.Values.controller.enabled }}
rules: {{- get (include "hallmark.rules" $root | fromYaml) (index . 1) | toYaml | nindent 2 }}
{{- end }}
{{- end }}

{{- /* "true" when API servers read the registration from files. Names that end so are theirs alone. */}}
{{- define "hallmark.registeredByFiles" -}}
{{- if eq .Values.registration.from "files" }}true{{ end -}}
{{- end }}

{{- define "hallmark.registrationMetadata" -}}
name: {{ include "hallmark.fullname" . }}{{ if include "hallmark.registeredByFiles" . }}.static.k8s.io{{ end }}
labels: {{- include "hallmark.labels" (list . "registration") | nindent 2 }}
{{- if .Values.certificates.certManager.enabled }}
annotations:
  cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/{{ include "hallmark.tlsSecret" . }}
{{- end }}
{{- end }}

{{- /* The pinning half. It may fail: what it did not pin, the judging half refuses. IfNeeded calls it again when another
webhook has added a container since. */}}
{{- define "hallmark.pinning" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {{- include "hallmark.registrationMetadata" . | nindent 2 }}
webhooks:
  - name: pin.hallmark.dev
    failurePolicy: Ignore
    reinvocationPolicy: IfNeeded
    {{- include "hallmark.entry" (list . "pin.hallmark.dev" "/mutate" .Values.webhook.timeoutSeconds.mutate) | nindent 4 }}
{{- end }}

{{- define "hallmark.judging" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {{- include "hallmark.registrationMetadata" . | nindent 2 }}
webhooks:
  - name: judge.hallmark.dev
    failurePolicy: {{ include "hallmark.failurePolicy" . }}
    {{- include "hallmark.entry" (list . "judge.hallmark.dev" "/validate" .Values.webhook.timeoutSeconds.validate) | nindent 4 }}
{{- end }}

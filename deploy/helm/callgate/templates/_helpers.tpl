{{/* What is in the pod. From a chart that has this one as a dependency:
     include "callgate.container" .Subcharts.callgate */}}

{{- define "callgate.agent" -}}
{{- $name := .Values.agentName -}}
{{- if .Values.deployment }}{{ $name = default .Values.deployment.metadata.name $name }}{{ end -}}
{{- required "agentName is needed where deployment is not given" $name -}}
{{- end }}

{{- define "callgate.podLabels" -}}
callgate.dev/agent: {{ include "callgate.agent" . | quote }}
{{- end }}

{{- define "callgate.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{- define "callgate.configMap" -}}
{{- if and .Values.config .Values.existingConfigMap }}{{ fail "config and existingConfigMap exclude each other" }}{{ end -}}
{{- if .Values.config }}{{ .Values.name }}
{{- else -}}
{{- $name := required "callgate.yaml is missing: set `config` to its text, or `existingConfigMap` to the name of a ConfigMap that has it" .Values.existingConfigMap -}}
{{- /* `helm template` has no cluster to ask. */ -}}
{{- $namespaces := lookup "v1" "Namespace" "" "" -}}
{{- if and $namespaces (not (lookup "v1" "ConfigMap" .Release.Namespace $name)) -}}
{{- fail (printf "the ConfigMap %s, which `existingConfigMap` names, does not exist in the namespace %s" $name .Release.Namespace) -}}
{{- end -}}
{{- $name -}}
{{- end }}
{{- end }}

{{- define "callgate.container" -}}
name: callgate
image: {{ include "callgate.image" . | quote }}
restartPolicy: Always
args: [run, -c, /etc/callgate/callgate.yaml]
{{- if .Values.replicas.enabled }}
env:
  - { name: POD_IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
  - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
  - { name: POD_UID, valueFrom: { fieldRef: { fieldPath: metadata.uid } } }
{{- end }}
ports:
  {{- if .Values.replicas.enabled }}
  - { name: callgate-member, containerPort: {{ .Values.ports.replicas }}, protocol: TCP }
  {{- end }}
  - { name: callgate, containerPort: {{ .Values.ports.ingress }}, protocol: TCP }
  - { name: callgate-admin, containerPort: {{ .Values.ports.admin }}, protocol: TCP }
startupProbe:
  httpGet: { path: /livez, port: callgate-admin }
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /livez, port: callgate-admin }
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
readinessProbe:
  httpGet: { path: /readyz, port: callgate-admin }
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
resources: {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: { drop: [ALL] }
  privileged: false
  readOnlyRootFilesystem: true
  runAsGroup: 65532
  runAsNonRoot: true
  runAsUser: 65532
  seccompProfile: { type: RuntimeDefault }
volumeMounts:
  - { name: callgate-config, mountPath: /etc/callgate, readOnly: true }
  - { name: callgate-secrets, mountPath: /secrets, readOnly: true }
  {{- if .Values.tls.secretName }}
  - { name: callgate-tls, mountPath: /tls, readOnly: true }
  {{- end }}
  - { name: callgate-state, mountPath: /var/lib/callgate }
{{- end }}

{{- define "callgate.volumes" -}}
- name: callgate-config
  configMap: { name: {{ include "callgate.configMap" . | quote }} }
- name: callgate-secrets
  secret: { secretName: {{ .Values.secretName | quote }}, defaultMode: 0400 }
{{- if .Values.tls.secretName }}
- name: callgate-tls
  secret: { secretName: {{ .Values.tls.secretName | quote }}, defaultMode: 0400 }
{{- end }}
- name: callgate-state
  emptyDir: { sizeLimit: {{ .Values.state.sizeLimit | quote }} }
{{- end }}

{{/* The sidecar reads the files of Secrets as a member of this group. Another chart merges it into its pod:
     securityContext: {{- include "callgate.podSecurityContext" .Subcharts.callgate | nindent 8 }} */}}
{{- define "callgate.podSecurityContext" -}}
fsGroup: 65532
{{- end }}

{{- define "callgate.metadata" -}}
name: {{ .Values.name | quote }}
namespace: {{ .Release.Namespace | quote }}
labels: { app.kubernetes.io/name: callgate }
{{- end }}

{{- define "callgate.replicasMetadata" -}}
name: {{ printf "%s-replicas" .Values.name | quote }}
namespace: {{ .Release.Namespace | quote }}
labels: { app.kubernetes.io/name: callgate }
{{- end }}

{{- define "callgate.selector" -}}
matchLabels: { callgate.dev/agent: {{ include "callgate.agent" . | quote }} }
{{- end }}

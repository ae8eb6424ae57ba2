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

{{- define "callgate.container" -}}
name: callgate
image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
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
  configMap: { name: {{ .Values.name | quote }} }
- name: callgate-secrets
  secret: { secretName: {{ .Values.secretName | quote }}, defaultMode: 292 }
{{- if .Values.tls.secretName }}
- name: callgate-tls
  secret: { secretName: {{ .Values.tls.secretName | quote }}, defaultMode: 292 }
{{- end }}
- name: callgate-state
  emptyDir: { sizeLimit: {{ .Values.state.sizeLimit | quote }} }
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

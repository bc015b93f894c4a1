{{/* Name of the release's objects. */}}
{{- define "vllm-operator.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "vllm-operator.queue.fullname" -}}
{{- printf "%s-queue" (include "vllm-operator.fullname" .) -}}
{{- end -}}

{{/* Labels that never change. Argument: dict "context" $ "component" <name>. */}}
{{- define "vllm-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .context.Chart.Name }}
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. Argument: dict "context" $ "component" <name>. */}}
{{- define "vllm-operator.labels" -}}
{{ include "vllm-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .context.Chart.Name }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Reference of an image. Argument: dict "context" $ "image" <repository, tag>. */}}
{{- define "vllm-operator.image" -}}
{{- $tag := .image.tag | default .context.Chart.AppVersion -}}
{{- printf "%s%s%s" .image.repository (hasPrefix "sha256:" $tag | ternary "@" ":") $tag -}}
{{- end -}}

{{/* Security context of a pod. 65532 is the user of the operator's image; nats-server runs as any. */}}
{{- define "vllm-operator.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "vllm-operator.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where a pod may run and who may pull its images. Argument: dict "context" $ "values" <operator or queue>. */}}
{{- define "vllm-operator.scheduling" -}}
{{- with .context.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* URL of the queue for the operator and for every pod it makes. */}}
{{- define "vllm-operator.queue.url" -}}
{{- if .Values.queue.url -}}
{{- .Values.queue.url -}}
{{- else -}}
{{- printf "nats://%s.%s.svc:4222" (include "vllm-operator.queue.fullname" .) .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{/* Name of the Secret of a queue user. Argument: dict "context" $ "role" operator|agent|driver. */}}
{{- define "vllm-operator.queue.secretName" -}}
{{- $given := index .context.Values.queue.credentials.secrets .role -}}
{{- $given | default (printf "%s-%s" (include "vllm-operator.queue.fullname" .context) .role) -}}
{{- end -}}

{{/* Users' namespaces that get the Secrets of agent and driver, as a JSON list. */}}
{{- define "vllm-operator.queue.namespaces" -}}
{{- $default := .Values.watchNamespaces | default (list "default") -}}
{{- .Values.queue.namespaces | default $default | uniq | toJson -}}
{{- end -}}

{{/*
Random text of a queue user, the same wherever it is asked for: what the cluster's Secret holds, else made once per rendering
(randAlphaNum differs at each call, hence the memory in the values). Argument: dict "context" $ "role" operator|agent|driver.
*/}}
{{- define "vllm-operator.queue.entropy" -}}
{{- $memory := .context.Values.queue.generated | default dict -}}
{{- if not (hasKey $memory .role) -}}
{{- $name := include "vllm-operator.queue.secretName" . -}}
{{- $secret := lookup "v1" "Secret" .context.Release.Namespace $name | default dict -}}
{{- $kept := dig "data" "entropy" "" $secret | b64dec -}}
{{- $_ := set $memory .role ($kept | default (randAlphaNum 48)) -}}
{{- $_ := set .context.Values.queue "generated" $memory -}}
{{- end -}}
{{- index $memory .role -}}
{{- end -}}

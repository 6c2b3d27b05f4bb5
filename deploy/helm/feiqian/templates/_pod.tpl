{{/* What every pod has in common, be it a role or the migration. Context: root, configMap, serviceAccount. */}}

{{- define "feiqian.pod" -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: false
# A release called feiqian would get variables FEIQIAN_…, which are settings to the platform.
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
volumes:
  - name: config
    configMap: { name: {{ .configMap }} }
  - name: keys
    secret: { secretName: {{ .root.Values.keysSecret }}, defaultMode: 0440 }
  # Large batches spill to temporary files; the root file system is read-only.
  - name: tmp
    emptyDir: { sizeLimit: 2Gi }
{{- if eq .root.Values.store.kind "sqlite" }}
  - name: data
    persistentVolumeClaim: { claimName: {{ include "feiqian.fullname" .root }} }
{{- else }}
  - name: store
    secret: { secretName: {{ .root.Values.store.existingSecret }}, defaultMode: 0440 }
{{- with .root.Values.bus.existingSecret }}
  - name: bus
    secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- end }}
{{- end }}

{{- define "feiqian.container" -}}
command: [feiqian]
image: {{ printf "%s:%s" .root.Values.image.repository (.root.Values.image.tag | default .root.Chart.AppVersion) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
env:
  - { name: FEIQIAN_SERVER__LISTEN, value: "0.0.0.0:8080" }
  # Probes come from the node and metrics from another pod, so not the loopback default.
  - { name: FEIQIAN_SERVER__ADMIN_LISTEN, value: "0.0.0.0:9090" }
  - { name: FEIQIAN_SERVER__PUBLIC_URL, value: {{ .root.Values.publicUrl | quote }} }
{{- if eq .root.Values.store.kind "sqlite" }}
  - { name: FEIQIAN_STORE__PATH, value: /var/lib/feiqian/feiqian.db }
{{- else }}
  - { name: FEIQIAN_STORE__URL_FILE, value: /run/secrets/store/url }
{{- if .root.Values.bus.existingSecret }}
  - { name: FEIQIAN_BUS__URL_FILE, value: /run/secrets/bus/url }
{{- end }}
{{- end }}
volumeMounts:
  # By subPath, so that keys/ can lie beside the file, as in every other installation.
  - { name: config, mountPath: /etc/feiqian/feiqian.toml, subPath: feiqian.toml, readOnly: true }
  - { name: keys, mountPath: /etc/feiqian/keys, readOnly: true }
  - { name: tmp, mountPath: /tmp }
{{- if eq .root.Values.store.kind "sqlite" }}
  - { name: data, mountPath: /var/lib/feiqian }
{{- else }}
  - { name: store, mountPath: /run/secrets/store, readOnly: true }
{{- if .root.Values.bus.existingSecret }}
  - { name: bus, mountPath: /run/secrets/bus, readOnly: true }
{{- end }}
{{- end }}
{{- end }}

{{- define "hawser.serviceAccount" -}}
{{- default "hawser" .Values.serviceAccount.name -}}
{{- end -}}

{{- define "hawser.selector" -}}
app.kubernetes.io/name: hawser
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hawser.labels" -}}
{{ include "hawser.selector" . }}
app.kubernetes.io/component: node
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "hawser.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "hawser.ipv6" -}}
{{- if eq (dig "ENABLE_IPv6" "false" .Values.env | toString) "true" }}true{{ end -}}
{{- end -}}

{{- /* Whether the pod needs the directory of the AWS VPC CNI. */ -}}
{{- define "hawser.awsNode" -}}
{{- if or .Values.takeover.enabled (ne .Values.mode "run") }}true{{ end -}}
{{- end -}}

{{- /* The port in an ADDRESS:PORT setting. */ -}}
{{- define "hawser.port" -}}
{{- $address := dig .name .default .env | toString -}}
{{- regexFind "[0-9]+$" $address -}}
{{- end -}}

{{- /* Fails for an unknown setting, and suggests the most similar known one: the one with the longest common prefix and
suffix. */ -}}
{{- define "hawser.checkEnv" -}}
{{- $known := list -}}
{{- range .Files.Lines "files/settings.txt" -}}
{{- if . -}}{{- $known = append $known . -}}{{- end -}}
{{- end -}}
{{- $own := dict "MY_NODE_NAME" "the pod's own node" "HOST_CNI_BIN_PATH" "paths.cniBin" "HOST_CNI_CONFDIR_PATH" "paths.cniConf" "HAWSER_RUN_DIR" "paths.run" "HAWSER_AWS_NODE_DIR" "paths.awsNode" "HAWSER_NODE_CONDITIONS" "node.conditions" "HAWSER_NODE_EVENTS" "node.events" "HAWSER_STARTUP_TAINT" "node.startupTaint" -}}
{{- range $name, $value := .Values.env -}}
{{- if hasKey $own $name -}}
{{- fail (printf "env.%s is set by the chart, from %s." $name (get $own $name)) -}}
{{- end -}}
{{- if and (not (has $name $known)) (not (hasPrefix "OTEL_" $name)) (or (not (hasPrefix "AWS_" $name)) (hasPrefix "AWS_VPC_" $name)) (not (has $name (list "HTTP_PROXY" "HTTPS_PROXY" "NO_PROXY" "SSL_CERT_FILE" "RUST_BACKTRACE"))) -}}
{{- $best := dict "score" 0 "name" "" -}}
{{- range $candidate := $known -}}
{{- $upper := upper $name -}}
{{- $other := upper $candidate -}}
{{- $shorter := min (len $upper) (len $other) | int -}}
{{- $state := dict "head" 0 "tail" 0 "same" true -}}
{{- range $i := until $shorter -}}
{{- if and (get $state "same") (eq (substr $i (int (add $i 1)) $upper) (substr $i (int (add $i 1)) $other)) -}}
{{- $_ := set $state "head" (add1 $i) -}}
{{- else -}}
{{- $_ := set $state "same" false -}}
{{- end -}}
{{- end -}}
{{- $_ := set $state "same" true -}}
{{- range $i := until $shorter -}}
{{- $a := int (sub (len $upper) (add1 $i)) -}}
{{- $b := int (sub (len $other) (add1 $i)) -}}
{{- if and (get $state "same") (eq (substr $a (int (add1 $a)) $upper) (substr $b (int (add1 $b)) $other)) -}}
{{- $_ := set $state "tail" (add1 $i) -}}
{{- else -}}
{{- $_ := set $state "same" false -}}
{{- end -}}
{{- end -}}
{{- $score := sub (add (get $state "head") (get $state "tail")) (len $other | int64) -}}
{{- $score = add 1000 $score -}}
{{- if gt (int $score) (get $best "score" | int) -}}
{{- $_ := set $best "score" $score -}}
{{- $_ := set $best "name" $candidate -}}
{{- end -}}
{{- end -}}
{{- fail (printf "env.%s is not a setting of the daemon; did you mean %s? docs/settings.md lists all of them." $name (get $best "name")) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (dig "ENABLE_IPv4" "" .Values.env | toString) "true") (include "hawser.ipv6" .) -}}
{{- fail "env.ENABLE_IPv4 and env.ENABLE_IPv6 are both true: pods get addresses of one family. Set one of them to false." -}}
{{- end -}}
{{- $ports := dict -}}
{{- range $name, $default := (dict "HAWSER_METRICS_ADDRESS" "0.0.0.0:61678" "INTROSPECTION_BIND_ADDRESS" "127.0.0.1:61679" "HAWSER_PROBE_ADDRESS" "127.0.0.1:61680") -}}
{{- $port := include "hawser.port" (dict "env" $.Values.env "name" $name "default" $default) -}}
{{- if and $port (hasKey $ports $port) -}}
{{- fail (printf "env.%s and env.%s both use port %s of the node. Give one of them another port." (get $ports $port) $name $port) -}}
{{- end -}}
{{- if $port -}}{{- $_ := set $ports $port $name -}}{{- end -}}
{{- end -}}
{{- end -}}

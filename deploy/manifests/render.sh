#!/bin/sh
# Prints the chart as a plain manifest, with its default values and without the labels that Helm manages.
set -eu
cd "$(dirname "$0")/.."
echo "# Rendered from deploy/chart/hawser by deploy/manifests/render.sh. Do not edit: change the chart."
helm template hawser chart/hawser --namespace kube-system --no-hooks |
    sed -e '/^ *helm.sh\/chart: /d' -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' -e '/^# Source: /d'

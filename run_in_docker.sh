#!/bin/sh
# Builds the Dockerfile of a directory in Docker and pushes the image:
#
#	./run_in_docker.sh CONTEXT DESTINATION [FLAG...]
#
# FLAG is any of the executor's, as --no-push. KANIKO_IMAGE names another
# executor image than the one that `make images` loads. The context and the
# credentials of gcloud and docker are mounted read-only below /kaniko, where no
# image has files, and which no step of a build sees where the container lets us
# hide it.
set -eu

if [ $# -lt 2 ]; then
	echo "usage: $0 CONTEXT DESTINATION [FLAG...]" >&2
	exit 1
fi
if ! context=$(cd "$1" && pwd -P); then
	echo "$0: the context $1 is not a directory" >&2
	exit 1
fi
destination=$2
shift 2

set -- "${KANIKO_IMAGE:-kaniko-build/executor:latest}" --context /kaniko/context --destination "$destination" "$@"

# Each of these puts flags of docker before what is there.
gcloud=${CLOUDSDK_CONFIG:-$HOME/.config/gcloud}
key=${GOOGLE_APPLICATION_CREDENTIALS:-$gcloud/application_default_credentials.json}
if [ -f "$key" ]; then
	set -- -v "$key:/kaniko/.config/key.json:ro" -e GOOGLE_APPLICATION_CREDENTIALS=/kaniko/.config/key.json "$@"
fi
if [ -d "$gcloud" ]; then
	set -- -v "$gcloud:/kaniko/.config/gcloud:ro" -e CLOUDSDK_CONFIG=/kaniko/.config/gcloud "$@"
fi
config=${DOCKER_CONFIG:-$HOME/.docker}/config.json
if [ -f "$config" ]; then
	set -- -v "$config:/kaniko/.docker/config.json:ro" "$@"
fi

exec docker run --rm -v "$context:/kaniko/context:ro" "$@"

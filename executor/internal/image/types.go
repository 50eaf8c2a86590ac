package image

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types.
const (
	DockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	DockerIndex     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig    = "application/vnd.docker.container.image.v1+json"
	DockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"

	dockerForeign     = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	dockerForeignGzip = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	ociForeign        = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	ociForeignGzip    = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
	ociForeignZstd    = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"

	dockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// ManifestTypes are the media types that Parse understands, for Accept headers.
var ManifestTypes = []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, DockerManifest, DockerIndex}

var toOCI = map[string]string{
	DockerLayer:                     ocispec.MediaTypeImageLayer,
	DockerLayerGzip:                 ocispec.MediaTypeImageLayerGzip,
	DockerLayerZstd:                 ocispec.MediaTypeImageLayerZstd,
	dockerForeign:                   ociForeign,
	dockerForeignGzip:               ociForeignGzip,
	ocispec.MediaTypeImageLayer:     ocispec.MediaTypeImageLayer,
	ocispec.MediaTypeImageLayerGzip: ocispec.MediaTypeImageLayerGzip,
	ocispec.MediaTypeImageLayerZstd: ocispec.MediaTypeImageLayerZstd,
	ociForeign:                      ociForeign,
	ociForeignGzip:                  ociForeignGzip,
	ociForeignZstd:                  ociForeignZstd,
	"application/x-tar":             ocispec.MediaTypeImageLayer, // of very old tools
}

var toDocker = map[string]string{
	ocispec.MediaTypeImageLayer:     DockerLayer,
	ocispec.MediaTypeImageLayerGzip: DockerLayerGzip,
	ocispec.MediaTypeImageLayerZstd: DockerLayerZstd,
	ociForeign:                      dockerForeign,
	ociForeignGzip:                  dockerForeignGzip,
	ociForeignZstd:                  ociForeignZstd, // Docker has none
}

// LayerType is the OCI or Docker name of a layer's media type; ok is false if it
// is none of a layer.
func LayerType(mediaType string, docker bool) (string, bool) {
	t := toOCI[mediaType]
	if t == "" {
		return "", false
	}
	if docker {
		t = toDocker[t]
	}
	return t, true
}

// IsIndex tells whether a media type is that of an index.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == DockerIndex
}

// IsManifest tells whether a media type is that of an image's manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == DockerManifest
}

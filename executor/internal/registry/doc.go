// Package registry speaks to container registries: it finds images, streams
// their blobs into the store, and pushes.
//
// A name (image.Name) stands for a repository at a host. An endpoint is where
// that repository is asked: a mirror of the host, or the host itself. A
// download is one blob on its way into the store; it lives while anyone reads
// it, and all who want the same blob read the same download.
//
//	Resolve: HEAD, then what the store lacks of index, manifest, config
//	Blob:    registry ──GET, Range after a cut──> store ──follow──> readers
//	Push:    HEAD blob ─> mount from a sibling ─> or POST, PUT; manifests by
//	         digest, children first; PutTag is a step of its own, for the end
//
// Within a run a reference is asked once, whoever asks: the first caller's
// cancel is not the second's error. Bytes are believed only if they have the
// digest and size that their parent says; sizes of what is read into memory are
// capped. Requests that may be repeated are, with growing pauses or the
// Retry-After of the registry; a blob goes on where it was cut.
//
// Plain http is spoken to loopback addresses and to hosts that are configured as
// insecure, whose certificates are not checked either. Credentials are those of
// the docker config ($DOCKER_CONFIG or ~/.docker/config.json, with its
// credential helpers; else Podman's auth.json); see Keychain. A mirror gets the
// credentials for the mirror.
package registry

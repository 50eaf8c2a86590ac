// Package image knows what images are made of: names, manifests, configs, and
// the forms they are exported in.
//
// A descriptor names bytes by digest, size and media type. A config says how to
// run an image and lists its layers by diffID; a manifest lists the same layers
// as blobs; an index lists manifests by platform. Resolved is an image found
// somewhere, whose layers may still be there.
//
//	registry ─┐                          ┌─> store (blobs, by name)
//	layout ───┼─> Resolved ─> base       ├─> oci: layout as tar or directory
//	          │        │                 ├─> docker: what `docker load` reads
//	steps ────┴─> Assemble ─> Assembled ─┴─> tar, local: the files themselves
//
// The same layers, config and options give the same bytes, always. What is
// exported is written whole or not at all. Layers stream; memory grows with the
// number of files in an image (for tar and local), not with their size.
//
// Nothing that comes from outside is trusted: sizes are capped before reading,
// digests checked, and names in layers are resolved inside the destination.
package image
